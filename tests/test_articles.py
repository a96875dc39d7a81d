"""The recipes are the articles', to the last value."""

from __future__ import annotations

from typing import Any

import pytest

from mnistlr_core import articles
from mnistlr_core.articles import RECIPES, article_configs, find_recipe, seeded, things_to_try
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.data import split
from mnistlr_core.errors import ConfigError
from mnistlr_core.estimate import steps_per_epoch

# Written from the articles, not from the recipes: every field that isn't a linear model's default.
TABLE: dict[str, dict[str, Any]] = {
    "towards-data-science": {
        "learning_rate": 0.001,
        "batch_size": 100,
        "epochs": 5,
        "valid_fraction": 0.0,
        "test_watch": "steps",
        "test_watch_steps": 500,
    },
    "sigmoid-mlp": {
        "architecture": "mlp",
        "hidden": [512, 128],
        "inputs": "symmetric-twice",
        "optimizer": "adam",
        "learning_rate": 0.001,
        "batch_size": 64,
        "epochs": 10,
        "valid_fraction": 0.0,
    },
    "zero-to-gans": {"learning_rate": 0.001, "batch_size": 100, "epochs": 25, "valid_fraction": 0.2},
    "sigmoid-output": {
        "output_sigmoid": True,
        "learning_rate": 0.001,
        "batch_size": 32,
        "epochs": 50,
        "valid_fraction": 0.0,
        "test_watch": "epoch",
    },
    "kaggle-raw-pixels": {
        "output_sigmoid": True,
        "inputs": "raw",
        "learning_rate": 0.001,
        "batch_size": 128,
        "epochs": 10,
        "valid_fraction": 0.2,
        "seed": 100,
    },
}
STEPS = {
    "towards-data-science": 600,
    "sigmoid-mlp": 938,
    "zero-to-gans": 480,
    "sigmoid-output": 1875,
    "kaggle-raw-pixels": 375,
}
RECIPE = pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))


def test_exactly_the_public_names_are_exported() -> None:
    assert articles.__all__ == [
        *("RECIPES", "SEEDS", "Claimed", "Recipe", "Relation", "Trial", "Variant"),
        *("article_configs", "find_recipe", "seeded", "things_to_try"),
    ]


def test_a_recipe_is_what_its_article_prints() -> None:
    assert {id: recipe.config for id, recipe in RECIPES.items()} == {
        id: parse_config(values) for id, values in TABLE.items()
    }


@RECIPE
def test_an_epoch_has_the_articles_steps(recipe: articles.Recipe) -> None:
    assert steps_per_epoch(recipe.config) == STEPS[recipe.id]


def test_3000_iterations_are_five_whole_epochs_and_looks_come_every_500() -> None:
    config = RECIPES["towards-data-science"].config
    assert config.epochs * steps_per_epoch(config) == 3000
    assert config.test_watch_steps == 500


def test_the_share_that_an_article_calls_its_test_is_held_out_of_the_training_images() -> None:
    config = RECIPES["kaggle-raw-pixels"].config
    rows = split(60_000, valid_fraction=config.valid_fraction, train_fraction=config.train_fraction)
    assert (len(rows.train), len(rows.valid)) == (48_000, 12_000)


@RECIPE
def test_claims_lie_within_the_training_and_are_of_what_the_recipe_measures(recipe: articles.Recipe) -> None:
    for number in range(1 + len(recipe.variants)):
        config = recipe.variant(number)
        for claim in recipe.variants[number - 1].claims if number else recipe.claims:
            assert 1 <= claim.epochs <= config.epochs
            assert claim.tolerance > 0
            assert claim.figure != "valid_accuracy" or config.valid_fraction > 0
            assert claim.figure != "test_accuracy" or claim.epochs == config.epochs


def test_the_articles_figures_are_quoted_as_they_are_compared() -> None:
    """A claim's words hold its number: nobody can correct one and forget the other."""
    for recipe in RECIPES.values():
        for claim in (*recipe.claims, *(claim for variant in recipe.variants for claim in variant.claims)):
            assert f"{claim.value:g}" in claim.words or f"{100 * claim.value:g} %" in claim.words


@RECIPE
def test_differences_name_what_was_changed_and_no_field_that_is_not_used(recipe: articles.Recipe) -> None:
    config = recipe.config
    assert recipe.differences(config) == ()
    assert recipe.differences(config.replace(seed=7, epochs=3)) == ("epochs", "seed")
    if config.architecture == "linear":
        assert recipe.differences(config.replace(hidden=(7,))) == ()
        assert "hidden" in recipe.differences(config.replace(architecture="mlp"))


@RECIPE
def test_each_thing_to_try_is_one_change_that_makes_another_run(recipe: articles.Recipe) -> None:
    trials = things_to_try(recipe)
    tried = [recipe.config.replace(**trial.changes) for trial in trials]
    assert len({config.digest for config in (recipe.config, *tried)}) == 1 + len(trials)
    assert [recipe.differences(config) for config in tried] == [tuple(trial.changes) for trial in trials]
    assert {name for trial in trials for name in trial.changes} == {
        *("valid_fraction", "learning_rate", "batch_size", "epochs", "train_fraction", "dataset")
    }


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
def test_all_that_the_articles_need_has_every_seed_of_every_variant_once(dataset: str) -> None:
    configs = article_configs(3, dataset)
    assert len({config.digest for config in configs}) == len(configs)
    assert {config.dataset for config in configs} == {dataset}
    for recipe in RECIPES.values():
        for number in range(1 + len(recipe.variants)):
            assert set(seeded(recipe.variant(number).replace(dataset=dataset), 3)) <= set(configs)
    # The first seed of every article comes before the second of any.
    first = len(configs) // 3
    assert len({config.replace(seed=0).digest for config in configs[:first]}) == first


def test_seeds_go_on_from_the_recipes_own() -> None:
    assert [config.seed for config in seeded(RECIPES["kaggle-raw-pixels"].config, 3)] == [100, 101, 102]
    assert seeded(RunConfig(), 1) == (RunConfig(),)


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    assert find_recipe("sigmoid-mlp") is RECIPES["sigmoid-mlp"]
    with pytest.raises(ConfigError, match="must be one of towards-data-science"):
        find_recipe("nope")


def test_every_recipe_fits_every_data_set() -> None:
    for dataset in DATASETS:
        assert all(config.dataset == dataset for config in article_configs(1, dataset))
