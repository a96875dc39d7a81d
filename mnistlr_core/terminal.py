"""Following runs in a terminal: progress on standard error, results on standard output, Ctrl-C in order."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from time import sleep
from types import FrameType
from typing import Any

from tqdm import tqdm

from mnistlr_core.config import RunConfig
from mnistlr_core.estimate import steps_per_epoch
from mnistlr_core.lab import Lab
from mnistlr_core.records import Evidence, Run, RunState
from mnistlr_core.sentences import measured_words, verdict_sentence
from mnistlr_core.verdicts import Assessment

__all__ = [
    "POLL_SECONDS",
    "Interrupts",
    "json_option",
    "print_assessment",
    "print_json",
    "print_run",
    "watch",
    "watch_all",
]

POLL_SECONDS = 0.1


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json` to a command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


class Interrupts:
    """Counts Ctrl-C instead of breaking off wherever it finds the program; the second one does break off."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


def watch(lab: Lab, run_id: str, config: RunConfig, interrupts: Interrupts) -> Run:
    """Follow a run to its end, with a progress bar on standard error. Ctrl-C asks it to stop, a second one leaves."""
    run = lab.run(run_id)
    if not run.state.active:
        return run
    total = config.epochs * steps_per_epoch(config)
    stopping = False
    with tqdm(total=total, unit="step", desc=f"{run_id} {config.label}", file=sys.stderr, initial=run.step) as bar:
        while run.state.active:
            sleep(POLL_SECONDS)
            if interrupts.count and not stopping:
                stopping = True
                lab.stop(run_id)
            run = lab.run(run_id)
            bar.update(run.step - bar.n)
            speed = f", {run.images_per_second:,.0f} images/s" if run.images_per_second else ""
            bar.set_postfix_str(f"epoch {run.epoch}/{config.epochs}{speed}")
    return run


def watch_all(lab: Lab, configs: Sequence[RunConfig], interrupts: Interrupts) -> dict[str, Evidence]:
    """Follow several runs to their ends, with one progress bar. Ctrl-C asks all to stop, a second one leaves."""
    stopping = False
    with tqdm(total=100, unit="%", file=sys.stderr, bar_format="{l_bar}{bar}| {elapsed}{postfix}") as bar:
        while True:
            runs = lab.evidence(configs)
            work = lab.workload(configs, runs)
            bar.set_description_str(f"{work.answered} of {work.total} runs")
            bar.update(100 * work.share - bar.n)
            bar.set_postfix_str(f"about {work.seconds:.0f} s left" if work.seconds and work.active else "")
            if not work.active:
                return runs
            if interrupts.count and not stopping:
                stopping = True
                for evidence in runs.values():
                    lab.stop(evidence.run.id)
            sleep(POLL_SECONDS)


def print_run(lab: Lab, run: Run, *, cached: bool) -> None:
    print(f"{run.id}  {run.config.label}  {run.state}{' (cached)' if cached else ''}")
    for row in lab.history(run.id):
        valid = "" if row.valid_accuracy is None else f"   validation {row.valid_loss:.4f} {row.valid_accuracy:.4f}"
        print(f"epoch {row.epoch:4d}   training {row.train_loss or float('nan'):.4f} {row.train_accuracy:.4f}{valid}")
    if run.state is RunState.DIVERGED:
        print(
            f"It diverged at step {run.diverged_step}; try a smaller learning rate than {run.config.learning_rate:g}."
        )
    if run.error:
        print(run.error)
    if run.test:
        print(f"test {run.test.loss or float('nan'):.4f} {run.test.accuracy:.4f}, {run.test.errors} wrong")
    speed = f", {run.images_per_second:,.0f} images/s" if run.images_per_second else ""
    print(f"{run.seconds:.1f} s{speed}, {run.device or 'no device'}")


def print_assessment(assessment: Assessment) -> None:
    print(f"{assessment.recipe.id}: {verdict_sentence(assessment)}")
    titles = ("", *(f", with {variant.title}" for variant in assessment.recipe.variants))
    for title, checks in zip(titles, assessment.checks, strict=True):
        for check in checks:
            words = "–"
            if check.measured is not None:
                words = measured_words(check.measured, loss=check.claim.figure == "train_loss")
                words += f" (n = {check.measured.n})  {check.verdict}"
            print(f"    {check.claim.words + title:68} {words}")


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False))
