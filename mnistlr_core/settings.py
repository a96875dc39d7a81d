"""Where things are, and what this machine may use: all from the environment, all optional.

Every name is prefixed with `MNISTLR_`: `MNISTLR_HOME`, `MNISTLR_DATA`, … A field's description is its documentation.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """The surroundings of a lab. Passed to workers as JSON, so that they use the same store and files."""

    model_config = SettingsConfigDict(env_prefix="MNISTLR_", frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = Field(default=Path("runs"), description="Store, artifacts, prepared arrays and logs.")
    data: Path | None = Field(
        default=None,
        description="Where torchvision's data sets are, or go; default `datasets` in the home. May be read-only.",
    )
    database_url: str | None = Field(
        default=None, description="An SQLAlchemy URL; default an SQLite file in the home.", repr=False
    )
    artifacts: str | None = Field(
        default=None,
        description="An fsspec URL for weights, predictions and checkpoints; default a folder in the home.",
    )
    scheduler: str | None = Field(
        default=None, description="Join the Dask cluster at this address (tcp://… or tls://…) and start nothing here."
    )
    workers: int = Field(default=1, ge=1, le=64, description="Local workers to start; each trains one run at a time.")
    device: str = Field(default="auto", description="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1, mps.")

    def model_post_init(self, context: object, /) -> None:
        """Make the paths absolute: workers may have another working directory."""
        object.__setattr__(self, "home", self.home.expanduser().absolute())
        if self.data is not None:
            object.__setattr__(self, "data", self.data.expanduser().absolute())

    @property
    def datasets(self) -> Path:
        """torchvision's root."""
        return self.data or self.home / "datasets"

    @property
    def prepared(self) -> Path:
        """The prepared `.npy` arrays of each data set."""
        return self.home / "prepared"

    @property
    def engine(self) -> Path:
        """The local cluster's scheduler file, logs and scratch space."""
        return self.home / "engine"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{(self.home / 'mnistlr.db').as_posix()}"

    @property
    def artifact_url(self) -> str:
        return self.artifacts or (self.home / "artifacts").as_posix()

    @property
    def threads(self) -> int:
        """Processor threads for each local worker."""
        return max(1, _processors() // self.workers)


def _processors() -> int:
    """Processors this process may use: a container or `taskset` may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
