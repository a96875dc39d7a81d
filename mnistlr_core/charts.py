"""Rows -> numbers -> Plotly figures of a run's loss and accuracy.

A figure sets no template and no colour of text or background, so that Streamlit's theme gives both on light and dark.
What carries meaning is coloured here: a run has one colour on every page, training is solid, validation dashed, test
dotted. Numbers travel as float32 arrays, which Plotly encodes as binary: half the bytes of lists, a third of the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from mnistlr_core.records import EpochRow, TestRow

__all__ = [
    "PALETTE",
    "Floats",
    "RunCurves",
    "accuracy_figure",
    "accuracy_floor",
    "colour",
    "curves",
    "frame",
    "in_page_colour",
    "loss_figure",
    "loss_top",
    "new_figure",
]

# Found by search over sRGB: each has a contrast of at least 3:1 with white and with #0e1117 (WCAG 2.2, 1.4.11), and any
# two stay 0.11 apart in OKLab as seen with normal, protan and deutan sight (Machado et al. 2009); Okabe-Ito has 0.08.
PALETTE = ("#6631ff", "#e86b06", "#098ea7", "#cc0910", "#2ba878", "#2c63ad", "#0c7259", "#6290fb")

QUIET = "#7b8190"  # what is no run's: 3.9:1 on white, 4.6:1 on the dark page
BAND_OPACITY = 0.18  # of a band over seeds

FIGURE_HEIGHT = 260
# Room for the widest usual label, "100 %", and for a line of legend, so that neither moves the frame as points arrive.
MARGIN = {"l": 38, "r": 8, "t": 34, "b": 0}
STEP_POINTS = 500
MOST_MARKERS = 30  # above this many epochs markers merge into a thick line
SERIES = (("Training", "solid", "circle"), ("Validation", "dash", "circle-open"), ("Test", "dot", "diamond"))
OFF_FRAME = 0.02  # the share of a whole run whose first batches may leave the frame: they flatten all that follows
NOISE = 1.2  # single batches lie above their mean
TOPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class RunCurves:
    """The numbers of one run's curves: e finished epochs, t looks at the test set, s ≤ 500 points by step (means).

    Every array is float32; NaN stands where a value is absent or not finite, and breaks the line there.
    `test_epochs` and `step_epochs` are fractions of epochs. `diverged_at` is where the run diverged, in epochs.
    """

    epochs: Floats
    train_loss: Floats
    train_accuracy: Floats
    valid_loss: Floats
    valid_accuracy: Floats
    test_epochs: Floats
    test_loss: Floats
    test_accuracy: Floats
    step_epochs: Floats
    step_losses: Floats
    diverged_at: float | None

    @property
    def best(self) -> int | None:
        """Position of the epoch with the highest validation accuracy, or None without validation.

        Of equals the one with the lower loss, then the earlier: as `records.best_epoch`.
        """
        if np.isnan(self.valid_accuracy).all():
            return None
        loss, accuracy = np.nan_to_num(self.valid_loss, nan=np.inf), np.nan_to_num(self.valid_accuracy, nan=-1.0)
        return int(np.lexsort((loss, -accuracy))[0])


def colour(place: int) -> str:
    """The colour of the run with this place in the palette, the same on every page."""
    return PALETTE[place % len(PALETTE)]


def curves(
    history: Sequence[EpochRow],
    step_losses: ArrayLike,
    steps_per_epoch: float,
    *,
    tests: Sequence[TestRow] = (),
    diverged_step: int | None = None,
) -> RunCurves:
    """Turn a run's history and the training loss of each step so far, [steps], into the numbers of its curves.

    tests: looks at the test set every n steps; where there are any, they stand in for those in the history.
    diverged_step: the step, counted from 1, at which the run was found to diverge; batches after it are left out.
    Without it, a loss that is not finite says the same.

    Raises ValueError when `steps_per_epoch` is not positive.
    """
    if not steps_per_epoch > 0:
        raise ValueError(f"steps per epoch must be positive; got {steps_per_epoch}")
    losses = np.asarray(step_losses, dtype=np.float32).ravel()[:diverged_step]
    at = np.arange(1, len(losses) + 1, dtype=np.float64) / steps_per_epoch
    finite = np.isfinite(losses)
    if diverged_step is None:
        lost = [float(x) for x in at[~finite][:1]]
        lost += [row.epoch for row in history if row.train_loss is None or not math.isfinite(row.train_loss)][:1]
    else:
        lost = [diverged_step / steps_per_epoch]
    step_epochs, step_means = _bucket_means(at[finite], losses[finite])
    looks: list[tuple[float, float | None, float | None]]
    if tests:
        looks = [(look.step / steps_per_epoch, look.loss, look.accuracy) for look in tests]
    else:
        looks = [(row.epoch, row.test_loss, row.test_accuracy) for row in history]
    return RunCurves(
        epochs=_column([row.epoch for row in history]),
        train_loss=_column([row.train_loss for row in history]),
        train_accuracy=_column([row.train_accuracy for row in history]),
        valid_loss=_column([row.valid_loss for row in history]),
        valid_accuracy=_column([row.valid_accuracy for row in history]),
        test_epochs=_column([look[0] for look in looks]),
        test_loss=_column([look[1] for look in looks]),
        test_accuracy=_column([look[2] for look in looks]),
        step_epochs=step_epochs,
        step_losses=step_means,
        diverged_at=min(lost, default=None),
    )


def _column(numbers: Sequence[float | None]) -> Floats:
    """One value for each row, NaN for what is absent or not finite."""
    values = np.array(numbers, dtype=np.float32)  # None becomes NaN
    return np.where(np.isfinite(values), values, np.float32("nan"))


def _bucket_means(at: NDArray[np.float64], losses: Floats) -> tuple[Floats, Floats]:
    """Position and loss of steps, averaged over as few neighbours as keep 500 points or fewer.

    Means rather than extremes: the lowest and highest batch of each bucket draw a solid band over the epochs' curves,
    while a mean estimates the same loss as they do, and a spike worth seeing still lifts it.
    """
    if not len(losses):
        return at.astype(np.float32), losses
    width = -(-len(losses) // STEP_POINTS)
    starts = np.arange(0, len(losses), width)
    sizes = np.diff(starts, append=len(losses))
    means = (np.add.reduceat(values.astype(np.float64), starts) / sizes for values in (at, losses))
    x, y = (values.astype(np.float32) for values in means)
    return x, y


def loss_figure(curves: RunCurves, *, colour: str, epochs: int) -> go.Figure:
    """Training, validation and test loss by epoch over the faint loss of the batches; the x-axis is 0 … `epochs`."""
    figure = frame(epochs)
    figure.add_scatter(
        x=curves.step_epochs,
        y=curves.step_losses,
        name="Batches",
        mode="lines",
        line={"color": colour, "width": 1},
        opacity=0.45,
        hoverinfo="skip",
    )
    series = (curves.train_loss, curves.valid_loss, curves.test_loss)
    _add_series(figure, curves, series, colour, "%{y:.4f}")
    top = loss_top(curves, epochs)
    if curves.diverged_at is not None:
        last = _last(curves.step_epochs, curves.step_losses) or _last(curves.epochs, curves.train_loss)
        _add_divergence(figure, last, top, colour, epochs)
    figure.update_traces(showlegend=False, selector={"name": "Best"})  # the legend of the accuracies has it
    figure.update_yaxes(range=[0, top])
    return figure


def accuracy_figure(curves: RunCurves, *, colour: str, epochs: int) -> go.Figure:
    """Training, validation and test accuracy in % by epoch; the x-axis is 0 … `epochs`."""
    figure = frame(epochs)
    series = tuple(100 * values for values in (curves.train_accuracy, curves.valid_accuracy, curves.test_accuracy))
    _add_series(figure, curves, series, colour, "%{y:.2f} %")
    shown = np.concatenate(series)
    shown = shown[np.isfinite(shown)]
    figure.update_yaxes(range=[accuracy_floor(float(shown.min(initial=100))) if len(shown) else 0, 100])
    figure.update_yaxes(ticksuffix=" %")
    if curves.diverged_at is not None:
        _add_divergence(figure, _last(curves.epochs, series[0]), 100, colour, epochs)
    if not len(shown):
        words = "The first point comes after epoch 1" if curves.diverged_at is None else "Diverged in the first epoch"
        words = in_page_colour(words)
        figure.add_annotation(text=words, showarrow=False, opacity=0.7, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def new_figure(layout: Mapping[str, Any] | None = None) -> go.Figure:
    """An empty figure.

    pandas is loaded first: plotly takes what `sys.modules` has of it, half-loaded while another thread (the engine's,
    through Dask) is just importing it, and fails.
    """
    import pandas  # noqa: F401 - a quarter of a second, which pages without figures need not wait for

    return go.Figure(layout=layout)


def in_page_colour(text: str) -> str:
    """Text of an annotation; Streamlit's light theme would write it in a grey too weak for a blue cell."""
    return f'<span style="color:currentColor">{text}</span>'


