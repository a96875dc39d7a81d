"""Every error raised on purpose, in one tree.

    MnistlrError
    ├── ConfigError          a configuration breaks rules; carries every problem at once
    ├── DatasetError
    │   ├── DatasetMissing   not prepared here, and could not be fetched
    │   ├── DatasetDamaged   a file is there, but is not what it should be
    │   └── DownloadFailed   the mirrors did not deliver in time
    ├── StoreError
    │   ├── StoreDamaged     the database is not one of ours, or is broken
    │   ├── StoreNewer       the database was written by a newer program
    │   └── StoreBusy        another process held the database for too long
    ├── RunError
    │   ├── RunNotFound      no run has this id
    │   ├── RunActive        the run is queued or running, so it can't be deleted
    │   ├── EditRefused      a name, note or tag breaks a rule
    │   ├── EditConflict     somebody else edited the run in the meantime
    │   └── FenceLost        this attempt was superseded; its writes are refused
    ├── ArtifactError
    │   ├── ArtifactMissing  the store names a file that is gone
    │   └── ArtifactDamaged  the file is not the one that was written
    └── EngineUnavailable    no scheduler or no worker answers

A message says the rule, the value it got and what to do; it is fit to be shown to a user.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ArtifactDamaged",
    "ArtifactError",
    "ArtifactMissing",
    "ConfigError",
    "DatasetDamaged",
    "DatasetError",
    "DatasetMissing",
    "DownloadFailed",
    "EditConflict",
    "EditRefused",
    "EngineUnavailable",
    "FenceLost",
    "MnistlrError",
    "Problem",
    "RunActive",
    "RunError",
    "RunNotFound",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreNewer",
]


class MnistlrError(Exception):
    """The root of every error that mnistlr raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One rule that a configuration breaks."""

    field: str
    rule: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}; got {self.value}"


class ConfigError(MnistlrError):
    """A configuration breaks one or more rules; `problems` holds all of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


class DatasetError(MnistlrError):
    """Something about a dataset's files."""


class DatasetMissing(DatasetError):
    """The dataset is not prepared on this machine."""


class DatasetDamaged(DatasetError):
    """A dataset's file is not what it should be; it is never trained on."""


class DownloadFailed(DatasetError):
    """No mirror delivered the dataset before the deadline."""


class StoreError(MnistlrError):
    """Something about the database of runs."""


class StoreDamaged(StoreError):
    """The database is broken, or is not one of ours; it is left as it is."""


class StoreNewer(StoreError):
    """The database was written by a newer version of mnistlr."""


class StoreBusy(StoreError):
    """Another process held the database for longer than the busy timeout."""


class RunError(MnistlrError):
    """Something about one run."""


class RunNotFound(RunError):
    """No run has this id."""


class RunActive(RunError):
    """The run is queued or running: stop it first."""


class EditRefused(RunError):
    """A name, a note or a tag is too long, or has what it may not have."""


class EditConflict(RunError):
    """Somebody else edited the run since it was read; nothing of this edit was written."""


class FenceLost(RunError):
    """The run was given to a newer attempt, so this attempt may write no more."""


class ArtifactError(MnistlrError):
    """Something about a stored file."""


class ArtifactMissing(ArtifactError):
    """The store names a file that is not there."""


class ArtifactDamaged(ArtifactError):
    """The file's size or sha256 is not what the store recorded."""


class EngineUnavailable(MnistlrError):
    """No scheduler or no worker answers."""
