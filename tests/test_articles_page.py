"""The Articles page in each of its states, without a browser and without an engine."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from mnistlr_core.articles import RECIPES, Recipe, article_configs, seeded, things_to_try
from mnistlr_core.attempts import Attempts
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.data import DatasetState, DatasetStatus
from mnistlr_core.lab import Lab
from mnistlr_core.records import EpochRow, Result, RunState, Speed
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from mnistlr_core.verdicts import Verdict
from pages.parts import form
from tests.pages import claimed, progress, show, text_of, trained

pytestmark = pytest.mark.usefixtures("no_engine")

PAGE = "pages/articles.py"


@pytest.fixture
def mnist_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the page can tell; nothing is trained on it here."""
    ready = DatasetStatus("mnist", DatasetState.READY, "MNIST is ready.")
    monkeypatch.setattr(Lab, "dataset_status", lambda self, name: ready)


def test_a_newcomer_sees_five_articles_and_none_of_them_measured() -> None:
    page = show(PAGE)
    said = text_of(page)
    assert all(recipe.title in said and recipe.teaches in said for recipe in RECIPES.values())
    assert said.count("Not measured yet") == len(RECIPES)
    assert "82 % test accuracy after 3,000 iterations" in said


def test_without_mnist_run_all_waits_for_it() -> None:
    page = show(PAGE)
    assert page.button(key="run_all").disabled
    assert page.button(key="articles_fetch").label == "Fetch MNIST"


@pytest.mark.usefixtures("mnist_is_here")
def test_run_all_asks_for_every_seed_of_every_variant_and_says_how_long(store: Store) -> None:
    linear = parse_config({"learning_rate": 0.001})
    store.record_speed(Speed("somewhere", 1e6, 1e-4))
    page = show(PAGE)
    configs = article_configs(3)
    assert f"{len(configs)} of {len(configs)} runs are missing: about" in text_of(page)
    page.button(key="run_all").click().run()
    assert {run.config for run in store.runs()} == set(configs)
    assert linear not in configs
    assert f"0 of {len(configs)} runs" in text_of(page)
    page.button(key="stop_all").click().run()
    assert {run.state for run in store.runs()} == {RunState.STOPPED}
    assert not page.button(key="run_all").disabled


@pytest.mark.usefixtures("mnist_is_here")
def test_run_all_asks_only_for_what_is_missing(store: Store) -> None:
    finish(store, seeded(RECIPES["sigmoid-output"].config, 3), [0.8, 0.8, 0.8])
    before = {run.id for run in store.runs()}
    page = show(PAGE)
    assert "18 of 21 runs are missing" in text_of(page)
    page.button(key="run_all").click().run()
    assert {run.id for run in store.runs() if run.state is RunState.FINISHED} == before


def test_while_something_runs_there_is_one_bar_and_a_stop(store: Store) -> None:
    claim, attempts = claimed(store, RECIPES["towards-data-science"].config)
    progress(attempts, claim, steps=600)
    page = show(PAGE)
    assert "0 of 21 runs" in text_of(page)
    assert len(page.get("progress")) == 1
    assert "Running" in text_of(page)
    page.button(key="stop_all").click().run()
    assert store.run(claim.run_id).stop_requested


@pytest.mark.parametrize(("value", "verdict"), [(0.82, "holds"), (0.85, "holds roughly"), (0.95, "does not hold")])
def test_a_verdict_comes_from_the_runs_and_stands_beside_its_claim(store: Store, value: float, verdict: str) -> None:
    recipe = RECIPES["towards-data-science"]
    finish(store, seeded(recipe.config, 3), [value] * 3)
    said = text_of(show(PAGE))
    claim = recipe.claims[0].words
    figure = f"{100 * value:.2f} % ± 0.00".replace(" ", "\N{NO-BREAK SPACE}")
    assert f"| {claim} | {figure} |" in said
    assert f"-badge[{verdict}]" in said
    assert f"**{verdict.capitalize()}**. The mean of 3 seeds" in said


def test_fewer_seeds_than_wanted_are_said_and_not_judged(store: Store) -> None:
    finish(store, seeded(RECIPES["towards-data-science"].config, 2), [0.82, 0.83])
    said = text_of(show(PAGE))
    assert "2 of 3 seeds measured so far" in said
    assert "82.50\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.71 (n = 2) |" in said
    assert not any(f"-badge[{verdict}" in said.lower() for verdict in Verdict)


