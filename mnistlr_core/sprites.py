"""Many small images as one PNG. A picture per tile would be a request per tile, which a hosted page pays for."""

from __future__ import annotations

import base64
import io
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["offset", "sprite", "table"]


def table(count: int) -> tuple[int, int]:
    """Columns and rows of the sprite of so many images, at least one: about as wide as high."""
    columns = math.isqrt(count - 1) + 1
    return columns, -(-count // columns)


def sprite(images: NDArray[np.uint8], columns: int, rows: int) -> str:
    """All images, uint8 [k, h, w] or [k, h, w, 3], in rows in one PNG, as a data URI.

    Grey images are inverted, to ink on paper: dark strokes on white read better than the reverse, on either theme.
    """
    return _encoded(images.tobytes(), images.shape, columns, rows)


def offset(position: int, count: int) -> str:
    """Where a tile lies in the sprite: CSS counts from the first tile, 0 %, to the last, 100 %."""
    return f"{100 * position / max(count - 1, 1):.6g}%"


@lru_cache(maxsize=64)  # a rerun shows the same images; 48 of CIFAR-10 are 150 kB
def _encoded(content: bytes, shape: tuple[int, ...], columns: int, rows: int) -> str:
    images = np.frombuffer(content, np.uint8).reshape(shape)
    ink = 255 - images if images.ndim == 3 else images
    blank = np.full((columns * rows - len(ink), *ink.shape[1:]), 255, np.uint8)
    height, width, *channels = ink.shape[1:]
    cells = np.concatenate([ink, blank]).reshape(rows, columns, height, width, *channels)
    pixels = cells.swapaxes(1, 2).reshape(rows * height, columns * width, *channels)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
