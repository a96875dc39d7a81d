"""Runs, recipes and verdicts as something to take away: as the JSON objects that scripts rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mnistlr_core.articles import Claimed, Recipe
from mnistlr_core.records import EpochRow, Run, best_epoch
from mnistlr_core.sentences import verdict_sentence
from mnistlr_core.verdicts import Assessment, Check

__all__ = ["assessment_as_dict", "recipe_as_dict", "run_as_dict"]


def run_as_dict(run: Run, history: Sequence[EpochRow], *, cached: bool = False) -> dict[str, Any]:
    """The command line's contract: JSON values only, and null for every figure that is absent.

    `best` is the epoch with the highest validation accuracy; without a validation share there is none. `config` holds
    every field, also those that this configuration does not use.
    """
    best = best_epoch(tuple(history))
    return {
        "id": run.id,
        "digest": run.digest,
        "state": run.state.value,
        "cached": cached,
        "config": run.config.model_dump(mode="json"),
        "history": [asdict(row) for row in history],
        "best": asdict(best) if best else None,
        "test": asdict(run.test) if run.test else None,
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "device": run.device,
        "attempts": run.attempts,
        "diverged_step": run.diverged_step,
        "error": run.error,
    }


def recipe_as_dict(recipe: Recipe) -> dict[str, Any]:
    """An article: its whole configuration, its claims, its variants' changes with the claims that they are held to."""
    return {
        "id": recipe.id,
        "title": recipe.title,
        "teaches": recipe.teaches,
        "config": recipe.config.model_dump(mode="json"),
        "claims": [_claim(claim) for claim in recipe.claims],
        "variants": [
            {"title": v.title, "changes": dict(v.changes), "claims": [_claim(claim) for claim in v.claims]}
            for v in recipe.variants
        ],
    }


def assessment_as_dict(assessment: Assessment) -> dict[str, Any]:
    """An article's verdict, and each claim's mean, spread (sample standard deviation) and n; null where unknown."""
    recipe = assessment.recipe
    return {
        "id": recipe.id,
        "verdict": assessment.verdict.value if assessment.verdict else None,
        "sentence": verdict_sentence(assessment),
        "seeds": [evidence.run.config.seed for evidence in assessment.runs[0]],
        "test_accuracy": [evidence.run.test.accuracy if evidence.run.test else None for evidence in assessment.runs[0]],
        "claims": [_check(check) for check in assessment.checks[0]],
        "variants": [
            {"title": variant.title, "changes": dict(variant.changes), "claims": [_check(check) for check in checks]}
            for variant, checks in zip(recipe.variants, assessment.checks[1:], strict=False)
        ],
    }


def _claim(claim: Claimed) -> dict[str, Any]:
    return {**asdict(claim), "relation": claim.relation.value}


def _check(check: Check) -> dict[str, Any]:
    found = asdict(check.measured) if check.measured else {"mean": None, "spread": None, "n": 0}
    return _claim(check.claim) | found | {"verdict": check.verdict.value if check.verdict else None}
