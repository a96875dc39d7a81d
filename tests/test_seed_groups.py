"""Groups over seeds, and their differences against SciPy's Welch test."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from mnistlr_core import seed_groups
from mnistlr_core.articles import seeded
from mnistlr_core.config import RunConfig
from mnistlr_core.records import EpochRow, Evidence, Result, RunState
from mnistlr_core.seed_groups import (
    FIGURES,
    Difference,
    Figure,
    Group,
    delta,
    difference,
    figure_value,
    group_by_seed,
)
from mnistlr_core.verdicts import Measured, measured
from tests.evidence import evidence, runs_of
from tests.test_comparison import any_config

samples = st.lists(st.floats(0, 1), min_size=2, max_size=8)
HISTORY = (
    EpochRow(1, 2.0, 0.3, 0.9, 0.80, None, None),
    EpochRow(2, 1.0, 0.6, 0.4, 0.95, None, None),
    EpochRow(3, 0.5, 0.7, 0.3, 0.90, None, None),
)


def one_run(config: RunConfig, state: RunState = RunState.FINISHED) -> Evidence:
    run = replace(evidence(config, 0.5).run, state=state, seconds=12.5, test=Result(0.25, 0.93, 700))
    return Evidence(run, HISTORY)


def test_the_public_surface() -> None:
    assert seed_groups.__all__ == [
        "FIGURES", "Difference", "Figure", "Group", "delta", "difference", "figure_value", "group_by_seed",
    ]  # fmt: skip
    assert tuple(FIGURES) == get_args(Figure)


@given(any_config, any_config)
def test_a_family_is_all_but_the_seed(one: RunConfig, other: RunConfig) -> None:
    rest = [{name: value for name, value in config.canonical().items() if name != "seed"} for config in (one, other)]
    assert (one.family == other.family) == (rest[0] == rest[1])
    assert one.family == one.replace(seed=one.seed + 7).family
    assert one.family != one.replace(batch_size=one.batch_size + 1).family


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("best_valid_accuracy", 0.95),
        ("last_valid_accuracy", 0.90),
        ("best_valid_loss", 0.4),  # of the epoch with the highest accuracy, not the lowest loss
        ("last_valid_loss", 0.3),
        ("test_accuracy", 0.93),
        ("test_loss", 0.25),
        ("seconds", 12.5),
    ],
)
def test_figures_of_a_run(figure: Figure, value: float) -> None:
    run = one_run(RunConfig())
    assert figure_value(run, figure) == value
    assert Group(RunConfig(), (run,)).measure(figure) == Measured(value, None, 1)
    untouched = Evidence(replace(run.run, test=None), ())
    assert figure_value(untouched, figure) == (12.5 if figure == "seconds" else None)


def test_figures_without_validation_are_none() -> None:
    run = one_run(RunConfig())
    blind = Evidence(run.run, tuple(replace(row, valid_loss=None, valid_accuracy=None) for row in HISTORY))
    group = Group(RunConfig(), (blind, run))
    for figure in ("best_valid_accuracy", "last_valid_accuracy", "best_valid_loss", "last_valid_loss"):
        assert figure_value(blind, figure) is None
        assert group.measure(figure) == Measured(figure_value(run, figure) or 0, None, 1)
        assert Group(RunConfig(), (blind,)).measure(figure) is None


def test_groups_are_in_order_of_first_appearance() -> None:
    fast, slow = RunConfig(learning_rate=0.1), RunConfig(learning_rate=0.01)
    configs = [slow.replace(seed=5), fast, slow, fast.replace(seed=1), slow]
    groups = group_by_seed([one_run(config) for config in configs])
    assert [group.config for group in groups] == [slow.replace(seed=5), fast]
    assert [[one.run.config.seed for one in group.runs] for group in groups] == [[5, 0], [0, 1]]  # slow twice is one
    assert group_by_seed([]) == ()


@given(st.lists(st.tuples(any_config, st.sampled_from(RunState)), max_size=8))
def test_groups_hold_each_run_once(drawn: list[tuple[RunConfig, RunState]]) -> None:
    runs = {config.digest: one_run(config, state) for config, state in drawn}
    groups = group_by_seed(list(runs.values()))
    held = [one.run.digest for group in groups for one in group.runs]
    assert sorted(held) == sorted(runs)
    assert len({group.config.family for group in groups}) == len(groups)
    for group in groups:
        assert {one.run.config.family for one in group.runs} == {group.config.family}
        assert group.config == group.runs[0].run.config


def test_only_finished_runs_count_and_diverged_ones_apart() -> None:
    states = list(RunState)
    runs = [one_run(config, state) for config, state in zip(seeded(RunConfig(), len(states)), states, strict=True)]
    (group,) = group_by_seed(runs)
    assert [one.run.state for one in group.finished] == [RunState.FINISHED]
    assert group.diverged == 1
    assert group.measure("test_accuracy") == Measured(0.93, None, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_a_groups_figure_is_the_mean_over_its_seeds(values: list[float]) -> None:
    (group,) = group_by_seed(runs_of(values))
    assert group.measure("last_valid_accuracy") == measured(values)


# Differences ---------------------------------------------------------------------------------------------------------


def summary(values: list[float]) -> Measured:
    found = measured(values)
    assert found is not None
    return found


@given(samples, samples)
def test_differences_are_welchs(first: list[float], second: list[float]) -> None:
    a, b = summary(first), summary(second)
    assume(max(a.spread or 0, b.spread or 0) > 1e-6)  # SciPy's squares of smaller ones underflow
    found, swapped = difference(a, b), difference(b, a)
    expected = scipy.stats.ttest_ind_from_stats(a.mean, a.spread, a.n, b.mean, b.spread, b.n, equal_var=False)
    assert found.mean == a.mean - b.mean
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.within_noise == (found.p is not None and found.p >= 0.05)
    assert found.degrees is not None
    assert min(a.n, b.n) - 1 - 1e-9 <= found.degrees <= a.n + b.n - 2 + 1e-9
    assert (swapped.p, swapped.within_noise) == (found.p, found.within_noise)
    assert swapped.mean == -found.mean


@given(samples, samples)
def test_degrees_of_freedom_are_scipys(first: list[float], second: list[float]) -> None:
    assume(min(np.std(first), np.std(second)) > 1e-6)  # SciPy warns of samples that are all but constant
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).df
    assert difference(summary(first), summary(second)).degrees == pytest.approx(expected, rel=1e-6)


def test_a_difference_by_hand() -> None:
    found = difference(Measured(3.0, 1.0, 2), Measured(1.0, 1.0, 2))
    assert (found.mean, found.statistic, found.degrees) == (2.0, 2.0, 2.0)
    assert found.p == pytest.approx(0.1835, abs=5e-5)  # Student's t with 2 degrees of freedom, two-sided
    assert found.within_noise is True
    assert difference(Measured(9.0, 1.0, 2), Measured(1.0, 1.0, 2)).within_noise is False
    tiny = difference(Measured(3e-200, 1e-200, 2), Measured(1e-200, 1e-200, 2))
    assert tiny.statistic == pytest.approx(2.0)


@given(st.floats(0.001, 1), st.integers(2, 9), st.integers(2, 9))
def test_where_no_seed_moves_a_figure_only_equal_ones_are_within_noise(value: float, n: int, m: int) -> None:
    same = difference(summary([value] * n), summary([value] * m))
    assert same == Difference(same.mean, True)
    assert abs(same.mean) < 1e-15
    other = difference(Measured(value, 0.0, n), Measured(value + 1e-6, 0.0, m))
    assert other == Difference(other.mean, False)


def test_one_seed_says_nothing() -> None:
    several = Measured(0.9, 0.01, 3)
    for a, b in ((Measured(0.5, None, 1), several), (several, Measured(0.5, None, 1))):
        assert difference(a, b) == Difference(a.mean - b.mean, None)


def test_deltas_are_from_the_reference() -> None:
    assert delta(0.5, 0.75) == 0.25
    assert delta(Measured(0.5, 0.1, 2), Measured(0.25, None, 1)) == -0.25
    assert delta(0.0, 0.0) == 0.0
    assert delta(None, 0.5) is None
    assert delta(0.5, None) is None
