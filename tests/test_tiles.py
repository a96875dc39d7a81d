"""The tiles: exact pixels in one PNG, what goes to the browser, and what comes back from it."""

from __future__ import annotations

import base64
import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from mnistlr_core import sprites
from pages.parts import tiles
from pages.parts.pixel_values import pixels_html
from pages.parts.tiles import Tile

NASTY = '<img src=x onerror=alert(1)>"&'


class Browser:
    """Stands in for the component: keeps what it is given, and has clicked what it is told to."""

    def __init__(self, picked: object = None) -> None:
        self.picked = picked
        self.data: dict[str, Any] = {}
        self.click: Any = None

    def __call__(self, *, key: str, data: dict[str, Any], on_picked_change: Any) -> SimpleNamespace:
        self.data, self.click = json.loads(json.dumps(data)), on_picked_change
        return SimpleNamespace(picked=self.picked)


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    browser = Browser()
    monkeypatch.setattr(tiles, "_tiles", browser)
    return browser


def some(k: int) -> tuple[Any, list[Tile]]:
    images = np.random.default_rng(k).integers(0, 256, (k, 5, 7), dtype=np.uint8)
    return images, [Tile(f"name {at}", f"#{at}", f"image {at}") for at in range(k)]


@given(k=st.integers(1, 50), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([(), (3,)]))
def test_each_tile_finds_its_pixels_in_the_sprite(k: int, height: int, width: int, channels: tuple[int, ...]) -> None:
    images = np.random.default_rng(k).integers(0, 256, (k, height, width, *channels), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        browser = Browser()
        patch.setattr(tiles, "_tiles", browser)
        tiles.show(images, [Tile("", "", "")] * k, key="t", label="")
    encoded = browser.data["sprite"].removeprefix("data:image/png;base64,")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    assert browser.data["size"] == f"{100 * columns}% {100 * rows}%"
    for tile, image in zip(browser.data["tiles"], images, strict=True):
        x, y = (float(part.removesuffix("%")) for part in tile["offset"].split())
        column, row = round(x * (columns - 1) / 100), round(y * (rows - 1) / 100)
        cut = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        np.testing.assert_array_equal(cut, image if channels else 255 - image)


def test_the_words_go_to_the_browser_as_they_are(browser: Browser) -> None:
    images, _ = some(1)
    tiles.show(images, [Tile(NASTY, NASTY, NASTY)], key="t", label="Things", selected=0, columns=(5, 10), least=60)
    (tile,) = browser.data["tiles"]
    assert (tile["strong"], tile["small"], tile["label"]) == (NASTY, NASTY, NASTY)
    assert browser.data["label"] == "Things"
    assert (browser.data["selected"], browser.data["columns"], browser.data["least"]) == (0, [5, 10], 60)


def test_nothing_is_put_into_the_page_but_as_text() -> None:
    assert "innerHTML" not in tiles._JS
    assert "insertAdjacent" not in tiles._JS


@pytest.mark.parametrize(
    ("picked", "position"),
    [(0, 0), (2, 2), (None, None), (3, None), (-1, None), (1.0, None), (True, None), ("1", None), ([1], None)],
)
def test_a_click_is_a_position_or_nothing(browser: Browser, picked: object, position: int | None) -> None:
    browser.picked = picked
    assert tiles.show(*some(3), key="t", label="") == position


@pytest.mark.parametrize(("picked", "told"), [(2, [2]), (3, []), (None, []), ("2", [])])
def test_a_click_is_told_before_the_page_is_drawn(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, picked: object, told: list[int]
) -> None:
    heard: list[int] = []
    monkeypatch.setattr("streamlit.session_state", {"t": SimpleNamespace(picked=picked)})
    tiles.show(*some(3), key="t", label="", on_pick=heard.append)
    browser.click()
    assert heard == told


@pytest.mark.parametrize(("images", "words"), [(0, 0), (2, 1), (1, 2)])
def test_one_image_for_each_tile(images: int, words: int) -> None:
    with pytest.raises(ValueError, match=f"got {images} and {words}"):
        tiles.show(np.zeros((images, 2, 2), np.uint8), [Tile("", "", "")] * words, key="t", label="")


def page() -> None:
    import numpy as np
    import streamlit as st

    from pages.parts import tiles

    picked = tiles.show(np.zeros((2, 4, 4), np.uint8), [tiles.Tile("a", "b", "c")] * 2, key="t", label="Two")
    st.text(repr(picked))


def test_streamlit_takes_the_component() -> None:
    at = AppTest.from_function(page, default_timeout=20).run()
    assert not at.exception
    assert at.text[0].value == "None"
    (component,) = at.get("bidi_component")
    assert [tile["strong"] for tile in json.loads(component.proto.json)["tiles"]] == ["a", "a"]


@pytest.mark.parametrize(("count", "table"), [(1, (1, 1)), (2, (2, 1)), (5, (3, 2)), (48, (7, 7)), (49, (7, 7))])
def test_a_sprite_is_about_square(count: int, table: tuple[int, int]) -> None:
    assert sprites.table(count) == table


def test_each_grey_pixel_has_its_number() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    html = pixels_html(image, NASTY)
    cells = html.partition("</style>")[2]
    assert cells.count("<i") == 12
    assert [f'<i style="--v:{value}">{value}</i>' in cells for value in range(20, 240, 20)] == [True] * 11
    assert "<i>0</i>" in cells
    assert "--across:4" in cells
    assert "&lt;img src=x onerror=alert(1)&gt;&quot;&amp;" in cells
    assert "<img" not in cells


def test_each_coloured_pixel_has_its_three_values_in_its_title() -> None:
    html = pixels_html(np.array([[[255, 0, 16], [1, 2, 3]]], np.uint8), "a frog")
    assert '<i style="background:#ff0010" title="255, 0, 16"></i>' in html
    assert '<i style="background:#010203" title="1, 2, 3"></i>' in html


def test_every_number_is_legible_on_its_grey() -> None:
    """As the style's arithmetic has it: black below 138, white from there, and a grey for 0; WCAG asks for 4.5:1."""

    def luminance(grey: int) -> float:
        share = grey / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    def contrast(one: int, other: int) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    assert "(var(--v) - 137.5) * 999" in pixels_html(np.zeros((1, 1), np.uint8), "")
    assert all(contrast(255 - value, 255 if value > 137.5 else 0) >= 4.5 for value in range(1, 256))
    assert contrast(255, 0x76) >= 4.5
