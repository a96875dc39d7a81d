"""A run as one plain PyTorch script, as a learner would write it after the tutorials, that ends where the run ended.

`script_template.txt` is that script with a margin. A line is in where the run has every trait that its margin names,
and none that it names with a minus; so the script holds what its run used, and nothing else.
"""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from pathlib import Path
from string import Template

from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import Inputs, Optimizer, RunConfig, TestWatch
from mnistlr_core.data import Split, split
from mnistlr_core.errors import RunError
from mnistlr_core.records import Run, RunState

__all__ = ["standalone_script"]

_TEMPLATE = Path(__file__).with_name("script_template.txt")
_WIDTH = 88  # what `ruff format` and `black` leave alone unless told otherwise

_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10"}
_OPTIMIZERS = {Optimizer.SGD: "SGD", Optimizer.ADAM: "Adam", Optimizer.ADAGRAD: "Adagrad"}

# What `data.split` and `fetch` draw by. Scripts that were taken away hold these numbers for good.
_SPLIT_SEED = "20_240_229"
_DIGITS_SEED = "1797"


def standalone_script(run: Run) -> str:
    """A program that repeats the run on the CPU with torch and torchvision alone, and compares what came of it.

    It sees the very same batches and initial weights; the rest differs by rounding only. It takes torchvision's root as
    `--data` and downloads what is missing there, prints each epoch, and last `expected 0.8246, got 0.8246`. Digits 8×8,
    which torchvision lacks, come from scikit-learn instead. A stopped run is repeated as far as it came, to the batch.

    Raises:
        RunError: the run has no test result, because it hasn't ended, failed or diverged.
    """
    if run.test is None or run.state not in (RunState.FINISHED, RunState.STOPPED):
        raise RunError(
            f"a script ends with the run's test accuracy, but run {run.id} is {run.state.value} and has none; "
            "choose a run that finished or was stopped"
        )
    config, info = run.config, DATASETS[run.config.dataset]
    rows = split(info.train_size, valid_fraction=config.valid_fraction, train_fraction=config.train_fraction)
    epochs, last_batches = _extent(run, len(rows.train))
    values = {
        "summary": _wrapped(f"Train on {_title(config)} as run {run.id} of mnistlr did: {config.label}.", first=3),
        "notes": _notes(run, epochs, last_batches),
        "dataset": _CLASSES.get(info.name, ""),
        "learning_rate": config.learning_rate,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "batch_size": config.batch_size,
        "epochs": epochs,
        "last_batches": last_batches,
        "valid_images": len(rows.valid),
        "train_images": len(rows.train),
        "look_steps": config.test_watch_steps,
        "seed": config.seed,
        "expected": f"{run.test.accuracy:.4f}",
        "test_size": info.test_size,
        "digits_seed": _DIGITS_SEED,
        "split_seed": _SPLIT_SEED,
        "pixels": info.pixels,
        "layers": "\n    ".join(_layers(config, pixels=info.pixels, classes=len(info.classes))),
        "optimizer": _OPTIMIZERS[config.optimizer],
    }
    return Template(_lines(_traits(config, rows, last_batches))).substitute(values)


def _traits(config: RunConfig, rows: Split, last_batches: int) -> frozenset[str]:
    """What the margin's names mean."""
    size = DATASETS[config.dataset].train_size
    digits, cifar, sgd = config.dataset == "digits", config.dataset == "cifar10", config.optimizer is Optimizer.SGD
    divided = len(rows.train) < size
    traits = {
        "digits": digits,
        "torchvision": not digits,
        "arrays": cifar,  # torchvision gives CIFAR-10 as arrays and lists, and the others as tensors
        "tensors": not (digits or cifar),
        "numpy": digits or divided,
        "split": divided,
        "valid": len(rows.valid) > 0,
        "subset": len(rows.train) + len(rows.valid) < size,
        "momentum": sgd and config.momentum > 0,
        "nesterov": sgd and config.momentum > 0 and config.nesterov,
        "decay": config.weight_decay > 0,
        "look-steps": config.test_watch is TestWatch.STEPS,
        "look-epoch": config.test_watch is TestWatch.EPOCH,
        "part-epoch": last_batches > 0,
    }
    return frozenset({name for name, holds in traits.items() if holds} | {config.inputs.value})


