"""What comparisons say in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core import comparison_sentences
from mnistlr_core.articles import seeded
from mnistlr_core.comparison import ErrorComparison
from mnistlr_core.comparison_sentences import errors_sentence, groups_sentence, reached_sentence
from mnistlr_core.config import RunConfig
from mnistlr_core.records import EpochRow, Evidence, Result, RunState
from mnistlr_core.seed_groups import Figure, Group
from tests.evidence import evidence

NAMES = "ABCDEFGH"


def test_the_public_surface() -> None:
    assert comparison_sentences.__all__ == ["errors_sentence", "groups_sentence", "reached_sentence"]


# Errors --------------------------------------------------------------------------------------------------------------


def errors(only_a: int, only_b: int, both: int = 0, same: int = 0, neither: int = 0) -> ErrorComparison:
    a, b, shared = np.split(np.arange(only_a + only_b + both), [only_a, only_a + only_b])
    return ErrorComparison(a, b, shared, shared[:same], np.zeros((4, 10), np.int64), neither)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            errors(31, 58, 102, 87),
            "A gets 58 images right that B gets wrong, and B 31 that A gets wrong; "
            "102 are wrong in both, 87 of them in the same way. "
            "Equally good runs would differ this much by chance in 0.6 % of cases (McNemar's exact test), "
            "so A is really better.",
        ),
        (
            errors(1200, 1012, 1020, 1020),
            "A gets 1,012 images right that B gets wrong, and B 1,200 that A gets wrong; "
            "1,020 are wrong in both, all of them in the same way. "
            "Equally good runs would differ this much by chance in fewer than 0.1 % of cases (McNemar's exact test), "
            "so B is really better.",
        ),
        (
            errors(0, 10),
            "A gets 10 images right that B gets wrong, and B none that A gets wrong; none are wrong in both. "
            "Equally good runs would differ this much by chance in 0.2 % of cases (McNemar's exact test), "
            "so A is really better.",
        ),
        (
            errors(0, 11),
            "A gets 11 images right that B gets wrong, and B none that A gets wrong; none are wrong in both. "
            "Equally good runs would differ this much by chance in fewer than 0.1 % of cases (McNemar's exact test), "
            "so A is really better.",
        ),
        (
            errors(45, 55, 2),
            "A gets 55 images right that B gets wrong, and B 45 that A gets wrong; "
            "2 are wrong in both, none of them in the same way. "
            "Equally good runs would differ this much by chance in 37 % of cases (McNemar's exact test): "
            "it is within chance.",
        ),
        (
            errors(0, 1, 1),
            "A gets 1 image right that B gets wrong, and B none that A gets wrong; "
            "1 is wrong in both, but not in the same way. "
            "Equally good runs would differ this much by chance in 100 % of cases (McNemar's exact test): "
            "it is within chance.",
        ),
        (
            errors(5, 0, 1, 1),
            "A gets no image right that B gets wrong, and B 5 that A gets wrong; "
            "1 is wrong in both, in the same way. "
            "Equally good runs would differ this much by chance in 6.2 % of cases (McNemar's exact test): "
            "it is within chance.",
        ),
        (
            errors(3, 3),
            "A gets 3 images right that B gets wrong, and B 3 that A gets wrong; "
            "none are wrong in both. That makes them equally good on these images.",
        ),
        (
            errors(0, 0, 102, 87),
            "A and B never differ in which images they get right; 102 are wrong in both, 87 of them in the same way.",
        ),
        (errors(0, 0, neither=10_000), "A and B get all 10,000 images right."),
        (errors(0, 0), "No images to compare."),
    ],
)
def test_errors_in_words(found: ErrorComparison, words: str) -> None:
    assert errors_sentence(found, ("A", "B")) == words


def test_names_of_several_parts_are_quoted() -> None:
    words = errors_sentence(errors(0, 0, neither=2), ("lr 0.1, Adam", "lr 0.03, SGD"))
    assert words == "“lr 0.1, Adam” and “lr 0.03, SGD” get all 2 images right."


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_run_is_called_better_only_if_it_is_so_beyond_chance(only_a: int, only_b: int) -> None:
    found = errors(only_a, only_b)
    words = errors_sentence(found, ("A", "B"))
    assert ("A is really better" in words) == (only_a < only_b and found.p < 0.05)
    assert ("B is really better" in words) == (only_b < only_a and found.p < 0.05)


# Curves --------------------------------------------------------------------------------------------------------------


def learner(accuracies: Sequence[float], state: RunState = RunState.FINISHED, share: float = 0.1) -> Evidence:
    """A run with these validation accuracies, epoch by epoch; with a share of 0 they were not measured."""
    run = replace(evidence(RunConfig(valid_fraction=share), 0.5).run, state=state)
    rows = (EpochRow(e, 1.0, 0.5, 1.0, value if share else None, None, None) for e, value in enumerate(accuracies, 1))
    return Evidence(run, tuple(rows))


SLOW = learner([0.80, 0.90, 0.95, 0.962, 0.974])
FAST = learner([0.90, 0.972, 0.98, 0.978, 0.98])
BLIND = learner([0.9, 0.9], share=0)
LOST = learner([0.9], RunState.DIVERGED)
NEW = learner([], RunState.RUNNING)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([SLOW, FAST], "B reached 97 % validation accuracy after 2 epochs, A after 5."),
        ([FAST, FAST], "A and B reached 98 % validation accuracy after 3 epochs."),
        ([SLOW], "A reached 97 % validation accuracy after 5 epochs."),
        (
            [learner([0.958, 0.95]), learner([0.1, 0.965])],
            "A reached 95.5 % validation accuracy after 1 epoch, B after 2.",
        ),
        ([learner([0.9499]), FAST], "A reached 94 % validation accuracy after 1 epoch, B after 2."),
        ([learner([0.29]), FAST], "A and B reached 29 % validation accuracy after 1 epoch."),
        ([learner([1.0]), learner([0.9, 1.0])], "A reached 100 % validation accuracy after 1 epoch, B after 2."),
        (
            [SLOW, FAST, SLOW, learner([0.1, 0.2, 0.3, 0.98])],
            "B reached 97 % validation accuracy after 2 epochs, D after 4, A and C after 5.",
        ),
        (
            [SLOW, FAST, SLOW, learner([0.1, 0.2, 0.3, 0.98]), FAST],
            "Of 5 runs, B and E reached 97 % validation accuracy first, after 2 epochs, and A and C last, after 5.",
        ),
        ([FAST] * 6, "A, B and 4 others reached 98 % validation accuracy after 3 epochs."),
        ([SLOW, LOST, FAST], "C reached 97 % validation accuracy after 2 epochs, A after 5; B diverged."),
        (
            [SLOW, BLIND, NEW, BLIND, NEW],
            "A reached 97 % validation accuracy after 5 epochs; B and D hold no images out for validation; "
            "C and E have not finished an epoch.",
        ),
        ([LOST, BLIND, NEW], "A diverged; B holds no images out for validation; C has not finished an epoch."),
        ([LOST, LOST], "A and B diverged."),
        ([], "No runs to compare."),
    ],
)
def test_who_learned_fastest_in_words(runs: list[Evidence], words: str) -> None:
    assert reached_sentence(runs, NAMES[: len(runs)]) == words


@given(st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=5), min_size=2, max_size=4))
def test_all_runs_reached_what_they_are_said_to_have_reached(tenths: list[list[int]]) -> None:
    """Accuracies are whole tenths of a percent, so that exact arithmetic can tell."""
    words = reached_sentence([learner([x / 1000 for x in one]) for one in tenths], NAMES[: len(tenths)])
    goal = float(words.split(" reached ")[1].split(" %")[0])
    said = re.findall(r"(.+?) after (\d+)", words)
    lowest = min(map(max, tenths))
    assert 10 * goal <= lowest < 10 * goal + (5 if lowest >= 950 else 10)
    for name, one in zip(NAMES, tenths, strict=False):
        arrived = next(epoch for epoch, x in enumerate(one, 1) if x >= 10 * goal)
        assert [int(epoch) for who, epoch in said if name in who] == [arrived]


def test_there_must_be_a_name_for_each_run() -> None:
    with pytest.raises(ValueError, match="shorter"):
        reached_sentence([SLOW, FAST], ["A"])
    with pytest.raises(ValueError, match="shorter"):
        groups_sentence([group([0.9])], [], figure="test_accuracy")


# Groups --------------------------------------------------------------------------------------------------------------


def group(values: Sequence[float], *, diverged: int = 0, waiting: int = 0) -> Group:
    """Runs with this test accuracy, loss and time, one per seed, then others without any."""
    states = [RunState.FINISHED] * len(values) + [RunState.DIVERGED] * diverged + [RunState.RUNNING] * waiting
    configs = seeded(RunConfig(), len(states))
    runs = []
    for config, state, value in zip(configs, states, [*values, *[None] * (diverged + waiting)], strict=True):
        test = None if value is None else Result(value, value, 1)
        runs.append(Evidence(replace(evidence(config, 0.5).run, state=state, test=test, seconds=value or 0.0), ()))
    return Group(configs[0], tuple(runs))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            [group([0.921, 0.922, 0.923]), group([0.906, 0.908, 0.910])],
            "lr 0.1 has 92.2 % ± 0.1 over 3 seeds, lr 0.01 90.8 % ± 0.2: "
            "the difference of 1.4 points is larger than the seeds' noise.",
        ),
        (
            [group([0.921, 0.922, 0.923]), group([0.920, 0.923])],
            "lr 0.1 has 92.20 % ± 0.10 over 3 seeds, lr 0.01 92.15 % ± 0.21 over 2 seeds: "
            "the difference of 0.05 points is within the seeds' noise.",
        ),
        (
            [group([0.9221, 0.9225]), group([0.90, 0.91])],
            "lr 0.1 has 92.23 % ± 0.03 over 2 seeds, lr 0.01 90.50 % ± 0.71: "
            "the difference of 1.73 points is within the seeds' noise.",
        ),
        (
            [group([0.90, 0.91]), group([0.907, 0.913])],
            "lr 0.1 has 90.50 % ± 0.71 over 2 seeds, lr 0.01 91.00 % ± 0.42: "
            "the difference of 0.50 points is within the seeds' noise.",
        ),
        (
            [group([0.922]), group([0.908])],
            "lr 0.1 has 92.2 %, lr 0.01 90.8 %. One seed each says nothing about noise: add seeds.",
        ),
        (
            [group([0.921, 0.922, 0.923]), group([0.908])],
            "lr 0.1 has 92.2 % ± 0.1 over 3 seeds, lr 0.01 90.8 % over 1 seed. "
            "One seed says nothing about noise: add seeds.",
        ),
        (
            [group([0.921, 0.922, 0.923], diverged=1), group([0.906, 0.908, 0.910], diverged=2, waiting=1)],
            "lr 0.1 has 92.2 % ± 0.1 over 3 seeds, lr 0.01 90.8 % ± 0.2: "
            "the difference of 1.4 points is larger than the seeds' noise. "
            "1 of 4 seeds of lr 0.1 diverged and is not counted. "
            "2 of 6 seeds of lr 0.01 diverged and are not counted.",
        ),
        (
            [group([0.921, 0.922, 0.923]), group([], diverged=3)],
            "lr 0.1 has 92.2 % ± 0.1 over 3 seeds. lr 0.01 diverged with every seed.",
        ),
        ([group([], diverged=1)], "lr 0.1 diverged with every seed."),
        ([group([0.922]), group([], waiting=2)], "lr 0.1 has 92.2 % over 1 seed. lr 0.01 has not been measured."),
        ([group([], waiting=2), group([], waiting=1)], "lr 0.1 and lr 0.01 have not been measured."),
        ([], "No runs to compare."),
        (
            [group([0.5, 0.6]), group([0.921, 0.922, 0.923]), group([0.906, 0.908, 0.910])],
            "Of 3, lr 0.01 is best with 92.2 % ± 0.1 over 3 seeds, then lr 1 with 90.8 % ± 0.2: "
            "the difference of 1.4 points is larger than the seeds' noise.",
        ),
    ],
)
def test_groups_in_words(groups: list[Group], words: str) -> None:
    assert groups_sentence(groups, ("lr 0.1", "lr 0.01", "lr 1")[: len(groups)], figure="test_accuracy") == words


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (
            "test_loss",
            "Of 3, C is best with 0.300 ± 0.001 over 2 seeds, then A with 0.322 ± 0.003: "
            "the difference of 0.022 is larger than the seeds' noise.",
        ),
        (
            "seconds",
            "Of 3, C is best with 0.30 s ± 0.00 over 2 seeds, then A with 0.32 s ± 0.00: "
            "the difference of 0.02 s is larger than the seeds' noise.",
        ),
    ],
)
def test_the_best_loss_and_time_are_the_lowest(figure: Figure, words: str) -> None:
    groups = [group([0.320, 0.324]), group([0.5, 0.6]), group([0.299, 0.301])]
    assert groups_sentence(groups, "ABC", figure=figure) == words


def test_a_small_difference_of_losses_gets_one_more_decimal() -> None:
    words = groups_sentence([group([0.0221, 0.0223]), group([0.0207, 0.0209])], "AB", figure="test_loss")
    assert words == (
        "A has 0.0222 ± 0.0001 over 2 seeds, B 0.0208 ± 0.0001: "
        "the difference of 0.0014 is larger than the seeds' noise."
    )
