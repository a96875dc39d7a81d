"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mnistlr_core import fetch

MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """torchvision's root with real MNIST below it: MNISTLR_DATA, or the shared copy beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "mnist"
    for root in (Path(os.environ.get("MNISTLR_DATA") or beside), beside):
        if all((root / "MNIST" / "raw" / file).is_file() for file in MNIST_FILES):
            return root
    pytest.skip("real MNIST is neither in MNISTLR_DATA nor in ../shared/mnist")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared datasets that holds scikit-learn's digits; tests only read it."""
    prepared = tmp_path_factory.mktemp("prepared")
    fetch.prepare("digits", source=prepared / "none", prepared=prepared)
    return prepared
