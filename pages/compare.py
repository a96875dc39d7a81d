"""Find runs, lay them over each other, and see where they differ: in values, curves and the images they read wrong."""

import streamlit as st

from mnistlr_core.errors import MnistlrError
from pages.parts import comparison_view, frame, run_table

frame.require()
lab = frame.lab()

try:
    picked = run_table.show(lab)
    comparison_view.show(lab, picked)
except MnistlrError as error:
    st.error(str(error), icon=":material/database_off:")
