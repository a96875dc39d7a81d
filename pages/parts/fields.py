"""One widget for each kind of configuration field. Its key is the field's name, and its value lives in the URL, unless
it is that of `base`: the configuration that the form starts from."""

from __future__ import annotations

from typing import Any

import streamlit as st

from mnistlr_core.articles import RECIPES
from mnistlr_core.config import RunConfig, Spec, fields

__all__ = ["SPECS", "as_widget_value", "choice", "flag", "in_link", "in_words", "number", "select", "text"]

SPECS = {spec.name: spec for spec in fields()}


def choice(name: str, base: RunConfig, **options: Any) -> None:
    """A few choices side by side."""
    spec = SPECS[name]
    labels = dict(zip(spec.choices, spec.labels, strict=True))
    st.segmented_control(
        spec.title,
        spec.choices,
        default=as_widget_value(spec, getattr(base, name)),
        required=True,
        format_func=labels.__getitem__,
        key=name,
        help=spec.help,
        width="stretch",
        bind="query-params",
        **options,
    )


def select(name: str, base: RunConfig) -> None:
    """More choices, in a list."""
    spec = SPECS[name]
    labels = dict(zip(spec.choices, spec.labels, strict=True))
    st.selectbox(
        spec.title,
        spec.choices,
        index=spec.choices.index(as_widget_value(spec, getattr(base, name))),
        format_func=labels.__getitem__,
        key=name,
        help=spec.help,
        bind="query-params",
    )


def number(name: str, base: RunConfig) -> None:
    """Values worth offering, and any other that is typed."""
    spec = SPECS[name]
    default = as_widget_value(spec, getattr(base, name))
    current = st.session_state.get(name, st.query_params.get(name)) or default
    offered = sorted({*(f"{step:g}" for step in spec.steps), default, current}, key=_as_number)
    st.selectbox(
        spec.title,
        offered,
        index=offered.index(default),
        key=name,
        help=spec.help,
        accept_new_options=True,
        bind="query-params",
    )


def text(name: str, base: RunConfig) -> None:
    spec = SPECS[name]
    st.text_input(
        spec.title,
        value=as_widget_value(spec, getattr(base, name)),
        key=name,
        help=spec.help,
        max_chars=40,
        bind="query-params",
    )


def flag(name: str, base: RunConfig) -> None:
    spec = SPECS[name]
    st.toggle(spec.title, value=getattr(base, name), key=name, help=spec.help, bind="query-params")


def as_widget_value(spec: Spec, value: Any) -> Any:
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


def in_words(name: str, config: RunConfig) -> str:
    value = as_widget_value(SPECS[name], getattr(config, name))
    return ("on" if value else "off") if isinstance(value, bool) else in_link(name, value)


def in_link(name: str, value: str) -> str:
    """A widget's value as the URL has it: a choice by its label."""
    return _labels().get(name, {}).get(value, value)


def _labels() -> dict[str, dict[str, str]]:
    """What each choice of the form is called on the screen."""
    named = {name: dict(zip(spec.choices, spec.labels, strict=True)) for name, spec in SPECS.items() if spec.choices}
    return named | {"recipe": {id: recipe.title for id, recipe in RECIPES.items()}}
