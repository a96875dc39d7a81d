"""Verdicts are computed: from means, spreads and what an article says, by rules that hold for any figures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core import verdicts
from mnistlr_core.articles import RECIPES, Claimed, Relation, seeded
from mnistlr_core.records import Evidence, RunState
from mnistlr_core.verdicts import Verdict, assess, check, figure_of, measured
from tests.evidence import article_runs, evidence, runs_of

CLAIM = Claimed("80 %", "valid_accuracy", 2, 0.80, 0.01)
shares = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_exactly_the_public_names_are_exported() -> None:
    assert verdicts.__all__ == [
        *("Assessment", "Check", "Measured", "Verdict", "assess", "check", "figure_of", "measured")
    ]


@given(shares)
def test_mean_spread_and_noise_are_what_scipy_says(values: list[float]) -> None:
    found = measured(values)
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    if len(values) == 1:
        assert found.spread is None
        assert found.noise == 0
    else:
        assert found.spread == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        low, high = scipy.stats.t.interval(0.90, len(values) - 1)
        assert found.noise == pytest.approx((high - low) / 2 * found.spread * math.sqrt(1 + 1 / len(values)))


def test_nothing_measured_is_no_figure() -> None:
    assert measured([]) is None
    assert check(CLAIM, []) == verdicts.Check(CLAIM, None, None)


@given(shares, st.sampled_from(Relation))
def test_a_verdict_is_never_worse_for_figures_nearer_to_the_claim(values: list[float], relation: Relation) -> None:
    claim = replace(CLAIM, relation=relation)
    nearer = [claim.value + (value - claim.value) / 2 for value in values]
    order = list(Verdict)
    here, there = check(claim, runs_of(values)).verdict, check(claim, runs_of(nearer)).verdict
    assert here is not None
    assert there is not None
    # Halving every distance halves the noise with it, so that only the tolerance decides, which stays as it is.
    assert order.index(there) <= order.index(here)


@pytest.mark.parametrize(
    ("relation", "values", "verdict"),
    [
        (Relation.ABOUT, [0.809, 0.809, 0.809], Verdict.HOLDS),
        (Relation.ABOUT, [0.825, 0.825, 0.825], Verdict.ROUGHLY),
        (Relation.ABOUT, [0.85, 0.85, 0.85], Verdict.FAILS),
        (Relation.ABOUT, [0.70, 0.90, 0.95], Verdict.ROUGHLY),  # another seed could well give 0.80
        (Relation.ABOVE, [0.80, 0.95, 0.99], Verdict.HOLDS),
        (Relation.ABOVE, [0.795, 0.795, 0.795], Verdict.ROUGHLY),
        (Relation.ABOVE, [0.78, 0.78, 0.78], Verdict.FAILS),
        (Relation.BELOW, [0.10, 0.11, 0.12], Verdict.HOLDS),
        (Relation.BELOW, [0.805, 0.805, 0.805], Verdict.ROUGHLY),
        (Relation.BELOW, [0.82, 0.82, 0.82], Verdict.FAILS),
        (Relation.ABOUT, [0.85], Verdict.FAILS),
    ],
)
def test_the_verdict_is_the_rules(relation: Relation, values: list[float], verdict: Verdict) -> None:
    assert check(replace(CLAIM, relation=relation), runs_of(values)).verdict is verdict


def test_a_figure_is_taken_after_its_epochs_and_the_test_sets_at_the_end() -> None:
    (evidence,) = runs_of([0.5])
    assert figure_of(evidence, "valid_accuracy", 2) == 0.5
    assert figure_of(evidence, "valid_accuracy", 1) == 0.25
    assert figure_of(evidence, "test_accuracy", 5) == 0.9
    assert figure_of(evidence, "test_accuracy", 2) is None
    assert figure_of(evidence, "train_loss", 1) == 2.0
    assert figure_of(evidence, "valid_accuracy", 3) is None


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.FINISHED])
def test_only_finished_runs_count(state: RunState) -> None:
    (evidence,) = runs_of([0.8])
    unfinished = Evidence(replace(evidence.run, state=state), evidence.history)
    assert check(CLAIM, [unfinished]).measured is None
    assert check(CLAIM, [unfinished, evidence]).measured == measured([0.8])


def test_an_article_is_as_good_as_its_worst_claim_and_only_once_every_seed_is_in() -> None:
    recipe = RECIPES["zero-to-gans"]
    runs = article_runs(recipe, [0.82, 0.82, 0.82])
    found = assess(recipe, runs, seeds=3)
    assert found.verdict is max((one.verdict for one in found.checks[0] if one.verdict), key=list(Verdict).index)
    assert found.complete
    fewer = assess(recipe, dict(list(runs.items())[:2]), seeds=3)
    assert (fewer.verdict, fewer.complete) == (None, False)
    assert [check.measured.n for check in fewer.checks[0] if check.measured] == [2] * 3
    none = assess(recipe, {}, seeds=3)
    assert (none.verdict, none.complete, none.runs) == (None, False, ((), ()))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_articles_verdict_follows_from_whatever_was_measured(values: list[float]) -> None:
    recipe = RECIPES["sigmoid-mlp"]
    found = assess(recipe, article_runs(recipe, values), seeds=3)
    assert found.verdict is check(recipe.claims[0], list(article_runs(recipe, values).values())).verdict


def test_without_claims_or_on_other_images_there_is_no_verdict() -> None:
    silent = RECIPES["sigmoid-output"]
    assert assess(silent, article_runs(silent, [0.8, 0.8, 0.8]), seeds=3).verdict is None
    recipe = RECIPES["sigmoid-mlp"]
    other = {config.short_id: evidence(config, 0.8) for config in seeded(recipe.config.replace(dataset="digits"), 3)}
    found = assess(recipe, other, seeds=3, dataset="digits")
    assert found.complete
    assert found.verdict is None
    assert found.checks == ((), ())