def loss_top(curves: RunCurves, epochs: int) -> float:
    """The upper end of the loss axis, a round number that hardly moves while points arrive.

    Batches count by means over parts of the whole run, without the first and the unfinished part: the highest of those
    can only rise as more arrive, whereas a percentile of the batches so far falls with every redraw.
    """
    tops = [
        float(values[np.isfinite(values)].max(initial=0))
        for values in (curves.train_loss, curves.valid_loss, curves.test_loss)
    ]
    losses = curves.step_losses
    if len(losses):
        parts = (curves.step_epochs / (OFF_FRAME * epochs)).astype(np.int64)
        finished = [losses[parts == part].mean() for part in range(1, parts[-1]) if part in parts]
        tops.append(float(NOISE * max(finished) if finished else losses.max()))
        if curves.diverged_at is not None:  # the loss before it exploded is worth seeing too
            tops[-1] = min(tops[-1], 10 * float(np.median(losses)))
    highest = max(tops)
    if not highest > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next((top * power for top in TOPS if top * power >= highest), 10 * power)


def accuracy_floor(lowest: float) -> float:
    """The lower end of the accuracy axis in %: half a point or more below the lowest value, in steps of 5 or 10."""
    step = 5 if lowest > 80 else 10
    return max(0.0, float(step * math.floor((lowest - 0.5) / step)))


