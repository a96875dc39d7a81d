"""Fetching a dataset on a worker: download it, check the raw files, publish it as arrays.

torchvision downloads, in a process of its own (`python -m mnistlr_core.fetch <name> <folder>`): it has no timeout, and
a process can be killed. `MNISTLR_MIRROR`, one or more base URLs separated by spaces, replaces torchvision's mirrors;
every file is still held to torchvision's md5.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import warnings
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from mnistlr_core import data
from mnistlr_core.data import Dataset, DatasetInfo, DatasetState
from mnistlr_core.errors import DatasetDamaged, DatasetError, DatasetMissing, DownloadFailed

__all__ = ["prepare"]

Arrays = dict[str, npt.NDArray[np.uint8]]

_BEAT_SECONDS = 1.0
_SOCKET_SECONDS = 30.0  # of silence, after which the child tries the next mirror
_DIGITS_SEED = 1797

# md5 of MNIST's unpacked files; torchvision knows only those of the .gz
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """What torchvision calls a dataset, and the files it expects below the data folder."""

    class_name: str
    folder: str
    files: tuple[str, ...]

    def is_in(self, root: Path) -> bool:
        return all((root / file).is_file() for file in self.files)

    def by_hand(self) -> str:
        names = ", ".join(Path(file).name for file in self.files)
        where = Path(self.files[0]).parent.as_posix()
        return f"Try again later, or put the unpacked files by hand into {where}/ below the data folder: {names}."


def _idx(class_name: str) -> _Layout:
    return _Layout(class_name, class_name, tuple(f"{class_name}/raw/{file}" for file in _MNIST_MD5))


_CIFAR_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
_CIFAR_FOLDER = "cifar-10-batches-py"
_LAYOUTS = MappingProxyType(
    {
        "mnist": _idx("MNIST"),
        "fashion-mnist": _idx("FashionMNIST"),
        "kmnist": _idx("KMNIST"),
        "cifar10": _Layout("CIFAR10", _CIFAR_FOLDER, tuple(f"{_CIFAR_FOLDER}/{file}" for file in _CIFAR_FILES)),
    }
)


def prepare(name: str, *, source: Path, prepared: Path, deadline_seconds: float = 900.0) -> Dataset:
    """Return a dataset that is verified, fetching it first where it isn't here.

    `source` is torchvision's root: raw files that are there are used as they are, otherwise they are downloaded, and
    kept there if it is writable. One process at a time fetches a dataset; the others wait, and share its success or
    failure. Waiting and downloading together take at most `deadline_seconds`. `data.status` tells how it goes.

    Raises DownloadFailed when it didn't arrive, DatasetDamaged when a raw file isn't what it should be, and
    DatasetError when the disk refuses; none of them leaves anything behind but the status.
    """
    info = data.dataset_info(name)
    deadline = time.monotonic() + deadline_seconds
    asked_at = time.time()
    try:
        with suppress(DatasetMissing, DatasetDamaged):
            return data.verify(name, prepared)
        prepared.mkdir(parents=True, exist_ok=True)
        with FileLock(prepared / f"{name}.lock", timeout=max(0.0, deadline_seconds)):
            with suppress(DatasetMissing, DatasetDamaged):
                return data.verify(name, prepared)
            _raise_shared_failure(name, prepared, asked_at)
            _sweep(prepared, f".{name}[-.]*")  # what a killed fetch left; the lock is ours, so it is nobody's
            with _Heartbeat(info, prepared) as heartbeat:
                return _fetch(info, source, prepared, deadline, heartbeat)
    except Timeout as error:
        raise DownloadFailed(
            f"{info.title} is being fetched by another process for more than {deadline_seconds:.0f} seconds. Try again."
        ) from error
    except OSError as error:
        raise _refused(info, error) from error


def _fetch(info: DatasetInfo, source: Path, prepared: Path, deadline: float, heartbeat: _Heartbeat) -> Dataset:
    """Raw files to published arrays. The scratch folder's name starts as `prepare` expects leftovers to."""
    scratch = prepared / f".{info.name}-{uuid.uuid4().hex}"
    layout = _LAYOUTS.get(info.name)
    try:
        if layout is None:
            heartbeat.say(f"Preparing {info.title}.")
            return data.publish(info.name, prepared, _read_digits(), source="sklearn.datasets.load_digits")
        root = source
        if not layout.is_in(source):
            root = scratch.absolute()
            root.mkdir()
            _download(info, layout, root, deadline, heartbeat)
        heartbeat.say(f"Checking and converting {info.title}.")
        is_idx = info.name != "cifar10"
        arrays, warning = _read_idx(info, layout, root) if is_idx else (_read_cifar(info, root), None)
        origin = f"torchvision.datasets.{layout.class_name}"
        dataset = data.publish(info.name, prepared, arrays, source=origin, warning=warning)
        if root is not source:
            _keep(layout, root, source)
        return dataset
    except OSError as error:
        raise _refused(info, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Heartbeat:
    """Repeats the last thing said as the dataset's status each second, and writes how it ended."""

    def __init__(self, info: DatasetInfo, prepared: Path) -> None:
        self._info, self._prepared = info, prepared
        self._said: tuple[str, float | None] = (f"Preparing {info.title}.", None)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=f"fetch-{info.name}", daemon=True)

    def say(self, message: str, fraction: float | None = None) -> None:
        self._said = (message, fraction)

    def __enter__(self) -> _Heartbeat:
        self._write(DatasetState.FETCHING, *self._said)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            with suppress(OSError):
                data.clear_status(self._info.name, self._prepared)
        elif isinstance(error, DatasetError):
            state = DatasetState.DAMAGED if isinstance(error, DatasetDamaged) else DatasetState.FAILED
            self._write(state, str(error))
        else:
            self._write(
                DatasetState.FAILED, f"Preparing {self._info.title} failed ({type(error).__name__}). Try again."
            )

    def _repeat(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            self._write(DatasetState.FETCHING, *self._said)

    def _write(self, state: DatasetState, message: str, fraction: float | None = None) -> None:
        with suppress(OSError):  # a full disk must not hide the error that is being reported
            data.write_status(self._info.name, self._prepared, state, message, fraction=fraction)


def _raise_shared_failure(name: str, prepared: Path, asked_at: float) -> None:
    """Fail as the fetch failed that we waited for, instead of repeating its wait."""
    with suppress(FileNotFoundError):
        told_at = (prepared / f"{name}.status.json").stat().st_mtime
        told = data.status(name, prepared, now=told_at)  # so that a fetch that was killed is taken over, not shared
        if told_at >= asked_at and told.state is DatasetState.FAILED:
            raise DownloadFailed(told.message)
        if told_at >= asked_at and told.state is DatasetState.DAMAGED:
            raise DatasetDamaged(told.message)


def _sweep(folder: Path, pattern: str) -> None:
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _refused(info: DatasetInfo, error: OSError) -> DatasetError:
    why = error.strerror or type(error).__name__
    return DatasetError(f"{info.title} could not be prepared: {why}. Free disk space or grant access, and try again.")


def _download(info: DatasetInfo, layout: _Layout, root: Path, deadline: float, heartbeat: _Heartbeat) -> None:
    """Run torchvision's download into `root` in a child process, killed at the deadline (a time.monotonic())."""
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    log = root / "stderr.txt"
    total = info.download_bytes
    with log.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "mnistlr_core.fetch", info.name, str(root)],
            stdin=subprocess.PIPE,  # never written to: the child ends itself when our end closes
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
    try:
        while child.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DownloadFailed(f"{info.title} did not arrive in time. {layout.by_hand()}")
            done = sum(file.stat().st_size for file in root.rglob("*.gz"))
            heartbeat.say(
                f"Downloading {info.title}: {done / 1e6:.1f} of {total / 1e6:.1f} MB.", min(1.0, done / total)
            )
            with suppress(subprocess.TimeoutExpired):
                child.wait(min(0.25, left))
    finally:
        _end(child)
    if child.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").replace(str(root), "…").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {child.returncode}")
        raise DownloadFailed(f"{info.title} could not be downloaded ({last[:200]}). {layout.by_hand()}")


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the group is still the child's
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _keep(layout: _Layout, root: Path, source: Path) -> None:
    """Move a downloaded dataset into `source` by one rename; where that fails it goes with the scratch folder."""
    mine = f".mnistlr-{layout.folder}-"
    with suppress(OSError, shutil.Error):
        source.mkdir(parents=True, exist_ok=True)
        _sweep(source, f"{mine}*")
        if not (source / layout.folder).exists():
            staged = source / f"{mine}{uuid.uuid4().hex}"
            shutil.move(root / layout.folder, staged)  # copies when `source` is on another disk
            staged.rename(source / layout.folder)
    _sweep(source, f"{mine}*")


