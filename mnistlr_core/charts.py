"""Rows -> numbers -> Plotly figures, and the sentence that says what a figure shows.

A figure sets no template and no colour of text or background, so that Streamlit's theme gives both on light and dark.
What carries meaning is coloured here: a run has one colour on every page, training is solid, validation dashed, test
dotted. Numbers travel as float32 arrays, which Plotly encodes as binary: half the bytes of lists, a third of the time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from mnistlr_core.evaluation import most_confused

__all__ = [
    "PALETTE",
    "EpochRow",
    "RunCurves",
    "accuracy_figure",
    "colour",
    "confusion_figure",
    "confusion_sentence",
    "curves",
    "curves_sentence",
    "loss_figure",
    "picked_cell",
]

# Found by search over sRGB: each has a contrast of at least 3:1 with white and with #0e1117 (WCAG 2.2, 1.4.11), and any
# two stay 0.11 apart in OKLab as seen with normal, protan and deutan sight (Machado et al. 2009); Okabe-Ito has 0.08.
PALETTE = ("#6631ff", "#e86b06", "#098ea7", "#cc0910", "#2ba878", "#2c63ad", "#0c7259", "#6290fb")

FIGURE_HEIGHT = 260
STEP_POINTS = 500
MOST_MARKERS = 30  # above this many epochs markers merge into a thick line
SERIES = (("Training", "solid", "circle"), ("Validation", "dash", "circle-open"), ("Test", "dot", "diamond"))
TREND = 0.002  # accuracy; a smaller change over three epochs is called no change

Floats = NDArray[np.float32]


class EpochRow(Protocol):
    """What a finished epoch reports; accuracies from 0 to 1, None where nothing was measured."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def train_accuracy(self) -> float: ...
    @property
    def valid_loss(self) -> float | None: ...
    @property
    def valid_accuracy(self) -> float | None: ...
    @property
    def test_loss(self) -> float | None: ...
    @property
    def test_accuracy(self) -> float | None: ...


@dataclass(frozen=True, eq=False, slots=True)
class RunCurves:
    """The numbers of one run's curves: e finished epochs, s ≤ 500 points of the loss by step (means).

    Every array is float32; NaN stands where a value is absent or not finite, and breaks the line there.
    `step_epochs` are fractions of epochs. `diverged_at` is where training loss first was not finite, in epochs.
    """

    epochs: Floats
    train_loss: Floats
    train_accuracy: Floats
    valid_loss: Floats
    valid_accuracy: Floats
    test_loss: Floats
    test_accuracy: Floats
    step_epochs: Floats
    step_losses: Floats
    diverged_at: float | None

    @property
    def best(self) -> int | None:
        """Position of the epoch with the highest validation accuracy, the first of equals; None without validation."""
        return None if np.isnan(self.valid_accuracy).all() else int(np.nanargmax(self.valid_accuracy))


def colour(key: str) -> str:
    """The colour of the run with this id, the same in every process and on every page."""
    return PALETTE[zlib.crc32(key.encode()) % len(PALETTE)]


