"""Fetching a dataset on a worker: have its raw files downloaded where they aren't here, check them, publish arrays."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from mnistlr_core import data
from mnistlr_core.catalogue import DatasetInfo, dataset_info
from mnistlr_core.data import Dataset, DatasetState
from mnistlr_core.download import LAYOUTS, Layout, Say, download
from mnistlr_core.errors import DatasetDamaged, DatasetError, DatasetMissing, DownloadFailed

__all__ = ["prepare"]

Arrays = dict[str, npt.NDArray[np.uint8]]

_BEAT_SECONDS = 1.0
_DIGITS_SEED = 1797

# md5 of MNIST's unpacked files; torchvision knows only those of the .gz
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def prepare(name: str, *, source: Path, prepared: Path, deadline_seconds: float = 900.0) -> Dataset:
    """Return a dataset that is verified, fetching it first where it isn't here.

    `source` is torchvision's root: raw files that are there are used as they are, otherwise they are downloaded, and
    kept there if it is writable. One process at a time fetches a dataset; the others wait, and share its success or
    failure. Waiting and downloading together take at most `deadline_seconds`. `data.status` tells how it goes.

    Raises DownloadFailed when it didn't arrive, DatasetDamaged when a raw file isn't what it should be, and
    DatasetError when the disk refuses or the fetch that was waited for failed; none of them leaves anything behind but
    the status.
    """
    info = dataset_info(name)
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
            with _telling(info, prepared) as say:
                return _fetch(info, source, prepared, deadline, say)
    except Timeout as error:
        raise DownloadFailed(
            f"{info.title} is being fetched by another process for more than {deadline_seconds:.0f} seconds. Try again."
        ) from error
    except OSError as error:
        raise DatasetError(_in_words(info, error)) from error


def _fetch(info: DatasetInfo, source: Path, prepared: Path, deadline: float, say: Say) -> Dataset:
    """Raw files to published arrays. The scratch folder's name begins as `prepare` expects leftovers to."""
    layout = LAYOUTS.get(info.name)
    if layout is None:
        return data.publish(info.name, prepared, _read_digits(), source="sklearn.datasets.load_digits")
    if layout.is_in(source):
        return _convert(info, layout, source, prepared, say)
    scratch = (prepared / f".{info.name}-{uuid.uuid4().hex}").absolute()
    try:
        scratch.mkdir()
        download(info, scratch, deadline=deadline, say=say)
        dataset = _convert(info, layout, scratch, prepared, say)
        _keep(layout, scratch, source)
        return dataset
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(info: DatasetInfo, layout: Layout, root: Path, prepared: Path, say: Say) -> Dataset:
    say(f"Checking and converting {info.title}.", None)
    arrays, warning = (_read_cifar(info, root), None) if info.name == "cifar10" else _read_idx(info, layout, root)
    origin = f"torchvision.datasets.{layout.class_name}"
    return data.publish(info.name, prepared, arrays, source=origin, warning=warning)


@contextmanager
def _telling(info: DatasetInfo, prepared: Path) -> Iterator[Say]:
    """Repeat what was said last as the dataset's status each second, and write how the block ended."""
    said: tuple[str, float | None] = (f"Preparing {info.title}.", None)
    done = threading.Event()

    def say(message: str, fraction: float | None) -> None:
        nonlocal said
        said = message, fraction

    def tell(state: DatasetState, message: str, fraction: float | None = None) -> None:
        with suppress(OSError):  # a full disk must not hide the error that is being reported
            data.write_status(info.name, prepared, state, message, fraction=fraction)

    def repeat() -> None:
        while not done.wait(_BEAT_SECONDS):
            tell(DatasetState.FETCHING, *said)

    tell(DatasetState.FETCHING, *said)
    thread = threading.Thread(target=repeat, name=f"fetch-{info.name}", daemon=True)
    thread.start()
    failure: BaseException | None = None
    try:
        yield say
    except BaseException as error:
        failure = error
        raise
    finally:
        done.set()
        thread.join()
        if failure is None:
            with suppress(OSError):
                data.clear_status(info.name, prepared)
        else:
            damaged = isinstance(failure, DatasetDamaged)
            tell(DatasetState.DAMAGED if damaged else DatasetState.FAILED, _in_words(info, failure))


def _raise_shared_failure(name: str, prepared: Path, asked_at: float) -> None:
    """Fail as the fetch failed that we waited for, instead of repeating its wait; one that was killed is taken over."""
    told = data.status(name, prepared)
    if told.told_at is None or not asked_at <= told.told_at <= time.time():  # later than now: a clock was set back
        return
    if told.state is DatasetState.DAMAGED:
        raise DatasetDamaged(told.message)
    if told.state is DatasetState.FAILED:
        raise DatasetError(told.message)


def _in_words(info: DatasetInfo, error: BaseException) -> str:
    if isinstance(error, DatasetError):
        return str(error)
    if isinstance(error, OSError):  # its own words hold paths
        why = error.strerror or type(error).__name__
        return f"{info.title} could not be prepared: {why}. Free disk space or grant access, and try again."
    return f"Preparing {info.title} failed ({type(error).__name__}). Try again."


def _sweep(folder: Path, pattern: str) -> None:
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _keep(layout: Layout, root: Path, source: Path) -> None:
    """Move a downloaded dataset into `source` by one rename; where that fails it goes with the scratch folder."""
    mine = f".mnistlr-{layout.folder}-"
    with suppress(OSError):
        source.mkdir(parents=True, exist_ok=True)
        _sweep(source, f"{mine}*")
        if not (source / layout.folder).exists():
            staged = source / f"{mine}{uuid.uuid4().hex}"
            shutil.move(root / layout.folder, staged)  # copies when `source` is on another disk
            staged.rename(source / layout.folder)
    _sweep(source, f"{mine}*")


def _read_idx(info: DatasetInfo, layout: Layout, root: Path) -> tuple[Arrays, str | None]:
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
