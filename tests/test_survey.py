"""The survey against plain float64 arithmetic, and the division against what a run trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from mnistlr_core import data, fetch
from mnistlr_core import survey as surveys
from mnistlr_core.config import Inputs
from mnistlr_core.data import Dataset
from mnistlr_core.errors import ConfigError, DatasetMissing
from mnistlr_core.lab import Lab
from mnistlr_core.scaling import affine
from mnistlr_core.settings import Settings
from mnistlr_core.survey import Part, Pixels, divide, survey

PUBLISHED = {"mean": 0.1307, "std": 0.3081}  # of MNIST, as torchvision's examples have them


@pytest.fixture(scope="module")
def eights(digits: Path) -> Dataset:
    return data.load("digits", digits)


def test_the_pixels_are_as_plain_arithmetic_has_them(eights: Dataset) -> None:
    found, plain = survey(eights), np.asarray(eights.train_images, dtype=np.float64)
    assert (found.stored.low, found.stored.high) == (plain.min(), plain.max())
    assert found.stored.mean == pytest.approx(plain.mean(), rel=1e-12)
    assert found.stored.std == pytest.approx(plain.std(), rel=1e-12)
    np.testing.assert_array_equal(found.histogram, [(plain == value).sum() for value in range(256)])


def test_the_mean_images_are_as_plain_arithmetic_has_them(eights: Dataset) -> None:
    found = survey(eights)
    for label in range(10):
        plain = np.asarray(eights.train_images[eights.train_labels == label], dtype=np.float64).mean(axis=0)
        np.testing.assert_array_equal(found.means[label], np.rint(plain))
    assert found.means.dtype == np.uint8


@pytest.mark.parametrize("inputs", list(Inputs))
def test_each_scaling_is_what_the_model_gets(eights: Dataset, inputs: Inputs) -> None:
    line = affine(inputs, mean=eights.pixel_mean, std=eights.pixel_std)
    plain = np.asarray(eights.train_images, dtype=np.float64) * line.scale + line.shift
    seen = survey(eights).scaled[inputs]
    assert (seen.low, seen.high, seen.mean, seen.std) == pytest.approx(
        (plain.min(), plain.max(), plain.mean(), plain.std()), abs=1e-9
    )


def test_a_small_block_changes_nothing(eights: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = survey(eights)
    monkeypatch.setattr(surveys, "_BLOCK_BYTES", 1000)  # 15 images, which don't divide 1,437
    parts = survey(eights)
    np.testing.assert_array_equal(parts.histogram, whole.histogram)
    np.testing.assert_array_equal(parts.means, whole.means)


def test_coloured_images_keep_their_colours(eights: Dataset) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (50, 4, 5, 3), dtype=np.uint8), np.arange(50, dtype=np.uint8) % 10
    coloured = Dataset(eights.info, images, labels, images, labels, 0.5, 0.25)  # type: ignore[arg-type]
    found = survey(coloured)
    assert found.means.shape == (10, 4, 5, 3)
    np.testing.assert_array_equal(found.means[3], np.rint(images[labels == 3].astype(np.float64).mean(axis=0)))
    assert found.histogram.sum() == images.size


def test_what_all_visitors_share_can_not_be_written_to(eights: Dataset) -> None:
    found, parts = survey(eights), division(eights, 0.1)
    shared: list[NDArray[Any]] = [found.means, found.histogram, parts.counts]
    shared += [*parts.rows.values(), *parts.labels.values()]
    assert not any(array.flags.writeable for array in shared)


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=3), elements=st.integers(0, 255)))
def test_an_image_is_told_by_its_values(image: NDArray[np.uint8]) -> None:
    plain, of = image.astype(np.float64), Pixels.of(image)
    assert (of.low, of.high) == (plain.min(), plain.max())
    assert (of.mean, of.std) == pytest.approx((plain.mean(), plain.std()), abs=1e-9)


def test_no_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Pixels.of(np.zeros((0, 28), np.uint8))


def division(dataset: Dataset, valid_fraction: float) -> surveys.Division:
    return divide(dataset.train_labels, dataset.test_labels, classes=10, valid_fraction=valid_fraction)


@given(valid_fraction=st.floats(0, 0.9))
def test_the_parts_are_those_of_a_run_and_miss_no_image(eights: Dataset, valid_fraction: float) -> None:
    parts = division(eights, valid_fraction)
    held = data.split(1437, valid_fraction=valid_fraction, train_fraction=1.0)
    np.testing.assert_array_equal(parts.rows[Part.TRAIN], held.train)
    np.testing.assert_array_equal(parts.rows[Part.VALID], held.valid)
    np.testing.assert_array_equal(parts.rows[Part.TEST], np.arange(360))
    both = np.concatenate([parts.rows[Part.TRAIN], parts.rows[Part.VALID]])
    np.testing.assert_array_equal(np.sort(both), np.arange(1437))
    assert parts.counts.sum(axis=1).tolist() == [len(parts.rows[part]) for part in Part]
    np.testing.assert_array_equal(parts.counts[:2].sum(axis=0), np.bincount(eights.train_labels))


@pytest.mark.parametrize("part", list(Part))
@pytest.mark.parametrize("label", [None, 0, 7])
def test_images_are_chosen_by_part_and_class(eights: Dataset, part: Part, label: int | None) -> None:
    parts = division(eights, 0.2)
    labels = eights.test_labels if part is Part.TEST else eights.train_labels
    chosen = parts.choose(part, label)
    assert chosen.tolist() == [row for row in parts.rows[part].tolist() if label in (None, labels[row])]
    assert {parts.part_of(row, test=part is Part.TEST) for row in chosen.tolist()} == {part}


def test_without_validation_there_is_none_to_choose(eights: Dataset) -> None:
    parts = division(eights, 0.0)
    assert not len(parts.choose(Part.VALID))
    assert parts.part_of(5, test=False) is Part.TRAIN


def test_a_share_out_of_its_range_is_refused(eights: Dataset) -> None:
    with pytest.raises(ConfigError, match="valid_fraction"):
        division(eights, 1.0)


@pytest.mark.mnist
def test_mnist_has_its_published_moments(mnist_root: Path, tmp_path: Path) -> None:
    dataset = fetch.prepare("mnist", source=mnist_root, prepared=tmp_path)
    found = survey(dataset)
    unit, standardised = found.scaled[Inputs.UNIT], found.scaled[Inputs.STANDARDISED]
    assert (unit.low, unit.high) == (0, 1)
    assert {"mean": round(unit.mean, 4), "std": round(unit.std, 4)} == PUBLISHED
    assert (standardised.mean, standardised.std) == pytest.approx((0, 1), abs=1e-9)
    assert division(dataset, 0.1).counts.sum(axis=0).tolist() == [
        *(6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958)  # of all 70,000
    ]


def test_the_lab_looks_once_and_remembers_no_failure(settings: Settings, digits: Path) -> None:
    lab = Lab(settings)
    try:
        assert lab.survey("digits") is lab.survey("digits")
        assert lab.division("digits", 0.2) is lab.division("digits", 0.2)
        assert lab.division("digits", 0.2) is not lab.division("digits", 0.3)
        (settings.prepared / "digits").rename(settings.prepared / "elsewhere")
        fresh = Lab(settings)
        with pytest.raises(DatasetMissing):
            fresh.survey("digits")
        (settings.prepared / "elsewhere").rename(settings.prepared / "digits")
        assert fresh.survey("digits").stored == lab.survey("digits").stored
        fresh.close()
    finally:
        lab.close()


def test_the_lab_says_where_a_data_set_is_and_where_it_came_from(settings: Settings) -> None:
    lab = Lab(settings)
    try:
        origin = lab.origin("digits")
        assert origin.folder == settings.prepared / "digits"
        assert origin.source == "sklearn.datasets.load_digits"
        assert origin.size_bytes == sum(file.stat().st_size for file in origin.folder.glob("*.npy"))
        with pytest.raises(DatasetMissing):
            lab.origin("kmnist")
    finally:
        lab.close()
