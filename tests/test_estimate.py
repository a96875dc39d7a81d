"""How long a run will take: known where it was measured, laid through what was measured elsewhere, never invented."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistlr_core import estimate
from mnistlr_core.articles import seeded
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.data import split
from mnistlr_core.estimate import estimate_seconds, shape_of, step_flops, steps_per_epoch, workload
from mnistlr_core.records import RunState, Speed
from tests.evidence import evidence

configs = st.fixed_dictionaries(
    {
        "dataset": st.sampled_from(sorted(DATASETS)),
        "architecture": st.sampled_from(["linear", "mlp"]),
        "hidden": st.lists(st.integers(1, 4096), min_size=1, max_size=4),
        "optimizer": st.sampled_from(["sgd", "adam", "adagrad"]),
        "batch_size": st.integers(1, 60_000),
        "epochs": st.integers(1, 500),
        "valid_fraction": st.floats(0, 0.9),
        "train_fraction": st.floats(0.001, 1),
    }
).map(parse_config)

measured = st.lists(
    st.builds(Speed, st.text(max_size=3), st.floats(1e2, 1e13), st.floats(1e-6, 1e3)), min_size=1, max_size=6
)


def test_exactly_the_public_names_are_exported() -> None:
    assert estimate.__all__ == ["Workload", "estimate_seconds", "shape_of", "step_flops", "steps_per_epoch", "workload"]


@given(configs)
def test_nothing_is_promised_before_anything_was_measured(config: RunConfig) -> None:
    assert estimate_seconds(config, []) is None


@given(configs, measured, st.floats(1e-6, 1e3))
def test_a_shape_that_was_trained_is_known(config: RunConfig, others: list[Speed], seconds: float) -> None:
    known = Speed(shape_of(config), 1.0, seconds)
    expected = config.epochs * steps_per_epoch(config) * seconds
    assert estimate_seconds(config, [*others, known]) == pytest.approx(expected)
    assert estimate_seconds(config, [known, *others]) == pytest.approx(expected)


@given(
    configs,
    st.lists(st.floats(1e5, 1e11), min_size=2, max_size=6),
    st.floats(1e-5, 1e-2),
    st.floats(1e-12, 1e-9),
)
def test_a_shape_that_was_not_trained_costs_the_overhead_and_arithmetic_of_those_that_were(
    config: RunConfig, flops: list[float], overhead: float, per_flop: float
) -> None:
    if max(flops) < 2 * min(flops):
        flops = [*flops, 10 * max(flops)]
    speeds = [Speed(f"other {n}", f, overhead + per_flop * f) for n, f in enumerate(flops)]
    step = overhead + per_flop * flops_of(config)
    expected = config.epochs * steps_per_epoch(config) * step
    assert estimate_seconds(config, speeds) == pytest.approx(expected, rel=1e-3)


def test_a_long_step_measured_badly_does_not_spoil_the_estimate_of_a_short_one() -> None:
    linear = parse_config({"batch_size": 32})
    wrong = (1.1, 0.9, 1.1, 0.9, 1.1, 0.9)
    speeds = [Speed(f"other {n}", 10.0**n, (1e-4 + 1e-11 * 10.0**n) * wrong[n - 6]) for n in range(6, 12)]
    steps = linear.epochs * steps_per_epoch(linear)
    assert estimate_seconds(linear, speeds) == pytest.approx(steps * (1e-4 + 1e-11 * flops_of(linear)), rel=0.15)


@settings(max_examples=300)
@given(configs, measured)
def test_an_estimate_is_a_positive_time(config: RunConfig, speeds: list[Speed]) -> None:
    seconds = estimate_seconds(config, speeds)
    assert seconds is not None
    assert math.isfinite(seconds)
    assert seconds > 0


@given(configs, measured)
def test_twice_the_epochs_take_twice_as_long(config: RunConfig, speeds: list[Speed]) -> None:
    once, twice = estimate_seconds(config, speeds), estimate_seconds(config.replace(epochs=2 * config.epochs), speeds)
    assert once is not None
    assert twice == pytest.approx(2 * once)


def test_one_measured_shape_scales_up_and_never_promises_less_than_it_took() -> None:
    mlp = parse_config({"architecture": "mlp", "batch_size": 64})
    linear, wide = parse_config({"batch_size": 64}), mlp.replace(hidden=(1024, 256))
    speeds = [Speed(shape_of(mlp), flops_of(mlp), 0.004)]
    per_step = {
        config: (estimate_seconds(config, speeds) or 0) / config.epochs / steps_per_epoch(config)
        for config in (linear, mlp, wide)
    }
    assert per_step[mlp] == pytest.approx(0.004)
    assert per_step[wide] == pytest.approx(0.004 * flops_of(wide) / flops_of(mlp))
    assert per_step[linear] == pytest.approx(0.004)


def test_two_measurements_of_equal_arithmetic_scale_as_one() -> None:
    adam, sgd = (parse_config({"architecture": "mlp", "optimizer": name}) for name in ("adam", "sgd"))
    speeds = [Speed(shape_of(config), flops_of(config), 0.004) for config in (adam, sgd)]
    linear = parse_config({})
    expected = linear.epochs * steps_per_epoch(linear) * 0.004
    assert estimate_seconds(linear, speeds) == pytest.approx(expected)


@given(configs)
def test_the_steps_of_an_epoch_are_those_of_the_real_split(config: RunConfig) -> None:
    rows = split_size(config)
    assert steps_per_epoch(config) == -(-rows // config.batch_size)
    assert steps_per_epoch(config.replace(batch_size=1)) == rows


def test_the_articles_epochs_have_their_published_number_of_steps() -> None:
    def steps(batch: int, **values: Any) -> int:
        return steps_per_epoch(parse_config({"batch_size": batch, "valid_fraction": 0, **values}))

    assert steps(100) == 600
    assert steps(64) == 938
    assert steps(128, valid_fraction=0.2) == 375
    assert steps(60_000) == 1
    assert steps(60_000, train_fraction=0.001) == 1


def test_the_arithmetic_of_a_step_is_three_products_a_layer() -> None:
    assert step_flops(parse_config({"batch_size": 100}), pixels=784, classes=10) == 3 * 2 * 100 * 784 * 10
    mlp = parse_config({"batch_size": 64, "architecture": "mlp", "hidden": "512, 128"})
    products = 784 * 512 + 512 * 128 + 128 * 10
    assert step_flops(mlp, pixels=784, classes=10) == 3 * 2 * 64 * products


def test_a_shape_is_what_a_steps_duration_depends_on() -> None:
    config = parse_config({"architecture": "mlp", "momentum": 0.9})
    same = ({"learning_rate": 1.0}, {"seed": 3}, {"epochs": 2}, {"dataset": "kmnist"}, {"momentum": 0.5})
    other = ({"batch_size": 1}, {"hidden": (8,)}, {"dataset": "digits"}, {"momentum": 0.0}, {"optimizer": "adam"})
    assert {shape_of(parse_config({**config.model_dump(), **values})) for values in same} == {shape_of(config)}
    assert len({shape_of(parse_config({**config.model_dump(), **values})) for values in (*other, {})}) == 6
    assert shape_of(parse_config({"hidden": (8,)})) == shape_of(parse_config({}))


def flops_of(config: RunConfig) -> float:
    info = DATASETS[config.dataset]
    return step_flops(config, pixels=info.pixels, classes=len(info.classes))


def split_size(config: RunConfig) -> int:
    size = DATASETS[config.dataset].train_size
    return len(split(size, valid_fraction=config.valid_fraction, train_fraction=config.train_fraction).train)


def test_a_workload_sums_up_by_the_time_that_each_run_takes() -> None:
    quick, slow = parse_config({"epochs": 1}), parse_config({"epochs": 3})
    speeds = [Speed(shape_of(quick), 1.0, 0.01)]
    steps = steps_per_epoch(quick)
    half = evidence(slow, 0.5).run
    half = replace(half, state=RunState.RUNNING, step=3 * steps // 2)
    work = workload([quick, slow], {half.id: half}, speeds)
    assert (work.total, work.answered, work.active, work.missing) == (2, 0, 1, 1)
    assert work.share == pytest.approx(1.5 / 4)
    assert work.seconds == pytest.approx(0.01 * steps * 2.5)
    assert workload([quick, slow], {}, []).seconds is None
    assert workload([quick, slow], {half.id: half}, []).share == pytest.approx(1.5 / 4)
    assert workload([], {}, []).share == 1.0


@given(st.lists(st.sampled_from(RunState), min_size=1, max_size=6))
def test_every_run_is_answered_active_or_missing(states: list[RunState]) -> None:
    runs = [evidence(config, 0.5).run for config in seeded(parse_config({}), len(states))]
    found = {run.id: replace(run, state=state) for run, state in zip(runs, states, strict=True)}
    work = workload([run.config for run in runs], found, [])
    assert work.answered == sum(state.answered for state in states)
    assert work.active == sum(state.active for state in states)
    assert work.missing == sum(state in (RunState.STOPPED, RunState.FAILED) for state in states)
    assert 0 <= work.share <= 1
