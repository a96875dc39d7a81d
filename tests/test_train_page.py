"""The Train page in each of its states, without a browser and without an engine: the store is written by hand."""

from __future__ import annotations

import json

import pytest

from mnistlr_core import data, tasks
from mnistlr_core.articles import RECIPES, Recipe
from mnistlr_core.config import fields, parse_config
from mnistlr_core.data import DatasetState
from mnistlr_core.links import pack, unpack
from mnistlr_core.records import RunState
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from pages.parts import form
from tests.pages import claimed, progress, show, text_of, trained

pytestmark = pytest.mark.usefixtures("no_engine")

DIGITS = {"dataset": "digits", "epochs": 3, "batch_size": 32, "learning_rate": 0.1}


def test_a_newcomer_sees_what_this_is_and_what_to_press() -> None:
    page = show()
    assert "What happens if I change this?" in text_of(page)
    assert page.button(key="train").disabled is False
    assert not any(button.key == "stop" for button in page.button)


def test_the_form_has_every_field_of_a_configuration() -> None:
    page = show(architecture="mlp", test_watch="steps", momentum="0.9")
    assert [spec.name for spec in fields() if spec.name not in page.session_state] == []


def test_without_mnist_the_form_chooses_digits_and_says_so(settings: Settings) -> None:
    data.write_status(
        "mnist", settings.prepared, DatasetState.FAILED, "MNIST could not be fetched; put its files there."
    )
    page = show()
    assert page.selectbox(key="dataset").value == "digits"
    assert "could not be fetched" in text_of(page)
    assert page.button(key="fetch").label == "Try again"
    page.selectbox(key="dataset").set_value("mnist").run()
    assert page.selectbox(key="dataset").value == "mnist"


def test_before_training_the_page_says_what_it_will_be(settings: Settings, store: Store) -> None:
    assert "New" in text_of(show(**DIGITS))
    submission = store.submit(parse_config(DIGITS))
    assert "Running" in text_of(show(**DIGITS))
    tasks.train(settings.model_dump_json(), submission.run_id, f"{submission.run_id}-1")
    assert "Cached" in text_of(show(**DIGITS))
    assert "New" in text_of(show(**DIGITS | {"epochs": 4}))


def test_train_submits_the_form_and_puts_the_run_into_the_url(store: Store) -> None:
    page = show(**DIGITS)
    page.button(key="train").click().run()
    config = parse_config(DIGITS)
    assert page.query_params["run"] == config.short_id
    assert store.run(config.short_id).config == config
    assert "Queued" in text_of(page)


def test_every_problem_is_said_and_train_is_off() -> None:
    page = show(learning_rate="fast", seed="-1")
    assert "**Learning rate** must be a number" in text_of(page)
    assert "**Seed** must be a whole number" in text_of(page)
    assert page.button(key="train").disabled


@pytest.mark.parametrize("value", ["nan", "1e999", "'; drop table runs", "<script>alert(1)</script>", "٣", "x" * 5000])
def test_whatever_stands_in_a_link_the_page_comes_up(value: str) -> None:
    page = show(**{spec.name: value for spec in fields()}, run=value, grid_page=value, grid_actual=value)
    assert "What happens if I change this?" in text_of(page)


def test_another_optimizer_suggests_its_learning_rate_but_keeps_ones_own() -> None:
    page = show()
    page.segmented_control(key="optimizer").set_value("adam").run()
    assert page.selectbox(key="learning_rate").value == "0.001"
    page = show(learning_rate="0.005")
    page.segmented_control(key="optimizer").set_value("adam").run()
    assert page.selectbox(key="learning_rate").value == "0.005"


def test_a_link_to_a_run_fills_the_form(store: Store) -> None:
    config = parse_config(
        DIGITS | {"architecture": "mlp", "hidden": "30, 20", "optimizer": "adam", "inputs": "symmetric"}
    )
    page = show(run=store.submit(config).run_id)
    assert page.segmented_control(key="architecture").value == "mlp"
    assert page.text_input(key="hidden").value == "30, 20"
    assert page.selectbox(key="inputs").value == "symmetric"
    assert page.selectbox(key="batch_size").value == "32"
    page.button(key="train").click().run()
    assert page.query_params["run"] == config.short_id


