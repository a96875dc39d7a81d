"""The confusion matrix as a Plotly figure, and the click on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from mnistlr_core.charts import PALETTE, in_page_colour, new_figure

__all__ = ["confusion_figure", "picked_cell"]

# One translucent blue over the page's own paper, so that the same figure is right on light and dark: text in the
# theme's colour keeps a contrast of 4.5:1 on the fullest cell of both.
ERRORS = [[0, "rgba(82, 113, 255, 0.04)"], [1, "rgba(82, 113, 255, 0.7)"]]
NEUTRAL = [[0, "rgba(128, 128, 128, 0.16)"], [1, "rgba(128, 128, 128, 0.16)"]]
PICKED = PALETTE[1]
CELL = 28  # px
TITLE = 27  # px
LETTER = 6.5  # px, about the mean width of a letter of a class name


def confusion_figure(
    matrix: NDArray[np.int64],
    classes: Sequence[str],
    normalise: bool = False,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """The confusion matrix [c, c] as cells, actual class down, predicted across; `selected` is outlined.

    Cells are 28 px high and as wide as the page lets them be: square in the card beside the wrong images, never apart
    from the card's edges. Colour shows errors only; the diagonal is grey. `normalise` writes and colours by percentages
    of each actual class instead of counts.

    Show it with `on_select` and `selection_mode="points"`; `picked_cell` reads the click.
    """
    c = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    shares = 100 * matrix / np.maximum(totals, 1)
    wrong = (shares if normalise else matrix).astype(np.float32)
    np.fill_diagonal(wrong, np.nan)
    right = np.where(np.eye(c, dtype=bool), np.float32(0), np.float32("nan"))
    cells = [(actual, predicted) for actual in range(c) for predicted in range(c)]

    figure = new_figure()
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
    longest = max(map(len, classes), default=0)
    upright = longest > 2
    labels = round(LETTER * longest) + 8 if upright else 18
    axis = {
        "tickvals": list(range(c)),
        "ticktext": list(classes),
        "showgrid": False,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
    }
    across = {"range": [-0.5, c - 0.5], "side": "top", "tickangle": -90 if upright else 0}
    figure.update_layout(
        height=CELL * c + labels + TITLE,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        hovermode="closest",
        xaxis=axis | across | {"title": {"text": "Actual ↓ · Predicted →", "standoff": 11}},
        yaxis=axis | {"range": [c - 0.5, -0.5]},
        annotations=[
            {
                "x": predicted,
                "y": actual,
                "text": in_page_colour(word),
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
