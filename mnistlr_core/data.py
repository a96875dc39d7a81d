"""Prepared datasets, uint8 arrays on disk: opening, checking, publishing and splitting them.

A prepared dataset is a folder that appears whole or not at all, by one rename:

    <prepared>/<name>/train_images.npy  train_labels.npy  test_images.npy  test_labels.npy  meta.json
    <prepared>/<name>.status.json       what the fetcher is doing, or why it failed

Every process memory-maps the same files, the UI included, so this module needs numpy alone. What downloads and
converts is `fetch`, on a worker.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlr_core.catalogue import DatasetInfo, dataset_info
from mnistlr_core.errors import ConfigError, DatasetDamaged, DatasetMissing, Problem

__all__ = [
    "Dataset",
    "DatasetState",
    "DatasetStatus",
    "Origin",
    "Split",
    "clear_status",
    "load",
    "origin",
    "publish",
    "split",
    "status",
    "verify",
    "write_status",
]

ByteArray = np.memmap[Any, np.dtype[np.uint8]]

_FORMAT = 1  # of meta.json
_SPLIT_SEED = 20_240_229  # changing it changes every run's validation images
_STALE_AFTER_SECONDS = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """One dataset's arrays, read-only and mapped from disk.

    Images are uint8 [n, height, width] or [n, height, width, channel], 0..255; labels are uint8 [n], an index into
    `info.classes`. `pixel_mean` and `pixel_std` are of the training images divided by 255, over all pixels at once.
    """

    info: DatasetInfo
    train_images: ByteArray
    train_labels: ByteArray
    test_images: ByteArray
    test_labels: ByteArray
    pixel_mean: float
    pixel_std: float


def load(name: str, prepared: Path) -> Dataset:
    """Map a prepared dataset, after a check that costs no more than opening its files and reading the labels.

    Raises DatasetMissing where it isn't prepared, and DatasetDamaged where a file's size, shape or type isn't what
    it was when published, or a label isn't one. The images are checked by `verify`.
    """
    info = dataset_info(name)
    meta = _read_meta(info, prepared)
    arrays: dict[str, ByteArray] = {}
    for stem, shape in info.shapes.items():
        path = prepared / name / f"{stem}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(info, path.name, f"can't be opened ({type(error).__name__})") from error
        _check(info, path.name, array, shape)
        arrays[stem] = array
    return Dataset(info=info, **arrays, pixel_mean=meta["pixel_mean"], pixel_std=meta["pixel_std"])


def verify(name: str, prepared: Path) -> Dataset:
    """Load a dataset and check every byte of it against what was published; a worker does so before it trains.

    MNIST's 55 MB take about 50 ms once per process; a file whose size and modification time stay the same isn't read
    again. Raises as `load` does.
    """
    dataset = load(name, prepared)
    files = _read_meta(dataset.info, prepared)["files"]
    for stem in dataset.info.shapes:
        path = prepared / name / f"{stem}.npy"
        stat = path.stat()
        if _sha256(path, stat.st_size, stat.st_mtime_ns) != files[stem]["sha256"]:
            raise _damaged(dataset.info, path.name, "has another sha256 than when it was published")
    return dataset


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a prepared dataset is and which reader its raw files went through, such as `torchvision.datasets.MNIST`."""

    folder: Path
    source: str
    size_bytes: int


def origin(name: str, prepared: Path) -> Origin:
    """Where a prepared dataset is and where it came from. Raises DatasetMissing, DatasetDamaged."""
    meta = _read_meta(dataset_info(name), prepared)
    size = sum(file["size"] for file in meta["files"].values())
    return Origin(folder=prepared / name, source=str(meta.get("source", "unknown")), size_bytes=size)


