"""Is everything well? What `python -m mnistlr_core doctor` says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import monotonic, sleep

from mnistlr_core.data import DatasetState
from mnistlr_core.lab import Lab

__all__ = ["Finding", "examine"]

_PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    well: bool
    words: str


def examine(lab: Lab) -> list[Finding]:
    """Look at the home, the store, the data sets and the engine; starts the engine and waits for it to answer."""
    home = lab.settings.home
    writable = os.access(home, os.W_OK)
    findings = [
        Finding("home", writable, "can be written" if writable else "can't be written; check MNISTLR_HOME"),
        Finding("store", True, f"answers; it holds {'some' if lab.runs(limit=1) else 'no'} runs"),
    ]
    for status in lab.dataset_statuses():
        # One that was never asked for is no fault.
        broken = status.state in (DatasetState.DAMAGED, DatasetState.FAILED)
        findings.append(Finding(f"data set {status.name}", not broken, status.warning or status.message))
    lab.start()
    started = monotonic()
    while lab.device is None and monotonic() - started < _PATIENCE_SECONDS:
        sleep(0.1)
    device = lab.device
    words = f"trains on {device}" if device else f"no answer in {_PATIENCE_SECONDS} s: {lab.trouble or 'no worker'}"
    return [*findings, Finding("engine", device is not None, words)]
