"""Train a cohort of runs that see the same batches; a single run is a cohort of one.

`Cohort.fit` is a generator: it trains, yields frozen progress values, and leaves logging, checkpoints and stopping to
the `for` loop around it. Between two values the cohort may be evaluated, or its state taken for a checkpoint.

Weights are stacked [members, out, in]; the first layer of all members is one matrix product, since they share the
batch; the others are batched products. Gradients are written in closed form, which spares autograd's bookkeeping:
as much again as the arithmetic, for a linear model. Images stay uint8 on the device and are gathered and converted a
block of batches at a time; the device is asked for numbers once a block, never once a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnistlr_core.batches import Block, Gatherer, ImageSet, read_blocks
from mnistlr_core.config import RunConfig, TestWatch
from mnistlr_core.errors import EngineUnavailable
from mnistlr_core.models import initial_layers
from mnistlr_core.optimizers import MemberOptimizer
from mnistlr_core.scaling import affine

__all__ = [
    "EXPLODED",
    "Cohort",
    "Diverged",
    "EpochDone",
    "Progress",
    "Score",
    "Steps",
    "TrainingData",
    "choose_device",
    "device_name",
    "most_likely",
    "scores",
]

EXPLODED = 1e6
"""A mean batch loss above this (in nats; guessing costs ln 10 = 2.3) counts as diverged. Raw pixels with a large
learning rate pass through losses of thousands and come back, so the bound lies well above."""

_BLOCK_IMAGES = 2048
"""Images gathered and converted together: 6 MB of floats, which stay in the cache while their batches are used. Half as
many cost a linear epoch 5 % more in calls, twice as many no longer fit."""

_BLOCK_FLOPS = 2e10
"""A bound on a block's arithmetic (a fifth of a second on two cores), so that a large model still stops promptly."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All that a cohort reads. `train_rows` and `valid_rows` are int64 rows of `train`, on the device."""

    train: ImageSet
    test: ImageSet
    train_rows: Tensor
    valid_rows: Tensor
    classes: int
    pixel_mean: float
    pixel_std: float

    @property
    def pixels(self) -> int:
        return self.train.images.shape[1]


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross entropy in nats and the share of images read correctly."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Steps:
    """Some optimizer steps were done. `losses` is float32 [members, steps]: each batch's mean loss before its step."""

    epoch: int
    """The epoch they belong to, from 1."""
    first_step: int
    """The number of the first of them, from 1 and counted over all epochs."""
    losses: NDArray[np.float32]
    images: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """A member's loss became NaN, infinite or larger than `EXPLODED` at `step`; it is frozen from there on."""

    member: int
    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch ended. `train` is the mean over its batches as they were met; `valid` is scored after it, or None."""

    epoch: int
    step: int
    train: tuple[Score, ...]
    valid: tuple[Score, ...] | None


Progress = Steps | Diverged | EpochDone


class Cohort:
    """Models in training: weights, optimizer state, the batch order's generator, and how far they have come.

    Args:
        configs: the members. They must share everything but optimizer, learning rate, momentum, Nesterov and
            weight decay.
        data: where their images are; everything is computed on its device.

    Raises:
        ValueError: the members do not see the same batches.
    """

    def __init__(self, configs: Sequence[RunConfig], data: TrainingData) -> None:
        shared = {_shared(config) for config in configs}
        if len(shared) != 1:
            raise ValueError(f"members of a cohort must share data, model, batches and seed; got {len(shared)} kinds")
        self.configs = tuple(configs)
        self.data = data
        self.epoch = 0
        self.step = 0
        self.diverged: dict[int, int] = {}
        self._config = config = configs[0]
        self._device = data.train.images.device
        self._scaling = affine(config.inputs, mean=data.pixel_mean, std=data.pixel_std)
        # The generator lives on the CPU: the same seed gives the same weights and batches on every device.
        self._generator = torch.Generator().manual_seed(config.seed)
        members = len(configs)
        self._sizes = sizes = config.layer_sizes(pixels=data.pixels, classes=data.classes)
        start = initial_layers(sizes, self._generator)
        # Every weight and bias lies in one tensor, and every gradient in another: layer by layer, the weights of all
        # members [members, out, in], then their biases [members, out].
        stacked = [t.expand(members, *t.shape).reshape(-1) for layer in start for t in layer]
        self._parameters = torch.cat(stacked).to(self._device)
        self._all_gradients = torch.zeros_like(self._parameters)
        self._weights, self._biases = _layer_views(self._parameters, sizes, members)
        self._weight_grads, self._bias_grads = _layer_views(self._all_gradients, sizes, members)
        # The first layer of all members as one matrix [members × out, in].
        self._first_weight = self._weights[0].view(-1, data.pixels)
        self._first_bias = self._biases[0].view(-1, 1)
        self._first_grad = self._weight_grads[0].view(-1, data.pixels)
        self._optimizers = [
            MemberOptimizer(member, self._member_views(k, self._parameters), self._member_views(k, self._all_gradients))
            for k, member in enumerate(configs)
        ]
        self._gather = Gatherer(self._scaling)  # for scoring; training has its own
        parameters = sum(o * i + o for i, o in sizes)
        fit_images = min(_BLOCK_IMAGES, int(_BLOCK_FLOPS / (6 * parameters * members)))
        self._block_batches = max(1, fit_images // config.batch_size)

    def _member_views(self, member: int, tensor: Tensor) -> list[Tensor]:
        """A member's part of all parameters or gradients: the whole tensor where it is alone, else layer by layer."""
        if len(self.configs) == 1:
            return [tensor]  # one optimizer kernel instead of six: a tenth of an MLP's epoch
        weights, biases = _layer_views(tensor, self._sizes, len(self.configs))
        return [views[member] for views in (*weights, *biases)]

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.data.train_rows) // self._config.batch_size)

    @torch.no_grad()
    def fit(self) -> Iterator[Progress]:
        """Train on from `epoch` to the configured number of epochs, yielding progress about every thousand images.

        An epoch gives `Steps` values, each followed by a `Diverged` for every member that did, then `EpochDone`.
        Where the configuration watches the test set every n steps, a `Steps` ends at each multiple of n, so that the
        loop around can look. It ends early when every member has diverged.
        """
        while self.epoch < self._config.epochs:
            rows = self.data.train_rows
            order = rows[torch.randperm(len(rows), generator=self._generator).to(self._device)]
            loss_sum = np.zeros(len(self.configs))
            correct = np.zeros(len(self.configs), dtype=np.int64)
            for block in self._blocks(order):
                first = self.step + 1
                losses, block_correct = self._train_block(block)
                images = block.images.shape[0]
                weights = np.full(losses.shape[1], self._config.batch_size)
                weights[-1] = images - weights[:-1].sum()  # an epoch's last batch may be smaller
                loss_sum += losses @ weights
                correct += block_correct
                yield Steps(self.epoch + 1, first, losses, images)
                yield from self._newly_diverged(first, losses)
                if len(self.diverged) == len(self.configs):
                    return
            self.epoch += 1
            train = tuple(
                Score(float(loss / len(rows)), int(hits) / len(rows))
                for loss, hits in zip(loss_sum, correct, strict=True)
            )
            valid = self.score(self.data.train, self.data.valid_rows) if len(self.data.valid_rows) else None
            yield EpochDone(self.epoch, self.step, train, valid)

    def _blocks(self, order: Tensor) -> Iterator[Block]:
        config = self._config
        rows = self._block_rows(order)
        return read_blocks(
            self.data.train, rows, scaling=self._scaling, batch_size=config.batch_size, classes=self.data.classes
        )

    def _block_rows(self, order: Tensor) -> Iterator[Tensor]:
        """Cut an epoch's rows into whole batches; where the test set is watched every n steps, a block ends there."""
        batch, watched, step = self._config.batch_size, self._config.test_watch is TestWatch.STEPS, self.step
        while order.shape[0]:
            batches = self._block_batches
            if watched:
                batches = min(batches, self._config.test_watch_steps - step % self._config.test_watch_steps)
            yield order[: batches * batch]
            order = order[batches * batch :]
            step += batches

    def _train_block(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One optimizer step per batch. Returns losses [members, steps] and correct answers [members]."""
        batch, members, whole = self._config.batch_size, len(self.configs), block.whole
        active = [optimizer for k, optimizer in enumerate(self._optimizers) if k not in self.diverged]
        outcomes = []
        for images, pull in zip(block.images.split(batch), block.pull.split(batch, 1), strict=True):
            outcomes.append(self._gradients(images, pull))
            for optimizer in active:
                optimizer.step()
        self.step += len(outcomes)
        log_probabilities = torch.cat(outcomes, 2)
        image_losses = -(log_probabilities * block.targets).sum(1)
        losses = image_losses[:, :whole].view(members, -1, batch).mean(-1)
        if whole < image_losses.shape[1]:
            losses = torch.cat([losses, image_losses[:, whole:].mean(-1, keepdim=True)], dim=1)
        correct = (most_likely(log_probabilities) == block.labels).sum(-1)
        return losses.cpu().numpy(), correct.cpu().numpy()

    def _gradients(self, images: Tensor, pull: Tensor) -> Tensor:
        """Fill the gradient tensors for one batch of n; return its log-probabilities [members, classes, n].

        Cross entropy on softmax has the gradient (p - y) / n, of which `pull` is -y / n; a sigmoid's is h (1 - h).
        """
        activations, outputs = self._forward(images)
        log_probabilities = torch.log_softmax(outputs, 1)
        delta = torch.add(pull, log_probabilities.exp(), alpha=1 / images.shape[0])
        if self._config.output_sigmoid:
            delta.mul_(outputs).mul_(1 - outputs)
        for depth in range(len(self._weights) - 1, 0, -1):
            below = activations[depth - 1]
            torch.bmm(delta, below.mT, out=self._weight_grads[depth])
            torch.sum(delta, 2, out=self._bias_grads[depth])
            delta = torch.bmm(self._weights[depth].mT, delta).mul_(below).mul_(1 - below)
        torch.sum(delta, 2, out=self._bias_grads[0])
        torch.mm(delta.view(-1, images.shape[0]), images, out=self._first_grad)
        return log_probabilities

    def _forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images [n, pixels] -> hidden activations, each [members, units, n], and outputs [members, classes, n].

        The batch lies along the last axis: the members of the first layer then stand one under the other in a single
        product, and softmax over the classes runs along whole vectors (six times faster for ten classes).
        """
        members = len(self.configs)
        activations: list[Tensor] = []
        outputs = torch.addmm(self._first_bias, self._first_weight, images.t()).view(members, -1, images.shape[0])
        for weight, bias in zip(self._weights[1:], self._biases[1:], strict=True):
            activations.append(outputs.sigmoid_())
            outputs = torch.baddbmm(bias.unsqueeze(2), weight, activations[-1])
        return activations, outputs.sigmoid_() if self._config.output_sigmoid else outputs

    def _newly_diverged(self, first: int, losses: NDArray[np.float32]) -> Iterator[Diverged]:
        exploded = ~(losses < EXPLODED)  # NaN compares false, so it counts
        for member in np.flatnonzero(exploded.any(axis=1)):
            if int(member) not in self.diverged:
                at = int(exploded[member].argmax())
                self.diverged[int(member)] = first + at
                yield Diverged(int(member), first + at, float(losses[member, at]))

    @torch.no_grad()
    def log_probabilities(self, images: ImageSet, rows: Tensor | None = None) -> Tensor:
        """Log-softmax of the outputs, float32 [members, classes, n], on the device; all images, or those of `rows`."""
        count = len(images.labels) if rows is None else len(rows)
        parts = []
        for start in range(0, count, _BLOCK_IMAGES):
            stop = min(start + _BLOCK_IMAGES, count)
            part = slice(start, stop)
            scaled = self._gather(images.images[part]) if rows is None else self._gather(images.images, rows[part])
            parts.append(torch.log_softmax(self._forward(scaled)[1], 1))
        return torch.cat(parts, dim=2)

    @torch.no_grad()
    def score(self, images: ImageSet, rows: Tensor | None = None) -> tuple[Score, ...]:
        """Loss and accuracy of every member on all images, or those of `rows`."""
        labels = images.labels if rows is None else images.labels.index_select(0, rows)
        return scores(self.log_probabilities(images, rows), labels)

    def layers(self, member: int) -> list[tuple[Tensor, Tensor]]:
        """A member's (weight [out, in], bias [out]) per layer: views, for saving at once."""
        return [(w[member], b[member]) for w, b in zip(self._weights, self._biases, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """Everything that `fit` needs to go on as if never interrupted, as tensors on the CPU, by name.

        Taken at an epoch's end. Diverged members need nothing: a run that diverged is over.
        """
        tensors = {
            "generator": self._generator.get_state(),
            "progress": torch.tensor([self.epoch, self.step]),
            "parameters": self._parameters,
        }
        for k, optimizer in enumerate(self._optimizers):
            tensors |= {f"optimizer.{k}.{name}": tensor for name, tensor in optimizer.state().items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to where `state` was taken.

        Raises:
            KeyError, RuntimeError: the tensors are of another model.
        """
        for name, tensor in self.state().items():
            if tensors[name].shape != tensor.shape:  # checked first: half a state would train on from a wrong epoch
                raise RuntimeError(f"{name} has the shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}")
        self._generator.set_state(tensors["generator"])
        self.epoch, self.step = (int(number) for number in tensors["progress"])
        self._parameters.copy_(tensors["parameters"])
        for k, optimizer in enumerate(self._optimizers):
            prefix = f"optimizer.{k}."
            optimizer.load_state({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})


def _layer_views(tensor: Tensor, sizes: Sequence[tuple[int, int]], members: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights [members, out, in] and biases [members, out] of each layer, as views of one flat tensor."""
    weights, biases = [], []
    for fan_in, fan_out in sizes:
        counts = [members * fan_out * fan_in, members * fan_out]
        weight, bias, tensor = tensor.split([*counts, tensor.numel() - sum(counts)])
        weights.append(weight.view(members, fan_out, fan_in))
        biases.append(bias.view(members, fan_out))
    return weights, biases


def scores(log_probabilities: Tensor, labels: Tensor) -> tuple[Score, ...]:
    """Loss and accuracy per member, from log-probabilities [members, classes, n] and labels [n]."""
    members, _, count = log_probabilities.shape
    picked = log_probabilities.gather(1, labels.expand(members, 1, count))
    losses = (-picked.double().mean((1, 2))).tolist()
    hits = (most_likely(log_probabilities) == labels).sum(-1).tolist()
    return tuple(Score(loss, hit / count) for loss, hit in zip(losses, hits, strict=True))


def most_likely(log_probabilities: Tensor) -> Tensor:
    """The likeliest class [members, n] of log-probabilities [members, classes, n]; the lowest one of a tie.

    Turned first: torch's argmax along the last axis is three times faster, the copy included.
    """
    return log_probabilities.mT.contiguous().argmax(-1)


def _shared(config: RunConfig) -> tuple[object, ...]:
    own = {"optimizer", "learning_rate", "momentum", "nesterov", "weight_decay"}
    return tuple(str(value) for name, value in config.canonical().items() if name not in own)


def choose_device(wanted: str = "auto") -> torch.device:
    """`auto` is CUDA where there is a GPU, else Apple's MPS, else the CPU; any other text is torch's own spelling.

    Raises:
        EngineUnavailable: torch knows no such device.
    """
    if wanted != "auto":
        try:
            return torch.device(wanted)
        except RuntimeError:
            raise EngineUnavailable(f"MNISTLR_DEVICE must be auto, cpu, cuda, cuda:1 or mps; got {wanted!r}") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What to call the device on a screen: the GPU's own name, or the CPU with its number of threads."""
    match device.type:
        case "cuda":
            return str(torch.cuda.get_device_name(device))
        case "mps":
            return "Apple GPU (MPS)"
        case _:
            threads = torch.get_num_threads()
            return f"CPU, {threads} thread{'s' if threads != 1 else ''}"
