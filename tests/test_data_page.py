"""The Data page in each of its states, without a browser and without an engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mnistlr_core import data
from mnistlr_core import lab as labs
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.data import Dataset, DatasetState
from mnistlr_core.lab import Lab
from mnistlr_core.settings import Settings
from mnistlr_core.survey import Part, divide
from tests import pages
from tests.pages import text_of

pytestmark = pytest.mark.usefixtures("no_engine")

KEYS = ("data_set", "data_split", "data_class", "data_page", "data_image", "data_valid")


@pytest.fixture
def eights(digits: Path) -> Dataset:
    return data.load("digits", digits)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sets that the page asked to fetch, save for the two that the frame asks for."""
    fetched: list[str] = []
    monkeypatch.setattr(Lab, "fetch", lambda self, name: fetched.append(name))
    return fetched


def test_without_mnist_digits_are_shown_with_their_facts() -> None:
    page = show()
    assert page.segmented_control(key="data_set").value == "digits"
    assert {metric.label: metric.value for metric in page.metric} == {
        "Training images": "1,437",
        "Test images": "360",
        "Pixel mean": "0.3053",
        "Pixel std": "0.3760",
    }
    assert "Images of 8 × 8, uint8 from 0 to 255" in text_of(page)
    assert "sklearn.datasets.load_digits" in text_of(page)
    assert "| mean 0, std 1 | −0.8119 to 1.848 | 0 | 1 |" in text_of(page)


def test_where_it_is_and_what_it_comes_from_is_said(settings: Settings) -> None:
    assert f"`{settings.prepared / 'digits'}`" in text_of(show())


@pytest.mark.mnist
def test_with_mnist_it_comes_first(settings: Settings, mnist_root: Path) -> None:
    from mnistlr_core import fetch

    fetch.prepare("mnist", source=mnist_root, prepared=settings.prepared)
    page = show()
    assert page.segmented_control(key="data_set").value == "mnist"
    assert {"0.1307", "0.3081"} <= {metric.value for metric in page.metric}
    assert "| [0, 1] | 0 to 1 | 0.1307 | 0.3081 |" in text_of(page)
    assert "1–48 of 54,000 images" in text_of(page)


def test_the_figures_say_what_their_sentences_say() -> None:
    page = show()
    classes, pixels = (json.loads(chart.proto.spec) for chart in page.get("plotly_chart"))
    assert [bar["name"] for bar in classes["data"]] == ["Training", "Validation", "Test"]
    assert pixels["layout"]["yaxis"]["type"] == "log"
    assert "From 174 images of 8 to 183 of 3." in text_of(page)
    assert "48.9 % of the pixels are 0" in text_of(page)


def test_the_first_image_is_shown_large_with_its_pixels(eights: Dataset) -> None:
    page = show()
    row = int(rows(eights, Part.TRAIN)[0])
    assert f"{eights.train_labels[row]} · training image {row}" in text_of(page)
    assert values(page) == np.asarray(eights.train_images[row]).ravel().tolist()
    assert grid(page)["selected"] == 0


@pytest.mark.parametrize(("label", "part"), [("Training", Part.TRAIN), ("Validation", Part.VALID), ("Test", Part.TEST)])
def test_a_link_restores_split_class_page_and_image(eights: Dataset, label: str, part: Part) -> None:
    chosen = rows(eights, part, 7)
    page = show(data_split=label, data_class="7", data_image=str(chosen[3]))
    assert f"1–{min(48, len(chosen))} of {len(chosen)} images" in text_of(page)
    assert [tile["strong"] for tile in grid(page)["tiles"]] == ["7"] * min(48, len(chosen))
    assert [tile["small"] for tile in grid(page)["tiles"]] == [f"{row:,}" for row in chosen[:48].tolist()]
    assert grid(page)["selected"] == 3
    assert f"7 · {label.lower()} image {chosen[3]:,}" in text_of(page)


def test_a_link_to_a_page_shows_its_first_image(eights: Dataset) -> None:
    page = show(data_page="3")
    assert "97–144 of 1,293 images" in text_of(page)
    assert page.number_input(key="data_image").value == rows(eights, Part.TRAIN)[96]


def test_another_page_shows_its_first_image(eights: Dataset) -> None:
    page = show()
    turn(page, 2)
    assert "49–96 of 1,293 images" in text_of(page)
    assert page.number_input(key="data_image").value == rows(eights, Part.TRAIN)[48]
    assert grid(page)["selected"] == 0


