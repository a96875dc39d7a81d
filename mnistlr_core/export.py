"""A run as something to take away: today as the JSON object that scripts rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mnistlr_core.records import EpochRow, Run, best_epoch

__all__ = ["run_as_dict"]


def run_as_dict(run: Run, history: Sequence[EpochRow], *, cached: bool = False) -> dict[str, Any]:
    """The command line's contract: JSON values only, and null for every figure that is absent.

    `best` is the epoch with the highest validation accuracy; without a validation share there is none. `config` holds
    every field, also those that this configuration does not use.
    """
    best = best_epoch(tuple(history))
    return {
        "id": run.id,
        "digest": run.digest,
        "state": run.state.value,
        "cached": cached,
        "config": run.config.model_dump(mode="json"),
        "history": [asdict(row) for row in history],
        "best": asdict(best) if best else None,
        "test": asdict(run.test) if run.test else None,
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "device": run.device,
        "attempts": run.attempts,
        "diverged_step": run.diverged_step,
        "error": run.error,
    }
