"""The command line: the same lab as the dashboard's, for scripts and terminals.

Exit codes: 0 finished, 1 failed, 2 bad input (one line per problem), 3 diverged, 4 stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from time import monotonic, sleep

from tqdm import tqdm

from mnistlr_core import cli_runs
from mnistlr_core.articles import RECIPES, SEEDS, article_configs, find_recipe
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import Spec, fields, parse_config
from mnistlr_core.data import DatasetState
from mnistlr_core.doctor import examine
from mnistlr_core.errors import ConfigError, MnistlrError
from mnistlr_core.export import assessment_as_dict, recipe_as_dict, run_as_dict
from mnistlr_core.lab import Lab
from mnistlr_core.records import Outcome, RunState
from mnistlr_core.terminal import (
    POLL_SECONDS,
    Interrupts,
    json_option,
    print_assessment,
    print_json,
    print_run,
    watch,
    watch_all,
)
from mnistlr_core.verdicts import assess

__all__ = ["main"]

_EXIT = {RunState.FINISHED: 0, RunState.FAILED: 1, RunState.DIVERGED: 3, RunState.STOPPED: 4}


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ConfigError as error:
        print("\n".join(map(str, error.problems)), file=sys.stderr)
        return 2
    except MnistlrError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # a file of the user's: not there, or not to be written
        print(f"{error.filename or 'file'}: {error.strerror}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mnistlr_core", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a configuration, or show its stored answer")
    for spec in fields():
        train.add_argument(f"--{spec.name.replace('_', '-')}", dest=spec.name, help=_help(spec), metavar=_metavar(spec))
    train.add_argument("--recipe", metavar="ID", help="start from an article's values; see `recipes`")
    json_option(train)
    train.set_defaults(command=_train)

    recipes = commands.add_parser("recipes", help="list the articles' recipes with their claims")
    json_option(recipes)
    recipes.set_defaults(command=_recipes)

    articles = commands.add_parser("articles", help="train what is missing of the articles, and check their claims")
    articles.add_argument("--seeds", type=int, choices=range(1, 101), default=SEEDS, metavar="N", help="(default 3)")
    articles.add_argument("--dataset", choices=list(DATASETS), default="mnist", help="claims are about mnist only")
    json_option(articles)
    articles.set_defaults(command=_articles)

    cli_runs.add_commands(commands)

    data = commands.add_parser("data", help="which data sets are here, and fetching them")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    kinds.add_parser("status", help="say which data sets are here").set_defaults(command=_data_status)
    fetch = kinds.add_parser("fetch", help="make a data set ready, downloading it where needed")
    fetch.add_argument("name", choices=list(DATASETS))
    fetch.set_defaults(command=_data_fetch)

    doctor = commands.add_parser("doctor", help="check the store, the data sets and the training engine")
    doctor.set_defaults(command=_doctor)
    return parser


def _help(spec: Spec) -> str:
    default = ", ".join(map(str, spec.default)) if isinstance(spec.default, tuple) else spec.default
    # argparse formats help with %, so a literal one is doubled
    return f"{spec.help} (default {str(default).lower() if spec.kind == 'flag' else default})".replace("%", "%%")


def _metavar(spec: Spec) -> str:
    match spec.kind:
        case "choice":
            return "|".join(spec.choices)
        case "flag":
            return "true|false"
        case "sizes":
            return "N[,N...]"
        case _:
            return "N" if spec.kind == "integer" else "X"


def _train(options: argparse.Namespace) -> int:
    given = {spec.name: value for spec in fields() if (value := getattr(options, spec.name)) is not None}
    if options.recipe is not None:
        given = find_recipe(options.recipe).config.model_dump(mode="json") | given
    config = parse_config(given)
    with closing(Lab()) as lab, Interrupts() as interrupts:
        submission = lab.submit(config)
        run = watch(lab, submission.run_id, config, interrupts)
        cached = submission.outcome is Outcome.CACHED
        if options.json:
            print_json(run_as_dict(run, lab.history(run.id), cached=cached))
        else:
            print_run(lab, run, cached=cached)
    return _EXIT[run.state]


def _recipes(options: argparse.Namespace) -> int:
    if options.json:
        print_json({"recipes": [recipe_as_dict(recipe) for recipe in RECIPES.values()]})
        return 0
    for recipe in RECIPES.values():
        print(f"{recipe.id:22} {recipe.config.label}, {recipe.config.epochs} epochs")
        for claim in recipe.claims:
            print(f"{'':22} {claim.words}")
    return 0


def _articles(options: argparse.Namespace) -> int:
    """Train every article's seeds that are missing, side by side with whatever else is asked for, and check claims."""
    configs = article_configs(options.seeds, options.dataset)
    with closing(Lab()) as lab, Interrupts() as interrupts:
        started = monotonic()
        outcomes = [lab.submit(config).outcome for config in configs]
        runs = watch_all(lab, configs, interrupts)
        seconds = monotonic() - started
    found = [assess(recipe, runs, seeds=options.seeds, dataset=options.dataset) for recipe in RECIPES.values()]
    if options.json:
        trained = sum(outcome is not Outcome.CACHED for outcome in outcomes)
        print_json(
            {"seeds": options.seeds, "dataset": options.dataset, "trained": trained, "seconds": seconds}
            | {"articles": [assessment_as_dict(assessment) for assessment in found]}
        )
    else:
        for assessment in found:
            print_assessment(assessment)
    states = {evidence.run.state for evidence in runs.values()}
    return next(
        (_EXIT[state] for state in (RunState.FAILED, RunState.STOPPED, RunState.DIVERGED) if state in states), 0
    )


def _data_status(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        for status in lab.dataset_statuses():
            print(f"{status.name:14} {status.state:9} {status.message}")
            if status.warning:
                print(f"{'':14} warning   {status.warning}")
    return 0


def _data_fetch(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        started = monotonic()
        lab.fetch(options.name)
        with tqdm(total=100, unit="%", desc=options.name, file=sys.stderr) as bar:
            while True:
                sleep(POLL_SECONDS)
                status = lab.dataset_status(options.name)
                bar.update(round(100 * (status.fraction or 0)) - bar.n)
                over = status.state is DatasetState.READY or not lab.fetching(options.name)
                if over and monotonic() - started > 2 * POLL_SECONDS:
                    break
    status = lab.dataset_status(options.name)
    print(status.message)
    return 0 if status.state is DatasetState.READY else 1


def _doctor(options: argparse.Namespace) -> int:
    with closing(Lab()) as lab:
        findings = examine(lab)
        for finding in findings:
            print(f"{'ok  ' if finding.well else 'BAD '} {finding.what}: {finding.words}")
    return 0 if all(finding.well for finding in findings) else 1
