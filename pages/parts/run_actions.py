"""What can be done with runs: look at one, name, tag, star, archive and delete them.

A button says by its callback which dialog to open, and what is saved is saved in a callback: a click that only the
script itself could see would be lost where the frame has to run the page a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase

import streamlit as st

from mnistlr_core.errors import EditConflict, MnistlrError
from mnistlr_core.lab import Lab
from mnistlr_core.records import Run
from pages.parts import run_view
from pages.parts.words import percent, plain

__all__ = ["show"]

Pick = Callable[[Sequence[str]], None]

_OPENED, _REFUSED, _DONE = "_cmp_dialog", "_cmp_refused", "_cmp_done"


def show(lab: Lab, ids: Sequence[str], *, pick: Pick) -> None:
    """A row of buttons for the picked runs; nothing while none is picked."""
    runs = lab.find(ids)
    if not runs:
        return
    found = list(runs.values())
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="cmp_actions"):
        st.caption(f"**{len(found)}** picked", width="content")
        _button("Clear", "cmp_clear", ":material/close:", pick, [])
        _button("Open", "cmp_open", ":material/open_in_full:", _open, "run")
        if len(found) == 1:
            _button("Name and note", "cmp_edit", ":material/edit:", _open, "words")
        starred = all(run.starred for run in found)
        _button("Take stars away" if starred else "Star", "cmp_star", ":material/star:", _star, lab, ids, not starred)
        _button("Tag", "cmp_tag", ":material/label:", _open, "tags")
        archived = all(run.archived for run in found)
        word, icon = ("Restore", ":material/unarchive:") if archived else ("Archive", ":material/archive:")
        _button(word, "cmp_archive", icon, _archive, lab, list(runs), not archived, pick)
        _button("Delete", "cmp_delete", ":material/delete:", _open, "delete")
    match st.session_state.pop(_OPENED, None):
        case "run":
            _drawer(lab, found)
        case "words":
            _edit(lab, found[0])
        case "tags":
            _tag(lab, runs)
        case "delete":
            _delete(lab, found, pick)


def _button(label: str, key: str, icon: str, does: Callable[..., None], *args: object) -> None:
    st.button(label, key=key, icon=icon, type="tertiary", on_click=does, args=args)


def _open(dialog: str) -> None:
    st.session_state[_OPENED] = dialog
    for left in (_REFUSED, _DONE):
        st.session_state.pop(left, None)


def _star(lab: Lab, ids: Sequence[str], on: bool) -> None:
    lab.library.star(ids, on=on)


def _archive(lab: Lab, ids: Sequence[str], on: bool, pick: Pick) -> None:
    lab.library.archive(ids, on=on)
    pick([])


@st.dialog("Run", width="medium", position="right")
def _drawer(lab: Lab, runs: Sequence[Run]) -> None:
    """One of the runs, without leaving the page."""
    letters = ascii_uppercase[: len(runs)]
    chosen = st.segmented_control("Run", list(letters), default="A", required=True) if len(runs) > 1 else "A"
    run = runs[letters.index(chosen or "A")]
    run_view.show_summary(lab, run)
    if run.note:
        st.text(run.note)
    st.page_link(
        "pages/train.py", label="Open on the Train page", icon=":material/play_arrow:", query_params={"run": run.id}
    )


@st.dialog("Name and note")
def _edit(lab: Lab, run: Run) -> None:
    """Edit from the revision that was read: whoever saves second is told, and sees the other's words."""
    _close_when_done()
    st.text_input("Name", value=run.name or "", key="cmp_name", placeholder=run.config.label, max_chars=80)
    st.text_area("Note", value=run.note, key="cmp_note", max_chars=4000, height=160)
    st.button("Save", type="primary", key="cmp_save", on_click=_save_words, args=(lab, run))
    _say_refused()


def _save_words(lab: Lab, run: Run) -> None:
    name, note = st.session_state["cmp_name"], st.session_state["cmp_note"]
    try:
        lab.library.edit(run.id, run.revision, name=name, note=note)
        st.session_state[_DONE] = True
    except EditConflict as error:
        now = lab.run(run.id)
        st.session_state[_REFUSED] = f"{error}.\n\nTheir name: {now.name or '–'}\nTheir note: {now.note or '–'}"
    except MnistlrError as error:
        st.session_state[_REFUSED] = str(error)


@st.dialog("Tags")
def _tag(lab: Lab, runs: Mapping[str, Run]) -> None:
    """Add tags to all of the runs, and take others away; what two people do at once adds up."""
    _close_when_done()
    had = sorted({tag for tags in lab.library.tags(list(runs)).values() for tag in tags})
    known = [tag for tag in lab.library.all_tags() if tag not in had]
    st.multiselect("Add", known, key="cmp_add", accept_new_options=True, placeholder="Choose, or type a new one")
    if had:
        st.multiselect("Take away", had, key="cmp_remove", placeholder="Choose")
    st.button("Save", type="primary", key="cmp_save_tags", on_click=_save_tags, args=(lab, list(runs)))
    _say_refused()


def _save_tags(lab: Lab, ids: Sequence[str]) -> None:
    try:
        lab.library.tag(ids, add=st.session_state["cmp_add"], remove=st.session_state.get("cmp_remove", ()))
        st.session_state[_DONE] = True
    except MnistlrError as error:
        st.session_state[_REFUSED] = str(error)


@st.dialog("Delete for good?")
def _delete(lab: Lab, runs: Sequence[Run], pick: Pick) -> None:
    """List what goes; what is being trained can't."""
    _close_when_done()
    gone, kept = [run for run in runs if not run.state.active], [run for run in runs if run.state.active]
    if gone:
        st.markdown("These runs go, with their histories, predictions and weights:")
        st.markdown("\n".join(f"- {_line(run)}" for run in gone))
    if kept:
        names = ", ".join(plain(run.title) for run in kept)
        st.caption(f":material/sprint: Queued or running, and so to stay: {names}. Stop them first.")
    st.caption("Archiving puts runs out of sight and loses nothing.")
    st.button(
        "Delete",
        type="primary",
        key="cmp_really_delete",
        icon=":material/delete:",
        disabled=not gone,
        on_click=_delete_runs,
        args=(lab, gone, kept, pick),
    )
    _say_refused()


def _delete_runs(lab: Lab, gone: Sequence[Run], kept: Sequence[Run], pick: Pick) -> None:
    try:
        for run in gone:
            lab.delete(run.id)
        st.session_state[_DONE] = True
    except MnistlrError as error:  # taken up again by somebody since
        st.session_state[_REFUSED] = str(error)
    pick([run.id for run in kept])


def _line(run: Run) -> str:
    """A run in a line, its own words as plain text."""
    test = f" · test {percent(run.test.accuracy)}" if run.test else ""
    return f"{plain(run.title)} · `{run.id}` · {run.state}{test}"


def _close_when_done() -> None:
    if st.session_state.pop(_DONE, False):
        st.rerun()


def _say_refused() -> None:
    if refused := st.session_state.get(_REFUSED):
        st.error("Not saved.", icon=":material/edit_off:")
        st.text(refused)
