"""What is taken away as a table or as JSON, and what may be brought back."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mnistlr_core import export
from mnistlr_core.articles import RECIPES
from mnistlr_core.config import RunConfig, fields, parse_config
from mnistlr_core.errors import ConfigError, Problem
from mnistlr_core.export import MAX_CONFIGS, history_csv, read_configs, run_as_dict, runs_as_dict, runs_csv
from mnistlr_core.records import EpochRow, Evidence, RunState
from tests.evidence import evidence
from tests.test_config import configs, json_values

MLP = parse_config({"architecture": "mlp", "hidden": "64, 32", "optimizer": "adam", "learning_rate": 0.001})


def test_exactly_the_public_names_are_exported() -> None:
    assert export.__all__ == [
        "MAX_CONFIGS",
        "assessment_as_dict",
        "history_csv",
        "read_configs",
        "recipe_as_dict",
        "run_as_dict",
        "runs_as_dict",
        "runs_csv",
    ]


# Tables


def test_the_table_has_a_row_per_run_that_pandas_reads_back() -> None:
    ended = evidence(RunConfig(epochs=2), 0.75, test=0.8246)
    versions = {"torch": "2.15.0", "python": "3.11.7"}
    ended = replace(ended, run=replace(ended.run, versions=versions, name="Mine", note='two\nlines, "quoted"'))
    waiting = replace(evidence(MLP, 0.5).run, state=RunState.QUEUED, test=None, device=None, epoch=0, seconds=0.0)
    table = pd.read_csv(io.StringIO(runs_csv([ended, Evidence(waiting, ())])), dtype={"id": str})
    first, second = table.iloc[0], table.iloc[1]
    assert list(table["id"]) == [ended.run.id, waiting.id]
    assert (first["name"], first["note"], first["state"]) == ("Mine", 'two\nlines, "quoted"', "finished")
    assert (first["best_epoch"], first["best_valid_accuracy"], first["best_valid_loss"]) == (2, 0.75, 1.0)
    assert (first["last_train_accuracy"], first["last_valid_loss"]) == (0.75, 1.0)
    assert (first["test_accuracy"], first["test_loss"], first["test_errors"]) == (0.8246, 1.0, 10)
    assert (first["seconds"], first["device"], first["version_torch"]) == (1.0, "CPU", "2.15.0")
    assert (first["learning_rate"], first["momentum"], first["nesterov"]) == (0.03, 0.0, first["nesterov"])
    assert second["hidden"] == "64, 32"
    assert second[["test_accuracy", "best_epoch", "last_train_loss", "device", "version_torch"]].isna().all()
    assert second[["momentum", "nesterov"]].isna().all()  # Adam has none
    assert {spec.name for spec in fields()} < set(table.columns)
    assert table["output_sigmoid"].dtype == bool


@given(config=configs(), value=st.floats(0, 1))
def test_a_configuration_and_its_figures_survive_the_table(config: RunConfig, value: float) -> None:
    taken = evidence(config.replace(epochs=2), value)
    (row,) = csv.DictReader(io.StringIO(runs_csv([taken]), newline=""))
    given_ = {spec.name: row[spec.name] for spec in fields() if row[spec.name]}
    assert parse_config(given_).digest == taken.run.digest
    assert float(row["best_valid_accuracy"]) == max(value, 0.25)


def test_a_table_of_no_runs_has_its_header() -> None:
    header = runs_csv([])
    assert header == runs_csv([evidence(MLP, 0.5)]).split("\r\n")[0] + "\r\n"
    assert len(set(header.split(","))) == header.count(",") + 1


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_text_that_a_spreadsheet_would_run_is_defused(start: str) -> None:
    taken = evidence(RunConfig(), 0.75)
    formula = f'{start}HYPERLINK("http://x.example")'
    text = runs_csv([replace(taken, run=replace(taken.run, name=formula, device=formula))])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["name"], row["device"]) == (f"'{formula}", f"'{formula}")


@given(st.text() | st.none())
def test_any_text_is_one_cell_that_begins_no_formula(name: str | None) -> None:
    taken = evidence(RunConfig(), 0.75)
    text = runs_csv([replace(taken, run=replace(taken.run, name=name))])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["name"].removeprefix("'") == (name or "").removeprefix("'")
    assert not row["name"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_numbers_stay_numbers() -> None:
    history = (EpochRow(1, -0.5, 1e-9, float("nan"), None, None, None),)
    text = history_csv(replace(evidence(RunConfig(), 0.75), history=history))
    header, row, end = text.split("\r\n")
    assert header == "epoch,train_loss,train_accuracy,valid_loss,valid_accuracy,test_loss,test_accuracy"
    assert (row, end) == ("1,-0.5,1e-09,nan,,,", "")


def test_a_history_is_read_back_by_pandas() -> None:
    taken = evidence(RunConfig(epochs=3), 0.75, early=0.75)
    table = pd.read_csv(io.StringIO(history_csv(taken)))
    assert list(table["epoch"]) == [1, 2, 3]
    assert list(table["valid_accuracy"]) == [row.valid_accuracy for row in taken.history]
    assert table["test_loss"].isna().all()


# JSON there and back


def test_our_own_json_is_read_back() -> None:
    taken = [evidence(config, 0.75) for config in (RunConfig(), MLP, RunConfig(seed=3))]
    wanted = tuple(each.run.config for each in taken)
    assert read_configs(json.dumps(runs_as_dict(taken))) == wanted
    assert read_configs(json.dumps(runs_as_dict(taken)["runs"])) == wanted
    assert read_configs(json.dumps(run_as_dict(taken[1].run, taken[1].history))) == (MLP,)
    assert read_configs(MLP.stored()) == (MLP,)
    assert read_configs("\ufeff" + MLP.model_dump_json()) == (MLP,)


@given(st.lists(configs(), min_size=1, max_size=5))
def test_any_configurations_are_read_back(given_: list[RunConfig]) -> None:
    assert read_configs(json.dumps([config.model_dump(mode="json") for config in given_])) == tuple(given_)
    mixed = [json.loads(config.stored()) for config in given_]
    assert [config.digest for config in read_configs(json.dumps(mixed))] == [config.digest for config in given_]


def test_recipes_may_be_brought() -> None:
    recipes = [export.recipe_as_dict(recipe) for recipe in RECIPES.values()]
    assert read_configs(json.dumps(recipes)) == tuple(recipe.config for recipe in RECIPES.values())


def test_every_problem_of_every_configuration_is_told_with_its_place() -> None:
    given_ = [{}, {"learning_rate": 0, "epochs": "many"}, 5, {"config": {"seed": -1}}, {"config": []}, {"a b\n": 1}]
    with pytest.raises(ConfigError) as caught:
        read_configs(json.dumps(given_))
    whole = "must be an object with the fields of a configuration"
    assert caught.value.problems == (
        Problem("2. learning_rate", "must be a number from 1e-07 to 100", "0"),
        Problem("2. epochs", "must be a whole number from 1 to 1,000", "'many'"),
        Problem("3. configuration", whole, "5"),
        Problem("4. seed", "must be a whole number from 0 to 2,147,483,647", "-1"),
        Problem("5. configuration", whole, "[]"),
        Problem(r"6. 'a b\n'", "is not a field of a configuration; leave it out", "1"),
    )


def test_the_place_is_left_out_where_there_is_one_configuration() -> None:
    assert refusal('{"seed": -1}').field == "seed"
    assert refusal('"mnist"') == Problem(
        "configuration", "must be an object with the fields of a configuration", '"mnist"'
    )


@pytest.mark.parametrize(
    ("text", "rule", "got"),
    [
        ("", "must be JSON", "Expecting value in line 1, column 1"),
        ("{'seed': 1}", "must be JSON", "Expecting property name enclosed in double quotes in line 1, column 2"),
        ('[{"seed": 1},\n', "must be JSON", "Expecting value in line 2, column 1"),
        ('{"learning_rate": NaN}', "must be JSON, whose numbers are finite", "NaN"),
        ('{"learning_rate": -Infinity}', "must be JSON, whose numbers are finite", "-Infinity"),
        ('{"seed": 1, "seed": 2}', "must have each key once in an object", "seed twice"),
        ('{"\\ud800": 1, "\\ud800": 2}', "must have each key once in an object", r"'\ud800' twice"),
        (
            '{"seed": ' + "9" * 5000 + "}",
            "must be JSON with numbers that can be read",
            "a number of thousands of digits",
        ),
        ("[" * 10**6, "must not be nested so deeply", "more levels than can be read"),
        ('{"a":' * 10**5, "must not be nested so deeply", "more levels than can be read"),
        ("[]", "must be 1 to 1,000 of them", "0"),
        ('{"runs": []}', "must be 1 to 1,000 of them", "0"),
        (json.dumps([{}] * 1001), "must be 1 to 1,000 of them", "1,001"),
        (" " * 20_000_001, "must have at most 20,000,000 characters", "20,000,001"),
    ],
    ids=lambda value: None if len(value) > 40 else value,
)
def test_what_is_no_configuration_is_refused_in_words(text: str, rule: str, got: str) -> None:
    assert refusal(text) == Problem("configurations", rule, got)


def test_as_many_as_are_allowed_are_read() -> None:
    assert len(read_configs(json.dumps([{"seed": seed} for seed in range(MAX_CONFIGS)]))) == MAX_CONFIGS


def test_nesting_just_short_of_too_deep_is_refused_in_words() -> None:
    for depth in range(100, sys.getrecursionlimit() + 100, 50):
        for text in ("[" * depth + "]" * depth, '{"seed":' * depth + "1" + "}" * depth, '{"config":' * depth):
            refusal(text)


def test_a_number_too_large_for_a_float_is_refused_by_its_fields_rule() -> None:
    assert refusal('[{"learning_rate": 1e999}]') == Problem(
        "1. learning_rate", "must be a number from 1e-07 to 100", "inf"
    )


@given(json_values | st.lists(json_values) | st.dictionaries(st.sampled_from(["config", "runs", "seed"]), json_values))
@example({"runs": {"config": {}}})
@example([{"config": {"config": {}}}])
def test_any_json_is_configurations_or_problems_fit_to_print(value: Any) -> None:
    refused_or_read(json.dumps(value))


@given(st.text() | st.text('{}[]",:0.e-"seednulltrue \\u\n'))
def test_any_text_is_configurations_or_problems_fit_to_print(text: str) -> None:
    refused_or_read(text)


def refused_or_read(text: str) -> None:
    found: tuple[RunConfig, ...] = ()
    problems: tuple[Problem, ...] = ()
    try:
        found = read_configs(text)
    except ConfigError as error:
        problems = error.problems
    assert bool(found) != bool(problems)
    assert all(isinstance(config, RunConfig) for config in found)
    for problem in map(str, problems):
        assert len(problem.encode()) < 500
        assert "\n" not in problem


def refusal(text: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        read_configs(text)
    (problem, *_) = caught.value.problems
    return problem
