"""The five tutorials that this grew out of: what each trains, what it claims, and what it teaches.

An article's figures stand here as it gives them. What we say of them is computed from runs, in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.errors import ConfigError, Problem

__all__ = [
    "RECIPES",
    "SEEDS",
    "Claimed",
    "Recipe",
    "Relation",
    "Trial",
    "Variant",
    "article_configs",
    "find_recipe",
    "seeded",
    "things_to_try",
]

Figure = Literal["train_loss", "train_accuracy", "valid_accuracy", "test_accuracy"]
"""A column of a run's history. A held-out share that an article calls its test is our validation."""

SEEDS = 3
"""Runs behind a verdict unless more are wanted: with fewer, little can be said of the spread."""


class Relation(StrEnum):
    """What an article says of its figure."""

    ABOUT = "about"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Claimed:
    """One figure that an article gives: a loss in nats or an accuracy in 0..1, after `epochs` epochs."""

    words: str
    """As the article puts it."""
    figure: Figure
    epochs: int
    value: float
    tolerance: float
    """By how much a mean may miss the figure and still count as it: what its rounding and one seed's luck allow."""
    relation: Relation = Relation.ABOUT


@dataclass(frozen=True, slots=True)
class Variant:
    """The recipe with a change, held against some of the article's claims."""

    title: str
    """Continues "with …"."""
    changes: Mapping[str, Any]
    claims: tuple[Claimed, ...]
    reason: str
    """Why the change matters: said where the verdicts with and without it differ."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One of the things that the articles tell their readers to try."""

    title: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One article's hyperparameters, claims and lesson."""

    id: str
    title: str
    config: RunConfig
    claims: tuple[Claimed, ...]
    teaches: str
    variants: tuple[Variant, ...] = ()

    def variant(self, number: int) -> RunConfig:
        """The configuration of a variant; 0 is the article's own, as printed."""
        return self.config.replace(**self.variants[number - 1].changes) if number else self.config

    def differences(self, config: RunConfig) -> tuple[str, ...]:
        """The names of the fields in which `config` is not as printed, of those that it uses."""
        printed = self.config.canonical()
        return tuple(name for name, value in config.canonical().items() if printed.get(name) != value)


# The recipes ---------------------------------------------------------------------------------------------------------

_WHOLE_PERCENT = 0.015  # "82 %", of one seed: the rounding is half a point, and seeds differ by about one
_TWO_DECIMALS = 0.005  # "97.88 %", of one seed
_LOSS = 0.01

_REACHED_BY_MLP = Claimed("97.88 % test accuracy", "test_accuracy", 10, 0.9788, _TWO_DECIMALS)
_CANNOT_PASS = Claimed(
    "cannot pass 90 % validation accuracy", "valid_accuracy", 25, 0.90, _TWO_DECIMALS, Relation.BELOW
)


def _per_epoch(epoch: int, train_loss: float, train_accuracy: float, held_out: float) -> tuple[Claimed, ...]:
    return (
        Claimed(f"epoch {epoch}: training loss {train_loss}", "train_loss", epoch, train_loss, _LOSS),
        Claimed(
            f"epoch {epoch}: training accuracy {train_accuracy}",
            "train_accuracy",
            epoch,
            train_accuracy,
            _TWO_DECIMALS,
        ),
        Claimed(f"epoch {epoch}: held-out accuracy {held_out}", "valid_accuracy", epoch, held_out, _TWO_DECIMALS),
    )


