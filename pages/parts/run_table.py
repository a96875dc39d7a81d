"""The table of runs: filters, order, groups and pages, picking runs to compare, and what can be done with those picked.

All of it is in the URL. The picked runs are those of `runs`, short ids with commas between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from time import time
from typing import Any

import pandas as pd
import streamlit as st

from mnistlr_core import charts
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.comparison import legends
from mnistlr_core.config import RunConfig, fields
from mnistlr_core.errors import ConfigError
from mnistlr_core.export import read_configs
from mnistlr_core.lab import Lab
from mnistlr_core.library import FAMILY, GroupRow, Listed, RunQuery, Sort
from mnistlr_core.links import pack
from mnistlr_core.records import EpochRow, Outcome, RunState
from mnistlr_core.sentences import measured_words
from pages.parts import run_actions, share
from pages.parts.words import ago, duration, plain

__all__ = ["picked_ids", "show"]

PAGE_SIZE = 12
MOST = 12
"""Runs compared at once: more curves than that nobody tells apart."""

_SPECS = {spec.name: spec for spec in fields()}
_SORTS = {
    Sort.CREATED: "Newest",
    Sort.BEST_ACCURACY: "Best validation accuracy",
    Sort.LAST_ACCURACY: "Last validation accuracy",
    Sort.BEST_LOSS: "Best validation loss",
    Sort.LAST_LOSS: "Last validation loss",
    Sort.TEST_ACCURACY: "Test accuracy",
    Sort.SECONDS: "Training time",
    Sort.NAME: "Name",
    Sort.STATE: "State",
}
_ASCENDING = (Sort.BEST_LOSS, Sort.LAST_LOSS, Sort.SECONDS, Sort.NAME, Sort.STATE)


def picked_ids() -> list[str]:
    """The picked runs' ids as the URL has them, in the order in which they were picked."""
    said = st.query_params.get_all("runs")
    ids = [part.strip() for value in said for part in value.split(",")]
    return list(dict.fromkeys(part for part in ids if part))[:MOST]


def _pick(ids: Sequence[str]) -> None:
    """Pick these runs and no others; the tables tick them when they are drawn next."""
    _say(ids)
    st.session_state["_cmp_ticked_for"] = None


def _say(ids: Sequence[str]) -> None:
    if ids:
        st.query_params["runs"] = ",".join(list(dict.fromkeys(ids))[:MOST])
    else:
        st.query_params.pop("runs", None)


def show(lab: Lab) -> list[str]:
    """Draw the filters and the table; returns the ids of the runs that are picked."""
    query, best = _filters(lab)
    group = st.session_state["cmp_group"]
    if group == "none":
        _runs(lab, query, best=best)
    else:
        _groups(lab, query, group)
    run_actions.show(lab, picked_ids(), pick=_pick)
    return picked_ids()


def _filters(lab: Lab) -> tuple[RunQuery, bool]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        text = st.text_input(
            "Find",
            key="cmp_text",
            placeholder="Name, tag, value …",
            max_chars=80,
            bind="query-params",
            width=200,
        )
        sort: Any = st.selectbox(
            "Order", list(_SORTS), format_func=_SORTS.__getitem__, key="cmp_sort", bind="query-params", width=220
        )
        st.selectbox(
            "Group by",
            ["none", FAMILY, *_SPECS],
            format_func=lambda name: {"none": "No groups", FAMILY: "All but the seed"}.get(name) or _SPECS[name].title,
            key="cmp_group",
            bind="query-params",
            width=180,
        )
        best = st.segmented_control(
            "Figures", ["Best", "Last"], default="Best", required=True, key="cmp_figures", bind="query-params"
        )
        with st.popover("Filters", icon=":material/filter_alt:"):
            states = _several("State", "cmp_state", [str(state) for state in RunState], str.capitalize)
            datasets = _several("Data set", "cmp_set", list(DATASETS), lambda name: DATASETS[name].title)
            models = _several("Model", "cmp_model", *_labelled("architecture"))
            optimizers = _several("Optimizer", "cmp_optimizer", *_labelled("optimizer"))
            tags = _several("Tags", "cmp_tags", list(lab.library.all_tags()), str)
            starred = st.toggle("Starred only", key="cmp_starred", bind="query-params")
            archived = st.toggle("Archive", key="cmp_archived", bind="query-params", help="Runs that were put away.")
        _import(lab)
        found = lab.find(picked_ids()).values()
        share.show({"with": pack([run.config for run in found])} if found else None)
    query = RunQuery(
        text=text,
        states=tuple(RunState(state) for state in states),
        datasets=datasets,
        architectures=models,
        optimizers=optimizers,
        tags=tags,
        starred=starred,
        archived=archived,
        sort=Sort(sort),
        descending=sort not in _ASCENDING,
    )
    return query, best == "Best"


