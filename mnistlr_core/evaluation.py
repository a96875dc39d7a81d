"""What a run's stored test predictions say: accuracy, confusion, and which images it got wrong.

NumPy only, because the UI reads predictions itself and must never load torch. n is the number of test images,
c the number of classes; an index is a position in the test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Confusion",
    "Mistake",
    "Order",
    "Predictions",
    "confusion",
    "describe",
    "mistakes",
    "most_confused",
    "rounded",
]


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """A run's answers for every test image.

    log_probabilities: float16 [n, c], natural logarithms; half precision, so about 1 part in 1,000.
    predicted: uint8 [n], stored apart, because values that tie in float16 could move an argmax.
    labels: uint8 [n], the actual classes.

    Raises ValueError when the shapes don't agree.
    """

    log_probabilities: NDArray[np.float16]
    predicted: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        shape = self.log_probabilities.shape
        if len(shape) != 2 or self.predicted.shape != shape[:1] or self.labels.shape != shape[:1]:
            raise ValueError(
                "log-probabilities must be [n, c], predicted and labels [n]; "
                f"got {shape}, {self.predicted.shape} and {self.labels.shape}"
            )

    @classmethod
    def from_log_probabilities(cls, log_probabilities: NDArray[np.floating[Any]], labels: NDArray[Any]) -> Predictions:
        """Round full-precision log-probabilities [n, c] for storage; the argmax is taken before rounding.

        What float16 can't hold is clipped to its most negative finite value, -65,504, so that losses stay finite.
        """
        return cls(
            log_probabilities=rounded(log_probabilities),
            predicted=log_probabilities.argmax(axis=1).astype(np.uint8),
            labels=np.asarray(labels).astype(np.uint8),
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image was read as what it is, bool [n]."""
        return np.equal(self.predicted, self.labels)

    @property
    def accuracy(self) -> float:
        """The share of images that are correct, 0 to 1; NaN without images."""
        return float(self.correct.mean()) if len(self.labels) else float("nan")

    @property
    def errors(self) -> int:
        """How many images are wrong."""
        return int(np.count_nonzero(~self.correct))

    @property
    def losses(self) -> NDArray[np.float32]:
        """The cross entropy of each image, -log p(label), in nats, float32 [n]."""
        return 0 - self._log_probability(self.labels)  # 0 - x rather than -x: a certain answer costs 0.0, not -0.0

    @property
    def probability(self) -> NDArray[np.float32]:
        """The probability that the run gave to the class it predicted, float32 [n]."""
        return np.exp(self._log_probability(self.predicted))

    def _log_probability(self, classes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The log-probability of one class per image, float32 [n]."""
        return self.log_probabilities[np.arange(len(classes)), classes].astype(np.float32)


def rounded(log_probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    """Log-probabilities as they are stored: float16, and finite, for -65,504 stands for all below it."""
    halved: NDArray[np.float16] = np.clip(log_probabilities, float(np.finfo(np.float16).min), 0).astype(np.float16)
    return halved


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often one class was read as another."""

    actual: int
    predicted: int
    count: int


def confusion(labels: NDArray[Any], predicted: NDArray[Any], classes: int = 10) -> NDArray[np.int64]:
    """Count images by actual class (rows) and predicted class (columns), int64 [c, c].

    Raises ValueError when a class is not in 0 … classes - 1.
    """
    for name, values in (("labels", labels), ("predicted", predicted)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise ValueError(f"{name} must lie in 0 … {classes - 1}; got {int(values.min())} to {int(values.max())}")
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).astype(np.int64).reshape(classes, classes)


def most_confused(matrix: NDArray[np.int64], count: int) -> tuple[Confusion, ...]:
    """The `count` largest cells off the diagonal, largest first, ties by (actual, predicted), without empty ones."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(largest, matrix.shape)
    return tuple(
        Confusion(int(row), int(column), int(wrong[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    )


class Order(StrEnum):
    """Which wrong images come first."""

    LOSS = "loss"
    CONFIDENT = "confident"
    CLOSE = "close"

    @property
    def label(self) -> str:
        """The words a reader sees."""
        return {"loss": "Highest loss", "confident": "Most confident", "close": "Closest call"}[self.value]


def mistakes(
    predictions: Predictions, order: Order, actual: int | None = None, predicted: int | None = None
) -> NDArray[np.int64]:
    """Indices of the wrong images in the given order, ties by index, int64 [≤ errors].

    LOSS: highest loss first. CONFIDENT: highest probability of the wrong class first. CLOSE: smallest margin first,
    log p(predicted) - log p(actual). `actual` and `predicted` keep only images of, or read as, that class.
    """
    wrong = ~predictions.correct
    if actual is not None:
        wrong &= predictions.labels == actual
    if predicted is not None:
        wrong &= predictions.predicted == predicted
    indices = np.flatnonzero(wrong)
    # The margin is loss + log p(predicted), so all three orders need just these two values of each wrong image.
    chosen = predictions.log_probabilities[indices, predictions.predicted[indices]].astype(np.float32)
    label = predictions.log_probabilities[indices, predictions.labels[indices]].astype(np.float32)
    match order:
        case Order.LOSS:
            rank = label
        case Order.CONFIDENT:
            rank = -chosen
        case Order.CLOSE:
            rank = chosen - label
    return indices[np.argsort(rank, kind="stable")].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong image: its index, what it is, what it was read as, the loss in nats, p(predicted)."""

    index: int
    actual: int
    predicted: int
    loss: float
    probability: float


def describe(predictions: Predictions, indices: Sequence[int] | NDArray[np.int64]) -> tuple[Mistake, ...]:
    """The values behind the tiles, one for each index, in the order given."""
    losses, probability = predictions.losses, predictions.probability
    return tuple(
        Mistake(
            index=int(index),
            actual=int(predictions.labels[index]),
            predicted=int(predictions.predicted[index]),
            loss=float(losses[index]),
            probability=float(probability[index]),
        )
        for index in indices
    )
