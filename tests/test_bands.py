"""The numbers of a band over seeds, and what is drawn of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnistlr_core import bands, records
from mnistlr_core.articles import RECIPES, Claimed, Relation
from mnistlr_core.bands import bands_figure
from mnistlr_core.charts import PALETTE, RunCurves, curves
from mnistlr_core.records import EpochRow

RISING = (0.5, 0.7, 0.8)
HIGHER = (0.7, 0.8, 0.9)


def test_exactly_the_public_names_are_exported() -> None:
    assert bands.__all__ == ["Band", "bands", "bands_figure"]


def test_a_band_is_mean_lowest_and_highest_of_the_seeds() -> None:
    training, validation = bands.bands([run(RISING), run(HIGHER)])
    assert (training.split, validation.split) == ("Training", "Validation")
    assert training.epochs.tolist() == [1, 2, 3]
    np.testing.assert_allclose(training.mean, np.mean([RISING, HIGHER], axis=0), rtol=1e-6)
    np.testing.assert_allclose(training.low, RISING, rtol=1e-6)
    np.testing.assert_allclose(training.high, HIGHER, rtol=1e-6)
    assert training.mean.dtype == np.float32


def test_a_seed_that_is_still_training_counts_as_far_as_it_has_come() -> None:
    training, _ = bands.bands([run(RISING), run(HIGHER[:1])])
    np.testing.assert_allclose(training.mean, [0.6, 0.7, 0.8], rtol=1e-6)


def test_looks_at_the_test_set_lie_between_the_epochs() -> None:
    looked = curves(rows(RISING), [], 10, tests=[records.TestRow(5, 1.0, 0.4), records.TestRow(10, 1.0, 0.6)])
    (test,) = [band for band in bands.bands([looked], [(3, 0.9)]) if band.split == "Test"]
    assert test.epochs.tolist() == [0.5, 1.0]
    np.testing.assert_allclose(test.mean, [0.4, 0.6], rtol=1e-6)


def test_a_run_that_was_tested_at_its_end_has_one_point() -> None:
    (test,) = [band for band in bands.bands([run(RISING)], [(3, 0.8), (3, 0.9)]) if band.split == "Test"]
    assert (test.epochs.tolist(), test.low.tolist(), test.high.tolist()) == ([3], [np.float32(0.8)], [np.float32(0.9)])


def test_nothing_measured_is_no_band() -> None:
    assert bands.bands([]) == ()
    assert bands.bands([curves([], [], 10)]) == ()


def test_each_split_has_its_line_and_its_band_in_the_colour_of_its_group() -> None:
    figure = bands_figure({"": bands.bands([run(RISING), run(HIGHER)])}, [], colours=PALETTE, epochs=3)
    lines = [trace for trace in figure.data if trace.name]
    assert [(trace.name, trace.line.dash, trace.line.color) for trace in lines] == [
        ("Training", "solid", PALETTE[0]),
        ("Validation", "dash", PALETTE[0]),
    ]
    areas = [trace for trace in figure.data if trace.fill == "toself"]
    assert [trace.fillcolor for trace in areas] == [PALETTE[0]] * 2
    top, bottom = np.split(np.asarray(areas[0].y), 2)
    np.testing.assert_allclose(top, 100 * np.array(HIGHER), rtol=1e-6)
    np.testing.assert_allclose(bottom[::-1], 100 * np.array(RISING), rtol=1e-6)


def test_a_changed_group_shows_only_what_the_claims_are_about() -> None:
    drawn = bands.bands([run(RISING)])
    claim = Claimed("80 %", "valid_accuracy", 2, 0.8, 0.01)
    figure = bands_figure({"": drawn, "with more": drawn}, [claim], colours=PALETTE, epochs=3)
    assert names(figure) == ["Training", "Validation", "Validation, with more", "Claimed"]


def test_a_lone_point_is_drawn_with_the_training_that_leads_to_it() -> None:
    drawn = bands.bands([run(RISING)], [(3, 0.9), (3, 0.8)])
    claim = Claimed("97 %", "test_accuracy", 3, 0.97, 0.01)
    figure = bands_figure({"": drawn, "with more": drawn}, [claim], colours=PALETTE, epochs=3)
    assert names(figure) == ["Training", "Test", "Training, with more", "Test, with more", "Claimed"]
    (point,) = [trace for trace in figure.data if trace.name == "Test"]
    assert point.error_y.array[0] == pytest.approx(5, abs=1e-4)
    assert point.error_y.arrayminus[0] == pytest.approx(5, abs=1e-4)


@pytest.mark.parametrize("relation", Relation)
def test_a_claim_is_where_the_article_places_it_and_a_bound_goes_across(relation: Relation) -> None:
    claim = Claimed("80 %", "valid_accuracy", 2, 0.8, 0.01, relation)
    figure = bands_figure({"": bands.bands([run(RISING)])}, [claim], colours=PALETTE, epochs=3)
    mark = figure.data[-1]
    assert (list(mark.x), list(mark.y), list(mark.text)) == ([2], [80], ["80 %"])
    assert len(figure.layout.shapes) == (relation is not Relation.ABOUT)


def test_claims_of_losses_are_left_out_and_the_frame_holds_every_claim() -> None:
    recipe = RECIPES["kaggle-raw-pixels"]
    figure = bands_figure({"": bands.bands([run(HIGHER)])}, recipe.claims, colours=PALETTE, epochs=10)
    assert len(figure.data[-1].x) == 6
    low, high = figure.layout.yaxis.range
    assert low <= min(figure.data[-1].y)
    assert high == 100


def test_an_empty_figure_has_its_frame() -> None:
    figure = bands_figure({}, [], colours=PALETTE, epochs=5)
    assert len(figure.data) == 0
    assert tuple(figure.layout.xaxis.range) == (0, 5)


def names(figure: Any) -> list[str]:
    return [trace.name for trace in figure.data if trace.name]


def run(accuracies: tuple[float, ...]) -> RunCurves:
    return curves(rows(accuracies), [], 10)


def rows(accuracies: tuple[float, ...]) -> list[EpochRow]:
    return [EpochRow(k, 1.0, value, 1.0, value, None, None) for k, value in enumerate(accuracies, 1)]
