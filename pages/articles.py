"""Do the five articles' claims hold? Each beside what we measure, over several seeds."""

import streamlit as st

from mnistlr_core.errors import MnistlrError
from pages.parts import article_view, frame

frame.require()
lab = frame.lab()

st.markdown("### Five articles, checked")
st.markdown(
    "Five tutorials train a model like this on MNIST, and each of them once. Here the same values are trained under "
    "several seeds, and every claim stands beside what comes out."
)
try:
    article_view.show(lab)
except MnistlrError as error:
    st.error(str(error), icon=":material/database_off:")
