"""Runs taken to TensorBoard and MLflow: what we write, their own readers open."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnistlr_core import trackers
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.errors import ArtifactError
from mnistlr_core.records import EpochRow, Evidence, Result, RunState
from mnistlr_core.trackers import write_mlflow, write_tensorboard
from tests.conftest import Wanting
from tests.evidence import evidence

CONFIG = parse_config({"architecture": "mlp", "hidden": "20, 10", "learning_rate": 0.1, "epochs": 2})
HISTORY = (EpochRow(1, 0.9, 0.6, 0.8, 0.7, None, None), EpochRow(2, 0.5, 0.8, 0.6, 0.75, None, None))
LOSSES = np.linspace(2.3, 0.4, 20, dtype=np.float32)
SCALARS = {
    "loss/train": [(10, 0.9), (20, 0.5)],
    "accuracy/train": [(10, 0.6), (20, 0.8)],
    "loss/valid": [(10, 0.8), (20, 0.6)],
    "accuracy/valid": [(10, 0.7), (20, 0.75)],
    "loss/test": [(20, 0.7)],
    "accuracy/test": [(20, 0.74)],
}
FINISHED_AT = 1.7e9


def finished(config: RunConfig = CONFIG, **changes: Any) -> Evidence:
    run = replace(
        evidence(config, 0.75, test=0.74).run,
        created_at=FINISHED_AT - 99,
        finished_at=FINISHED_AT,
        seconds=10.0,
        step=20,
        epoch=2,
        steps_per_epoch=10,
        test=Result(0.7, 0.74, 2600),
        versions={"torch": "2.15.0"},
        name="My run",
    )
    return Evidence(replace(run, **changes), HISTORY)


def test_exactly_the_public_names_are_exported() -> None:
    assert trackers.__all__ == ["write_mlflow", "write_tensorboard"]


def test_a_missing_package_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboard", "mlflow", "alembic"):
        monkeypatch.setitem(sys.modules, name, None)
        for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
            monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ArtifactError, match=r"needs the package tensorboard, .*: pip install tensorboard$"):
        write_tensorboard(finished(), LOSSES, tmp_path)
    with pytest.raises(ArtifactError, match=r"needs the package alembic, .*: pip install -U mlflow-skinny alembic$"):
        write_mlflow(finished(), LOSSES, tmp_path)
    assert not list(tmp_path.iterdir())


# TensorBoard


@pytest.fixture(scope="module")
def tensorboard(wanting: Wanting) -> None:
    need(wanting, "tensorboard")


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_reads_every_scalar_at_its_step(tmp_path: Path) -> None:
    path = write_tensorboard(finished(), LOSSES, tmp_path)
    assert path.parent == tmp_path / CONFIG.short_id
    read = scalars(path.parent)
    wanted = SCALARS | {"loss/batch": [(step, float(loss)) for step, loss in enumerate(LOSSES, 1)]}
    assert read.keys() == wanted.keys()
    for name, points in wanted.items():
        assert np.array(read[name]) == pytest.approx(np.array(points))


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_lists_runs_side_by_side_with_their_hyperparameters(tmp_path: Path) -> None:
    other = finished(CONFIG.replace(optimizer="adam", output_sigmoid=True), state=RunState.DIVERGED, test=None)
    for taken in (finished(), other):
        write_tensorboard(taken, LOSSES, tmp_path)
    experiment, sessions = hparams(tmp_path)
    assert {info.name for info in experiment.hparam_infos} >= {"learning_rate", "optimizer", "hidden", "output_sigmoid"}
    assert {info.name.tag for info in experiment.metric_infos} == {*SCALARS, "loss/batch"}
    assert set(sessions) == {CONFIG.short_id, other.run.id}
    values = sessions[CONFIG.short_id]
    assert (values["learning_rate"].number_value, values["hidden"].string_value) == (0.1, "20, 10")
    assert sessions[other.run.id]["output_sigmoid"].bool_value
    assert "momentum" not in sessions[other.run.id]


@pytest.mark.usefixtures("tensorboard")
def test_a_run_taken_again_replaces_its_file(tmp_path: Path) -> None:
    running = finished(state=RunState.RUNNING, finished_at=None, test=None, step=7)
    write_tensorboard(Evidence(running.run, ()), LOSSES[:7], tmp_path)
    assert set(scalars(tmp_path / CONFIG.short_id)) == {"loss/batch"}
    path = write_tensorboard(finished(), LOSSES, tmp_path)
    assert list(path.parent.iterdir()) == [path]
    assert len(scalars(path.parent)["loss/batch"]) == 20


@pytest.mark.usefixtures("tensorboard")
def test_neither_torch_nor_tensorflow_is_loaded(tmp_path: Path) -> None:
    program = f"""
import sys, pathlib, tests.test_trackers as t
t.write_tensorboard(t.finished(), t.LOSSES, pathlib.Path({str(tmp_path)!r}))
print(sorted({{"torch", "tensorflow", "sklearn", "streamlit"}} & set(sys.modules)))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


# MLflow


@pytest.fixture
def mlflow(wanting: Wanting, monkeypatch: pytest.MonkeyPatch) -> None:
    need(wanting, "mlflow")
    need(wanting, "alembic")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # as the writer sets them, which lasts longer than a test
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")