_ALL = (
    Recipe(
        "towards-data-science",
        "3,000 steps of SGD",
        parse_config(
            {"learning_rate": 0.001, "batch_size": 100, "epochs": 5, "valid_fraction": 0.0}
            | {"test_watch": "steps", "test_watch_steps": 500}
        ),
        (Claimed("82 % test accuracy after 3,000 iterations", "test_accuracy", 5, 0.82, _WHOLE_PERCENT),),
        "The smallest thing that learns: one layer, plain stochastic gradient descent, and a look at the test images "
        "every 500 steps. The loss falls so evenly, and is so far from flat at the end, because the steps are short: "
        "a slow curve says more about the learning rate than about the model.",
    ),
    Recipe(
        "sigmoid-mlp",
        "A sigmoid MLP with Adam",
        parse_config(
            {"architecture": "mlp", "hidden": (512, 128), "inputs": "symmetric-twice", "optimizer": "adam"}
            | {"learning_rate": 0.001, "batch_size": 64, "epochs": 10, "valid_fraction": 0.0}
        ),
        (_REACHED_BY_MLP,),
        "Two hidden layers of sigmoid units. The images are normalised twice, once in the transform and once more in "
        "the loop, so that an empty pixel comes in as -3 instead of -1: a line that looks harmless, prints no error, "
        "and costs more accuracy than most hyperparameters do. Compare what goes into a model before what is in it.",
        (
            Variant(
                "plain pixels/255",
                {"inputs": "unit"},
                (_REACHED_BY_MLP,),
                "Inputs in [-3, 1] drive the first sigmoids to their flat ends, where hardly any gradient passes; "
                "pixels in [0, 1] leave them where they learn.",
            ),
        ),
    ),
    Recipe(
        "zero-to-gans",
        "A validation set",
        parse_config({"learning_rate": 0.001, "batch_size": 100, "epochs": 25, "valid_fraction": 0.2}),
        (
            Claimed(
                "more than 80 % validation accuracy after 5 epochs",
                "valid_accuracy",
                5,
                0.80,
                _WHOLE_PERCENT,
                Relation.ABOVE,
            ),
            Claimed("about 85 % with more epochs", "valid_accuracy", 25, 0.85, _WHOLE_PERCENT),
            _CANNOT_PASS,
        ),
        "A fifth of the training images is set aside, and every epoch is judged by images that it did not learn from; "
        "the test images are looked at once, at the end. That is the habit to take away: choose on validation, report "
        "on test.",
        (
            Variant(
                "a learning rate of 0.1",
                {"learning_rate": 0.1},
                (_CANNOT_PASS,),
                "The ceiling that the article meets is its learning rate's, not the linear model's.",
            ),
        ),
    ),
    Recipe(
        "sigmoid-output",
        "Squashed outputs",
        parse_config(
            {"learning_rate": 0.001, "batch_size": 32, "epochs": 50, "valid_fraction": 0.0}
            | {"output_sigmoid": True, "test_watch": "epoch"}
        ),
        (),
        "The outputs go through a sigmoid before a cross entropy that expects logits. Each lies between 0 and 1 then, "
        "so even a perfect answer keeps a large loss, and gradients shrink on their way through: it learns, but takes "
        "50 epochs for what logits reach in a few. The article gives no figure; the curve is the lesson.",
    ),
    Recipe(
        "kaggle-raw-pixels",
        "Raw pixels",
        parse_config(
            {"learning_rate": 0.001, "batch_size": 128, "epochs": 10, "valid_fraction": 0.2, "seed": 100}
            | {"inputs": "raw", "output_sigmoid": True}
        ),
        (
            *_per_epoch(1, 1.9397, 0.4356, 0.5978),
            *_per_epoch(2, 1.7721, 0.6471, 0.6691),
            *_per_epoch(3, 1.7439, 0.6828, 0.6875),
        ),
        "Pixels of 0 to 255 go in as they are, and a sigmoid comes out. Inputs two hundred times too large push most "
        "outputs to 0 or 1 at once, and which of the ten classes can still learn depends on the first random weights: "
        "one run's figures say little here, and only several seeds show it. What the article calls its test is a fifth "
        "of the training images.",
    ),
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.id: recipe for recipe in _ALL})


def find_recipe(id: str) -> Recipe:
    """The recipe of this id. Raises ConfigError for one that is not among RECIPES."""
    if id not in RECIPES:
        raise ConfigError((Problem("recipe", f"must be one of {', '.join(RECIPES)}", repr(id[:80])),))
    return RECIPES[id]


def seeded(config: RunConfig, seeds: int) -> tuple[RunConfig, ...]:
    """The configuration under `seeds` seeds: its own and those after it."""
    return tuple(config.replace(seed=config.seed + k) for k in range(seeds))


def article_configs(seeds: int, dataset: str = "mnist") -> tuple[RunConfig, ...]:
    """All that the articles need, as printed and with their variants: every article's first seed, then the second, …"""
    return tuple(
        seeded(recipe.variant(number).replace(dataset=dataset), seeds)[k]
        for k in range(seeds)
        for recipe in RECIPES.values()
        for number in range(1 + len(recipe.variants))
    )


def things_to_try(recipe: Recipe) -> tuple[Trial, ...]:
    """What the articles tell their readers to try, as changes of this recipe."""
    config = recipe.config
    none_held_out = config.valid_fraction == 0
    return (
        Trial(
            "Training against validation" if none_held_out else "A larger validation set",
            {"valid_fraction": 0.2 if none_held_out else 0.5},
        ),
        Trial("Ten times the learning rate", {"learning_rate": config.learning_rate * 10}),
        Trial("Half the batch size", {"batch_size": config.batch_size // 2}),
        Trial("Twice the epochs", {"epochs": config.epochs * 2}),
        Trial("A hundredth of the images", {"train_fraction": 0.01}),
        Trial("Another data set: CIFAR-10", {"dataset": "cifar10"}),
    )
