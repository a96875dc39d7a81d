"""The Train page in each of its states, without a browser and without an engine: the store is written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from mnistlr_core import data, tasks
from mnistlr_core.attempts import Attempts
from mnistlr_core.config import fields, parse_config
from mnistlr_core.data import DatasetState
from mnistlr_core.lab import Lab
from mnistlr_core.records import Claim, Run, RunState
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store

APP = str(Path(__file__).parents[1] / "app.py")
DIGITS = {"dataset": "digits", "epochs": 3, "batch_size": 32, "learning_rate": 0.1}


@pytest.fixture(autouse=True)
def no_engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's lab has this test's home, and starts nothing."""
    monkeypatch.setenv("MNISTLR_HOME", str(settings.home))
    monkeypatch.setenv("MNISTLR_DATA", str(settings.data))
    monkeypatch.setattr("mnistlr_core.engine.Engine.start", lambda self: None)
    monkeypatch.setattr(Lab, "fetching", lambda self, name: False)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = Store(settings.database)
    yield opened
    opened.close()


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


def show(**query: Any) -> AppTest:
    """The app as a link opens it."""
    page = AppTest.from_file(APP, default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = str(value)
    page.run()
    assert not page.exception, page.exception[0].message
    return page


def text_of(page: AppTest) -> str:
    """All that is said on the page, line by line."""
    said = [
        str(getattr(element, "value", ""))
        for kind in ("markdown", "caption", "warning", "error", "info")
        for element in page.get(kind)
    ]
    return "\n".join([*said, *(element.proto.text for element in page.get("progress"))])


def claimed(store: Store, config: Any) -> tuple[Claim, Attempts]:
    attempts = Attempts(store)
    run_id = store.submit(config).run_id
    claim = attempts.claim(run_id, f"{run_id}-1")
    assert claim is not None
    return claim, attempts


def progress(attempts: Attempts, claim: Claim, *, steps: int, first: int = 1) -> None:
    losses = np.linspace(2, 1, steps).astype(np.float32)
    attempts.progress(claim, step=first + steps - 1, seconds=2.0, images_per_second=1000.0, losses=[(first, losses)])


def trained(settings: Settings, store: Store, values: dict[str, Any]) -> Run:
    run_id = store.submit(parse_config(values)).run_id
    tasks.train(settings.model_dump_json(), run_id, f"{run_id}-1")
    return store.run(run_id)