def _read_idx(info: DatasetInfo, layout: _Layout, root: Path) -> tuple[Arrays, str | None]:
    """The four IDX files as arrays, and a warning or None; each file is held to its header before any is read.

    Through torchvision's readers, not its classes: those prefer a processed/training.pt, left by an old version, to the
    raw files.
    """
    paths = {stem: root / file for stem, file in zip(info.shapes, layout.files, strict=True)}
    for stem, shape in info.shapes.items():
        # big-endian: 0x08 for uint8 and the number of dimensions (2051 images, 2049 labels), then each dimension
        header = b"".join(n.to_bytes(4, "big") for n in (0x0800 + len(shape), *shape))
        with paths[stem].open("rb") as file:
            begins = file.read(len(header))
        size, expected = paths[stem].stat().st_size, len(header) + prod(shape)
        if begins != header:
            raise _damaged(info, paths[stem], f"must begin with {header.hex(' ', 4)}, but begins {begins.hex(' ', 4)}")
        if size != expected:
            raise _damaged(info, paths[stem], f"must have {expected:,} bytes, but has {size:,}")

    from torchvision.datasets.mnist import read_image_file, read_label_file

    arrays: Arrays = {}
    for stem, path in paths.items():
        read = read_label_file if stem.endswith("labels") else read_image_file
        arrays[stem] = read(str(path)).numpy().astype(np.uint8, copy=False)
    return arrays, _check_mnist(info, paths, arrays) if info.name == "mnist" else None


