"""The figures of a data set, and the sentences that say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core.data_charts import class_figure, class_sentence, pixel_figure, pixel_sentence

CLASSES = ["cat", "dog", "eel"]
COUNTS = np.array([[50, 60, 70], [5, 6, 7], [12, 8, 10]])


def histogram(values: dict[int, int]) -> Any:
    counts = np.zeros(256, np.int64)
    counts[list(values)] = list(values.values())
    return counts


def test_each_part_is_a_bar_upon_the_other() -> None:
    figure = class_figure(COUNTS, CLASSES)
    assert [bar.name for bar in figure.data] == ["Training", "Validation", "Test"]
    assert [bar.y.tolist() for bar in figure.data] == COUNTS.tolist()
    assert figure.layout.barmode == "stack"
    assert list(figure.layout.xaxis.ticktext) == CLASSES
    assert len({bar.marker.color for bar in figure.data}) == 3


def test_a_part_without_images_has_no_bar() -> None:
    counts = COUNTS * np.array([[1], [0], [1]])
    assert [bar.name for bar in class_figure(counts, CLASSES).data] == ["Training", "Test"]


def test_short_names_stand_upright_and_long_ones_lean() -> None:
    assert class_figure(COUNTS, CLASSES).layout.xaxis.tickangle == -45
    assert class_figure(COUNTS, ["0", "1", "2"]).layout.xaxis.tickangle == 0


def test_uneven_classes_are_told_with_what_a_fixed_answer_is_worth() -> None:
    assert class_sentence(COUNTS, CLASSES) == (
        "From 67 images of cat to 87 of eel. Always answering eel would be right for 33.33 % of the test images."
    )


def test_the_fixed_answer_is_the_commonest_to_learn_from_and_not_of_the_test() -> None:
    counts = np.array([[9, 5], [1, 1], [1, 30]])
    assert class_sentence(counts, ["a", "b"]).endswith("answering a would be right for 3.23 % of the test images.")


def test_even_classes_are_told_as_such() -> None:
    counts = np.array([[5400] * 10, [600] * 10, [1000] * 10])
    sentence = class_sentence(counts, [str(digit) for digit in range(10)])
    assert sentence == "Every class has 7,000 images, so a blind guess is right 10 % of the time."


def test_the_pixels_are_told_by_their_commonest_and_their_highest_value() -> None:
    assert pixel_sentence(histogram({0: 800, 3: 150, 255: 50})) == (
        "80.0 % of the pixels are 0, 5.0 % are 255, the highest; 3 different values occur."
    )
    assert pixel_sentence(histogram({0: 99_999, 9: 1})) == (
        "100.0 % of the pixels are 0, 0.001 % are 9, the highest; 2 different values occur."
    )
    assert pixel_sentence(histogram({7: 10})) == "100.0 % of the pixels are 7; 1 different value occurs."


def test_each_value_is_a_bar_and_what_never_occurs_is_none() -> None:
    (bars,) = pixel_figure(histogram({0: 800, 3: 150, 255: 50})).data
    assert len(bars.x) == 256
    assert np.flatnonzero(np.isfinite(bars.y)).tolist() == [0, 3, 255]
    assert bars.y[[0, 3, 255]].tolist() == [800, 150, 50]
    assert bars.customdata[3] == "15.0 %"


@given(st.dictionaries(st.integers(0, 255), st.integers(1, 10**9), min_size=1))
def test_every_bar_lies_within_the_axis(values: dict[int, int]) -> None:
    axis = pixel_figure(histogram(values)).layout.yaxis
    low, high = axis.range
    assert 0 <= low < high
    assert 10**low <= min(values.values())
    assert max(values.values()) <= 10**high
    assert len(axis.tickvals) == len(axis.ticktext) == high - low + 1


def test_the_axis_names_its_powers() -> None:
    assert list(pixel_figure(histogram({0: 5 * 10**7, 1: 20_000})).layout.yaxis.ticktext) == [
        *("10⁴", "10⁵", "10⁶", "10⁷", "10⁸")
    ]


def test_no_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        pixel_figure(histogram({}))


@pytest.mark.parametrize("figure", [class_figure(COUNTS, CLASSES), pixel_figure(histogram({0: 8, 255: 2}))])
def test_the_theme_gives_colours_of_text_and_paper(figure: go.Figure) -> None:
    layout = json.loads(figure.to_json())["layout"]
    assert not {"font", "paper_bgcolor", "plot_bgcolor"} & set(layout)


def test_neither_loads_torch_nor_plotly_express_nor_streamlit() -> None:
    code = (
        "import sys, mnistlr_core.data_charts, mnistlr_core.survey; "
        "print({'torch', 'sklearn', 'plotly.express', 'streamlit', 'pandas'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
