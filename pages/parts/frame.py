"""What surrounds every page: the navigation, the guard that deep links need, and the process's one lab."""

from __future__ import annotations

import streamlit as st

from mnistlr_core.lab import Lab

__all__ = ["arrived", "lab", "require", "run"]

# A table that is wider than a phone scrolls within its card; Streamlit lets it run over the edge, out of reach.
_WIDE_TABLES = """
<style>[data-testid="stMarkdownContainer"] table { display: block; max-width: 100%; overflow-x: auto; }</style>
"""

_INSIDE = "_inside_frame"
_TITLE = "_page_title"
_ARRIVED = "_arrived"


@st.cache_resource(show_spinner=False)
def lab() -> Lab:
    """The lab of this server process, its engine starting and its first data sets on their way."""
    opened = Lab()
    opened.start()
    opened.fetch("digits")
    opened.fetch("mnist")
    return opened


def run() -> None:
    """Run the page that the URL asks for, inside the frame."""
    # An emoji is drawn by the browser; a Material icon would be fetched from Google by every visitor.
    st.set_page_config(page_title="mnistlr", page_icon="🔢", layout="wide")
    st.html(_WIDE_TABLES)
    page = _navigation()
    st.session_state[_ARRIVED] = st.session_state.get(_TITLE, page.title) != page.title
    st.session_state[_TITLE] = page.title
    st.session_state[_INSIDE] = True
    try:
        page.run()
    finally:
        st.session_state[_INSIDE] = False


def arrived() -> bool:
    """Whether this run of the script is the first after another page."""
    return bool(st.session_state.get(_ARRIVED))


def require() -> None:
    """The first line of every page.

    On a fresh server a deep link runs the page without its frame, because a folder called `pages` makes Streamlit
    begin in its old mode. Building the navigation ends that mode for good; the rerun then comes through the frame.
    """
    if not st.session_state.get(_INSIDE):
        _navigation()
        st.rerun()


def _navigation() -> st.Page:
    # The file's stem must be the page's address: the old mode resolves a deep link by it. The default page lives at `/`
    # alone, so that `/train` is a second entry, which the menu does not show.
    return st.navigation(
        [
            st.Page("pages/train.py", title="Train", icon=":material/play_arrow:", url_path="home", default=True),
            st.Page("pages/train.py", title="Train", url_path="train", visibility="hidden"),
            st.Page("pages/compare.py", title="Compare", icon=":material/stacked_line_chart:"),
            st.Page("pages/articles.py", title="Articles", icon=":material/fact_check:"),
            st.Page("pages/data.py", title="Data", icon=":material/dataset:"),
        ],
        position="top",
    )
