"""What the dashboard costs: a rerun of the finished Train page, a live redraw, and the training that is watched.

A server of its own is started on a home of its own; visitors come by websocket, so that no browser is measured.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import psutil

from benchmarks.measure import Spread, spread
from benchmarks.visitor import visiting
from mnistlr_core.config import parse_config
from mnistlr_core.lab import Lab
from mnistlr_core.settings import Settings

__all__ = ["PageReport", "cost", "milliseconds", "run", "serving", "to_json", "to_text", "train"]

_RERUNS = 20
_LINEAR = {"learning_rate": 0.1, "epochs": 40}
_MLP = {"architecture": "mlp", "optimizer": "adam", "learning_rate": 0.001, "batch_size": 64, "epochs": 5}


@dataclass(frozen=True, slots=True)
class PageReport:
    """Seconds of the server's processor time per rerun, and training seconds with a watcher over those without."""

    first_view_cpu: Spread
    rerun_cpu: Spread
    live_redraw_cpu: Spread
    watched_linear: Spread
    watched_mlp: Spread
    dataset: str


def run(*, rounds: int, data: Path | None, say: Callable[[str], None]) -> PageReport:
    """Measure on MNIST, or on digits where MNIST is not here; `rounds` pairs of watched and unwatched trainings."""
    with TemporaryDirectory(prefix="mnistlr-page-", ignore_cleanup_errors=True) as folder:
        settings = Settings(home=Path(folder), data=data or Settings().data)
        with serving(settings) as (address, process), closing(Lab(settings)) as lab:
            dataset = _dataset(lab, say)
            finished = train(lab, {"dataset": dataset, "epochs": 5})
            say("the finished page")
            views = [cost(process, lambda: _view(address, finished)) for _ in range(_RERUNS)]
            with visiting(address, f"run={finished}") as visitor:
                reruns = [cost(process, visitor.rerun) for _ in range(_RERUNS)]
            redraws: list[float] = []
            ratios = {}
            for name, fields in (("linear", _LINEAR), ("mlp", _MLP)):
                values: dict[str, Any] = {**fields, "dataset": dataset}
                pairs = []
                for turn in range(rounds):
                    say(f"{name}: round {turn + 1} of {rounds}")
                    alone = _seconds(lab, values | {"seed": 2 * turn})
                    watched = _watched(lab, address, process, values | {"seed": 2 * turn + 1}, redraws)
                    pairs.append(watched / alone)
                ratios[name] = spread(pairs)
    return PageReport(spread(views), spread(reruns), spread(redraws), ratios["linear"], ratios["mlp"], dataset)


def to_text(report: PageReport) -> str:
    """The report as a table."""
    rows = [
        ("first view of the finished Train page", milliseconds(report.first_view_cpu)),
        ("rerun of the finished Train page", milliseconds(report.rerun_cpu)),
        ("live redraw", milliseconds(report.live_redraw_cpu)),
        ("linear training, watched / unwatched", _ratio(report.watched_linear)),
        ("MLP training, watched / unwatched", _ratio(report.watched_mlp)),
    ]
    width = max(len(name) for name, _ in rows)
    head = f"{'on ' + report.dataset:{width}}   median (min–max), server processor time"
    return "\n".join([head, *(f"{name:{width}}   {figures}" for name, figures in rows)])


def to_json(report: PageReport) -> dict[str, Any]:
    """The report as JSON values, seconds and ratios."""

    def values(found: Spread) -> dict[str, float]:
        return {"median": found.median, "min": found.low, "max": found.high, "n": found.n}

    figures = ("first_view_cpu", "rerun_cpu", "live_redraw_cpu", "watched_linear", "watched_mlp")
    return {"dataset": report.dataset} | {name: values(getattr(report, name)) for name in figures}


def _watched(lab: Lab, address: str, process: psutil.Process, values: dict[str, Any], redraws: list[float]) -> float:
    """Training seconds of a run that a visitor watches from its start to its end."""
    run_id = lab.submit(parse_config(values)).run_id
    with visiting(address, f"run={run_id}") as visitor:
        before = _cpu(process)
        drawn = visitor.watch(lambda: lab.run(run_id).state.active)
        redraws.append((_cpu(process) - before) / drawn)
    return lab.run(run_id).seconds


def _seconds(lab: Lab, values: dict[str, Any]) -> float:
    return lab.run(train(lab, values)).seconds


def train(lab: Lab, values: dict[str, Any]) -> str:
    run_id = lab.submit(parse_config(values)).run_id
    while lab.run(run_id).state.active:
        sleep(0.05)
    return run_id


def _view(address: str, run_id: str) -> None:
    with visiting(address, f"run={run_id}"):
        pass


def cost(process: psutil.Process, act: Callable[[], None]) -> float:
    before = _cpu(process)
    act()
    return _cpu(process) - before


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _dataset(lab: Lab, say: Callable[[str], None]) -> str:
    deadline = monotonic() + 120
    while monotonic() < deadline:
        for name in ("mnist", "digits"):
            if lab.dataset_status(name).state == "ready":
                if name == "mnist":
                    return name
                if lab.dataset_status("mnist").state in ("failed", "damaged"):
                    say("MNIST is not here: measuring on digits")
                    return name
        sleep(0.2)
    raise RuntimeError("no data set was ready within two minutes")


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    command += ["--server.port", str(port), "--server.fileWatcherType", "none"]
    environment = os.environ | {"MNISTLR_HOME": str(settings.home), "MNISTLR_DATA": str(settings.datasets)}
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            address = f"127.0.0.1:{port}"
            _wait_for_health(address)
            _view(address, "")
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait_for_health(address: str) -> None:
    deadline = monotonic() + 30
    while monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{address}/_stcore/health") as answer:
                if answer.read() == b"ok":
                    return
        except OSError:
            sleep(0.05)
    raise RuntimeError("the dashboard's server did not start within 30 s")


def milliseconds(found: Spread) -> str:
    return f"{1000 * found.median:.0f} ms ({1000 * found.low:.0f}–{1000 * found.high:.0f}), n {found.n}"


def _ratio(found: Spread) -> str:
    return f"{found.median:.3f} ({found.low:.3f}–{found.high:.3f}), n {found.n}"
