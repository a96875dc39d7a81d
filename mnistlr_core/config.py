"""What a run *is*: a frozen, closed, self-checking configuration, its canonical form and its digest.

Every field carries its limits, title, help and scale once; the form, the command line, the sweep ranges
and the documentation are all made from `fields()`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from mnistlr_core.errors import ConfigError, Problem

__all__ = [
    "CONFIG_VERSION",
    "NUMERICS_VERSION",
    "Architecture",
    "Inputs",
    "Optimizer",
    "RunConfig",
    "Spec",
    "TestWatch",
    "fields",
    "parse_config",
]

CONFIG_VERSION = 1
"""The layout of a stored configuration; `upgrade` brings older ones forward."""

NUMERICS_VERSION = 1
"""Part of every digest. Raise it whenever training gives other numbers for the same configuration."""


class Inputs(StrEnum):
    """How a pixel of 0..255 reaches the first layer."""

    UNIT = "unit"
    SYMMETRIC = "symmetric"
    SYMMETRIC_TWICE = "symmetric-twice"
    STANDARDISED = "standardised"
    RAW = "raw"


class Architecture(StrEnum):
    LINEAR = "linear"
    MLP = "mlp"


class Optimizer(StrEnum):
    SGD = "sgd"
    ADAM = "adam"
    ADAGRAD = "adagrad"


class TestWatch(StrEnum):
    """When the test set is looked at. It never steers anything: choices are made on validation."""

    END = "end"
    EPOCH = "epoch"
    STEPS = "steps"


DatasetName = Literal["mnist", "fashion-mnist", "kmnist", "cifar10", "digits"]


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that a form, a command line or a table needs to know of one configuration field."""

    name: str
    title: str
    help: str
    kind: Literal["choice", "integer", "number", "flag", "sizes"]
    default: Any
    minimum: float | None
    maximum: float | None
    scale: Literal["linear", "log"]
    choices: tuple[str, ...]
    labels: tuple[str, ...]
    """What the choices are called on a screen, in their order."""
    steps: tuple[float, ...]
    """Values worth offering at a click; any other value within the limits may be typed."""


def _spec(
    title: str,
    help: str,
    *,
    scale: str = "linear",
    labels: tuple[str, ...] = (),
    steps: tuple[float, ...] = (),
    **limits: Any,
) -> Any:
    return Field(
        title=title,
        description=help,
        json_schema_extra={"scale": scale, "labels": list(labels), "steps": list(steps)},
        **limits,
    )


def _sizes(value: object) -> object:
    """Accept `512, 128`, `512x128` or any sequence: forms, links and JSON each have their own spelling."""
    if isinstance(value, str):
        parts = value.replace("x", ",").replace(" ", ",").split(",")
        return tuple(int(p) if p.isascii() and p.isdigit() else p for p in parts if p)
    return tuple(value) if isinstance(value, list) else value


def _enumerated(kind: type[StrEnum]) -> BeforeValidator:
    """Strict mode wants members; links, JSON and the command line bring their values."""

    def member(value: object) -> object:
        return kind(value) if isinstance(value, str) and value in set(kind) else value

    return BeforeValidator(member)


HiddenSizes = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], BeforeValidator(_sizes)]


