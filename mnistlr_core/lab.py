"""The facade: all that a page or the command line may touch.

Reading never starts anything; submitting, fetching and `start` bring the engine up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from mnistlr_core import data
from mnistlr_core.artifacts import Artifacts
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import RunConfig
from mnistlr_core.engine import Engine
from mnistlr_core.errors import ArtifactDamaged, ArtifactMissing
from mnistlr_core.estimate import Workload, estimate_seconds, workload
from mnistlr_core.evaluation import Predictions
from mnistlr_core.library import Library
from mnistlr_core.records import EpochRow, Evidence, Outcome, Run, Submission, TestRow
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from mnistlr_core.survey import Division, Survey, divide, survey

__all__ = ["Lab", "Preview"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What pressing Train would come to."""

    outcome: Outcome
    seconds: float | None
    """How long a new run would take; None while nothing was measured."""


class Lab:
    """One per process. Every method is safe to call from any thread.

    Raises (any method): StoreError and its kind when the store does not answer.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._store = Store(self.settings.database)
        self._artifacts = Artifacts(self.settings.artifact_url)
        self._engine = Engine(self.settings, self._store)
        self.library = Library(self._store)
        """Runs as people look for and keep them."""
        self._predictions = lru_cache(maxsize=32)(self._read_predictions)
        self._dataset = lru_cache(maxsize=8)(self._open_dataset)
        self._survey = lru_cache(maxsize=8)(self._make_survey)
        self._division = lru_cache(maxsize=32)(self._make_division)

    def start(self) -> None:
        """Bring the engine up in the background, so that the first run needs not wait for it."""
        self._engine.start()

    def close(self) -> None:
        """End what this lab started. Runs that are training go on from their checkpoints when a lab next starts."""
        self._engine.close()
        self._store.close()

    @property
    def device(self) -> str | None:
        """What the worker trains on, by name; None until it is up."""
        return self._engine.device

    @property
    def trouble(self) -> str | None:
        """Why nothing is being trained just now, in words; None when all is well."""
        return self._engine.trouble

    # Runs ------------------------------------------------------------------------------------------------------------

    def preview(self, config: RunConfig) -> Preview:
        """What `submit` would come to, and how long it would take."""
        return Preview(self._store.preview(config), estimate_seconds(config, self._store.speeds()))

    def submit(self, config: RunConfig) -> Submission:
        """Train `config`, or find that it was trained, or is being trained."""
        submission = self._store.submit(config)
        if submission.outcome is not Outcome.CACHED:
            self._engine.wake()
        return submission

    def run(self, run_id: str) -> Run:
        """One run. Raises RunNotFound."""
        return self._store.run(run_id)

    def find(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Those of the runs that exist, by their whole ids, in the order asked for."""
        found = self._store.find(run_ids)
        return {run_id: found[run_id] for run_id in run_ids if run_id in found}

    def runs(self, *, limit: int = 100, offset: int = 0) -> tuple[Run, ...]:
        """Runs, newest first."""
        return self._store.runs(limit=limit, offset=offset)

    def history(self, run_id: str) -> tuple[EpochRow, ...]:
        return self._store.history(run_id)

    def histories(self, run_ids: Sequence[str]) -> dict[str, tuple[EpochRow, ...]]:
        """The finished epochs of several runs, by their whole ids."""
        return self._store.histories(run_ids)

    def evidence(self, configs: Sequence[RunConfig]) -> dict[str, Evidence]:
        """Those of the configurations' runs that exist, with their histories, by id: two queries for any number."""
        runs = self._store.find([config.short_id for config in configs])
        histories = self._store.histories(list(runs))
        return {run_id: Evidence(run, histories[run_id]) for run_id, run in runs.items()}

    def epoch_seconds(self, run_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The training seconds at the end of each finished epoch, float32 [epochs], of several runs."""
        return self._store.epoch_seconds(run_ids)

    def workload(self, configs: Sequence[RunConfig], runs: Mapping[str, Evidence]) -> Workload:
        """How far the runs of `configs` have come together, and how long the rest of them will take."""
        found = {run_id: evidence.run for run_id, evidence in runs.items()}
        work = workload(configs, found, self._store.speeds())
        return replace(work, seconds=work.seconds / self.settings.workers) if work.seconds is not None else work

    def step_losses(self, run_id: str) -> NDArray[np.float32]:
        """The training loss of every step so far, float32 [steps]."""
        return self._store.step_losses(run_id)

    def test_rows(self, run_id: str) -> tuple[TestRow, ...]:
        return self._store.test_rows(run_id)

    def stop(self, run_id: str) -> None:
        """Ask a run to stop; it keeps what was trained. Raises RunNotFound."""
        self._store.request_stop(self._store.run(run_id).id)

    def delete(self, run_id: str) -> None:
        """Delete a run with its history and files. Raises RunNotFound, RunActive."""
        run = self._store.run(run_id)
        self._store.delete(run.id)
        self._artifacts.delete(run.id)
        self._predictions.cache_clear()

    def weights(self, run: Run) -> bytes:
        """A run's trained weights as a safetensors file, whose keys are those of a plain `nn.Sequential`.

        Raises ArtifactMissing, ArtifactDamaged: train the run again.
        """
        stored = self._store.artifact(run.id, "weights")
        if stored is None:
            raise ArtifactMissing(f"run {run.id} keeps no weights; train it to its end, or stop it after an epoch")
        return self._artifacts.read(stored)

    def predictions(self, run: Run) -> Predictions:
        """What a finished or stopped run read in the test images.

        Raises:
            ArtifactMissing, ArtifactDamaged: train the run again.
            DatasetMissing, DatasetDamaged: the images are not here.
        """
        return self._predictions(run.id, run.attempts)

    def _read_predictions(self, run_id: str, attempt: int) -> Predictions:
        run = self._store.run(run_id)
        stored = self._store.artifact(run_id, "predictions")
        if stored is None:
            raise ArtifactMissing(f"run {run_id} keeps no predictions; train it again to make them anew")
        try:
            arrays = safetensors.numpy.load(self._artifacts.read(stored))
            return Predictions(
                arrays["log_probabilities"], arrays["predicted"], self.dataset(run.config.dataset).test_labels
            )
        except (KeyError, ValueError, safetensors.SafetensorError) as error:
            raise ArtifactDamaged(f"the predictions of run {run_id} can't be read; train it again") from error

    # Data ------------------------------------------------------------------------------------------------------------

    def dataset(self, name: str) -> data.Dataset:
        """A prepared data set, memory-mapped. Raises DatasetMissing, DatasetDamaged."""
        return self._dataset(name)

    def _open_dataset(self, name: str) -> data.Dataset:
        return data.load(name, self.settings.prepared)

    def origin(self, name: str) -> data.Origin:
        """Where a prepared data set is and where it came from. Raises DatasetMissing, DatasetDamaged."""
        return data.origin(name, self.settings.prepared)

    def survey(self, name: str) -> Survey:
        """What a data set's training images look like, found out once. Raises DatasetMissing, DatasetDamaged."""
        return self._survey(name)

    def _make_survey(self, name: str) -> Survey:
        return survey(self.dataset(name))

    def division(self, name: str, valid_fraction: float) -> Division:
        """What each image is for, with this share for validation.

        Raises DatasetMissing, DatasetDamaged, and ConfigError for a share out of its range.
        """
        return self._division(name, valid_fraction)

    def _make_division(self, name: str, valid_fraction: float) -> Division:
        opened = self.dataset(name)
        classes = len(opened.info.classes)
        return divide(opened.train_labels, opened.test_labels, classes=classes, valid_fraction=valid_fraction)

    def dataset_status(self, name: str) -> data.DatasetStatus:
        return data.status(name, self.settings.prepared)

    def fetch(self, name: str) -> None:
        """Make a data set ready on a worker; `dataset_status` says how that goes."""
        self._engine.prepare(name)

    def fetching(self, name: str) -> bool:
        """Whether this lab's engine still has the data set in hand."""
        return self._engine.preparing(name)

    def dataset_statuses(self) -> Sequence[data.DatasetStatus]:
        return tuple(data.status(name, self.settings.prepared) for name in DATASETS)
