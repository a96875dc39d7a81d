"""The sentences under the figures: what they show, for a reader in a hurry and for one who can't see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnistlr_core.charts import Floats, RunCurves
from mnistlr_core.evaluation import most_confused

__all__ = ["confusion_sentence", "curves_sentence"]

TREND = 0.002  # accuracy; a smaller change over three epochs is called no change


def confusion_sentence(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The three most frequent confusions in words."""
    if not matrix.sum():
        return "No image has been classified yet."
    worst = most_confused(matrix, 3)
    if not worst:
        return f"All {matrix.sum():,} images were read correctly."
    first, *others = worst
    named = [f"{classes[first.actual]} read as {classes[first.predicted]} ({_times(first.count, 'time')})"]
    named += [f"{classes[cell.actual]} as {classes[cell.predicted]} ({cell.count:,})" for cell in others]
    return f"Most confused: {', '.join(named)}."


def curves_sentence(curves: RunCurves) -> str:
    """What the curves show, in one or two sentences; it claims a trend only where the numbers carry one."""
    done = len(curves.epochs)
    if curves.diverged_at is not None:
        words = f"Training diverged after {curves.diverged_at:.3g} epochs: the loss grew without bound."
        if curves.best is None:
            return words
        return f"{words} Validation accuracy had reached {_percent(curves.valid_accuracy[curves.best])}."
    if not done:
        if not len(curves.step_losses):
            return "Nothing has been trained yet."
        at, loss = curves.step_epochs[-1], curves.step_losses[-1]
        return f"Training loss is {loss:.2f} after {at:.2g} of an epoch; the first epoch has not finished yet."
    last_epoch = int(curves.epochs[-1])
    low = int(np.argmin(curves.train_loss))
    if curves.train_loss[-1] > 1.5 * curves.train_loss[low]:
        return (
            f"Training loss rose from {curves.train_loss[low]:.2f} after epoch {int(curves.epochs[low])} to "
            f"{curves.train_loss[-1]:.2f} after epoch {last_epoch}; a lower learning rate may help."
        )
    measured = np.isfinite(curves.valid_accuracy)
    if not measured.any():
        return (
            f"Training accuracy is {_percent(curves.train_accuracy[-1])} after {_times(last_epoch, 'epoch')}. "
            "No images were held out for validation, so the curves can't show overfitting."
        )
    epochs, accuracy = curves.epochs[measured].astype(int), curves.valid_accuracy[measured]
    first, last = accuracy[0], accuracy[-1]
    start = f"{_percent(first)} after {_times(epochs[0], 'epoch')}"
    if len(accuracy) == 1:
        return f"Validation accuracy is {start}; one epoch shows no trend yet."
    verb = f"reached {start} and" if last >= first else f"went from {start} to"
    return f"Validation accuracy {verb} {_percent(last)} after {epochs[-1]}; {_trend(curves, epochs, accuracy)}."


def _trend(curves: RunCurves, epochs: NDArray[np.int_], accuracy: Floats) -> str:
    """How validation went on, at two measured epochs or more."""
    loss = curves.valid_loss
    if np.isfinite(loss).all():
        low = int(np.argmin(loss))
        # Two epochs, a twentieth of all and 3 % above the minimum: less is within the noise of validation.
        if (
            len(loss) - low > max(2, len(loss) // 20)
            and loss[-1] > 1.03 * loss[low]
            and curves.train_loss[-1] < curves.train_loss[low]
        ):
            return (
                f"validation loss has risen since epoch {int(curves.epochs[low])} while training loss kept falling: "
                "the model is overfitting"
            )
    recent, best = accuracy[-3:], int(np.argmax(accuracy))
    if accuracy[-1] == accuracy[best] and accuracy[-1] - recent[0] >= TREND:
        return "it is still rising, so more epochs may help"
    if np.ptp(recent) < TREND:
        return f"over the last {len(recent)} epochs it moved by less than {100 * TREND:.1f} points"
    if best == len(accuracy) - 1:
        return "its best so far, though it still wavers from epoch to epoch"
    return f"its best was {_percent(accuracy[best])} after {epochs[best]}, and no trend is clear since"


def _percent(share: float | np.floating[Any]) -> str:
    """0.9147 -> 91.5 %; above 99.5 % with a second decimal, and never 100 % while an image is wrong."""
    if 0.995 <= share < 1:
        return f"{min(100 * share, 99.99):.2f} %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
