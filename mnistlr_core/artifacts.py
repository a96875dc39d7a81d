"""Weights, predictions and checkpoints as files, through fsspec: a folder by default, any fsspec URL by setting.

A file is written aside, flushed to the disk and then renamed, so that a reader sees all of it or none. What the store
keeps of it, path, size and sha256, is checked at every reading. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from mnistlr_core.errors import ArtifactDamaged, ArtifactMissing

__all__ = ["Artifacts", "Stored"]

_NAME = re.compile(r"[0-9a-z][0-9a-z.-]*")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as the store knows it."""

    path: str
    size: int
    sha256: str


class Artifacts:
    """Files under one fsspec URL, two levels deep: `<run id>/<name>`.

    Raises:
        ArtifactMissing: reading a file that is gone.
        ArtifactDamaged: reading a file whose size or sha256 is not the recorded one.
        OSError: the disk is full, or the place can't be written.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = url_to_fs(url)

    def write(self, folder: str, name: str, data: bytes) -> Stored:
        """Write `data` durably; an existing file of that name is replaced in one step."""
        path = f"{_checked(folder)}/{_checked(name)}"
        if isinstance(self._fs, LocalFileSystem):
            _write_durably(Path(self._root, path), data)
        else:  # object stores publish an object whole or not at all
            self._fs.pipe_file(f"{self._root}/{path}", data)
        return Stored(path, len(data), hashlib.sha256(data).hexdigest())

    def read(self, stored: Stored) -> bytes:
        """The bytes that were written, proved by size and sha256."""
        folder, _, name = stored.path.partition("/")
        path = f"{self._root}/{_checked(folder)}/{_checked(name)}"
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            raise ArtifactMissing(f"the file {stored.path} is gone; train the run again to make it anew") from None
        if len(data) != stored.size or hashlib.sha256(data).hexdigest() != stored.sha256:
            message = (
                f"the file {stored.path} is not the one that was written ({len(data)} bytes, {stored.size} expected)"
            )
            raise ArtifactDamaged(f"{message}; train the run again to make it anew")
        return data

    def delete(self, folder: str, *, keep: frozenset[str] = frozenset()) -> None:
        """Remove a run's files, but for those paths (`folder/name`) in `keep`."""
        place = f"{self._root}/{_checked(folder)}"
        if not self._fs.exists(place):
            return
        if not keep:
            self._fs.rm(place, recursive=True)
            return
        for found in self._fs.ls(place, detail=False):
            if f"{folder}/{Path(found).name}" not in keep:
                self._fs.rm_file(found)


def _checked(name: str) -> str:
    """Names come from the store, never from a user; this is the second wall."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"an artifact's name must be lower-case letters, digits, dots and dashes; got {name!r}")
    return name


def _write_durably(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk too; Windows has no handle on a directory
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