def curves(history: Sequence[EpochRow], step_losses: ArrayLike, steps_per_epoch: float) -> RunCurves:
    """Turn a run's history and the training loss of each step so far, [steps], into the numbers of its curves.

    Raises ValueError when `steps_per_epoch` is not positive.
    """
    if not steps_per_epoch > 0:
        raise ValueError(f"steps per epoch must be positive; got {steps_per_epoch}")
    losses = np.asarray(step_losses, dtype=np.float32).ravel()
    at = np.arange(1, len(losses) + 1, dtype=np.float64) / steps_per_epoch
    finite = np.isfinite(losses)
    lost = [float(x) for x in at[~finite][:1]]
    lost += [float(row.epoch) for row in history if not math.isfinite(row.train_loss)][:1]
    step_epochs, step_means = _bucket_means(at[finite], losses[finite])

    def column(name: str) -> Floats:
        values = np.array([getattr(row, name) for row in history], dtype=np.float32)  # None becomes NaN
        return np.where(np.isfinite(values), values, np.float32("nan"))

    return RunCurves(
        epochs=np.array([row.epoch for row in history], dtype=np.float32),
        **{
            f"{part}_{of}": column(f"{part}_{of}") for part in ("train", "valid", "test") for of in ("loss", "accuracy")
        },
        step_epochs=step_epochs,
        step_losses=step_means,
        diverged_at=min(lost, default=None),
    )


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
    figure = _frame(epochs)
    figure.add_scatter(
        x=curves.step_epochs,
        y=curves.step_losses,
        name="Batches",
        mode="lines",
        line={"color": colour, "width": 1},
        opacity=0.35,
        hoverinfo="skip",
    )
    series = (curves.train_loss, curves.valid_loss, curves.test_loss)
    _add_series(figure, curves, series, colour, "%{y:.4f}")
    tops = [float(values[np.isfinite(values)].max(initial=0)) for values in series]
    if len(curves.step_losses):  # the first batches may leave the frame: they would flatten all that follows
        tops.append(float(np.percentile(curves.step_losses, 98)))
    figure.update_yaxes(range=[0, 1.05 * max(tops, default=0) or 1.0])
    return figure


def accuracy_figure(curves: RunCurves, *, colour: str, epochs: int) -> go.Figure:
    """Training, validation and test accuracy in % by epoch; the x-axis is 0 … `epochs`."""
    figure = _frame(epochs)
    series = tuple(100 * values for values in (curves.train_accuracy, curves.valid_accuracy, curves.test_accuracy))
    _add_series(figure, curves, series, colour, "%{y:.2f} %")
    shown = np.concatenate(series)
    shown = shown[np.isfinite(shown)]
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 100.0)
    room = max(0.08 * (high - low), 0.5)
    figure.update_yaxes(range=[max(low - room, 0), min(high + room, 100)], ticksuffix=" %")
    if not len(shown):
        words = _in_page_colour("The first point comes after epoch 1")
        figure.add_annotation(text=words, showarrow=False, opacity=0.7, xref="paper", yref="paper", x=0.5, y=0.5)
    return figure


def _frame(epochs: int) -> go.Figure:
    """An empty figure with epochs across."""
    return go.Figure(
        layout={
            "height": FIGURE_HEIGHT,
            "showlegend": True,
            "margin": {"l": 0, "r": 8, "t": 0, "b": 0},
            "hovermode": "x unified",
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "xaxis": {
                "range": [0, epochs],
                "dtick": 1 if epochs <= 10 else None,
                "tickformat": "d",
                "title": {"text": "Epoch", "standoff": 10},
                "unifiedhovertitle": {"text": "Epoch %{x}"},
                "zeroline": False,
            },
            "yaxis": {"zeroline": False, "nticks": 6, "automargin": True},
        }
    )


def _in_page_colour(text: str) -> str:
    """Text of an annotation; Streamlit's light theme would write it in a grey too weak for a blue cell."""
    return f'<span style="color:currentColor">{text}</span>'


