"""Pick hyperparameters, press Train, watch, and see what the model gets wrong."""

import streamlit as st

from mnistlr_core.errors import MnistlrError, RunNotFound
from mnistlr_core.links import unpack
from pages.parts import form, frame, run_view

frame.require()
lab = frame.lab()

asked = form.asked_run()
try:
    run, missing = lab.run(asked) if asked else None, None
except RunNotFound as error:
    run, missing = None, str(error)
except MnistlrError as error:
    st.error(str(error), icon=":material/database_off:")
    st.stop()

controls, stage = st.columns([1, 3], gap="medium")
with controls:
    carried = {one.short_id: one for one in unpack(st.query_params.get("with", ""))} if missing else {}
    config = form.show(lab, run, carried.get(asked or ""))
with stage:
    if missing and config is not None and config.short_id == asked:
        st.info(
            "This run is not on this server, but the link carries its values: press **Train**, and it is.",
            icon=":material/move_down:",
        )
    elif missing:
        st.warning(f"{missing[0].upper()}{missing[1:]}. Choose values and press Train.", icon=":material/link_off:")
    if run is None:
        run_view.show_empty(lab, form.chosen_recipe())
    else:
        run_view.show(lab, run, form.chosen_recipe())
