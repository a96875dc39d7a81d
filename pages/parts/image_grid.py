"""The images that a run got wrong, as tiles: order, filters, pages.

All tiles of a page come as one PNG in one element.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from mnistlr_core import sprites
from mnistlr_core.evaluation import Mistake, Order, Predictions, describe, mistakes

__all__ = ["filtered_cell", "show_cell", "show_mistakes", "tiles_html"]

PAGE_SIZE = 24

# Only column counts that divide 24 occur, so that every page but the last ends in a full row; `auto-fill` would also
# choose 5, 7, 9 … Narrow tiles drop the word "loss" to keep the caption on one line. A little of the page shows through
# the paper, which dims its white on a dark theme.
STYLE = """
.mn-tiles { container-type: inline-size; }
.mn-tiles > div { --columns: 3; display: grid; gap: 0.75rem 0.5rem;
  grid-template-columns: repeat(var(--columns), 1fr); }
.mn-tiles figure { margin: 0; min-width: 0; text-align: center; font-size: 0.8125rem; line-height: 1.3; }
.mn-tiles i { display: block; aspect-ratio: 1; image-rendering: pixelated; background-image: var(--sprite);
  background-size: var(--size); background-clip: padding-box; opacity: 0.93;
  border: 1px solid rgba(128, 128, 128, 0.35); border-radius: 0.375rem; }
.mn-tiles figcaption { margin-top: 0.25rem; overflow-wrap: anywhere; color: inherit; font-size: inherit; }
.mn-tiles small { display: block; white-space: nowrap; font-size: 0.75rem; opacity: 0.7; }
.mn-tiles small span { display: none; }
@container (min-width: 300px) { .mn-tiles > div { --columns: 4; } }
@container (min-width: 440px) { .mn-tiles > div { --columns: 6; } }
@container (min-width: 660px) { .mn-tiles > div { --columns: 8; } .mn-tiles small span { display: inline; } }
@container (min-width: 1080px) { .mn-tiles > div { --columns: 12; } }
"""


def tiles_html(images: NDArray[np.uint8], mistakes: Sequence[Mistake], classes: Sequence[str]) -> str:
    """A grid of captioned tiles as HTML for `st.html`, with one PNG for all images.

    images: uint8 [k, h, w] or [k, h, w, 3], one for each of the k mistakes.

    Raises ValueError when there are no images, or not as many as mistakes.
    """
    if not len(images) == len(mistakes) > 0:
        raise ValueError(f"one image for each mistake, and at least one; got {len(images)} and {len(mistakes)}")
    columns, rows = sprites.table(len(images))
    tiles = []
    for position, mistake in enumerate(mistakes):
        row, column = divmod(position, columns)
        words = _describe(mistake, classes)
        tiles.append(
            f'<figure role="img" aria-label="{words}" title="{words}">'
            f'<i style="background-position:{sprites.offset(column, columns)} {sprites.offset(row, rows)}"></i>'
            f"<figcaption><b>{escape(classes[mistake.predicted])}</b> not {escape(classes[mistake.actual])}"
            f"<small><span>loss </span>{mistake.loss:.1f} · {100 * mistake.probability:.0f} %</small>"
            "</figcaption></figure>"
        )
    return (
        f"<style>{STYLE}</style>"
        f'<div class="mn-tiles"><div style="--sprite:url({sprites.sprite(images, columns, rows)});'
        f'--size:{100 * columns}% {100 * rows}%">{"".join(tiles)}</div></div>'
    )


def _describe(mistake: Mistake, classes: Sequence[str]) -> str:
    """The tile in words, escaped for an attribute."""
    return escape(
        f"test image {mistake.index}: a {classes[mistake.actual]} read as {classes[mistake.predicted]}, "
        f"loss {mistake.loss:.2f}, probability {100 * mistake.probability:.0f} %"
    )


def show_cell(cell: tuple[int, int] | None) -> None:
    """Filter the tiles to one cell (actual, predicted) of the confusion matrix, or to nothing; for use in callbacks."""
    st.session_state["grid_actual"], st.session_state["grid_predicted"] = cell or (None, None)
    _first_page()


def filtered_cell() -> tuple[int, int] | None:
    """The cell that the tiles are filtered to, for outlining it in the confusion matrix."""
    actual, predicted = st.session_state.get("grid_actual"), st.session_state.get("grid_predicted")
    return None if actual is None or predicted is None else (actual, predicted)


def _first_page() -> None:
    # Streamlit logs, once per process, that the widget has a default as well; its default can't be left out.
    if st.session_state.get("grid_page", 1) != 1:
        st.session_state["grid_page"] = 1


def show_mistakes(
    predictions: Predictions,
    images: NDArray[np.uint8],
    classes: Sequence[str],
    *,
    cell: tuple[int, int] | None,
) -> None:
    """Show the wrong images with their order, filters and pages, all of which live in the URL.

    images: uint8 [n, h, w] or [n, h, w, 3], every test image, memory-mapped; only those shown are read.
    cell: (actual, predicted) as clicked in the confusion matrix. A new one sets both filters once; from then on they
    are the reader's, and "Show all" clears them.
    """
    if cell != st.session_state.get("grid_cell"):
        st.session_state["grid_cell"] = cell
        if cell is not None:
            show_cell(cell)
    if not predictions.errors:
        st.caption(f"All {len(predictions.labels):,} images were read correctly.")
        return
    order = st.segmented_control(
        "Order",
        list(Order),
        default=Order.LOSS,
        required=True,
        format_func=lambda order: order.label,
        key="grid_order",
        on_change=_first_page,
        bind="query-params",
        label_visibility="collapsed",
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        actual = _class_filter("Actual", "grid_actual", classes)
        predicted = _class_filter("Read as", "grid_predicted", classes)
        if actual is not None or predicted is not None:
            st.button("Show all", key="grid_all", type="tertiary", on_click=show_cell, args=(None,))
    chosen = mistakes(predictions, order or Order.LOSS, actual, predicted)
    filters = _filter_words(actual, predicted, classes)
    if not len(chosen):
        st.caption(f"No wrong image matches: {filters}.")
        return
    counted, tiles = st.empty(), st.container()
    pages, first = -(-len(chosen) // PAGE_SIZE), 0
    if pages > 1:
        first = PAGE_SIZE * (st.pagination(pages, max_visible_pages=5, key="grid_page", bind="query-params") - 1)
    shown = chosen[first : first + PAGE_SIZE]
    count = f"{first + 1:,}–{first + len(shown):,} of {len(chosen):,} wrong images"
    counted.caption(f"{count}: {filters}" if filters else count)
    tiles.html(tiles_html(np.asarray(images[shown]), describe(predictions, shown), classes))


def _class_filter(label: str, key: str, classes: Sequence[str]) -> int | None:
    """A selectbox over the classes; None means any."""
    choice: Any = st.selectbox(
        label,
        range(len(classes)),
        index=None,
        format_func=lambda index: classes[index],
        key=key,
        on_change=_first_page,
        placeholder=label,
        bind="query-params",
        label_visibility="collapsed",
        width=104 if max(map(len, classes)) < 3 else "stretch",
    )
    return choice if choice is None else int(choice)


def _filter_words(actual: int | None, predicted: int | None, classes: Sequence[str]) -> str:
    words = [] if actual is None else [f"actual {classes[actual]}"]
    return ", ".join(words if predicted is None else [*words, f"read as {classes[predicted]}"])
