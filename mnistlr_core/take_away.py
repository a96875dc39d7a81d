"""Runs as files: what the page's buttons and the command line's `export` write, made in one place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import plotly.graph_objects as go

from mnistlr_core import charts
from mnistlr_core.errors import ArtifactError, DatasetError
from mnistlr_core.estimate import steps_per_epoch
from mnistlr_core.export import history_csv, run_as_dict, runs_as_dict, runs_csv
from mnistlr_core.lab import Lab
from mnistlr_core.records import Evidence, Run
from mnistlr_core.report import Tested, comparison_report, run_report
from mnistlr_core.script import standalone_script

__all__ = ["File", "Kind", "comparison_file", "run_curves", "run_file"]


class Kind(StrEnum):
    """What a run can be taken away as."""

    SCRIPT = "script"
    REPORT = "report"
    WEIGHTS = "weights"
    CSV = "csv"
    JSON = "json"

    @property
    def label(self) -> str:
        return _LABELS[self]


_LABELS = {
    Kind.SCRIPT: "PyTorch script",
    Kind.REPORT: "HTML report",
    Kind.WEIGHTS: "Weights (safetensors)",
    Kind.CSV: "History (CSV)",
    Kind.JSON: "All of it (JSON)",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file to be written or downloaded."""

    name: str
    mime: str
    data: bytes


def run_file(lab: Lab, run: Run, kind: Kind) -> File:
    """A run as a file of this kind.

    Raises:
        RunError: the run has nothing of this kind, since it has not been tested.
        ArtifactMissing, ArtifactDamaged: its weights are gone; train it again.
    """
    evidence = Evidence(run, lab.history(run.id))
    match kind:
        case Kind.SCRIPT:
            return File(f"mnistlr_{run.id}.py", "text/x-python", standalone_script(run).encode())
        case Kind.REPORT:
            page = run_report(evidence, run_curves(lab, evidence), _tested(lab, run))
            return File(f"mnistlr_{run.id}.html", "text/html", page.encode())
        case Kind.WEIGHTS:
            return File(f"mnistlr_{run.id}.safetensors", "application/octet-stream", lab.weights(run))
        case Kind.CSV:
            return File(f"mnistlr_{run.id}.csv", "text/csv", history_csv(evidence).encode())
        case Kind.JSON:
            text = json.dumps(run_as_dict(run, evidence.history), allow_nan=False, indent=2)
            return File(f"mnistlr_{run.id}.json", "application/json", text.encode())


def comparison_file(
    kind: Kind, evidence: Sequence[Evidence], titles: Sequence[str], figure: go.Figure, sentences: Sequence[str]
) -> File:
    """Several runs as one file: a table, an object, or a report. Raises ValueError for any other kind."""
    match kind:
        case Kind.CSV:
            return File("mnistlr_runs.csv", "text/csv", runs_csv(evidence).encode())
        case Kind.JSON:
            text = json.dumps(runs_as_dict(evidence), allow_nan=False, indent=2)
            return File("mnistlr_runs.json", "application/json", text.encode())
        case Kind.REPORT:
            page = comparison_report(evidence, titles, figure, sentences)
            return File("mnistlr_comparison.html", "text/html", page.encode())
        case _:
            raise ValueError(f"several runs are taken away as csv, json or report; got {kind}")


def run_curves(lab: Lab, evidence: Evidence) -> charts.RunCurves:
    """The numbers of a run's curves."""
    run = evidence.run
    return charts.curves(
        evidence.history,
        lab.step_losses(run.id),
        run.steps_per_epoch or steps_per_epoch(run.config),
        tests=lab.test_rows(run.id),
        diverged_step=run.diverged_step,
    )


def _tested(lab: Lab, run: Run) -> Tested | None:
    if run.test is None:
        return None
    try:
        dataset = lab.dataset(run.config.dataset)
        return Tested(lab.predictions(run), dataset.test_images, dataset.info.classes)
    except (ArtifactError, DatasetError):  # the report says what is there
        return None
