"""A run, or several side by side, as one HTML file that needs no network: for a colleague, an archive, a mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from mnistlr_core import charts, sprites
from mnistlr_core.comparison import differing_fields
from mnistlr_core.config import RunConfig, fields
from mnistlr_core.evaluation import Order, Predictions, confusion, describe, mistakes
from mnistlr_core.matrix import confusion_figure
from mnistlr_core.records import Evidence, Run
from mnistlr_core.seed_groups import FIGURES, Figure, figure_value
from mnistlr_core.sentences import confusion_sentence, curves_sentence

__all__ = ["Tested", "comparison_report", "run_report"]

MOST_MISTAKES = 48

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f2a; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: 0.95rem; }
small, .quiet { color: #6a7080; }
table { border-collapse: collapse; } th, td { border: 1px solid #dfe2ec; padding: 0.3rem 0.7rem; text-align: left; }
.wide { overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)); gap: 0.7rem; }
.tiles figure { margin: 0; text-align: center; font-size: 0.8rem; }
.tiles i { display: block; aspect-ratio: 1; image-rendering: pixelated; border: 1px solid #ccc; border-radius: 4px; }
@media (prefers-color-scheme: dark) { body { color: #e8eaf2; background: #12141b; } th, td { border-color: #323848; }
  small, .quiet { color: #9aa0b0; } .tiles i { opacity: 0.93; } }
"""


@dataclass(frozen=True, eq=False, slots=True)
class Tested:
    """What a run read in the test images, and the images: uint8 [n, h, w] or [n, h, w, 3]."""

    predictions: Predictions
    images: NDArray[np.uint8]
    classes: tuple[str, ...]


def run_report(evidence: Evidence, curves: charts.RunCurves, tested: Tested | None) -> str:
    """One run: its configuration, figures, curves, confusion and worst mistakes."""
    run = evidence.run
    colour, epochs = charts.colour(run.colour), max(run.epoch, 1)
    sentence = curves_sentence(curves)
    parts = [
        f"<p>{escape(run.note)}</p>" if run.note else "",
        _facts(run),
        "<h2>Curves</h2>",
        f"<p>{escape(sentence)}</p>",
        _plot(charts.loss_figure(curves, colour=colour, epochs=epochs), "Loss by epoch"),
        _plot(charts.accuracy_figure(curves, colour=colour, epochs=epochs), "Accuracy by epoch"),
    ]
    if tested is not None:
        predictions = tested.predictions
        matrix = confusion(predictions.labels, predictions.predicted, len(tested.classes))
        parts += [
            "<h2>Confusion</h2>",
            f"<p>{escape(confusion_sentence(matrix, tested.classes))}</p>",
            _plot(confusion_figure(matrix, tested.classes), "Actual by predicted class"),
            f"<h2>What it got wrong: {predictions.errors:,} of {len(predictions.labels):,}</h2>",
            _mistakes(tested),
        ]
    parts += ["<h2>Configuration</h2>", _configuration([run.config], [run.id], tuple(RunConfig.model_fields))]
    return _page(run.title, parts)


def comparison_report(
    evidence: Sequence[Evidence], titles: Sequence[str], figure: go.Figure, sentences: Sequence[str]
) -> str:
    """Several runs: what the page says of them, their curves over each other, and their values side by side."""
    configs = [one.run.config for one in evidence]
    parts = [
        *(f"<p>{escape(sentence)}</p>" for sentence in sentences if sentence),
        _plot(figure, "Loss and accuracy of the runs"),
        "<h2>What differs</h2>",
        _configuration(configs, titles, differing_fields(configs)),
        "<h2>Figures</h2>",
        _table(["", *titles], [_figures(name, title, evidence) for name, title in FIGURES.items()]),
        "<h2>Runs</h2>",
        _table(
            ["", *titles], [["id", *(one.run.id for one in evidence)], ["state", *(one.run.state for one in evidence)]]
        ),
    ]
    return _page(f"{len(evidence)} runs compared", parts)


def _facts(run: Run) -> str:
    rows = [["Run", run.id], ["State", run.state.value]]
    if run.test:
        rows += [["Test accuracy", f"{100 * run.test.accuracy:.2f} %"], ["Wrong", f"{run.test.errors:,}"]]
        rows += [["Test loss", f"{run.test.loss:.4f}"]] if run.test.loss is not None else []
    rows += [["Trained", f"{run.epoch} of {run.config.epochs} epochs in {run.seconds:.1f} s on {run.device or '–'}"]]
    rows += [["With", ", ".join(f"{name} {version}" for name, version in run.versions.items())]]
    return _table(["", ""], rows)


def _configuration(configs: Sequence[RunConfig], titles: Sequence[str], names: Sequence[str]) -> str:
    used = [config.canonical() for config in configs]
    labels = {spec.name: spec for spec in fields()}
    rows = []
    for name in names:
        spec = labels[name]
        words = dict(zip(spec.choices, spec.labels, strict=True))
        values = [values.get(name, "–") for values in used]
        rows.append([spec.title, *(words.get(str(value), _value(value)) for value in values)])
    return _table(["", *titles], rows)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _figures(name: Figure, title: str, evidence: Sequence[Evidence]) -> list[str]:
    values = [figure_value(one, name) for one in evidence]
    return [title, *("–" if value is None else f"{value:.4f}" for value in values)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header) if any(header) else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _plot(figure: go.Figure, label: str) -> str:
    """A figure as a division; the script that draws it is in the page once. Its ground is the page's own."""
    clear = "rgba(0,0,0,0)"
    drawn = go.Figure(figure).update_layout(
        paper_bgcolor=clear, plot_bgcolor=clear, font={"color": charts.QUIET}, template="none"
    )
    drawn.update_xaxes(gridcolor="rgba(128,128,128,0.25)", automargin=True)
    drawn.update_yaxes(gridcolor="rgba(128,128,128,0.25)", automargin=True)
    body = drawn.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    return f'<h3>{escape(label)}</h3><div role="img" aria-label="{escape(label)}">{body}</div>'


def _mistakes(tested: Tested) -> str:
    predictions, classes = tested.predictions, tested.classes
    shown = mistakes(predictions, Order.LOSS)[:MOST_MISTAKES]
    if not len(shown):
        return "<p>All images were read correctly.</p>"
    columns, rows = sprites.table(len(shown))
    sheet = sprites.sprite(np.asarray(tested.images[shown]), columns, rows)
    tiles = "".join(
        f'<figure><i style="background:url({sheet}) {sprites.offset(at % columns, columns)} '
        f'{sprites.offset(at // columns, rows)}/{100 * columns}% {100 * rows}%"></i>'
        f"<b>{escape(classes[one.predicted])}</b> not {escape(classes[one.actual])}<br>"
        f"<small>{one.loss:.1f}</small></figure>"
        for at, one in enumerate(describe(predictions, shown))
    )
    return f'<p class="quiet">Highest loss first.</p><div class="tiles">{tiles}</div>'


def _page(title: str, parts: Sequence[str]) -> str:
    from plotly.offline import get_plotlyjs  # 4.7 MB of text, which nothing else needs

    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<h1>{escape(title)}</h1>{''.join(parts)}"
        f'<p class="quiet"><small>Written by mnistlr, {made}.</small></p></body></html>'
    )
