"""Journeys on the Data page: choose, page on, click an image, read its pixels, come back by a link."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from mnistlr_core import data
from mnistlr_core.data import Dataset
from mnistlr_core.survey import Part, divide
from tests.browser.conftest import MakeHome, Visit
from tests.browser.server import Server

pytestmark = pytest.mark.browser

DIGITS = {"data_set": "Digits 8×8"}
KEYS = ("data_set", "data_split", "data_class", "data_page", "data_image", "data_valid")


@pytest.fixture
def eights(digits: Path) -> Dataset:
    return data.load("digits", digits)


def test_a_fresh_server_opens_the_page_as_its_first_request(
    visit: Visit, make_home: MakeHome, start: Callable[[Path], Server], eights: Dataset
) -> None:
    page = visit("/data", at=start(make_home(mnist=False)))
    expect(chosen(page, "data_set")).to_have_text("Digits 8×8")
    expect(page.get_by_text("1–48 of 1,293 images")).to_be_visible()
    expect(page).to_have_title("mnistlr")
    expect(page.get_by_test_id("stDialog")).to_have_count(0)
    expect(page.get_by_test_id("stSidebarNavLink")).to_have_count(0)
    expect(page.get_by_test_id("stMetric")).to_have_count(4)
    expect(page.locator(".st-key-data_classes .js-plotly-plot, .st-key-data_pixels .js-plotly-plot")).to_have_count(2)
    assert numbers(page) == pixels(eights, Part.TRAIN, int(rows(eights, Part.TRAIN)[0]))


def test_class_page_and_image_are_chosen_and_a_reload_keeps_all(visit: Visit, eights: Dataset) -> None:
    sevens = rows(eights, Part.TRAIN, 7)
    page = visit(link(DIGITS))
    pick(page, "data_class", "7")
    expect(page.get_by_text(f"1–48 of {len(sevens)} images")).to_be_visible()
    page.locator(".st-key-data_page button").filter(has_text=re.compile("^2$")).click()
    expect(page.get_by_text(f"49–96 of {len(sevens)} images")).to_be_visible()
    expect(tile(page, 0)).to_have_attribute("aria-label", f"Training image {sevens[48]}: 7")
    tile(page, 5).click()
    row = int(sevens[53])
    expect(headline(page, f"7 · training image {row:,}")).to_be_visible()
    expect(pressed(page)).to_have_attribute("aria-label", f"Training image {row}: 7")
    assert numbers(page) == pixels(eights, Part.TRAIN, row)
    expect(page).to_have_url(re.compile(f"data_image={row}"))
    assert in_link(page) == DIGITS | {"data_class": "7", "data_page": "2", "data_image": str(row)}
    page.reload()
    expect(headline(page, f"7 · training image {row:,}")).to_be_visible()
    expect(page.get_by_text(f"49–96 of {len(sevens)} images")).to_be_visible()
    expect(field(page, "data_class")).to_have_value("7")
    expect(field(page, "data_image")).to_have_value(str(row))
    expect(pressed(page)).to_have_attribute("aria-label", f"Training image {row}: 7")
    assert numbers(page) == pixels(eights, Part.TRAIN, row)


def test_another_page_is_found_again_by_a_reload(visit: Visit, eights: Dataset) -> None:
    page = visit(link(DIGITS))
    page.locator(".st-key-data_page button").filter(has_text=re.compile("^3$")).click()
    row = int(rows(eights, Part.TRAIN)[96])
    for again in (lambda: None, page.reload):
        again()
        expect(page.get_by_text("97–144 of 1,293 images")).to_be_visible()
        expect(field(page, "data_image")).to_have_value(str(row))
        expect(tile(page, 0)).to_have_attribute("aria-pressed", "true")
        expect(page).to_have_url(re.compile("data_page=3"))


def test_each_filter_begins_anew_and_the_link_follows(visit: Visit, eights: Dataset) -> None:
    page = visit(link(DIGITS | {"data_page": "4", "data_image": "1200"}))
    expect(field(page, "data_image")).to_have_value("1200")
    page.get_by_role("radio", name="Test", exact=True).click()
    expect(page.get_by_text("1–48 of 360 images")).to_be_visible()
    expect(field(page, "data_image")).to_have_value("0")
    expect(page).not_to_have_url(re.compile("data_page|data_image"))
    page.get_by_role("radio", name="Validation", exact=True).click()
    expect(page.get_by_text("1–48 of 144 images")).to_be_visible()
    pick(page, "data_valid", "20 %")
    expect(page.get_by_text("1–48 of 287 images")).to_be_visible()
    assert in_link(page) == DIGITS | {"data_split": "Validation", "data_valid": "20 %"}
    first = int(rows(eights, Part.VALID, share=0.2)[0])
    page.reload()
    expect(headline(page, f"{eights.train_labels[first]} · validation image {first:,}")).to_be_visible()


def test_previous_and_next_and_the_number_move_the_outline(visit: Visit, eights: Dataset) -> None:
    order = rows(eights, Part.TRAIN)
    page = visit(link(DIGITS))
    expect(page.locator(".st-key-data_previous button")).to_be_disabled()
    page.locator(".st-key-data_next button").click()
    expect(tile(page, 1)).to_have_attribute("aria-pressed", "true")
    expect(pressed(page)).to_have_count(1)
    page.locator(".st-key-data_previous button").click()
    expect(tile(page, 0)).to_have_attribute("aria-pressed", "true")
    field(page, "data_image").fill(str(order[100]))
    field(page, "data_image").press("Enter")
    expect(page.get_by_text("97–144 of 1,293 images")).to_be_visible()
    expect(tile(page, 4)).to_have_attribute("aria-pressed", "true")


def test_the_tiles_are_reached_by_keyboard_which_stays_where_it_is(visit: Visit, eights: Dataset) -> None:
    order = rows(eights, Part.TRAIN)
    page = visit(link(DIGITS))
    expect(tiles(page)).to_have_count(48)
    assert tiles(page).evaluate_all("all => all.map(one => one.tabIndex)") == [0] + [-1] * 47
    tile(page, 0).focus()
    columns = len(grid(page).evaluate("el => getComputedStyle(el).gridTemplateColumns").split())
    for key, at in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("End", 47), ("Home", 0)):
        page.keyboard.press(key)
        expect(tile(page, at)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(headline(page, f"training image {order[columns]}")).to_be_visible()
    expect(tile(page, columns)).to_have_attribute("aria-pressed", "true")
    expect(tile(page, columns)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(headline(page, f"training image {order[columns + 1]}")).to_be_visible()


def test_a_mean_image_shows_the_images_of_its_class_and_then_all_again(visit: Visit, eights: Dataset) -> None:
    page = visit(link(DIGITS))
    mean = page.locator(".st-key-data_means button").nth(4)
    mean.click()
    expect(page.get_by_text(f"1–48 of {len(rows(eights, Part.TRAIN, 4))} images")).to_be_visible()
    expect(field(page, "data_class")).to_have_value("4")
    expect(mean).to_have_attribute("aria-pressed", "true")
    mean.click()
    expect(page.get_by_text("1–48 of 1,293 images")).to_be_visible()
    expect(mean).to_have_attribute("aria-pressed", "false")


def test_another_data_set_and_back(visit: Visit) -> None:
    page = visit(link(DIGITS | {"data_page": "5", "data_image": "250"}))
    expect(page.get_by_text("193–240 of 1,293 images")).to_be_visible()
    page.get_by_role("radio", name="KMNIST", exact=True).click()
    expect(page.locator(".st-key-data_fetch button")).to_have_text(re.compile("Fetch KMNIST"))
    expect(tiles(page)).to_have_count(0)
    page.get_by_role("radio", name="Digits 8×8").click()
    expect(tiles(page)).to_have_count(48)


def test_a_fetch_that_fails_says_so_in_words(visit: Visit) -> None:
    page = visit(link({"data_set": "KMNIST"}))
    page.locator(".st-key-data_fetch button").click()
    expect(page.get_by_text(re.compile("KMNIST could not be downloaded")).first).to_be_visible()
    expect(page.locator(".st-key-data_fetch button")).to_have_text(re.compile("Try again"))


@pytest.mark.mnist
def test_mnist_has_its_784_pixels_and_its_published_mean(visit: Visit, mnist_root: Path) -> None:
    page = visit("/data")
    expect(page.get_by_text("1–48 of 54,000 images")).to_be_visible()
    expect(page.get_by_test_id("stMetric").filter(has_text="Pixel mean")).to_contain_text("0.1307")
    expect(cells(page)).to_have_count(784)
    expect(page.locator(".st-key-data_classes .js-plotly-plot")).to_be_visible()


def test_nothing_is_wider_than_a_phone(visit: Visit) -> None:
    for address in (link(DIGITS), "/data", link({"data_set": "CIFAR-10"})):
        page = visit(address, width=390)
        expect(page.get_by_text("Data sets", exact=True)).to_be_visible()
        if "CIFAR" not in address:
            expect(tiles(page)).to_have_count(48)
            expect(page.locator(".st-key-data_pixels .js-plotly-plot")).to_be_visible()
            widths = tiles(page).evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
            assert min(widths) >= 44
        assert overflow(page) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_words_are_legible_on_either_theme(visit: Visit, scheme: Literal["light", "dark"]) -> None:
    page = visit(link(DIGITS), color_scheme=scheme)
    expect(tiles(page)).to_have_count(48)
    for words in (tile(page, 3).locator("b"), tile(page, 3).locator("small")):
        assert contrast(words) >= 4.5
    drawn = cells(page).evaluate_all(
        "all => all.map(cell => { const of = getComputedStyle(cell); return [of.color, of.backgroundColor]; })"
    )
    assert len(drawn) == 64
    paper = "rgb(255, 255, 255)"
    assert (
        min(ratio(colour(ink), colour(ground if "0, 0, 0, 0" not in ground else paper)) for ink, ground in drawn) >= 4.5
    )
    outline = pressed(page).locator("i").evaluate("el => getComputedStyle(el).outlineColor")
    assert ratio(colour(outline), background(tile(page, 0))) >= 3


@pytest.mark.parametrize(
    "value", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "1e999", "9" * 400, "👾"]
)
def test_whatever_stands_in_a_link_the_page_comes_up_and_can_be_used(visit: Visit, value: str) -> None:
    page = visit(link(dict.fromkeys(KEYS, value) | DIGITS))
    expect(tiles(page)).to_have_count(48)
    tile(page, 2).click()
    expect(tile(page, 2)).to_have_attribute("aria-pressed", "true")
    assert page.locator("img[src=x], script:has-text('alert(1)')").count() == 0


# What is where on the page --------------------------------------------------------------------------------------------


def link(values: dict[str, Any]) -> str:
    return f"/data?{urlencode(values)}"


def in_link(page: Page) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(page.url).query).items()}


def grid(page: Page) -> Locator:
    return page.locator(".st-key-data_tiles .tiles")


def tiles(page: Page) -> Locator:
    return page.locator(".st-key-data_tiles button")


def tile(page: Page, position: int) -> Locator:
    return tiles(page).nth(position)


def pressed(page: Page) -> Locator:
    return page.locator(".st-key-data_tiles button[aria-pressed=true]")


def headline(page: Page, words: str) -> Locator:
    return page.get_by_role("heading").filter(has_text=words)


def cells(page: Page) -> Locator:
    return page.locator(".mn-pixels i")


def numbers(page: Page) -> list[int]:
    return [int(text) for text in cells(page).all_inner_texts()]


def field(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key} input").first


def chosen(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key} [role=radio][aria-checked=true]")


def pick(page: Page, key: str, label: str) -> None:
    field(page, key).click()
    page.get_by_role("option", name=label, exact=True).click()
    expect(page).to_have_url(re.compile(rf"[?&]{key}="))


def rows(dataset: Dataset, part: Part, label: int | None = None, share: float = 0.1) -> Any:
    parts = divide(dataset.train_labels, dataset.test_labels, classes=10, valid_fraction=share)
    return parts.choose(part, label)


def pixels(dataset: Dataset, part: Part, row: int) -> list[int]:
    images = dataset.test_images if part is Part.TEST else dataset.train_images
    return [int(value) for value in np.asarray(images[row]).ravel()]


def overflow(page: Page) -> int:
    """By how many pixels the page, or what scrolls in it, is too wide."""
    return int(
        page.evaluate(
            """() => Math.max(document.documentElement.scrollWidth - innerWidth,
                ...[...document.querySelectorAll('[data-testid=stMain]')].map(el => el.scrollWidth - el.clientWidth))"""
        )
    )


def contrast(words: Locator) -> float:
    """Of text with what is behind it, its own opacity counted in (WCAG 2.2, 1.4.3)."""
    behind = background(words)
    ink, opacity = json.loads(
        words.evaluate("el => { const of = getComputedStyle(el); return JSON.stringify([of.color, of.opacity]); }")
    )
    share = float(opacity)
    return ratio(tuple(share * a + (1 - share) * b for a, b in zip(colour(ink), behind, strict=True)), behind)


def background(element: Locator) -> tuple[float, ...]:
    """The first colour behind an element that isn't transparent, out of a component's shadow as well."""
    return colour(
        element.evaluate(
            """el => {
                for (; el; el = el.parentElement ?? el.getRootNode().host) {
                    const colour = getComputedStyle(el).backgroundColor;
                    if (!/, 0\\)$|transparent/.test(colour)) return colour;
                }
            }"""
        )
    )


def colour(css: str) -> tuple[float, ...]:
    """Red, green and blue, 0..255, of what a browser writes as rgb(…)."""
    return tuple(float(number) for number in re.findall(r"[\d.]+", css)[:3])


def ratio(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def luminance(channels: tuple[float, ...]) -> float:
        shares = np.array(channels) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
