"""Measurements against the tutorials' loop and other libraries: `python -m benchmarks`, read in docs/benchmarks.md."""
