"""Runs as people keep them: found by any of their words, kept by many hands, in a store of thousands."""

from __future__ import annotations

import sqlite3
import statistics
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistlr_core import library as module
from mnistlr_core import schema
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.errors import EditConflict, EditRefused, RunNotFound
from mnistlr_core.library import FAMILY, MOST_TAGS, NAME_LENGTH, NOTE_LENGTH, TAG_LENGTH, Library, RunQuery, Sort
from mnistlr_core.records import RunState
from mnistlr_core.store import COLOURS, Store
from tests.factory import fill

RUNS = 420  # two seeds of each combination


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that tests only read."""
    opened = Store(f"sqlite:///{tmp_path_factory.mktemp('many') / 'store.db'}")
    fill(opened, RUNS, epochs=3)
    yield opened
    opened.close()


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'store.db'}")
    fill(opened, 4, epochs=2)
    yield opened
    opened.close()


@pytest.fixture
def ids(few: Store) -> list[str]:
    return [run.id for run in few.runs()]


def test_exactly_the_public_names_are_exported() -> None:
    assert module.__all__ == ["FAMILY", "GroupRow", "Library", "Listed", "Listing", "RunQuery", "Sort"]


# Finding --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("descending", [True, False])
def test_pages_hold_every_run_once_in_order(many: Store, sort: Sort, descending: bool) -> None:
    library, query = Library(many), RunQuery(sort=sort, descending=descending)
    pages = [library.list(query, limit=50, offset=offset) for offset in range(0, RUNS, 50)]
    rows = [row for page in pages for row in page.rows]
    assert {page.total for page in pages} == {RUNS}
    assert len({row.run.id for row in rows}) == len(rows) == RUNS
    values = [value_of(sort, row) for row in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=descending)
    assert all(value is None for value in values[len(known) :])  # what is unknown comes last, either way


def value_of(sort: Sort, row: module.Listed) -> Any:
    run = row.run
    return {
        Sort.CREATED: run.created_at,
        Sort.NAME: run.name or run.config.stored(),
        Sort.STATE: run.state.value,
        Sort.BEST_ACCURACY: row.accuracy(best=True),
        Sort.LAST_ACCURACY: row.accuracy(best=False),
        Sort.BEST_LOSS: row.loss(best=True),
        Sort.LAST_LOSS: row.loss(best=False),
        Sort.TEST_ACCURACY: run.test.accuracy if run.test else None,
        Sort.SECONDS: run.seconds,
    }[sort]


@given(
    st.lists(st.sampled_from(RunState), unique=True, max_size=3),
    st.lists(st.sampled_from(["linear", "mlp"]), unique=True, max_size=1),
    st.lists(st.sampled_from(["sgd", "adam", "adagrad"]), unique=True, max_size=2),
)
@settings(max_examples=25)
def test_a_filter_finds_what_a_loop_over_all_runs_finds(
    many: Store, states: list[RunState], architectures: list[str], optimizers: list[str]
) -> None:
    query = RunQuery(states=tuple(states), architectures=tuple(architectures), optimizers=tuple(optimizers))
    expected = {
        run.id
        for run in many.runs(limit=RUNS)
        if (not states or run.state in states)
        and (not architectures or run.config.architecture in architectures)
        and (not optimizers or run.config.optimizer in optimizers)
    }
    found = Library(many).list(query, limit=RUNS)
    assert {row.run.id for row in found.rows} == expected
    assert found.total == len(expected)


def test_text_is_looked_for_in_words_tags_ids_and_values(few: Store, ids: list[str]) -> None:
    library = Library(few)
    library.edit(ids[0], 0, name="My 50% run", note="slow_start")
    library.tag([ids[1]], add=["Baseline"])
    assert found(library, "my 50%") == {ids[0]}
    assert found(library, "SLOW_") == {ids[0]}
    assert found(library, "w_s") == {ids[0]}
    assert found(library, "sl%wstart") == set()
    assert found(library, "baseline") == {ids[1]}
    assert found(library, ids[2][:9]) == {ids[2]}
    assert found(library, "mlp 0.001") == {run.id for run in few.runs() if run.config.architecture == "mlp"}
    assert found(library, "no such words") == set()
    assert found(library, "") == set(ids)


@given(st.text(max_size=40))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_breaks_the_search(many: Store, text: str) -> None:
    assert Library(many).list(RunQuery(text=text)).total <= RUNS


def test_of_ten_thousand_runs_only_a_page_is_in_memory(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    fill(store, 10_000)
    library = Library(store)
    library.list(RunQuery())  # what is loaded once doesn't count
    tracemalloc.start()
    for sort in (Sort.CREATED, Sort.BEST_ACCURACY):
        assert library.list(RunQuery(sort=sort), offset=5000).total == 10_000
        assert len(library.groups(RunQuery(), FAMILY)) == 25
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    store.close()
    assert peak < 3_000_000  # the configurations alone are 4 MB of text


def test_groups_have_the_means_and_spreads_of_their_runs(many: Store) -> None:
    library = Library(many)
    for group in library.groups(RunQuery(states=(RunState.FINISHED,)), "optimizer"):
        rows = [
            row
            for row in library.list(RunQuery(states=(RunState.FINISHED,)), limit=RUNS).rows
            if row.run.config.optimizer == group.value
        ]
        accuracies = [value for row in rows if (value := row.accuracy(best=True)) is not None]
        assert group.n == len(rows)
        assert group.accuracy is not None
        assert group.accuracy.mean == pytest.approx(statistics.fmean(accuracies))
        assert group.accuracy.spread == pytest.approx(statistics.stdev(accuracies))
        assert group.test_accuracy is not None
        newest = sorted(rows, key=lambda row: -row.run.created_at)[: module.GROUP_RUNS]
        assert group.newest == tuple(row.run.id for row in newest)


def test_all_but_the_seed_is_a_group_of_every_seed(many: Store) -> None:
    groups = Library(many).groups(RunQuery(), FAMILY, limit=RUNS)
    assert [group.n for group in groups] == [2] * (RUNS // 2)
    for group in groups[:20]:
        first, second = (many.run(run_id).config for run_id in group.newest)
        assert first.replace(seed=0) == second.replace(seed=0)
        assert first.seed != second.seed


def test_runs_that_do_not_use_a_field_are_a_group_too(many: Store) -> None:
    groups = {group.value: group.n for group in Library(many).groups(RunQuery(), "hidden")}
    assert groups == {"[512,128]": RUNS // 2, None: RUNS // 2}


def test_only_fields_can_be_grouped_by(many: Store) -> None:
    with pytest.raises(ValueError, match="a configuration's field"):
        Library(many).groups(RunQuery(), "id'; drop table runs; --")


# Keeping --------------------------------------------------------------------------------------------------------------


def test_name_and_note_are_kept_and_an_empty_name_is_the_label_again(few: Store, ids: list[str]) -> None:
    library = Library(few)
    library.edit(ids[0], 0, name="  My  run ", note=" a note\nof two lines ")
    run = few.run(ids[0])
    assert (run.name, run.title, run.note, run.revision) == ("My run", "My run", "a note\nof two lines", 1)
    library.edit(ids[0], 1, name="", note="")
    run = few.run(ids[0])
    assert (run.name, run.title, run.note) == (None, run.config.label, "")


def test_of_two_edits_at_once_the_second_is_refused_and_loses_nothing(few: Store, ids: list[str]) -> None:
    library = Library(few)
    library.edit(ids[0], 0, name="mine", note="")
    with pytest.raises(EditConflict, match="somebody else"):
        library.edit(ids[0], 0, name="theirs", note="")
    assert few.run(ids[0]).name == "mine"
    library.star([ids[0]], on=True)  # what isn't text doesn't get into anybody's way
    library.edit(ids[0], 1, name="theirs", note="")
    assert (few.run(ids[0]).name, few.run(ids[0]).starred) == ("theirs", True)
    with pytest.raises(RunNotFound):
        library.edit("0123456789ab", 0, name="", note="")


def test_stars_and_the_archive_take_many_at_once(few: Store, ids: list[str]) -> None:
    library = Library(few)
    library.star(ids[:2], on=True)
    assert {row.run.id for row in library.list(RunQuery(starred=True)).rows} == set(ids[:2])
    library.archive(ids[1:3], on=True)
    assert {run.id for run in few.runs()} == {ids[0], ids[3]}
    assert found(library, "") == {ids[0], ids[3]}
    assert {row.run.id for row in library.list(RunQuery(archived=True)).rows} == set(ids[1:3])
    library.archive(ids, on=False)
    assert found(library, "") == set(ids)
    assert few.preview(few.run(ids[0]).config) == "cached"


def test_tags_are_added_and_taken_away_for_many_at_once(few: Store, ids: list[str]) -> None:
    library = Library(few)
    library.tag(ids[:2], add=[" big  batch ", "old", ""])
    library.tag(ids[1:3], add=["old"], remove=["big batch", "never there"])
    assert library.tags(ids[:3]) == {ids[0]: ("big batch", "old"), ids[1]: ("old",), ids[2]: ("old",)}
    assert library.all_tags() == ("big batch", "old")
    both = library.list(RunQuery(tags=("big batch", "old")))
    assert [row.run.id for row in both.rows] == [ids[0]]
    assert both.rows[0].tags == ("big batch", "old")
    few.delete(ids[0])
    assert library.all_tags() == ("old",)


def test_words_that_break_a_rule_are_refused_and_nothing_is_written(few: Store, ids: list[str]) -> None:
    library = Library(few)
    for name, note in (("x" * (NAME_LENGTH + 1), ""), ("a\x07", ""), ("", "x" * (NOTE_LENGTH + 1)), ("", "\0")):
        with pytest.raises(EditRefused):
            library.edit(ids[0], 0, name=name, note=note)
    with pytest.raises(EditRefused, match=f"at most {TAG_LENGTH}"):
        library.tag([ids[0]], add=["good", "x" * (TAG_LENGTH + 1)])
    with pytest.raises(EditRefused, match=f"at most {MOST_TAGS} tags"):
        library.tag(ids, add=[f"tag {k}" for k in range(MOST_TAGS + 1)])
    assert library.all_tags() == ()
    assert few.run(ids[0]).revision == 0


# The layout -----------------------------------------------------------------------------------------------------------


def test_consecutive_runs_have_different_colours(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    colours = [store.run(store.submit(RunConfig(seed=seed)).run_id).colour for seed in range(COLOURS + 1)]
    assert colours == [*range(COLOURS), 0]
    store.close()


def test_a_store_of_the_first_layout_gets_all_that_a_new_one_has(tmp_path: Path) -> None:
    """Made from a new store by taking away what layout 2 brought."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    old = Store(url)
    ids = fill(old, 12, epochs=2)
    fresh = [(old.run(run_id).colour, old.run(run_id).family) for run_id in ids]
    layout = layout_of(tmp_path / "store.db")
    old.close()
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute("drop table tags")
    connection.execute("drop index ix_runs_family")
    for column in ("name", "note", "starred", "archived", "revision", "colour", "family"):
        connection.execute(f"alter table runs drop column {column}")
    connection.execute("update mnistlr_schema set version = 1")
    connection.commit()
    connection.close()
    upgraded = Store(url)
    assert layout_of(tmp_path / "store.db") == layout
    assert [(upgraded.run(run_id).colour, upgraded.run(run_id).family) for run_id in ids] == fresh
    Library(upgraded).tag(ids, add=["kept"])
    assert len(Library(upgraded).list(RunQuery(tags=("kept",))).rows) == 12
    upgraded.close()


def layout_of(path: Path) -> dict[str, set[str]]:
    """Every table's columns (name, type, not null, default, place in the primary key) and indexes, as text."""
    connection = sqlite3.connect(path)
    found: dict[str, set[str]] = {}
    for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
        columns = connection.execute(f"pragma table_info({table})").fetchall()
        indexes = connection.execute(f"pragma index_list({table})").fetchall()
        said = [str(column[1:]).upper().replace("FALSE", "0") for column in columns]
        found[table] = {*said, *(index[1] for index in indexes)}
    connection.close()
    return found


def test_a_field_is_read_from_the_stored_configuration(few: Store) -> None:
    config = parse_config({"hidden": "30, 20", "architecture": "mlp"})
    few.submit(config)
    field = schema.config_field(schema.runs.c.config, sa.literal_column("'hidden'"))
    with few.reading() as db:
        assert db.execute(sa.select(field).where(schema.runs.c.id == config.short_id)).scalar_one() == "[30,20]"


def found(library: Library, text: str) -> set[str]:
    return {row.run.id for row in library.list(RunQuery(text=text)).rows}
