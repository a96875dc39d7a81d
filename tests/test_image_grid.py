"""The tiles: exact pixels, words for readers who don't see them, and the controls."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from mnistlr_core.evaluation import Mistake
from pages.parts.image_grid import tiles_html

DIGITS = [str(digit) for digit in range(10)]


def wrong(k: int) -> list[Mistake]:
    return [Mistake(index=i, actual=6, predicted=1, loss=9.214, probability=0.998) for i in range(k)]


def sprite(html: str) -> Any:
    (uri,) = re.findall(r"--sprite:url\(data:image/png;base64,([^)]+)\)", html)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))


def cut(html: str, height: int, width: int) -> list[Any]:
    """The tiles as a browser cuts them from the sprite."""
    pixels = sprite(html)
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    assert f"--size:{100 * columns}% {100 * rows}%" in html
    tiles = []
    for x, y in re.findall(r"background-position:([\d.]+)% ([\d.]+)%", html):
        column, row = round(float(x) * (columns - 1) / 100), round(float(y) * (rows - 1) / 100)
        tiles.append(pixels[row * height : (row + 1) * height, column * width : (column + 1) * width])
    return tiles


@given(k=st.integers(1, 30), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.sampled_from([(), (3,)]))
def test_pixels_survive_exactly(k: int, height: int, width: int, channels: tuple[int, ...]) -> None:
    images = np.random.default_rng(k).integers(0, 256, (k, height, width, *channels), dtype=np.uint8)
    tiles = cut(tiles_html(images, wrong(k), DIGITS), height, width)
    assert len(tiles) == k
    for tile, image in zip(tiles, images, strict=True):
        np.testing.assert_array_equal(tile, image if channels else 255 - image)


def test_words() -> None:
    html = tiles_html(np.zeros((1, 28, 28), np.uint8), [Mistake(2135, 6, 1, 9.214, 0.998)], DIGITS)
    assert 'role="img" aria-label="test image 2135: a 6 read as 1, loss 9.21, probability 100 %"' in html
    assert "<b>1</b> not 6" in html
    assert "<span>loss </span>9.2 · 100 %" in html
    assert html.count("data:image/png") == 1


def test_class_names_are_escaped() -> None:
    names = ['<script>alert("x")</script>', "a & b's"]
    html = tiles_html(np.zeros((1, 2, 2), np.uint8), [Mistake(0, 0, 1, 1.0, 0.5)], names)

    class Tags(HTMLParser):
        seen: set[str] = set()  # noqa: RUF012
        labels: list[str | None] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.add(tag)
            self.labels += [value for name, value in attrs if name == "aria-label"]

    tags = Tags()
    tags.feed(html)
    assert tags.seen == {"style", "div", "figure", "i", "figcaption", "b", "small", "span"}
    assert tags.labels == [f"test image 0: a {names[0]} read as {names[1]}, loss 1.00, probability 50 %"]


@pytest.mark.parametrize(("images", "mistakes"), [(0, 0), (2, 1)])
def test_one_image_for_each_mistake(images: int, mistakes: int) -> None:
    with pytest.raises(ValueError, match=f"got {images} and {mistakes}"):
        tiles_html(np.zeros((images, 2, 2), np.uint8), wrong(mistakes), DIGITS)


def page() -> None:
    """A page with 60 wrong images, 30 of them 0 read as 1 and 30 of them 2 read as 3, and 40 right ones."""
    import numpy as np
    import streamlit as st

    from mnistlr_core.evaluation import Predictions
    from pages.parts.image_grid import filtered_cell, show_mistakes

    labels = np.repeat([0, 2, 5], [30, 30, 40])
    scores = np.full((100, 10), -5.0)
    scores[np.arange(100), np.repeat([1, 3, 5], [30, 30, 40])] = -0.1
    predictions = Predictions.from_log_probabilities(scores, labels)
    show_mistakes(
        predictions, np.zeros((100, 4, 4), np.uint8), [str(i) for i in range(10)], cell=st.session_state.get("cell")
    )
    st.text(str(filtered_cell()))


def shown(at: AppTest) -> str:
    assert not at.exception
    return str(at.caption[0].value)


def test_pages_filters_and_clicks() -> None:
    at = AppTest.from_function(page, default_timeout=20).run()
    assert shown(at) == "1–24 of 60 wrong images"
    at.session_state["grid_page"] = 3
    assert shown(at.run()) == "49–60 of 60 wrong images"

    at.session_state["cell"] = (2, 3)
    assert shown(at.run()) == "1–24 of 30 wrong images: actual 2, read as 3"
    assert at.text[0].value == "(2, 3)"

    at.selectbox(key="grid_actual").set_value(0).run()
    assert shown(at) == "No wrong image matches: actual 0, read as 3."

    at.button(key="grid_all").click().run()
    assert shown(at) == "1–24 of 60 wrong images"
    assert at.text[0].value == "None"


def test_a_link_restores_the_view() -> None:
    at = AppTest.from_function(page, default_timeout=20)
    at.query_params.update({"grid_actual": "2", "grid_order": "Closest call", "grid_page": "2"})
    assert shown(at.run()) == "25–30 of 30 wrong images: actual 2"


def test_a_link_beyond_the_last_page_shows_the_first() -> None:
    at = AppTest.from_function(page, default_timeout=20)
    at.query_params["grid_page"] = "99"
    assert shown(at.run()) == "1–24 of 60 wrong images"
