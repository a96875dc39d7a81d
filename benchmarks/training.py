"""How long an epoch takes: this engine, the tutorials' loop, other libraries, and the bare arithmetic, in turn."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, process_time, sleep

import torch

from benchmarks.digits import Digits
from benchmarks.measure import BUSY, Machine, ModelReport, Outcome, Report, Standing
from benchmarks.peers import CONTENDERS, Contender
from mnistlr_core.config import Architecture, Optimizer, RunConfig
from mnistlr_core.settings import Settings

__all__ = ["EPOCHS", "MODELS", "ROUNDS", "run"]

MODELS: Mapping[str, RunConfig] = {
    "linear": RunConfig(learning_rate=0.001, batch_size=100, valid_fraction=0.0),
    "mlp": RunConfig(
        architecture=Architecture.MLP,
        optimizer=Optimizer.ADAM,
        learning_rate=0.001,
        batch_size=64,
        valid_fraction=0.0,
    ),
}
EPOCHS: Mapping[str, int] = {"linear": 5, "mlp": 2}
"""Epochs of a round. Five of the linear model are the 3,000 steps of the article; Keras needs two to be timed."""
ROUNDS: Mapping[str, int] = {"linear": 5, "mlp": 3}

_WARM_UP_IMAGES = 1000

_LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "skorch", "keras", "jax")


def run(
    digits: Digits,
    *,
    models: Collection[str] = tuple(MODELS),
    only: Collection[str] | None = None,
    epochs: int | None = None,
    rounds: int | None = None,
    patience: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure every model that is asked for.

    Args:
        only: keys of the contenders that take part, or None for all.
        epochs: epochs that each contender trains in a round, at least 2; default `EPOCHS`.
        rounds: how often every contender has its turn; default `ROUNDS`.
        patience: seconds to wait, at most, before each turn until other processes leave the processors alone.
        say: told each outcome as it comes.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    contenders = [contender for contender in CONTENDERS if only is None or contender.key in only]
    machine = _machine()
    reports = []
    for key in models:
        config = MODELS[key].replace(epochs=epochs or EPOCHS[key])
        standings = _rounds(config, digits, contenders, rounds or ROUNDS[key], machine.threads, patience, say)
        title = f"{config.label}, pixels / 255, no validation"
        reports.append(ModelReport(key, title, config.epochs, rounds or ROUNDS[key], standings))
    return Report(started_at, digits.words, digits.is_real, machine, tuple(reports))


def _rounds(
    config: RunConfig,
    digits: Digits,
    contenders: Sequence[Contender],
    rounds: int,
    threads: int,
    patience: float,
    say: Callable[[str], None],
) -> tuple[Standing, ...]:
    """Let them take turns. Before its first one, each trains on a few images unmeasured: that loads its kernels."""
    absent = {contender.key: contender.absent() for contender in contenders}
    outcomes: dict[str, list[Outcome]] = {contender.key: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            if absent[contender.key]:
                continue
            with _torch_for_peers(threads):
                if number == 1:
                    contender.run(config.replace(epochs=2), digits.first(_WARM_UP_IMAGES))
                _await_calm(patience)
                others = _others()
                outcome = contender.run(config, digits)
            outcome = replace(outcome, others=others())
            outcomes[contender.key].append(outcome)
            say(
                f"{config.label}, round {number} of {rounds}: {contender.name} {outcome.seconds:.4f} s/epoch, "
                f"others {'unknown' if outcome.others is None else f'{outcome.others:.0%}'}"
            )
    return tuple(Standing(c.key, c.name, tuple(outcomes[c.key]), absent[c.key]) for c in contenders)


@contextmanager
def _torch_for_peers(threads: int) -> Iterator[None]:
    """All threads and ordinary kernels, whatever the engine had set up for itself; afterwards as it was before."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _others() -> Callable[[], float | None]:
    """Start to watch; the function returned tells the share of all processors' time that other processes took since."""
    before = _processor_seconds()

    def share() -> float | None:
        if before is None or (after := _processor_seconds()) is None:
            return None
        busy, idle, own = (b - a for a, b in zip(before, after, strict=True))
        return max(0.0, busy - own) / (busy + idle) if busy + idle else None

    return share


def _await_calm(patience: float) -> None:
    end = monotonic() + patience
    while monotonic() < end:
        others = _others()
        sleep(1)
        if (share := others()) is None or share <= BUSY / 2:
            return


def _processor_seconds() -> tuple[float, float, float] | None:
    """Seconds that all processors were busy, and idle, and that this process used; None but on Linux."""
    try:
        first, *_ = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (int(ticks) for ticks in first.split()[1:9])
    hertz = os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + irq + softirq + steal
    return busy / hertz, (idle + iowait) / hertz, process_time()


def _machine() -> Machine:
    cores = Settings(workers=1).threads
    return Machine(
        cpu=_cpu_name(),
        cores=cores,
        threads=cores,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
    )


def _cpu_name() -> str:
    """The processor's own name where Linux tells it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown processor")


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
