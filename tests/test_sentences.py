"""What the figures say in words."""

from __future__ import annotations

import numpy as np
import pytest

from mnistlr_core.articles import RECIPES, Recipe, seeded
from mnistlr_core.charts import RunCurves, curves
from mnistlr_core.records import Evidence
from mnistlr_core.sentences import confusion_sentence, curves_sentence, measured_words, verdict_sentence
from mnistlr_core.verdicts import Measured, assess
from tests.evidence import article_runs, evidence
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


@pytest.mark.parametrize(
    ("figure", "loss", "words"),
    [
        (Measured(0.83004, 0.00484, 3), False, "83.00 % ± 0.48"),
        (Measured(1.96513, 0.1013, 3), True, "1.965 ± 0.101"),
        (Measured(0.9795, None, 1), False, "97.95 %"),
    ],
)
def test_a_measured_figure_has_its_spread(figure: Measured, loss: bool, words: str) -> None:
    assert measured_words(figure, loss=loss) == words


def test_a_verdict_names_the_miss_the_noise_and_the_change_that_helps() -> None:
    recipe = RECIPES["sigmoid-mlp"]
    printed = article_runs(recipe, [0.952, 0.953, 0.954])
    assert said(recipe, {}) == "Not measured yet."
    assert said(recipe, dict(list(printed.items())[:2])) == "2 of 3 seeds measured so far."
    missed = "Does not hold. The mean of 3 seeds lies 2.6 points below the 97.88 % that it claims; seeds alone do not"
    assert said(recipe, printed) == f"{missed} explain that."
    plain = {
        config.short_id: evidence(config, value, test=value, early=value)
        for config, value in zip(seeded(recipe.variant(1), 3), [0.978, 0.979, 0.980], strict=True)
    }
    better = "With plain pixels/255, “97.88 % test accuracy” holds: 97.90 % ± 0.10."
    assert said(recipe, printed | plain) == f"{missed} explain that. {better} {recipe.variants[0].reason}"
    # The change is not said to help where it doesn't.
    worse = {id: evidence(one.run.config, 0.9, test=0.9) for id, one in plain.items()}
    assert said(recipe, printed | worse) == f"{missed} explain that."


def test_a_verdict_says_when_seeds_explain_the_miss() -> None:
    recipe = RECIPES["towards-data-science"]
    assert said(recipe, article_runs(recipe, [0.70, 0.85, 0.75])) == (
        "Holds roughly. The mean of 3 seeds lies 5.3 points below the 82 % that it claims, but seeds differ enough for "
        "one of them to give that."
    )
    assert said(recipe, article_runs(recipe, [0.82, 0.83, 0.82])) == (
        "Holds. The mean of 3 seeds gives what the article says."
    )


def test_without_claims_the_figure_is_said_alone() -> None:
    recipe = RECIPES["sigmoid-output"]
    runs = article_runs(recipe, [0.86, 0.87, 0.88])
    assert said(recipe, runs) == "The article gives no figure. Here: test accuracy 87.00 % ± 1.00."


def said(recipe: Recipe, runs: dict[str, Evidence]) -> str:
    return verdict_sentence(assess(recipe, runs, seeds=3))
