"""Which data sets are here, and how the others can be had."""

from __future__ import annotations

import streamlit as st

from mnistlr_core.catalogue import DATASETS, DatasetInfo
from mnistlr_core.data import DatasetState
from mnistlr_core.errors import DatasetError
from mnistlr_core.lab import Lab
from pages.parts import fetching

__all__ = ["shape", "show_absent", "show_sets"]

_BADGES = {
    DatasetState.READY: ("Ready", ":material/check:", "green"),
    DatasetState.FETCHING: ("Fetching", ":material/downloading:", "blue"),
    DatasetState.MISSING: ("Not here", ":material/cloud:", "gray"),
    DatasetState.FAILED: ("Failed", ":material/error:", "red"),
    DatasetState.DAMAGED: ("Damaged", ":material/broken_image:", "orange"),
}


def show_absent(lab: Lab, name: str, error: DatasetError) -> None:
    """In place of a data set that can't be looked at: that it isn't here, what it is, and how it can be had."""
    info = DATASETS[name]
    with st.container(border=True):
        _headline(lab, info)
        st.markdown(f"{info.sentence} {_contents(lab, info)}")
        if lab.dataset_status(name).state is DatasetState.READY:  # only opening its files showed that they are not
            st.caption(f":material/broken_image: {error}")
            st.button("Prepare it again", key="data_fetch", on_click=lab.fetch, args=(name,))
        else:
            fetching.show(lab, name, key="data_fetch", in_full=True)


def show_sets(lab: Lab, chosen: str) -> None:
    """Every data set with its state; those that aren't here with a way to fetch them, save for the chosen one."""
    st.markdown("##### Data sets")
    with st.grid(3, min_column_width=280):
        for info in DATASETS.values():
            with st.container(border=True, height="stretch"):
                _headline(lab, info)
                st.caption(f"{info.sentence} {_contents(lab, info)}")
                if info.name != chosen:
                    fetching.show(lab, info.name, key=f"data_fetch_{info.name}", in_full=True)


def _headline(lab: Lab, info: DatasetInfo) -> None:
    word, icon, colour = _BADGES[lab.dataset_status(info.name).state]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{info.title}**", width="content")
        st.badge(word, icon=icon, color=colour)  # type: ignore[arg-type]


def _contents(lab: Lab, info: DatasetInfo) -> str:
    size = f", {info.download_bytes / 1e6:.0f} MB to download" if info.download_bytes else ""
    here = lab.dataset_status(info.name).state is DatasetState.READY
    return f"{info.train_size:,} + {info.test_size:,} images of {shape(info)}{'' if here else size}."


def shape(info: DatasetInfo) -> str:
    """`28 × 28`, and whether its images have colours."""
    return f"{info.image_shape[0]} × {info.image_shape[1]}" + (" in colour" if len(info.image_shape) > 2 else "")
