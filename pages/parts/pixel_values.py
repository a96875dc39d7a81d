"""One image, large, with the number in each of its pixels."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixels_html"]

# Ink on paper, as the tiles are: 0 is white. Black and white are equally legible on the grey 117, at 4.6:1; the colour
# of the number flips there, by arithmetic that runs off either end of the scale. A cell is never narrower than three
# figures need: on a phone the box scrolls. Colours without numbers fit any width.
STYLE = """
.mn-pixels { overflow-x: auto; border: 1px solid rgba(128, 128, 128, 0.35); border-radius: 0.375rem; }
.mn-pixels > div { container-type: inline-size; }
.mn-pixels > .numbers { min-width: calc(var(--across) * 1.05rem); }
.mn-pixels > div > div { --cell: calc(100cqw / var(--across)); display: grid; background: #fff;
  grid-template-columns: repeat(var(--across), 1fr); font-size: min(calc(var(--cell) * 0.46), 1.1rem); }
.mn-pixels i { --v: 0; --ink: calc(255 - var(--v)); --text: calc((var(--v) - 137.5) * 999); aspect-ratio: 1;
  display: flex; align-items: center; justify-content: center; font-style: normal; line-height: 1;
  letter-spacing: -0.03em; font-variant-numeric: tabular-nums; background: rgb(var(--ink), var(--ink), var(--ink));
  color: rgb(var(--text), var(--text), var(--text)); }
.mn-pixels i:not([style]) { color: #767676; }
"""


def pixels_html(image: NDArray[np.uint8], label: str) -> str:
    """A grid of cells as HTML for `st.html`: grey ones hold their number, coloured ones have three in their titles.

    image: uint8 [h, w] or [h, w, 3]. label: what it shows, for those who don't see it.
    """
    if image.ndim == 2:
        kind = "numbers"
        cells = [f'<i style="--v:{v}">{v}</i>' if v else "<i>0</i>" for v in image.ravel().tolist()]
    else:
        kind = "colours"
        cells = [
            f'<i style="background:#{r:02x}{g:02x}{b:02x}" title="{r}, {g}, {b}"></i>'
            for r, g, b in image.reshape(-1, 3).tolist()
        ]
    words = escape(label)
    return (
        f'<style>{STYLE}</style><div class="mn-pixels" role="img" aria-label="{words}" tabindex="0">'
        f'<div class="{kind}" style="--across:{image.shape[1]}"><div>{"".join(cells)}</div></div></div>'
    )
