"""Stores with many runs, written at once: what thousands of trainings would leave behind, without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import sqlalchemy as sa

from mnistlr_core import schema
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.records import RunState
from mnistlr_core.store import COLOURS, Store

__all__ = ["configs", "fill"]

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
STATES = (*[RunState.FINISHED] * 17, RunState.STOPPED, RunState.DIVERGED, RunState.FAILED)


def configs(epochs: int) -> Iterator[RunConfig]:
    """Configurations without end: every combination of the usual values, under one seed after the other."""
    for seed in itertools.count():
        for optimizer, rate, batch, architecture in itertools.product(
            ("sgd", "adam", "adagrad"), RATES, (32, 64, 100, 128, 256), ("linear", "mlp")
        ):
            values = {"optimizer": optimizer, "learning_rate": rate, "batch_size": batch, "architecture": architecture}
            yield parse_config(values | {"seed": seed, "epochs": epochs})


def fill(store: Store, runs: int, *, epochs: int = 10) -> list[str]:
    """Write so many runs that have ended, one way or another, with their histories; returns their ids, oldest first."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    for place, config in enumerate(itertools.islice(configs(epochs), runs)):
        stored, state = config.stored(), STATES[place % len(STATES)]
        accuracy = np.sort(random.uniform(0.5, 0.99, epochs))
        tested = state in (RunState.FINISHED, RunState.STOPPED)
        rows.append(
            {
                "id": config.short_id,
                "digest": config.digest,
                "config": stored,
                "state": state,
                "created_at": 1.7e9 + place,
                "queued_at": 1.7e9 + place,
                "finished_at": 1.7e9 + place + 5,
                "epoch": epochs,
                "step": 540 * epochs,
                "steps_per_epoch": 540,
                "seconds": 5.0,
                "attempts": 1,
                "test_accuracy": float(accuracy[-1]) if tested else None,
                "test_loss": 0.3 if tested else None,
                "test_errors": round(10_000 * (1 - accuracy[-1])) if tested else None,
                "versions": {},
                "colour": place % COLOURS,
                "family": config.family,
            }
        )
        for epoch, value in enumerate(accuracy.tolist(), 1):
            figures = {"train_loss": 1 - value, "train_accuracy": value, "valid_loss": 1.1 - value}
            history.append(
                {"run_id": config.short_id, "epoch": epoch, "step": 540 * epoch, "seconds": 0.5 * epoch}
                | figures
                | {"valid_accuracy": value}
            )
    with store.writing() as db:
        db.execute(sa.insert(schema.runs), rows)
        db.execute(sa.insert(schema.epochs), history)
    return [row["id"] for row in rows]
