"""Links carry configurations whole, and whatever else they carry does no harm."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core import links
from mnistlr_core.articles import article_configs
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.links import pack, unpack

configs = st.fixed_dictionaries(
    {
        "dataset": st.sampled_from(["mnist", "digits", "cifar10"]),
        "architecture": st.sampled_from(["linear", "mlp"]),
        "hidden": st.lists(st.integers(1, 4096), min_size=1, max_size=4),
        "optimizer": st.sampled_from(["sgd", "adam", "adagrad"]),
        "learning_rate": st.floats(1e-7, 100),
        "momentum": st.floats(0, 0.999),
        "nesterov": st.booleans(),
        "output_sigmoid": st.booleans(),
        "batch_size": st.integers(1, 60_000),
        "seed": st.integers(0, 2**31 - 1),
    }
).map(parse_config)


def test_exactly_the_public_names_are_exported() -> None:
    assert links.__all__ == ["pack", "unpack"]


@given(st.lists(configs, max_size=links.MOST))
def test_every_configuration_comes_out_as_the_run_it_was(given: list[RunConfig]) -> None:
    assert [config.digest for config in unpack(pack(given))] == [config.digest for config in given]


def test_a_link_stays_short() -> None:
    assert len(pack([RunConfig(learning_rate=0.1)])) < 50
    assert len(pack(article_configs(3)[:12])) < 500


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    assert isinstance(unpack(text), tuple)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_json_breaks_it(value: object) -> None:
    text = base64.urlsafe_b64encode(zlib.compress(json.dumps(value).encode())).decode()
    assert isinstance(unpack(text), tuple)


@pytest.mark.parametrize("size", [10**7, 10**8])
def test_what_blows_up_is_left_packed(size: int) -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b"[" + b" " * size + b"]", 9)).decode()
    assert unpack(bomb) == ()
    nested = base64.urlsafe_b64encode(zlib.compress(b"[" * 60_000, 9)).decode()
    assert unpack(nested) == ()
