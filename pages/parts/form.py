"""The form of a configuration, made from the configuration's own field data, and the Train button below it.

A widget's key is its field's name, and its value lives in the URL. Nothing is trusted: whatever the widgets hold goes
through `parse_config`, which reports every problem in words.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import Architecture, Optimizer, RunConfig, Spec, TestWatch, fields, parse_config
from mnistlr_core.data import DatasetState, DatasetStatus
from mnistlr_core.errors import ConfigError
from mnistlr_core.lab import Lab
from mnistlr_core.records import Outcome, Run
from pages.parts.words import duration, percent

__all__ = ["fill", "show"]

_SPECS = {spec.name: spec for spec in fields()}
_RATES = {Optimizer.SGD.value: "0.03", Optimizer.ADAM.value: "0.001", Optimizer.ADAGRAD.value: "0.01"}
"""A learning rate that works for each optimizer; the field's help names them too."""


def show(lab: Lab, run: Run | None) -> None:
    """Draw the form, and below it what pressing Train would come to, Train and Stop.

    A link that names a run fills the form with the run's values; those in the link itself win.
    """
    if run is not None and st.session_state.get("_filled_from") != run.id:
        st.session_state["_filled_from"] = run.id
        fill(run.config)
    _read_plain_links()
    with st.container(border=True, key="form"):
        # In containers, so that what comes and goes in them doesn't move "More" to another place, which would shut it.
        with st.container():
            _dataset(lab)
        with st.container():
            _choice("architecture")
            if st.session_state["architecture"] == Architecture.MLP.value:
                _text("hidden")
        _choice("optimizer", on_change=_suggest_rate)
        with st.grid(2, min_column_width=110):
            for name in ("learning_rate", "batch_size", "epochs", "valid_fraction"):
                _number(name)
        with st.expander("More"):
            _select("inputs")
            if st.session_state["optimizer"] == Optimizer.SGD.value:
                _number("momentum")
                if str(st.session_state.get("momentum", "0")) != "0":
                    _flag("nesterov")
            _number("weight_decay")
            _flag("output_sigmoid")
            _number("train_fraction")
            _select("test_watch")
            if st.session_state["test_watch"] == TestWatch.STEPS.value:
                _text("test_watch_steps")
            _text("seed")
        _act(lab, run)


def _read_plain_links() -> None:
    """Take `?architecture=mlp` as well: the widgets put their labels into the URL, and know only those.

    By opening the page anew: a value that a widget can't read is struck from the URL, and lost by a reload.
    """
    said = st.query_params.to_dict()
    labels = {name: dict(zip(spec.choices, spec.labels, strict=True)) for name, spec in _SPECS.items() if spec.choices}
    read = {name: labels.get(name, {}).get(value, value) for name, value in said.items()}
    if read != said:
        st.switch_page("pages/train.py", query_params=read)


def fill(config: RunConfig) -> None:
    """Put a configuration's values into the form; only before its widgets are drawn, or in a callback."""
    for name, spec in _SPECS.items():
        st.session_state[name] = _as_widget_value(spec, getattr(config, name))


def _act(lab: Lab, run: Run | None) -> None:
    try:
        config = parse_config({name: st.session_state[name] for name in _SPECS if name in st.session_state})
    except ConfigError as error:
        for problem in error.problems:
            title = _SPECS[problem.field].title if problem.field in _SPECS else problem.field
            st.caption(f":material/error: **{title}** {problem.rule}.")
        config = None
    if config is not None:
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
    if run is not None and run.test is not None:  # on a phone the results are a screen below
        st.caption(f":material/south: Test accuracy **{percent(run.test.accuracy)}**")


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


def _dataset(lab: Lab) -> None:
    """The data set, and one sentence where MNIST is not here (yet)."""
    mnist = lab.dataset_status("mnist")
    if mnist.state in (DatasetState.FAILED, DatasetState.DAMAGED):
        if not st.session_state.get("_offered_digits"):
            st.session_state["_offered_digits"] = True
            if "run" not in st.query_params and "dataset" not in st.query_params:
                st.session_state["dataset"] = "digits"
    elif mnist.state is DatasetState.READY and st.session_state.pop("_offered_digits", False):
        st.session_state["dataset"] = "mnist"
    _select("dataset")
    chosen = st.session_state["dataset"]
    if chosen != "mnist":
        st.caption(DATASETS[chosen].sentence)
    _fetching(lab, "mnist" if chosen == "digits" else chosen)


