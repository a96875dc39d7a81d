"""Journeys on the Compare page: pick, read, keep, share, take away."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from mnistlr_core.config import parse_config
from mnistlr_core.lab import Lab
from mnistlr_core.links import pack
from mnistlr_core.records import Run, RunState
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from mnistlr_core.take_away import Kind, run_file
from tests.browser.conftest import MakeHome, Visit
from tests.browser.server import Server
from tests.processes import eventually

pytestmark = pytest.mark.browser

DIGITS = {"dataset": "digits", "epochs": 3, "batch_size": 32, "learning_rate": 0.1}
# Longer than any test looks at it, which then stops it.
ENDLESS = {"dataset": "digits", "architecture": "mlp", "hidden": "512", "batch_size": 4, "epochs": 1000}
CONFIGS = [parse_config(DIGITS | {"learning_rate": rate}) for rate in (0.1, 0.001)]


@pytest.fixture
def two(visit: Visit, server: Server) -> list[Run]:
    """Two trained runs; trained by the page's own engine, the first time that they are asked for."""
    ids = ",".join(config.short_id for config in CONFIGS)
    with closing(Lab(Settings(home=server.home))) as lab:
        if len(lab.find(ids.split(","))) < len(CONFIGS):
            page = visit(f"/compare?runs={ids}&with={pack(CONFIGS)}")
            expect(page.get_by_text("the link carries their values")).to_be_visible()
            page.get_by_role("button", name="Train them").click()
        eventually(
            lambda: sum(bool(run.test) for run in lab.find(ids.split(",")).values()) == 2, what="both are trained"
        )
        return list(lab.find(ids.split(",")).values())


def test_a_link_to_runs_that_are_not_here_trains_them_and_shows_them(visit: Visit, two: list[Run]) -> None:
    page = visit(compare(two))
    expect(page.get_by_text("McNemar's exact test")).to_be_visible()
    expect(page.get_by_text("the link carries their values")).to_have_count(0)
    expect(page.locator(".st-key-cmp_curves .js-plotly-plot")).to_be_visible()


def test_what_is_set_on_the_page_is_in_its_link_and_comes_back(visit: Visit, two: list[Run]) -> None:
    page = visit(compare(two))
    page.locator(".st-key-cmp_log_y label").click()
    page.get_by_role("radio", name="Step").click()
    page.get_by_role("radio", name="Both wrong").click()
    page.locator(".st-key-cmp_diff label").click()
    expect(page.get_by_role("cell", name="Batch size")).to_be_visible()
    share(page)
    link = page.locator("#link")
    expect(link).to_have_value(page.url + "&" + "with=" + pack([run.config for run in two]))
    other = visit(link.input_value().removeprefix(origin(page)))
    expect(other.get_by_role("cell", name="Batch size")).to_be_visible()
    expect(other.get_by_role("radio", name="Both wrong")).to_be_checked()
    expect(other.get_by_role("radio", name="Step")).to_be_checked()
    axis = "document.querySelector('.st-key-cmp_curves .js-plotly-plot')?._fullLayout?.yaxis.type"
    expect(other.locator(".st-key-cmp_curves .js-plotly-plot")).to_be_visible()
    eventually(lambda: other.evaluate(axis) == "log", what="the loss is on a logarithmic axis")


def test_name_note_and_tag_are_kept_and_found(visit: Visit, two: list[Run]) -> None:
    page = visit(compare(two[:1]))
    action(page, "cmp_edit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("**Bold** run")
    dialog.get_by_label("Note").fill("plain <b>text</b>")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("columnheader", name="A · **Bold** run")).to_be_visible()
    action(page, "cmp_open").click()
    expect(page.get_by_role("dialog").get_by_text("plain <b>text</b>")).to_be_visible()


def test_of_two_editors_the_second_is_told(visit: Visit, two: list[Run]) -> None:
    first, second = visit(compare(two[1:])), visit(compare(two[1:]))
    for page in (first, second):
        action(page, "cmp_edit").click()
        expect(page.get_by_role("dialog").get_by_label("Name")).to_be_visible()
    first.get_by_role("dialog").get_by_label("Name").fill("mine")
    first.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(first.get_by_role("dialog")).to_have_count(0)
    second.get_by_role("dialog").get_by_label("Name").fill("theirs")
    second.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(second.get_by_role("dialog").get_by_text("Their name: mine")).to_be_visible()