def test_more_seeds_can_be_asked_for(store: Store) -> None:
    finish(store, seeded(RECIPES["towards-data-science"].config, 3), [0.82, 0.82, 0.82])
    page = show(PAGE, articles_seeds="5")
    assert "32 of 35 runs are missing" in text_of(page)
    assert "3 of 5 seeds measured so far" in text_of(page)


def test_the_change_that_makes_the_claim_hold_is_named(store: Store) -> None:
    recipe = RECIPES["sigmoid-mlp"]
    finish(store, seeded(recipe.config, 3), [0.95, 0.95, 0.95])
    finish(store, seeded(recipe.variant(1), 3), [0.9788, 0.9788, 0.9788])
    said = text_of(show(PAGE))
    assert "With plain pixels/255, “97.88 % test accuracy” holds" in said
    assert recipe.variants[0].reason in said


def test_each_claim_stands_by_its_curve(store: Store) -> None:
    recipe = RECIPES["zero-to-gans"]
    finish(store, seeded(recipe.config, 3), [0.81, 0.82, 0.83])
    charts = [json.loads(chart.proto.spec) for chart in show(PAGE).get("plotly_chart")]
    assert len(charts) == len(RECIPES)
    drawn = {trace.get("name"): trace for trace in charts[list(RECIPES).index(recipe.id)]["data"]}
    assert {"Training", "Validation", "Claimed"} <= set(drawn)
    assert drawn["Claimed"]["x"] == [claim.epochs for claim in recipe.claims]


def test_on_digits_everything_is_trained_and_nothing_judged(settings: Settings, store: Store) -> None:
    for config in seeded(RECIPES["towards-data-science"].config.replace(dataset="digits"), 3):
        trained(settings, store, config.model_dump(mode="json"))
    page = show(PAGE, articles_set="Digits 8×8")
    assert not page.button(key="run_all").disabled
    assert "The article's figures are of MNIST" in text_of(page)
    assert not any(f"-badge[{verdict}" in text_of(page).lower() for verdict in Verdict)
    assert "18 of 21 runs are missing" in text_of(page)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_each_thing_to_try_is_a_link_that_fills_the_form(recipe: Recipe) -> None:
    trial = things_to_try(recipe)[1]
    page = show(**form.link(recipe, trial.changes))
    assert page.selectbox(key="recipe").value == recipe.id
    assert page.selectbox(key="learning_rate").value == f"{trial.changes['learning_rate']:g}"
    assert "Differs in **Learning rate**" in text_of(page)


def test_links_lead_to_the_form_to_trials_and_to_the_runs(store: Store) -> None:
    config = RECIPES["towards-data-science"].config
    finish(store, [config], [0.82])
    links = [link.proto.query_string for link in show(PAGE).get("page_link")]
    trials = sum(2 + len(recipe.variants) - 1 + len(things_to_try(recipe)) for recipe in RECIPES.values())
    assert len(links) == trials + 1
    assert f"run={config.short_id}" in links


@pytest.mark.parametrize("value", ["nan", "<script>alert(1)</script>", "x" * 5000, "0"])
def test_whatever_stands_in_a_link_the_page_comes_up(value: str) -> None:
    assert RECIPES["sigmoid-mlp"].teaches in text_of(show(PAGE, articles_seeds=value, articles_set=value))


def test_a_damaged_store_is_said_in_words(settings: Settings, store: Store) -> None:
    show(PAGE)
    store.close()
    (settings.home / "mnistlr.db").write_bytes(b"scribble" * 5000)
    assert "damaged" in text_of(show(PAGE))


def finish(store: Store, configs: Sequence[RunConfig], values: Sequence[float]) -> None:
    """Store runs as finished, each with this accuracy on every split and after every epoch."""
    for config, value in zip(configs, values, strict=True):
        claim, attempts = claimed(store, config)
        rows = [EpochRow(k, 1.0, value, 1.0, value, 1.0, value) for k in range(1, config.epochs + 1)]
        history = [(row, row.epoch, 1.0) for row in rows]
        attempts.progress(claim, step=config.epochs, seconds=1.0, images_per_second=1.0, history=history)
        Attempts(store).finish(claim, RunState.FINISHED, result=Result(1.0, value, 100))
