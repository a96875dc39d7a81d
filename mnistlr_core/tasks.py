"""What runs on a worker: prepare a data set, train a run, warm up. The engine names these functions by text only.

`train` is the way of a run from its configuration to its stored result; read it from top to bottom.
"""

from __future__ import annotations

import errno
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from time import monotonic

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

import mnistlr_core
from mnistlr_core import fetch
from mnistlr_core.artifacts import Artifacts
from mnistlr_core.attempts import LEASE_SECONDS, Attempts
from mnistlr_core.batches import ImageSet
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import RunConfig, TestWatch, parse_config
from mnistlr_core.data import load, split, verify
from mnistlr_core.errors import ArtifactError, FenceLost, MnistlrError, StoreError
from mnistlr_core.estimate import shape_of, step_flops
from mnistlr_core.models import save_weights
from mnistlr_core.recording import Recorder, predicted_classes, predictions_file
from mnistlr_core.records import Claim, Result, RunState, Speed
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from mnistlr_core.training import (
    EXPLODED,
    Cohort,
    Diverged,
    EpochDone,
    Steps,
    TrainingData,
    choose_device,
    device_name,
    scores,
)

__all__ = ["prepare", "train", "warm"]

_SMALL_STEP_FLOPS = 5e7
"""Below this a step is done by one thread: two would wait for one another longer than they compute. (A linear model at
batch 100 has 5e6, at batch 1024 5e7; the 512-128 MLP at batch 64 has 2e8, and gains.) The page keeps the other core."""

_torch_thread = ThreadPoolExecutor(1, thread_name_prefix="torch")
"""All that torch computes here runs on this one thread. Every further thread that calls it gets OpenMP workers of its
own, and when there are more of them than processors, OpenMP puts them to sleep after each operation: an MLP then
trains at half the speed. Dask's own threads change from task to task."""


def train(settings_json: str, run_id: str, ticket: str) -> None:
    """Train one run from its last checkpoint, or from the beginning, until it ends or is asked to stop.

    Nothing is returned: the store has it all. A store that does not answer is raised, and the run given out again.
    """
    settings = Settings.model_validate_json(settings_json)
    attempts, artifacts = Attempts(_store(settings.database)), Artifacts(settings.artifact_url)
    claim = attempts.claim(run_id, ticket)
    if claim is None:
        return
    try:
        with _heartbeat(attempts, claim):
            _torch_thread.submit(_train, settings, artifacts, claim).result()
    except (FenceLost, StoreError):
        raise
    except Exception as error:
        if _no_room(error):
            raise  # the run waits for space, and goes on from its checkpoint
        attempts.finish(claim, RunState.FAILED, error=_in_words(error))


def _train(settings: Settings, artifacts: Artifacts, claim: Claim) -> None:
    store = _store(settings.database)
    attempts = Attempts(store)
    config = claim.config
    device = _set_up_torch(settings, config)
    data = _training_data(settings, config, device)
    cohort = Cohort([config], data)
    claim, predicted = _resume(store, attempts, artifacts, claim, cohort)
    attempts.begin(claim, steps_per_epoch=cohort.batches_per_epoch, device=device_name(device), versions=_versions())
    record = Recorder(attempts, artifacts, claim, cohort, predicted)
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
                _end_diverged(record, progress.step)
                return
        if asked_to_stop and cohort.epoch < config.epochs:
            break
    record.commit()
    log_probabilities = cohort.log_probabilities(data.test)
    score = scores(log_probabilities, data.test.labels)[0]
    if not score.loss < EXPLODED:  # by the very last step, which no batch came after to tell
        _end_diverged(record, cohort.step)
        return
    state = RunState.FINISHED if cohort.epoch == config.epochs else RunState.STOPPED
    last = predicted_classes(log_probabilities)
    files = {
        "weights": record.write("weights", save_weights(cohort.layers(0))),
        "predictions": record.write("predictions", predictions_file(log_probabilities, last, record.predicted)),
    }
    errors = int((last != data.test.labels.cpu().numpy()).sum())
    result = Result(score.loss, score.accuracy, errors)
    kept = attempts.finish(claim, state, result=result, files=files, speed=record.speed())
    artifacts.delete(claim.run_id, keep=kept)


def _end_diverged(record: Recorder, step: int) -> None:
    record.commit()
    kept = record.attempts.finish(record.claim, RunState.DIVERGED, diverged_step=step)
    record.artifacts.delete(record.claim.run_id, keep=kept)


def _resume(
    store: Store, attempts: Attempts, artifacts: Artifacts, claim: Claim, cohort: Cohort
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
            notice = f"The last checkpoint was damaged; the run went on from epoch {epoch}."
            claim = attempts.rewind(claim, epoch, notice)
        return claim, list(tensors["predicted"].numpy())
    fresh = attempts.rewind(claim, 0, "The checkpoints were damaged or gone; the run began again.")
    return fresh, []


@contextmanager
def _heartbeat(attempts: Attempts, claim: Claim) -> Iterator[None]:
    """Renew the lease from a thread of its own: loading data or one very long step must not lose it."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(LEASE_SECONDS / 4):
            with suppress(StoreError):  # busy: the next beat comes in time
                try:
                    attempts.renew(claim)
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
    store = _store(settings.database)
    linear = {"epochs": 3}
    mlp = {"architecture": "mlp", "optimizer": "adam", "learning_rate": 0.001, "batch_size": 64, "epochs": 2}
    known = {speed.shape for speed in store.speeds()}
    for config in (parse_config(linear), parse_config(mlp)):
        speed = _torch_thread.submit(_time_a_step, settings, config).result()
        if speed.shape not in known:  # a real run's measurement is the better one
            store.record_speed(speed)
    return device_name(choose_device(settings.device))


def _time_a_step(settings: Settings, config: RunConfig) -> Speed:
    """Train on blank images of MNIST's size; the first epoch loads the kernels, the others are timed."""
    device = _set_up_torch(settings, config)
    images = torch.zeros(2048, 784, dtype=torch.uint8, device=device)
    rows = torch.arange(2048, device=device)
    blank = ImageSet(images, rows % 10)
    cohort = Cohort([config], TrainingData(blank, blank, rows, rows[:0], 10, 0.13, 0.31))
    started, step = monotonic(), 0
    for progress in cohort.fit():
        if isinstance(progress, EpochDone) and progress.epoch == 1:
            started, step = monotonic(), cohort.step
    seconds = (monotonic() - started) / (cohort.step - step)
    return Speed(shape_of(config), step_flops(config, pixels=784, classes=10), seconds)


def _set_up_torch(settings: Settings, config: RunConfig) -> torch.device:
    """The same configuration must give the same numbers on one machine: threads by rule, deterministic kernels."""
    info = DATASETS[config.dataset]
    small = step_flops(config, pixels=info.pixels, classes=len(info.classes)) < _SMALL_STEP_FLOPS
    threads = 1 if small else settings.threads
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # By default that also clears every new buffer, to find reads of garbage.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
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
