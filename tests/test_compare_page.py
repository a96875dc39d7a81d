"""The Compare page in each of its states, without a browser and without an engine."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from mnistlr_core.attempts import Attempts
from mnistlr_core.comparison import compare_errors
from mnistlr_core.config import parse_config
from mnistlr_core.lab import Lab
from mnistlr_core.library import Library
from mnistlr_core.records import Run, RunState
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from tests import pages
from tests.factory import fill
from tests.pages import claimed, progress, text_of, trained

pytestmark = pytest.mark.usefixtures("no_engine")

DIGITS = {"dataset": "digits", "epochs": 3, "batch_size": 32, "learning_rate": 0.1}
OTHER = DIGITS | {"learning_rate": 0.003, "architecture": "mlp", "hidden": "16"}


@pytest.fixture
def two(settings: Settings, store: Store) -> list[Run]:
    return [trained(settings, store, values) for values in (DIGITS, OTHER)]


def test_a_newcomer_is_told_what_will_be_here_and_where_to_begin() -> None:
    page = show()
    assert "Nothing has been trained yet" in text_of(page)
    assert len(page.get("page_link")) == 2


def test_the_table_has_a_page_of_the_newest_runs(store: Store) -> None:
    ids = fill(store, 30, epochs=2)
    page = show()
    assert "30 runs. Tick up to 12" in text_of(page)
    assert page.dataframe[0].value["Name"].tolist() == [store.run(run_id).title for run_id in reversed(ids)][:12]
    last = show(cmp_page="3")
    assert len(last.dataframe[0].value) == 6


def test_runs_are_found_sorted_and_filtered(store: Store) -> None:
    ids = fill(store, 40, epochs=2)
    Library(store).edit(ids[7], 0, name="The one", note="")
    assert show(cmp_text="the one").dataframe[0].value["Name"].tolist() == ["The one"]
    assert "No run matches" in text_of(show(cmp_text="nothing like it"))
    slow = show(cmp_sort="Test accuracy").dataframe[0].value["Test accuracy"].tolist()
    assert slow == sorted(slow, reverse=True)
    states = show(cmp_state="Diverged").dataframe[0].value["State"].unique().tolist()
    assert states == ["Diverged"]


def test_groups_have_means_and_spreads(store: Store) -> None:
    fill(store, 420, epochs=2)
    table = show(cmp_group="All but the seed").dataframe[0].value
    assert set(table["Runs"]) == {2}
    assert all("±" in words for words in table["Best validation accuracy"])
    assert len(show(cmp_group="Optimizer").dataframe[0].value) == 3


def test_ticking_rows_picks_runs_and_keeps_those_of_other_pages(store: Store) -> None:
    ids = list(reversed(fill(store, 30, epochs=2)))
    page = show(runs=ids[20])
    tick(page, [0, 2])
    assert page.query_params["runs"] == f"{ids[20]},{ids[0]},{ids[2]}"
    tick(page, [2])
    assert page.query_params["runs"] == f"{ids[20]},{ids[2]}"
    page.button(key="cmp_clear").click().run()
    assert "runs" not in page.query_params


def test_a_link_shows_curves_values_and_errors_of_two_runs(two: list[Run], settings: Settings) -> None:
    page = show(runs=",".join(run.id for run in two))
    said = text_of(page)
    figure = json.loads(page.get("plotly_chart")[0].proto.spec)
    assert any(trace.get("name", "").startswith("A · ") for trace in figure["data"])
    assert "| Learning rate | 0\\.1 | 0\\.003 |" in said
    assert "| Batch size |" not in said
    lab = Lab(settings)
    errors = compare_errors(*(lab.predictions(run) for run in two))
    lab.close()
    assert "McNemar's exact test" in said
    tiles = [data for data in components(page) if "tiles" in data]
    assert len(tiles[0]["tiles"]) == min(48, len(errors.only_a))
    everything = show(runs=",".join(run.id for run in two), cmp_diff="false", cmp_errors="Only B wrong")
    assert "| Batch size | 32 | 32 |" in text_of(everything)


def test_figures_stand_against_the_reference_and_the_best_is_bold(two: list[Run]) -> None:
    first, second = (run.test.accuracy for run in two if run.test)
    best = max(first, second)
    said = text_of(show(runs=",".join(run.id for run in two)))
    (row,) = [line for line in said.splitlines() if line.startswith("| Test accuracy |")]
    assert f"**{100 * best:.2f} %**" in row
    assert f"({100 * (second - first):+.2f})" in row
    other = text_of(show(runs=",".join(run.id for run in two), cmp_reference="Against B"))
    (row,) = [line for line in other.splitlines() if line.startswith("| Test accuracy |")]
    assert f"({100 * (first - second):+.2f})" in row


def test_more_than_two_runs_have_a_matrix_and_seeds_a_mean(settings: Settings, store: Store) -> None:
    runs = [trained(settings, store, DIGITS | {"seed": seed}) for seed in range(2)]
    runs.append(trained(settings, store, OTHER))
    page = show(runs=",".join(run.id for run in runs))
    assert "images are wrong in every run" in text_of(page)
    assert page.toggle(key="cmp_pool").value
    names = [trace.get("name") or "" for trace in json.loads(page.get("plotly_chart")[0].proto.spec)["data"]]
    assert any("2 seeds" in name for name in names)


def test_a_live_run_is_drawn_as_far_as_it_is(store: Store) -> None:
    claim, attempts = claimed(store, parse_config(DIGITS))
    attempts.begin(claim, steps_per_epoch=41, device="CPU, 1 thread", versions={})
    progress(attempts, claim, steps=20)
    page = show(runs=claim.run_id)
    assert "has not finished an epoch" in text_of(page)
    assert len(page.get("plotly_chart")) == 1


def test_stars_tags_and_the_archive_take_all_that_is_picked(store: Store) -> None:
    ids = fill(store, 3, epochs=2)
    page = show(runs=",".join(ids[:2]))
    page.button(key="cmp_star").click().run()
    assert [store.run(run_id).starred for run_id in ids] == [True, True, False]
    assert page.button(key="cmp_star").label == "Take stars away"
    page.button(key="cmp_tag").click().run()
    page.multiselect(key="cmp_add").set_value(["seen"])
    page.button(key="cmp_save_tags").click().run()
    assert Library(store).tags(ids) == {ids[0]: ("seen",), ids[1]: ("seen",), ids[2]: ()}
    page.button(key="cmp_archive").click().run()
    assert {run.id for run in store.runs()} == {ids[2]}
    assert len(show(cmp_archived="true").dataframe[0].value) == 2


def test_delete_lists_what_goes_and_spares_what_is_being_trained(settings: Settings, store: Store) -> None:
    run = trained(settings, store, DIGITS)
    Library(store).edit(run.id, 0, name="**My** run", note="")
    claim, _ = claimed(store, parse_config(OTHER))
    page = show(runs=f"{run.id},{claim.run_id}")
    page.button(key="cmp_delete").click().run()
    assert r"\*\*My\*\* run" in text_of(page)
    assert "Queued or running, and so to stay: MLP 16" in text_of(page)
    page.button(key="cmp_really_delete").click().run()
    assert [one.id for one in store.runs()] == [claim.run_id]
    assert page.query_params["runs"] == claim.run_id


def test_of_two_people_who_edit_the_second_sees_the_firsts_words(store: Store) -> None:
    (run_id,) = fill(store, 1, epochs=2)
    page = show(runs=run_id)
    page.button(key="cmp_edit").click().run()
    page.text_input(key="cmp_name").set_value("mine")
    Library(store).edit(run_id, 0, name="theirs", note="first")
    page.button(key="cmp_save").click().run()
    assert "Their name: theirs\nTheir note: first" in page.session_state["_cmp_refused"]
    assert store.run(run_id).name == "theirs"


@pytest.mark.parametrize(
    "value", ["0123456789ab", ",,,", "<script>alert(1)</script>", "x" * 5000, "٣", "'; drop table runs"]
)
def test_whatever_stands_in_a_link_the_page_comes_up(store: Store, value: str) -> None:
    fill(store, 2, epochs=2)
    keys = ("text", "sort", "group", "figures", "state", "set", "model", "page", "across", "smoothing", "reference")
    said = text_of(show(runs=value, **{f"cmp_{key}": value for key in keys if key != "text"}))
    assert "2 runs" in said or "No run matches" in said


def test_runs_that_failed_or_diverged_can_be_compared(store: Store) -> None:
    claim, attempts = claimed(store, parse_config(DIGITS))
    Attempts(store).finish(claim, RunState.FAILED, error="No memory.")
    other, _ = claimed(store, parse_config(OTHER))
    attempts.finish(other, RunState.DIVERGED, diverged_step=1)
    said = text_of(show(runs=f"{claim.run_id},{other.run_id}"))
    assert "diverged" in said


STATES = {
    "cmp_text": st.sampled_from(["", "adam", "lr 0.1"]),
    "cmp_sort": st.sampled_from(["Newest", "Test accuracy", "Name"]),
    "cmp_group": st.sampled_from(["No groups", "All but the seed", "Learning rate"]),
    "cmp_figures": st.sampled_from(["Best", "Last"]),
    "cmp_across": st.sampled_from(["Epoch", "Step"]),
    "cmp_log_x": st.sampled_from(["true", "false"]),
    "cmp_log_y": st.sampled_from(["true", "false"]),
    "cmp_diff": st.sampled_from(["true", "false"]),
    "cmp_smoothing": st.sampled_from(["0.0", "0.5", "0.95"]),
    "cmp_reference": st.sampled_from(["Against A", "Against B"]),
    "cmp_starred": st.sampled_from(["true", "false"]),
}


@given(st.fixed_dictionaries(STATES))
@hypothesis.settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_state_in_a_link_is_the_pages_state(store: Store, state: dict[str, str]) -> None:
    ids = [run.id for run in store.runs(limit=2)] or fill(store, 2, epochs=2)
    page = show(runs=",".join(ids[:2]), **state)
    for key in ("cmp_log_x", "cmp_log_y", "cmp_diff", "cmp_starred"):
        assert page.toggle(key=key).value == (state[key] == "true")
    assert page.text_input(key="cmp_text").value == state["cmp_text"]
    assert page.slider(key="cmp_smoothing").value == float(state["cmp_smoothing"])
    chosen = {key: page.selectbox(key=key) for key in ("cmp_sort", "cmp_group", "cmp_reference")}
    assert {key: box.format_func(box.value) for key, box in chosen.items()} == {key: state[key] for key in chosen}
    assert page.segmented_control(key="cmp_figures").value == state["cmp_figures"]
    assert page.segmented_control(key="cmp_across").value == state["cmp_across"].lower()
    assert page.query_params["runs"] == ",".join(ids[:2])


def show(**query: Any) -> AppTest:
    return pages.show("pages/compare.py", **query)


def tick(page: AppTest, rows: list[int]) -> None:
    """What a click in the table's first column does."""
    page.session_state["runs"] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    page.run()


def components(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(component.proto.json) for component in page.get("bidi_component")]
