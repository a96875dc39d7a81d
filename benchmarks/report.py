"""A `Report` as text for people and as a JSON value for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.measure import BUSY, ENGINE, ModelReport, Report, Spread, Standing, ratio

__all__ = ["PROMISES", "to_json", "to_text"]

PROMISES = (
    ("article's loop / engine", "article", ENGINE),
    ("engine / bare products", ENGINE, "products"),
)
"""The ratios that the project stands by: what they are called, numerator, denominator."""

_HEADER = ("", "s/epoch", "min–max", "n", "× engine", "min–max", "n", "test acc.", "others")


def to_text(report: Report) -> str:
    """A table for each model and the promised ratios under it."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items() if version)
    load = "unknown" if machine.load is None else f"{machine.load:.2f}"
    head = [
        f"Training benchmark, {report.started_at}",
        f"data     {report.data}",
        f"machine  {machine.cpu}, {machine.cores} cores, {machine.system}; load at the start {load}",
        f"threads  {machine.threads} for the peers; the engine by its own rule",
        f"versions {versions}",
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(_model_text(model) for model in report.models)


def to_json(report: Report) -> dict[str, Any]:
    """Everything: the raw seconds of every epoch and round, their medians, and the ratios."""
    value = asdict(report)
    for model, written in zip(report.models, value["models"], strict=True):
        engine = model.standing(ENGINE)
        for standing, entry in zip(model.standings, written["standings"], strict=True):
            entry["seconds_per_epoch"] = _spread_json(standing.seconds)
            entry["ratio_to_engine"] = _spread_json(ratio(standing, engine))
        written["ratios"] = {name: _spread_json(model.ratio(a, b)) for name, a, b in PROMISES}
    return value


def _spread_json(found: Spread | None) -> dict[str, float] | None:
    return asdict(found) if found else None


def _model_text(model: ModelReport) -> str:
    engine = model.standing(ENGINE)
    measured = [_row(standing, ratio(standing, engine)) for standing in model.standings if standing.outcomes]
    lines = [f"{model.title}; {model.epochs} epochs a round, {model.rounds} rounds in turn"]
    lines += [f"n: rounds that count, those in which other processes took at most {BUSY:.0%} of the processors", ""]
    lines += _columns([_HEADER, *measured])
    lines += [f"{standing.name}: absent. {standing.absent}" for standing in model.standings if standing.absent]
    lines.append("")
    lines += [_promise(name, model.ratio(a, b)) for name, a, b in PROMISES]
    lines += [line for standing in model.standings for line in _notes(standing)]
    return "\n".join(lines)


def _row(standing: Standing, to_engine: Spread | None) -> tuple[str, ...]:
    accuracy, others = standing.accuracy, standing.others
    return (
        standing.name,
        *_cells(standing.seconds),
        *_cells(to_engine),
        "–" if accuracy is None else f"{accuracy:.4f}",
        "–" if others is None else f"{others:.0%}",
    )


def _cells(found: Spread | None) -> tuple[str, str, str]:
    if found is None:
        return "–", "–", "–"
    return _figure(found.median), f"{_figure(found.low)}–{_figure(found.high)}", str(found.n)


def _promise(name: str, found: Spread | None) -> str:
    if found is None:
        return f"{name}: not measured"
    return f"{name}: {_figure(found.median)} ({_figure(found.low)}–{_figure(found.high)} over {found.n} rounds)"


def _notes(standing: Standing) -> list[str]:
    firsts = [outcome.first_epoch for outcome in standing.outcomes if outcome.first_epoch is not None]
    tried = sorted({outcome.threads for outcome in standing.outcomes if outcome.threads is not None})
    notes = []
    if standing.disturbed:
        notes.append(
            f"{standing.name}: NOT VALID, other processes took more than {BUSY:.0%} of the processors throughout"
        )
    if firsts:
        notes.append(
            f"{standing.name}: the first epoch, which compiles and isn't counted, took {_figure(max(firsts))} s at most"
        )
    if tried:
        notes.append(f"{standing.name}: threads of the faster measurement: {', '.join(map(str, tried))}")
    return notes


def _figure(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    decimals = max(0, 2 - _magnitude(value))
    return f"{value:.{decimals}f}"


def _magnitude(value: float) -> int:
    return int(f"{abs(value):.2e}".partition("e")[2]) if value else 0


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as aligned lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
