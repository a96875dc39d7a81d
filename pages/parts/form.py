"""The form of a configuration, made from the configuration's own field data, and the Train button below it.

A widget's key is its field's name, and its value lives in the URL. Nothing is trusted: whatever the widgets hold goes
through `parse_config`, which reports every problem in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from mnistlr_core.articles import RECIPES, Recipe
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import Architecture, Optimizer, RunConfig, TestWatch, parse_config
from mnistlr_core.data import DatasetState
from mnistlr_core.errors import ConfigError
from mnistlr_core.lab import Lab
from mnistlr_core.links import pack
from mnistlr_core.records import Outcome, Run
from pages.parts import fetching, fields, frame, share
from pages.parts.words import duration, percent

__all__ = ["asked_run", "chosen_recipe", "fill", "link", "show"]

_RATES = {Optimizer.SGD.value: "0.03", Optimizer.ADAM.value: "0.001", Optimizer.ADAGRAD.value: "0.01"}
"""A learning rate that works for each optimizer; the field's help names them too."""


def show(lab: Lab, run: Run | None, carried: RunConfig | None = None) -> RunConfig | None:
    """Draw the form, and below it what pressing Train would come to, Train and Stop.

    A link that names a run fills the form with the run's values; those in the link itself win. With a recipe the
    widgets' defaults are the recipe's, so that a link holds the recipe and what differs from it.

    carried: what the link holds of a run that isn't here; it fills the form in the run's place.

    Returns the configuration in the form, or None while it has problems.
    """
    source = run.config if run else carried
    if source is not None and (frame.arrived() or st.session_state.get("_filled_from") != source.short_id):
        st.session_state["_filled_from"] = source.short_id
        fill(source)
    _read_plain_links()
    with st.container(border=True, key="form"):
        recipe = _recipe()
        base = recipe.config if recipe else RunConfig()
        # In containers, so that what comes and goes in them doesn't move "More" to another place, which would shut it.
        with st.container():
            _dataset(lab, base)
        with st.container():
            fields.choice("architecture", base)
            if st.session_state["architecture"] == Architecture.MLP.value:
                fields.text("hidden", base)
        fields.choice("optimizer", base, on_change=_suggest_rate)
        with st.grid(2, min_column_width=110):
            for name in ("learning_rate", "batch_size", "epochs", "valid_fraction"):
                fields.number(name, base)
        with st.expander("More"):
            fields.select("inputs", base)
            if st.session_state["optimizer"] == Optimizer.SGD.value:
                fields.number("momentum", base)
                if str(st.session_state.get("momentum", "0")) != "0":
                    fields.flag("nesterov", base)
            fields.number("weight_decay", base)
            fields.flag("output_sigmoid", base)
            fields.number("train_fraction", base)
            fields.select("test_watch", base)
            if st.session_state["test_watch"] == TestWatch.STEPS.value:
                fields.text("test_watch_steps", base)
            fields.text("seed", base)
        config = _act(lab, run, recipe)
        share.show({"with": pack([run.config])} if run else None)
        if run is not None and run.test is not None:  # on a phone the results are a screen below
            st.caption(f":material/south: Test accuracy **{percent(run.test.accuracy)}**")
        return config


def asked_run() -> str | None:
    """The run that the URL names; on coming back by the menu, the one that was shown before.

    The menu's link names no value at all at first; the browser puts those of the form back a moment later.
    """
    others = {name: value for name, value in st.query_params.to_dict().items() if name != "run"}
    left_with, left = st.session_state.get("_left", (None, None))
    if "run" not in st.query_params and left and frame.arrived() and others in ({}, left_with):
        st.query_params["run"] = left
    asked = st.query_params.get("run")
    st.session_state["_left"] = (others, asked)
    return asked


def link(recipe: Recipe, changes: Mapping[str, Any]) -> dict[str, str]:
    """The query of a link that opens the form with a recipe's values, and these changes to them."""
    values = {name: fields.as_widget_value(fields.SPECS[name], value) for name, value in changes.items()}
    return {"recipe": recipe.title} | {name: fields.in_link(name, str(value)) for name, value in values.items()}


def chosen_recipe() -> Recipe | None:
    """The recipe that the form starts from."""
    return RECIPES.get(st.session_state.get("recipe") or "")


def _recipe() -> Recipe | None:
    st.selectbox(
        "Start from an article",
        list(RECIPES),
        index=None,
        format_func=lambda id: RECIPES[id].title,
        placeholder="None: your own values",
        key="recipe",
        help="Fills the form with the values of one of five tutorials; change any of them and see what happens.",
        on_change=_follow_recipe,
        bind="query-params",
    )
    return chosen_recipe()


