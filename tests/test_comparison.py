"""Comparisons against SciPy, scikit-learn and sets made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mnistlr_core import comparison
from mnistlr_core.comparison import (
    ErrorComparison,
    compare_errors,
    differing_fields,
    legends,
    mcnemar,
    pairwise,
    wrong_in_all,
    wrong_in_at_least,
)
from mnistlr_core.config import RunConfig, fields, parse_config
from mnistlr_core.evaluation import Predictions

CLASSES = 4
# Few values of each field, so that drawn configurations are often equal in some of them; float neighbours among them.
VALUES: dict[str, list[Any]] = {
    "dataset": ["mnist", "digits"],
    "inputs": ["unit", "standardised"],
    "architecture": ["linear", "mlp"],
    "hidden": [(512, 128), (32,)],
    "output_sigmoid": [False, True],
    "optimizer": ["sgd", "adam"],
    "learning_rate": [0.1, 0.03, 0.030000001],
    "momentum": [0.0, 0.9],
    "nesterov": [False, True],
    "weight_decay": [0.0, 1e-5],
    "batch_size": [64, 100],
    "epochs": [1, 5],
    "valid_fraction": [0.0, 0.1],
    "train_fraction": [1.0, 0.01],
    "test_watch": ["end", "epoch", "steps"],
    "test_watch_steps": [500, 100],
    "seed": [0, 1],
}
any_config = st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in VALUES.items()}).map(parse_config)
labels_and_answers = st.integers(0, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, CLASSES - 1), min_size=n, max_size=n)] * 4)
)


def config(**values: Any) -> RunConfig:
    return RunConfig().replace(**values)


def predictions(labels: list[int], answers: list[int], losses: list[float] | None = None) -> Predictions:
    """A run that reads images so; the loss of each is 1 nat, or as given."""
    n = len(labels)
    values = np.zeros((n, CLASSES), np.float16)
    values[np.arange(n), labels] = -np.asarray(losses or [1.0] * n)
    return Predictions(values, np.array(answers, np.uint8), np.array(labels, np.uint8))


def test_the_public_surface() -> None:
    assert comparison.__all__ == [
        "LEVEL", "ErrorComparison", "Pairwise", "compare_errors", "differing_fields", "legends", "mcnemar", "pairwise",
        "wrong_in_all", "wrong_in_at_least",
    ]  # fmt: skip


# Configurations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([], ()),
        ([{}], ()),
        ([{}, {}], ()),
        ([{"batch_size": 64}, {"learning_rate": 0.1}], ("learning_rate", "batch_size")),
        ([{}, {}, {"seed": 3}], ("seed",)),
        ([{"hidden": (3,)}, {"hidden": (4,)}], ()),  # of a linear model
        ([{"architecture": "mlp"}, {}], ("architecture", "hidden")),
        ([{"optimizer": "adam"}, {"momentum": 0.0}], ("optimizer", "momentum")),
        ([{"optimizer": "adam", "momentum": 0.9}, {"optimizer": "adam"}], ()),
        ([{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ("nesterov",)),
    ],
)
def test_the_fields_that_differ_are_those_that_are_used(changes: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    assert differing_fields([parse_config(one) for one in changes]) == names


@given(st.lists(any_config, max_size=4))
def test_fields_that_differ_are_in_the_forms_order_and_none_where_runs_are_equal(configs: list[RunConfig]) -> None:
    names = differing_fields(configs)
    assert list(names) == [spec.name for spec in fields() if spec.name in names]
    assert bool(names) == (len({one.digest for one in configs}) > 1)
    assert differing_fields(configs[::-1]) == names


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([], ()),
        ([{}], ("Linear, SGD, lr 0.03, batch 100",)),
        ([{}, {}], ("Linear, SGD, lr 0.03, batch 100",) * 2),
        ([{"learning_rate": 0.1}, {"learning_rate": 0.0001}], ("lr 0.1", "lr 0.0001")),
        ([{"learning_rate": 0.03}, {"learning_rate": 0.030000001}], ("lr 0.03", "lr 0.030000001")),
        ([{"learning_rate": 0.1, "optimizer": "adam"}, {}], ("lr 0.1, Adam", "lr 0.03, SGD")),
        ([{"batch_size": 64}, {"batch_size": 60_000}], ("batch 64", "batch 60000")),
        ([{"architecture": "mlp"}, {}], ("MLP 512-128", "Linear")),
        ([{"architecture": "mlp"}, {"architecture": "mlp", "hidden": (32,)}], ("MLP 512-128", "MLP 32")),
        ([{"seed": 2}, {"seed": 0}], ("seed 2", "seed 0")),
        ([{"inputs": "symmetric"}, {"inputs": "raw"}], ("pixels [-1, 1]", "pixels raw 0–255")),
        ([{"epochs": 5}, {"epochs": 1}], ("5 epochs", "1 epoch")),
        ([{"dataset": "fashion-mnist"}, {}], ("Fashion-MNIST", "MNIST")),
        ([{"output_sigmoid": True}, {}], ("output sigmoid", "no output sigmoid")),
        ([{"weight_decay": 1e-5}, {}], ("weight decay 1e-05", "weight decay 0")),
        ([{"valid_fraction": 0.0}, {}], ("validation share 0", "validation share 0.1")),
        ([{"train_fraction": 0.01}, {}], ("training share 0.01", "training share 1")),
        ([{"optimizer": "adam"}, {}, {"momentum": 0.9}], ("Adam", "SGD, momentum 0", "SGD, momentum 0.9")),
        ([{"optimizer": "adam"}, {"momentum": 0.9}], ("Adam", "SGD, momentum 0.9")),
        ([{"momentum": 0.9}, {}], ("momentum 0.9", "momentum 0")),
        ([{"momentum": 0.9, "nesterov": True}, {}], ("momentum 0.9, Nesterov", "momentum 0")),
        ([{"momentum": 0.9, "nesterov": True}, {"momentum": 0.9}], ("Nesterov", "no Nesterov")),
        (
            [{"test_watch": "steps", "test_watch_steps": 50}, {"test_watch": "epoch"}, {}],
            ("tested every 50 steps", "tested every epoch", "tested at the end"),
        ),
    ],
)
def test_a_legend_says_what_differs(changes: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    assert legends([parse_config(one) for one in changes]) == names


@given(st.lists(any_config, min_size=2, max_size=4))
def test_legends_are_as_different_as_the_runs(configs: list[RunConfig]) -> None:
    names = legends(configs)
    assert all(names)
    assert len(set(zip(names, (one.digest for one in configs), strict=True))) == len(set(names))
    assert len({one.digest for one in configs}) == len(set(names))


def test_legends_of_groups_leave_the_seed_out() -> None:
    configs = [config(learning_rate=0.1, seed=3), config(learning_rate=0.01)]
    assert legends(configs) == ("lr 0.1, seed 3", "lr 0.01, seed 0")
    assert legends(configs, seeds=False) == ("lr 0.1", "lr 0.01")
    assert legends([config(), config(seed=1)], seeds=False) == (RunConfig().label,) * 2


# Two runs ------------------------------------------------------------------------------------------------------------


def test_errors_of_two_runs_by_hand() -> None:
    labels = [0, 1, 2, 2, 3, 0]
    found = compare_errors(predictions(labels, [0, 0, 2, 1, 0, 1]), predictions(labels, [0, 1, 0, 1, 1, 1]))
    assert (found.only_a.tolist(), found.only_b.tolist(), found.neither) == ([1], [2], 1)
    assert (found.both.tolist(), found.same.tolist()) == ([3, 4, 5], [3, 5])
    assert found.per_class.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 1], [1, 0, 1, 0]]
    assert found.p == 1


@given(labels_and_answers)
def test_the_sets_partition_the_images_and_swapping_the_runs_swaps_them(lists: tuple[list[int], ...]) -> None:
    a, b = (predictions(lists[0], answers) for answers in lists[1:3])
    found, swapped = compare_errors(a, b), compare_errors(b, a)
    sets = found.only_a, found.only_b, found.both
    assert all(one.dtype == np.int64 and (np.diff(one) > 0).all() for one in (*sets, found.same))
    wrong = np.sort(np.concatenate(sets))
    np.testing.assert_array_equal(wrong, np.flatnonzero(~(a.correct & b.correct)))
    assert len(wrong) + found.neither == len(a.labels)
    assert len(found.only_a) + len(found.both) == a.errors
    assert set(found.same) == {i for i in found.both if a.predicted[i] == b.predicted[i]}
    for here, there in zip(sets, (swapped.only_b, swapped.only_a, swapped.both), strict=True):
        np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(found.per_class, swapped.per_class[[1, 0, 2, 3]])
    assert (found.p, found.neither) == (swapped.p, swapped.neither)


@given(labels_and_answers)
def test_counts_per_class_are_of_the_actual_class(lists: tuple[list[int], ...]) -> None:
    a, b = (predictions(lists[0], answers) for answers in lists[1:3])
    found = compare_errors(a, b)
    assert found.per_class.dtype == np.int64
    assert found.per_class.shape == (4, CLASSES)
    assert found.per_class.sum(axis=1).tolist() == [
        len(one) for one in (found.only_a, found.only_b, found.both, found.same)
    ]
    if lists[0]:
        matrix = confusion_matrix(a.labels, a.predicted, labels=range(CLASSES))
        np.testing.assert_array_equal(found.per_class[[0, 2]].sum(axis=0), matrix.sum(axis=1) - matrix.diagonal())


Compare = Callable[[list[Predictions]], object]


@pytest.mark.parametrize(
    "compare", [lambda both: compare_errors(*both), pairwise, wrong_in_all, lambda both: wrong_in_at_least(both, 1)]
)
def test_runs_on_other_images_are_refused(compare: Compare) -> None:
    here = predictions([0, 1], [0, 1])
    with pytest.raises(ValueError, match="labels differ"):
        compare([here, predictions([0, 2], [0, 1])])
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(1, 4\)"):
        compare([here, predictions([0], [0])])
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(2, 3\)"):
        compare([here, Predictions(here.log_probabilities[:, :3], here.predicted, here.labels)])


# McNemar's test ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_p_is_the_binomial_tests(only_a: int, only_b: int) -> None:
    p = mcnemar(only_a, only_b)
    assert 0 <= p <= 1
    assert p == mcnemar(only_b, only_a)
    if only_a + only_b:
        assert p == pytest.approx(scipy.stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    else:
        assert p == 1


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(7, 7) == 1
    assert mcnemar(0, 10_000) == 0
    with pytest.raises(ValueError, match="got -1 and 3"):
        mcnemar(-1, 3)


# Several runs --------------------------------------------------------------------------------------------------------


@given(labels_and_answers)
def test_pairs_are_those_of_two_runs(lists: tuple[list[int], ...]) -> None:
    runs = [predictions(lists[0], answers) for answers in lists[1:]]
    found = pairwise(runs)
    assert found.better.dtype == np.int64
    assert found.p.dtype == np.float64
    for row, a in enumerate(runs):
        for column, b in enumerate(runs):
            pair: ErrorComparison = compare_errors(a, b)
            assert found.better[row, column] == len(pair.only_b)
            assert found.p[row, column] == pair.p
    assert found.p.diagonal().tolist() == [1.0] * 3


@given(labels_and_answers, st.integers(1, 3))
def test_images_that_many_get_wrong(lists: tuple[list[int], ...], count: int) -> None:
    labels, *answers = lists
    losses = [[float(i * (run + 3) % 7) for i in range(len(labels))] for run in range(3)]
    runs = [predictions(labels, answer, loss) for answer, loss in zip(answers, losses, strict=True)]
    found = wrong_in_at_least(runs, count)
    expected = [i for i, label in enumerate(labels) if sum(answer[i] != label for answer in answers) >= count]
    mean: NDArray[np.float64] = np.mean(losses, axis=0)
    assert found.dtype == np.int64
    assert found.tolist() == sorted(expected, key=lambda i: (-mean[i], i))
    if count == 3:
        assert wrong_in_all(runs).tolist() == found.tolist()


def test_without_runs_or_with_too_many_wanted_there_is_nothing_to_count() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        wrong_in_all([])
    with pytest.raises(ValueError, match="at least one run"):
        pairwise([])
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"1 … 1; got {count}"):
            wrong_in_at_least([predictions([0], [0])], count)
