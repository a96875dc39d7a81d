"""Journeys with the articles: measure all of them, follow a thing to try, come back."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from mnistlr_core.articles import RECIPES, article_configs
from mnistlr_core.lab import Lab
from mnistlr_core.settings import Settings
from tests.browser.conftest import Visit
from tests.browser.server import Server

pytestmark = pytest.mark.browser

ON_DIGITS = "/articles?articles_set=Digits+8%C3%978"
TOTAL = len(article_configs(3))


def test_run_all_measures_every_article_and_its_runs_are_like_any_other(visit: Visit, server: Server) -> None:
    page = visit(ON_DIGITS)
    expect(page.get_by_text("Not measured yet")).to_have_count(len(RECIPES))
    expect(page.get_by_text(f"{TOTAL} of {TOTAL} runs are missing")).to_be_visible()
    page.get_by_role("button", name="Run all").click()
    expect(page.get_by_test_id("stProgress")).to_have_count(1)
    expect(page.get_by_test_id("stProgress")).to_contain_text(re.compile(rf"[1-9]\d* of {TOTAL} runs"))
    expect(page.get_by_text(f"All {TOTAL} runs are here")).to_be_visible(timeout=180_000)
    expect(page.get_by_text("The article's figures are of MNIST")).to_have_count(len(RECIPES) - 1)
    expect(page.locator(".js-plotly-plot")).to_have_count(len(RECIPES))
    expect(page.get_by_role("button", name="Run all")).to_be_disabled()
    lab = Lab(Settings(home=server.home))
    try:
        assert all(lab.run(config.short_id).test for config in article_configs(3, "digits"))
    finally:
        lab.close()

    card(page, "towards-data-science").get_by_role("button", name="Runs").click()
    page.get_by_role("link", name="Seed 2: finished").click()
    expect(page.get_by_text("Most confused").first).to_be_visible()
    expect(field(page, "learning_rate")).to_have_value("0.001")
    page.get_by_role("link", name="Articles").first.click()
    expect(page.get_by_text("Five articles, checked")).to_be_visible()


def test_a_thing_to_try_opens_the_form_and_the_menu_leads_back_to_the_run(visit: Visit) -> None:
    page = visit(ON_DIGITS)
    card(page, "zero-to-gans").get_by_role("button", name="Things to try").click()
    page.get_by_role("link", name="Twice the epochs").click()
    expect(field(page, "epochs")).to_have_value("50")
    expect(field(page, "valid_fraction")).to_have_value("0.2")
    expect(page.get_by_text(re.compile(r"Differs in Epochs 50 \(article: 25\)"))).to_be_visible()
    page.get_by_role("button", name="Back to the article's values").click()
    expect(page.get_by_text("Exactly as the article has it")).to_be_visible()
    choose(page, "dataset", "Digits 8×8")
    expect(page.get_by_text(re.compile(r"Differs in Data set Digits 8×8"))).to_be_visible()
    page.locator(".st-key-train button").click()
    expect(page.get_by_text("Most confused").first).to_be_visible()
    expect(page.get_by_text("about 85 % with more epochs")).to_be_visible()
    address = page.url
    page.get_by_role("link", name="Data").first.click()
    expect(page).to_have_url(re.compile("/data"))
    page.get_by_role("link", name="Train").first.click()
    expect(page.get_by_text("Most confused").first).to_be_visible()
    page.goto(address)
    expect(page.get_by_text("Most confused").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"Differs in Data set Digits 8×8"))).to_be_visible()


def test_a_change_to_the_forms_own_default_survives_a_reload(visit: Visit) -> None:
    page = visit("/?recipe=zero-to-gans")
    expect(field(page, "epochs")).to_have_value("25")
    choose(page, "epochs", "5")
    expect(page.get_by_text(re.compile(r"Differs in Epochs 5 \(article: 25\)"))).to_be_visible()
    expect(page).to_have_url(re.compile("epochs=5"))
    page.reload()
    expect(field(page, "epochs")).to_have_value("5")
    expect(field(page, "recipe")).to_have_value(RECIPES["zero-to-gans"].title)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_runs_over_the_edge(visit: Visit, scheme: Literal["light", "dark"]) -> None:
    page = visit(ON_DIGITS, width=390, color_scheme=scheme)
    expect(page.get_by_text(RECIPES["kaggle-raw-pixels"].title)).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(len(RECIPES))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    over = page.evaluate(
        "[...document.querySelectorAll('[data-testid=stMainBlockContainer] *')]"
        ".filter(e => e.getBoundingClientRect().right > 391 && e.getBoundingClientRect().width > 0)"
        ".map(e => e.tagName)"
    )
    assert over == []


def card(page: Page, id: str) -> Locator:
    return page.locator(f".st-key-article-{id}")


def field(page: Page, name: str) -> Locator:
    return page.locator(f".st-key-{name} input").first


def choose(page: Page, name: str, option: str) -> None:
    field(page, name).click()
    page.get_by_role("option", name=option, exact=True).click()
