"""Buttons to take runs away as files. A file is made when its button is pressed, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import streamlit as st

from mnistlr_core.lab import Lab
from mnistlr_core.records import Run
from mnistlr_core.take_away import Kind, run_file

__all__ = ["show_comparison", "show_run"]

_ICONS = {
    Kind.SCRIPT: ":material/code:",
    Kind.REPORT: ":material/description:",
    Kind.WEIGHTS: ":material/memory:",
    Kind.CSV: ":material/table:",
    Kind.JSON: ":material/data_object:",
}


def show_run(lab: Lab, run: Run) -> None:
    """A run in each kind of file that it can be had as."""
    kinds = list(Kind) if run.test else [Kind.REPORT, Kind.CSV, Kind.JSON]
    with st.popover("Take away", icon=":material/download:", type="tertiary"):
        for kind in kinds:
            _button(kind, f"mnistlr_{run.id}", partial(run_file, lab, run, kind))
        if run.test:
            st.caption("The script needs only torch and torchvision, repeats this training, and checks itself.")


def show_comparison(makers: Mapping[Kind, Callable[[], bytes]]) -> None:
    """Several runs, in those kinds of file."""
    with st.popover("Take away", icon=":material/download:", type="tertiary"):
        for kind, make in makers.items():
            _button(kind, "mnistlr_runs", make)


def _button(kind: Kind, name: str, make: Callable[[], bytes]) -> None:
    st.download_button(
        kind.label,
        data=make,
        file_name=f"{name}.{kind.extension}",
        icon=_ICONS[kind],
        key=f"take_{kind.value}",
        on_click="ignore",
        type="tertiary",
    )