def test_a_running_run_shows_progress_curves_and_stop(store: Store) -> None:
    claim, attempts = claimed(store, parse_config(DIGITS))
    attempts.begin(claim, steps_per_epoch=41, device="CPU, 1 thread", versions={})
    page = show(run=claim.run_id)
    assert "Loading the images" in text_of(page)
    progress(attempts, claim, steps=41)
    page = show(run=claim.run_id)
    assert "Epoch 1 of 3 · 1,000 images/s" in text_of(page)
    assert len(page.get("plotly_chart")) == 2
    page.button(key="stop").click().run()
    assert store.run(claim.run_id).stop_requested
    assert page.button(key="stop").label == "Stopping…"
    assert page.button(key="stop").disabled


def test_paused_updates_keep_the_curves_as_they_are(store: Store) -> None:
    claim, attempts = claimed(store, parse_config(DIGITS))
    attempts.begin(claim, steps_per_epoch=41, device="CPU, 1 thread", versions={})
    progress(attempts, claim, steps=20)
    page = show(run=claim.run_id)
    page.toggle(key="paused").set_value(True).run()
    before = [chart.proto.spec for chart in page.get("plotly_chart")]
    progress(attempts, claim, steps=21, first=21)
    page.run()
    assert [chart.proto.spec for chart in page.get("plotly_chart")] == before
    page.toggle(key="paused").set_value(False).run()
    assert [chart.proto.spec for chart in page.get("plotly_chart")] != before


