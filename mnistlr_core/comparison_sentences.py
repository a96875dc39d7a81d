"""Comparisons in words: what sets runs apart, and whether that is more than chance.

Runs go by the names given, those of the legend, so that a caption and a chart speak of the same things.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mnistlr_core.comparison import LEVEL, ErrorComparison
from mnistlr_core.records import Evidence, RunState
from mnistlr_core.seed_groups import Figure, Group, difference
from mnistlr_core.verdicts import Measured

__all__ = ["errors_sentence", "groups_sentence", "reached_sentence"]

_MOST_NAMED = 4
_TINY = 1e-9  # percent: 100 × 0.29 is a little less than 29

Points = Sequence[tuple[int, float]]
"""Epochs and validation accuracies in percent."""


def errors_sentence(errors: ErrorComparison, names: tuple[str, str]) -> str:
    """Which test images only one of two runs gets right, and whether that makes it the better one."""
    a, b = map(_quoted, names)
    only_a, only_b, both, same = map(len, (errors.only_a, errors.only_b, errors.both, errors.same))
    shared = f"{_count(both)} {'is' if both == 1 else 'are'} wrong in both{_same_way(both, same)}"
    if not only_a + only_b:
        if both:
            return f"{a} and {b} never differ in which images they get right; {shared}."
        return f"{a} and {b} get all {errors.neither:,} images right." if errors.neither else "No images to compare."
    images = _times(only_b, "image") if only_b else "no image"
    counts = f"{a} gets {images} right that {b} gets wrong, and {b} {_count(only_a)} that {a} gets wrong; {shared}."
    if only_a == only_b:
        return f"{counts} That makes them equally good on these images."
    percent = 100 * errors.p
    cases = "fewer than 0.1 %" if percent < 0.1 else f"{percent:.{0 if percent >= 9.95 else 1}f} %"
    chance = f"Equally good runs would differ this much by chance in {cases} of cases (McNemar's exact test)"
    better = a if only_a < only_b else b
    return f"{counts} {chance}{f', so {better} is really better' if errors.p < LEVEL else ': it is within chance'}."


def _same_way(both: int, same: int) -> str:
    """How many of the images that both get wrong are taken for the same class."""
    if both <= 1:
        return ("", ", but not in the same way", ", in the same way")[both + same]
    return f", {'all' if same == both else _count(same)} of them in the same way"


def reached_sentence(runs: Sequence[Evidence], names: Sequence[str]) -> str:
    """Who learned fastest: after how many epochs each run reached the highest round accuracy that all of them reached.

    Of validation, in whole percent, above 95 % in halves. A run that diverged is named, and the others are not held
    against what it had reached. Of more than four runs the first and the last to get there are named.

    Raises ValueError when there are not as many names as runs.
    """
    if not runs:
        return "No runs to compare."
    racing: list[tuple[str, Points]] = []
    diverged, without, waiting = [], [], []
    for one, name in zip(runs, map(_quoted, names), strict=True):
        points = [
            (row.epoch, 100 * row.valid_accuracy + _TINY) for row in one.history if row.valid_accuracy is not None
        ]
        if one.run.state is RunState.DIVERGED:
            diverged.append(name)
        elif points:
            racing.append((name, points))
        elif one.run.config.valid_fraction == 0:
            without.append(name)
        else:
            waiting.append(name)
    parts = [_race(racing)] if racing else []
    if diverged:
        parts.append(f"{_listed(diverged)} diverged")
    if without:
        parts.append(f"{_listed(without)} {'holds' if len(without) == 1 else 'hold'} no images out for validation")
    if waiting:
        parts.append(f"{_listed(waiting)} {'has' if len(waiting) == 1 else 'have'} not finished an epoch")
    return f"{'; '.join(parts)}."


def _race(racing: Sequence[tuple[str, Points]]) -> str:
    """Who reached what all of them reached, and when, first to last."""
    shared = min(max(percent for _, percent in points) for _, points in racing)
    goal = math.floor(2 * shared) / 2 if shared >= 95 else math.floor(shared)
    arrivals: dict[int, list[str]] = {}
    for name, points in racing:
        arrivals.setdefault(next(epoch for epoch, percent in points if percent >= goal), []).append(name)
    (start, leaders), *later = sorted(arrivals.items())
    first, what = _listed(leaders), f"{goal:g} % validation accuracy"
    after = f"after {_times(start, 'epoch')}"
    if later and len(racing) > _MOST_NAMED:
        end, trailers = later[-1]
        return (
            f"Of {len(racing)} runs, {first} reached {what} first, {after}, and {_listed(trailers)} last, after {end}"
        )
    return ", ".join([f"{first} reached {what} {after}", *(f"{_listed(who)} after {epoch}" for epoch, who in later)])


def groups_sentence(groups: Sequence[Group], names: Sequence[str], *, figure: Figure) -> str:
    """Whether a figure differs by more between two configurations than between seeds of one.

    Of more than two, the best is held against the next. What the figure is called, `FIGURES` says. Groups with nothing
    measured are named, and so are those whose mean leaves out seeds that diverged.

    Raises ValueError when there are not as many names as groups.
    """
    called = [(_quoted(name), group, group.measure(figure)) for group, name in zip(groups, names, strict=True)]
    found = [(name, figures) for name, _, figures in called if figures]
    notes = []
    if len(found) > 1:
        notes.append(_two_groups(found, figure))
    elif found:
        ((name, figures),) = found
        notes.append(
            f"{name} has {_measured(figures, figure, _decimals([figures], figure))} over {_times(figures.n, 'seed')}."
        )
    if missing := [name for name, group, figures in called if not figures and not group.diverged]:
        notes.append(f"{_listed(missing)} {'has' if len(missing) == 1 else 'have'} not been measured.")
    for name, group, _ in called:
        if 0 < group.diverged == len(group.runs):
            notes.append(f"{name} diverged with every seed.")
        elif group.diverged:
            verb = "is" if group.diverged == 1 else "are"
            notes.append(f"{group.diverged} of {len(group.runs)} seeds of {name} diverged and {verb} not counted.")
    return " ".join(notes) or "No runs to compare."


def _two_groups(found: Sequence[tuple[str, Measured]], figure: Figure) -> str:
    """The sentence about two groups, or about the best two of more."""
    opening, joint = "", (" has ", ", ", " ")
    if len(found) > 2:
        found = sorted(found, key=lambda one: one[1].mean, reverse=figure.endswith("accuracy"))
        opening, joint = f"Of {len(found)}, ", (" is best with ", ", then ", " with ")
    (a, first), (b, second) = found[:2]
    gap = difference(first, second)
    decimals = _decimals([first, second], figure)
    alone = first.n == second.n == 1
    over_first = "" if alone else f" over {_times(first.n, 'seed')}"
    over_second = "" if first.n == second.n else f" over {_times(second.n, 'seed')}"
    words = (
        f"{opening}{a}{joint[0]}{_measured(first, figure, decimals)}{over_first}"
        f"{joint[1]}{b}{joint[2]}{_measured(second, figure, decimals)}{over_second}"
    )
    if gap.within_noise is None:
        return f"{words}. One seed {'each ' if alone else ''}says nothing about noise: add seeds."
    scale, _, unit = _unit(figure)
    size = f"{scale * abs(gap.mean):.{decimals}f}{' points' if unit == ' %' else unit}"
    return f"{words}: the difference of {size} is {'within' if gap.within_noise else 'larger than'} the seeds' noise."


def _measured(one: Measured, figure: Figure, decimals: int) -> str:
    """Mean and spread: `92.2 % ± 0.1`, `0.312 ± 0.004`, `12.3 s ± 0.4`."""
    scale, _, unit = _unit(figure)
    spread = "" if one.spread is None else f" ± {scale * one.spread:.{decimals}f}"
    return f"{scale * one.mean:.{decimals}f}{unit}{spread}"


def _decimals(found: Sequence[Measured], figure: Figure) -> int:
    """The usual decimals, and one more where a spread or most of a difference would be rounded away."""
    scale, usual, _ = _unit(figure)
    step = 0.1**usual / scale
    close = len(found) > 1 and abs(found[0].mean - found[-1].mean) < 10 * step
    return usual + (close or any(one.spread is not None and one.spread < step / 2 for one in found))


def _unit(figure: Figure) -> tuple[int, int, str]:
    """What to multiply a figure by, its usual decimals, and its unit."""
    if figure == "seconds":
        return 1, 1, " s"
    return (100, 1, " %") if figure.endswith("accuracy") else (1, 3, "")


def _listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`; of more than four `A, B and 3 others`."""
    if len(names) > _MOST_NAMED:
        names = [*names[:2], f"{len(names) - 2:,} others"]
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def _quoted(name: str) -> str:
    """A name of several parts in quotation marks, so that its commas don't read as the sentence's."""
    return f"“{name}”" if "," in name else name


def _count(count: int) -> str:
    return f"{count:,}" if count else "none"


def _times(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
