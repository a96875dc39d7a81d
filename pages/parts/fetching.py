"""How a data set that is not here (yet) can be had: progress while it is fetched, else what happened, and a button."""

from __future__ import annotations

import streamlit as st

from mnistlr_core.catalogue import DATASETS
from mnistlr_core.data import DatasetState, DatasetStatus
from mnistlr_core.lab import Lab

__all__ = ["show"]


def show(lab: Lab, name: str, *, key: str, said: str = "", in_full: bool = False) -> None:
    """Draw nothing for a data set that is here; for any other, what can be done, anew until that is settled.

    key: of the button. said: what the page did about it, put behind what happened. in_full: where the page says
    already that the data set isn't here, say nothing but what went wrong, and that openly.
    """
    status = lab.dataset_status(name)
    if status.warning and not said:
        st.caption(":material/info: Not quite the published files.", help=status.warning)
    if status.state is DatasetState.READY:
        return
    busy = lab.fetching(name) or status.state is DatasetState.FETCHING

    @st.fragment(run_every=0.5 if busy else None)
    def watch() -> None:
        now = lab.dataset_status(name)
        fetching = lab.fetching(name) or now.state is DatasetState.FETCHING
        if now.state is DatasetState.READY or fetching != busy:  # the page's own run sets the pace: 0.5 s, or none
            st.rerun()
        if fetching:
            fraction = now.fraction if now.state is DatasetState.FETCHING and now.fraction else 0.0
            st.progress(fraction, text=f"Fetching {DATASETS[name].title}")
        else:
            _say_missing(now, said, in_full=in_full)
            fetch = f"Fetch {DATASETS[name].title}" if now.state is DatasetState.MISSING else "Try again"
            st.button(fetch, key=key, icon=":material/download:", on_click=lab.fetch, args=(name,))

    watch()


def _say_missing(status: DatasetStatus, said: str, *, in_full: bool) -> None:
    """What happened and where its files belong; the whole story is in the help, or else is all that is said."""
    if in_full:
        if status.state is not DatasetState.MISSING:
            st.caption(f":material/cloud_off: {status.message}")
        return
    title, folder = DATASETS[status.name].title, DATASETS[status.name].folder
    happened = {
        DatasetState.FAILED: f"{title} could not be fetched",
        DatasetState.DAMAGED: f"{title} is damaged",
    }.get(status.state, f"{title} is not here")
    where = f" Its files belong in `{folder}` below the data folder." if folder else ""
    st.caption(f":material/cloud_off: {happened}{said}.{where}", help=status.message)
