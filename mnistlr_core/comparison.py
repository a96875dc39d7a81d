"""How runs differ: in their configurations, and in the test images they get wrong.

NumPy, and SciPy's binomial distribution. k is the number of runs, n the number of test images, c the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnistlr_core.config import Architecture, RunConfig, TestWatch, fields
from mnistlr_core.evaluation import Predictions

__all__ = [
    "LEVEL",
    "ErrorComparison",
    "Pairwise",
    "compare_errors",
    "differing_fields",
    "legends",
    "mcnemar",
    "pairwise",
    "wrong_in_all",
    "wrong_in_at_least",
]

LEVEL = 0.05
"""A difference that chance alone gives in fewer cases than this is called real."""


# Configurations ------------------------------------------------------------------------------------------------------


def differing_fields(configs: Sequence[RunConfig]) -> tuple[str, ...]:
    """The names of the fields in which configurations differ, in the form's order.

    A field that a configuration doesn't use has no value in it, which is unlike any value.
    """
    values = [config.canonical() for config in configs]
    return tuple(
        name for name in RunConfig.model_fields if any(one.get(name) != values[0].get(name) for one in values[1:])
    )


def legends(configs: Sequence[RunConfig], *, seeds: bool = True) -> tuple[str, ...]:
    """What each run is called in a legend: all that sets it apart from the others, as in `lr 0.1, Adam`.

    Different configurations have different names; where none differs, each is its `label`. With `seeds=False` a seed
    sets nothing apart: for groups of runs over seeds.
    """
    if not seeds:
        configs = [config.replace(seed=0) for config in configs]
    shown = [_PART_OF.get(name, name) for name in differing_fields(configs)]
    shown.sort(key=lambda name: name != "learning_rate")  # first, because it is what is varied most
    used = [config.canonical() for config in configs]
    # Adam against plain SGD: that the one has a momentum, of 0, and the other has none, says nothing more.
    idle = [name for name in _IDLE if {one[name] for one in used if name in one} == {_SPECS[name].default}]
    return tuple(
        ", ".join(_words(config, name) for name in dict.fromkeys(shown) if name in has and name not in idle)
        or config.label
        for config, has in zip(configs, used, strict=True)
    )


_SPECS = {spec.name: spec for spec in fields()}
_PART_OF = {"hidden": "architecture", "test_watch_steps": "test_watch"}
_IDLE = ("momentum", "nesterov")


def _words(config: RunConfig, name: str) -> str:
    """A field's value in a legend."""
    spec, value = _SPECS[name], getattr(config, name)
    if spec.kind == "choice":
        label = dict(zip(spec.choices, spec.labels, strict=True))[value]
    else:
        label = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    match name:
        case "learning_rate":
            return f"lr {label}"
        case "inputs":
            return f"pixels {label}"
        case "architecture":
            return label if value is Architecture.LINEAR else "MLP " + "-".join(map(str, config.hidden))
        case "output_sigmoid":
            return "output sigmoid" if value else "no output sigmoid"
        case "nesterov":
            return "Nesterov" if value else "no Nesterov"
        case "batch_size":
            return f"batch {label}"
        case "epochs":
            return "1 epoch" if value == 1 else f"{label} epochs"
        case "test_watch":
            every = f"every {config.test_watch_steps} steps"
            return f"tested {every if value is TestWatch.STEPS else label.lower()}"
    return label if spec.kind == "choice" else f"{spec.title.lower()} {label}"


# Test images ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class ErrorComparison:
    """Which test images two runs, A and B, get wrong. Indices are positions in the test set, ascending, int64."""

    only_a: NDArray[np.int64]
    """Only A is wrong."""
    only_b: NDArray[np.int64]
    both: NDArray[np.int64]
    """Both are wrong."""
    same: NDArray[np.int64]
    """Those of `both` that A and B read as the same class."""
    per_class: NDArray[np.int64]
    """Images by actual class, [4, c]; the rows are only_a, only_b, both and same."""
    neither: int
    """How many images both get right."""

    @property
    def p(self) -> float:
        """McNemar's exact p-value for A and B being equally good."""
        return mcnemar(len(self.only_a), len(self.only_b))