def test_next_goes_over_the_end_of_a_page_and_previous_back(eights: Dataset) -> None:
    chosen = rows(eights, Part.TRAIN)
    page = show(data_image=str(chosen[47]))
    assert grid(page)["selected"] == 47
    page.button(key="data_next").click().run()
    assert "49–96 of 1,293 images" in text_of(page)
    assert page.number_input(key="data_image").value == chosen[48]
    page.button(key="data_previous").click().run()
    assert "1–48 of 1,293 images" in text_of(page)
    assert page.number_input(key="data_image").value == chosen[47]


def test_the_ends_have_no_further_step(eights: Dataset) -> None:
    page = show()
    assert page.button(key="data_previous").disabled
    assert not page.button(key="data_next").disabled
    page.number_input(key="data_image").set_value(int(rows(eights, Part.TRAIN)[-1])).run()
    assert not page.button(key="data_previous").disabled
    assert page.button(key="data_next").disabled


def test_a_number_turns_to_its_page(eights: Dataset) -> None:
    chosen = rows(eights, Part.TRAIN)
    page = show()
    page.number_input(key="data_image").set_value(int(chosen[500])).run()
    assert "481–528 of 1,293 images" in text_of(page)
    assert grid(page)["selected"] == 20


def test_a_number_of_another_split_is_shown_as_what_it_is(eights: Dataset) -> None:
    held_out = int(rows(eights, Part.VALID)[4])
    page = show()
    page.number_input(key="data_image").set_value(held_out).run()
    assert f"{eights.train_labels[held_out]} · validation image {held_out}" in text_of(page)
    assert grid(page)["selected"] is None
    page.button(key="data_next").click().run()
    chosen = rows(eights, Part.TRAIN)
    assert page.number_input(key="data_image").value == chosen[np.searchsorted(chosen, held_out)]


def test_another_filter_begins_with_its_first_image(eights: Dataset) -> None:
    page = show()
    turn(page, 4)
    page.selectbox(key="data_class").set_value(3).run()
    assert f"1–48 of {len(rows(eights, Part.TRAIN, 3))} images" in text_of(page)
    assert page.number_input(key="data_image").value == rows(eights, Part.TRAIN, 3)[0]
    page.segmented_control(key="data_split").set_value(Part.TEST).run()
    assert page.number_input(key="data_image").value == rows(eights, Part.TEST, 3)[0]


def test_from_a_high_number_to_fewer_images() -> None:
    page = show(data_image="1400")
    page.segmented_control(key="data_split").set_value(Part.TEST).run()
    assert not page.exception
    assert page.number_input(key="data_image").value == 0


def test_another_validation_share_changes_images_and_bars(eights: Dataset) -> None:
    page = show(data_split="Validation")
    assert "of 144 images" in text_of(page)
    page.selectbox(key="data_valid").set_value(0.5).run()
    assert f"of {len(rows(eights, Part.VALID, share=0.5))} images" in text_of(page)
    page.selectbox(key="data_valid").set_value(0.0).run()
    assert "No image is held out for validation" in text_of(page)
    assert [bar["name"] for bar in json.loads(page.get("plotly_chart")[0].proto.spec)["data"]] == ["Training", "Test"]
    page.segmented_control(key="data_split").set_value(Part.TRAIN).run()
    assert "1–48 of 1,437 images" in text_of(page)


def test_a_mean_image_says_of_how_many_and_shows_the_class_that_is_chosen() -> None:
    means = grid(show(data_class="4"), "data_means")
    assert means["selected"] == 4
    assert [tile["strong"] for tile in means["tiles"]] == [str(digit) for digit in range(10)]
    assert means["tiles"][0]["label"] == "Mean of 142 images of 0"


@pytest.mark.parametrize(
    "value",
    [
        "nan",
        "1e999",
        "9" * 400,
        "-1",
        "99999",
        "2.5",
        "'; drop table runs",
        "<script>alert(1)</script>",
        "٣",
        "x" * 5000,
    ],
)
def test_whatever_stands_in_a_link_the_page_comes_up(value: str) -> None:
    page = show(**dict.fromkeys(KEYS, value))
    assert "Data sets" in text_of(page)
    page = show(**dict.fromkeys(KEYS, value) | {"data_set": "Digits 8×8"})
    assert 1 <= len(grid(page)["tiles"]) <= 48
    assert page.number_input(key="data_image").value in range(1437)


