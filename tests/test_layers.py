"""What import-linter proves of the source, seen at run time: the UI process never loads torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "modules",
    [
        "pages.parts.frame, pages.parts.form, pages.parts.run_view",
        "mnistlr_core.cli, mnistlr_core.doctor",
        "distributed, mnistlr_core.engine, mnistlr_core.cluster, mnistlr_core.orphan",
    ],
)
def test_these_load_neither_torch_nor_scikit_learn(modules: str) -> None:
    script = f"import sys, {modules}; print(sorted({{'torch', 'torchvision', 'sklearn', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_stored_answer_needs_no_dask() -> None:
    script = "import sys, mnistlr_core.cli; print('distributed' in sys.modules, 'streamlit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr
