"""A run for other people's trackers: TensorBoard's event file, MLflow's database. Both packages are optional extras.

Neither torch nor TensorFlow is needed: TensorBoard's own package writes its records, MLflow's own client its database.
"""

from __future__ import annotations

import importlib
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from mnistlr_core.errors import ArtifactError
from mnistlr_core.records import Evidence, Run, RunState

__all__ = ["write_mlflow", "write_tensorboard"]

_MOST_BATCH_LOSSES = 5000
"""Of more steps, evenly spaced ones are written: TensorBoard draws a thousand, and a line a million takes minutes."""

_MLFLOW_STATUS = {
    RunState.QUEUED: "SCHEDULED",
    RunState.RUNNING: "RUNNING",
    RunState.FINISHED: "FINISHED",
    RunState.STOPPED: "KILLED",
    RunState.DIVERGED: "FAILED",
    RunState.FAILED: "FAILED",
}
_MLFLOW_BATCH = 1000  # as many metrics as it takes in one call


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    step: int
    value: float
    seconds: float
    """Since 1970: the training time is spread evenly over the steps, for only its sum is known."""


def write_tensorboard(evidence: Evidence, step_losses: NDArray[np.float32], folder: Path) -> Path:
    """Write `<folder>/<run id>/events.out.tfevents.…`, which `tensorboard --logdir <folder>` opens; return its path.

    Scalars are `loss/train`, `accuracy/valid`, … at each epoch's last step, `loss/batch` at each step, and the test's
    at the end; the configuration is on the HPARAMS tab. Writing a run again replaces its file.

    Args:
        step_losses: the training loss of every step, float32 [steps].

    Raises:
        ArtifactError: the package `tensorboard` is not installed; the message has the command that brings it.
        OSError: the folder can't be written.
    """
    pip = "pip install tensorboard"
    events = _optional("tensorboard.compat.proto.event_pb2", pip)
    summaries = _optional("tensorboard.compat.proto.summary_pb2", pip)
    record_writer = _optional("tensorboard.summary.writer.record_writer", pip)
    run = evidence.run
    begun, ended = _times(run)
    start, end = _hparams(run, pip)
    place = folder / run.id
    place.mkdir(parents=True, exist_ok=True)
    aside = place / "mnistlr.part"  # TensorBoard reads whatever has `tfevents` in its name
    with aside.open("wb") as file:
        writer = record_writer.RecordWriter(file)

        def write(seconds: float, step: int, **content: Any) -> None:
            writer.write(events.Event(wall_time=seconds, step=step, **content).SerializeToString())

        write(begun, 0, file_version="brain.Event:2")
        write(begun, 0, summary=summaries.Summary(value=[start]))
        for point in _points(evidence, step_losses):
            value = summaries.Summary.Value(tag=point.name, simple_value=point.value)
            write(point.seconds, point.step, summary=summaries.Summary(value=[value]))
        if not run.state.active:
            write(ended, 0, summary=summaries.Summary(value=[end]))
    return aside.replace(place / f"events.out.tfevents.{run.id}")


def write_mlflow(
    evidence: Evidence, step_losses: NDArray[np.float32], folder: Path, weights: bytes | None = None
) -> str:
    """Write a run into `<folder>/mlflow.db`, and its weights below `<folder>/artifacts`; return MLflow's id of the run.

    `mlflow ui --backend-store-uri sqlite:///mlflow.db`, started in the folder, opens it. Metrics are named and placed
    as in `write_tensorboard`. A run that is there already goes to MLflow's trash. MLflow keeps the artifacts' absolute
    path: write to where the folder will stay.

    Args:
        step_losses: the training loss of every step, float32 [steps].
        weights: a safetensors file.

    Raises:
        ArtifactError: `mlflow`, or `mlflow-skinny` with `alembic`, is not installed (the message has the command that
            brings it), or can't use the database that is there.
        OSError: the folder can't be written.
    """
    # Before it is first imported: it tells its makers of its use, and this is about a folder on this machine.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Connections that are kept would hold the file open: Windows couldn't delete the folder.
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    pip = "pip install -U mlflow-skinny alembic"
    _optional("alembic", pip)
    mlflow, exceptions = _optional("mlflow.tracking", pip), _optional("mlflow.exceptions", pip)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
        return _log(client, _optional("mlflow.entities", pip), evidence, step_losses, folder, weights)
    except (exceptions.MlflowException, SQLAlchemyError, ImportError) as error:
        raise ArtifactError(f"MLflow could not write into {folder}: {str(error).splitlines()[0]}") from error