def _add_series(figure: go.Figure, curves: RunCurves, series: Sequence[Floats], colour: str, hover: str) -> None:
    """Add training, validation and test as far as they have values, and a star at the best epoch."""
    for (name, dash, symbol), values in zip(SERIES, series, strict=True):
        points = np.count_nonzero(np.isfinite(values))
        if points:
            figure.add_scatter(
                x=curves.epochs,
                y=values,
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


# One translucent blue over the page's own paper, so that the same figure is right on light and dark: text in the
# theme's colour keeps a contrast of 4.5:1 on the fullest cell of both.
ERRORS = [[0, "rgba(82, 113, 255, 0.04)"], [1, "rgba(82, 113, 255, 0.7)"]]
NEUTRAL = [[0, "rgba(128, 128, 128, 0.16)"], [1, "rgba(128, 128, 128, 0.16)"]]
PICKED = "#e86b06"


def confusion_figure(
    matrix: NDArray[np.int64],
    classes: Sequence[str],
    normalise: bool = False,
    selected: tuple[int, int] | None = None,
    *,
    height: int = 360,
) -> go.Figure:
    """The confusion matrix [c, c] as cells, actual class down, predicted across; `selected` is outlined.

    Colour shows errors only; the diagonal is grey. `normalise` writes and colours by percentages of each actual class
    instead of counts. Show it with `on_select` and `selection_mode="points"`; `picked_cell` reads the click.
    """
    c = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    wrong = (shares if normalise else matrix).astype(np.float32)
    np.fill_diagonal(wrong, np.nan)
    right = np.where(np.eye(c, dtype=bool), np.float32(0), np.float32("nan"))
    cells = [(actual, predicted) for actual in range(c) for predicted in range(c)]

    figure = go.Figure()
    heat = {"xgap": 2, "ygap": 2, "showscale": False, "hoverinfo": "skip"}
    figure.add_heatmap(z=right, colorscale=NEUTRAL, zmin=0, zmax=1, **heat)
    top = float(wrong[np.isfinite(wrong)].max(initial=0)) or 1.0
    figure.add_heatmap(z=wrong, colorscale=ERRORS, zmin=0, zmax=top, **heat)
    # Streamlit reports no click on a heatmap, so invisible points over the cells take it; lists, because a click on a
    # typed array comes back as an object with the keys "0", "1".
    figure.add_scatter(
        x=[predicted for _, predicted in cells],
        y=[actual for actual, _ in cells],
        customdata=cells,
        text=[
            f"<b>{classes[a]} read as {classes[p]}</b><br>{matrix[a, p]:,} of {totals[a, 0]:,} ({shares[a, p]:.1f} %)"
            for a, p in cells
        ],
        mode="markers",
        marker={"symbol": "square", "size": 20, "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    # Annotations, because a trace's text fades on a click and a heatmap's picks its colour as if the page were white.
    words = [f"{shares[cell]:.1f}" if normalise and matrix[cell] else str(matrix[cell]) for cell in cells]
    long = max(map(len, classes), default=0) > 2
    axis = {"tickvals": list(range(c)), "ticktext": list(classes), "range": [-0.5, c - 0.5], "constrain": "domain"}
    axis |= {
        "showgrid": False,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
    }
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 44 if long else 0, "t": 0, "b": 0},  # room for the last slanted label, else left out
        hovermode="closest",
        xaxis=axis | {"side": "top", "title": {"text": "Predicted", "standoff": 10}, "tickangle": -45 if long else 0},
        yaxis=axis | {"range": [c - 0.5, -0.5], "scaleanchor": "x", "title": {"text": "Actual", "standoff": 10}},
        annotations=[
            {
                "x": predicted,
                "y": actual,
                "text": _in_page_colour(word),
                "showarrow": False,
                "font": {"size": 11 if len(word) < 4 else 10},
                "opacity": 0.4 if word == "0" else 0.7 if actual == predicted else 1,
            }
            for (actual, predicted), word in zip(cells, words, strict=True)
        ],
    )
    if selected is not None:
        (row, column), half = selected, 0.48
        figure.add_shape(
            type="rect",
            x0=column - half,
            x1=column + half,
            y0=row - half,
            y1=row + half,
            line={"color": PICKED, "width": 2.5},
        )
    return figure


def picked_cell(event_selection: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (actual, predicted) cell that was clicked, or None.

    Takes what `st.plotly_chart` returns, or its `selection`; anything unexpected counts as no click.
    """
    try:
        selection = event_selection.get("selection", event_selection)
        cell = selection["points"][0]["customdata"]
        if isinstance(cell, Mapping):
            cell = [cell["0"], cell["1"]]
        actual, predicted = cell
        return int(actual), int(predicted)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def confusion_sentence(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The three most frequent confusions in words."""
    if not matrix.sum():
        return "No image has been classified yet."
    worst = most_confused(matrix, 3)
    if not worst:
        return f"All {matrix.sum():,} images were read correctly."
    first, *others = worst
    named = f"{classes[first.actual]} read as {classes[first.predicted]} ({_times(first.count, 'time')})"
    return (
        "Most confused: "
        + ", ".join(
            [named, *(f"{classes[cell.actual]} as {classes[cell.predicted]} ({cell.count:,})" for cell in others)]
        )
        + "."
    )


def curves_sentence(curves: RunCurves) -> str:
    """What the curves show, in one or two sentences; it claims a trend only where the numbers carry one."""
    done = len(curves.epochs)
    if curves.diverged_at is not None:
        before = (
            ""
            if curves.best is None
            else f" Validation accuracy had reached {_percent(np.nanmax(curves.valid_accuracy))}."
        )
        return (
            f"Training diverged after {curves.diverged_at:.3g} epochs: the loss is no longer a finite number.{before}"
        )
    if not done:
        if not len(curves.step_losses):
            return "Nothing has been trained yet."
        at, loss = curves.step_epochs[-1], curves.step_losses[-1]
        return f"Training loss is {loss:.2f} after {at:.2g} epochs; the first epoch has not finished yet."
    last_epoch = int(curves.epochs[-1])
    low = int(np.argmin(curves.train_loss))
    if curves.train_loss[-1] > 1.5 * curves.train_loss[low]:
        return (
            f"Training loss rose from {curves.train_loss[low]:.2f} after epoch {int(curves.epochs[low])} to "
            f"{curves.train_loss[-1]:.2f} after epoch {last_epoch}; a lower learning rate may help."
        )
    measured = np.isfinite(curves.valid_accuracy)
    if not measured.any():
        return (
            f"Training accuracy is {_percent(curves.train_accuracy[-1])} after {_times(last_epoch, 'epoch')}. "
            "No images were held out for validation, so the curves can't show overfitting."
        )
    epochs, accuracy = curves.epochs[measured].astype(int), curves.valid_accuracy[measured]
    first, last = accuracy[0], accuracy[-1]
    start = f"{_percent(first)} after {_times(epochs[0], 'epoch')}"
    if len(accuracy) == 1:
        return f"Validation accuracy is {start}; one epoch shows no trend yet."
    verb = f"reached {start} and" if last >= first else f"went from {start} to"
    return f"Validation accuracy {verb} {_percent(last)} after {epochs[-1]}; {_trend(curves, epochs, accuracy)}."


def _trend(curves: RunCurves, epochs: NDArray[np.int_], accuracy: Floats) -> str:
    """How validation went on, at two measured epochs or more."""
    loss = curves.valid_loss
    if np.isfinite(loss).all():
        low = int(np.argmin(loss))
        # Two epochs and 3 % above the minimum: less is within the noise of a few thousand validation images.
        if len(loss) - low > 2 and loss[-1] > 1.03 * loss[low] and curves.train_loss[-1] < curves.train_loss[low]:
            return (
                f"validation loss has risen since epoch {int(curves.epochs[low])} while training loss kept falling: "
                "the model is overfitting"
            )
    recent, best = accuracy[-3:], int(np.argmax(accuracy))
    if accuracy[-1] == accuracy[best] and accuracy[-1] - recent[0] >= TREND:
        return "it is still rising, so more epochs may help"
    if np.ptp(recent) < TREND:
        return f"over the last {len(recent)} epochs it moved by less than {100 * TREND:.1f} points"
    return f"its best was {_percent(accuracy[best])} after {epochs[best]}, and no trend is clear since"


def _percent(share: float | np.floating[Any]) -> str:
    """0.9147 -> 91.5 %; above 99.5 % with a second decimal, and never 100 % while an image is wrong."""
    if 0.995 <= share < 1:
        return f"{min(100 * share, 99.99):.2f} %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
