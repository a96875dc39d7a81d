"""Runs that differ only in their seeds: their figures' means and spreads, and whether two groups differ by more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mnistlr_core.comparison import LEVEL
from mnistlr_core.config import RunConfig
from mnistlr_core.records import Evidence, RunState, best_epoch
from mnistlr_core.verdicts import Measured, measured

__all__ = [
    "FIGURES",
    "Difference",
    "Figure",
    "Group",
    "delta",
    "difference",
    "figure_value",
    "group_by_seed",
]

Figure = Literal[
    "best_valid_accuracy",
    "last_valid_accuracy",
    "best_valid_loss",
    "last_valid_loss",
    "test_accuracy",
    "test_loss",
    "seconds",
]
"""What a run is compared by: an accuracy in 0..1, a loss in nats, or its training time in seconds."""

FIGURES: Mapping[Figure, str] = MappingProxyType(
    {
        "best_valid_accuracy": "Best validation accuracy",
        "last_valid_accuracy": "Last validation accuracy",
        "best_valid_loss": "Validation loss of the best epoch",
        "last_valid_loss": "Last validation loss",
        "test_accuracy": "Test accuracy",
        "test_loss": "Test loss",
        "seconds": "Training time",
    }
)
"""What the figures are called on a screen, in their order."""


def figure_value(evidence: Evidence, figure: Figure) -> float | None:
    """A run's figure as far as it has got; None where it was not measured.

    The best epoch is `records.best_epoch`'s, by accuracy: its loss need not be the lowest.
    """
    run, history = evidence.run, evidence.history
    match figure:
        case "seconds":
            return run.seconds
        case "test_accuracy":
            return run.test.accuracy if run.test else None
        case "test_loss":
            return run.test.loss if run.test else None
    which, _, column = figure.partition("_")
    row = best_epoch(history) if which == "best" else history[-1] if history else None
    return getattr(row, column) if row else None


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ only in their seeds. `config` is the first run's, with its seed."""

    config: RunConfig
    runs: tuple[Evidence, ...]

    @property
    def finished(self) -> tuple[Evidence, ...]:
        """The runs that count."""
        return tuple(one for one in self.runs if one.run.state is RunState.FINISHED)

    @property
    def diverged(self) -> int:
        """How many runs diverged: they have no figures, and a mean without them flatters."""
        return sum(one.run.state is RunState.DIVERGED for one in self.runs)

    def measure(self, figure: Figure) -> Measured | None:
        """A figure's mean and spread over the finished runs; None where none of them measured it."""
        values = [figure_value(one, figure) for one in self.finished]
        return measured([value for value in values if value is not None])


def group_by_seed(evidence: Sequence[Evidence]) -> tuple[Group, ...]:
    """Put runs that differ only in their seeds together, in order of first appearance. A run given twice is one."""
    table: dict[str, dict[str, Evidence]] = {}
    for one in evidence:
        table.setdefault(one.run.config.family, {}).setdefault(one.run.id, one)
    return tuple(Group(next(iter(runs.values())).run.config, tuple(runs.values())) for runs in table.values())


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of A less that of B. `within_noise` is None where there are too few seeds to say.

    The test's statistic, degrees of freedom and p-value are None there too, and where no seed moved either figure.
    """

    mean: float
    within_noise: bool | None
    statistic: float | None = None
    degrees: float | None = None
    p: float | None = None


def difference(a: Measured, b: Measured) -> Difference:
    """Whether two means over seeds differ by more than seeds do: Welch's t-test at 5 %, two-sided.

    With the Welch-Satterthwaite degrees of freedom (Welch, The generalization of "Student's" problem when several
    different population variances are involved, Biometrika 34, 1947). It needs two seeds on either side. For the test
    accuracies of two single runs, ask `mcnemar` instead, which needs their predictions and no second seed.
    """
    mean = a.mean - b.mean
    if a.spread is None or b.spread is None:
        return Difference(mean, None)
    widest = max(a.spread, b.spread)
    if not widest:
        # Means of equal values over different numbers of seeds may differ in their last bits.
        return Difference(mean, math.isclose(a.mean, b.mean, rel_tol=1e-12, abs_tol=1e-12))
    from scipy.special import stdtr  # 0.1 s to load, which a page that compares nothing need not wait for

    # In units of the larger spread, so that the square of a tiny one can't become 0.
    error_a, error_b = ((one / widest) ** 2 / n for one, n in ((a.spread, a.n), (b.spread, b.n)))
    statistic = mean / widest / math.sqrt(error_a + error_b)
    degrees = (error_a + error_b) ** 2 / (error_a**2 / (a.n - 1) + error_b**2 / (b.n - 1))
    p = float(2 * stdtr(degrees, -abs(statistic)))
    return Difference(mean, p >= LEVEL, statistic, degrees, p)


def delta(reference: Measured | float | None, other: Measured | float | None) -> float | None:
    """How far a figure or its mean lies above the reference's; None where either was not measured."""
    base, value = (one.mean if isinstance(one, Measured) else one for one in (reference, other))
    return None if base is None or value is None else value - base
