"""Runs with histories as given, for what is computed from finished runs."""

from __future__ import annotations

from collections.abc import Sequence

from mnistlr_core.articles import Recipe, seeded
from mnistlr_core.config import RunConfig
from mnistlr_core.records import EpochRow, Evidence, Result, Run, RunState

__all__ = ["article_runs", "evidence", "runs_of"]


def runs_of(values: Sequence[float]) -> list[Evidence]:
    """Runs whose validation accuracy after two epochs is as given."""
    return [evidence(config, value) for config, value in zip(seeded(RunConfig(), len(values)), values, strict=True)]


def article_runs(recipe: Recipe, values: Sequence[float]) -> dict[str, Evidence]:
    """One run of the recipe per value, each of whose accuracies is that value throughout."""
    return {
        config.short_id: evidence(config, value, test=value, early=value)
        for config, value in zip(seeded(recipe.config, len(values)), values, strict=True)
    }


def evidence(config: RunConfig, value: float, *, test: float = 0.9, early: float = 0.25) -> Evidence:
    run = Run(
        id=config.short_id,
        digest=config.digest,
        config=config,
        state=RunState.FINISHED,
        created_at=0.0,
        finished_at=1.0,
        attempts=1,
        stop_requested=False,
        epoch=config.epochs,
        step=1,
        steps_per_epoch=1,
        seconds=1.0,
        images_per_second=1.0,
        device="CPU",
        error=None,
        notice=None,
        diverged_step=None,
        test=Result(1.0, test, 10),
        versions={},
    )
    epochs = range(2, (config.epochs if early == value else 2) + 1)
    first = EpochRow(1, 2.0, early, 2.0, early, None, None)
    return Evidence(run, (first, *(EpochRow(epoch, 1.0, value, 1.0, value, None, None) for epoch in epochs)))
