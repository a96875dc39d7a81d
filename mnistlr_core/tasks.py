"""What runs on a worker: prepare a data set, train a run, warm up. The engine names these functions by text only.

`train` is the way of a run from its configuration to its stored result; read it from top to bottom.
"""

from __future__ import annotations

import errno
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from time import monotonic

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

import mnistlr_core
from mnistlr_core import fetch
from mnistlr_core.artifacts import Artifacts, Stored
from mnistlr_core.config import RunConfig, TestWatch, parse_config
from mnistlr_core.data import DATASETS, load, split, verify
from mnistlr_core.errors import ArtifactError, FenceLost, MnistlrError, StoreError
from mnistlr_core.estimate import shape_of, step_flops
from mnistlr_core.models import save_weights
from mnistlr_core.records import Claim, EpochRow, Result, RunState, Speed, TestRow
from mnistlr_core.settings import Settings
from mnistlr_core.store import LEASE_SECONDS, Store
from mnistlr_core.training import (
    Cohort,
    Diverged,
    EpochDone,
    ImageSet,
    Score,
    Steps,
    TrainingData,
    choose_device,
    device_name,
    scores,
)

__all__ = ["prepare", "train", "warm"]

COMMIT_SECONDS = 0.25
"""Progress is committed this often: a stop is noticed and a watcher served within it, at 1 % of the training's time."""


def train(settings_json: str, run_id: str, ticket: str) -> None:
    """Train one run from its last checkpoint, or from the beginning, until it ends or is asked to stop.

    Nothing is returned: the store has it all. A store that does not answer is raised, and the run given out again.
    """
    settings = Settings.model_validate_json(settings_json)
    store, artifacts = _store(settings.database), Artifacts(settings.artifact_url)
    claim = store.claim(run_id, ticket)
    if claim is None:
        return
    try:
        with _heartbeat(store, claim):
            _train(settings, store, artifacts, claim)
    except (FenceLost, StoreError):
        raise
    except Exception as error:
        if _no_room(error):
            raise  # the run waits for space, and goes on from its checkpoint
        store.finish(claim, RunState.FAILED, error=_in_words(error))


def _train(settings: Settings, store: Store, artifacts: Artifacts, claim: Claim) -> None:
    config = claim.config
    device = _set_up_torch(settings)
    data = _training_data(settings, config, device)
    cohort = Cohort([config], data)
    claim, predicted = _resume(store, artifacts, claim, cohort)
    store.begin(claim, steps_per_epoch=cohort.batches_per_epoch, device=device_name(device), versions=_versions())
    record = _Record(store, artifacts, claim, cohort, predicted)
    asked_to_stop = False
    for progress in cohort.fit():
        match progress:
            case Steps():
                record.add_steps(progress)
                if config.test_watch is TestWatch.STEPS and cohort.step % config.test_watch_steps == 0:
                    record.add_test(cohort.score(data.test)[0])
                asked_to_stop = record.commit_if_due()
            case EpochDone():
                record.add_epoch(progress, cohort.log_probabilities(data.test))
                asked_to_stop = record.checkpoint_if_due()
            case Diverged():
                record.commit()
                kept = store.finish(claim, RunState.DIVERGED, diverged_step=progress.step)
                artifacts.delete(claim.run_id, keep=kept)
                return
        if asked_to_stop and cohort.epoch < config.epochs:
            break
    record.commit()
    log_probabilities = cohort.log_probabilities(data.test)
    score = scores(log_probabilities, data.test.labels)[0]
    state = RunState.FINISHED if cohort.epoch == config.epochs else RunState.STOPPED
    last = _predicted(log_probabilities)
    files = {
        "weights": record.write("weights", save_weights(cohort.layers(0))),
        "predictions": record.write("predictions", _predictions(log_probabilities, last, record.predicted)),
    }
    errors = int((last != data.test.labels.cpu().numpy()).sum())
    result = Result(score.loss, score.accuracy, errors)
    kept = store.finish(claim, state, result=result, files=files, speed=record.speed())
    artifacts.delete(claim.run_id, keep=kept)


