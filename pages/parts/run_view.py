"""One run on the screen: live while it trains, then its figures, curves, mistakes and confusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from mnistlr_core import charts
from mnistlr_core.articles import Recipe
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import TestWatch
from mnistlr_core.errors import ArtifactError, DatasetError
from mnistlr_core.estimate import steps_per_epoch
from mnistlr_core.evaluation import confusion
from mnistlr_core.lab import Lab
from mnistlr_core.matrix import confusion_figure, picked_cell
from mnistlr_core.records import EpochRow, Run, RunState, TestRow, best_epoch
from mnistlr_core.sentences import confusion_sentence, curves_sentence
from pages.parts import downloads, form, image_grid
from pages.parts.words import duration, percent, plain

__all__ = ["show", "show_empty"]

_BADGES = {
    RunState.QUEUED: ("Queued", ":material/hourglass_top:", "gray"),
    RunState.RUNNING: ("Running", ":material/sprint:", "blue"),
    RunState.FINISHED: ("Finished", ":material/check:", "green"),
    RunState.STOPPED: ("Stopped", ":material/stop:", "orange"),
    RunState.DIVERGED: ("Diverged", ":material/trending_up:", "violet"),
    RunState.FAILED: ("Failed", ":material/error:", "red"),
}


@dataclass(frozen=True, eq=False, slots=True)
class _Curves:
    """What the curves of a run are drawn from, as it was at one moment."""

    run: Run
    history: tuple[EpochRow, ...]
    step_losses: NDArray[np.float32]
    tests: tuple[TestRow, ...]

    @classmethod
    def of(cls, lab: Lab, run: Run) -> _Curves:
        return cls(run, lab.history(run.id), lab.step_losses(run.id), lab.test_rows(run.id))


_BETWEEN = 60
"""Pixels between the figures and the curves: for the progress bar while a run trains, for its facts afterwards."""


def show_empty(lab: Lab, recipe: Recipe | None) -> None:
    """Nothing trained yet: what this is or what the recipe teaches, what to press, and what others have trained."""
    with st.container(border=True):
        st.markdown("##### What happens if I change this?")
        if recipe is None:
            st.markdown(
                "Train a linear model or a small neural network on handwritten digits, here and now. "
                "Pick values on the form, press **Train**, watch the curves, and see the images it reads wrong."
            )
        else:
            st.markdown(f"**{recipe.title}.** {recipe.teaches}")
            _say_claims(recipe)
            st.page_link("pages/articles.py", label="Does that hold?", icon=":material/fact_check:")
    recent = [run for run in lab.runs(limit=20) if run.state is RunState.FINISHED][:6]
    if recent:
        st.markdown("###### Trained before")
        for run in recent:
            _offer(run)


def _say_claims(recipe: Recipe) -> None:
    said = "; ".join(claim.words for claim in recipe.claims)
    st.caption(f":material/fact_check: The article says: {said}." if said else "The article gives no figure.")


def _offer(run: Run) -> None:
    config = run.config
    words = [DATASETS[config.dataset].title, f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"]
    words += [f"seed {config.seed}"] if config.seed else []
    words += [f"test {percent(run.test.accuracy)}"] if run.test else []
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.page_link("pages/train.py", label=config.label, icon=":material/show_chart:", query_params={"run": run.id})
        st.caption(" · ".join(words))


def show(lab: Lab, run: Run, recipe: Recipe | None) -> None:
    """The whole view of a run, whatever its state; with a recipe, beside what its article says."""
    if run.state.active:
        _live(lab, run)
        return
    _header(run)
    _explain(run)
    if recipe is not None:
        _say_claims(recipe)
    if run.test is not None:
        _metrics(run)
        with st.container(height=_BETWEEN, border=False):
            st.caption(_facts(lab, run))
    _draw_curves(_Curves.of(lab, run))
    if run.step:
        downloads.show_run(lab, run)
    if run.test is not None:
        _mistakes(lab, run)


def show_summary(lab: Lab, run: Run) -> None:
    """A run in short, for a drawer: its state, figures and curves as they are now."""
    _header(run)
    if run.error:
        st.caption(f":material/error: {plain(run.error)}")
    _metrics(run)
    _draw_curves(_Curves.of(lab, run), key="drawer")


def _header(run: Run) -> None:
    word, icon, colour = _BADGES[run.state]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"##### {plain(run.title)}", width="content")
        st.badge(word, icon=icon, color=colour)  # type: ignore[arg-type]
        st.badge(DATASETS[run.config.dataset].title, color="gray")
        if run.device:
            st.badge(run.device, color="gray")
    if run.notice:
        st.caption(f":material/healing: {run.notice}")


def _live(lab: Lab, run: Run) -> None:
    """Poll while the run is active. A redraw happens only on new data: an equal figure is not sent again."""

    # A short run would be over before a slow pace shows anything of it; a long one is slowed by a quick pace.
    seconds = lab.preview(run.config).seconds
    pace = 0.5 if seconds is None or seconds < 5 else 1.0

    @st.fragment(run_every=pace)
    def watch() -> None:
        now = lab.run(run.id)
        if now.state is not run.state:
            st.rerun()
        _header(now)
        _metrics(now)
        with st.container(height=_BETWEEN, border=False):
            _progress(lab, now)
        shown: _Curves | None = st.session_state.get("_shown")
        paused = st.session_state.get("paused", False)
        if not paused or shown is None or shown.run.id != run.id:
            shown = st.session_state["_shown"] = _Curves.of(lab, now)
        _draw_curves(shown)
        if len(shown.step_losses):
            st.toggle("Pause live updates", key="paused", help="Keeps your zoom while the training goes on.")

    watch()


def _progress(lab: Lab, run: Run) -> None:
    config = run.config
    total = config.epochs * (run.steps_per_epoch or steps_per_epoch(config))
    if run.state is RunState.QUEUED:
        st.progress(0.0, text=f"Queued: {lab.trouble or 'waiting for the worker'}…")
        return
    if not run.step:
        st.progress(0.0, text="Loading the images…")
        return
    words = [f"Epoch {min(run.epoch + 1, config.epochs)} of {config.epochs}"]
    if run.images_per_second:
        words.append(f"{run.images_per_second:,.0f} images/s")
    if run.seconds:
        words.append(f"{duration(run.seconds * (total - run.step) / run.step)} left")
    st.progress(min(1.0, run.step / total), text=" · ".join(words))


def _explain(run: Run) -> None:
    """The states that are no plain success, each with its own words and a next step."""
    config = run.config
    if run.state is RunState.DIVERGED:
        smaller = config.replace(learning_rate=max(1e-7, float(f"{config.learning_rate / 10:.2g}")))
        st.warning(
            f"**Diverged at step {run.diverged_step:,}**: with a learning rate of {config.learning_rate:g} the loss "
            "grew without bound: the steps overshoot. That is a result, and it is kept.",
            icon=":material/trending_up:",
        )
        st.button(
            f"Fill the form with learning rate {smaller.learning_rate:g}",
            icon=":material/replay:",
            key="smaller",
            on_click=form.fill,
            args=(smaller,),
        )
    elif run.state is RunState.FAILED:
        st.error(f"**Failed.** {run.error} Press Train to try again.", icon=":material/error:")
    elif run.state is RunState.STOPPED:
        kept = (
            f"after {run.epoch} of {config.epochs} epochs; what was trained is kept" if run.step else "before it began"
        )
        st.info(f"**Stopped** {kept}. Press Train to go on.", icon=":material/stop:")


def _metrics(run: Run) -> None:
    """The four figures, in the same place while they are not known yet: nothing may jump when a run ends."""
    test, unknown = run.test, "–"
    accuracy = percent(test.accuracy) if test else unknown
    loss = f"{test.loss:.4f}" if test and test.loss is not None else unknown
    with st.grid(4, min_column_width=130):
        st.metric("Test accuracy", accuracy, border=True, height="stretch")
        st.metric("Test loss", loss, border=True, height="stretch")
        wrong = f"{test.errors:,}" if test else unknown
        st.metric(f"Wrong of {DATASETS[run.config.dataset].test_size:,}", wrong, border=True, height="stretch")
        st.metric("Trained in", duration(run.seconds) if run.seconds else unknown, border=True, height="stretch")


def _facts(lab: Lab, run: Run) -> str:
    words = [f"{run.images_per_second:,.0f} images/s"] if run.images_per_second else []
    best = best_epoch(lab.history(run.id))
    if best is not None and best.valid_accuracy is not None:
        words.append(f"best validation {percent(best.valid_accuracy)} at epoch {best.epoch}")
    if run.config.test_watch is TestWatch.STEPS and (looks := lab.test_rows(run.id)):
        words.append("test by step " + ", ".join(f"{look.step:,}: {percent(look.accuracy)}" for look in looks[:6]))
    return " · ".join(words)


def _draw_curves(drawn: _Curves, *, key: str = "chart") -> None:
    if not len(drawn.step_losses):
        return
    run = drawn.run
    numbers = charts.curves(
        drawn.history,
        drawn.step_losses,
        run.steps_per_epoch or steps_per_epoch(run.config),
        tests=drawn.tests,
        diverged_step=run.diverged_step,
    )
    ended_early = run.state in (RunState.STOPPED, RunState.DIVERGED, RunState.FAILED)
    colour, epochs = charts.colour(run.colour), max(run.epoch, 1) if ended_early else run.config.epochs
    sentence = curves_sentence(numbers)
    figures = {"Loss": charts.loss_figure(numbers, colour=colour, epochs=epochs)}
    if drawn.history or run.state.active:
        figures["Accuracy"] = charts.accuracy_figure(numbers, colour=colour, epochs=epochs)
    with st.grid(2, min_column_width=300):
        for title, figure in figures.items():
            with st.container(border=True):
                st.markdown(f"###### {title}")
                st.plotly_chart(figure, key=f"{key}_{title.lower()}", config={"displayModeBar": False}, alt=sentence)
    if run.state in (RunState.FINISHED, RunState.STOPPED):  # a trend is a matter for the end
        st.caption(sentence)


def _mistakes(lab: Lab, run: Run) -> None:
    try:
        predictions, dataset = lab.predictions(run), lab.dataset(run.config.dataset)
    except (ArtifactError, DatasetError) as error:
        st.warning(str(error), icon=":material/broken_image:")
        return
    classes = dataset.info.classes
    matrix = confusion(predictions.labels, predictions.predicted, len(classes))
    key = f"confusion_{run.id}"
    # The click is read before the matrix is drawn: the grid's filters are then settled, and the matrix outlines them.
    cell = picked_cell(st.session_state.get(key) or {})
    wrong, right = st.columns([3, 2])
    with wrong, st.container(border=True):
        st.markdown(f"###### What it got wrong · {predictions.errors:,} of {len(predictions.labels):,}")
        image_grid.show_mistakes(predictions, dataset.test_images, classes, cell=cell)
    with right, st.container(border=True):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown("###### Confusion", width="content")
            normalise = st.toggle("Normalise", key="normalise", bind="query-params", width="content")
        sentence = confusion_sentence(matrix, classes)
        st.plotly_chart(
            confusion_figure(matrix, classes, normalise=normalise, selected=image_grid.filtered_cell()),
            key=key,
            on_select="rerun",
            selection_mode="points",
            config={"displayModeBar": False},
            alt=sentence,
        )
        st.caption(f"{sentence} Click a cell to see its images.")
