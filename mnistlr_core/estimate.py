"""How long a run will take, said before it is started.

A step costs a fixed overhead and its arithmetic. Both are measured, never assumed: by every finished run, and by a
short warm-up of the worker. numpy only, for the page asks this at every keystroke.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import Architecture, RunConfig
from mnistlr_core.records import Run, Speed

__all__ = ["Workload", "estimate_seconds", "shape_of", "step_flops", "steps_per_epoch", "workload"]


def shape_of(config: RunConfig) -> str:
    """What a step's duration depends on, as text: runs of one shape take the same time a step."""
    hidden = "-".join(map(str, config.hidden)) if config.architecture is Architecture.MLP else ""
    pixels = DATASETS[config.dataset].pixels
    return f"{pixels}:{hidden}:{config.optimizer.value}:{bool(config.momentum)}:{config.batch_size}"


def step_flops(config: RunConfig, *, pixels: int, classes: int) -> float:
    """Floating point operations of one step: forward, and two products of that size backward."""
    sizes = config.layer_sizes(pixels=pixels, classes=classes)
    return 6.0 * config.batch_size * sum(fan_in * fan_out for fan_in, fan_out in sizes)


def steps_per_epoch(config: RunConfig) -> int:
    """Batches of one epoch, from the data set's published size."""
    rest = DATASETS[config.dataset].train_size
    rest -= round(rest * config.valid_fraction)
    return math.ceil(max(1, round(rest * config.train_fraction)) / config.batch_size)


def estimate_seconds(config: RunConfig, speeds: Sequence[Speed]) -> float | None:
    """Seconds that training `config` will take, or None when nothing was measured yet.

    A shape that has been trained is known. Otherwise a line, overhead + arithmetic, is laid through what was measured,
    each weighted by its inverse so that short steps count as much as long ones.
    """
    steps = config.epochs * steps_per_epoch(config)
    known = {speed.shape: speed.seconds for speed in speeds}
    if (seconds := known.get(shape_of(config))) is not None:
        return steps * seconds
    if not speeds:
        return None
    info = DATASETS[config.dataset]
    flops = step_flops(config, pixels=info.pixels, classes=len(info.classes))
    measured = np.array([speed.seconds for speed in speeds])
    design = np.stack([np.ones(len(speeds)), np.array([speed.flops for speed in speeds])], axis=1)
    (overhead, per_flop), _, rank, _ = np.linalg.lstsq(design / measured[:, None], np.ones(len(speeds)), rcond=None)
    if rank < 2 or overhead < 0 or per_flop < 0:  # too few or contradictory measurements: scale the nearest one
        nearest = min(speeds, key=lambda speed: abs(math.log(speed.flops / flops)))
        return steps * nearest.seconds * max(1.0, flops / nearest.flops)
    return float(steps * (overhead + per_flop * flops))


@dataclass(frozen=True, slots=True)
class Workload:
    """How far several runs have come, taken together."""

    total: int
    answered: int
    """Finished or diverged."""
    active: int
    """Queued or running."""
    share: float
    """0..1: of the time that all of them take, or of their steps while no time was measured."""
    seconds: float | None
    """How long what is left will take one worker; None while nothing was measured."""

    @property
    def missing(self) -> int:
        """Runs that are neither answered nor on their way: never asked for, stopped or failed."""
        return self.total - self.answered - self.active


def workload(configs: Sequence[RunConfig], runs: Mapping[str, Run], speeds: Sequence[Speed]) -> Workload:
    """Sum up the runs of `configs`; `runs` holds those that exist, by id."""
    states = [run.state for config in configs if (run := runs.get(config.short_id))]
    costs = np.array([estimate_seconds(c, speeds) or float(c.epochs * steps_per_epoch(c)) for c in configs])
    shares = np.array([_share(config, runs.get(config.short_id)) for config in configs])
    total = costs.sum()
    return Workload(
        total=len(configs),
        answered=sum(state.answered for state in states),
        active=sum(state.active for state in states),
        share=float(costs @ shares / total) if total else 1.0,
        seconds=float(costs @ (1 - shares)) if speeds else None,
    )


def _share(config: RunConfig, run: Run | None) -> float:
    if run is None:
        return 0.0
    return 1.0 if run.state.answered else min(1.0, run.step / (config.epochs * steps_per_epoch(config)))
