"""Stored predictions against scikit-learn, over arbitrary labels and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from mnistlr_core import evaluation
from mnistlr_core.evaluation import Order, Predictions, confusion, describe, mistakes, most_confused


@st.composite
def any_predictions(draw: st.DrawFn) -> Predictions:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, c = draw(st.integers(1, 60)), draw(st.integers(2, 10))
    logits = rng.normal(scale=draw(st.sampled_from([0.1, 1.0, 5.0])), size=(n, c))
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return Predictions.from_log_probabilities(log_probabilities, rng.integers(0, c, n))


def small() -> Predictions:
    """Five images of three classes: one right, four wrong, of which two tie."""
    probabilities = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.02, 0.08, 0.9], [0.5, 0.4, 0.1]])
    return Predictions.from_log_probabilities(np.log(probabilities), np.array([0, 1, 1, 0, 1]))


def test_the_public_surface() -> None:
    assert evaluation.__all__ == [
        "Confusion", "Mistake", "Order", "Predictions", "confusion", "describe", "mistakes", "most_confused",
        "rounded",
    ]  # fmt: skip


@given(any_predictions())
def test_agrees_with_scikit_learn(predictions: Predictions) -> None:
    n, c = predictions.log_probabilities.shape
    labels, predicted = predictions.labels, predictions.predicted
    assert predictions.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert predictions.errors == n - predictions.correct.sum()
    matrix = confusion(labels, predicted, c)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predicted, labels=range(c)))
    probabilities = np.exp(predictions.log_probabilities.astype(np.float64))
    normalised = probabilities / probabilities.sum(axis=1, keepdims=True)
    expected = log_loss(labels, normalised, labels=list(range(c)))
    assert float(predictions.losses.mean()) == pytest.approx(expected, rel=5e-3, abs=5e-3)


@given(any_predictions(), st.sampled_from(Order))
def test_every_order_holds_each_wrong_image_once(predictions: Predictions, order: Order) -> None:
    indices = mistakes(predictions, order)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(np.sort(indices), np.flatnonzero(~predictions.correct))
    rows = predictions.log_probabilities.astype(np.float32)
    key = {
        Order.LOSS: -predictions.losses,
        Order.CONFIDENT: -predictions.probability,
        Order.CLOSE: rows[np.arange(len(rows)), predictions.predicted] - rows[np.arange(len(rows)), predictions.labels],
    }[order][indices]
    assert (np.diff(key) >= 0).all()
    assert all(a < b for a, b, tie in zip(indices, indices[1:], np.diff(key) == 0, strict=False) if tie)


@given(any_predictions(), st.integers(0, 9), st.integers(0, 9))
def test_filters_select_a_cell_of_the_matrix(predictions: Predictions, actual: int, predicted: int) -> None:
    matrix = confusion(predictions.labels, predictions.predicted)
    np.fill_diagonal(matrix, 0)
    assert len(mistakes(predictions, Order.LOSS, actual, predicted)) == matrix[actual, predicted]
    assert len(mistakes(predictions, Order.LOSS, actual=actual)) == matrix[actual].sum()
    assert len(mistakes(predictions, Order.LOSS, predicted=predicted)) == matrix[:, predicted].sum()


def test_orders_by_hand() -> None:
    assert mistakes(small(), Order.LOSS).tolist() == [3, 2, 1, 4]
    assert mistakes(small(), Order.CONFIDENT).tolist() == [2, 3, 1, 4]
    assert mistakes(small(), Order.CLOSE).tolist() == [1, 4, 2, 3]
    assert [order.label for order in Order] == ["Highest loss", "Most confident", "Closest call"]


def test_describe_follows_the_indices() -> None:
    first, second = describe(small(), [3, 2])
    assert (first.index, first.actual, first.predicted) == (3, 0, 2)
    assert first.loss == pytest.approx(-np.log(0.02), rel=1e-3)
    assert second.probability == pytest.approx(0.9, rel=1e-3)
    assert describe(small(), []) == ()


def test_the_argmax_is_taken_before_rounding() -> None:
    scores = np.array([[-0.70000, -0.69999]])
    predictions = Predictions.from_log_probabilities(scores, np.array([1]))
    assert predictions.log_probabilities[0, 0] == predictions.log_probabilities[0, 1]
    assert predictions.predicted.tolist() == [1]


def test_certain_answers_have_finite_losses() -> None:
    predictions = Predictions.from_log_probabilities(np.array([[0.0, -1e6], [0.0, -np.inf]]), np.array([0, 1]))
    assert predictions.losses.tolist() == [0.0, 65504.0]
    assert not np.signbit(predictions.losses[0])


def test_most_confused_is_ordered_and_leaves_out_the_diagonal() -> None:
    matrix = np.array([[90, 3, 5], [5, 80, 0], [0, 1, 70]])
    cells = [(cell.actual, cell.predicted, cell.count) for cell in most_confused(matrix, 9)]
    assert cells == [(0, 2, 5), (1, 0, 5), (0, 1, 3), (2, 1, 1)]
    assert len(most_confused(matrix, 2)) == 2


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"0 … 2; got 0 to 3"):
        confusion(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match=r"\[n, c\]"):
        Predictions(np.zeros((2, 3), np.float16), np.zeros(2, np.uint8), np.zeros(3, np.uint8))


def test_no_images() -> None:
    nothing = Predictions(np.zeros((0, 3), np.float16), np.zeros(0, np.uint8), np.zeros(0, np.uint8))
    assert np.isnan(nothing.accuracy)
    assert nothing.errors == 0
    assert confusion(nothing.labels, nothing.predicted, 3).tolist() == [[0] * 3] * 3
