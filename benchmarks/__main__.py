"""`python -m benchmarks training`, `page` and `compare`: measure, and print a table or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import compare, digits, page, training
from benchmarks.peers import CONTENDERS
from benchmarks.report import to_json, to_text
from mnistlr_core.settings import Settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark that the command line asks for; progress goes to stderr."""
    asked = _parser().parse_args(arguments)
    text, values = asked.run(asked)
    as_json = json.dumps(values, indent=2, ensure_ascii=False)
    if asked.json == "-":
        print(as_json)
        return
    if asked.json is not None:
        Path(asked.json).write_text(as_json + "\n", encoding="utf-8")
    print(text)


def _training(asked: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    found = digits.real(asked.data or Settings().datasets, asked.images)
    if found is None and asked.data is not None:
        asked.parser.error(f"--data must be torchvision's root with MNIST below it; there is none in {asked.data}")
    report = training.run(
        found or digits.generated(asked.images),
        models=tuple(training.MODELS) if asked.model == "both" else (asked.model,),
        only=asked.only,
        epochs=asked.epochs,
        rounds=asked.rounds,
        patience=asked.patience,
        say=_say,
    )
    return to_text(report), to_json(report)


def _page(asked: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    report = page.run(rounds=asked.rounds, data=asked.data, say=_say)
    return page.to_text(report), page.to_json(report)


def _compare(asked: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    report = compare.run(runs=asked.runs, rounds=asked.rounds, say=_say)
    return compare.to_text(report), compare.to_json(report)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="JSON to stdout, or to FILE beside the table"
    )
    common.add_argument("--data", type=Path, metavar="ROOT", help="torchvision's root; default MNISTLR_DATA")

    command = commands.add_parser(
        "training",
        parents=[common],
        help="seconds an epoch, against the tutorials' loop, other libraries and the bare arithmetic",
    )
    command.set_defaults(run=_training, parser=command)
    keys = ", ".join(contender.key for contender in CONTENDERS)
    command.add_argument("--epochs", type=_at_least(2), metavar="N", help="epochs of a round, from 2; default 5 and 2")
    command.add_argument(
        "--rounds", type=_at_least(1), metavar="R", help="default 5 for the linear model, 3 for the MLP"
    )
    command.add_argument(
        "--patience",
        type=_at_least(0),
        default=0,
        metavar="S",
        help="wait up to S seconds before each turn until the machine is calm; default 0",
    )
    command.add_argument("--only", type=_contenders, metavar="NAMES", help=f"some of them, by commas: {keys}")
    command.add_argument("--model", choices=(*training.MODELS, "both"), default="both")
    command.add_argument("--images", type=_at_least(1), metavar="N", help="train on the first N images only")

    command = commands.add_parser("page", parents=[common], help="what a view, a redraw and a watcher cost")
    command.set_defaults(run=_page)
    command.add_argument("--rounds", type=_at_least(1), default=5, metavar="R", help="pairs of trainings; default 5")

    command = commands.add_parser("compare", parents=[common], help="what the Compare page costs with many runs")
    command.set_defaults(run=_compare)
    command.add_argument("--runs", type=_at_least(1), default=10_000, metavar="N", help="stored runs; default 10,000")
    command.add_argument("--rounds", type=_at_least(1), default=4, metavar="R", help="default 4")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, but is {text!r}")
        return int(text)

    return number


def _contenders(text: str) -> frozenset[str]:
    known, asked = {contender.key for contender in CONTENDERS}, frozenset(text.split(","))
    if unknown := asked - known:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}")
    return asked


if __name__ == "__main__":
    main()
