"""What a run is: one digest for every spelling, every problem at once and in words, limits that mean what they say."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mnistlr_core import config as config_module
from mnistlr_core.config import (
    CONFIG_VERSION,
    NUMERICS_VERSION,
    Architecture,
    Inputs,
    Optimizer,
    RunConfig,
    Spec,
    fields,
    parse_config,
)
from mnistlr_core.errors import ConfigError, MnistlrError, Problem

FIELDS = {spec.name: spec for spec in fields()}

# Every field is used: nothing of this configuration is left out of its canonical form.
FULL: dict[str, Any] = {
    "dataset": "mnist",
    "inputs": "unit",
    "architecture": "mlp",
    "hidden": [512, 128],
    "output_sigmoid": False,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.001,
    "batch_size": 64,
    "epochs": 10,
    "valid_fraction": 0.2,
    "train_fraction": 0.5,
    "test_watch": "steps",
    "test_watch_steps": 500,
    "seed": 7,
}

OTHER: dict[str, Any] = {
    "dataset": "kmnist",
    "inputs": "raw",
    "architecture": "linear",
    "hidden": [128, 512],
    "output_sigmoid": True,
    "optimizer": "adam",
    "learning_rate": 0.1000001,
    "momentum": 0.95,
    "nesterov": True,
    "weight_decay": 0.0,
    "batch_size": 65,
    "epochs": 11,
    "valid_fraction": 0.0,
    "train_fraction": 1.0,
    "test_watch": "epoch",
    "test_watch_steps": 501,
    "seed": 8,
}


def test_exactly_the_public_names_are_exported() -> None:
    assert config_module.__all__ == [
        "CONFIG_VERSION",
        "NUMERICS_VERSION",
        "Architecture",
        "Inputs",
        "Optimizer",
        "RunConfig",
        "Spec",
        "TestWatch",
        "fields",
        "parse_config",
    ]


def test_the_defaults_are_a_valid_configuration() -> None:
    assert parse_config({}) == RunConfig()
    assert parse_config(RunConfig().model_dump()) == RunConfig()
    assert {name: spec.default for name, spec in FIELDS.items()} == RunConfig().model_dump()


# Problems


def test_every_problem_is_reported_at_once_with_its_field_rule_and_value() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(
            {
                "dataset": "imagenet",
                "hidden": "0",
                "learning_rate": 0,
                "nesterov": "maybe",
                "batch_size": 2.5,
                "colour": "red",
            }
        )
    assert set(caught.value.problems) == {
        Problem("dataset", "must be one of mnist, fashion-mnist, kmnist, cifar10, digits", "'imagenet'"),
        Problem("hidden", "must be one to four whole numbers from 1 to 4096, for example 512, 128", "'0'"),
        Problem("learning_rate", "must be a number from 1e-07 to 100", "0"),
        Problem("nesterov", "must be true or false", "'maybe'"),
        Problem("batch_size", "must be a whole number from 1 to 60,000", "2.5"),
        Problem("colour", "is not a field of a configuration; leave it out", "'red'"),
    }
    assert "batch_size: must be a whole number from 1 to 60,000; got 2.5" in str(caught.value).splitlines()


def test_a_configuration_that_breaks_every_field_names_every_field() -> None:
    assert {problem.field for problem in problems_of(dict.fromkeys(FIELDS))} == set(FIELDS)


def test_hidden_sizes_that_are_wrong_in_several_ways_are_one_problem() -> None:
    for value in ([0, 5000, "x"], "0, 5000", [None, None], [512.5], ["x"], "x"):
        assert [problem.field for problem in problems_of({"hidden": value})] == ["hidden"], value


@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_value_of_a_field_is_refused_in_words(field: str) -> None:
    for value in refused_values(field):
        (problem, *_) = problems_of({field: value})
        assert problem.field == field
        assert problem.rule
        assert len(problem.value) <= 80
        assert not any(word in problem.rule for word in ("pydantic", "Error", "Input", "sys."))


def test_an_integer_too_long_to_print_is_refused_in_words() -> None:
    unprintable = 10 ** (sys.get_int_max_str_digits() + 100)
    for field in (*FIELDS, "warp", "config_version"):
        for value in (unprintable, -unprintable, [unprintable]):
            assert {problem.field for problem in problems_of({field: value})} == {field}


def test_a_number_out_of_range_is_refused_by_the_fields_own_rule_however_large() -> None:
    for value in (1001, 10**18, 2**63, 10**30, 1e30, "1e30", "9" * 30):
        (problem,) = problems_of({"epochs": value})
        assert problem.rule == "must be a whole number from 1 to 1,000", value


def test_digits_beyond_what_python_reads_are_refused_by_the_fields_own_rule() -> None:
    (problem, *_) = problems_of({"hidden": "9" * (sys.get_int_max_str_digits() + 100)})
    assert problem.rule == "must be one to four whole numbers from 1 to 4096, for example 512, 128"


def test_a_long_value_is_shortened_in_the_message() -> None:
    (problem,) = problems_of({"dataset": "x" * 10_000})
    assert len(problem.value) <= 80
    assert problem.value.endswith("…")


def test_an_unknown_field_is_refused_even_where_its_name_is_one_of_the_programs() -> None:
    for name in ("model_config", "digest", "label", "learning-rate", "__class__", "", "Epochs"):
        assert [problem.field for problem in problems_of({name: 1})] == [name]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(st.characters())
    | st.text("0123456789+-.eE_x, ٣", max_size=8)
    | st.sampled_from(["true", "no", "mlp", "adam", "raw", "steps", "mnist", "512x128", "1e0", "-0.0"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=600)
@given(
    st.dictionaries(st.sampled_from([*FIELDS, "config_version"]) | st.text(st.characters(), max_size=9), json_values)
)
@example({"config_version": {}, "epochs": None})
@example({"\ud800": "\ud800", "hidden": "\ud800"})
def test_any_json_is_a_configuration_within_its_limits_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        config = parse_config(values)
    except ConfigError:
        assert all(problem.rule and problem.value for problem in problems_of(values))
        return
    assert set(values) <= {*FIELDS, "config_version"}
    for name, spec in FIELDS.items():
        assert within(spec, getattr(config, name)), name
    assert parse_config(json.loads(config.stored())).digest == config.digest


def test_a_config_error_is_one_of_the_programs_own_errors() -> None:
    assert issubclass(ConfigError, MnistlrError)


# One digest


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "epochs", "batch_size", "test_watch_steps", "seed"])
def test_a_number_has_one_digest_in_every_spelling(field: str) -> None:
    spellings = (1, 1.0, "1", "1.0", "1e0", "+1", " 1 ", "01", "10e-1")
    assert {parse_config({**FULL, field: value}).digest for value in spellings} == {digest_of({**FULL, field: 1})}


@pytest.mark.parametrize("field", ["momentum", "weight_decay", "valid_fraction", "seed"])
def test_zero_has_one_digest_in_every_spelling(field: str) -> None:
    spellings = (0, 0.0, -0.0, "0", "-0", "-0.0", "0e9")
    assert {parse_config({**FULL, field: value}).digest for value in spellings} == {digest_of({**FULL, field: 0})}
    assert math.copysign(1, getattr(parse_config({**FULL, field: -0.0}), field)) == 1


def test_a_small_number_has_one_digest_in_every_spelling() -> None:
    spellings = (0.001, 1e-3, "0.001", "1e-3", "1E-03", ".001", "0.00100")
    assert {parse_config({**FULL, "learning_rate": value}).digest for value in spellings} == {
        digest_of({**FULL, "learning_rate": 0.001})
    }


@pytest.mark.parametrize("value", [[512, 128], (512, 128), "512, 128", "512,128", "512x128", "512 128", " 512 ,128,"])
def test_hidden_sizes_have_one_digest_in_every_spelling(value: object) -> None:
    assert digest_of({**FULL, "hidden": value}) == digest_of(FULL)


@pytest.mark.parametrize(("text", "flag"), [("true", True), ("False", False), ("1", True), ("0", False), ("YES", True)])
def test_a_flag_may_come_as_text(text: str, flag: bool) -> None:
    assert parse_config({"output_sigmoid": text}).output_sigmoid is flag


def test_members_and_their_values_are_the_same_configuration() -> None:
    members = {
        "inputs": Inputs.UNIT,
        "architecture": Architecture.MLP,
        "optimizer": Optimizer.SGD,
        "test_watch": config_module.TestWatch.STEPS,
    }
    assert parse_config({**FULL, **members}) == parse_config(FULL)
    assert RunConfig(**{**FULL, **members, "hidden": (512, 128)}).digest == digest_of(FULL)


def test_the_order_of_the_keys_does_not_matter() -> None:
    assert digest_of(dict(reversed(FULL.items()))) == digest_of(FULL)


@pytest.mark.parametrize(
    "unused",
    [
        {"optimizer": "adam", "momentum": 0.5},
        {"optimizer": "adam", "nesterov": True},
        {"optimizer": "adagrad", "momentum": 0.5, "nesterov": True},
        {"momentum": 0.0, "nesterov": True},
        {"architecture": "linear", "hidden": [3]},
        {"test_watch": "end", "test_watch_steps": 3},
        {"test_watch": "epoch", "test_watch_steps": 3},
    ],
    ids=str,
)
def test_a_field_that_is_not_used_does_not_change_the_digest(unused: dict[str, Any]) -> None:
    (deciding, value), *rest = unused.items()
    used = {**FULL, deciding: value}
    assert digest_of({**used, **dict(rest)}) == digest_of(used)


def test_every_field_that_is_used_changes_the_digest() -> None:
    assert FULL.keys() == OTHER.keys() == FIELDS.keys()
    digests = {digest_of(FULL)} | {digest_of({**FULL, name: value}) for name, value in OTHER.items()}
    assert len(digests) == 1 + len(OTHER)


def test_the_digest_is_the_sha256_of_what_is_computed_and_the_version_of_the_numerics() -> None:
    canonical = dict(sorted(FULL.items()))
    text = json.dumps([NUMERICS_VERSION, canonical], separators=(",", ":"))
    assert digest_of(FULL) == hashlib.sha256(text.encode()).hexdigest()
    assert parse_config(FULL).short_id == digest_of(FULL)[:12]


def test_a_configuration_with_a_known_digest_equals_and_hashes_as_one_without() -> None:
    asked, fresh = parse_config(FULL), parse_config(FULL)
    assert asked.digest
    assert asked == fresh
    assert hash(asked) == hash(fresh)
    assert "digest" not in asked.model_dump()


# Stored


@settings(max_examples=200)
@given(st.data())
def test_what_is_stored_is_read_back_as_the_same_run(data: st.DataObject) -> None:
    config = data.draw(configs())
    stored = config.stored()
    read = parse_config(json.loads(stored))
    assert json.loads(stored)["config_version"] == CONFIG_VERSION
    assert read.digest == config.digest
    assert read.stored() == stored
    assert all(getattr(read, name) == getattr(config, name) for name in config.canonical())


def test_a_stored_configuration_that_uses_every_field_is_read_back_equal() -> None:
    config = parse_config(FULL)
    assert json.loads(config.stored()) == {"config_version": CONFIG_VERSION, **FULL}
    assert parse_config(json.loads(config.stored())) == config


def test_a_configuration_of_a_newer_program_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"config_version: .*newer program.*update mnistlr.*got 99"):
        parse_config({"config_version": 99, "epochs": 5, "warp": 9})


# Fields


def test_fields_describe_every_field_in_the_order_of_the_form() -> None:
    assert [spec.name for spec in fields()] == list(RunConfig.model_fields)
    assert all(spec.title and spec.help.endswith((".", "?")) for spec in fields())
    assert len({spec.title for spec in fields()}) == len(fields())


@pytest.mark.parametrize(
    "spec", [spec for spec in fields() if spec.kind in ("integer", "number")], ids=lambda s: s.name
)
def test_limits_accept_their_bounds_and_refuse_just_beyond(spec: Spec) -> None:
    assert spec.minimum is not None
    assert spec.maximum is not None
    for bound, outwards in ((spec.minimum, -math.inf), (spec.maximum, math.inf)):
        beyond = bound + math.copysign(1, outwards) if spec.kind == "integer" else math.nextafter(bound, outwards)
        assert getattr(parse_config({spec.name: bound}), spec.name) == bound
        assert getattr(parse_config({spec.name: repr(bound)}), spec.name) == bound
        assert [problem.field for problem in problems_of({spec.name: beyond})] == [spec.name]
        assert [problem.field for problem in problems_of({spec.name: repr(beyond)})] == [spec.name]


def test_hidden_sizes_accept_their_bounds_and_refuse_just_beyond() -> None:
    for sizes in ([1], [4096], [1, 4096, 1, 4096]):
        assert parse_config({"hidden": sizes}).hidden == tuple(sizes)
    for sizes in ([], [0], [4097], [1, 1, 1, 1, 1]):
        assert problems_of({"hidden": sizes})


def test_every_choice_and_every_offered_step_is_accepted_and_every_choice_has_a_label() -> None:
    for spec in fields():
        for value in (*spec.choices, *spec.steps):
            assert getattr(parse_config({spec.name: value}), spec.name) == value
        assert len(spec.labels) == len(spec.choices) == len(set(spec.labels))
        assert list(spec.steps) == sorted(set(spec.steps))
        assert bool(spec.choices) == (spec.kind == "choice")
        assert spec.scale in ("linear", "log")


# Values


def test_replace_gives_a_checked_copy() -> None:
    config = parse_config(FULL)
    changed = config.replace(epochs=3, hidden=(8,), optimizer=Optimizer.ADAM)
    assert (changed.epochs, changed.hidden, changed.optimizer) == (3, (8,), Optimizer.ADAM)
    assert config == parse_config(FULL)
    assert changed.digest == digest_of({**FULL, "epochs": 3, "hidden": [8], "optimizer": "adam"})
    for wrong in ({"epochs": 0}, {"learning_rate": math.nan}, {"warp": 9}, {"hidden": ()}):
        with pytest.raises(ValidationError):
            config.replace(**wrong)


def test_a_configuration_cannot_be_changed() -> None:
    config = RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 6  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        del config.epochs
    assert isinstance(config.hidden, tuple)


def test_layer_sizes_go_from_pixels_to_classes() -> None:
    linear, mlp = parse_config({"hidden": "7"}), parse_config({"architecture": "mlp", "hidden": "32, 16"})
    assert linear.layer_sizes(pixels=784, classes=10) == ((784, 10),)
    assert mlp.layer_sizes(pixels=64, classes=10) == ((64, 32), (32, 16), (16, 10))


def test_a_label_names_the_model_and_how_it_is_trained() -> None:
    assert parse_config({"learning_rate": 0.03}).label == "Linear, SGD, lr 0.03, batch 100"
    mlp = parse_config({"architecture": "mlp", "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 64})
    assert mlp.label == "MLP 512-128, Adam, lr 0.001, batch 64"


def problems_of(values: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert caught.value.problems
    return caught.value.problems


def refused_values(field: str) -> list[object]:
    """Values that are wrong for a field, among them some that are right for fields of another kind."""
    refused: list[object] = [math.nan, math.inf, -math.inf, 10**30, -(10**400), None, b"1", [], {}, [1, [2]], {"a": 1}]
    refused += ["", " ", "nan", "inf", "-Infinity", "1e400", "٣", "½", "1\x00", "\ud800", "true false", "-1"]
    match FIELDS[field].kind:
        case "sizes":
            return [*refused, True, [True], [512.5], "512;128", "1,2,3,4,5", (1, 2, 3, 4, 5), {8, 9}, ["٣"]]
        case "flag":
            return [*refused, 1, 0, 1.0, 2, "2", [True]]
        case "choice":
            return [*refused, True, 0, "1", "UNIT ", [FIELDS[field].default]]
        case "integer":
            return [*refused, True, False, 1.5, "1.5", "0x10", "+-5", "5 5", [5]]
        case "number":
            return [*refused, True, False, "0x10", "1,5", "0.5.5", [0.5], 1e9, 1 + 2j]


def digest_of(values: dict[str, Any]) -> str:
    return parse_config(values).digest


def within(spec: Spec, value: Any) -> bool:
    match spec.kind:
        case "choice":
            return value in spec.choices
        case "flag":
            return isinstance(value, bool)
        case "sizes":
            return 1 <= len(value) <= 4 and all(type(size) is int and 1 <= size <= 4096 for size in value)
        case "integer" | "number":
            kind = int if spec.kind == "integer" else float
            return type(value) is kind and (spec.minimum or 0) <= value <= (spec.maximum or 0)


def configs() -> st.SearchStrategy[RunConfig]:
    return st.fixed_dictionaries({spec.name: values(spec) for spec in fields()}).map(parse_config)


def values(spec: Spec) -> st.SearchStrategy[Any]:
    match spec.kind:
        case "choice":
            return st.sampled_from(spec.choices)
        case "flag":
            return st.booleans()
        case "sizes":
            return st.lists(st.integers(1, 4096), min_size=1, max_size=4)
        case "integer":
            return st.integers(int(spec.minimum or 0), int(spec.maximum or 0))
        case "number":
            return st.floats(spec.minimum or 0.0, spec.maximum or 0.0)
