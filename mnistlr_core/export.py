"""Runs, recipes and verdicts as something to take away: the JSON objects that scripts rely on, and tables as CSV.

And what may be brought: configurations as JSON, ours or written by hand.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from dataclasses import fields as columns_of
from typing import Any, NoReturn

from mnistlr_core.articles import Claimed, Recipe
from mnistlr_core.config import RunConfig, fields, parse_config
from mnistlr_core.errors import ConfigError, Problem
from mnistlr_core.records import EpochRow, Evidence, Run, best_epoch
from mnistlr_core.sentences import verdict_sentence
from mnistlr_core.verdicts import Assessment, Check

__all__ = [
    "MAX_CONFIGS",
    "assessment_as_dict",
    "history_csv",
    "read_configs",
    "recipe_as_dict",
    "run_as_dict",
    "runs_as_dict",
    "runs_csv",
]

MAX_CONFIGS = 1000
"""As many configurations may be brought at once: a slip in a script must not fill the queue."""

_MAX_CHARACTERS = 20_000_000
"""Of a text that is read: a thousand runs with long histories have two million."""


def run_as_dict(run: Run, history: Sequence[EpochRow], *, cached: bool = False) -> dict[str, Any]:
    """The command line's contract: JSON values only, and null for every figure that is absent.

    `best` is the epoch with the highest validation accuracy; without a validation share there is none. `config` holds
    every field, also those that this configuration does not use.
    """
    best = best_epoch(tuple(history))
    return {
        "id": run.id,
        "digest": run.digest,
        "state": run.state.value,
        "cached": cached,
        "config": run.config.model_dump(mode="json"),
        "history": [asdict(row) for row in history],
        "best": asdict(best) if best else None,
        "test": asdict(run.test) if run.test else None,
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "device": run.device,
        "attempts": run.attempts,
        "diverged_step": run.diverged_step,
        "error": run.error,
    }


def recipe_as_dict(recipe: Recipe) -> dict[str, Any]:
    """An article: its whole configuration, its claims, its variants' changes with the claims that they are held to."""
    return {
        "id": recipe.id,
        "title": recipe.title,
        "teaches": recipe.teaches,
        "config": recipe.config.model_dump(mode="json"),
        "claims": [_claim(claim) for claim in recipe.claims],
        "variants": [
            {"title": v.title, "changes": dict(v.changes), "claims": [_claim(claim) for claim in v.claims]}
            for v in recipe.variants
        ],
    }


def assessment_as_dict(assessment: Assessment) -> dict[str, Any]:
    """An article's verdict, and each claim's mean, spread (sample standard deviation) and n; null where unknown."""
    recipe = assessment.recipe
    return {
        "id": recipe.id,
        "verdict": assessment.verdict.value if assessment.verdict else None,
        "sentence": verdict_sentence(assessment),
        "seeds": [evidence.run.config.seed for evidence in assessment.runs[0]],
        "test_accuracy": [evidence.run.test.accuracy if evidence.run.test else None for evidence in assessment.runs[0]],
        "claims": [_check(check) for check in assessment.checks[0]],
        "variants": [
            {"title": variant.title, "changes": dict(variant.changes), "claims": [_check(check) for check in checks]}
            for variant, checks in zip(recipe.variants, assessment.checks[1:], strict=False)
        ],
    }


def _claim(claim: Claimed) -> dict[str, Any]:
    return {**asdict(claim), "relation": claim.relation.value}


def _check(check: Check) -> dict[str, Any]:
    found = asdict(check.measured) if check.measured else {"mean": None, "spread": None, "n": 0}
    return _claim(check.claim) | found | {"verdict": check.verdict.value if check.verdict else None}


# Tables ---------------------------------------------------------------------------------------------------------------


def runs_as_dict(runs: Sequence[Evidence]) -> dict[str, Any]:
    """Several runs as one JSON object, each as `run_as_dict` has it; `read_configs` reads it."""
    return {"runs": [run_as_dict(evidence.run, evidence.history) for evidence in runs]}


