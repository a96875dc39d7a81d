"""A data set's numbers -> Plotly figures and the sentences that say the same: its classes, and its pixels.

A figure sets no template and no colour of text or background, as in `charts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from mnistlr_core.charts import FIGURE_HEIGHT, PALETTE, new_figure
from mnistlr_core.survey import Part

__all__ = ["class_figure", "class_sentence", "pixel_figure", "pixel_sentence"]

# Blue, teal and orange, in the order of Part: dark, dark and light, so that they differ without colour too.
PART_COLOURS = (PALETTE[5], PALETTE[2], PALETTE[1])
PIXEL_COLOUR = PALETTE[5]
MARGIN = {"l": 8, "r": 8, "t": 34, "b": 0}
LONG_NAME = 2  # letters, above which class names don't fit side by side
POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def class_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> go.Figure:
    """How many images of each class are for training, for validation and for the test, one upon the other.

    counts: [3, c], as in `survey.Division`. A part without images is left out.
    """
    figure = new_figure()
    for part, images, colour in zip(Part, counts, PART_COLOURS, strict=True):
        if images.any():
            figure.add_bar(
                x=list(range(len(classes))),
                y=images.astype(np.int32),
                name=part.label,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{y:,}",
            )
    long = max(map(len, classes), default=0) > LONG_NAME
    figure.update_layout(
        height=FIGURE_HEIGHT,
        margin=MARGIN,
        barmode="stack",
        bargap=0.25,
        hovermode="x unified",
        showlegend=True,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        xaxis={
            "tickvals": list(range(len(classes))),
            "ticktext": list(classes),
            "tickangle": -45 if long else 0,
            "ticks": "",
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "automargin": True,
        },
        yaxis={"zeroline": False, "nticks": 6, "tickformat": ",d", "automargin": True, "fixedrange": True},
    )
    return figure


def class_sentence(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """How even the classes are, and what always answering the commonest of them would be worth on the test images."""
    totals, test = counts.sum(axis=0), counts[list(Part).index(Part.TEST)]
    fewest, most = int(totals.argmin()), int(totals.argmax())
    if totals[fewest] == totals[most]:
        return f"Every class has {totals[0]:,} images, so a blind guess is right {100 / len(classes):g} % of the time."
    learned = int((totals - test).argmax())
    share = 100 * test[learned] / test.sum()
    return (
        f"From {totals[fewest]:,} images of {classes[fewest]} to {totals[most]:,} of {classes[most]}. "
        f"Always answering {classes[learned]} would be right for {share:.2f} % of the test images."
    )


def pixel_figure(histogram: NDArray[np.int64]) -> go.Figure:
    """How often each value of a pixel occurs, [256], on a logarithmic axis: one value outnumbers all others.

    Raises ValueError when there are no pixels.
    """
    if not histogram.any():
        raise ValueError("there must be at least one pixel")
    figure = new_figure()
    figure.add_bar(
        x=np.arange(256, dtype=np.int16),
        y=np.where(histogram > 0, histogram, np.nan).astype(np.float32),
        marker={"color": PIXEL_COLOUR, "line": {"width": 0}},
        customdata=[_percent(share) for share in histogram / histogram.sum()],
        hovertemplate="value %{x}: %{y:,} pixels, %{customdata}<extra></extra>",
    )
    low, high = _decades(histogram)
    powers = range(low, high + 1)
    figure.update_layout(
        height=FIGURE_HEIGHT,
        margin=MARGIN | {"t": 8},
        bargap=0,
        showlegend=False,
        xaxis={
            "range": [-2, 257],
            "tickvals": [0, 64, 128, 192, 255],
            "title": {"text": "Value of a pixel", "standoff": 10},
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        yaxis={
            "type": "log",
            "range": [low, high],
            "tickvals": [10.0**power for power in powers],
            "ticktext": [f"10{POWERS[power]}" for power in powers],
            "zeroline": False,
            "fixedrange": True,
            "automargin": True,
        },
    )
    return figure


def pixel_sentence(histogram: NDArray[np.int64]) -> str:
    """The value that most pixels have, how many have the highest, and how many values there are."""
    shares, used = histogram / histogram.sum(), np.flatnonzero(histogram)
    top, highest = int(histogram.argmax()), int(used[-1])
    words = [f"{_percent(shares[top])} of the pixels are {top}"]
    if highest != top:
        words.append(f"{_percent(shares[highest])} are {highest}, the highest")
    return f"{', '.join(words)}; {len(used)} different value{'s occur' if len(used) > 1 else ' occurs'}."


def _decades(histogram: NDArray[np.int64]) -> tuple[int, int]:
    """The powers of ten that the axis goes from and to; the bar of the rarest value still has a height."""
    rarest, commonest = int(histogram[histogram > 0].min()), int(histogram.max())
    low = max(0, math.ceil(math.log10(rarest)) - 1)
    return low, max(low + 1, math.ceil(math.log10(commonest)))


def _percent(share: float) -> str:
    percent = 100 * float(share)
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.2g} %"
