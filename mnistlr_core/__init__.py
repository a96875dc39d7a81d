"""The engine under the mnistlr dashboard: configurations, data, training, storage. It never imports streamlit."""

__version__ = "0.1.0"
