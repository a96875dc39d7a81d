"""Journeys on the Train page, as people make them: press, watch, reload, share, stop, go on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect

from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.evaluation import Predictions, confusion
from mnistlr_core.lab import Lab
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from tests.browser.conftest import MakeHome, Visit
from tests.browser.server import Server
from tests.processes import eventually

pytestmark = pytest.mark.browser

THEME = Path(__file__).resolve().parents[2] / ".streamlit" / "config.toml"

SHORT = {"dataset": "digits", "epochs": 3, "batch_size": 32, "learning_rate": 0.1}
# Some 8 s of training in many short epochs: long enough to reload, or to be stopped.
LONG = {"dataset": "digits", "architecture": "mlp", "hidden": "512", "batch_size": 16, "epochs": 300}
# Longer than any test looks at it, which then stops it.
ENDLESS = LONG | {"epochs": 1000}
# So little learned that the wrong images fill pages.
POOR = {"dataset": "digits", "epochs": 1, "batch_size": 256, "learning_rate": 0.001}

# Each field as the form shows it, and as the configuration has it; none has its default.
FILLED: dict[str, tuple[str, Any]] = {
    "dataset": ("Digits 8×8", "digits"),
    "hidden": ("24, 12", "24, 12"),
    "learning_rate": ("0.07", 0.07),
    "batch_size": ("40", 40),
    "epochs": ("4", 4),
    "valid_fraction": ("0.25", 0.25),
    "inputs": ("mean 0, std 1", "standardised"),
    "momentum": ("0.85", 0.85),
    "weight_decay": ("0.0002", 0.0002),
    "train_fraction": ("0.6", 0.6),
    "test_watch": ("Every n steps", "steps"),
    "test_watch_steps": ("30", 30),
    "seed": ("11", 11),
}
FLAGS = ("nesterov", "output_sigmoid")


@pytest.mark.mnist
def test_a_newcomer_presses_train_and_sees_what_the_model_gets_wrong(visit: Visit, mnist_root: Path) -> None:
    page = visit("/")
    expect(page.get_by_text("What happens if I change this?")).to_be_visible()
    expect(field(page, "dataset")).to_have_value("MNIST")
    train(page).click()
    expect(page.get_by_test_id("stProgress")).to_be_visible()
    expect(page.locator(".st-key-chart_loss .scatterlayer path").first).to_be_visible()
    expect_finished(page)
    expect(page.get_by_test_id("stMetric")).to_have_count(4)
    expect(page.get_by_test_id("stMetric").first).to_contain_text(re.compile(r"Test accuracy\s*9\d\.\d\d %"))
    expect(page.locator(".st-key-chart_loss, .st-key-chart_accuracy")).to_have_count(2)
    expect(page.locator(".mn-tiles figure")).to_have_count(24)
    expect(page.locator("[class*=st-key-confusion] .js-plotly-plot")).to_be_visible()
    assert run_in(page) == parse_config({}).short_id


def test_a_reload_in_the_middle_finds_the_same_run_which_goes_on_to_its_end(visit: Visit) -> None:
    page = visit(link(LONG))
    train(page).click()
    await_epoch(page, 5)
    before = run_in(page)
    page.reload()
    await_epoch(page, 6)
    assert run_in(page) == before == parse_config(LONG).short_id
    expect(field(page, "hidden")).to_have_value("512")
    expect(field(page, "epochs")).to_have_value("300")
    expect_finished(page)


def test_whoever_has_the_link_sees_the_same_live_run(visit: Visit) -> None:
    mine = visit(link(ENDLESS | {"seed": 1}))
    train(mine).click()
    await_epoch(mine, 2)
    theirs = visit(f"/?run={run_in(mine)}")
    await_epoch(theirs, 3)
    expect(promise(theirs)).to_contain_text("Running")
    stop(theirs).click()
    for page in (mine, theirs):
        expect(badge(page)).to_contain_text("Stopped")


def test_a_stopped_run_keeps_its_metrics_and_train_finishes_it(visit: Visit) -> None:
    page = visit(link(LONG | {"seed": 2}))
    train(page).click()
    await_epoch(page, 3)
    stop(page).click()
    expect(badge(page)).to_contain_text("Stopped")
    expect(page.get_by_test_id("stMetric")).to_have_count(4)
    expect(page.locator(".st-key-chart_loss .js-plotly-plot")).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_contain_text(re.compile(r"after \d+ of 300 epochs"))
    expect(promise(page)).to_contain_text("Train goes on")
    expect(stop(page)).to_have_count(0)
    train(page).click()
    expect_finished(page)
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


def test_the_second_press_is_answered_from_the_store(visit: Visit, server: Server) -> None:
    config = trained(visit, SHORT)
    page = visit(link(SHORT))
    expect(promise(page)).to_contain_text("Cached")
    expect(train(page)).to_be_enabled()
    page.keyboard.press("Control+Enter")
    expect_finished(page)
    assert run_in(page) == config.short_id
    with closing(Lab(Settings(home=server.home))) as lab:
        assert lab.run(config.short_id).attempts == 1


@pytest.mark.parametrize("page_name", ["/train", "/"])
def test_a_fresh_server_opens_a_link_to_a_run_as_its_first_request(
    visit: Visit, make_home: MakeHome, start: Callable[[Path], Server], page_name: str
) -> None:
    home, config = make_home(), parse_config(SHORT | {"architecture": "mlp", "hidden": "20", "optimizer": "adagrad"})
    with closing(Store(Settings(home=home).database)) as store:
        store.submit(config)
    page = visit(f"{page_name}?run={config.short_id}", at=start(home))
    expect(chosen(page, "architecture")).to_have_text("Sigmoid MLP")
    expect(chosen(page, "optimizer")).to_have_text("Adagrad")
    expect(field(page, "hidden")).to_have_value("20")
    expect(field(page, "batch_size")).to_have_value("32")
    expect_framed(page)
    expect_finished(page)


def test_a_fresh_server_takes_plain_values_from_a_link_and_a_reload_keeps_them(
    visit: Visit, make_home: MakeHome, start: Callable[[Path], Server]
) -> None:
    page = visit("/?architecture=mlp&optimizer=adam&dataset=digits&learning_rate=0.002", at=start(make_home()))
    for reload in (lambda: None, page.reload):
        reload()
        expect(chosen(page, "architecture")).to_have_text("Sigmoid MLP")
        expect(chosen(page, "optimizer")).to_have_text("Adam")
        expect(field(page, "dataset")).to_have_value("Digits 8×8")
        expect(field(page, "learning_rate")).to_have_value("0.002")
        expect_framed(page)


def test_a_click_on_the_confusion_matrix_shows_the_images_of_that_cell(visit: Visit, server: Server) -> None:
    config = trained(visit, POOR)
    read = predictions(server, config)
    matrix = confusion(read.labels, read.predicted, 10)
    np.fill_diagonal(matrix, 0)
    actual, predicted = map(int, np.unravel_index(matrix.argmax(), matrix.shape))
    page = visit(f"/?run={config.short_id}")
    click_cell(page, config, actual, predicted)
    words = f"of {matrix[actual, predicted]} wrong images: actual {actual}, read as {predicted}"
    expect(page.get_by_text(words)).to_be_visible()
    expect(page.locator(".mn-tiles figure").first).to_contain_text(f"{predicted} not {actual}")
    expect(page.locator("[class*=st-key-confusion] .shapelayer path")).to_have_count(1)
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_text(f"of {read.errors} wrong images", exact=False)).to_be_visible()
    expect(page.locator("[class*=st-key-confusion] .shapelayer path")).to_have_count(0)


def test_the_order_the_filter_and_the_page_of_the_images_survive_a_reload(visit: Visit, server: Server) -> None:
    config = trained(visit, POOR)
    read = predictions(server, config)
    wrong = read.predicted != read.labels
    most = int(np.bincount(read.predicted[wrong]).argmax())
    page = visit(f"/?run={config.short_id}")
    page.get_by_role("radio", name="Closest call").click()
    expect(page).to_have_url(re.compile("grid_order="))
    field(page, "grid_predicted").click()
    page.get_by_role("option", name=str(most), exact=True).click()
    count = f"of {int((wrong & (read.predicted == most)).sum())} wrong images: read as {most}"
    expect(page.get_by_text(f"1–24 {count}")).to_be_visible()
    page.locator(".st-key-grid_page button").filter(has_text=re.compile("^2$")).click()
    shown = page.get_by_text(re.compile(f"^25–[0-9]+ {count}$"))
    expect(shown).to_be_visible()
    tiles = page.locator(".mn-tiles").inner_text()
    expect(page).to_have_url(re.compile("grid_page=2"))
    page.reload()
    expect(shown).to_be_visible()
    expect(chosen(page, "grid_order")).to_have_text("Closest call")
    expect(field(page, "grid_predicted")).to_have_value(str(most))
    assert page.locator(".mn-tiles").inner_text() == tiles


def test_every_field_survives_a_reload_and_ctrl_enter_trains_what_the_form_says(visit: Visit) -> None:
    page = visit("/")
    page.get_by_role("radio", name="Sigmoid MLP").click()
    expect(field(page, "hidden")).to_be_visible()
    page.get_by_text("More", exact=True).click()
    for name, (shown, _) in FILLED.items():
        if field(page, name).input_value() == shown:
            continue  # where MNIST can't be had, the form has chosen digits already
        (pick if name in ("dataset", "inputs", "test_watch") else write)(page, name, shown)
    for name in FLAGS:
        page.locator(f".st-key-{name} label").first.click()
        expect(page).to_have_url(re.compile(f"[?&]{name}="))
    promised = promise(page).inner_text()
    page.reload()
    expect(promise(page)).to_have_text(promised)
    expect(chosen(page, "architecture")).to_have_text("Sigmoid MLP")
    for name, (shown, _) in FILLED.items():
        expect(field(page, name)).to_have_value(shown)
    for name in FLAGS:
        expect(field(page, name)).to_be_checked()
    expect(train(page)).to_be_enabled()
    page.keyboard.press("Control+Enter")
    expect_finished(page)
    values = {name: value for name, (_, value) in FILLED.items()} | dict.fromkeys(FLAGS, True)
    assert run_in(page) == parse_config(values | {"architecture": "mlp"}).short_id


def test_pausing_live_updates_keeps_a_zoom(visit: Visit) -> None:
    page = visit(link(ENDLESS | {"seed": 3}))
    train(page).click()
    await_epoch(page, 2)
    page.locator(".st-key-paused label").first.click()
    expect(page.locator(".st-key-paused input")).to_be_checked()
    chart = page.locator(".st-key-chart_loss .js-plotly-plot")
    expect(chart.locator(".scatterlayer path").first).to_be_visible()
    whole = x_range(chart)
    box = chart.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=5)
    page.mouse.up()
    page.wait_for_function("([el, was]) => el._fullLayout.xaxis.range[1] < was - 1", arg=[handle(chart), whole[1]])
    zoomed = x_range(chart)
    await_epoch(page, epoch_of(page) + 10)
    assert x_range(chart) == zoomed
    stop(page).click()
    expect(badge(page)).to_contain_text("Stopped")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_theme_has_the_colours_it_is_given(visit: Visit, scheme: Literal["light", "dark"]) -> None:
    theme = tomllib.loads(THEME.read_text(encoding="utf-8"))["theme"][scheme]
    page = visit("/", color_scheme=scheme)
    expect(train(page)).to_be_visible()
    app = page.get_by_test_id("stApp")
    expect(app).to_have_css("background-color", rgb(theme["backgroundColor"]))
    expect(app).to_have_css("color", rgb(theme["textColor"]))
    expect(train(page)).to_have_css("background-color", rgb(theme["primaryColor"]))


def test_nothing_is_wider_than_a_phone(visit: Visit) -> None:
    config = trained(visit, POOR)
    page = visit("/", width=390)
    expect(train(page)).to_be_visible()
    assert overflow(page) <= 0
    page = visit(f"/?run={config.short_id}", width=390)
    expect(page.locator(".mn-tiles figure")).to_have_count(24)
    expect(page.locator("[class*=st-key-confusion] .js-plotly-plot")).to_be_visible()
    assert overflow(page) <= 0


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "NaN", "9" * 400, "👾"])
def test_whatever_stands_in_a_link_the_page_comes_up_and_can_be_used(visit: Visit, value: str) -> None:
    names = [*RunConfig.model_fields, "run", "grid_page", "grid_actual", "grid_order", "normalise", "train", "form"]
    page = visit(f"/?{urlencode(dict.fromkeys(names, value))}")
    expect(page.get_by_text("What happens if I change this?")).to_be_visible()
    expect(train(page)).to_be_visible()
    expect_framed(page)
    assert page.locator("img[src=x], script:has-text('alert(1)')").count() == 0


def test_without_mnist_and_without_a_network_digits_are_chosen_and_can_be_trained(
    visit: Visit, make_home: MakeHome, start: Callable[[Path], Server]
) -> None:
    page = visit("/", at=start(make_home(mnist=False)))
    expect(train(page)).to_be_enabled()
    expect(field(page, "dataset")).to_have_value("Digits 8×8")
    expect(page.get_by_text(re.compile("MNIST could not be"))).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    train(page).click()
    expect_finished(page)
    expect(page.get_by_test_id("stMetric")).to_have_count(4)


# What is where on the page -------------------------------------------------------------------------------------------


def link(values: dict[str, Any]) -> str:
    return f"/?{urlencode(values)}"


def train(page: Page) -> Locator:
    return page.locator(".st-key-train button")


def stop(page: Page) -> Locator:
    return page.locator(".st-key-stop button")


def promise(page: Page) -> Locator:
    """What the form says that pressing Train will come to."""
    said = re.compile(r"(Cached|Running|Stopped before|New):")
    return page.locator(".st-key-form").get_by_test_id("stCaptionContainer").filter(has_text=said)


def badge(page: Page) -> Locator:
    """The run's state, in the title row."""
    return page.locator(".stMarkdownBadge").first