def runs_csv(runs: Sequence[Evidence]) -> str:
    """A row per run, as RFC 4180 has it: what it is, how it ended, its best and its last epoch, where it was trained.

    A cell is empty where nothing was measured, and where a run doesn't use that field of its configuration.
    """
    groups = {"": _RUN, "best_": _BEST, "last_": _LAST, "test_": _TEST, "version_": _VERSIONS}
    named = [f"{group}{name}" for group, names in groups.items() for name in names]
    return _csv([*named, *(spec.name for spec in fields())], map(_run_row, runs))


def history_csv(evidence: Evidence) -> str:
    """A row per epoch, as RFC 4180 has it. Losses in nats, accuracies in 0..1."""
    return _csv([column.name for column in columns_of(EpochRow)], (astuple(row) for row in evidence.history))


_RUN = ("id", "name", "note", "state", "epoch", "step", "diverged_step", "seconds", "device")
_BEST = ("epoch", "valid_accuracy", "valid_loss")
_LAST = ("train_accuracy", "train_loss", "valid_accuracy", "valid_loss")
_TEST = ("accuracy", "loss", "errors")
_VERSIONS = ("mnistlr", "python", "torch", "numpy")


def _run_row(evidence: Evidence) -> list[Any]:
    run, history, config = evidence.run, evidence.history, evidence.run.config.canonical()
    parts = ((run, _RUN), (best_epoch(history), _BEST), (history[-1] if history else None, _LAST), (run.test, _TEST))
    figures = [getattr(part, name, None) for part, names in parts for name in names]
    return [*figures, *map(run.versions.get, _VERSIONS), *(config.get(spec.name) for spec in fields())]


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)  # its defaults are RFC 4180: commas, CRLF, quotes where they are needed
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before a text that begins like one."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(map(str, value))
        case str() if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
            return f"'{value}"
        case _:
            return value


# What is brought ------------------------------------------------------------------------------------------------------


def read_configs(text: str) -> tuple[RunConfig, ...]:
    """The configurations in a JSON text: one, a list of them, or what `runs_as_dict` and `run_as_dict` give.

    A run's object is read for its `config` alone. Duplicates and the order stay as they are.

    Raises:
        ConfigError: with every problem of every configuration, named with its place in the list: `3. learning_rate`.
    """
    try:
        return _checked(_items(_parsed(text)))
    except RecursionError:
        _refuse("must not be nested so deeply", "more levels than can be read")


def _parsed(text: str) -> Any:
    if len(text) > _MAX_CHARACTERS:
        _refuse(f"must have at most {_MAX_CHARACTERS:,} characters", f"{len(text):,}")
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        _refuse("must be JSON", f"{error.msg} in line {error.lineno}, column {error.colno}")
    except ValueError:  # Python reads no integers of more than 4,300 digits
        _refuse("must be JSON with numbers that can be read", "a number of thousands of digits")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            _refuse("must have each key once in an object", f"{_named(key)} twice")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    _refuse("must be JSON, whose numbers are finite", name)


def _items(found: Any) -> list[tuple[str, Any]]:
    """What may be configurations, each with the words that say where it is."""
    if isinstance(found, dict) and isinstance(found.get("runs"), list):
        found = found["runs"]
    if not isinstance(found, list):
        return [("", found)]
    if not 1 <= len(found) <= MAX_CONFIGS:
        _refuse(f"must be 1 to {MAX_CONFIGS:,} of them", f"{len(found):,}")
    return [(f"{place}. ", item) for place, item in enumerate(found, 1)]


def _checked(items: Sequence[tuple[str, Any]]) -> tuple[RunConfig, ...]:
    configs: list[RunConfig] = []
    problems: list[Problem] = []
    for where, item in items:
        values = item.get("config", item) if isinstance(item, dict) else item
        if not isinstance(values, dict):
            rule = "must be an object with the fields of a configuration"
            problems.append(Problem(f"{where}configuration", rule, json.dumps(values)[:60]))
            continue
        try:
            configs.append(parse_config(values))
        except ConfigError as error:
            problems += [Problem(f"{where}{_named(p.field)}", p.rule, p.value) for p in error.problems]
    if problems:
        raise ConfigError(tuple(problems))
    return tuple(configs)


def _refuse(rule: str, got: str) -> NoReturn:
    raise ConfigError((Problem("configurations", rule, got),))


def _named(key: str) -> str:
    """A key of somebody's JSON, short and fit to be printed."""
    return key if key.isidentifier() and key.isascii() and len(key) <= 40 else ascii(key[:40])
