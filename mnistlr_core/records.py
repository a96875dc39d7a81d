"""What the store gives out: frozen values about runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mnistlr_core.config import RunConfig

__all__ = [
    "Claim",
    "EpochRow",
    "Evidence",
    "Outcome",
    "Result",
    "Run",
    "RunState",
    "Speed",
    "Submission",
    "TestRow",
    "best_epoch",
]


class RunState(StrEnum):
    """queued → running → finished | stopped | diverged | failed. Finished and diverged are final."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def active(self) -> bool:
        return self in (RunState.QUEUED, RunState.RUNNING)

    @property
    def answered(self) -> bool:
        """Whether training again could only give the same: the configuration has its answer."""
        return self in (RunState.FINISHED, RunState.DIVERGED)


class Outcome(StrEnum):
    """What submitting a configuration came to, or would."""

    CACHED = "cached"
    JOINED = "joined"
    RESUMED = "resumed"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Submission:
    run_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """The test set's verdict on the trained weights."""

    loss: float | None
    accuracy: float
    errors: int


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the store has it now. Times are seconds since 1970 by the database's clock."""

    id: str
    digest: str
    config: RunConfig
    state: RunState
    created_at: float
    finished_at: float | None
    attempts: int
    stop_requested: bool
    epoch: int
    step: int
    steps_per_epoch: int | None
    seconds: float
    images_per_second: float | None
    device: str | None
    error: str | None
    notice: str | None
    """Something the user should know that is no error: the worker stopped and the run went on, a damaged checkpoint."""
    diverged_step: int | None
    test: Result | None
    versions: dict[str, str] = field(hash=False)
    name: str | None = None
    """What somebody called it; `title` is what to show."""
    note: str = ""
    starred: bool = False
    archived: bool = False
    revision: int = 0
    """Counts the edits of name and note: an edit names the one that it read."""
    colour: int = 0
    """Its place in the palette, the same on every page."""
    family: str = ""
    """Equal for runs that differ only in their seeds."""

    @property
    def title(self) -> str:
        return self.name or self.config.label


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch of a run's history. Losses in nats, accuracies in 0..1; None where nothing was measured."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A run and its history."""

    run: Run
    history: tuple[EpochRow, ...]


@dataclass(frozen=True, slots=True)
class TestRow:
    """The test set looked at after `step` steps, because the configuration watches it every n steps."""

    step: int
    loss: float | None
    accuracy: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to train a run, until a newer attempt is claimed. `attempt` is the fence of every write."""

    run_id: str
    config: RunConfig
    attempt: int
    epoch: int
    step: int
    seconds: float
    """Training seconds up to the checkpoint that it goes on from."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How long one step took, for a model of so many parameters and a batch of so many images."""

    shape: str
    flops: float
    seconds: float


def best_epoch(history: tuple[EpochRow, ...] | list[EpochRow]) -> EpochRow | None:
    """The epoch with the highest validation accuracy (the lower loss, then the earlier one, of equals), or None."""
    scored = [row for row in history if row.valid_accuracy is not None]
    if not scored:
        return None
    return min(scored, key=lambda row: (-(row.valid_accuracy or 0.0), row.valid_loss or 0.0, row.epoch))
