"""What a training attempt writes down: progress and checkpoints a few times a second, and at the end the predictions.

Progress and the checkpoint that it was made at are committed together. What was committed after the last checkpoint is
dropped and done again, to the same numbers, should the worker stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnistlr_core.artifacts import Artifacts, Stored
from mnistlr_core.attempts import Attempts
from mnistlr_core.config import TestWatch
from mnistlr_core.estimate import shape_of, step_flops
from mnistlr_core.evaluation import rounded
from mnistlr_core.records import Claim, EpochRow, Speed, TestRow
from mnistlr_core.training import Cohort, EpochDone, Score, Steps, most_likely, scores

__all__ = ["COMMIT_SECONDS", "Recorder", "predicted_classes", "predictions_file"]

COMMIT_SECONDS = 0.25
"""Progress is committed this often: a stop is noticed and a watcher served within it, at 1 % of the training's time."""


@dataclass
class Recorder:
    """What was trained and not committed yet, and the clock that says when to."""

    attempts: Attempts
    artifacts: Artifacts
    claim: Claim
    cohort: Cohort
    predicted: list[NDArray[np.uint8]]
    """The class read for each test image after each epoch, uint8 [test images] an epoch."""
    started: float = field(default_factory=monotonic)
    images: int = 0
    first_step: int = field(init=False)
    _turn: int = 0
    _committed: float = field(default_factory=monotonic)
    _checkpointed: float = field(default_factory=monotonic)
    _losses: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)
    _history: list[tuple[EpochRow, int, float]] = field(default_factory=list)
    _tests: list[TestRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first_step = self.cohort.step

    @property
    def seconds(self) -> float:
        return self.claim.seconds + monotonic() - self.started

    def add_steps(self, steps: Steps) -> None:
        self._losses.append((steps.first_step, steps.losses[0]))
        self.images += steps.images

    def add_test(self, score: Score) -> None:
        self._tests.append(TestRow(self.cohort.step, score.loss, score.accuracy))

    def add_epoch(self, done: EpochDone, log_probabilities: Tensor) -> None:
        self.predicted.append(predicted_classes(log_probabilities))
        train, valid = done.train[0], done.valid[0] if done.valid else None
        watched = self.claim.config.test_watch is TestWatch.EPOCH
        test = scores(log_probabilities, self.cohort.data.test.labels)[0] if watched else None
        row = EpochRow(
            done.epoch,
            train.loss,
            train.accuracy,
            valid.loss if valid else None,
            valid.accuracy if valid else None,
            test.loss if test else None,
            test.accuracy if test else None,
        )
        self._history.append((row, done.step, self.seconds))

    def commit_if_due(self) -> bool:
        return self.commit() if monotonic() - self._committed >= COMMIT_SECONDS else False

    def checkpoint_if_due(self) -> bool:
        """Commit with a checkpoint: after every epoch, or every `COMMIT_SECONDS` where epochs are shorter."""
        if monotonic() - self._checkpointed < COMMIT_SECONDS:
            return False
        self._checkpointed = monotonic()
        tensors = self.cohort.state()
        if self.predicted:
            tensors["predicted"] = torch.from_numpy(np.stack(self.predicted))
        # The last two checkpoints are kept, in case the newer one is damaged; a third name by turns, so that writing
        # this one touches neither before it is committed.
        self._turn = (self._turn + 1) % 3
        stored = self.write(f"checkpoint-{self._turn}", safetensors.torch.save(tensors))
        return self.commit((self.cohort.epoch, stored))

    def commit(self, checkpoint: tuple[int, Stored] | None = None) -> bool:
        """Write everything pending in one transaction; returns whether the run was asked to stop."""
        seconds = self.seconds
        stop = self.attempts.progress(
            self.claim,
            step=self.cohort.step,
            seconds=seconds,
            images_per_second=self.images / max(1e-9, seconds - self.claim.seconds) if self.images else None,
            losses=_joined(self._losses, self.cohort.batches_per_epoch),
            history=self._history,
            tests=self._tests,
            checkpoint=checkpoint,
        )
        self._losses, self._history, self._tests = [], [], []
        self._committed = monotonic()
        return stop

    def write(self, name: str, data: bytes) -> Stored:
        """Write a file of this attempt: its number is in the name, so that a superseded worker overwrites nothing."""
        return self.artifacts.write(self.claim.run_id, f"a{self.claim.attempt}-{name}.safetensors", data)

    def speed(self) -> Speed | None:
        """How long a step took in this attempt, or None after too few to tell."""
        steps = self.cohort.step - self.first_step
        if steps < 10:
            return None
        config, data = self.claim.config, self.cohort.data
        flops = step_flops(config, pixels=data.pixels, classes=data.classes)
        return Speed(shape_of(config), flops, (self.seconds - self.claim.seconds) / steps)


def _joined(
    pieces: list[tuple[int, NDArray[np.float32]]], steps_per_epoch: int
) -> list[tuple[int, NDArray[np.float32]]]:
    """Join consecutive pieces of one epoch: a row per commit and epoch, not one per block."""
    joined: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for first, losses in pieces:
        joined.setdefault((first - 1) // steps_per_epoch, []).append((first, losses))
    return [(group[0][0], np.concatenate([losses for _, losses in group])) for group in joined.values()]


def predicted_classes(log_probabilities: Tensor) -> NDArray[np.uint8]:
    """The class read for each image, uint8 [n], of a cohort of one."""
    classes: NDArray[np.uint8] = most_likely(log_probabilities)[0].to(torch.uint8).cpu().numpy()
    return classes


def predictions_file(log_probabilities: Tensor, last: NDArray[np.uint8], epochs: list[NDArray[np.uint8]]) -> bytes:
    """The predictions file: what a page needs to show mistakes, without torch.

    Log-probabilities, not probabilities: float16 keeps three digits of a loss of 15, but would round its probability,
    3e-7, to one digit. The classes read stand beside them, because rounding can tie two classes.
    """
    epochs_read = np.stack(epochs) if epochs else np.empty((0, len(last)), np.uint8)
    arrays = {
        "log_probabilities": rounded(log_probabilities[0].t().cpu().numpy()),
        "predicted": last,
        "predicted_by_epoch": epochs_read,
    }
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
