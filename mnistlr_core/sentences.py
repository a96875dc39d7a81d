"""The sentences under the figures: what they show, for a reader in a hurry and for one who can't see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnistlr_core.articles import Claimed, Relation
from mnistlr_core.charts import Floats, RunCurves
from mnistlr_core.evaluation import most_confused
from mnistlr_core.records import RunState
from mnistlr_core.verdicts import Assessment, Measured, Verdict, measured

__all__ = ["confusion_sentence", "curves_sentence", "measured_words", "verdict_sentence"]

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


def measured_words(figure: Measured, *, loss: bool = False) -> str:
    """Mean and spread: `83.00 % ± 0.48`, `1.965 ± 0.101`."""
    scale, digits, unit = (1, 3, "") if loss else (100, 2, " %")
    spread = "" if figure.spread is None else f" ± {scale * figure.spread:.{digits}f}"
    return f"{scale * figure.mean:.{digits}f}{unit}{spread}"


def verdict_sentence(assessment: Assessment) -> str:
    """What we say of an article: its verdict, the reason, and the change that makes the difference."""
    if not assessment.runs[0] or not any(assessment.runs):
        return "Not measured yet."
    if not assessment.complete:
        finished = sum(evidence.run.state is RunState.FINISHED for evidence in assessment.runs[0])
        return f"{finished} of {assessment.seeds} seeds measured so far."
    if assessment.verdict is None:
        tests = [evidence.run.test.accuracy for evidence in assessment.runs[0] if evidence.run.test]
        reached = measured(tests)
        gives = "The article gives no figure" if not assessment.recipe.claims else "The article's figures are of MNIST"
        return f"{gives}. Here: test accuracy {measured_words(reached)}." if reached else f"{gives}."
    printed = assessment.checks[0]
    words = [f"{assessment.verdict.value.capitalize()}."]
    if assessment.verdict is Verdict.HOLDS:
        words.append(f"The mean of {assessment.seeds} seeds gives what the article says.")
    else:
        worst = [(check.claim, check.measured) for check in printed if check.verdict is assessment.verdict]
        words.append(max((_miss(claim, figure) for claim, figure in worst if figure), key=lambda miss: miss[0])[1])
    for variant, checks in zip(assessment.recipe.variants, assessment.checks[1:], strict=True):
        for check in checks:
            before = next(one for one in printed if one.claim is check.claim)
            if check.verdict and check.measured and check.verdict is not before.verdict:
                words.append(
                    f"With {variant.title}, “{check.claim.words}” {check.verdict}: "
                    f"{measured_words(check.measured, loss=check.claim.figure == 'train_loss')}. {variant.reason}"
                )
    return " ".join(words)


def _miss(claim: Claimed, figure: Measured) -> tuple[float, str]:
    """By how many tolerances a claim is missed; a sentence that says by how much, and whether seeds explain it."""
    off = abs(figure.mean - claim.value)
    loss = claim.figure == "train_loss"
    missed, claimed = (
        (f"{off:.3f}", f"{claim.value:g}") if loss else (f"{100 * off:.1f} points", f"{100 * claim.value:g} %")
    )
    side = "above" if figure.mean > claim.value else "below"
    bound = {Relation.ABOUT: "", Relation.ABOVE: "more than ", Relation.BELOW: "at most "}[claim.relation]
    seeds = (
        ", but seeds differ enough for one of them to give that"
        if off <= figure.noise
        else "; seeds alone do not explain that"
    )
    sentence = f"The mean of {figure.n} seeds lies {missed} {side} the {bound}{claimed} that it claims{seeds}."
    return off / claim.tolerance, sentence


def _percent(share: float | np.floating[Any]) -> str:
    """0.9147 -> 91.5 %; above 99.5 % with a second decimal, and never 100 % while an image is wrong."""
    if 0.995 <= share < 1:
        return f"{min(100 * share, 99.99):.2f} %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