def test_a_report_opens_without_asking_anybody_for_anything(
    browser: Browser, server: Server, two: list[Run], tmp_path: Path
) -> None:
    with closing(Lab(Settings(home=server.home))) as lab:
        file = run_file(lab, two[0], Kind.REPORT)
    path = tmp_path / "report.html"
    path.write_bytes(file)
    page = browser.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(3)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []
    page.close()


def test_the_script_of_a_run_is_downloaded(visit: Visit, two: list[Run]) -> None:
    page = visit(f"/?run={two[0].id}")
    page.get_by_role("button", name="Take away").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="PyTorch script").click()
    assert two[0].test is not None
    text = Path(download.value.path()).read_text()
    assert download.value.suggested_filename == f"mnistlr_{two[0].id}.py"
    assert f"{two[0].test.accuracy:.4f}" in text
    compile(text, "script", "exec")


def test_an_imported_configuration_is_trained_and_picked(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "configs.json"
    config = parse_config(DIGITS | {"seed": 9})
    path.write_text(json.dumps([config.model_dump(mode="json")]))
    page = visit("/compare")
    page.get_by_role("button", name="Import").click()
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_role("button", name="Train and pick them").click()
    expect(page).to_have_url(re.compile(config.short_id))
    expect(page.get_by_text("validation accuracy after")).to_be_visible()


def test_a_run_in_training_goes_on_in_the_table_and_in_the_curves(visit: Visit, server: Server) -> None:
    config = parse_config(ENDLESS)
    store = Store(Settings(home=server.home).database)
    store.submit(config)
    page = visit(f"/compare?runs={config.short_id}")
    # The chart is made anew with every redraw, and for a moment there is none.
    lines = "(document.querySelector('.st-key-cmp_curves .js-plotly-plot')?._fullData ?? [])"
    expect(page.locator(".st-key-cmp_curves .js-plotly-plot")).to_be_visible()

    def points() -> int:
        return int(page.evaluate(f"Math.max(0, ...{lines}.map(line => line.x?.length ?? 0))"))

    eventually(lambda: points() > 5, what="some epochs are drawn")
    before = points()
    eventually(lambda: points() > before, what="more epochs are drawn")
    store.request_stop(config.short_id)
    eventually(lambda: store.run(config.short_id).state is RunState.STOPPED, what="the run stops")
    page.reload()  # or the page's own redraw at a run's end could shut the drawer again
    action(page, "cmp_open").click()
    expect(page.get_by_role("dialog").get_by_text("Stopped")).to_be_visible()
    store.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(visit: Visit, two: list[Run], scheme: Literal["light", "dark"]) -> None:
    page = visit(compare(two), width=390, color_scheme=scheme)
    expect(page.get_by_text("McNemar's exact test")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tables = "[...document.querySelectorAll('[data-testid=stMarkdownContainer] table')]"
    inside = f"{tables}.every(table => table.getBoundingClientRect().right <= 390)"
    page.wait_for_function(f"{tables}.length > 1 && {inside}")
    assert page.evaluate(f"{tables}.some(table => table.scrollWidth > table.clientWidth)")  # and it can be scrolled to


def test_a_fresh_server_opens_the_page_as_its_first_request(visit: Visit, start: object, make_home: MakeHome) -> None:
    at = start(make_home(mnist=False))  # type: ignore[operator]
    page = visit("/compare?runs=0123456789ab", at=at)
    expect(page.get_by_text("Not on this server")).to_be_visible()
    expect(page.get_by_test_id("stTopNavLink").first).to_be_visible()


def compare(runs: list[Run]) -> str:
    return f"/compare?runs={'%2C'.join(run.id for run in runs)}"


def action(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key} button")


def share(page: Page) -> None:
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#link")).to_be_visible()


def origin(page: Page) -> str:
    parts = urlsplit(page.url)
    assert parse_qs(parts.query)
    return f"{parts.scheme}://{parts.netloc}"
