"""What the Compare page costs its server: the first view and a pick, with few runs in the store and with thousands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.measure import Spread, spread
from benchmarks.page import cost, milliseconds, serving, train
from benchmarks.visitor import visiting
from mnistlr_core.lab import Lab
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from tests.factory import fill

__all__ = ["CompareReport", "run", "to_json", "to_text"]

_PICKED = 7
_DIGITS = {"dataset": "digits", "epochs": 10, "batch_size": 32}


@dataclass(frozen=True, slots=True)
class CompareReport:
    """Seconds of the server's processor time."""

    runs: int
    view_few: Spread
    """The first view by a new visitor with a handful of runs in the store."""
    view_many: Spread
    """The same with `runs` of ten epochs."""
    pick: Spread
    """One more run picked of those: curves, values and errors of a pair, or of more, that nobody has drawn before."""


def run(*, runs: int, rounds: int, say: Callable[[str], None]) -> CompareReport:
    """Measure; every round of picks begins with two trained runs and adds one after the other."""
    with TemporaryDirectory(prefix="mnistlr-compare-", ignore_cleanup_errors=True) as folder:
        settings = Settings(home=Path(folder))
        with serving(settings) as (address, process), closing(Lab(settings)) as lab:
            say("training what is compared")
            ids = [
                train(lab, _DIGITS | {"learning_rate": 0.01 * (k + 1), "seed": seed})
                for seed in range(rounds)
                for k in range(_PICKED)
            ]
            few = [_view(address, process) for _ in range(rounds)]
            say(f"storing {runs:,} runs")
            with closing(Store(settings.database)) as store:
                fill(store, runs)
            many = [_view(address, process) for _ in range(rounds)]
            say("picking")
            picks: list[float] = []
            for turn in range(rounds):
                picked = ids[turn * _PICKED : (turn + 1) * _PICKED]
                with visiting(address, f"runs={picked[0]}", "compare") as visitor:
                    for count in range(2, _PICKED + 1):
                        visitor.query = f"runs={','.join(picked[:count])}"
                        picks.append(cost(process, visitor.rerun))
    return CompareReport(runs, spread(few), spread(many), spread(picks))


def _view(address: str, process: psutil.Process) -> float:
    def view() -> None:
        with visiting(address, page="compare"):
            pass

    return cost(process, view)


def to_text(report: CompareReport) -> str:
    """The report as a table."""
    rows = [
        ("first view, few runs", milliseconds(report.view_few)),
        (f"first view, {report.runs:,} runs", milliseconds(report.view_many)),
        (f"one more run picked, of {report.runs:,}", milliseconds(report.pick)),
        ("first view, many runs / few", f"{report.view_many.median / report.view_few.median:.2f}"),
    ]
    width = max(len(name) for name, _ in rows)
    head = f"{'the Compare page':{width}}   median (min–max), server processor time"
    return "\n".join([head, *(f"{name:{width}}   {figures}" for name, figures in rows)])


def to_json(report: CompareReport) -> dict[str, Any]:
    """The report as JSON values, in seconds."""
    return asdict(report)