class RunConfig(BaseModel):
    """One training run, complete. Two equal configurations are the same run.

    Raises `ConfigError` through `parse_config`; constructing it directly raises pydantic's `ValidationError`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, ignored_types=(cached_property,)
    )

    dataset: DatasetName = _spec(
        "Data set",
        "The images to learn from. MNIST is 70,000 handwritten digits of 28×28 pixels.",
        default="mnist",
        labels=("MNIST", "Fashion-MNIST", "KMNIST", "CIFAR-10", "Digits 8×8"),
    )
    inputs: Annotated[Inputs, _enumerated(Inputs)] = _spec(
        "Pixel scaling",
        "How a pixel of 0–255 is scaled before the first layer sees it.",
        default=Inputs.UNIT,
        labels=("[0, 1]", "[-1, 1]", "[-3, 1]", "mean 0, std 1", "raw 0–255"),
    )
    architecture: Annotated[Architecture, _enumerated(Architecture)] = _spec(
        "Model",
        "Linear is logistic regression: one layer, ten outputs. The MLP puts layers of sigmoid units in between.",
        default=Architecture.LINEAR,
        labels=("Linear", "Sigmoid MLP"),
    )
    hidden: HiddenSizes = _spec(
        "Hidden layers",
        "Units in each hidden layer of the MLP, first to last, for example 512, 128.",
        default=(512, 128),
        min_length=1,
        max_length=4,
    )
    output_sigmoid: bool = _spec(
        "Sigmoid on the output",
        "Squash the ten outputs into 0–1 before the cross entropy, as two of the tutorials do. It slows learning down.",
        default=False,
    )
    optimizer: Annotated[Optimizer, _enumerated(Optimizer)] = _spec(
        "Optimizer",
        "How a gradient becomes a step. Adam and Adagrad give each weight a step size of its own.",
        default=Optimizer.SGD,
        labels=("SGD", "Adam", "Adagrad"),
    )
    learning_rate: float = _spec(
        "Learning rate",
        "How far each step goes. Too small learns slowly, too large never settles. Try 0.03 for SGD, 0.001 for Adam.",
        default=0.03,
        ge=1e-7,
        le=100.0,
        scale="log",
        steps=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    )
    momentum: float = _spec(
        "Momentum",
        "How much of the last step is carried into the next one (SGD only).",
        default=0.0,
        ge=0.0,
        le=0.999,
        steps=(0.0, 0.5, 0.8, 0.9, 0.95, 0.99),
    )
    nesterov: bool = _spec(
        "Nesterov",
        "Look ahead along the momentum before taking the gradient (SGD with momentum only).",
        default=False,
    )
    weight_decay: float = _spec(
        "Weight decay",
        "Pulls every weight towards zero at each step (L2).",
        default=0.0,
        ge=0.0,
        le=10.0,
        scale="log",
        steps=(0.0, 1e-5, 1e-4, 1e-3, 0.01, 0.1),
    )
    batch_size: int = _spec(
        "Batch size",
        "Images per step. Small batches take more, noisier steps per epoch.",
        default=100,
        ge=1,
        le=60_000,
        scale="log",
        steps=(16, 32, 64, 100, 128, 256, 512, 1024),
    )
    epochs: int = _spec(
        "Epochs",
        "How often the training images are gone through.",
        default=5,
        ge=1,
        le=1000,
        scale="log",
        steps=(1, 2, 3, 5, 10, 20, 50, 100),
    )
    valid_fraction: float = _spec(
        "Validation share",
        "The share of the training images held out to choose by. 0 trains on all of them.",
        default=0.1,
        ge=0.0,
        le=0.9,
        steps=(0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
    )
    train_fraction: float = _spec(
        "Training share",
        "The share of the remaining training images that is used: how much does more data help?",
        default=1.0,
        ge=0.001,
        le=1.0,
        scale="log",
        steps=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    )
    test_watch: Annotated[TestWatch, _enumerated(TestWatch)] = _spec(
        "Watch the test set",
        "When the test images are scored besides at the end. Watching changes nothing in the training.",
        default=TestWatch.END,
        labels=("At the end", "Every epoch", "Every n steps"),
    )
    test_watch_steps: int = _spec(
        "Steps between looks",
        "With 'every n steps': how many.",
        default=500,
        ge=1,
        le=1_000_000,
        scale="log",
    )
    seed: int = _spec(
        "Seed",
        "Fixes the initial weights and the order of the batches. The validation images do not depend on it.",
        default=0,
        ge=0,
        le=2**31 - 1,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_overflow(cls, value: object) -> object:
        """An integer too large for a float must be a problem in words, not an OverflowError."""
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**63:
            raise ValueError("a number of at most 19 digits")
        return value

    @field_validator("learning_rate", "momentum", "weight_decay", "valid_fraction", "train_fraction")
    @classmethod
    def _no_negative_zero(cls, value: float) -> float:
        return value + 0.0  # -0.0 + 0.0 is 0.0: one spelling of zero, one digest

    def canonical(self) -> dict[str, Any]:
        """The fields that decide what is computed, as JSON values, in a fixed order.

        A field that this configuration does not use (momentum with Adam, hidden sizes of a linear model) is left
        out, so that it can't make two equal runs look different.
        """
        unused: set[str] = set()
        if self.architecture is Architecture.LINEAR:
            unused.add("hidden")
        if self.optimizer is not Optimizer.SGD:
            unused |= {"momentum", "nesterov"}
        elif self.momentum == 0:
            unused.add("nesterov")
        if self.test_watch is not TestWatch.STEPS:
            unused.add("test_watch_steps")
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in unused}

    @cached_property
    def digest(self) -> str:
        """sha256, as 64 hex digits, of the canonical configuration and the engine's numerics version."""
        text = json.dumps([NUMERICS_VERSION, self.canonical()], sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def short_id(self) -> str:
        """The first twelve digits of the digest: what a run is called in links and on the command line."""
        return self.digest[:12]

    @property
    def family(self) -> str:
        """What runs that differ only in their seeds have in common: the id of the one whose seed is 0."""
        return self.replace(seed=0).short_id

    @property
    def label(self) -> str:
        """A name for people: `Linear, SGD, lr 0.03, batch 100`."""
        model = "Linear" if self.architecture is Architecture.LINEAR else "MLP " + "-".join(map(str, self.hidden))
        optimizer = {"sgd": "SGD", "adam": "Adam", "adagrad": "Adagrad"}[self.optimizer]
        return f"{model}, {optimizer}, lr {self.learning_rate:g}, batch {self.batch_size}"

    def layer_sizes(self, *, pixels: int, classes: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each fully connected layer, first to last."""
        hidden = self.hidden if self.architecture is Architecture.MLP else ()
        return tuple(itertools.pairwise((pixels, *hidden, classes)))

    def replace(self, **changes: Any) -> Self:
        """A changed copy, checked anew (pydantic's `model_copy(update=…)` would not check)."""
        return type(self).model_validate(self.model_dump() | changes)

    def stored(self) -> str:
        """The form that the store keeps: canonical, with its layout's version."""
        return json.dumps({"config_version": CONFIG_VERSION, **self.canonical()}, sort_keys=True, allow_nan=False)


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Check `values` (from a form, a link, a file or a command line) and return the configuration.

    Numbers may come as text. Absent fields take their defaults; `config_version` may be there and is brought forward.

    Raises:
        ConfigError: with one `Problem` for every rule that is broken, all at once.
    """
    values = upgrade(values)
    readable = {str(k): _from_text(str(k), v) for k, v in values.items()}
    try:
        return RunConfig.model_validate(readable)
    except ValidationError as error:
        raise ConfigError(tuple(_problems(error, values))) from None


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a stored configuration of an older layout forward; today's is returned without its version."""
    values = dict(values)
    version = values.pop("config_version", CONFIG_VERSION)
    if version != CONFIG_VERSION:
        rule = f"must be {CONFIG_VERSION}, the layout this program reads; a newer program wrote it, so update mnistlr"
        raise ConfigError((Problem("config_version", rule, _shown(version)),))
    return values


def fields() -> tuple[Spec, ...]:
    """One `Spec` per configuration field, in the order of the form."""
    return tuple(_to_spec(name, info) for name, info in RunConfig.model_fields.items())


def _to_spec(name: str, info: FieldInfo) -> Spec:
    extra = typing.cast(dict[str, Any], info.json_schema_extra)
    limits = {k: getattr(m, k) for m in info.metadata for k in ("ge", "le") if hasattr(m, k)}
    kind: Literal["choice", "integer", "number", "flag", "sizes"]
    choices: tuple[str, ...] = ()
    if typing.get_origin(info.annotation) is Literal:
        kind, choices = "choice", typing.get_args(info.annotation)
    elif isinstance(info.annotation, type) and issubclass(info.annotation, StrEnum):
        kind, choices = "choice", tuple(member.value for member in info.annotation)
    elif isinstance(info.annotation, types.GenericAlias):
        kind = "sizes"
    else:
        kind = {bool: "flag", int: "integer", float: "number"}[typing.cast(type, info.annotation)]  # type: ignore[assignment]
    default = info.default.value if isinstance(info.default, StrEnum) else info.default
    return Spec(
        name=name,
        title=info.title or name,
        help=info.description or "",
        kind=kind,
        default=default,
        minimum=limits.get("ge"),
        maximum=limits.get("le"),
        scale=extra["scale"],
        choices=choices,
        labels=tuple(extra["labels"]) or choices,
        steps=tuple(extra["steps"]),
    )


def _from_text(name: str, value: object) -> object:
    """Read a number or a flag that came as text; anything unreadable is left for the rules to refuse."""
    info = RunConfig.model_fields.get(name)
    if info is None or not isinstance(value, str):
        if info is not None and info.annotation is int and isinstance(value, float) and value.is_integer():
            return int(value)  # JSON writers may spell 5 as 5.0
        return value
    text = value.strip()
    if not text.isascii():
        return value
    try:
        if info.annotation is bool:
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}.get(
                text.lower(), value
            )
        if info.annotation is int:
            number = float(text)
            return int(text) if text.lstrip("+-").isdigit() else int(number) if number.is_integer() else number
        if info.annotation is float:
            number = float(text)
            return number if math.isfinite(number) else value
    except (ValueError, OverflowError):
        pass
    return value


def _problems(error: ValidationError, values: Mapping[str, Any]) -> Iterator[Problem]:
    specs = {spec.name: spec for spec in fields()}
    told: set[str] = set()  # several sizes of `hidden` may be wrong: its rule is said once
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else "config"
        if name not in told:
            told.add(name)
            yield Problem(name, _rule(specs.get(name)), _shown(values.get(name, item.get("input"))))


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "…"


def _rule(spec: Spec | None) -> str:
    if spec is None:
        return "is not a field of a configuration; leave it out"
    match spec.kind:
        case "choice":
            return f"must be one of {', '.join(spec.choices)}"
        case "flag":
            return "must be true or false"
        case "sizes":
            return "must be one to four whole numbers from 1 to 4096, for example 512, 128"
        case "integer":
            return f"must be a whole number from {spec.minimum:,g} to {spec.maximum:,.0f}"
        case "number":
            return f"must be a number from {spec.minimum:g} to {spec.maximum:g}"