def frame(epochs: int) -> go.Figure:
    """An empty figure with epochs across."""
    return new_figure(
        {
            "height": FIGURE_HEIGHT,
            "showlegend": True,
            "margin": MARGIN,
            "hovermode": "x unified",
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "xaxis": {
                "range": [0, epochs],
                "dtick": 1 if epochs <= 10 else None,
                "tickformat": "d",
                "title": {"text": "Epoch", "standoff": 10},
                "unifiedhovertitle": {"text": "Epoch %{x:.4~g}"},
                "zeroline": False,
            },
            "yaxis": {"zeroline": False, "nticks": 6, "automargin": True},
        }
    )


def _add_series(figure: go.Figure, curves: RunCurves, series: Sequence[Floats], colour: str, hover: str) -> None:
    """Add training, validation and test as far as they have values, and a star at the best epoch."""
    across = (curves.epochs, curves.epochs, curves.test_epochs)
    for (name, dash, symbol), x, y in zip(SERIES, across, series, strict=True):
        points = np.count_nonzero(np.isfinite(y))
        if points:
            figure.add_scatter(
                x=x,
                y=y,
                name=name,
                mode="lines+markers" if points <= MOST_MARKERS else "lines",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 6, "symbol": symbol},
                cliponaxis=False,
                hovertemplate=hover,
            )
    if curves.best is not None:
        figure.add_scatter(
            x=curves.epochs[curves.best, None],
            y=series[1][curves.best, None],
            name="Best",
            mode="markers",
            marker={"symbol": "star", "size": 13, "color": colour},
            cliponaxis=False,
            hoverinfo="skip",
        )


def _last(x: Floats, y: Floats) -> tuple[float, float] | None:
    """The last point that is finite, or None."""
    finite = np.flatnonzero(np.isfinite(y))
    return (float(x[finite[-1]]), float(y[finite[-1]])) if len(finite) else None


def _add_divergence(figure: go.Figure, last: tuple[float, float] | None, top: float, colour: str, epochs: int) -> None:
    """Add a cross and the word at the last finite point; at the edge of the frame where that lies above it."""
    if last is not None:
        figure.add_scatter(
            x=[last[0]],
            y=[min(last[1], top)],
            name="Diverged",
            text=[in_page_colour("\N{NO-BREAK SPACE}diverged\N{NO-BREAK SPACE}")],
            textposition="middle right" if last[0] < epochs / 2 else "middle left",
            mode="markers+text",
            marker={"symbol": "x", "size": 9, "color": colour},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