def test_a_rerun_looks_at_no_image_again(monkeypatch: pytest.MonkeyPatch) -> None:
    page = show()

    def again(*args: Any, **options: Any) -> None:
        raise AssertionError("it was looked at already")

    monkeypatch.setattr(labs, "survey", again)
    monkeypatch.setattr(labs, "divide", again)
    page.selectbox(key="data_class").set_value(3).run()
    assert not page.exception
    page.selectbox(key="data_valid").set_value(0.3).run()  # the first to need anything anew
    assert page.exception[0].message == "it was looked at already"


def test_a_missing_data_set_says_so_and_is_fetched_on_request(asked: list[str]) -> None:
    page = show(data_set="KMNIST")
    assert ":gray-badge[:material/cloud: Not here]" in text_of(page)
    assert "60,000 + 10,000 images of 28 × 28, 21 MB to download" in text_of(page)
    assert not page.metric
    asked.clear()
    page.button(key="data_fetch").click().run()
    assert asked == ["kmnist"]


def test_every_data_set_is_there_with_its_state(settings: Settings, asked: list[str]) -> None:
    tell(settings, "kmnist", DatasetState.FAILED, "KMNIST could not be downloaded; put its files there.")
    tell(settings, "cifar10", DatasetState.FETCHING, "Downloading CIFAR-10.", fraction=0.25)
    page = show()
    said = text_of(page)
    assert [info.title in said for info in DATASETS.values()] == [True] * 5
    assert "KMNIST could not be downloaded; put its files there." in said
    assert page.button(key="data_fetch_kmnist").label == "Try again"
    assert page.button(key="data_fetch_fashion-mnist").label == "Fetch Fashion-MNIST"
    assert [element.proto.value for element in page.get("progress")] == [25]
    assert [state in said for state in ("Ready", "Not here", "Failed", "Fetching")] == [True] * 4
    asked.clear()
    page.button(key="data_fetch_kmnist").click().run()
    assert asked == ["kmnist"]


def test_a_damaged_data_set_says_so_and_is_prepared_again_on_request(settings: Settings, asked: list[str]) -> None:
    path = settings.prepared / "digits" / "test_images.npy"
    path.write_bytes(path.read_bytes()[:-9])
    page = show(data_set="Digits 8×8")
    assert "Digits 8×8 is damaged: test_images.npy" in text_of(page)
    asked.clear()
    page.button(key="data_fetch").click().run()
    assert asked == ["digits"]


def test_damage_that_only_opening_shows_is_said_too(settings: Settings, asked: list[str]) -> None:
    path = settings.prepared / "digits" / "train_labels.npy"
    path.write_bytes(path.read_bytes()[:-1437] + b"\x0b" * 1437)
    page = show(data_set="Digits 8×8")
    assert "train_labels.npy must hold each label from 0 to 9" in text_of(page)
    asked.clear()
    page.button(key="data_fetch").click().run()
    assert asked == ["digits"]


def test_a_data_set_that_comes_while_one_waits_is_shown(settings: Settings) -> None:
    shutil.move(settings.prepared / "digits", settings.home / "aside")
    page = show(data_set="Digits 8×8")
    assert not page.metric
    shutil.move(settings.home / "aside", settings.prepared / "digits")
    page.run()
    assert len(page.metric) == 4


# What is where on the page --------------------------------------------------------------------------------------------


def show(**query: Any) -> AppTest:
    return pages.show("pages/data.py", **query)


def grid(page: AppTest, key: str = "data_tiles") -> dict[str, Any]:
    """What the tiles' component is given: those of the images, or `data_means`."""
    given = [json.loads(component.proto.json) for component in page.get("bidi_component")]
    images, means = (data for data in given if "tiles" in data)
    return dict(images if key == "data_tiles" else means)


def values(page: AppTest) -> list[int]:
    """The numbers in the cells of the large image."""
    drawn = [element.proto.body for element in page.get("html")]
    (html,) = (body.partition("</style>")[2] for body in drawn if "mn-pixels" in body)
    return [int(cell.rpartition(">")[2]) for cell in html.split("</i>")[:-1]]


def turn(page: AppTest, number: int) -> None:
    page.pagination(key="data_page").set_value(number).run()
    assert not page.exception


def rows(dataset: Dataset, part: Part, label: int | None = None, share: float = 0.1) -> Any:
    parts = divide(dataset.train_labels, dataset.test_labels, classes=10, valid_fraction=share)
    return parts.choose(part, label)


def tell(settings: Settings, name: str, state: DatasetState, message: str, fraction: float | None = None) -> None:
    data.write_status(name, settings.prepared, state, message, fraction=fraction)