def _follow_recipe() -> None:
    recipe = chosen_recipe()
    fill(recipe.config if recipe else RunConfig())


def _say_differences(recipe: Recipe, config: RunConfig) -> None:
    """Which values are no longer the article's."""
    names = recipe.differences(config)
    if not names:
        st.caption(":material/fact_check: Exactly as the article has it.")
        return
    said = [
        f"**{fields.SPECS[name].title}** {fields.in_words(name, config)} "
        f"(article: {fields.in_words(name, recipe.config)})"
        for name in names
    ]
    st.caption(f":material/edit: Differs in {', '.join(said)}.")
    st.button("Back to the article's values", key="as_printed", type="tertiary", on_click=_follow_recipe)


def _read_plain_links() -> None:
    """Take `?architecture=mlp` as well: the widgets put their labels into the URL, and know only those.

    By opening the page anew: a value that a widget can't read is struck from the URL, and lost by a reload.
    """
    said = st.query_params.to_dict()
    read = {name: fields.in_link(name, value) for name, value in said.items()}
    if read != said:
        st.switch_page("pages/train.py", query_params=read)


def fill(config: RunConfig) -> None:
    """Put a configuration's values into the form; only before its widgets are drawn, or in a callback."""
    for name, spec in fields.SPECS.items():
        st.session_state[name] = fields.as_widget_value(spec, getattr(config, name))


def _act(lab: Lab, run: Run | None, recipe: Recipe | None) -> RunConfig | None:
    try:
        config = parse_config({name: st.session_state[name] for name in fields.SPECS if name in st.session_state})
    except ConfigError as error:
        for problem in error.problems:
            title = fields.SPECS[problem.field].title if problem.field in fields.SPECS else problem.field
            st.caption(f":material/error: **{title}** {problem.rule}.")
        config = None
    if config is not None:
        if recipe is not None:
            _say_differences(recipe, config)
        st.caption(_promise(lab, config, run))
    st.button(
        "Train",
        key="train",
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        shortcut="Ctrl+Enter",
        disabled=config is None,
        on_click=_train,
        args=(lab, config),
    )
    if run is not None and run.state.active:
        st.button(
            "Stopping…" if run.stop_requested else "Stop",
            key="stop",
            icon=":material/stop:",
            width="stretch",
            disabled=run.stop_requested,
            on_click=lab.stop,
            args=(run.id,),
        )
    return config


def _train(lab: Lab, config: RunConfig) -> None:
    submission = lab.submit(config)
    st.session_state["_filled_from"] = submission.run_id
    st.query_params["run"] = submission.run_id


def _promise(lab: Lab, config: RunConfig, run: Run | None) -> str:
    """What pressing Train will do, said before it is pressed."""
    preview = lab.preview(config)
    match preview.outcome:
        case Outcome.CACHED:
            return ":material/bolt: **Cached**: the answer is instant."
        case Outcome.JOINED if run is not None and run.id == config.short_id:
            return ":material/visibility: **Running**: it is shown here."
        case Outcome.JOINED:
            return ":material/group: **Running**: press Train to join and watch."
        case Outcome.RESUMED if not lab.run(config.short_id).step:
            return ":material/replay: **Not begun before**: Train tries again."
        case Outcome.RESUMED:
            return ":material/resume: **Stopped before**: Train goes on from its last checkpoint."
        case Outcome.NEW:
            about = f"about {duration(preview.seconds)}" if preview.seconds else "timed once the engine has warmed up"
            return f":material/schedule: **New**: {about}."


def _dataset(lab: Lab, base: RunConfig) -> None:
    """The data set, and one sentence where MNIST is not here (yet)."""
    mnist = lab.dataset_status("mnist")
    if mnist.state in (DatasetState.FAILED, DatasetState.DAMAGED):
        if not st.session_state.get("_offered_digits"):
            st.session_state["_offered_digits"] = True
            if "run" not in st.query_params and "dataset" not in st.query_params:
                st.session_state["dataset"] = "digits"
    elif mnist.state is DatasetState.READY and st.session_state.pop("_offered_digits", False):
        st.session_state["dataset"] = "mnist"
    fields.select("dataset", base)
    chosen = st.session_state["dataset"]
    if chosen != "mnist":
        st.caption(DATASETS[chosen].sentence)
    wanted = "mnist" if chosen == "digits" else chosen
    fetching.show(lab, wanted, key="fetch", said="; digits are chosen instead" if chosen == "digits" else "")


def _suggest_rate() -> None:
    """Another optimizer wants another learning rate; one that the user chose is left alone."""
    if st.session_state.get("learning_rate") in _RATES.values():
        st.session_state["learning_rate"] = _RATES[st.session_state["optimizer"]]