def _check_mnist(info: DatasetInfo, paths: dict[str, Path], arrays: Arrays) -> str | None:
    """Hold MNIST's files to the published ones: a small difference in the training images is a warning."""
    warning = None
    for stem, path in paths.items():
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 == _MNIST_MD5[path.name]:
            continue
        mean = float(arrays["train_images"].mean() / 255)
        if stem != "train_images" or abs(mean - 0.1307) > 1e-4:  # the published mean
            raise _damaged(info, path, f"must have md5 {_MNIST_MD5[path.name]}, but has {md5}")
        warning = f"{path.name} is not byte for byte the published file (md5 {md5}), but its mean is the published one."
    return warning


def _read_cifar(info: DatasetInfo, root: Path) -> Arrays:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    for file, md5 in (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])):
        if not check_integrity(root / CIFAR10.base_folder / file, md5):  # pickles: nothing else may be opened
            raise _damaged(info, root / CIFAR10.base_folder / file, f"must have md5 {md5}, but has another")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy deprecates how these pickles of 2009 spell a dtype
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    return {
        "train_images": train.data,
        "train_labels": np.asarray(train.targets, np.uint8),
        "test_images": test.data,
        "test_labels": np.asarray(test.targets, np.uint8),
    }


def _read_digits() -> Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)  # [1797, 8, 8], from 0..16
    labels = digits.target.astype(np.uint8)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=_DIGITS_SEED)
    train, test = np.sort(train), np.sort(test)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def _damaged(info: DatasetInfo, path: Path, what: str) -> DatasetDamaged:
    return DatasetDamaged(
        f"{info.title} is damaged: {path.name} {what}. "
        "Replace it with the published file, or delete it to have the dataset downloaded again."
    )


def _download_here(name: str, root: str) -> int:
    """The child's whole life: try each mirror in turn; what went wrong is the last line on stderr."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    socket.setdefaulttimeout(_SOCKET_SECONDS)
    from torchvision import datasets

    kind: Any = getattr(datasets, _LAYOUTS[name].class_name)
    mirrors = [url.rstrip("/") + "/" for url in os.environ.get("MNISTLR_MIRROR", "").split()]
    if name == "cifar10":
        mirrors = [mirror + kind.filename for mirror in mirrors] or [kind.url]
    failures = []
    for mirror in mirrors or kind.mirrors:
        # one at a time: torchvision itself goes on to the next mirror only after some kinds of failure
        setattr(kind, *(("url", mirror) if name == "cifar10" else ("mirrors", [mirror])))
        try:
            kind(root, download=True)
        except Exception as error:  # whatever a mirror makes torchvision raise, the next one may do better
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failures.append(f"{urlsplit(mirror).hostname}: {lines[-1]}")
        else:
            return 0
    print("; ".join(failures), file=sys.stderr)
    return 1


def _exit_with_parent() -> None:
    while os.read(0, 1):  # b"" once the parent closed its end, or died; sys.stdin would hold a lock at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(_download_here(*sys.argv[1:]))