def _lines(traits: frozenset[str]) -> str:
    """The template's lines for a run of these traits, without their margin."""
    chosen = []
    for needs, refuses, line in _template():
        if needs <= traits and not refuses & traits:
            chosen.append(line)
    return "\n".join(chosen) + "\n"


@lru_cache(maxsize=1)
def _template() -> tuple[tuple[frozenset[str], frozenset[str], str], ...]:
    """Each line with the traits that it needs, and those that keep it out."""
    lines = []
    for line in _TEMPLATE.read_text(encoding="utf-8").splitlines():
        margin, _, code = line.partition("|")
        names = margin.split()
        refuses = frozenset(name.removeprefix("-") for name in names if name.startswith("-"))
        lines.append((frozenset(name for name in names if not name.startswith("-")), refuses, code.removeprefix(" ")))
    return tuple(lines)


def _extent(run: Run, train_images: int) -> tuple[int, int]:
    """(epochs, batches of the last one, or 0 where that one is whole), as far as the run came."""
    if run.state is RunState.FINISHED:
        return run.config.epochs, 0
    whole, rest = divmod(run.step, -(-train_images // run.config.batch_size))
    return whole + (rest > 0), rest


def _layers(config: RunConfig, *, pixels: int, classes: int) -> list[str]:
    lines = []
    for fan_in, fan_out in config.layer_sizes(pixels=pixels, classes=classes):
        lines += [f"nn.Linear({fan_in}, {fan_out}),", "nn.Sigmoid(),"]
    if not config.output_sigmoid:
        lines.pop()
    elif len(lines) == 2:
        lines[-1] += "  # squeezes the outputs into 0 to 1, which slows learning down"
    else:
        lines[-1] += "  # on the outputs too, which slows learning down"
    return lines


def _notes(run: Run, epochs: int, last_batches: int) -> str:
    """The docstring's paragraphs: what it needs, how far it goes, and how well its end can agree."""
    config, info = run.config, DATASETS[run.config.dataset]
    if info.name == "digits":
        needs = "Needs torch and scikit-learn, which brings these digits: torchvision has no such data set."
    else:
        needs = f"Needs torch and torchvision. --data FOLDER says where {_title(config)} is, or is downloaded to."
    torch = f"torch {_plain(run.versions['torch'])}" if "torch" in run.versions else "torch"
    where = f"{torch} on {_plain(run.device)}" if run.device else torch
    agrees = (
        f"The run was trained by {where}. This script starts from the same weights and sees the same batches; "
        "what differs is rounding, so that the last line's two numbers should agree, or nearly so."
    )
    if config.inputs is Inputs.RAW:
        agrees += " Raw pixels are so large that they magnify what rounding leaves: expect a few points between them."
    paragraphs = [needs, agrees]
    if run.state is RunState.STOPPED:
        plural = "" if last_batches == 1 else "es"
        batches = f", the last of them for {last_batches} batch{plural} only" if last_batches else ""
        paragraphs.append(f"It was stopped: of {config.epochs} epochs it trained {epochs}{batches}. So does this.")
    return "\n\n".join(map(_wrapped, paragraphs))


def _title(config: RunConfig) -> str:
    return DATASETS[config.dataset].title.replace("×", "x")  # ASCII survives any editor and any shell


def _wrapped(text: str, *, first: int = 0) -> str:
    """Lines of a docstring; the first of them begins `first` columns to the right."""
    return textwrap.fill(text, _WIDTH, initial_indent=" " * first, break_on_hyphens=False)[first:]


def _plain(text: str) -> str:
    """A name that was read from a machine, such as a GPU's, so that it can't end the docstring that it stands in."""
    return re.sub(r"[^\w .,:()@/+-]", "", text, flags=re.ASCII)[:60].strip()
