"""Rows -> numbers -> Plotly figure of several seeds' accuracies: their mean, the band between lowest and highest, and
what was claimed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from mnistlr_core.articles import Claimed, Relation
from mnistlr_core.charts import BAND_OPACITY, MOST_MARKERS, QUIET, SERIES, Floats, RunCurves, accuracy_floor, frame

__all__ = ["Band", "bands", "bands_figure"]

_SHARE_OF_SPLIT = {"Training": "train_accuracy", "Validation": "valid_accuracy", "Test": "test_accuracy"}


@dataclass(frozen=True, eq=False, slots=True)
class Band:
    """One split's accuracy over seeds, in 0..1: float32 [points] each. Mean, lowest and highest of the seeds there."""

    split: str
    epochs: Floats
    mean: Floats
    low: Floats
    high: Floats


def bands(runs: Sequence[RunCurves], finals: Sequence[tuple[float, float]] = ()) -> tuple[Band, ...]:
    """The bands of runs that differ only in their seeds; a split that none of them measured has none.

    finals: (epochs, test accuracy) at a run's end, for runs that looked at the test set only then.
    """
    found = []
    for split, figure in _SHARE_OF_SPLIT.items():
        points = [
            (float(x), float(y))
            for run in runs
            for x, y in zip(run.test_epochs if split == "Test" else run.epochs, getattr(run, figure), strict=True)
            if np.isfinite(y)
        ]
        if split == "Test" and not points:
            points = list(finals)
        if points:
            found.append(_band(split, points))
    return tuple(found)


def _band(split: str, points: Sequence[tuple[float, float]]) -> Band:
    table: dict[float, list[float]] = {}
    for x, y in sorted(points):
        table.setdefault(x, []).append(y)
    columns = (table, *([combine(values) for values in table.values()] for combine in (np.mean, min, max)))
    epochs, mean, low, high = (np.array(list(column), dtype=np.float32) for column in columns)
    return Band(split, epochs, mean, low, high)


def bands_figure(
    groups: Mapping[str, Sequence[Band]], claims: Sequence[Claimed], *, colours: Sequence[str], epochs: int
) -> go.Figure:
    """Accuracy in % by epoch. A group is one configuration under several seeds, in the colour of its position.

    groups: by what is changed in them; the first, with nothing changed, is called "". Of the others only the splits
    that claims are about are drawn, and the training that leads to a lone point.

    A claim is a diamond where the article places it; a bound is a line across as well. Claims of losses are left out.
    """
    figure = frame(epochs)
    claims = [claim for claim in claims if claim.figure != "train_loss"]
    claimed = {claim.figure for claim in claims}
    shown = {
        title: [band for band in drawn if _belongs(band, drawn, title, claimed)] for title, drawn in groups.items()
    }
    for (title, drawn), colour in zip(shown.items(), colours, strict=False):
        for band in drawn:
            _add_band(figure, band, f"{band.split}, {title}" if title else band.split, colour)
    for claim in claims:
        if claim.relation is not Relation.ABOUT:
            figure.add_hline(y=100 * claim.value, line={"color": QUIET, "width": 1, "dash": "dot"})
    if claims:
        figure.add_scatter(
            x=[claim.epochs for claim in claims],
            y=[100 * claim.value for claim in claims],
            text=[claim.words for claim in claims],
            name="Claimed",
            mode="markers",
            marker={"symbol": "diamond-open", "size": 11, "color": QUIET, "line": {"width": 2}},
            cliponaxis=False,
            hovertemplate="%{text}<extra>Claimed</extra>",
        )
    lows = [float(band.low.min()) for drawn in shown.values() for band in drawn]
    lowest = min([*lows, *(claim.value for claim in claims)], default=0.0)
    figure.update_yaxes(range=[accuracy_floor(100 * lowest), 100], ticksuffix=" %")
    return figure


def _belongs(band: Band, drawn: Sequence[Band], title: str, claimed: Set[str]) -> bool:
    if not claimed or _SHARE_OF_SPLIT[band.split] in claimed:
        return True
    lone = any(len(other.epochs) == 1 for other in drawn if _SHARE_OF_SPLIT[other.split] in claimed)
    return band.split == "Training" and (not title or lone)


def _add_band(figure: go.Figure, band: Band, name: str, colour: str) -> None:
    _, dash, symbol = next(series for series in SERIES if series[0] == band.split)
    mean, low, high = 100 * band.mean, 100 * band.low, 100 * band.high
    if len(band.epochs) > 1:
        figure.add_scatter(
            x=np.concatenate([band.epochs, band.epochs[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            fillcolor=colour,
            opacity=BAND_OPACITY,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=band.epochs,
        y=mean,
        name=name,
        mode="lines+markers" if len(mean) <= MOST_MARKERS else "lines",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"size": 6, "symbol": symbol},
        error_y={"type": "data", "symmetric": False, "array": high - mean, "arrayminus": mean - low}
        if len(mean) == 1
        else None,
        cliponaxis=False,
        hovertemplate="%{y:.2f} %",
    )
