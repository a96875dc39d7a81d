"""What the figures say in words."""

from __future__ import annotations

import numpy as np
import pytest

from mnistlr_core.charts import RunCurves, curves
from mnistlr_core.sentences import confusion_sentence, curves_sentence
from tests.test_charts import DIGITS, NAN, row, run


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (curves([], [], 10), "Nothing has been trained yet."),
        (
            curves([], [2.0] * 5, 10),
            "Training loss is 2.00 after 0.5 of an epoch; the first epoch has not finished yet.",
        ),
        (run([0.9]), "Validation accuracy is 90 % after 1 epoch; one epoch shows no trend yet."),
        (
            run([0.9, 0.91, 0.915]),
            "Validation accuracy reached 90 % after 1 epoch and 91.5 % after 3; "
            "it is still rising, so more epochs may help.",
        ),
        (
            run([0.9, 0.9150, 0.9155, 0.9151]),
            "Validation accuracy reached 90 % after 1 epoch and 91.5 % after 4; "
            "over the last 3 epochs it moved by less than 0.2 points.",
        ),
        (
            run([0.90, 0.93, 0.91, 0.89]),
            "Validation accuracy went from 90 % after 1 epoch to 89 % after 4; "
            "its best was 93 % after 2, and no trend is clear since.",
        ),
        (
            run([0.9, 0.95, 0.945, 0.951]),
            "Validation accuracy reached 90 % after 1 epoch and 95.1 % after 4; "
            "its best so far, though it still wavers from epoch to epoch.",
        ),
        (
            run([0.95, 0.97, 0.971, 0.972], valid=[0.2, 0.1, 0.11, 0.13]),
            "Validation accuracy reached 95 % after 1 epoch and 97.2 % after 4; "
            "validation loss has risen since epoch 2 while training loss kept falling: the model is overfitting.",
        ),
        (
            run([0.9, 0.5], train=[0.3, 8.0]),
            "Training loss rose from 0.30 after epoch 1 to 8.00 after epoch 2; a lower learning rate may help.",
        ),
        (
            curves([row(1, valid_loss=0.5, valid_accuracy=0.8)], [1.0] * 12 + [NAN], 10),
            "Training diverged after 1.3 epochs: the loss grew without bound. Validation accuracy had reached 80 %.",
        ),
        (
            curves([], [1.0, 2e6], 10, diverged_step=2),
            "Training diverged after 0.2 epochs: the loss grew without bound.",
        ),
        (
            curves([row(1)], [], 10),
            "Training accuracy is 90 % after 1 epoch. "
            "No images were held out for validation, so the curves can't show overfitting.",
        ),
        (
            run([0.9999, 0.99995]),
            "Validation accuracy reached 99.99 % after 1 epoch and 99.99 % after 2; "
            "over the last 2 epochs it moved by less than 0.2 points.",
        ),
    ],
)
def test_the_curves_in_words(numbers: RunCurves, words: str) -> None:
    assert curves_sentence(numbers) == words


def test_the_matrix_in_words() -> None:
    counts = np.diag([900] * 10)
    assert confusion_sentence(counts, DIGITS) == "All 9,000 images were read correctly."
    assert confusion_sentence(counts * 0, DIGITS) == "No image has been classified yet."
    counts[4, 9], counts[7, 9], counts[5, 3], counts[0, 1] = 51, 37, 36, 1
    assert confusion_sentence(counts, DIGITS) == "Most confused: 4 read as 9 (51 times), 7 as 9 (37), 5 as 3 (36)."