@dataclass
class _Record:
    """What was trained and not committed yet, and the clock that says when to."""

    store: Store
    artifacts: Artifacts
    claim: Claim
    cohort: Cohort
    predicted: list[NDArray[np.uint8]]
    """The class read for each test image after each epoch, uint8 [test images] an epoch."""
    started: float = field(default_factory=monotonic)
    images: int = 0
    first_step: int = field(init=False)
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
        self.predicted.append(_predicted(log_probabilities))
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
        """Commit with a checkpoint: after every epoch, or of epochs shorter than a commit's interval as they fall due."""
        if monotonic() - self._checkpointed < COMMIT_SECONDS:
            return False
        self._checkpointed = monotonic()
        tensors = self.cohort.state()
        if self.predicted:
            tensors["predicted"] = torch.from_numpy(np.stack(self.predicted))
        # Two names by turns: the last two checkpoints are kept, in case the newer one is damaged.
        stored = self.write(f"checkpoint-{self.cohort.epoch % 2}", safetensors.torch.save(tensors))
        return self.commit((self.cohort.epoch, stored))

    def commit(self, checkpoint: tuple[int, Stored] | None = None) -> bool:
        """Write everything pending in one transaction; returns whether the run was asked to stop."""
        seconds = self.seconds
        stop = self.store.progress(
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


def _resume(
    store: Store, artifacts: Artifacts, claim: Claim, cohort: Cohort
) -> tuple[Claim, list[NDArray[np.uint8]]]:
    """Load the newest checkpoint that can be read; fall back to the one before, then to the beginning."""
    if claim.epoch == 0:
        return claim, []
    for epoch, stored in store.checkpoints(claim.run_id):
        try:
            tensors = safetensors.torch.load(artifacts.read(stored))
            cohort.load_state(tensors)
        except (ArtifactError, safetensors.SafetensorError, KeyError, RuntimeError):
            continue
        if epoch != claim.epoch:
            claim = store.rewind(claim, epoch, f"The last checkpoint was damaged; the run went on from epoch {epoch}.")
        return claim, list(tensors["predicted"].numpy())
    fresh = store.rewind(claim, 0, "The checkpoints were damaged or gone; the run began again.")
    return fresh, []


@contextmanager
def _heartbeat(store: Store, claim: Claim) -> Iterator[None]:
    """Renew the lease from a thread of its own: loading data or one very long step must not lose it."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(LEASE_SECONDS / 4):
            with suppress(StoreError):  # busy: the next beat comes in time
                try:
                    store.renew(claim)
                except FenceLost:
                    return  # the next commit will say so too, and end the training

    thread = threading.Thread(target=beat, name=f"heartbeat-{claim.run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def prepare(settings_json: str, name: str) -> None:
    """Make a data set's arrays ready, fetching its files if they are not there. Its status says how that goes."""
    settings = Settings.model_validate_json(settings_json)
    with suppress(MnistlrError):  # the status file has it in words; nobody waits for this task's result
        fetch.prepare(name, source=settings.datasets, prepared=settings.prepared)


def warm(settings_json: str) -> str:
    """Load torch and its kernels before the first run needs them, and time a step of each kind for the estimates.

    Returns the device's name.
    """
    settings = Settings.model_validate_json(settings_json)
    device = _set_up_torch(settings)
    store = _store(settings.database)
    known = {speed.shape for speed in store.speeds()}
    images = torch.zeros(2048, 784, dtype=torch.uint8, device=device)
    labels = torch.arange(2048, device=device) % 10
    rows = torch.arange(2048, device=device)
    data = TrainingData(ImageSet(images, labels), ImageSet(images, labels), rows, rows[:0], 10, 0.13, 0.31)
    linear = {"epochs": 3}
    mlp = {"architecture": "mlp", "optimizer": "adam", "learning_rate": 0.001, "batch_size": 64, "epochs": 2}
    for values in (linear, mlp):
        config = parse_config(values)
        cohort = Cohort([config], data)
        started, step = monotonic(), 0
        for progress in cohort.fit():
            if isinstance(progress, EpochDone) and progress.epoch == 1:  # the first epoch loads the kernels
                started, step = monotonic(), cohort.step
        seconds = (monotonic() - started) / (cohort.step - step)
        if shape_of(config) not in known:
            store.record_speed(Speed(shape_of(config), step_flops(config, pixels=784, classes=10), seconds))
    return device_name(device)


def _set_up_torch(settings: Settings) -> torch.device:
    """The same configuration must give the same numbers on one machine: fixed threads, deterministic kernels."""
    if torch.get_num_threads() != settings.threads:  # the nanny sets OMP_NUM_THREADS=1
        torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would clear every buffer, to find reads of garbage
    return choose_device(settings.device)


def _training_data(settings: Settings, config: RunConfig, device: torch.device) -> TrainingData:
    name = config.dataset
    fetch.prepare(name, source=settings.datasets, prepared=settings.prepared)
    verify(name, settings.prepared)
    train, test, mean, std = _on_device(name, settings, device)
    rows = split(len(train.labels), valid_fraction=config.valid_fraction, train_fraction=config.train_fraction)
    return TrainingData(
        train=train,
        test=test,
        train_rows=torch.from_numpy(rows.train).to(device),
        valid_rows=torch.from_numpy(rows.valid).to(device),
        classes=len(DATASETS[name].classes),
        pixel_mean=mean,
        pixel_std=std,
    )


@lru_cache(maxsize=2)
def _on_device(name: str, settings: Settings, device: torch.device) -> tuple[ImageSet, ImageSet, float, float]:
    """The images in memory, once a worker: 55 MB for MNIST."""
    dataset = load(name, settings.prepared)

    def images(array: NDArray[np.uint8], labels: NDArray[np.uint8]) -> ImageSet:
        flat = np.array(array).reshape(len(array), -1)  # a copy: torch takes no read-only memory
        return ImageSet(torch.from_numpy(flat).to(device), torch.from_numpy(labels.astype(np.int64)).to(device))

    train = images(dataset.train_images, dataset.train_labels)
    return train, images(dataset.test_images, dataset.test_labels), dataset.pixel_mean, dataset.pixel_std


@lru_cache(maxsize=2)
def _store(url: str) -> Store:
    return Store(url)


def _predicted(log_probabilities: Tensor) -> NDArray[np.uint8]:
    """The class read for each image, uint8 [n], of a cohort of one."""
    classes: NDArray[np.uint8] = log_probabilities[0].argmax(0).to(torch.uint8).cpu().numpy()
    return classes


def _predictions(log_probabilities: Tensor, last: NDArray[np.uint8], epochs: list[NDArray[np.uint8]]) -> bytes:
    """The predictions file: what a page needs to show mistakes, without torch.

    Log-probabilities, not probabilities: float16 keeps three digits of a loss of 15, but would round its probability,
    3e-7, to one digit. The classes read stand beside them, because rounding can tie two classes.
    """
    rounded = log_probabilities[0].t().clamp(min=float(np.finfo(np.float16).min)).to(torch.float16)
    epochs_read = np.stack(epochs) if epochs else np.empty((0, len(last)), np.uint8)
    arrays = {"log_probabilities": rounded.cpu().numpy(), "predicted": last, "predicted_by_epoch": epochs_read}
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _versions() -> dict[str, str]:
    return {
        "mnistlr": mnistlr_core.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _no_room(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _in_words(error: Exception) -> str:
    if isinstance(error, MnistlrError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return "The machine ran out of memory; choose smaller hidden layers or a smaller batch."
    return f"Training stopped with an error: {type(error).__name__}: {str(error)[:300]}"
