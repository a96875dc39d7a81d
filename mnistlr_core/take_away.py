"""Runs as files: what the page's buttons and the command line's `export` write, made in one place."""

from __future__ import annotations

import json
from collections.abc import Sequence
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

__all__ = ["Kind", "comparison_file", "run_curves", "run_file"]


class Kind(StrEnum):
    """What a run can be taken away as."""

    SCRIPT = "script"
    REPORT = "report"
    WEIGHTS = "weights"
    CSV = "csv"
    JSON = "json"

    @property
    def label(self) -> str:
        """What it is called on a screen."""
        return _KINDS[self][0]

    @property
    def extension(self) -> str:
        """How such a file's name ends, without the dot."""
        return _KINDS[self][1]


_KINDS = {
    Kind.SCRIPT: ("PyTorch script", "py"),
    Kind.REPORT: ("HTML report", "html"),
    Kind.WEIGHTS: ("Weights (safetensors)", "safetensors"),
    Kind.CSV: ("History (CSV)", "csv"),
    Kind.JSON: ("All of it (JSON)", "json"),
}


def run_file(lab: Lab, run: Run, kind: Kind) -> bytes:
    """A run as a file of this kind.

    Raises:
        RunError: the run has no script, since it has not been tested.
        ArtifactMissing, ArtifactDamaged: its weights are gone; train it again.
    """
    evidence = Evidence(run, lab.history(run.id))
    match kind:
        case Kind.SCRIPT:
            return standalone_script(run).encode()
        case Kind.REPORT:
            return run_report(evidence, run_curves(lab, evidence), _tested(lab, run)).encode()
        case Kind.WEIGHTS:
            return lab.weights(run)
        case Kind.CSV:
            return history_csv(evidence).encode()
        case Kind.JSON:
            return json.dumps(run_as_dict(run, evidence.history), allow_nan=False, indent=2).encode()


def comparison_file(
    kind: Kind, evidence: Sequence[Evidence], titles: Sequence[str], figure: go.Figure, sentences: Sequence[str]
) -> bytes:
    """Several runs as one file: a table, an object, or a report. Raises ValueError for any other kind."""
    match kind:
        case Kind.CSV:
            return runs_csv(evidence).encode()
        case Kind.JSON:
            return json.dumps(runs_as_dict(evidence), allow_nan=False, indent=2).encode()
        case Kind.REPORT:
            return comparison_report(evidence, titles, figure, sentences).encode()
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
