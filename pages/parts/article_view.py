"""The five articles: run what is missing, and read verdicts, figures and curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st

from mnistlr_core import bands, charts
from mnistlr_core.articles import RECIPES, SEEDS, Recipe, article_configs, things_to_try
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import RunConfig, TestWatch
from mnistlr_core.data import DatasetState
from mnistlr_core.estimate import Workload, steps_per_epoch
from mnistlr_core.lab import Lab
from mnistlr_core.records import Evidence, RunState
from mnistlr_core.sentences import measured_words, verdict_sentence
from mnistlr_core.verdicts import Assessment, Check, Verdict, assess
from pages.parts import fetching, form, share
from pages.parts.words import duration, setting

__all__ = ["show"]

_COLOURS = {Verdict.HOLDS: "green", Verdict.ROUGHLY: "orange", Verdict.FAILS: "red"}
_ICONS = {Verdict.HOLDS: ":material/check:", Verdict.ROUGHLY: ":material/approval:", Verdict.FAILS: ":material/close:"}


def show(lab: Lab) -> None:
    """The controls, then a card for each article; drawn anew every second while any of the runs is on its way."""
    seeds, dataset = _controls(lab)
    configs = article_configs(seeds, dataset)
    ready = lab.dataset_status(dataset).state is DatasetState.READY
    live = lab.workload(configs, lab.evidence(configs)).active > 0

    @st.fragment(run_every=1.0 if live else None)
    def watch() -> None:
        runs = lab.evidence(configs)
        work = lab.workload(configs, runs)
        if live != (work.active > 0):  # the page's own run sets the pace: a second, or none
            st.rerun()
        found = [assess(recipe, runs, seeds=seeds, dataset=dataset) for recipe in RECIPES.values()]
        _run_all(lab, configs, runs, work, found, ready=ready)
        for assessment in found:
            with st.container(border=True, key=f"article-{assessment.recipe.id}"):
                _card(lab, assessment, dataset)

    watch()


def _controls(lab: Lab) -> tuple[int, str]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        seeds = st.segmented_control(
            "Seeds",
            (SEEDS, 5, 10),
            default=SEEDS,
            required=True,
            key="articles_seeds",
            help="Each seed is a run with other initial weights and another order of the batches.",
            bind="query-params",
            width="content",
        )
        dataset = st.selectbox(
            "Data set",
            list(DATASETS),
            format_func=lambda name: DATASETS[name].title,
            key="articles_set",
            help="The claims are about MNIST. On other images there are figures, but no verdicts.",
            bind="query-params",
            width=180,
        )
        share.show()
    fetching.show(lab, dataset, key="articles_fetch")
    return int(seeds or SEEDS), str(dataset)


def _run_all(
    lab: Lab,
    configs: Sequence[RunConfig],
    runs: Mapping[str, Evidence],
    work: Workload,
    found: Sequence[Assessment],
    *,
    ready: bool,
) -> None:
    """One button for all that is missing, and one bar for all that is on its way."""
    if work.active:
        left = f" · about {duration(work.seconds)} left" if work.seconds else ""
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.button("Stop all", key="stop_all", icon=":material/stop:", on_click=_stop_all, args=(lab, runs))
            st.progress(work.share, text=f"{work.answered} of {work.total} runs{left}")
        if lab.trouble:
            st.caption(f":material/hourglass_top: {lab.trouble}…")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.button(
            "Run all",
            key="run_all",
            type="primary",
            icon=":material/play_arrow:",
            disabled=not ready or not work.missing,
            on_click=_submit,
            args=(lab, configs, runs),
        )
        if not work.missing:
            st.caption(f":material/bolt: All {work.total} runs are here{_summary(found)}.")
        else:
            about = f": about {duration(work.seconds)}" if work.seconds else ""
            st.caption(f":material/schedule: {work.missing} of {work.total} runs are missing{about}.")


def _summary(found: Sequence[Assessment]) -> str:
    """How many articles came to which verdict."""
    counted = Counter(assessment.verdict for assessment in found)
    words = {
        Verdict.HOLDS: ("holds", "hold"),
        Verdict.ROUGHLY: ("holds roughly", "hold roughly"),
        Verdict.FAILS: ("does not hold", "do not hold"),
    }
    said = [f"{counted[verdict]} {forms[counted[verdict] > 1]}" for verdict, forms in words.items() if counted[verdict]]
    return f": of {len(found)} articles, {', '.join(said)}" if said else ""


def _submit(lab: Lab, configs: Sequence[RunConfig], runs: Mapping[str, Evidence]) -> None:
    for config in configs:
        if config.short_id not in runs or not runs[config.short_id].run.state.answered:
            lab.submit(config)


def _stop_all(lab: Lab, runs: Mapping[str, Evidence]) -> None:
    for evidence in runs.values():
        if evidence.run.state.active:
            lab.stop(evidence.run.id)


def _card(lab: Lab, assessment: Assessment, dataset: str) -> None:
    recipe = assessment.recipe
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"##### {recipe.title}", width="content")
        _badge(assessment)
    words, picture = st.columns([1, 1], gap="medium")
    with words:
        st.caption(f"`{recipe.id}` · {setting(recipe.config)}")
        st.markdown(recipe.teaches)
        sentence = verdict_sentence(assessment)
        verdict, stop, rest = sentence.partition(". ")
        st.markdown(f"**{verdict}**{stop}{rest}")
        if dataset == "mnist" and recipe.claims:
            st.markdown(_table(assessment))
        _links(assessment)
    with picture:
        _curves(lab, assessment, dataset, sentence)


def _badge(assessment: Assessment) -> None:
    states = [evidence.run.state for group in assessment.runs for evidence in group]
    if any(state.active for state in states):
        st.badge("Running" if RunState.RUNNING in states else "Queued", icon=":material/sprint:", color="blue")
    elif assessment.verdict is not None:
        verdict = assessment.verdict
        st.badge(verdict.capitalize(), icon=_ICONS[verdict], color=_COLOURS[verdict])  # type: ignore[arg-type]
    else:
        st.badge("Measured" if assessment.complete else "Not measured", color="gray")


def _table(assessment: Assessment) -> str:
    """Claims beside means, as Markdown: a row per claim, those of variants below."""
    rows = [
        f"| The article says | Here, over {assessment.seeds} seeds | |",
        "|:--|:--|:--|",
        *(_row(check, assessment.seeds) for check in assessment.checks[0]),
    ]
    for variant, checks in zip(assessment.recipe.variants, assessment.checks[1:], strict=True):
        rows += [_row(check, assessment.seeds, f", with {variant.title}") for check in checks]
    return "\n".join(rows)


def _row(check: Check, seeds: int, changed: str = "") -> str:
    words = f"{check.claim.words[0].upper()}{check.claim.words[1:]}{changed}"
    if check.measured is None:
        return f"| {words} | – | |"
    short = f" (n = {check.measured.n})" if check.measured.n != seeds else ""
    figure = measured_words(check.measured, loss=check.claim.figure == "train_loss").replace(" ", "\N{NO-BREAK SPACE}")
    badge = f":{_COLOURS[check.verdict]}-badge[{check.verdict}]" if check.verdict else ""
    return f"| {words} | {figure}{short} | {badge} |"


def _curves(lab: Lab, assessment: Assessment, dataset: str, sentence: str) -> None:
    groups = {}
    for number, group in enumerate(assessment.runs):
        title = f"with {assessment.recipe.variants[number - 1].title}" if number else ""
        groups[title] = bands.bands(
            [_numbers(lab, evidence) for evidence in group],
            [(run.config.epochs, run.test.accuracy) for run in (evidence.run for evidence in group) if run.test],
        )
    config, claims = assessment.recipe.config, assessment.recipe.claims if dataset == "mnist" else ()
    figure = bands.bands_figure(
        {title: drawn for title, drawn in groups.items() if drawn},
        claims,
        colours=charts.PALETTE,
        epochs=config.epochs,
    )
    st.plotly_chart(figure, key=f"chart_{assessment.recipe.id}", config={"displayModeBar": False}, alt=sentence)


def _numbers(lab: Lab, evidence: Evidence) -> charts.RunCurves:
    run = evidence.run
    looks = lab.test_rows(run.id) if run.config.test_watch is TestWatch.STEPS else ()
    return charts.curves(evidence.history, np.empty(0), steps_per_epoch(run.config), tests=looks)


def _links(assessment: Assessment) -> None:
    """Where to go on: the form with this recipe, with one change, and the runs themselves."""
    recipe = assessment.recipe
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _train_link(recipe, "Open in Train", {}, ":material/tune:")
        with st.popover("Things to try", type="tertiary", icon=":material/science:"):
            for trial in things_to_try(recipe):
                _train_link(recipe, trial.title, trial.changes, ":material/arrow_forward:")
            for variant in recipe.variants:
                _train_link(recipe, f"With {variant.title}", variant.changes, ":material/arrow_forward:")
        if any(assessment.runs):
            with st.popover("Runs", type="tertiary", icon=":material/show_chart:"):
                for number, group in enumerate(assessment.runs):
                    changed = f", with {recipe.variants[number - 1].title}" if number else ""
                    for evidence in group:
                        run = evidence.run
                        st.page_link(
                            "pages/train.py",
                            label=f"Seed {run.config.seed}{changed}: {run.state}",
                            query_params={"run": run.id},
                        )


def _train_link(recipe: Recipe, label: str, changes: Mapping[str, object], icon: str) -> None:
    st.page_link("pages/train.py", label=label, icon=icon, query_params=form.link(recipe, changes))
