"""A grid of images to choose from by click or by keyboard, with one PNG for all of them.

Each tile is a button. One of them is a stop of the Tab key; from there the arrow keys move, and Enter picks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from mnistlr_core import sprites

__all__ = ["Tile", "show"]


@dataclass(frozen=True, slots=True)
class Tile:
    """What is said of one image: `strong` and `small` below it, `label` to those who don't see it."""

    strong: str
    small: str
    label: str


# The image's paper is dimmed a little on a dark page, by letting it through. The name on a narrow tile ends in an
# ellipsis, because a second line would push all tiles below; the title says it whole.
_CSS = """
.frame { container-type: inline-size; font-family: var(--st-font); color: var(--st-text-color); padding: 3px; }
.tiles { display: grid; gap: 0.6rem 0.5rem; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
button { all: unset; box-sizing: border-box; display: block; min-width: 0; cursor: pointer; text-align: center;
  border-radius: 0.375rem; }
i { display: block; aspect-ratio: 1; image-rendering: pixelated; background-image: var(--sprite);
  background-size: var(--size); background-clip: padding-box; opacity: 0.93;
  border: 1px solid rgba(128, 128, 128, 0.35); border-radius: 0.375rem; }
b, small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; line-height: 1.35; }
b { margin-top: 0.2rem; font-size: 0.8125rem; font-weight: 600; }
small { font-size: 0.75rem; opacity: 0.75; }
button:hover i { border-color: var(--st-primary-color); }
button:active i { opacity: 0.7; }
button[aria-pressed="true"] i { outline: 3px solid var(--st-primary-color); opacity: 1; }
button:focus-visible { outline: 2px solid var(--st-text-color); outline-offset: 2px; }
"""

_HTML = """
<style id="columns"></style>
<div class="frame"><div class="tiles" role="group"></div></div>
"""

# Runs anew with all data whenever any of it changes; tiles that are there are kept, and with them the focus.
_JS = """
const GAP = 8;

function columnRules({ columns, least }) {
  const rules = columns.map((count, at) => {
    const rule = `.tiles { --columns: ${count}; }`;
    return at === 0 ? rule : `@container (min-width: ${count * (least + GAP) - GAP}px) { ${rule} }`;
  });
  return rules.join("\\n");
}

function newTile() {
  const tile = document.createElement("button");
  tile.type = "button";
  tile.append(...["i", "b", "small"].map(name => document.createElement(name)));
  return tile;
}

function step(key, columns) {
  return { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
}

export default function ({ parentElement, data, setTriggerValue }) {
  const grid = parentElement.querySelector(".tiles");
  parentElement.querySelector("#columns").textContent = columnRules(data);
  grid.setAttribute("aria-label", data.label);
  grid.style.setProperty("--sprite", `url(${data.sprite})`);
  grid.style.setProperty("--size", data.size);

  while (grid.children.length > data.tiles.length) grid.lastElementChild.remove();
  while (grid.children.length < data.tiles.length) grid.append(newTile());
  const tiles = [...grid.children];
  const focused = tiles.indexOf(parentElement.activeElement ?? document.activeElement);
  const stop = focused >= 0 ? focused : data.selected ?? 0;

  tiles.forEach((tile, at) => {
    const { strong, small, label, offset } = data.tiles[at];
    const [image, name, note] = tile.children;
    image.style.backgroundPosition = offset;
    name.textContent = strong;
    note.textContent = small;
    tile.title = label;
    tile.setAttribute("aria-label", label);
    tile.setAttribute("aria-pressed", at === data.selected);
    tile.tabIndex = at === stop ? 0 : -1;
    tile.onclick = () => setTriggerValue("picked", at);
    tile.onfocus = () => tiles.forEach(other => { other.tabIndex = other === tile ? 0 : -1; });
    tile.onkeydown = event => {
      const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
      const next = { Home: tiles[0], End: tiles.at(-1) }[event.key] ?? tiles[at + step(event.key, columns)];
      if (!next) return;
      event.preventDefault();
      next.focus();
    };
  });
}
"""

_tiles = st.components.v2.component("mnistlr_tiles", html=_HTML, css=_CSS, js=_JS)


def show(
    images: NDArray[np.uint8],
    tiles: Sequence[Tile],
    *,
    key: str,
    label: str,
    selected: int | None = None,
    columns: Sequence[int] = (4, 6, 8, 12),
    least: int = 44,
    on_pick: Callable[[int], None] | None = None,
) -> int | None:
    """Draw the tiles and return the position of the one that was just clicked, or None.

    images: uint8 [k, h, w] or [k, h, w, 3], one for each of the k tiles; grey ones are drawn as ink on paper.
    label: what the grid holds, for those who don't see it.
    selected: the position of the tile to outline.
    columns: the numbers of columns to choose from, ascending: the most that leave a tile `least` pixels of width. Only
        such as divide the tiles of a full page, or its last row is ragged.
    on_pick: called with the position before the page is drawn again, when the state of its widgets can still be set.

    Raises ValueError when there are no images, or not as many as tiles.
    """
    if not len(images) == len(tiles) > 0:
        raise ValueError(f"one image for each tile, and at least one; got {len(images)} and {len(tiles)}")
    across, down = sprites.table(len(images))

    def picked() -> None:
        position = _position(st.session_state[key].picked, len(tiles))
        if on_pick is not None and position is not None:
            on_pick(position)

    result = _tiles(
        key=key,
        data={
            "label": label,
            "sprite": sprites.sprite(images, across, down),
            "size": f"{100 * across}% {100 * down}%",
            "tiles": [
                {
                    "strong": tile.strong,
                    "small": tile.small,
                    "label": tile.label,
                    "offset": f"{sprites.offset(at % across, across)} {sprites.offset(at // across, down)}",
                }
                for at, tile in enumerate(tiles)
            ],
            "selected": selected,
            "columns": list(columns),
            "least": least,
        },
        on_picked_change=picked,
    )
    return _position(result.picked, len(tiles))


def _position(picked: object, count: int) -> int | None:
    """What the browser says was clicked, if it is one of the tiles."""
    is_position = isinstance(picked, int) and not isinstance(picked, bool) and 0 <= picked < count
    return picked if is_position else None  # type: ignore[return-value]
