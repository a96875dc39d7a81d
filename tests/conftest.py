"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from mnistlr_core import fetch
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store

MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# A busy machine is slow, not wrong: pytest's own timeout ends what hangs.
hypothesis.settings.register_profile("mnistlr", deadline=None)
hypothesis.settings.load_profile("mnistlr")


Wanting = Callable[[str, str], BaseException]


@pytest.fixture(scope="session")
def wanting() -> Wanting:
    """What to raise for want of something: a skip, or a failure where MNISTLR_REQUIRE names it (`mnist,browser`)."""

    def wanting(what: str, why: str) -> BaseException:
        required = what in os.environ.get("MNISTLR_REQUIRE", "").replace(",", " ").split()
        return pytest.fail.Exception(why, pytrace=False) if required else pytest.skip.Exception(why)

    return wanting


@pytest.fixture(scope="session")
def mnist_root(wanting: Wanting) -> Path:
    """torchvision's root with real MNIST below it: MNISTLR_DATA, or the shared copy beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "mnist"
    for root in (Path(os.environ.get("MNISTLR_DATA") or beside), beside):
        if all((root / "MNIST" / "raw" / file).is_file() for file in MNIST_FILES):
            return root
    raise wanting("mnist", "real MNIST is neither in MNISTLR_DATA nor in ../shared/mnist")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared datasets that holds scikit-learn's digits; tests only read it."""
    prepared = tmp_path_factory.mktemp("prepared")
    fetch.prepare("digits", source=prepared / "none", prepared=prepared)
    return prepared


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """One thread for torch: small products are done sooner by one, and other jobs keep the other core."""
    import torch  # the tests of what never loads torch don't load it either

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(tmp_path: Path, digits: Path) -> Settings:
    """A home of its own with digits prepared, and no way to MNIST."""
    settings = Settings(home=tmp_path / "home", data=tmp_path / "no-data", device="cpu")
    shutil.copytree(digits, settings.prepared)
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = Store(settings.database)
    yield opened
    opened.close()


@pytest.fixture
def no_engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pages' lab has this test's home, and starts nothing."""
    import streamlit as st  # most tests can do without its second

    monkeypatch.setenv("MNISTLR_HOME", str(settings.home))
    monkeypatch.setenv("MNISTLR_DATA", str(settings.data))
    monkeypatch.setattr("mnistlr_core.engine.Engine.start", lambda self: None)
    monkeypatch.setattr("mnistlr_core.lab.Lab.fetching", lambda self, name: False)
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()