def _fetching(lab: Lab, name: str) -> None:
    """How the fetch of a data set goes; draws itself anew until that is settled."""
    status = lab.dataset_status(name)
    if status.warning and name == st.session_state["dataset"]:
        st.caption(":material/info: Not quite the published files.", help=status.warning)
    if status.state is DatasetState.READY:
        return
    busy = lab.fetching(name)

    @st.fragment(run_every=0.5 if busy else None)
    def watch() -> None:
        now = lab.dataset_status(name)
        if busy and (now.state is DatasetState.READY or not lab.fetching(name)):
            st.rerun()
        if now.state is DatasetState.FETCHING or busy:
            fraction = now.fraction if now.state is DatasetState.FETCHING and now.fraction else 0.0
            st.progress(fraction, text=f"Fetching {DATASETS[name].title}")
        else:
            _say_missing(now)
            fetch = "Fetch it" if now.state is DatasetState.MISSING else "Try again"
            st.button(fetch, key="fetch", on_click=lab.fetch, args=(name,))

    watch()


def _say_missing(status: DatasetStatus) -> None:
    """What happened and where its files belong; the whole story is in the help."""
    title, folder = DATASETS[status.name].title, DATASETS[status.name].folder
    happened = {
        DatasetState.FAILED: f"{title} could not be fetched",
        DatasetState.DAMAGED: f"{title} is damaged",
    }.get(status.state, f"{title} is not here")
    instead = "; digits are chosen instead" if st.session_state["dataset"] == "digits" else ""
    where = f" Its files belong in `{folder}` below the data folder."
    st.caption(f":material/cloud_off: {happened}{instead}.{where}", help=status.message)


# One widget per kind of field ---------------------------------------------------------------------------------------


def _choice(name: str, **options: Any) -> None:
    """A few choices side by side."""
    spec = _SPECS[name]
    labels = dict(zip(spec.choices, spec.labels, strict=True))
    st.segmented_control(
        spec.title,
        spec.choices,
        default=spec.default,
        required=True,
        format_func=labels.__getitem__,
        key=name,
        help=spec.help,
        width="stretch",
        bind="query-params",
        **options,
    )


def _select(name: str) -> None:
    """More choices, in a list."""
    spec = _SPECS[name]
    labels = dict(zip(spec.choices, spec.labels, strict=True))
    st.selectbox(
        spec.title,
        spec.choices,
        index=spec.choices.index(spec.default),
        format_func=labels.__getitem__,
        key=name,
        help=spec.help,
        bind="query-params",
    )


def _number(name: str) -> None:
    """Values worth offering, and any other that is typed."""
    spec = _SPECS[name]
    offered = [f"{step:g}" for step in spec.steps]
    current = st.session_state.get(name, st.query_params.get(name))
    if current is not None and current not in offered:
        offered = sorted([*offered, current], key=_as_number)
    st.selectbox(
        spec.title,
        offered,
        index=offered.index(f"{spec.default:g}"),
        key=name,
        help=spec.help,
        accept_new_options=True,
        bind="query-params",
    )


def _text(name: str) -> None:
    spec = _SPECS[name]
    st.text_input(
        spec.title,
        value=_as_widget_value(spec, spec.default),
        key=name,
        help=spec.help,
        max_chars=40,
        bind="query-params",
    )


def _flag(name: str) -> None:
    spec = _SPECS[name]
    st.toggle(spec.title, value=spec.default, key=name, help=spec.help, bind="query-params")


def _suggest_rate() -> None:
    """Another optimizer wants another learning rate; one that the user chose is left alone."""
    if st.session_state.get("learning_rate") in _RATES.values():
        st.session_state["learning_rate"] = _RATES[st.session_state["optimizer"]]


def _as_widget_value(spec: Spec, value: Any) -> Any:
    match spec.kind:
        case "sizes":
            return ", ".join(map(str, value))
        case "integer":
            return str(value)
        case "number":
            return f"{value:g}"
        case "choice":
            return str(value)
        case "flag":
            return value


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")