def _log(
    client: Any,
    entities: Any,
    evidence: Evidence,
    step_losses: NDArray[np.float32],
    folder: Path,
    weights: bytes | None,
) -> str:
    run, (begun, ended) = evidence.run, _times(evidence.run)
    experiment = _experiment(client, folder / "artifacts")
    for earlier in client.search_runs([experiment], filter_string=f"tags.`mnistlr.id` = '{run.id}'"):
        client.delete_run(earlier.info.run_id)
    about = {"id": run.id, "digest": run.digest, "state": run.state.value, "device": run.device}
    about |= {f"version.{name}": version for name, version in run.versions.items()}
    tags = {f"mnistlr.{name}": value for name, value in about.items() if value} | {"mlflow.note.content": run.note}
    id = str(client.create_run(experiment, round(begun * 1000), tags, run_name=run.title).info.run_id)
    client.log_batch(id, params=[entities.Param(name, _text(v)) for name, v in run.config.canonical().items()])
    metrics = [
        entities.Metric(point.name, point.value, round(point.seconds * 1000), point.step)
        for point in _points(evidence, step_losses)
    ]
    for first in range(0, len(metrics), _MLFLOW_BATCH):
        client.log_batch(id, metrics=metrics[first : first + _MLFLOW_BATCH])
    if weights is not None:
        with tempfile.TemporaryDirectory() as scratch:  # the client takes files only
            path = Path(scratch, "weights.safetensors")
            path.write_bytes(weights)
            client.log_artifact(id, str(path))
    status = _MLFLOW_STATUS[run.state]
    if run.state.active:
        client.update_run(id, status=status)
    else:
        client.set_terminated(id, status=status, end_time=round(ended * 1000))
    return id


def _experiment(client: Any, artifacts: Path) -> str:
    """MLflow's id of the experiment `mnistlr`, made where it isn't there."""
    found = client.get_experiment_by_name("mnistlr")
    if found is None:
        return str(client.create_experiment("mnistlr", artifact_location=artifacts.as_uri()))
    return str(found.experiment_id)


def _points(evidence: Evidence, step_losses: NDArray[np.float32]) -> list[_Point]:
    """Everything that was measured of a run, at its optimizer step, in their order."""
    run, history = evidence.run, evidence.history
    begun, ended = _times(run)
    steps = max(1, run.step, len(step_losses))
    per_epoch = run.steps_per_epoch or 1
    count = len(step_losses)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_BATCH_LOSSES)).astype(np.int64))
    found: list[tuple[str, int, float | None]] = [("loss/batch", int(i) + 1, float(step_losses[i])) for i in chosen]
    for row in history:
        for part, figure in itertools.product(("train", "valid", "test"), ("loss", "accuracy")):
            found.append((f"{figure}/{part}", row.epoch * per_epoch, getattr(row, f"{part}_{figure}")))
    watched = bool(history) and history[-1].test_accuracy is not None and history[-1].epoch * per_epoch == run.step
    if run.test and not watched:
        found += [("loss/test", run.step, run.test.loss), ("accuracy/test", run.step, run.test.accuracy)]
    return [
        _Point(name, step, value, begun + (ended - begun) * min(1.0, step / steps))
        for name, step, value in sorted(found, key=lambda each: each[1])
        if value is not None
    ]


def _times(run: Run) -> tuple[float, float]:
    """When the training began and ended, in seconds since 1970, had it gone on without a pause."""
    if run.finished_at is None:
        return run.created_at, run.created_at + run.seconds
    return max(run.created_at, run.finished_at - run.seconds), run.finished_at


def _hparams(run: Run, pip: str) -> tuple[Any, Any]:
    """The summary values with which a session begins and ends on TensorBoard's HPARAMS tab."""
    api = _optional("tensorboard.plugins.hparams.api_pb2", pip)
    metadata = _optional("tensorboard.plugins.hparams.metadata", pip)
    plugin_data = _optional("tensorboard.plugins.hparams.plugin_data_pb2", pip)
    value_of = _optional("tensorboard.compat.proto.summary_pb2", pip).Summary.Value
    begun, ended = _times(run)
    start = plugin_data.SessionStartInfo(group_name=run.id, start_time_secs=begun)
    for name, value in run.config.canonical().items():
        match value:
            case bool():
                start.hparams[name].bool_value = value
            case int() | float():
                start.hparams[name].number_value = value
            case _:
                start.hparams[name].string_value = _text(value)
    well = run.state in (RunState.FINISHED, RunState.STOPPED)
    end = plugin_data.SessionEndInfo(status=api.STATUS_SUCCESS if well else api.STATUS_FAILURE, end_time_secs=ended)

    def summary(tag: str, **info: Any) -> Any:
        about = metadata.create_summary_metadata(plugin_data.HParamsPluginData(**info))
        return value_of(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)

    return (
        summary(metadata.SESSION_START_INFO_TAG, session_start_info=start),
        summary(metadata.SESSION_END_INFO_TAG, session_end_info=end),
    )


def _text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _optional(module: str, pip: str) -> Any:
    """A module of an optional package. By name, so that neither mypy nor a plain installation misses it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ArtifactError(f"this needs the package {package}, which isn't to be had here ({error}): {pip}") from error