def field(page: Page, name: str) -> Locator:
    return page.locator(f".st-key-{name} input").first


def chosen(page: Page, name: str) -> Locator:
    return page.locator(f".st-key-{name} [role=radio][aria-checked=true]")


def write(page: Page, name: str, value: str) -> None:
    """Type a value, whether or not it is one of those offered, and wait until the link holds it."""
    if field(page, name).get_attribute("role") == "combobox":
        field(page, name).press_sequentially(value)  # the first key replaces what was chosen; `fill` confuses that
    else:
        field(page, name).fill(value)
    field(page, name).press("Enter")
    expect(page).to_have_url(re.compile(rf"[?&]{name}="))


def pick(page: Page, name: str, label: str) -> None:
    """Choose from a list, and wait until the link holds it. A list closes when the page moves: it is opened again."""
    option = page.get_by_role("option", name=label, exact=True)

    def picked() -> bool:
        field(page, name).click()
        with suppress(TimeoutError):
            option.click(timeout=2_000)
            return True
        return False

    eventually(picked, what=f"{label} in the list of {name}")
    expect(page).to_have_url(re.compile(rf"[?&]{name}="))


def run_in(page: Page) -> str:
    """The run that the address names."""
    return parse_qs(urlsplit(page.url).query)["run"][0]