def compare_errors(a: Predictions, b: Predictions) -> ErrorComparison:
    """Sort the test images by which of two runs gets them wrong.

    Raises ValueError when the runs did not see the same images.
    """
    wrong_a, wrong_b = _wrong([a, b])
    both = wrong_a & wrong_b
    masks = (wrong_a & ~wrong_b, wrong_b & ~wrong_a, both, both & (a.predicted == b.predicted))
    classes = a.log_probabilities.shape[1]
    only_a, only_b, both_wrong, same = (np.flatnonzero(mask).astype(np.int64) for mask in masks)
    return ErrorComparison(
        only_a=only_a,
        only_b=only_b,
        both=both_wrong,
        same=same,
        per_class=np.stack([np.bincount(a.labels[mask], minlength=classes) for mask in masks]).astype(np.int64),
        neither=int(np.count_nonzero(~(wrong_a | wrong_b))),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """How often two equally good runs would differ by chance at least as much as this: a two-sided p-value, 0 to 1.

    Of the images that only one run gets wrong, each run has half on average, so that their number is binomial. From
    McNemar, Note on the sampling error of the difference between correlated proportions or percentages, Psychometrika
    12 (1947); the exact test, conditional on only_a + only_b, as in Fagerland, Lydersen and Laake, The McNemar test for
    binary matched-pairs data, BMC Medical Research Methodology 13 (2013). 1 where the runs never differ.

    It speaks of two trained models and images like these. Whether one *configuration* is better takes several seeds.

    Raises ValueError when a number is negative.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"numbers of images must not be negative; got {only_a} and {only_b}")
    return float(_mcnemar(np.int64(only_a), np.int64(only_b)))


def _mcnemar(only_a: Any, only_b: Any) -> Any:
    """`mcnemar` of numbers or of arrays."""
    from scipy.special import bdtr  # 0.1 s to load, which a page that compares nothing need not wait for

    return np.minimum(1.0, 2 * bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5))


@dataclass(frozen=True, eq=False, slots=True)
class Pairwise:
    """Every run against every other.

    better: int64 [k, k], how many images the row's run gets right that the column's gets wrong.
    p: float64 [k, k], McNemar's exact p-value, 1 on the diagonal. It stands for one pair: of twenty pairs of equally
    good runs, one lies below 5 % on average.
    """

    better: NDArray[np.int64]
    p: NDArray[np.float64]


def pairwise(predictions: Sequence[Predictions]) -> Pairwise:
    """Hold every run against every other, image by image.

    Raises ValueError without runs, or when they did not see the same images.
    """
    wrong = _wrong(predictions).astype(np.int64)
    better = (1 - wrong) @ wrong.T
    return Pairwise(better, _mcnemar(better.T, better))


def wrong_in_all(predictions: Sequence[Predictions]) -> NDArray[np.int64]:
    """Indices of the images that every run gets wrong, highest mean loss first: as `wrong_in_at_least`."""
    return wrong_in_at_least(predictions, len(predictions))


def wrong_in_at_least(predictions: Sequence[Predictions], count: int) -> NDArray[np.int64]:
    """Indices of the images that at least `count` runs get wrong, highest mean loss over all runs first, ties by index.

    Raises ValueError without runs, when they did not see the same images, or when `count` is not in 1 … k.
    """
    wrong = _wrong(predictions).sum(axis=0)
    if not 1 <= count <= len(predictions):
        raise ValueError(f"count must lie in 1 … {len(predictions)}; got {count}")
    indices = np.flatnonzero(wrong >= count)
    losses = np.mean([one.losses[indices] for one in predictions], axis=0, dtype=np.float64)
    return indices[np.argsort(-losses, kind="stable")].astype(np.int64)


def _wrong(predictions: Sequence[Predictions]) -> NDArray[np.bool_]:
    """Which run gets which image wrong, bool [k, n], once it is sure that all saw the same images."""
    if not predictions:
        raise ValueError("there must be at least one run to compare; got none")
    first = predictions[0]
    for one in predictions[1:]:
        if one.log_probabilities.shape != first.log_probabilities.shape:
            shapes = f"{first.log_probabilities.shape} and {one.log_probabilities.shape}"
            raise ValueError(f"runs must be compared on the same test images; got [n, c] = {shapes}")
        if not np.array_equal(one.labels, first.labels):
            raise ValueError("runs must be compared on the same test images; their labels differ")
    return np.stack([~one.correct for one in predictions])