def _import(lab: Lab) -> None:
    """Configurations from a file, to be trained; what is wrong with them is said all at once."""
    with st.popover("Import", icon=":material/upload_file:", type="tertiary"):
        file = st.file_uploader(
            "Configurations as JSON: one, a list, or an export of this page", "json", key="cmp_import"
        )
        if file is None:
            return
        try:
            configs = read_configs(file.getvalue().decode("utf-8", errors="replace"))
        except ConfigError as error:
            st.error("\n".join(f"- {plain(str(problem))}" for problem in error.problems[:10]))
            return
        previews = [lab.preview(config) for config in configs]
        missing = sum(preview.outcome is not Outcome.CACHED for preview in previews)
        st.caption(f"{len(configs)} configurations, {missing} of them not trained yet.")
        st.button("Train and pick them", key="cmp_import_train", on_click=_train_imported, args=(lab, configs))


def _train_imported(lab: Lab, configs: Sequence[RunConfig]) -> None:
    for config in configs:
        lab.submit(config)
    _pick([config.short_id for config in configs])


def _labelled(name: str) -> tuple[list[str], Any]:
    spec = _SPECS[name]
    return list(spec.choices), dict(zip(spec.choices, spec.labels, strict=True)).__getitem__


def _several(title: str, key: str, options: list[str], format_func: Any) -> tuple[str, ...]:
    if not options:
        return ()
    chosen = st.multiselect(title, options, format_func=format_func, key=key, placeholder="Any", bind="query-params")
    return tuple(chosen)


def _runs(lab: Lab, query: RunQuery, *, best: bool) -> None:
    """One page of the runs; drawn anew every other second while one of them is being trained."""
    total = lab.library.list(query, limit=0).total
    if not total:
        _say_empty(lab, query)
        return
    offset = PAGE_SIZE * (_page(total) - 1)
    live = _active(lab.library.list(query, limit=PAGE_SIZE, offset=offset).rows)

    @st.fragment(run_every=2.0 if live else None)
    def watch() -> None:
        rows = lab.library.list(query, limit=PAGE_SIZE, offset=offset).rows
        if live != _active(rows):
            st.rerun()
        before = picked_ids()
        _table(rows, best=best)
        if picked_ids() != before:
            st.rerun()

    watch()


def _active(rows: Sequence[Listed]) -> bool:
    return any(row.run.state.active for row in rows)


def _table(rows: Sequence[Listed], *, best: bool) -> None:
    ids = [row.run.id for row in rows]
    if st.session_state.get("_cmp_ticked_for") != ids:  # other rows, or other runs picked: tick those that are
        here = [place for place, run_id in enumerate(ids) if run_id in picked_ids()]
        st.session_state["runs"] = {"selection": {"rows": here, "columns": [], "cells": []}}
        st.session_state["_cmp_ticked_for"] = ids
    event: Any = st.dataframe(
        _frame(rows, best=best),
        key="runs",
        height="content",
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        placeholder="–",
        column_config={
            "Colour": st.column_config.TextColumn("", width=30),
            "Validation accuracy": st.column_config.NumberColumn(format="%.2f %%"),
            "Test accuracy": st.column_config.NumberColumn(format="%.2f %%"),
            "Validation loss": st.column_config.NumberColumn(format="%.4f"),
            "Curve": st.column_config.LineChartColumn(y_min=0, y_max=100, help="Validation accuracy by epoch."),
            "★": st.column_config.TextColumn(width=30),
        },
        alt=f"{len(ids)} runs",
    )
    ticked = [ids[place] for place in event.selection.rows if place < len(ids)]
    _say([*(run_id for run_id in picked_ids() if run_id not in ids or run_id in ticked), *ticked])


