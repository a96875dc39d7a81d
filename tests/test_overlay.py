"""The numbers of runs over each other, and what makes the figure right."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core import overlay, records
from mnistlr_core import overlay_figure as overlay_figures
from mnistlr_core.charts import MOST_MARKERS, PALETTE, STEP_POINTS, Floats, RunCurves, curves
from mnistlr_core.overlay import Across, Overlaid, over_seeds, positions, smoothed
from mnistlr_core.overlay_figure import overlay_figure

NAN = float("nan")
RISING = (0.5, 0.7, 0.8)
HIGHER = (0.7, 0.8, 0.9)
FALLING = (1.0, 0.5, 0.25)


def test_exactly_the_public_names_are_exported() -> None:
    assert overlay.__all__ == ["Across", "Overlaid", "Seeds", "over_seeds", "positions", "smoothed"]
    assert overlay_figures.__all__ == ["overlay_figure"]


# Smoothing


@given(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.just(NAN) | st.just(math.inf), max_size=60),
    st.floats(0, 0.99),
)
def test_smoothing_is_the_mean_of_all_so_far_weighted_by_age(values: list[float], weight: float) -> None:
    result = smoothed(np.array(values, dtype=np.float32), weight)
    assert result.dtype == np.float32
    if weight == 0:
        np.testing.assert_array_equal(result, np.array(values, dtype=np.float32))
        return
    so_far: list[float] = []
    for value, smooth in zip(values, result, strict=True):
        if not math.isfinite(value):
            assert math.isnan(smooth)
            continue
        so_far.insert(0, value)
        ages = [weight**age for age in range(len(so_far))]
        expected = sum(a * b for a, b in zip(ages, so_far, strict=True)) / sum(ages)
        assert smooth == pytest.approx(expected, rel=1e-4, abs=1e-4 * max(map(abs, so_far)))


def test_smoothing_begins_at_the_first_value_and_passes_over_what_is_missing() -> None:
    assert smoothed(floats(4, NAN, 2), 0.5).tolist() == [4, pytest.approx(NAN, nan_ok=True), pytest.approx(8 / 3)]
    assert smoothed(floats(*[3] * 5), 0.9).tolist() == pytest.approx([3] * 5)


@pytest.mark.parametrize("weight", [-0.1, 1.0, NAN])
def test_a_weight_that_would_never_move_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 0\.99; got"):
        smoothed(floats(1), weight)


# Positions


def test_epochs_become_steps_and_seconds() -> None:
    one = run(RISING, seconds=[floats(10, 30, 40)])
    at = floats(0, 0.5, 1, 1.5, 3)
    assert positions(at, one, Across.EPOCH).tolist() == at.tolist()
    assert positions(at, one, Across.STEP).tolist() == [0, 5, 10, 15, 30]
    assert positions(at, one, Across.SECONDS).tolist() == [0, 5, 10, 20, 40]


def test_an_epoch_that_has_not_finished_goes_on_at_the_pace_so_far() -> None:
    one = run(RISING, seconds=[floats(10, 30)])
    assert positions(floats(2, 2.5, 4), one, Across.SECONDS).tolist() == [30, 37.5, 60]
    assert np.isnan(positions(floats(0.5), run((), seconds=[floats()]), Across.SECONDS)).all()


def test_seeds_have_their_mean_seconds_even_where_they_have_come_differently_far() -> None:
    two = run(RISING, HIGHER, seconds=[floats(10, 20), floats(20, 40)])
    assert positions(floats(1, 2), two, Across.SECONDS).tolist() == [15, 30]
    ahead = run(RISING, HIGHER, seconds=[floats(10, 20), floats(1, 2, 3)])
    assert positions(floats(1, 2, 3), ahead, Across.SECONDS).tolist() == [5.5, 11, 12]


def test_every_way_across_has_a_name() -> None:
    assert [across.label for across in Across] == ["Epoch", "Step", "Training time in seconds"]


# Seeds


def test_seeds_are_mean_lowest_and_highest_at_each_epoch() -> None:
    seeds = over_seeds([one_seed(RISING), one_seed(HIGHER[:2])])
    assert seeds.mean.epochs.tolist() == [1, 2, 3]
    np.testing.assert_allclose(seeds.mean.valid_accuracy, [0.6, 0.75, 0.8], rtol=1e-6)
    np.testing.assert_allclose(seeds.low.valid_accuracy, [0.5, 0.7, 0.8], rtol=1e-6)
    np.testing.assert_allclose(seeds.high.valid_accuracy, [0.7, 0.8, 0.8], rtol=1e-6)
    assert np.isnan(seeds.mean.test_accuracy).all()
    assert {getattr(seeds.mean, name).dtype for name in ("epochs", "train_loss", "test_accuracy")} == {np.dtype("f4")}
    assert len(seeds.mean.step_losses) == 0
    assert seeds.mean.best == 2


def test_one_seed_is_its_own_mean() -> None:
    alone = one_seed(RISING)
    seeds = over_seeds([alone])
    assert seeds.mean is seeds.low is seeds.high is alone


def test_seeds_that_have_not_finished_an_epoch_are_nothing_yet() -> None:
    assert len(over_seeds([curves([], [], 10), curves([], [2.0], 10)]).mean.epochs) == 0


# The figure


def test_training_is_solid_and_validation_dashed_in_the_run_s_colour_on_both_plots() -> None:
    figure = overlay_figure([run(RISING), run(HIGHER, colour=PALETTE[1])])
    drawn = [(t.name, t.yaxis or "y", t.line.dash, t.line.color) for t in lines(figure)]
    assert drawn == [
        (name, axis, dash, colour)
        for colour in PALETTE[:2]
        for name, dash in (("Training", "solid"), ("Validation", "dash"))
        for axis in ("y", "y2")
    ]
    training, accuracy = lines(figure)[0], lines(figure)[3]
    np.testing.assert_allclose(training.y, FALLING)
    np.testing.assert_allclose(accuracy.y, [50, 70, 80], rtol=1e-6)
    assert training.x.dtype == training.y.dtype == training.customdata.dtype == np.float32


def test_the_legend_names_runs_and_hides_all_that_belongs_to_one() -> None:
    figure = overlay_figure([run(RISING, title="lr 0.1"), run(HIGHER, title="lr 0.3, adam, " + "x" * 40)])
    entries = legend(figure)
    assert [entry.name for entry in entries] == ["lr 0.1", "lr 0.3, adam, xxxxxxxxxxxxxxxxxxxxx…"]
    mine = [trace for trace in figure.data if trace.legendgroup == entries[0].legendgroup and trace.showlegend is False]
    assert sorted(trace.name for trace in mine) == ["Best"] * 2 + ["Training"] * 2 + ["Validation"] * 2
    assert [trace.name for trace in key(figure)] == ["Training", "Validation", "Best"]


def test_both_plots_answer_to_one_crosshair() -> None:
    """Plotly shares hovers along one x-axis only, draws the line in a plot that has a trace to answer, and needs one
    row for each run."""
    figure = overlay_figure([run(RISING), run(HIGHER, colour=PALETTE[1])])
    assert (figure.layout.hovermode, figure.layout.hoversubplots) == ("x unified", "axis")
    assert {trace.xaxis for trace in figure.data} == {None}
    assert len([trace for trace in figure.data if trace.hovertemplate]) == 2
    assert [trace.yaxis for trace in figure.data if trace.hoverinfo == "none"] == ["y2"] * 2
    others = [trace for trace in lines(figure) if not trace.hovertemplate and trace.hoverinfo != "none"]
    assert {trace.hoverinfo for trace in others} == {"skip"}
    bottom, top = figure.layout.yaxis2.domain, figure.layout.yaxis.domain
    assert bottom[1] < top[0]


def test_the_hover_has_title_values_and_hyperparameters() -> None:
    one = run(RISING, title="lr 0.1, adam", hover="digits, learning rate 0.1, batch 32")
    (row,) = rows(overlay_figure([one], smoothing=0.9))
    assert row.hovertemplate.startswith("<b>lr 0.1, adam</b>, epoch %{customdata[0]")
    assert "loss %{customdata[1]:.4f} / %{customdata[2]:.4f}" in row.hovertemplate
    assert "digits, learning\N{NO-BREAK SPACE}rate\N{NO-BREAK SPACE}0.1" in row.hovertemplate
    np.testing.assert_allclose(row.customdata[1], [2, 0.5, 1.0, 70, 70], rtol=1e-6)  # the raw loss, not the smoothed


def test_a_crowd_s_hover_leaves_the_hyperparameters_out() -> None:
    five = [run(RISING, colour=colour, hover="batch 32") for colour in PALETTE[:5]]
    assert not any("batch" in row.hovertemplate for row in rows(overlay_figure(five)))
    assert all("batch" in row.hovertemplate for row in rows(overlay_figure(five[:4])))


def test_titles_and_hyperparameters_are_no_markup() -> None:
    figure = overlay_figure([run(RISING, title="<b>x</b> %{y} &amp;", hover="<a href='x'>batch</a> %{x}")])
    escaped = "&lt;b&gt;x&lt;/b&gt; &#37;{y} &amp;amp;"
    assert legend(figure)[0].name == escaped
    (row,) = rows(figure)
    assert f"<b>{escaped}</b>" in row.hovertemplate
    assert "<a" not in row.hovertemplate
    assert "%{x}" not in row.hovertemplate


def test_the_best_epoch_has_a_star_where_its_raw_values_are() -> None:
    accuracies = (0.5, 0.9, 0.8)
    figure = overlay_figure([run(accuracies)], across=Across.STEP, smoothing=0.5)
    loss, accuracy = stars(figure)
    assert (loss.x.tolist(), loss.y.tolist()) == ([20], [1.0])
    assert (accuracy.x.tolist(), accuracy.y.tolist()) == ([20], pytest.approx([90]))
    assert (loss.yaxis, accuracy.yaxis) == ("y", "y2")
    assert not stars(overlay_figure([run(accuracies, validated=False)]))


def test_the_best_epoch_of_seeds_is_that_of_their_mean() -> None:
    figure = overlay_figure([run((0.5, 0.9, 0.8), (0.5, 0.6, 0.9))])
    assert stars(figure)[1].x.tolist() == [3]
    assert stars(figure)[1].y.tolist() == pytest.approx([85])


def test_seeds_are_a_mean_and_a_band_from_lowest_to_highest() -> None:
    figure = overlay_figure([run(RISING, HIGHER)], smoothing=0.5)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert [(band.yaxis, band.fillcolor) for band in bands] == [("y", PALETTE[0]), ("y2", PALETTE[0])] * 2
    high, low = np.split(np.asarray(bands[1].y), 2)
    np.testing.assert_allclose(high, 100 * np.array(HIGHER), rtol=1e-6)
    np.testing.assert_allclose(low[::-1], 100 * np.array(RISING), rtol=1e-6)
    assert bands[1].x.tolist() == [1, 2, 3, 3, 2, 1]
    raw = next(trace for trace in figure.data if trace.name == "Raw" and trace.yaxis == "y2")
    np.testing.assert_allclose(raw.y, [60, 75, 85], rtol=1e-6)
    assert "mean of 2 seeds" in rows(figure)[0].hovertemplate


@pytest.mark.parametrize("smoothing", [0.0, 0.6])
def test_the_raw_line_stays_faintly_where_lines_are_smoothed(smoothing: float) -> None:
    figure = overlay_figure([run(RISING, batches=[2.0, 1.0])], smoothing=smoothing)
    raw = [trace for trace in figure.data if trace.name == "Raw"]
    assert len(raw) == (4 if smoothing else 0)
    assert all(trace.opacity < 0.5 and trace.line.width == 1 and trace.hoverinfo == "skip" for trace in raw)
    np.testing.assert_allclose(lines(figure)[0].y, smoothed(floats(*FALLING), smoothing))
    batches = [trace.y.tolist() for trace in drawn(figure, "Batches")]
    assert batches[0] == [2, 1]
    assert batches[1:] == ([pytest.approx(smoothed(floats(2, 1), 0.6).tolist())] if smoothing else [])


def test_the_test_set_is_dotted_and_stands_in_for_validation() -> None:
    def dotted(one: Overlaid, *, test: bool = False) -> list[str]:
        return [trace.yaxis for trace in lines(overlay_figure([one], test=test)) if trace.line.dash == "dot"]

    assert dotted(run(RISING, tested=True)) == []
    assert dotted(run(RISING, tested=True), test=True) == ["y", "y2"]
    assert dotted(run(RISING, tested=True, validated=False)) == ["y", "y2"]
    assert dotted(run((), tested=True)) == []
    training, test = rows(overlay_figure([run(RISING, tested=True)], test=True))
    assert "test, epoch" in test.hovertemplate
    assert test.customdata.shape == (3, 3)
    assert training.customdata.shape == (3, 5)


def test_runs_of_one_colour_differ_in_marker_and_width() -> None:
    figure = overlay_figure([run(RISING, colour=colour) for colour in [*PALETTE[:2], *[PALETTE[0]] * 11]])
    looks = [(entry.line.color, entry.marker.symbol, entry.line.width) for entry in legend(figure)]
    assert looks[:4] == [
        (PALETTE[0], "circle", 2),
        (PALETTE[1], "circle", 2),
        (PALETTE[0], "square", 3.5),
        (PALETTE[0], "triangle-up", 1.2),
    ]
    assert len(set(looks)) == 13
    assert {trace.line.dash for trace in lines(figure)} == {"solid", "dash"}
    validation = drawn(figure, "Validation")
    assert [trace.marker.symbol for trace in validation[::2]][:3] == ["circle-open", "circle-open", "square-open"]


def test_markers_stay_on_a_long_line_only_where_they_tell_it_apart() -> None:
    long = tuple(0.9 for _ in range(MOST_MARKERS + 1))
    first, second = (lines(overlay_figure([run(long), run(long)]))[k] for k in (0, 4))
    assert (first.mode, second.mode) == ("lines", "lines+markers")
    assert 0 < second.marker.maxdisplayed < MOST_MARKERS
    assert lines(overlay_figure([run(long[1:])]))[0].mode == "lines+markers"


def test_no_trace_has_more_points_than_can_be_seen() -> None:
    many = tuple(0.9 for _ in range(2 * STEP_POINTS + 1))
    alone = run(many, batches=[1.0] * 5000, tested=True)
    several = run(many, many)
    figure = overlay_figure([alone, several], smoothing=0.5, test=True)
    assert max(len(trace.x) for trace in figure.data) == STEP_POINTS
    training = lines(figure)[0]
    assert (training.x[0], training.x[-1], len(training.customdata)) == (1, len(many), STEP_POINTS)


# Divergence


def test_a_run_that_diverged_ends_in_a_cross_with_the_word_and_does_not_stretch_the_frame() -> None:
    lost = run(RISING[:1], batches=[2.0, 3e5], diverged_step=2, colour=PALETTE[1], epochs=3)
    alone, figure = overlay_figure([run(RISING)]), overlay_figure([run(RISING), lost])
    assert figure.layout.yaxis.range == alone.layout.yaxis.range
    assert figure.layout.yaxis2.range == alone.layout.yaxis2.range
    loss, accuracy = drawn(figure, "Diverged")
    assert (loss.x[-1], loss.y[-1]) == (pytest.approx(0.2), figure.layout.yaxis.range[1])
    assert (accuracy.x[-1], accuracy.y[-1]) == pytest.approx((1, 50))
    assert all(trace.marker.symbol == "x" and "diverged" in trace.text[-1] for trace in (loss, accuracy))
    assert (loss.textposition, accuracy.textposition) == ("bottom right", "top right")
    assert legend(figure)[1].name == "run, diverged"


def test_words_are_not_written_over_each_other() -> None:
    lost = [run((), batches=[2.0, 3e5], diverged_step=2, colour=colour) for colour in PALETTE[:3]]
    figure = overlay_figure([*lost, run(RISING)])
    assert ["diverged" in trace.text[-1] for trace in drawn(figure, "Diverged")] == [True, False, False]
    assert all("diverged" in entry.name for entry in legend(figure)[:3])


def test_of_seeds_it_is_said_how_many_diverged_and_the_rest_go_on() -> None:
    both = run(RISING, HIGHER)
    mixed = dataclasses.replace(both, curves=(both.curves[0], curves([row(1, 1.0, 0.7)], [], 10, diverged_step=15)))
    figure = overlay_figure([mixed])
    cross = drawn(figure, "Diverged")[1]
    assert (cross.x, cross.y) == ((1,), (pytest.approx(70),))
    assert "1 of 2 diverged" in cross.text[0]
    np.testing.assert_allclose(lines(figure)[1].y, [60, 70, 80], rtol=1e-6)


def test_an_empty_plot_says_why() -> None:
    def words(*runs: Overlaid) -> list[str]:
        return [annotation.text for annotation in overlay_figure(runs).layout.annotations[2:]]

    assert "first point comes after epoch 1" in words(run((), batches=[2.0]))[0]
    assert "Diverged in the first epoch" in words(run((), batches=[2.0, NAN]))[0]
    assert not words()
    assert not words(run(RISING))


# Axes


def test_the_x_axis_reaches_to_the_longest_run() -> None:
    runs = [run(RISING, epochs=10, seconds=[floats(1, 2, 3)]), run(RISING, epochs=4, seconds=[floats(2, 4, 6)])]
    assert overlay_figure(runs).layout.xaxis.range == (0, 10)
    assert overlay_figure(runs, across=Across.STEP).layout.xaxis.range == (0, 100)
    seconds = overlay_figure(runs, across=Across.SECONDS).layout.xaxis
    assert seconds.range == (0, 10)  # 10 epochs at a second each
    assert seconds.title.text == "Training time in seconds"
    longer = overlay_figure([run(RISING, epochs=43, seconds=[floats(1, 2, 3)])], across=Across.SECONDS)
    assert longer.layout.xaxis.range == (0, pytest.approx(50))  # an estimate, rounded
    stopped = run(RISING[:1], batches=[1.0] * 15, epochs=1)
    assert overlay_figure([stopped]).layout.xaxis.range == (0, 1.5)


@pytest.mark.parametrize(
    ("batches", "across", "start"), [([], Across.EPOCH, 1), ([], Across.STEP, 10), ([2.0, 1.0], Across.EPOCH, 0.1)]
)
def test_a_logarithmic_x_axis_begins_at_the_first_point(batches: list[float], across: Across, start: float) -> None:
    axis = overlay_figure([run(RISING, batches=batches)], across=across, log_x=True).layout.xaxis
    end = 3 if across is Across.EPOCH else 30
    assert axis.type == "log"
    assert axis.range == pytest.approx((math.log10(start), math.log10(end)), abs=1e-6)


def test_the_logarithm_is_of_the_loss_only_and_holds_all_of_it() -> None:
    figure = overlay_figure([run(RISING, batches=[2.3, 2.0, 0.02])], log_y=True)
    low, high = (10**end for end in figure.layout.yaxis.range)
    assert figure.layout.yaxis.type == "log"
    assert low <= 0.02 < 2.3 <= high <= 3.001
    assert figure.layout.yaxis2.type is None
    assert figure.layout.yaxis2.range == (40, 100)


@given(st.floats(1e-9, 1e9))
def test_round_numbers_lie_around_a_value(value: float) -> None:
    low, high = overlay_figures._rounded(value, up=False), overlay_figures._rounded(value, up=True)
    assert low <= value <= high * (1 + 1e-12)
    assert high / low <= 2.001


def test_the_frame_grows_a_little_with_the_legend() -> None:
    one, twelve = (overlay_figure([run(RISING)] * count).layout.height for count in (1, 12))
    assert one < twelve <= 640


@pytest.mark.parametrize("across", Across)
@pytest.mark.parametrize("log", [False, True])
def test_figures_are_valid_at_every_stage(across: Across, log: bool) -> None:
    stages = [
        [],
        [run(())],
        [run((), batches=[2.0])],
        [run((0.9,), seconds=[floats(1)], epochs=1)],
        [run((NAN,), seconds=[floats(1)])],
        [run((), (), seconds=[floats(), floats()])],
        [run(RISING, (0.5,), seconds=[floats(1, 2, 3), floats(1)], tested=True)],
        [run((), batches=[NAN]), run((), batches=[0.0])],
        [run((), batches=[2.0, 3e5], diverged_step=2), run(RISING, (0.5,), diverged_step=15)],
    ]
    for stage in stages:
        figure = overlay_figure(stage, across=across, log_x=log, log_y=log, smoothing=0.5, test=True)
        spec = json.loads(figure.to_json())
        for axis in ("xaxis", "yaxis", "yaxis2"):
            low, high = spec["layout"][axis]["range"]
            assert np.isfinite([low, high]).all()
            assert low < high
        assert "font" not in spec["layout"]
        assert "paper_bgcolor" not in spec["layout"]


def floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def row(epoch: int, loss: float, accuracy: float, *, validated: bool = True, tested: bool = False) -> records.EpochRow:
    valid: Any = (1.0, accuracy) if validated else (None, None)
    test: Any = (0.8, accuracy - 0.1) if tested else (None, None)
    return records.EpochRow(epoch, loss, accuracy, *valid, *test)


def one_seed(
    accuracies: Sequence[float],
    *,
    batches: Sequence[float] = (),
    diverged_step: int | None = None,
    validated: bool = True,
    tested: bool = False,
) -> RunCurves:
    """A seed with these accuracies and halving training losses, ten steps an epoch."""
    history = [row(k + 1, 0.5 ** min(k, 60), a, validated=validated, tested=tested) for k, a in enumerate(accuracies)]
    return curves(history, batches, 10, diverged_step=diverged_step)


def run(
    *accuracies: Sequence[float],
    title: str = "run",
    colour: str = PALETTE[0],
    hover: str = "",
    epochs: int | None = None,
    seconds: Sequence[Floats] = (),
    **seed: Any,
) -> Overlaid:
    """A run with these accuracies for each of its seeds."""
    seeds = tuple(one_seed(one, **seed) for one in accuracies)
    length = epochs or max(map(len, accuracies)) or 3
    return Overlaid(title, colour, hover, length, seeds, 10, tuple(seconds))


def drawn(figure: go.Figure, *names: str) -> list[Any]:
    """The traces of this name that are of runs, not of the key."""
    return [trace for trace in figure.data if trace.name in names and trace.legendgroup]


def lines(figure: go.Figure) -> list[Any]:
    return drawn(figure, "Training", "Validation", "Test")


def stars(figure: go.Figure) -> list[Any]:
    return drawn(figure, "Best")


def rows(figure: go.Figure) -> list[Any]:
    return [trace for trace in figure.data if trace.hovertemplate]


def legend(figure: go.Figure) -> list[Any]:
    return [trace for trace in figure.data if trace.showlegend is None and trace.legend is None]


def key(figure: go.Figure) -> list[Any]:
    return [trace for trace in figure.data if trace.legend == "legend2"]