def epoch_of(page: Page) -> int:
    found = re.search(r"Epoch (\d+) of", page.get_by_test_id("stProgress").inner_text())
    assert found is not None
    return int(found[1])


def await_epoch(page: Page, epoch: int) -> None:
    page.wait_for_function(
        """least => {
            const bar = document.querySelector('[data-testid=stProgress]');
            const words = bar && bar.innerText.match(/Epoch (\\d+) of/);
            return words && Number(words[1]) >= least;
        }""",
        arg=epoch,
    )


def expect_finished(page: Page) -> None:
    expect(badge(page)).to_contain_text("Finished")
    expect(page.get_by_test_id("stProgress")).to_have_count(0)


def expect_framed(page: Page) -> None:
    """The page came through app.py: its title, no dialog, and not the navigation of Streamlit's old mode."""
    expect(page).to_have_title("mnistlr")
    expect(page.get_by_test_id("stDialog")).to_have_count(0)
    expect(page.get_by_test_id("stSidebarNavLink")).to_have_count(0)


def x_range(chart: Locator) -> list[float]:
    return list(chart.evaluate("el => [...el._fullLayout.xaxis.range]"))


def handle(chart: Locator) -> Any:
    return chart.element_handle()


def click_cell(page: Page, config: RunConfig, actual: int, predicted: int) -> None:
    chart = page.locator(f".st-key-confusion_{config.short_id} .js-plotly-plot")
    expect(chart.locator(".scatterlayer .point").first).to_be_attached()
    chart.scroll_into_view_if_needed()
    x, y = chart.evaluate(
        """(el, [actual, predicted]) => {
            const { xaxis, yaxis } = el._fullLayout, box = el.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.l2p(predicted), box.y + yaxis._offset + yaxis.l2p(actual)];
        }""",
        [actual, predicted],
    )
    page.mouse.move(x - 2, y - 2)
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def overflow(page: Page) -> int:
    """By how many pixels the page, or what scrolls in it, is too wide."""
    return int(
        page.evaluate(
            """() => Math.max(document.documentElement.scrollWidth - innerWidth,
                ...[...document.querySelectorAll('[data-testid=stMain]')].map(el => el.scrollWidth - el.clientWidth))"""
        )
    )


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(byte) for byte in bytes.fromhex(colour.removeprefix('#')))})"


def trained(visit: Visit, values: dict[str, Any]) -> RunConfig:
    """A run that is finished, by this test or an earlier one."""
    page = visit(link(values))
    train(page).click()
    expect_finished(page)
    return parse_config(values)


def predictions(server: Server, config: RunConfig) -> Predictions:
    with closing(Lab(Settings(home=server.home))) as lab:
        return lab.predictions(lab.run(config.short_id))
