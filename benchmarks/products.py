"""The matrix products of a training step and nothing else: what an epoch costs before anything is learned from it.

No bias, no activation, no loss, no update. The images are read from an epoch's own float32 batches, not from one
batch over and over: training has to bring them from memory, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.digits import CLASSES, PIXELS, Digits
from benchmarks.measure import Outcome
from mnistlr_core.config import RunConfig
from mnistlr_core.models import initial_layers

__all__ = ["engine_layout", "tutorial_layout"]


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Where the products of a batch of n images go, layer by layer, first to last."""

    outputs: list[Tensor]
    deltas: list[Tensor]
    """Gradients by the outputs; the last one is given, the others are computed."""
    weight_grads: list[Tensor]


Step = Callable[[Tensor, Sequence[Tensor], _Buffers], None]


def engine_layout(config: RunConfig, digits: Digits) -> Outcome:
    """Outputs lie [out, n], as in `mnistlr_core.training`."""
    return _faster(config, digits, _engine_step, along_rows=False)


def tutorial_layout(config: RunConfig, digits: Digits) -> Outcome:
    """Outputs lie [n, out], as `nn.Linear` has them, forward and backward."""
    return _faster(config, digits, _tutorial_step, along_rows=True)


def _engine_step(images: Tensor, weights: Sequence[Tensor], to: _Buffers) -> None:
    inputs = [images.t(), *to.outputs[:-1]]  # [in, n] each
    for weight, below, output in zip(weights, inputs, to.outputs, strict=True):
        torch.mm(weight, below, out=output)
    for depth in reversed(range(len(weights))):
        torch.mm(to.deltas[depth], inputs[depth].t(), out=to.weight_grads[depth])
        if depth:
            torch.mm(weights[depth].t(), to.deltas[depth], out=to.deltas[depth - 1])


def _tutorial_step(images: Tensor, weights: Sequence[Tensor], to: _Buffers) -> None:
    inputs = [images, *to.outputs[:-1]]  # [n, in] each
    for weight, below, output in zip(weights, inputs, to.outputs, strict=True):
        torch.mm(below, weight.t(), out=output)
    for depth in reversed(range(len(weights))):
        torch.mm(to.deltas[depth].t(), inputs[depth], out=to.weight_grads[depth])
        if depth:
            torch.mm(to.deltas[depth], weights[depth], out=to.deltas[depth - 1])


@torch.no_grad()
def _faster(config: RunConfig, digits: Digits, step: Step, *, along_rows: bool) -> Outcome:
    """Go through the epochs with one thread and with all that torch has; the faster of the two counts."""
    sizes = config.layer_sizes(pixels=PIXELS, classes=CLASSES)
    weights = [weight for weight, _ in initial_layers(sizes, torch.Generator().manual_seed(config.seed))]
    batches = torch.from_numpy(digits.train_floats).split(config.batch_size)
    buffers = {count: _buffers(weights, count, along_rows=along_rows) for count in {len(batch) for batch in batches}}
    outcomes = []
    everyone = torch.get_num_threads()
    try:
        for threads in sorted({1, everyone}):
            torch.set_num_threads(threads)
            epochs = []
            for _ in range(config.epochs):
                started = perf_counter()
                for images in batches:
                    step(images, weights, buffers[len(images)])
                epochs.append(perf_counter() - started)
            outcomes.append(Outcome(tuple(epochs), accuracy=None, threads=threads))
    finally:
        torch.set_num_threads(everyone)
    return min(outcomes, key=lambda outcome: outcome.seconds)


def _buffers(weights: Sequence[Tensor], count: int, *, along_rows: bool) -> _Buffers:
    shapes = [(count, len(weight)) if along_rows else (len(weight), count) for weight in weights]
    # Random, so that no product is made of zeros or of numbers too small to be normal.
    return _Buffers(
        outputs=[torch.randn(shape) for shape in shapes],
        deltas=[torch.randn(shape) for shape in shapes],
        weight_grads=[torch.empty_like(weight) for weight in weights],
    )
