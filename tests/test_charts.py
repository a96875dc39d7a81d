"""The numbers of the figures, and what makes the figures themselves right."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from mnistlr_core import charts, records
from mnistlr_core.charts import RunCurves, accuracy_figure, colour, curves, loss_figure
from mnistlr_core.matrix import confusion_figure, picked_cell
from mnistlr_core.store import COLOURS

DIGITS = [str(digit) for digit in range(10)]
NAN = float("nan")


def row(
    epoch: int,
    train_loss: float | None = 0.3,
    train_accuracy: float | None = 0.9,
    valid_loss: float | None = None,
    valid_accuracy: float | None = None,
    test_loss: float | None = None,
    test_accuracy: float | None = None,
) -> records.EpochRow:
    """An epoch, measured on nothing but the training images unless a test says otherwise."""
    return records.EpochRow(epoch, train_loss, train_accuracy, valid_loss, valid_accuracy, test_loss, test_accuracy)


def run(accuracies: list[float], valid: list[float] | None = None, train: list[float] | None = None) -> RunCurves:
    """The curves of a run with these validation accuracies, validation losses and training losses by epoch."""
    n = len(accuracies)
    valid, train = valid or [1 / (e + 1) for e in range(n)], train or [1 / (e + 1) for e in range(n)]
    rows = [row(e + 1, train[e], accuracies[e], valid[e], accuracies[e]) for e in range(n)]
    return curves(rows, [], 10)


def names(figure: go.Figure) -> list[str]:
    return [trace.name for trace in figure.data]


def matrix() -> Any:
    counts = np.random.default_rng(0).integers(0, 40, (10, 10))
    np.fill_diagonal(counts, 900)
    return counts


def test_curves_are_float32_with_nan_where_nothing_was_measured() -> None:
    numbers = curves([row(1), row(2, valid_loss=0.5, valid_accuracy=0.8)], [2.0, 1.0, 0.5, 0.25], 2)
    assert numbers.epochs.dtype == numbers.valid_loss.dtype == numbers.step_losses.dtype == np.float32
    np.testing.assert_array_equal(numbers.valid_accuracy, np.array([NAN, 0.8], np.float32))
    np.testing.assert_array_equal(numbers.step_epochs, [0.5, 1, 1.5, 2])
    assert numbers.best == 1
    assert numbers.diverged_at is None


def test_the_best_epoch_of_equals_has_the_lower_loss_or_is_the_first() -> None:
    assert run([0.8, 0.9, 0.9]).best == 2
    assert run([0.8, 0.9, 0.9], valid=[0.5, 0.4, 0.4]).best == 1
    assert curves([row(1)], [], 10).best is None


@pytest.mark.parametrize("steps", [0, 1, 499, 500, 501, 4400, 100_003])
def test_steps_are_averaged_to_500_points_and_keep_their_mean(steps: int) -> None:
    losses = np.random.default_rng(1).random(steps).astype(np.float32)
    numbers = curves([], losses, 550)
    assert len(numbers.step_losses) == len(numbers.step_epochs) <= 500
    assert (np.diff(numbers.step_epochs) > 0).all()
    if steps:
        width = -(-steps // 500)
        whole = steps // width
        np.testing.assert_allclose(
            numbers.step_losses[:whole], losses[: whole * width].reshape(whole, width).mean(axis=1), rtol=1e-5
        )


def test_divergence_is_noted_and_breaks_the_lines() -> None:
    numbers = curves([row(1), row(2, train_loss=None)], [1.0, 2.0, float("inf"), NAN], 2)
    assert numbers.diverged_at == 1.5
    assert np.isnan(numbers.train_loss[1])
    assert numbers.step_losses.tolist() == [1.0, 2.0]
    for figure in (loss_figure, accuracy_figure):
        assert "Infinity" not in figure(numbers, colour="#123456", epochs=2).to_json()


def test_an_epoch_whose_loss_is_not_finite_diverged() -> None:
    assert curves([row(1), row(2, float("inf")), row(3, None)], [], 10).diverged_at == 2


def test_a_finite_explosion_ends_the_batches_and_gets_a_cross_inside_the_frame() -> None:
    losses = [2.0, 1.0, 1.5, 3e5, 2e6, 7.0, 7.0]
    numbers = curves([row(1)], losses, 2, diverged_step=5)
    assert numbers.diverged_at == 2.5
    assert numbers.step_losses.tolist() == losses[:5]
    loss, accuracy = (build(numbers, colour="#123456", epochs=4) for build in (loss_figure, accuracy_figure))
    for figure, x, y in ((loss, 2.5, loss.layout.yaxis.range[1]), (accuracy, 1, 90)):
        cross = figure.data[-1]
        assert (cross.name, cross.marker.symbol) == ("Diverged", "x")
        assert "diverged" in cross.text[0]
        assert (cross.x[0], cross.y[0]) == pytest.approx((x, y))
    assert loss.layout.yaxis.range[1] < 100
    assert loss.data[-1].textposition == "middle left"
    assert accuracy.data[-1].textposition == "middle right"


def test_a_run_that_diverged_before_its_first_epoch_says_so_in_place_of_the_accuracies() -> None:
    figure = accuracy_figure(curves([], [2.0, NAN], 10), colour="#123456", epochs=4)
    assert "Diverged in the first epoch" in figure.layout.annotations[0].text
    assert names(figure) == []


def test_looks_at_the_test_set_by_step_are_drawn_where_they_were_taken() -> None:
    looks = [records.TestRow(5, 0.9, 0.7), records.TestRow(10, None, 0.8), records.TestRow(15, 0.5, 0.85)]
    numbers = curves([row(1)], [], 10, tests=looks)
    for build, y in ((loss_figure, [0.9, NAN, 0.5]), (accuracy_figure, [70, 80, 85])):
        (test,) = (trace for trace in build(numbers, colour="#123456", epochs=2).data if trace.name == "Test")
        np.testing.assert_allclose(test.x, [0.5, 1, 1.5])
        np.testing.assert_allclose(test.y, y, rtol=1e-6)
        assert test.line.dash == "dot"


def test_the_frame_stays_calm_while_a_run_is_watched() -> None:
    """The loss axis settles once 4 % of the run are done, the accuracy axis with the first epoch."""
    random, per_epoch, epochs = np.random.default_rng(0), 844, 10
    at = np.arange(1, epochs * per_epoch + 1) / per_epoch
    losses = ((0.02 + 2.3 * np.exp(-12 * at) + 0.4 * np.exp(-0.4 * at)) * random.uniform(0.7, 1.3, len(at))).tolist()
    history = [
        row(e, float(np.mean(losses[(e - 1) * per_epoch : e * per_epoch])), 1 - 0.2 / e, 0.3, 1 - 0.12 / e**0.5)
        for e in range(1, epochs + 1)
    ]
    tops, floors = [], []
    for step in range(40, len(losses) + 1, 100):
        numbers = curves(history[: step // per_epoch], losses[:step], per_epoch)
        low, top = loss_figure(numbers, colour="#123456", epochs=epochs).layout.yaxis.range
        assert low == 0
        tops.append(round(top, 6))
        floor, high = accuracy_figure(numbers, colour="#123456", epochs=epochs).layout.yaxis.range
        assert high == 100
        floors.append(floor)
    assert [top for top, _ in itertools.groupby(tops)] == [4, 0.6]
    assert tops.index(0.6) <= 4
    assert [floor for floor, _ in itertools.groupby(floors)] == [0, 70]


@pytest.mark.parametrize(
    ("highest", "top"), [(0.0, 1), (0.0101, 0.015), (0.61, 0.8), (0.79, 0.8), (1.0, 1), (2.3, 3), (9, 10), (1e6, 1e6)]
)
def test_the_loss_axis_ends_on_a_round_number(highest: float, top: float) -> None:
    figure = loss_figure(curves([row(1, highest)], [], 10), colour="#123456", epochs=1)
    assert figure.layout.yaxis.range == pytest.approx((0, top))


@pytest.mark.parametrize(
    ("lowest", "floor"), [(0.0, 0), (0.098, 0), (0.41, 40), (0.803, 75), (0.856, 85), (0.9541, 90), (0.96, 95), (1, 95)]
)
def test_the_accuracy_axis_begins_at_a_round_number(lowest: float, floor: float) -> None:
    figure = accuracy_figure(curves([row(1, 0.3, lowest)], [], 10), colour="#123456", epochs=1)
    assert figure.layout.yaxis.range == (floor, 100)


def test_steps_per_epoch_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive; got 0"):
        curves([], [], 0)


@pytest.mark.parametrize("build", [loss_figure, accuracy_figure])
@pytest.mark.parametrize(
    "numbers",
    [
        curves([], [], 10),
        curves([], [2.3, 1.0], 10),
        curves([row(1)], [0.0], 10),
        curves([row(1, NAN, NAN, NAN, NAN)], [NAN], 10),
        run([0.9] * 40),
    ],
)
def test_figures_are_valid_at_every_stage(build: Any, numbers: RunCurves) -> None:
    figure = build(numbers, colour=colour(0), epochs=8)
    spec = json.loads(figure.to_json())
    assert spec["layout"]["xaxis"]["range"] == [0, 8]
    low, high = spec["layout"]["yaxis"]["range"]
    assert np.isfinite([low, high]).all()
    assert low < high
    assert "font" not in spec["layout"]
    assert "paper_bgcolor" not in spec["layout"]


def test_one_colour_and_three_dashes() -> None:
    numbers = curves([row(1, 0.3, 0.9, 0.4, 0.8, 0.5, 0.7)], [1.0], 1)
    figure = accuracy_figure(numbers, colour="#123456", epochs=1)
    assert names(figure) == ["Training", "Validation", "Test", "Best"]
    assert [trace.line.dash for trace in figure.data[:3]] == ["solid", "dash", "dot"]
    assert {trace.line.color for trace in figure.data[:3]} == {"#123456"}
    assert figure.data[1].y.tolist() == pytest.approx([80])
    assert figure.data[3].marker.symbol == "star"
    assert all("markers" in trace.mode for trace in figure.data)
    loss = loss_figure(numbers, colour="#123456", epochs=1)
    assert names(loss) == ["Batches", "Training", "Validation", "Test", "Best"]
    assert [trace.name for trace in loss.data if trace.showlegend is False] == ["Best"]


def test_without_validation_no_star() -> None:
    assert names(accuracy_figure(curves([row(1)], [], 1), colour="#123456", epochs=1)) == ["Training"]


def test_there_are_as_many_colours_as_the_store_gives_out() -> None:
    assert len({colour(place) for place in range(COLOURS)}) == COLOURS
    assert colour(COLOURS) == colour(0)


def linear(hexadecimal: str) -> Any:
    channels = np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def test_the_palette_is_legible_on_both_themes_and_told_apart_without_red_or_green() -> None:
    def luminance(hexadecimal: str) -> float:
        return float(linear(hexadecimal) @ [0.2126, 0.7152, 0.0722])

    for one in charts.PALETTE:
        assert 1.05 / (luminance(one) + 0.05) >= 3
        assert (luminance(one) + 0.05) / (luminance("#0e1117") + 0.05) >= 3

    # Severity 1.0 of Machado, Oliveira and Fernandes 2009; OKLab by Ottosson 2020.
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_lms += [[0.0883024619, 0.2817188376, 0.6299787005]]
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    to_lab += [[0.0259040371, 0.7827717662, -0.8086757660]]
    for sight in (np.eye(3), np.array(protan), np.array(deutan)):
        seen = [np.array(to_lab) @ np.cbrt(np.array(to_lms) @ np.clip(sight @ linear(c), 0, 1)) for c in charts.PALETTE]
        assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 0.11


def test_the_matrix_keeps_the_diagonal_apart_and_takes_clicks() -> None:
    counts = matrix()
    right, wrong, clicks = confusion_figure(counts, DIGITS).data
    assert np.isfinite(right.z).sum() == 10
    assert np.isnan(np.diag(wrong.z)).all()
    off = ~np.eye(10, dtype=bool)
    np.testing.assert_array_equal(wrong.z[off], counts[off])
    assert wrong.zmax == counts[off].max()
    assert [(point[0], point[1]) for point in clicks.customdata] == list(itertools.product(range(10), repeat=2))
    assert [(y, x) for x, y in zip(clicks.x, clicks.y, strict=True)] == list(itertools.product(range(10), repeat=2))
    assert clicks.unselected.marker.opacity == clicks.selected.marker.opacity == clicks.marker.opacity == 0


def test_the_matrix_normalises_by_row_and_outlines_one_cell() -> None:
    counts = np.array([[3, 1], [0, 0]])
    figure = confusion_figure(counts, ["cat", "dog"], normalise=True, selected=(0, 1))
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert [text.split(">")[1].split("<")[0] for text in texts] == ["75.0", "25.0", "0", "0"]
    outline = figure.layout.shapes[0]
    assert (outline.x0 + outline.x1, outline.y0 + outline.y1) == (2, 0)
    assert "1 of 4 (25.0 %)" in figure.data[2].text[1]
    assert not confusion_figure(counts, ["cat", "dog"]).layout.shapes


def test_the_matrix_is_as_high_as_its_cells_and_labels() -> None:
    digits, words = (confusion_figure(matrix(), names).layout for names in (DIGITS, ["T-shirt/top"] * 10))
    assert 10 * 27 < digits.height < 10 * 30 + 40
    assert words.height > digits.height
    assert (digits.xaxis.tickangle, words.xaxis.tickangle) == (0, -90)


def test_a_matrix_without_errors_is_valid() -> None:
    assert confusion_figure(np.diag([5, 5]), ["a", "b"]).data[1].zmax == 1


@pytest.mark.parametrize(
    ("event", "cell"),
    [
        ({"selection": {"points": [{"customdata": [4, 9]}]}}, (4, 9)),
        ({"points": [{"customdata": [4, 9]}]}, (4, 9)),
        ({"points": [{"customdata": {"0": 4, "1": 9}}]}, (4, 9)),
        ({"selection": {"points": []}}, None),
        ({"selection": {"points": [{"x": 1}]}}, None),
        ({"selection": {"points": [{"customdata": ["x", "y"]}]}}, None),
        ({"selection": {"points": [{"customdata": [1, 2, 3]}]}}, None),
        ({"selection": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_clicks_are_read_defensively(event: Any, cell: tuple[int, int] | None) -> None:
    assert picked_cell(event) == cell


def test_charts_load_neither_torch_nor_plotly_express() -> None:
    code = (
        "import sys, mnistlr_core.matrix, mnistlr_core.sentences; "
        "print({'torch', 'sklearn', 'plotly.express', 'streamlit'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


HALF_LOADED = """
import importlib.abc, sys, threading

class Slow(importlib.abc.MetaPathFinder):
    begun, go_on = threading.Event(), threading.Event()
    def find_spec(self, name, path, target=None):
        if name == "pandas._config":  # pandas is in sys.modules by now, and has nothing in it yet
            self.begun.set()
            self.go_on.wait(60)

from mnistlr_core.charts import new_figure
sys.meta_path.insert(0, Slow())
threading.Thread(target=__import__, args=("pandas",)).start()
assert Slow.begun.wait(60)
threading.Timer(0.5, Slow.go_on.set).start()
new_figure({"xaxis": {"range": [0, 5]}})
"""


def test_a_figure_is_drawn_while_another_thread_is_importing_pandas() -> None:
    done = subprocess.run([sys.executable, "-c", HALF_LOADED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