def test_a_finished_run_shows_its_figures_curves_mistakes_and_confusion(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    assert run.test is not None
    page = show(run=run.id)
    assert {metric.label: metric.value for metric in page.metric} | {"Trained in": ""} == {
        "Test accuracy": f"{100 * run.test.accuracy:.2f} %",
        "Test loss": f"{run.test.loss:.4f}",
        "Wrong of 360": str(run.test.errors),
        "Trained in": "",
    }
    charts = page.get("plotly_chart")
    assert len(charts) == 3
    matrix = json.loads(charts[-1].proto.spec)
    assert matrix["data"]
    tiles = "".join(element.proto.body for element in page.get("html"))
    assert tiles.count("<figure") == min(24, run.test.errors)
    assert "read as" in tiles
    assert "Validation accuracy" in text_of(page)
    assert "Most confused" in text_of(page)


def test_damaged_predictions_are_named_with_a_next_step(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    stored = store.artifact(run.id, "predictions")
    assert stored is not None
    path = settings.home / "artifacts" / stored.path
    path.write_bytes(path.read_bytes()[:-9])
    page = show(run=run.id)
    assert "train the run again" in text_of(page)
    assert len(page.metric) == 4


def test_a_diverged_run_says_where_and_offers_a_smaller_rate(settings: Settings, store: Store) -> None:
    run = trained(
        settings, store, DIGITS | {"inputs": "raw", "learning_rate": 100, "momentum": 0.999, "weight_decay": 10}
    )
    assert run.state is RunState.DIVERGED
    page = show(run=run.id)
    assert f"Diverged at step {run.diverged_step}" in text_of(page)
    page.button(key="smaller").click().run()
    assert page.selectbox(key="learning_rate").value == "10"


def test_a_failed_run_says_why_and_what_to_do(store: Store) -> None:
    claim, attempts = claimed(store, parse_config(DIGITS))
    attempts.finish(claim, RunState.FAILED, error="The machine ran out of memory.")
    page = show(run=claim.run_id)
    assert "The machine ran out of memory. Press Train to try again." in text_of(page)


def test_a_stopped_run_says_how_far_it_came(store: Store) -> None:
    claim, attempts = claimed(store, parse_config(DIGITS))
    progress(attempts, claim, steps=20)
    attempts.finish(claim, RunState.STOPPED)
    page = show(run=claim.run_id)
    assert "after 0 of 3 epochs; what was trained is kept. Press Train to go on." in text_of(page)
    assert "Train goes on from its last checkpoint" in text_of(page)


def test_a_link_to_an_unknown_run_says_so_and_lets_one_train() -> None:
    page = show(run="0123456789ab")
    assert "There is no run '0123456789ab' here" in text_of(page)
    assert page.button(key="train").disabled is False


def test_a_damaged_store_is_said_in_words(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    show(run=run.id)
    store.close()
    path = settings.home / "mnistlr.db"
    path.write_bytes(b"scribble" * 5000)
    page = show(run=run.id)
    assert "damaged" in text_of(page)


def test_earlier_runs_are_offered_to_a_newcomer(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    page = show()
    assert "Trained before" in text_of(page)
    (link,) = page.get("page_link")
    assert link.proto.query_string == f"run={run.id}"


def test_a_recipe_fills_the_whole_form_and_every_change_is_named() -> None:
    page = show()
    page.selectbox(key="recipe").set_value("sigmoid-mlp").run()
    assert "Exactly as the article has it" in text_of(page)
    assert "The article says: 97.88 % test accuracy" in text_of(page)
    page.selectbox(key="inputs").set_value("unit").run()
    assert "Differs in **Pixel scaling** [0, 1] (article: [-3, 1])." in text_of(page)
    page.selectbox(key="epochs").set_value("5").run()  # the default of the form, but not of the recipe
    assert "**Epochs** 5 (article: 10)" in text_of(page)
    page.button(key="as_printed").click().run()
    assert "Exactly as the article has it" in text_of(page)
    page.button(key="train").click().run()
    assert page.query_params["run"] == RECIPES["sigmoid-mlp"].config.short_id


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_a_link_to_a_recipe_trains_what_the_article_trains(recipe: Recipe, store: Store) -> None:
    page = show(recipe=recipe.id)
    assert recipe.teaches in text_of(page)
    page.button(key="train").click().run()
    assert store.run(page.query_params["run"]).config == recipe.config


def test_what_a_link_says_besides_the_recipe_wins(store: Store) -> None:
    page = show(**form.link(RECIPES["zero-to-gans"], {"learning_rate": 0.1, "inputs": "standardised", "epochs": 3}))
    page.button(key="train").click().run()
    config = RECIPES["zero-to-gans"].config.replace(learning_rate=0.1, inputs="standardised", epochs=3)
    assert store.run(page.query_params["run"]).config == config


def test_without_the_recipe_the_form_is_as_usual_again() -> None:
    page = show(recipe="kaggle-raw-pixels")
    assert page.selectbox(key="inputs").value == "raw"
    page.selectbox(key="recipe").set_value(None).run()
    assert page.selectbox(key="inputs").value == "unit"
    assert "article" not in text_of(page)


def test_coming_back_by_the_menu_shows_the_run_that_was_left(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    page = show(run=run.id)
    page.switch_page("pages/articles.py").run()
    page.query_params.clear()  # as the menu's links do
    page.switch_page("pages/train.py").run()
    assert "Most confused" in text_of(page)
    assert page.selectbox(key="batch_size").value == "32"


def test_a_link_to_a_run_that_is_not_here_carries_its_values(store: Store) -> None:
    config = parse_config(DIGITS | {"optimizer": "adam", "inputs": "symmetric"})
    page = show(run=config.short_id, **{"with": pack([config])})
    assert "the link carries its values" in text_of(page)
    assert page.selectbox(key="inputs").value == "symmetric"
    page.button(key="train").click().run()
    assert store.run(config.short_id).config == config
    other = show(run="0123456789ab", **{"with": pack([config])})
    assert "There is no run '0123456789ab' here" in text_of(other)


def test_the_share_box_of_a_run_carries_its_values(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    (given,) = (json.loads(component.proto.json) for component in show(run=run.id).get("bidi_component"))
    assert [config.short_id for config in unpack(given["extra"]["with"])] == [run.id]
