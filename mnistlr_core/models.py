"""From a configuration to layers: sizes, initial weights, a plain `torch.nn` module, and weights on disk.

The training engine works on stacked weight tensors; the module built here is the same model for everybody else
(prediction, export, a learner's own script), and its `state_dict` is the format in which weights are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mnistlr_core.config import RunConfig
from mnistlr_core.errors import ArtifactDamaged

__all__ = ["build", "initial_layers", "load_weights", "save_weights"]


def initial_layers(sizes: Sequence[tuple[int, int]], generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """(weight [out, in], bias [out]) per layer: the very numbers `nn.Linear` draws after `torch.manual_seed`.

    `nn.Linear` draws both from U(-1/sqrt(in), 1/sqrt(in)), the weight first.
    """
    layers = []
    for fan_in, fan_out in sizes:
        bound = 1 / math.sqrt(fan_in)
        weight = torch.empty(fan_out, fan_in).uniform_(-bound, bound, generator=generator)
        bias = torch.empty(fan_out).uniform_(-bound, bound, generator=generator)
        layers.append((weight, bias))
    return layers


def build(config: RunConfig, *, pixels: int, classes: int) -> nn.Sequential:
    """The model as a plain module: images [n, …] already scaled -> outputs [n, classes]."""
    modules: list[nn.Module] = [nn.Flatten()]
    sizes = config.layer_sizes(pixels=pixels, classes=classes)
    for depth, (fan_in, fan_out) in enumerate(sizes):
        modules.append(nn.Linear(fan_in, fan_out))
        if depth < len(sizes) - 1 or config.output_sigmoid:
            modules.append(nn.Sigmoid())
    return nn.Sequential(*modules)


def save_weights(layers: Sequence[tuple[Tensor, Tensor]]) -> bytes:
    """Layers as a safetensors file whose keys are those of `build(…).state_dict()`."""
    tensors = {}
    for depth, (weight, bias) in enumerate(layers):
        module = 1 + 2 * depth  # Flatten is 0, and a Sigmoid follows each layer but the last
        tensors[f"{module}.weight"] = weight.detach().cpu().contiguous()
        tensors[f"{module}.bias"] = bias.detach().cpu().contiguous()
    return save(tensors)


def load_weights(module: nn.Sequential, data: bytes) -> None:
    """Load weights written by `save_weights` into a module made by `build`.

    Raises:
        ArtifactDamaged: the bytes are not a safetensors file, or hold another model's layers.
    """
    try:
        tensors: Mapping[str, Tensor] = load(data)
        module.load_state_dict(dict(tensors))
    except Exception as error:
        raise ArtifactDamaged(
            f"these weights do not fit the model they are meant for ({error}); train it again"
        ) from error
