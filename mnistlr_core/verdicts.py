"""Whether an article's claims hold: its figures beside the mean and spread of runs that differ only in their seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mnistlr_core.articles import Claimed, Figure, Recipe, Relation, seeded
from mnistlr_core.records import Evidence, RunState

__all__ = ["Assessment", "Check", "Measured", "Verdict", "assess", "check", "figure_of", "measured"]

_ROUGHLY = 3
"""A claim that is missed by less than this many of its tolerances holds roughly."""


class Verdict(StrEnum):
    """Ordered from best to worst."""

    HOLDS = "holds"
    ROUGHLY = "holds roughly"
    FAILS = "does not hold"


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure over n ≥ 1 seeds. `spread` is the sample standard deviation, None for a single seed."""

    mean: float
    spread: float | None
    n: int

    @property
    def noise(self) -> float:
        """How far from the mean one more seed may lie: half the width of the 90 % prediction interval, t·s·√(1 + 1/n).

        For a normal sample with Student's t of n - 1 degrees of freedom (Hahn and Meeker, Statistical Intervals, 1991).
        It is the right measure for an article's figure, which is of one run. 0 for a single seed.
        """
        if self.spread is None:
            return 0.0
        from scipy.special import stdtrit  # 0.1 s to load, which a page without measurements need not wait for

        return float(stdtrit(self.n - 1, 0.95)) * self.spread * math.sqrt(1 + 1 / self.n)


def measured(values: Sequence[float]) -> Measured | None:
    """Mean and spread of one value per seed; None without any."""
    if not values:
        return None
    return Measured(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def figure_of(evidence: Evidence, figure: Figure, epochs: int) -> float | None:
    """A finished run's figure after `epochs` epochs; None where it was not measured, or the run did not finish."""
    run = evidence.run
    if run.state is not RunState.FINISHED:
        return None
    if figure == "test_accuracy" and epochs == run.config.epochs:
        return run.test.accuracy if run.test else None
    row = next((row for row in evidence.history if row.epoch == epochs), None)
    return getattr(row, figure) if row else None


@dataclass(frozen=True, slots=True)
class Check:
    """A claim beside what was measured. Without a finished run there is neither measurement nor verdict."""

    claim: Claimed
    measured: Measured | None
    verdict: Verdict | None


def check(claim: Claimed, runs: Sequence[Evidence]) -> Check:
    """Hold a claim against the runs of one configuration, one per seed.

    It *holds* when the mean misses it by no more than the tolerance (a bound: when the mean keeps it), and *holds
    roughly* when it is missed by at most three tolerances (a bound: one), or when one more seed could well give it.
    """
    found = [figure_of(evidence, claim.figure, claim.epochs) for evidence in runs]
    result = measured([value for value in found if value is not None])
    if result is None:
        return Check(claim, None, None)
    over = result.mean - claim.value
    if claim.relation is Relation.ABOUT:
        off, exact, near = abs(over), claim.tolerance, _ROUGHLY * claim.tolerance
    else:
        off, exact, near = (-over if claim.relation is Relation.ABOVE else over), 0.0, claim.tolerance
    if off <= exact:
        return Check(claim, result, Verdict.HOLDS)
    return Check(claim, result, Verdict.ROUGHLY if off <= max(near, result.noise) else Verdict.FAILS)


@dataclass(frozen=True, slots=True)
class Assessment:
    """An article's claims beside what was measured: as printed first, then with each variant's change."""

    recipe: Recipe
    checks: tuple[tuple[Check, ...], ...]
    runs: tuple[tuple[Evidence, ...], ...]
    """The runs that exist, by variant and then by seed."""
    seeds: int

    @property
    def complete(self) -> bool:
        """Whether every seed of the article's own configuration has finished."""
        return _finished(self.runs[0]) == self.seeds

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict on the article as printed; None while seeds are missing, or where it claims nothing."""
        found = [check.verdict for check in self.checks[0] if check.verdict]
        return max(found, key=list(Verdict).index, default=None)


def _finished(runs: Sequence[Evidence]) -> int:
    return sum(evidence.run.state is RunState.FINISHED for evidence in runs)


def assess(recipe: Recipe, runs: Mapping[str, Evidence], *, seeds: int, dataset: str = "mnist") -> Assessment:
    """Assess a recipe by the runs that exist, given by their ids. Nothing is judged before every seed has finished.

    The claims are about MNIST: on any other `dataset` there are measurements, but nothing to hold against a claim.
    """
    checks, found = [], []
    for number in range(1 + len(recipe.variants)):
        config = recipe.variant(number).replace(dataset=dataset)
        these = tuple(runs[one.short_id] for one in seeded(config, seeds) if one.short_id in runs)
        claims = recipe.variants[number - 1].claims if number else recipe.claims
        held = [check(claim, these) for claim in claims] if dataset == "mnist" else []
        complete = _finished(these) == seeds
        checks.append(tuple(one if complete else replace(one, verdict=None) for one in held))
        found.append(these)
    return Assessment(recipe, tuple(checks), tuple(found), seeds)