def _page(total: int) -> int:
    """Which page of the table is shown, its number in the URL."""
    pages = max(1, -(-total // PAGE_SIZE))
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(f"{total:,} run{'s' if total != 1 else ''}. Tick up to {MOST} to compare them.", width="content")
        if pages == 1:
            return 1
        return int(st.pagination(pages, max_visible_pages=5, key="cmp_page", bind="query-params"))


def _frame(rows: Sequence[Listed], *, best: bool) -> Any:
    """The table of one page; the dot has the run's own colour."""
    differs = legends([row.run.config for row in rows])
    now = time()
    table = pd.DataFrame(
        {
            "Colour": ["●"] * len(rows),
            "Name": [row.run.title for row in rows],
            "Validation accuracy": [_percentage(row.accuracy(best=best)) for row in rows],
            "Validation loss": [row.loss(best=best) for row in rows],
            "Test accuracy": [_percentage(row.run.test.accuracy if row.run.test else None) for row in rows],
            "Curve": [[100 * _shown(epoch) for epoch in row.history] for row in rows],
            "Time": [duration(row.run.seconds) if row.run.seconds else "" for row in rows],
            "State": [row.run.state.capitalize() for row in rows],
            "Age": [ago(now - row.run.created_at) for row in rows],
            "Differs in": differs,
            "Tags": [", ".join(row.tags) for row in rows],
            "★": ["★" if row.run.starred else "" for row in rows],
        }
    )
    colours = [f"color: {charts.colour(row.run.colour)}" for row in rows]
    return table.style.apply(lambda column: colours, subset=["Colour"])


def _shown(epoch: EpochRow) -> float:
    """Validation accuracy, or training accuracy where nothing is held out."""
    return epoch.train_accuracy or 0.0 if epoch.valid_accuracy is None else epoch.valid_accuracy


def _percentage(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _say_empty(lab: Lab, query: RunQuery) -> None:
    if query == RunQuery(sort=query.sort, descending=query.descending) and not lab.runs(limit=1):
        st.markdown("Nothing has been trained yet. What is trained, here or by anybody else, is found on this page.")
        st.page_link("pages/train.py", label="Train something", icon=":material/play_arrow:")
        st.page_link("pages/articles.py", label="Or let the five articles be trained", icon=":material/fact_check:")
    else:
        st.caption("No run matches these filters.")


def _groups(lab: Lab, query: RunQuery, field: str) -> None:
    """A row for each group with its mean and spread; ticking one picks its newest runs."""
    groups = lab.library.groups(query, field, limit=25)
    if not groups:
        _say_empty(lab, query)
        return
    names = _group_names(lab, groups, field)
    table = pd.DataFrame(
        {
            "Group": names,
            "Runs": [group.n for group in groups],
            "Best validation accuracy": [measured_words(group.accuracy) if group.accuracy else "" for group in groups],
            "Test accuracy": [measured_words(group.test_accuracy) if group.test_accuracy else "" for group in groups],
        }
    )
    st.caption(f"{len(groups)} groups, the best first. Tick some to compare their newest runs.")
    st.dataframe(
        table,
        key="cmp_groups",
        hide_index=True,
        on_select=lambda: _take_groups(groups),
        selection_mode="multi-row",
        alt=f"Groups by {field}",
    )


def _take_groups(groups: Sequence[GroupRow]) -> None:
    """The newest runs of the ticked groups, by turns, as many as can be compared."""
    chosen = [groups[place] for place in st.session_state["cmp_groups"]["selection"]["rows"] if place < len(groups)]
    by_turns = itertools.zip_longest(*(group.newest for group in chosen))
    _pick([run_id for turn in by_turns for run_id in turn if run_id])


def _group_names(lab: Lab, groups: Sequence[GroupRow], field: str) -> list[str]:
    if field == FAMILY:
        runs = [lab.run(group.newest[0]) for group in groups]
        return [run.config.label + f", {run.config.epochs} epochs" for run in runs]
    labels = dict(zip(_SPECS[field].choices, _SPECS[field].labels, strict=True))
    title = _SPECS[field].title
    return [
        f"{title} {labels.get(group.value, group.value)}" if group.value else f"no {title.lower()}" for group in groups
    ]
