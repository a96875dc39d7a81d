"""The numbers of several runs over each other: smoothed, over seeds, and across epochs, steps or seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from mnistlr_core.charts import Floats, RunCurves

__all__ = ["Across", "Overlaid", "Seeds", "over_seeds", "positions", "smoothed"]


class Across(StrEnum):
    """What the x-axis counts."""

    EPOCH = "epoch"
    STEP = "step"
    SECONDS = "seconds"

    @property
    def label(self) -> str:
        return {"epoch": "Epoch", "step": "Step", "seconds": "Training time in seconds"}[self]

    @property
    def at(self) -> str:
        """The head of the hover, as Plotly's template."""
        return {"epoch": "Epoch %{x:.4~g}", "step": "Step %{x:,.0f}", "seconds": "%{x:.4~g} s"}[self]


@dataclass(frozen=True, eq=False, slots=True)
class Overlaid:
    """One run as it is drawn or, with several curves, one configuration under several seeds."""

    title: str
    """What tells it from the others: "lr 0.1, adam". The legend shortens it, the hover does not."""
    colour: str
    hover: str
    """Its hyperparameters as plain text."""
    epochs: int
    """How many it is to train, or had trained when it was stopped: the x-axis reaches to the longest run's."""
    curves: tuple[RunCurves, ...]
    """One per seed."""
    steps_per_epoch: float
    seconds: tuple[Floats, ...]
    """Training seconds at the end of each finished epoch, one array per seed."""


@dataclass(frozen=True, eq=False, slots=True)
class Seeds:
    """Several seeds' curves in one: their mean, lowest and highest. Of one seed, three times its own curves."""

    mean: RunCurves
    low: RunCurves
    high: RunCurves


def smoothed(values: Floats, weight: float) -> Floats:
    """The exponential moving average of a curve [n], without the bias towards 0 that its start would have.

    s ← weight·s + (1 - weight)·value from s = 0, divided by 1 - weight^k at the k-th value: TensorBoard's
    `classicSmoothing` (tensorboard/webapp/widgets/line_chart_v2/data_transformer.ts), which W&B's documentation names
    as its source too. A weight of 0 changes nothing. NaN stays NaN and is passed over.

    Raises ValueError when the weight is not in 0 … 0.99.
    """
    if not 0 <= weight <= 0.99:
        raise ValueError(f"smoothing must lie between 0 and 0.99; got {weight}")
    if weight == 0:
        return values
    result, average, left = np.full(len(values), np.nan, dtype=np.float32), 0.0, 1.0
    for k in np.flatnonzero(np.isfinite(values)):
        average = weight * average + (1 - weight) * float(values[k])
        left *= weight
        result[k] = average / (1 - left)
    return result


def over_seeds(curves: Sequence[RunCurves]) -> Seeds:
    """Mean, lowest and highest at each epoch, of the seeds that have come so far.

    There are no means of batches: seeds that have come differently far average over different ones.
    """
    if len(curves) == 1:
        return Seeds(*curves, *curves, *curves)
    columns: dict[str, Sequence[Any]] = {}
    for where, splits in (("epochs", ("train", "valid")), ("test_epochs", ("test",))):
        at = np.unique(np.concatenate([[], *(getattr(seed, where) for seed in curves)])).astype(np.float32)
        columns[where] = (at, at, at)
        for name in (f"{split}_{plot}" for split in splits for plot in ("loss", "accuracy")):
            table = np.full((len(curves), len(at)), np.nan)
            for row, seed in zip(table, curves, strict=True):
                row[np.searchsorted(at, getattr(seed, where))] = getattr(seed, name)
            seen = np.ma.masked_invalid(table)
            mean, low, high = (
                combined.filled(np.nan).astype(np.float32) for combined in (seen.mean(0), seen.min(0), seen.max(0))
            )
            columns[name] = (mean, low, high)
    nothing = np.zeros(0, dtype=np.float32)
    columns |= {"step_epochs": [nothing] * 3, "step_losses": [nothing] * 3, "diverged_at": [None] * 3}
    return Seeds(*(RunCurves(**{name: column[k] for name, column in columns.items()}) for k in range(3)))


def positions(epochs: Floats, run: Overlaid, across: Across) -> Floats:
    """Where points in epochs [n] lie on the x-axis.

    Within an epoch its seconds pass evenly; after the last finished one, at the pace of all before it. Several seeds
    take the mean seconds of each epoch. NaN where no epoch has finished, so that nothing tells the pace.
    """
    if across is Across.EPOCH:
        return epochs
    if across is Across.STEP:
        return (epochs * run.steps_per_epoch).astype(np.float32)
    finished = max(map(len, run.seconds), default=0)
    if not finished:
        return np.full_like(epochs, np.nan)
    durations = np.full((len(run.seconds), finished), np.nan)
    for row, ends in zip(durations, run.seconds, strict=True):
        row[: len(ends)] = np.diff(ends, prepend=0)
    ends = np.cumsum(np.nanmean(durations, axis=0))
    within = np.interp(epochs, np.arange(finished + 1), np.concatenate([[0], ends]))
    return np.asarray(within + np.maximum(epochs - finished, 0) * ends[-1] / finished, dtype=np.float32)