# MLflow's own mapping of its tables uses what SQLAlchemy 2.1 deprecates.
quiet = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@quiet
@pytest.mark.usefixtures("mlflow")
def test_mlflow_reads_the_run_with_its_metrics_parameters_and_weights(tmp_path: Path) -> None:
    taken = finished(note="Looks good.", device="CPU, 1 thread")
    id = write_mlflow(taken, LOSSES, tmp_path, b"weights")
    client = client_of(tmp_path)
    (experiment,) = client.search_experiments(filter_string="name = 'mnistlr'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (id, "My run", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == ((FINISHED_AT - 10) * 1000, FINISHED_AT * 1000)
    assert run.data.params["hidden"] == "20, 10"
    assert parse_config(run.data.params) == CONFIG
    assert run.data.tags["mnistlr.id"] == CONFIG.short_id
    assert run.data.tags["mnistlr.version.torch"] == "2.15.0"
    assert run.data.tags["mlflow.note.content"] == "Looks good."
    assert run.data.metrics["accuracy/test"] == 0.74
    for name, points in SCALARS.items():
        assert [(m.step, m.value) for m in client.get_metric_history(id, name)] == points
    losses = client.get_metric_history(id, "loss/batch")
    assert [m.value for m in losses] == pytest.approx(LOSSES.tolist())
    assert losses[-1].timestamp == FINISHED_AT * 1000
    (weights,) = client.list_artifacts(id)
    assert Path(client.download_artifacts(id, weights.path, str(tmp_path))).read_bytes() == b"weights"


@quiet
@pytest.mark.usefixtures("mlflow")
def test_mlflow_holds_each_run_once_however_it_ended(tmp_path: Path) -> None:
    diverged = finished(CONFIG.replace(seed=1), state=RunState.DIVERGED, test=None, name=None)
    losses = np.append(LOSSES, [np.inf, np.nan]).astype(np.float32)
    running = finished(state=RunState.RUNNING, finished_at=None, test=None)
    for taken in (diverged, diverged, running):
        write_mlflow(taken, losses, tmp_path)
    client = client_of(tmp_path)
    (experiment,) = client.search_experiments(filter_string="name = 'mnistlr'")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in found.items()} == {
        "My run": "RUNNING",
        diverged.run.config.label: "FAILED",
    }
    assert math.isnan(found[diverged.run.config.label].data.metrics["loss/batch"])


@quiet
@pytest.mark.usefixtures("mlflow")
def test_a_database_that_mlflow_cannot_use_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ArtifactError, match="MLflow could not write into"):
        write_mlflow(finished(), LOSSES, tmp_path)


# Points


def test_of_many_steps_evenly_spaced_losses_are_written_the_first_and_the_last_among_them() -> None:
    losses = np.arange(1, 60_001, dtype=np.float32)
    points = [p for p in trackers._points(finished(step=60_000), losses) if p.name == "loss/batch"]
    assert len(points) == trackers._MOST_BATCH_LOSSES
    assert all(point.step == point.value for point in points)
    assert (points[0].step, points[-1].step) == (1, 60_000)
    assert set(np.diff([point.step for point in points])) <= {11, 12, 13}


def test_the_test_is_told_once_where_the_run_watched_it() -> None:
    history = (*HISTORY[:1], replace(HISTORY[1], test_loss=0.7, test_accuracy=0.74))
    points = trackers._points(replace(finished(), history=history), LOSSES)
    assert [point.step for point in points if point.name == "accuracy/test"] == [20]
    points = trackers._points(replace(finished(step=25), history=history), LOSSES)
    assert [point.step for point in points if point.name == "accuracy/test"] == [20, 25]


def test_points_lie_within_the_training_time_in_order() -> None:
    points = trackers._points(finished(), LOSSES)
    assert [point.step for point in points] == sorted(point.step for point in points)
    assert all(FINISHED_AT - 10 < point.seconds <= FINISHED_AT for point in points)
    assert trackers._points(Evidence(finished(step=0, test=None, steps_per_epoch=None).run, ()), LOSSES[:0]) == []


def need(wanting: Wanting, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise wanting(package, f"{package} is not installed: pip install -r requirements-extras.txt")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = import_module("tensorboard.backend.event_processing.event_accumulator")
    reader = events.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def hparams(folder: Path) -> tuple[Any, dict[str, Any]]:
    """What TensorBoard's HPARAMS tab asks its server for: the experiment, and each session's values by its name."""
    processing, plugin = "tensorboard.backend.event_processing", "tensorboard.plugins.hparams"
    multiplexer = import_module(f"{processing}.plugin_event_multiplexer").EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = import_module(f"{processing}.data_provider").MultiplexerDataProvider(multiplexer, str(folder))
    server = import_module("tensorboard.plugins.base_plugin").TBContext(data_provider=provider)
    context = import_module(f"{plugin}.backend_context").Context(server)
    request = import_module("tensorboard.context").RequestContext()
    metadata = import_module(f"{plugin}.metadata")
    found = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, found, [])
    sessions = {
        run: metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG]).hparams
        for run, tags in found.items()
    }
    return experiment, sessions


def client_of(folder: Path) -> Any:
    uri = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
    return import_module("mlflow.tracking").MlflowClient(tracking_uri=uri)