def publish(
    name: str, prepared: Path, arrays: Mapping[str, npt.NDArray[np.uint8]], *, source: str, warning: str | None = None
) -> Dataset:
    """Check arrays and make them the prepared dataset, in place of one that may be there.

    `arrays` holds those of `Dataset` by name; `source` and `warning` are sentences kept in meta.json. Two publishers of
    one dataset must exclude each other, as `fetch.prepare` does with its lock. Raises DatasetDamaged, and leaves
    everything as it was, when an array isn't what DATASETS says.
    """
    info = dataset_info(name)
    for stem, shape in info.shapes.items():
        _check(info, stem, arrays[stem], shape)
    mean, std = _moments(arrays["train_images"])
    if std == 0:  # a file of zeros has the right size, and would divide by zero once standardised
        raise _damaged(info, "train_images", "must hold pixels that differ, but all are the same")
    files: dict[str, dict[str, Any]] = {}
    scratch = prepared / f".{name}-{uuid.uuid4().hex}"
    try:
        (scratch / "new").mkdir(parents=True)
        for stem in info.shapes:
            path = scratch / "new" / f"{stem}.npy"
            with path.open("wb") as file:
                np.save(file, np.ascontiguousarray(arrays[stem]), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            stat = path.stat()
            files[stem] = {"size": stat.st_size, "sha256": _sha256(path, stat.st_size, stat.st_mtime_ns)}
        meta = {"format": _FORMAT, "name": name, "source": source, "warning": warning, "files": files}
        _write_json(scratch / "new" / "meta.json", meta | {"pixel_mean": mean, "pixel_std": std})
        with suppress(FileNotFoundError):  # a damaged one steps aside, and goes with the scratch folder
            (prepared / name).rename(scratch / "old")
        (scratch / "new").rename(prepared / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return load(name, prepared)


class DatasetState(StrEnum):
    """Where a dataset stands on this machine."""

    READY = "ready"
    FETCHING = "fetching"
    MISSING = "missing"
    FAILED = "failed"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """Where a dataset stands, in words fit for the page; `fraction` is 0..1 while a fetch knows how far it is."""

    name: str
    state: DatasetState
    message: str
    fraction: float | None = None
    warning: str | None = None
    told_at: float | None = None  # when a fetch said so, in seconds since the epoch


def status(name: str, prepared: Path) -> DatasetStatus:
    """Where a dataset stands, from two small files: cheap enough for every rerun of a page."""
    info = dataset_info(name)
    told = _read_status(info, prepared)
    try:
        warning = _read_meta(info, prepared)["warning"]
    except (DatasetMissing, DatasetDamaged) as error:
        state = DatasetState.MISSING if isinstance(error, DatasetMissing) else DatasetState.DAMAGED
        return told or DatasetStatus(name, state, str(error))
    counts = f"{info.train_size:,} training and {info.test_size:,} test images"
    return DatasetStatus(name, DatasetState.READY, f"{info.title} is ready: {counts}.", warning=warning)


def write_status(
    name: str, prepared: Path, state: DatasetState, message: str, *, fraction: float | None = None
) -> None:
    """Tell `status` what a fetch is doing; one that says FETCHING must be repeated well within 30 seconds."""
    told = {"state": str(state), "message": message, "fraction": fraction, "heartbeat": time.time()}
    _write_json(prepared / f"{name}.status.json", told)


def clear_status(name: str, prepared: Path) -> None:
    """Forget what a fetch has told; a dataset that is ready speaks for itself."""
    (prepared / f"{name}.status.json").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices into the training images, int64 and ascending: those to train on, and those held out."""

    train: npt.NDArray[np.int64]
    valid: npt.NDArray[np.int64]


def split(n_train: int, *, valid_fraction: float, train_fraction: float) -> Split:
    """Hold out a share for validation, and use a share of the rest; the same for every run, so that runs compare.

    The held-out images depend on `n_train` and `valid_fraction` alone, and a smaller share to train on is part of a
    larger one. One image at least is left to train on. Raises ConfigError for a share out of its range.
    """
    rules = (
        ("n_train", "must be at least 1", n_train, n_train >= 1),
        ("valid_fraction", "must be at least 0 and below 1", valid_fraction, 0 <= valid_fraction < 1),
        ("train_fraction", "must be above 0 and at most 1", train_fraction, 0 < train_fraction <= 1),
    )
    if problems := tuple(Problem(field, rule, str(value)) for field, rule, value, holds in rules if not holds):
        raise ConfigError(problems)
    order = np.random.Generator(np.random.PCG64(_SPLIT_SEED)).permutation(n_train)  # int64 [n_train]
    n_valid = min(round(n_train * valid_fraction), n_train - 1)
    n_used = max(1, round((n_train - n_valid) * train_fraction))
    # ascending, because gathering rows in memory order is faster
    return Split(train=np.sort(order[n_valid : n_valid + n_used]), valid=np.sort(order[:n_valid]))


def _read_meta(info: DatasetInfo, prepared: Path) -> dict[str, Any]:
    """meta.json, whose every field that is read later is there, and fits the sizes of the files beside it."""
    folder = prepared / info.name
    if not folder.is_dir():
        how = f"downloaded ({info.download_bytes / 1e6:.0f} MB)" if info.download_bytes else "made from scikit-learn"
        raise DatasetMissing(f"{info.title} isn't here yet; it is {how} when it is first needed.")
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        known = meta["format"] == _FORMAT and meta["name"] == info.name and isinstance(meta["warning"], str | None)
        sound = isfinite(meta["pixel_mean"]) and meta["pixel_std"] > 0
        sizes = {stem: (meta["files"][stem]["size"], meta["files"][stem]["sha256"]) for stem in info.shapes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(info, "meta.json", f"can't be read ({type(error).__name__})") from error
    if not (known and sound):
        raise _damaged(info, "meta.json", "isn't what this version of mnistlr wrote")
    for stem, (size, _) in sizes.items():
        path = folder / f"{stem}.npy"
        with suppress(OSError):  # gone, or replaced this instant
            if path.stat().st_size == size:
                continue
        raise _damaged(info, path.name, f"is gone, or has another size than its {size} bytes")
    return meta


def _read_status(info: DatasetInfo, prepared: Path) -> DatasetStatus | None:
    """What the fetcher told last; None where it told nothing that can be read."""
    try:
        told = json.loads((prepared / f"{info.name}.status.json").read_text(encoding="utf-8"))
        state, message = DatasetState(told["state"]), str(told["message"])
        fraction = None if told["fraction"] is None else min(1.0, max(0.0, float(told["fraction"])))
        told_at = float(told["heartbeat"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if state is DatasetState.FETCHING and abs(time.time() - told_at) > _STALE_AFTER_SECONDS:  # abs: clocks are set back
        message = f"The fetch of {info.title} was interrupted; it starts again when the dataset is next needed."
        return DatasetStatus(info.name, DatasetState.FAILED, message)
    return DatasetStatus(info.name, state, message, fraction, told_at=told_at)


def _check(info: DatasetInfo, file: str, array: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if array.dtype != np.uint8 or array.shape != shape:
        raise _damaged(info, file, f"must hold uint8 {shape}, but holds {array.dtype} {array.shape}")
    last = len(info.classes) - 1
    if len(shape) == 1 and (found := np.unique(array).tolist()) != list(range(last + 1)):
        raise _damaged(info, file, f"must hold each label from 0 to {last} and no other, but holds {found}")


def _moments(images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels / 255, from counts: no float copy, which takes 8 times the memory."""
    counts = sum(np.bincount(block.ravel(), minlength=256) for block in np.array_split(images, 16))
    values, shares = np.arange(256) / 255, counts / images.size
    mean = float(shares @ values)
    return mean, float(np.sqrt(shares @ (values - mean) ** 2))


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """The file's sha256; size and modification time only make the cache notice a file that changed."""
    del size, mtime_ns
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write beside, flush, rename: a reader finds the old file or the new one."""
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _damaged(info: DatasetInfo, file: str, what: str) -> DatasetDamaged:
    return DatasetDamaged(f"{info.title} is damaged: {file} {what}. It is prepared again when it is next needed.")
