"""One Plotly figure of several runs over each other: loss above, accuracy below, one crosshair.

Plotly shares a hover between plots that share one x-axis (`hoversubplots: axis`), and an axis has one place across: so
the two plots stand over each other. Side by side, on axes that merely match, each would answer for itself.

A run is told by its colour and, among those of one colour, by marker and width: the first has circles on a line of
2 px, the second squares on 3.5 px, the third triangles on 1.2 px, and so on. All but the first keep a few of their
markers on lines too long for all of them. Dashes tell training, validation and test apart, here as everywhere.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from mnistlr_core.charts import (
    BAND_OPACITY,
    MARGIN,
    MOST_MARKERS,
    QUIET,
    SERIES,
    STEP_POINTS,
    TOPS,
    Floats,
    RunCurves,
    accuracy_floor,
    in_page_colour,
    loss_top,
    new_figure,
)
from mnistlr_core.overlay import Across, Overlaid, over_seeds, positions, smoothed

__all__ = ["overlay_figure"]

HEIGHT = 520
ENTRY = 8  # px more for each run: its line of the legend on a phone, less what the plots can spare
PLOTS = (("loss", "y", 1, (0.53, 1.0)), ("accuracy", "y2", 100, (0.0, 0.47)))
SPLITS = {"train": ("epochs", ""), "valid": ("epochs", "-open"), "test": ("test_epochs", "-open-dot")}
STYLES = dict(zip(SPLITS, SERIES, strict=True))
SYMBOLS = ("circle", "square", "triangle-up", "diamond-tall", "hexagram")
WIDTHS = (2.0, 3.5, 1.2)
FEW_MARKERS = 12
FAINT = 0.3
LONGEST_TITLE = 36  # letters of a legend's entry: as many as a phone has room for
MOST_DETAILS = 4  # of more runs than this the hyperparameters would fill the hover from top to bottom
DETAILS_WIDTH = 44  # letters
WORD = (0.2, 0.1)  # the share of a plot on a phone that the word "diverged" takes, across and up


def overlay_figure(
    runs: Sequence[Overlaid],
    *,
    across: Across = Across.EPOCH,
    log_x: bool = False,
    log_y: bool = False,
    smoothing: float = 0.0,
    test: bool = False,
) -> go.Figure:
    """Loss over accuracy of up to a dozen runs: training solid, validation dashed, a star at its best epoch.

    log_x: begins at the first point, because 0 has no place on it. log_y: of the loss; accuracies stay as they are.
    smoothing: as `smoothed`; the raw lines stay, faintly. The hover, the stars and the bands are of raw values.
    test: draws the test set, dotted, which otherwise only stands in where nothing was held out for validation.

    The frame is that of runs that did not diverge; the others leave it, and end in a cross with the word.
    """
    frame = _frame(runs, across, log_x, log_y, test)
    figure = _empty(frame, len(runs))
    alike: Counter[str] = Counter()
    spots: list[tuple[str, float, float]] = []
    for k, run in enumerate(runs):
        look = _Look(f"run {k}", run.colour, alike[run.colour])
        alike[run.colour] += 1
        _add_run(figure, run, look, frame, _splits(run, test), smoothing, details=len(runs) <= MOST_DETAILS)
        _add_divergence(figure, run, look, frame, spots)
    drawn = {trace.name for trace in figure.data}
    if runs and "Training" not in drawn:
        lost = all(seed.diverged_at is not None for run in runs for seed in run.curves)
        words = in_page_colour("Diverged in the first epoch" if lost else "The first point comes after epoch 1")
        place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": sum(PLOTS[1][3]) / 2}
        figure.add_annotation(text=words, showarrow=False, opacity=0.7, **place)
    key: dict[str, dict[str, Any]] = {
        name: {"mode": "lines", "line": {"color": QUIET, "width": 2, "dash": dash}} for name, dash, _ in SERIES
    }
    key["Batches"] = {"mode": "lines", "line": {"color": QUIET, "width": 1}, "opacity": 2 * FAINT}
    key["Best"] = {"mode": "markers", "marker": {"symbol": "star", "size": 13, "color": QUIET}}
    for name in [name for name in key if name in drawn]:
        figure.add_scatter(x=[None], y=[None], name=name, legend="legend2", hoverinfo="skip", **key[name])
    return figure


@dataclass(frozen=True, slots=True)
class _Look:
    """How a run is told from the others; `twin` counts the runs of its colour before it."""

    group: str
    colour: str
    twin: int

    @property
    def member(self) -> dict[str, Any]:
        """What makes a trace answer to the run's entry in the legend."""
        return {"legendgroup": self.group, "showlegend": False, "hoverinfo": "skip"}

    def curve(self, split: str, points: int) -> dict[str, Any]:
        """Line and markers of a curve of so many points."""
        many = points > MOST_MARKERS
        return {
            "mode": "lines" if many and not self.twin else "lines+markers",
            "line": {"color": self.colour, "width": WIDTHS[self.twin % len(WIDTHS)], "dash": STYLES[split][1]},
            "marker": {
                "symbol": SYMBOLS[self.twin % len(SYMBOLS)] + SPLITS[split][1],
                "size": 8 if self.twin else 6,
                "color": self.colour,
                "maxdisplayed": FEW_MARKERS if many else 0,
            },
        }


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis from `low` to `high`, in its own unit."""

    low: float
    high: float
    log: bool = False

    @property
    def layout(self) -> dict[str, Any]:
        ends = [self.low, self.high]
        return {"type": "log", "range": [math.log10(end) for end in ends]} if self.log else {"range": ends}

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        low, high, at = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        return (at - low) / (high - low)


@dataclass(frozen=True, slots=True)
class _Frame:
    across: Across
    x: _Axis
    loss: _Axis
    accuracy: _Axis


def _frame(runs: Sequence[Overlaid], across: Across, log_x: bool, log_y: bool, test: bool) -> _Frame:
    """A frame that hardly moves while points arrive. Seeds that diverged don't stretch it, unless all did."""
    alive = [(run, [seed for seed in run.curves if seed.diverged_at is None]) for run in runs]
    calm = [(run, over_seeds(seeds)) for run, seeds in alive if seeds] or [
        (run, over_seeds(run.curves)) for run in runs
    ]

    # A run that stopped within an epoch has come further than its finished ones.
    lasts = [
        (run, [float(run.epochs), *(float(at) for seed in run.curves for at in seed.step_epochs[-1:])]) for run in runs
    ]
    ends = _finite(positions(np.array(last, dtype=np.float32), run, across) for run, last in lasts)
    end = float(ends.max(initial=0)) or 1.0
    if across is Across.SECONDS:  # an estimate while runs train: round, so that it rests
        end = _rounded(end, up=True)
    means = [(run, over_seeds(run.curves).mean) for run in runs]
    starts = [(run, at[:1]) for run, mean in means for at in (mean.step_epochs, mean.epochs, mean.test_epochs)]
    start = float(_finite(positions(at, run, across) for run, at in starts).min(initial=end))
    x = _Axis(start if start < end else end / 10, end, log=True) if log_x else _Axis(0.0, end)

    top = max((loss_top(seeds.high, run.epochs) for run, seeds in calm), default=1.0)
    loss = _Axis(0.0, top)
    if log_y:  # the first batches flatten nothing there, so they have their place
        both = [curves for _, seeds in calm for curves in (seeds.low, seeds.high)]
        losses = _finite(
            values for of in both for values in (of.train_loss, of.valid_loss, of.test_loss, of.step_losses)
        )
        losses = losses[losses > 0]
        low, high = float(losses.min(initial=top)), float(losses.max(initial=top))
        loss = _Axis(min(_rounded(low, up=False), top / 10), _rounded(high, up=True), log=True)

    shares = _finite(getattr(seeds.low, f"{split}_accuracy") for run, seeds in calm for split in _splits(run, test))
    return _Frame(across, x, loss, _Axis(accuracy_floor(100 * float(shares.min())) if len(shares) else 0.0, 100.0))


