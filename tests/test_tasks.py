"""A training attempt on a worker, from claim to stored result, run here without Dask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from mnistlr_core import attempts as attempts_module
from mnistlr_core import fetch, recording, tasks
from mnistlr_core.artifacts import Artifacts
from mnistlr_core.attempts import Attempts
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.data import load
from mnistlr_core.errors import FenceLost
from mnistlr_core.models import build, load_weights
from mnistlr_core.records import EpochRow, Run, RunState
from mnistlr_core.scaling import affine
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store

LINEAR = {"dataset": "digits", "epochs": 4, "learning_rate": 0.1, "batch_size": 32}


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit and checkpoint at every opportunity, however short the epochs."""
    monkeypatch.setattr(recording, "COMMIT_SECONDS", 0.0)


def test_a_run_is_trained_to_the_end(settings: Settings, store: Store) -> None:
    run = train(settings, store, LINEAR)
    assert (run.state, run.epoch, run.step) == (RunState.FINISHED, 4, 4 * 41)
    assert run.test is not None
    assert run.test.errors == round(360 * (1 - run.test.accuracy))
    assert run.test.accuracy > 0.8
    assert len(store.history(run.id)) == 4
    assert len(store.step_losses(run.id)) == run.step
    assert run.device is not None
    assert run.device.startswith("CPU")
    assert set(run.versions) == {"mnistlr", "python", "torch", "numpy"}


