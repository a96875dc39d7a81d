"""Prepared datasets: what is published loads, what was damaged is refused, and the split never moves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core import catalogue, data
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.data import DatasetState
from mnistlr_core.errors import ConfigError, DatasetDamaged, DatasetMissing

STEMS = ("train_images", "train_labels", "test_images", "test_labels")


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """Arrays as `publish` wants them: made-up pixels, and labels that go round."""
    return {
        stem: np.resize(np.arange(256 if stem.endswith("images") else 10, dtype=np.uint8), shape)
        for stem, shape in DATASETS[name].shapes.items()
    }


@pytest.fixture
def copy(digits: Path, tmp_path: Path) -> Path:
    """A copy of the prepared digits that a test may break."""
    shutil.copytree(digits / "digits", tmp_path / "digits")
    return tmp_path


def test_exactly_the_public_names_are_exported() -> None:
    assert catalogue.__all__ == ["DATASETS", "DatasetInfo", "dataset_info"]
    assert data.__all__ == [
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


def test_the_catalogue_says_what_each_dataset_is() -> None:
    assert list(DATASETS) == ["mnist", "fashion-mnist", "kmnist", "cifar10", "digits"]
    assert {name: info.pixels for name, info in DATASETS.items()} == {
        "mnist": 784,
        "fashion-mnist": 784,
        "kmnist": 784,
        "cifar10": 3072,
        "digits": 64,
    }
    for info in DATASETS.values():
        assert len(info.classes) == 10
        assert info.sentence.endswith(".")
    assert "scikit-learn" in DATASETS["digits"].sentence
    assert "not MNIST" in DATASETS["digits"].sentence


def test_the_ui_side_loads_neither_torch_nor_sklearn() -> None:
    code = "import sys, mnistlr_core.data; print({'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_digits_load_as_read_only_bytes_mapped_from_disk(digits: Path) -> None:
    dataset = data.load("digits", digits)
    for stem in STEMS:
        array = getattr(dataset, stem)
        assert isinstance(array, np.memmap)
        assert array.dtype == np.uint8
        assert array.shape == DATASETS["digits"].shapes[stem]
        assert not array.flags.writeable
    scaled = np.asarray(dataset.train_images) / 255
    assert dataset.pixel_mean == pytest.approx(scaled.mean(), abs=1e-12)
    assert dataset.pixel_std == pytest.approx(scaled.std(), abs=1e-12)


def test_digits_are_the_same_1437_and_360_on_every_machine(digits: Path) -> None:
    dataset = data.verify("digits", digits)
    digest = hashlib.sha256(dataset.train_labels.tobytes() + dataset.test_labels.tobytes()).hexdigest()
    assert digest[:16] == "d4cb02fdfe3ff790"
    assert int(dataset.train_images.max()) == 255
    share = np.bincount(dataset.test_labels) / np.bincount(np.r_[dataset.train_labels, dataset.test_labels])
    assert np.all(np.abs(share - 360 / 1797) < 0.01)  # stratified


@pytest.mark.parametrize("name", ["imagenet", "MNIST", "../digits", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str, digits: Path) -> None:
    for ask in (data.load, data.verify, data.status):
        with pytest.raises(DatasetMissing, match="one of mnist, fashion-mnist, kmnist, cifar10, digits"):
            ask(name, digits)


def test_what_is_not_prepared_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"MNIST isn't here yet; it is downloaded \(12 MB\)"):
        data.load("mnist", tmp_path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def scribble_header(path: Path) -> None:
    path.write_bytes(b"\0" * 16 + path.read_bytes()[16:])


def retype(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'|u1'", b"'|i1'", 1))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("harm", [truncate, lengthen, scribble_header, retype, Path.unlink])
def test_load_refuses_a_file_of_another_size_shape_or_type(copy: Path, stem: str, harm: Callable[[Path], None]) -> None:
    harm(copy / "digits" / f"{stem}.npy")
    with pytest.raises(DatasetDamaged, match=rf"Digits 8×8 is damaged: {stem}\.npy .* prepared again"):
        data.load("digits", copy)


def test_load_refuses_swapped_files(copy: Path) -> None:
    folder = copy / "digits"
    (folder / "train_labels.npy").rename(folder / "aside")
    (folder / "test_labels.npy").rename(folder / "train_labels.npy")
    (folder / "aside").rename(folder / "test_labels.npy")
    with pytest.raises(DatasetDamaged, match=r"train_labels\.npy is gone, or has another size than its 1565 bytes"):
        data.load("digits", copy)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 1}', '{"format": 2}', "null", '{"format": 1, "name": "mnist"}']
)
def test_load_refuses_a_meta_that_it_cannot_read(copy: Path, text: str) -> None:
    (copy / "digits" / "meta.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetDamaged, match=r"meta\.json"):
        data.load("digits", copy)
    assert data.status("digits", copy).state is DatasetState.DAMAGED


@pytest.mark.parametrize("field", ["pixel_mean", "pixel_std"])
def test_load_refuses_a_mean_that_is_not_a_number(copy: Path, field: str) -> None:
    path = copy / "digits" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: float("nan")}))
    with pytest.raises(DatasetDamaged, match=r"meta\.json"):
        data.load("digits", copy)


def test_verify_finds_one_flipped_bit_even_after_it_was_verified(copy: Path) -> None:
    data.verify("digits", copy)
    path = copy / "digits" / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    then = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(then, then + 1))  # a write right after another may get the same time: clocks of files are coarse
    data.load("digits", copy)
    with pytest.raises(DatasetDamaged, match=r"train_images\.npy has another sha256"):
        data.verify("digits", copy)


def test_load_refuses_labels_out_of_range_whatever_the_sha256_says(copy: Path) -> None:
    path, meta = copy / "digits" / "test_labels.npy", copy / "digits" / "meta.json"
    content = bytearray(path.read_bytes())
    content[-1] = 10
    path.write_bytes(content)
    told = json.loads(meta.read_text())
    told["files"]["test_labels"]["sha256"] = hashlib.sha256(content).hexdigest()
    meta.write_text(json.dumps(told))
    with pytest.raises(DatasetDamaged, match=r"test_labels\.npy must hold each label from 0 to 9 and no other"):
        data.load("digits", copy)


def test_publish_keeps_bytes_source_and_warning(tmp_path: Path) -> None:
    arrays = arrays_of("digits")
    arrays["train_images"][:] = np.random.default_rng(0).integers(0, 256, arrays["train_images"].shape)
    dataset = data.publish("digits", tmp_path, arrays, source="a test", warning="Made up.")
    for stem in STEMS:
        np.testing.assert_array_equal(getattr(dataset, stem), arrays[stem])
    data.verify("digits", tmp_path)
    told = data.status("digits", tmp_path)
    assert (told.state, told.warning) == (DatasetState.READY, "Made up.")
    assert told.message == "Digits 8×8 is ready: 1,437 training and 360 test images."
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_publish_replaces_what_is_there(copy: Path) -> None:
    truncate(copy / "digits" / "train_images.npy")
    data.publish("digits", copy, arrays_of("digits"), source="a test")
    assert data.verify("digits", copy).train_images[0, 0].tolist() == list(range(8))
    assert [path.name for path in copy.iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("stem", "array", "says"),
    [
        ("train_images", np.zeros((1437, 8, 8), np.float32), "train_images must hold uint8"),
        ("train_images", np.zeros((1436, 8, 8), np.uint8), "train_images must hold uint8"),
        ("train_images", np.zeros((1437, 8, 8), np.uint8), "train_images must hold pixels that differ"),
        ("test_images", np.zeros((360, 64), np.uint8), "test_images must hold uint8"),
        ("train_labels", np.full(1437, 3, np.uint8), "train_labels must hold each label"),
        ("test_labels", (np.arange(360) % 11).astype(np.uint8), "test_labels must hold each label"),
    ],
)
def test_publish_refuses_what_the_catalogue_does_not_say(
    tmp_path: Path, stem: str, array: np.ndarray, says: str
) -> None:
    with pytest.raises(DatasetDamaged, match=says):
        data.publish("digits", tmp_path, arrays_of("digits") | {stem: array}, source="a test")
    assert list(tmp_path.iterdir()) == []


def test_publish_leaves_nothing_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        data.publish("digits", tmp_path, arrays_of("digits"), source="a test")
    assert list(tmp_path.iterdir()) == []


def test_a_status_is_told_and_forgotten(tmp_path: Path) -> None:
    assert data.status("mnist", tmp_path).state is DatasetState.MISSING
    before = time.time()
    data.write_status("mnist", tmp_path, DatasetState.FETCHING, "Downloading.", fraction=0.25)
    told = data.status("mnist", tmp_path)
    assert told.told_at is not None
    assert before <= told.told_at <= time.time()
    assert (told.state, told.message, told.fraction) == (DatasetState.FETCHING, "Downloading.", 0.25)
    data.clear_status("mnist", tmp_path)
    data.clear_status("mnist", tmp_path)
    assert data.status("mnist", tmp_path).state is DatasetState.MISSING
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [31, -60])
def test_a_fetch_without_a_heartbeat_was_interrupted(tmp_path: Path, seconds: float) -> None:
    data.write_status("mnist", tmp_path, DatasetState.FETCHING, "Downloading.", fraction=0.25)
    path = tmp_path / "mnist.status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"heartbeat": time.time() - seconds}))
    told = data.status("mnist", tmp_path)
    assert (told.state, told.fraction) == (DatasetState.FAILED, None)
    assert "interrupted" in told.message


def test_ready_speaks_louder_than_an_old_status(copy: Path) -> None:
    data.write_status("digits", copy, DatasetState.FAILED, "It failed.")
    assert data.status("digits", copy).state is DatasetState.READY


def test_a_failed_repair_speaks_louder_than_the_damage(copy: Path) -> None:
    (copy / "digits" / "meta.json").unlink()
    data.write_status("digits", copy, DatasetState.FAILED, "It failed.")
    assert data.status("digits", copy).message == "It failed."


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"state": "asleep", "message": "", "fraction": 0, "heartbeat": 0}'])
def test_a_status_that_cannot_be_read_is_no_status(tmp_path: Path, text: str) -> None:
    (tmp_path / "mnist.status.json").write_text(text)
    assert data.status("mnist", tmp_path).state is DatasetState.MISSING


sizes = st.integers(1, 5000)
valid_fractions = st.floats(0, 1, exclude_max=True)
train_fractions = st.floats(0, 1, exclude_min=True)


@given(sizes, valid_fractions, train_fractions)
def test_a_split_is_disjoint_ascending_and_as_large_as_asked(n: int, valid: float, train: float) -> None:
    parts = data.split(n, valid_fraction=valid, train_fraction=train)
    both = np.concatenate([parts.train, parts.valid])
    assert len(np.unique(both)) == len(both)
    assert both.min() >= 0
    assert both.max() < n
    for part in (parts.train, parts.valid):
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)
    assert len(parts.valid) == min(round(n * valid), n - 1)
    assert len(parts.train) == max(1, round((n - len(parts.valid)) * train))


@given(sizes, valid_fractions, train_fractions, train_fractions)
def test_held_out_images_depend_on_their_share_alone(n: int, valid: float, some: float, more: float) -> None:
    some, more = sorted((some, more))
    one = data.split(n, valid_fraction=valid, train_fraction=some)
    two = data.split(n, valid_fraction=valid, train_fraction=more)
    np.testing.assert_array_equal(one.valid, two.valid)
    assert set(one.train.tolist()) <= set(two.train.tolist())


@given(sizes)
def test_nothing_held_out_is_everything_in_order(n: int) -> None:
    parts = data.split(n, valid_fraction=0, train_fraction=1)
    np.testing.assert_array_equal(parts.train, np.arange(n))
    assert len(parts.valid) == 0


def test_the_split_of_mnist_never_changes() -> None:
    parts = data.split(60_000, valid_fraction=0.1, train_fraction=0.5)
    assert (len(parts.train), len(parts.valid)) == (27_000, 6_000)
    digest = hashlib.sha256(parts.train.astype("<i8").tobytes() + parts.valid.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "331246f09b441d53"


@pytest.mark.parametrize(
    ("n", "valid", "train", "fields"),
    [
        (0, 0.1, 1.0, ["n_train"]),
        (10, 1.0, 1.0, ["valid_fraction"]),
        (10, -0.1, 0.0, ["valid_fraction", "train_fraction"]),
        (10, float("nan"), float("nan"), ["valid_fraction", "train_fraction"]),
    ],
)
def test_a_split_out_of_range_is_refused_with_every_problem(
    n: int, valid: float, train: float, fields: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        data.split(n, valid_fraction=valid, train_fraction=train)
    assert [problem.field for problem in caught.value.problems] == fields