def _finite(arrays: Iterable[Floats]) -> Floats:
    values: Floats = np.concatenate([np.zeros(0, dtype=np.float32), *arrays])
    return values[np.isfinite(values)]


def _rounded(value: float, *, up: bool) -> float:
    """The next round number, of those that the loss axis ends on everywhere."""
    power = 10.0 ** math.floor(math.log10(value))
    tops = [top * power for top in TOPS]
    if up:
        return next(top for top in tops if top >= value)
    return next((top for top in reversed(tops) if top <= value), 0.8 * power)  # log10 may round up


def _splits(run: Overlaid, test: bool) -> list[str]:
    """What is drawn of a run: the test set stands in for validation once it is sure that there is none."""
    validated = any(seed.best is not None for seed in run.curves)
    begun = any(len(seed.epochs) for seed in run.curves)
    shown = {"train": True, "valid": validated, "test": test or (begun and not validated)}
    return [split for split in SPLITS if shown[split]]


def _empty(frame: _Frame, runs: int) -> go.Figure:
    """The frame with nothing in it yet."""
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"}
    figure = new_figure(
        {
            "height": HEIGHT + ENTRY * runs,
            "showlegend": True,
            "margin": MARGIN,
            "hovermode": "x unified",
            "hoversubplots": "axis",
            "hoverdistance": -1,  # the crosshair is never lost between epochs; each row says which epoch it is of
            "legend": legend | {"y": 1.02, "maxheight": 0.4, "tracegroupgap": 0},
            "legend2": legend | {"yref": "container", "y": 0, "itemclick": False, "itemdoubleclick": False},
            "xaxis": frame.x.layout
            | {
                "anchor": "y2",
                "title": {"text": frame.across.label, "standoff": 10},
                "unifiedhovertitle": {"text": f"{frame.across.at}, training / validation"},
                "zeroline": False,
            },
            "yaxis": frame.loss.layout,
            "yaxis2": frame.accuracy.layout | {"ticksuffix": " %"},
        }
    )
    if frame.across is Across.EPOCH and not frame.x.log:
        figure.update_xaxes(dtick=1 if frame.x.high <= 10 else None, tickformat="d")
    figure.update_yaxes(zeroline=False, nticks=6, automargin=True)
    # In the corners that curves leave free: a title beside the axis costs a phone a tenth of its width.
    for (plot, axis, _, domain), end in zip(PLOTS, ("top", "bottom"), strict=True):
        figure.update_layout({axis.replace("y", "yaxis"): {"domain": domain}})
        place = {
            "x": 1,
            "xanchor": "right",
            "y": domain[end == "top"],
            "yanchor": end,
            "xref": "paper",
            "yref": "paper",
        }
        figure.add_annotation(text=in_page_colour(f"<b>{plot.capitalize()}</b>"), showarrow=False, **place)
        figure.add_scatter(x=[None], y=[None], yaxis=axis, showlegend=False)  # an axis that nothing is on is not drawn
    return figure


