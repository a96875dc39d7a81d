"""What was measured, as values, and the statistics on it. Nothing here runs a contender or prints.

Contenders take turns, round by round, so that a ratio is taken within a round, where both met the same machine; the
median and the range are of those ratios. A ratio of two medians would mix minutes that have nothing in common.

Pairing doesn't make up for a busy machine: two threads that wait for each other suffer from it thirty times more than
one. So a turn counts only when it was calm, which the processors' accounts tell, never its result.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BUSY", "ENGINE", "Machine", "ModelReport", "Outcome", "Report", "Spread", "Standing", "ratio", "spread"]

ENGINE = "engine"
"""The key of the contender that every other one is compared with."""

BUSY = 0.1
"""The share of the processors' time above which other processes spoil a turn."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the least and the greatest of n values."""

    median: float
    low: float
    high: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Raises `statistics.StatisticsError` when there are no values."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one contender did in one round."""

    epochs: tuple[float, ...]
    """Seconds of each timed epoch, in order; a library that tells only the whole gives one mean."""
    accuracy: float | None
    """Share of the test images read correctly after the round's last epoch, 0..1; None where nothing is learned."""
    first_epoch: float | None = None
    """Seconds of a first epoch that was left out of `epochs`, because it compiles."""
    threads: int | None = None
    """How many threads were the faster ones, where several counts were tried."""
    others: float | None = None
    """Share of all processors' time, 0..1, that other processes took meanwhile; None where the system doesn't tell."""

    @property
    def seconds(self) -> float:
        """Seconds an epoch: the median of the timed ones."""
        return statistics.median(self.epochs)

    @property
    def calm(self) -> bool:
        """Whether other processes left the processors to it, as far as is known."""
        return self.others is None or self.others <= BUSY


@dataclass(frozen=True, slots=True)
class Standing:
    """One contender over all rounds: an outcome each, or none and the reason why it is absent."""

    key: str
    name: str
    outcomes: tuple[Outcome, ...]
    absent: str | None = None

    @property
    def counted(self) -> tuple[Outcome, ...]:
        """The calm outcomes; all of them where none was calm, which `disturbed` says."""
        return tuple(outcome for outcome in self.outcomes if outcome.calm) or self.outcomes

    @property
    def disturbed(self) -> bool:
        """Whether no round was calm, so that the figures hold for this busy machine only."""
        return bool(self.outcomes) and not any(outcome.calm for outcome in self.outcomes)

    @property
    def seconds(self) -> Spread | None:
        """Seconds an epoch, over the rounds that count; None when it is absent."""
        return spread([outcome.seconds for outcome in self.counted]) if self.outcomes else None

    @property
    def accuracy(self) -> float | None:
        """The median test accuracy, 0..1."""
        found = [outcome.accuracy for outcome in self.outcomes if outcome.accuracy is not None]
        return statistics.median(found) if found else None

    @property
    def others(self) -> float | None:
        """The greatest share of the processors' time that other processes took in a round that counts, 0..1."""
        return max((outcome.others for outcome in self.counted if outcome.others is not None), default=None)


def ratio(numerator: Standing | None, denominator: Standing | None) -> Spread | None:
    """How many times as long the first takes as the second, paired by round.

    Rounds in which both were calm count, or all where there is none. None where either wasn't measured.
    """
    if numerator is None or denominator is None or not numerator.outcomes or not denominator.outcomes:
        return None
    pairs = list(zip(numerator.outcomes, denominator.outcomes, strict=True))
    calm = [(a, b) for a, b in pairs if a.calm and b.calm]
    return spread([a.seconds / b.seconds for a, b in calm or pairs])


@dataclass(frozen=True, slots=True)
class ModelReport:
    """All contenders on one model."""

    key: str
    title: str
    """The model and how it is trained, in words."""
    epochs: int
    """Epochs that each contender trains in each round."""
    rounds: int
    standings: tuple[Standing, ...]

    def standing(self, key: str) -> Standing | None:
        """A contender by its key; None when it wasn't asked for."""
        return next((standing for standing in self.standings if standing.key == key), None)

    def ratio(self, numerator: str, denominator: str) -> Spread | None:
        """`ratio` of two contenders by their keys."""
        return ratio(self.standing(numerator), self.standing(denominator))


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the numbers are from. A load above zero at the start means that others computed, too."""

    cpu: str
    cores: int
    """Processors that this process may use."""
    threads: int
    """Threads of torch for the peers."""
    load: float | None
    """The mean number of runnable processes over the minute before the start; None where the system doesn't tell."""
    system: str
    versions: dict[str, str | None]
    """Library -> version, or None when it isn't installed."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the benchmark."""

    started_at: str
    """UTC, ISO 8601."""
    data: str
    """Which images: real MNIST or generated ones, and how many."""
    real: bool
    machine: Machine
    models: tuple[ModelReport, ...]
