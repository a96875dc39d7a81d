"""Picked runs side by side: what differs, their curves over each other, and the images they get wrong.

On this page runs go by letters, in the order in which they were picked: legends, tables and sentences use the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from string import ascii_uppercase
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from mnistlr_core import charts
from mnistlr_core.comparison import differing_fields, legends
from mnistlr_core.comparison_sentences import groups_sentence, reached_sentence
from mnistlr_core.config import RunConfig
from mnistlr_core.estimate import steps_per_epoch
from mnistlr_core.lab import Lab
from mnistlr_core.links import unpack
from mnistlr_core.overlay import Across, Overlaid
from mnistlr_core.overlay_figure import overlay_figure
from mnistlr_core.records import Evidence
from mnistlr_core.seed_groups import FIGURES, Figure, Group, delta, figure_value, group_by_seed
from mnistlr_core.take_away import Kind, comparison_file, run_curves
from pages.parts import downloads, error_view, fields
from pages.parts.words import duration, percent, plain, setting

__all__ = ["show"]

_LOWER_IS_BETTER = ("best_valid_loss", "last_valid_loss", "test_loss", "seconds")


def show(lab: Lab, ids: Sequence[str]) -> None:
    """Everything about the picked runs; drawn anew every other second while one of them trains."""
    found = lab.find(ids)
    _say_missing(lab, [run_id for run_id in ids if run_id not in found])
    if not found:
        return
    live = any(run.state.active for run in found.values())

    @st.fragment(run_every=2.0 if live else None)
    def watch() -> None:
        runs = list(lab.find(list(found)).values())
        if live and not any(run.state.active for run in runs):
            st.rerun()
        histories = lab.histories([run.id for run in runs])
        evidence = [Evidence(run, histories[run.id]) for run in runs]
        names = ascii_uppercase[: len(evidence)]
        titles = _titles(evidence, names)
        _curves(lab, evidence, titles, names)
        _values(evidence, names)

    watch()
    error_view.show(lab, list(found.values()), ascii_uppercase[: len(found)])


def _say_missing(lab: Lab, missing: Sequence[str]) -> None:
    """Runs of a link that are not here: those that it carries the values of can be trained."""
    if not missing:
        return
    carried = {config.short_id: config for config in unpack(st.query_params.get("with", ""))}
    known = [carried[run_id] for run_id in missing if run_id in carried]
    unknown = [run_id for run_id in missing if run_id not in carried]
    if known:
        seconds = [preview.seconds for preview in map(lab.preview, known)]
        about = f" (about {duration(sum(filter(None, seconds)))})" if all(seconds) else ""
        names = ", ".join(config.label for config in known)
        st.info(f"Not on this server yet, but the link carries their values: {names}.", icon=":material/move_down:")
        st.button(
            f"Train them{about}", key="cmp_train", icon=":material/play_arrow:", on_click=_train, args=(lab, known)
        )
    if unknown:
        names = ", ".join(f"`{plain(run_id[:12])}`" for run_id in unknown)
        st.caption(f":material/link_off: Not on this server: {names}.")


def _train(lab: Lab, configs: Sequence[RunConfig]) -> None:
    for config in configs:
        lab.submit(config)


def _titles(evidence: Sequence[Evidence], names: str) -> list[str]:
    """`A · lr 0.1, Adam`: the letter, and what somebody called the run or what tells it from the others."""
    differs = legends([one.run.config for one in evidence])
    return [f"{name} · {one.run.name or words}" for name, one, words in zip(names, evidence, differs, strict=True)]


# Curves ---------------------------------------------------------------------------------------------------------------


def _curves(lab: Lab, evidence: Sequence[Evidence], titles: Sequence[str], names: str) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            st.markdown("###### Curves", width="content")
            across: Any = st.segmented_control(
                "Across",
                list(Across),
                default=Across.EPOCH,
                required=True,
                format_func=lambda across: across.label,
                key="cmp_across",
                bind="query-params",
                label_visibility="collapsed",
            )
            log_x = st.toggle("Log x", key="cmp_log_x", bind="query-params")
            log_y = st.toggle("Log loss", key="cmp_log_y", bind="query-params")
            groups = group_by_seed(evidence)
            pooled = len(groups) < len(evidence) and st.toggle(
                "Mean over seeds", value=True, key="cmp_pool", bind="query-params"
            )
            smoothing = st.slider(
                "Smoothing", 0.0, 0.95, 0.0, 0.05, key="cmp_smoothing", bind="query-params", width=160
            )
        state = tuple((one.run.id, one.run.state, one.run.step, one.run.attempts, one.run.name) for one in evidence)
        drawn, figure = _figure_of(
            (state, pooled, across, log_x, log_y, smoothing), lab, evidence, groups if pooled else (), titles
        )
        sentences = [reached_sentence(evidence, names)]
        if pooled:
            sentences.append(groups_sentence(groups, drawn, figure="best_valid_accuracy"))
        alt = " ".join(sentences)
        st.plotly_chart(figure, key="cmp_curves", config={"displayModeBar": False}, alt=alt)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(plain(alt))
            shown = (evidence, titles, figure, sentences)
            kinds = (Kind.REPORT, Kind.CSV, Kind.JSON)
            downloads.show_comparison({kind: partial(comparison_file, kind, *shown) for kind in kinds})


@st.cache_resource(max_entries=32, show_spinner=False)
def _figure_of(
    drawn_as: tuple[object, ...],
    _lab: Lab,
    _evidence: Sequence[Evidence],
    _groups: Sequence[Group],
    _titles: Sequence[str],
) -> tuple[list[str], go.Figure]:
    """The legend's entries and the figure; a tenth of a second for a dozen runs, so it is kept until one goes on.

    drawn_as: (what of each run it shows, pooled or not, across, log x, log y, smoothing), by which it is kept.
    """
    _, _, across, log_x, log_y, smoothing = drawn_as
    drawn = _pooled(_lab, _groups) if _groups else _single(_lab, _evidence, _titles)
    options: Any = {"across": across, "log_x": log_x, "log_y": log_y, "smoothing": smoothing}
    return [one.title for one in drawn], overlay_figure(drawn, **options)


def _single(lab: Lab, evidence: Sequence[Evidence], titles: Sequence[str]) -> list[Overlaid]:
    return [_overlaid(lab, (one,), title) for one, title in zip(evidence, titles, strict=True)]


def _pooled(lab: Lab, groups: Sequence[Group]) -> list[Overlaid]:
    names = legends([group.config for group in groups], seeds=False)
    counts = [f"{len(group.runs)} seed{'s' if len(group.runs) > 1 else ''}" for group in groups]
    titles = [f"{name}, {count}" for name, count in zip(names, counts, strict=True)]
    return [_overlaid(lab, group.runs, title) for group, title in zip(groups, titles, strict=True)]


def _overlaid(lab: Lab, seeds: Sequence[Evidence], title: str) -> Overlaid:
    first = seeds[0].run
    seconds = lab.epoch_seconds([one.run.id for one in seeds])
    return Overlaid(
        title=title,
        colour=charts.colour(first.colour),
        hover=setting(first.config),
        epochs=max(one.run.config.epochs if one.run.state.active else max(one.run.epoch, 1) for one in seeds),
        curves=tuple(run_curves(lab, one) for one in seeds),
        steps_per_epoch=first.steps_per_epoch or steps_per_epoch(first.config),
        seconds=tuple(seconds[one.run.id] for one in seeds),
    )


# Values ---------------------------------------------------------------------------------------------------------------


def _values(evidence: Sequence[Evidence], names: str) -> None:
    """Hyperparameters that differ, and figures with their distance from a reference; the best of each in bold."""
    configs = [one.run.config for one in evidence]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.markdown("###### Values", width="content")
            diff_only = st.toggle("Diff only", value=len(configs) > 1, key="cmp_diff", bind="query-params")
            reference = 0
            if len(evidence) > 1:
                chosen: Any = st.selectbox(
                    "Reference",
                    list(names),
                    format_func=lambda name: f"Against {name}",
                    key="cmp_reference",
                    bind="query-params",
                    label_visibility="collapsed",
                    width=140,
                )
                reference = names.index(chosen)
        heads = [
            f"{name} · {one.run.name}" if one.run.name else name for name, one in zip(names, evidence, strict=True)
        ]
        st.markdown(_table(evidence, configs, heads, diff_only=diff_only, reference=reference))


def _table(
    evidence: Sequence[Evidence],
    configs: Sequence[RunConfig],
    heads: Sequence[str],
    *,
    diff_only: bool,
    reference: int,
) -> str:
    shown = differing_fields(configs) if diff_only else tuple(RunConfig.model_fields)
    rows = ["| | " + " | ".join(map(plain, heads)) + " |", "|:--" * (len(heads) + 1) + "|"]
    for name in shown:
        used = [fields.in_words(name, config) if name in config.canonical() else "–" for config in configs]
        rows.append(f"| {fields.SPECS[name].title} | " + " | ".join(map(plain, used)) + " |")
    for figure, title in FIGURES.items():
        cells = _cells(figure, [figure_value(one, figure) for one in evidence], reference)
        if any(cell != "–" for cell in cells):
            rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cells(figure: Figure, values: Sequence[float | None], reference: int) -> list[str]:
    """One figure of every run: the best in bold, the others with their distance from the reference."""
    known = [value for value in values if value is not None]
    best = (min if figure in _LOWER_IS_BETTER else max)(known, default=None)
    cells = []
    for place, value in enumerate(values):
        if value is None:
            cells.append("–")
            continue
        text = _figure(figure, value)
        off = delta(values[reference], value)
        away = f" ({_signed(figure, off)})" if off is not None and place != reference else ""
        cells.append(f"**{text}**{away}" if value == best and len(known) > 1 else f"{text}{away}")
    return cells


def _figure(figure: Figure, value: float) -> str:
    if figure == "seconds":
        return duration(value)
    return percent(value) if figure.endswith("accuracy") else f"{value:.4f}"


def _signed(figure: Figure, off: float) -> str:
    if figure == "seconds":
        return f"{off:+.1f} s"
    return f"{100 * off:+.2f}" if figure.endswith("accuracy") else f"{off:+.4f}"