def _add_run(
    figure: go.Figure,
    run: Overlaid,
    look: _Look,
    frame: _Frame,
    splits: Sequence[str],
    smoothing: float,
    *,
    details: bool,
) -> None:
    """Add a run's entry in the legend, its batches, its lines and bands, and its star."""
    seeds = over_seeds(run.curves)
    short = run.title if len(run.title) <= LONGEST_TITLE else run.title[: LONGEST_TITLE - 1] + "…"
    name = ", ".join([_escaped(short), *_lost(run)])
    figure.add_scatter(x=[None], y=[None], name=name, legendgroup=look.group, **look.curve("train", 1))

    faint = look.member | {"mode": "lines", "line": {"color": look.colour, "width": 1}}
    batches = seeds.mean.step_losses
    if len(batches):
        x = positions(seeds.mean.step_epochs, run, frame.across)
        figure.add_scatter(x=x, y=batches, name="Batches", opacity=FAINT, **faint)
        if smoothing:
            figure.add_scatter(x=x, y=smoothed(batches, smoothing), name="Batches", opacity=0.8, **faint)
    for split in splits:
        x = positions(getattr(seeds.mean, SPLITS[split][0]), run, frame.across)
        shown = _thinned(np.arange(len(x)), STEP_POINTS)
        for plot, axis, scale, _ in PLOTS:
            mean, low, high = (scale * getattr(of, f"{split}_{plot}") for of in (seeds.mean, seeds.low, seeds.high))
            if not np.isfinite(mean).any():
                continue
            if len(run.curves) > 1:
                edge = _thinned(np.flatnonzero(np.isfinite(mean)), STEP_POINTS // 2)
                figure.add_scatter(
                    x=np.concatenate([x[edge], x[edge][::-1]]),
                    y=np.concatenate([high[edge], low[edge][::-1]]),
                    name="Seeds",
                    yaxis=axis,
                    fill="toself",
                    fillcolor=look.colour,
                    opacity=BAND_OPACITY,
                    **faint | {"line": {"width": 0}},
                )
            if smoothing:
                figure.add_scatter(x=x[shown], y=mean[shown], name="Raw", yaxis=axis, opacity=FAINT, **faint)
            line = look.member | look.curve(split, len(x))
            if split == "train" and plot == "accuracy":
                line["hoverinfo"] = "none"  # no row of its own, but the crosshair's answer in this plot
            elif plot == "loss" and split != "valid":
                together = [other for other in splits if (other == "test") == (split == "test")]
                del line["hoverinfo"]
                line |= _row(run, seeds.mean, together, shown, details=details and split == "train")
            y = smoothed(mean, smoothing)[shown]
            figure.add_scatter(x=x[shown], y=y, name=STYLES[split][0], yaxis=axis, cliponaxis=False, **line)
    if seeds.mean.best is not None:
        best = slice(seeds.mean.best, seeds.mean.best + 1)
        x = positions(seeds.mean.epochs[best], run, frame.across)
        star = look.member | {"mode": "markers", "marker": {"symbol": "star", "size": 13, "color": look.colour}}
        for plot, axis, scale, _ in PLOTS:
            y = scale * getattr(seeds.mean, f"valid_{plot}")[best]
            figure.add_scatter(x=x, y=y, name="Best", yaxis=axis, cliponaxis=False, **star)


def _thinned(of: Any, most: int) -> Any:
    """At most so many of these, the first and the last among them."""
    return of if len(of) <= most else of[np.linspace(0, len(of) - 1, most).astype(int)]


def _row(run: Overlaid, mean: RunCurves, splits: Sequence[str], shown: Any, *, details: bool) -> dict[str, Any]:
    """What the hover says of a run at an epoch: the raw values of both plots, in one row that one trace carries."""
    columns = [getattr(mean, SPLITS[splits[0]][0])]
    columns += [scale * getattr(mean, f"{split}_{plot}") for plot, _, scale, _ in PLOTS for split in splits]
    loss, accuracy = (
        " / ".join(f"%{{customdata[{first + k}]:{digits}}}" for k in range(len(splits)))
        for first, digits in ((1, ".4f"), (1 + len(splits), ".2f"))
    )
    what = ["test"] if "test" in splits else []
    what += [f"mean of {len(run.curves)} seeds"] if len(run.curves) > 1 else []
    lines = [
        f"<b>{_escaped(run.title)}</b>, {', '.join([*what, 'epoch %{customdata[0]:.4~g}'])}",
        f"loss {loss}, accuracy {accuracy} %",
    ]
    if details:  # broken between hyperparameters, not within one
        whole = re.sub(r"(?<!,) ", "\N{NO-BREAK SPACE}", run.hover)
        lines += [f"<i>{_escaped(line)}</i>" for line in textwrap.wrap(whole, DETAILS_WIDTH)]
    return {"customdata": np.stack(columns, axis=1)[shown], "hovertemplate": "<br>".join(lines) + "<extra></extra>"}


def _escaped(text: str) -> str:
    """Text that Plotly shows as it is: neither its markup nor a %{placeholder}."""
    return html.escape(text, quote=False).replace("%{", "&#37;{")


def _lost(run: Overlaid) -> list[str]:
    """The word for a run that diverged, or none."""
    lost = sum(seed.diverged_at is not None for seed in run.curves)
    return [] if not lost else ["diverged" if len(run.curves) == 1 else f"{lost} of {len(run.curves)} diverged"]


def _add_divergence(
    figure: go.Figure, run: Overlaid, look: _Look, frame: _Frame, spots: list[tuple[str, float, float]]
) -> None:
    """Add a cross at the last finite point of each seed that diverged, at the edge where that lies outside the frame.

    The word stands beside the last of them, unless another run's stands there already; the legend has it too.
    spots: plot and place of the words so far.
    """
    for plot, axis, scale, _ in PLOTS:
        points: list[tuple[float, float]] = []
        for seed in (seed for seed in run.curves if seed.diverged_at is not None):
            at, values = seed.epochs, getattr(seed, f"train_{plot}")
            if plot == "loss" and len(run.curves) == 1 and len(seed.step_losses):
                at, values = seed.step_epochs, seed.step_losses
            last = np.flatnonzero(np.isfinite(values))[-1:]
            points += zip(positions(at[last], run, frame.across).tolist(), (scale * values[last]).tolist(), strict=True)
        if not points:
            continue
        ends: _Axis = getattr(frame, plot)
        x, y = zip(*sorted((x, min(max(y, ends.low), ends.high)) for x, y in points), strict=True)
        spot = (plot, frame.x.share(x[-1]), ends.share(y[-1]))
        free = not any(p == plot and abs(spot[1] - a) < WORD[0] and abs(spot[2] - b) < WORD[1] for p, a, b in spots)
        spots += [spot] if free else []
        word = in_page_colour(f"\N{NO-BREAK SPACE}{_lost(run)[0]}\N{NO-BREAK SPACE}") if free else ""
        figure.add_scatter(
            x=x,
            y=y,
            name="Diverged",
            yaxis=axis,
            text=[""] * (len(x) - 1) + [word],
            textposition=f"{'bottom' if y[-1] == ends.high else 'top'} {'right' if spot[1] < 0.5 else 'left'}",
            cliponaxis=False,
            **look.member | {"mode": "markers+text", "marker": {"symbol": "x", "size": 9, "color": look.colour}},
        )