def test_the_stored_weights_give_the_stored_predictions(settings: Settings, store: Store) -> None:
    values = LINEAR | {
        "architecture": "mlp",
        "hidden": "20",
        "inputs": "standardised",
        "optimizer": "adam",
        "epochs": 2,
    }
    run = train(settings, store, values)
    dataset = load("digits", settings.prepared)
    module = build(run.config, pixels=64, classes=10)
    load_weights(module, read(settings, store, run, "weights"))
    scaling = affine(run.config.inputs, mean=dataset.pixel_mean, std=dataset.pixel_std)
    images = torch.from_numpy(np.array(dataset.test_images)).float() * scaling.scale + scaling.shift
    with torch.no_grad():
        expected = torch.log_softmax(module(images), 1).numpy()
    arrays = safetensors.numpy.load(read(settings, store, run, "predictions"))
    np.testing.assert_allclose(arrays["log_probabilities"], expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(arrays["predicted"], expected.argmax(1))
    assert arrays["predicted_by_epoch"].shape == (2, 360)
    np.testing.assert_array_equal(arrays["predicted_by_epoch"][-1], arrays["predicted"])
    assert run.test is not None
    assert run.test.errors == int((arrays["predicted"] != dataset.test_labels).sum())


def test_training_again_after_deleting_gives_the_same_numbers(settings: Settings, store: Store) -> None:
    first, rows, losses = outcome(store, train(settings, store, LINEAR))
    store.delete(first.id)
    second, rows_again, losses_again = outcome(store, train(settings, store, LINEAR))
    assert (rows, first.test) == (rows_again, second.test)
    assert losses.tobytes() == losses_again.tobytes()


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
def test_an_interrupted_run_ends_with_the_numbers_of_an_unbroken_one(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    values = LINEAR | {"optimizer": optimizer, "learning_rate": 0.01, "test_watch": "epoch"}
    if optimizer == "sgd":
        values |= {"momentum": 0.9}
    unbroken, rows, losses = outcome(store, train(settings, store, values))
    store.delete(unbroken.id)
    with monkeypatch.context() as patch:
        die_after(patch, commits=5)
        with pytest.raises(SystemExit):
            train(settings, store, values)
    assert 0 < store.run(unbroken.id).epoch < 4
    resumed, rows_again, losses_again = outcome(store, train(settings, store, values))
    assert resumed.attempts == 2
    assert "went on from epoch" in (resumed.notice or "")
    assert (rows_again, resumed.test) == (rows, unbroken.test)
    assert losses_again.tobytes() == losses.tobytes()


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize(("damaged", "words"), [(1, "The last checkpoint was damaged"), (2, "began again")])
def test_a_damaged_checkpoint_falls_back(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, damaged: int, words: str
) -> None:
    unbroken, rows, losses = outcome(store, train(settings, store, LINEAR))
    store.delete(unbroken.id)
    with monkeypatch.context() as patch:
        die_after(patch, commits=6)
        with pytest.raises(SystemExit):
            train(settings, store, LINEAR)
    checkpoints = store.checkpoints(unbroken.id)
    assert len(checkpoints) == 2
    for _, stored in checkpoints[:damaged]:
        path = settings.home / "artifacts" / stored.path
        path.write_bytes(path.read_bytes()[:-1])
    resumed, rows_again, losses_again = outcome(store, train(settings, store, LINEAR))
    assert words in (resumed.notice or "")
    assert rows_again == rows
    assert losses_again.tobytes() == losses.tobytes()


@pytest.mark.usefixtures("every_epoch")
def test_a_stopped_run_keeps_what_was_trained_and_goes_on_when_asked(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, rows, _ = outcome(store, train(settings, store, LINEAR))
    store.delete(unbroken.id)
    with monkeypatch.context() as patch:
        on_commit(patch, 5, lambda: store.request_stop(unbroken.id))
        stopped = train(settings, store, LINEAR)
    assert stopped.state is RunState.STOPPED
    assert 0 < stopped.step < unbroken.step
    assert stopped.test is not None
    assert store.artifact(stopped.id, "weights")
    assert store.history(stopped.id) == rows[: stopped.epoch]
    finished = train(settings, store, LINEAR)
    assert (finished.state, store.history(finished.id), finished.test) == (RunState.FINISHED, rows, unbroken.test)


def test_divergence_is_a_result_with_its_step(settings: Settings, store: Store) -> None:
    values = LINEAR | {"inputs": "raw", "learning_rate": 100.0, "momentum": 0.999, "weight_decay": 10.0}
    run = train(settings, store, values)
    assert run.state is RunState.DIVERGED
    assert run.diverged_step is not None
    losses = store.step_losses(run.id)
    assert not losses[run.diverged_step - 1] < 1e6
    assert (losses[: run.diverged_step - 1] < 1e6).all()
    assert run.test is None


def test_watching_the_test_set_changes_nothing(settings: Settings, store: Store) -> None:
    quiet, rows, losses = outcome(store, train(settings, store, LINEAR))
    watched, watched_rows, watched_losses = outcome(
        store, train(settings, store, LINEAR | {"test_watch": "steps", "test_watch_steps": 50})
    )
    assert losses.tobytes() == watched_losses.tobytes()
    assert (watched.test, watched_rows) == (quiet.test, rows)
    assert [look.step for look in store.test_rows(watched.id)] == [50, 100, 150]
    by_epoch = train(settings, store, LINEAR | {"test_watch": "epoch"})
    history = store.history(by_epoch.id)
    assert by_epoch.test is not None
    assert (history[-1].test_loss, history[-1].test_accuracy) == (by_epoch.test.loss, by_epoch.test.accuracy)


def test_a_superseded_worker_is_refused_and_writes_no_more(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "COMMIT_SECONDS", 0.0)
    run_id = store.submit(parse_config(LINEAR)).run_id

    def take_over() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(attempts_module, "LEASE_SECONDS", 60.0)
            assert Attempts(store).claim(run_id, "the ticket") is not None

    on_commit(monkeypatch, 5, take_over)
    with pytest.raises(FenceLost):
        tasks.train(settings.model_dump_json(), run_id, "the ticket")
    run = store.run(run_id)
    assert (run.state, run.attempts) == (RunState.RUNNING, 2)


def test_only_referenced_files_stay(settings: Settings, store: Store) -> None:
    run = train(settings, store, LINEAR)
    names = sorted(path.name for path in (settings.home / "artifacts" / run.id).iterdir())
    assert names == ["a1-predictions.safetensors", "a1-weights.safetensors"]


def test_a_missing_data_set_fails_in_words(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNISTLR_MIRROR", "http://127.0.0.1:9/")
    run = train(settings, store, LINEAR | {"dataset": "mnist"})
    assert run.state is RunState.FAILED
    assert "MNIST" in (run.error or "")
    assert str(tmp_path) not in (run.error or "")


def test_a_surprise_fails_in_words(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "save_weights", explode)
    run = train(settings, store, LINEAR)
    assert run.state is RunState.FAILED
    assert run.error == "Training stopped with an error: RuntimeError: boom"


def test_without_room_the_run_waits(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Artifacts, "write", full)
        with pytest.raises(OSError, match="No space"):
            train(settings, store, LINEAR)
    run_id = parse_config(LINEAR).short_id
    assert store.run(run_id).state is RunState.RUNNING
    assert train(settings, store, LINEAR).state is RunState.FINISHED


def test_warming_up_measures_a_step_of_each_kind(settings: Settings, store: Store) -> None:
    assert tasks.warm(settings.model_dump_json()).startswith("CPU")
    assert len(store.speeds()) == 2
    assert all(0 < speed.seconds < 10 for speed in store.speeds())


def test_preparing_tells_how_it_went(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.prepare(settings.model_dump_json(), "digits")
    monkeypatch.setattr(fetch, "prepare", explode)
    with pytest.raises(RuntimeError):
        tasks.prepare(settings.model_dump_json(), "digits")


def train(settings: Settings, store: Store, values: dict[str, Any]) -> Run:
    """Submit and train, as the engine and a worker would, with the ticket that the queue gives out."""
    config: RunConfig = parse_config(values)
    run_id = store.submit(config).run_id
    tickets = dict(store.waiting(10))
    tasks.train(settings.model_dump_json(), run_id, tickets.get(run_id, f"{run_id}-1"))
    return store.run(run_id)


def outcome(store: Store, run: Run) -> tuple[Run, tuple[EpochRow, ...], np.ndarray]:
    return run, store.history(run.id), store.step_losses(run.id)


def read(settings: Settings, store: Store, run: Run, name: str) -> bytes:
    stored = store.artifact(run.id, name)
    assert stored is not None
    return Artifacts(settings.artifact_url).read(stored)


def on_commit(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Do something just before a worker's n-th commit."""
    commits, progress = iter(range(1, 10**6)), Attempts.progress

    def counted(self: Attempts, *arguments: Any, **values: Any) -> bool:
        if next(commits) == number:
            act()
        return progress(self, *arguments, **values)

    monkeypatch.setattr(Attempts, "progress", counted)


def die_after(monkeypatch: pytest.MonkeyPatch, commits: int) -> None:
    """Leave the training without a word to the store, as a kill would."""

    def die() -> None:
        raise SystemExit

    on_commit(monkeypatch, commits, die)


def explode(*arguments: object, **values: object) -> bytes:
    raise RuntimeError("boom")
