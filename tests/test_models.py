"""From a configuration to layers: the scalings, the initial weights, and the module that everybody else uses."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnistlr_core import models
from mnistlr_core.batches import ImageSet
from mnistlr_core.config import Inputs, RunConfig, parse_config
from mnistlr_core.errors import ArtifactDamaged
from mnistlr_core.models import build, initial_layers, load_weights, save_weights
from mnistlr_core.scaling import affine
from mnistlr_core.training import Cohort, TrainingData

pytestmark = pytest.mark.usefixtures("torch_threads")

PIXELS = torch.arange(256, dtype=torch.uint8)

MODELS = {
    "linear": {},
    "linear, sigmoid on the output": {"output_sigmoid": True},
    "one hidden layer": {"architecture": "mlp", "hidden": [9]},
    "three hidden layers": {"architecture": "mlp", "hidden": [9, 5, 7]},
    "two hidden layers, sigmoid on the output": {"architecture": "mlp", "hidden": [9, 5], "output_sigmoid": True},
}


def test_exactly_the_public_names_are_exported() -> None:
    assert models.__all__ == ["build", "initial_layers", "load_weights", "save_weights"]


def to_tensor(pixels: Tensor) -> Tensor:
    """torchvision's ToTensor."""
    return pixels.float().div(255)


def normalize(images: Tensor, mean: float, std: float) -> Tensor:
    """torchvision's Normalize."""
    return images.sub(mean).div(std)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (Inputs.UNIT, to_tensor(PIXELS)),
        (Inputs.SYMMETRIC, normalize(to_tensor(PIXELS), 0.5, 0.5)),
        (Inputs.SYMMETRIC_TWICE, (normalize(to_tensor(PIXELS), 0.5, 0.5) - 0.5) * 2),
        (Inputs.STANDARDISED, normalize(to_tensor(PIXELS), 0.1307, 0.3081)),
        (Inputs.RAW, PIXELS.float()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_scaling_is_torchvisions(inputs: Inputs, expected: Tensor) -> None:
    scaling = affine(inputs, mean=0.1307, std=0.3081)
    torch.testing.assert_close(PIXELS.float() * scaling.scale + scaling.shift, expected, rtol=0, atol=1e-6)


def test_the_scalings_reach_the_ends_that_they_are_named_for() -> None:
    ends = {inputs: [p * affine(inputs, mean=0.2, std=0.4).scale for p in (0, 255)] for inputs in Inputs}
    shifts = {inputs: affine(inputs, mean=0.2, std=0.4).shift for inputs in Inputs}
    scaled = {inputs: tuple(round(end + shifts[inputs], 12) for end in ends[inputs]) for inputs in Inputs}
    assert scaled == {
        Inputs.UNIT: (0, 1),
        Inputs.SYMMETRIC: (-1, 1),
        Inputs.SYMMETRIC_TWICE: (-3, 1),
        Inputs.STANDARDISED: (-0.5, 2),
        Inputs.RAW: (0, 255),
    }


@pytest.mark.parametrize("sizes", [[(784, 10)], [(784, 512), (512, 128), (128, 10)], [(3, 1), (1, 1), (1, 7)]])
def test_initial_layers_are_what_linear_layers_draw_after_manual_seed(sizes: list[tuple[int, int]]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        expected = [(layer.weight, layer.bias) for layer in (nn.Linear(*size) for size in sizes)]
        next_drawn = torch.rand(3)
    generator = torch.Generator().manual_seed(11)
    layers = initial_layers(sizes, generator)
    for (weight, bias), (expected_weight, expected_bias) in zip(layers, expected, strict=True):
        assert torch.equal(weight, expected_weight)
        assert torch.equal(bias, expected_bias)
    assert torch.equal(torch.rand(3, generator=generator), next_drawn)


@pytest.mark.parametrize("values", MODELS.values(), ids=MODELS)
def test_the_module_and_the_cohort_answer_alike(values: dict[str, object]) -> None:
    config = parse_config({**values, "inputs": "symmetric", "epochs": 2, "batch_size": 16, "learning_rate": 0.5})
    cohort, module = Cohort([config], made_up()), build(config, pixels=48, classes=10)
    for _ in cohort.fit():
        pass
    load_weights(module, save_weights(cohort.layers(0)))
    images = made_up().test.images
    with torch.no_grad():
        answer = torch.log_softmax(module(normalize(to_tensor(images.view(-1, 4, 4, 3)), 0.5, 0.5)), dim=1)
    torch.testing.assert_close(cohort.log_probabilities(made_up().test)[0].mT, answer, rtol=1e-5, atol=1e-5)
    assert answer.shape == (len(images), 10)


@pytest.mark.parametrize("values", MODELS.values(), ids=MODELS)
def test_saved_weights_are_loaded_bit_for_bit(values: dict[str, object]) -> None:
    layers = some_layers(parse_config(values))
    module = build(parse_config(values), pixels=48, classes=10)
    load_weights(module, save_weights(layers))
    loaded = [(layer.weight, layer.bias) for layer in module if isinstance(layer, nn.Linear)]
    for (weight, bias), (expected_weight, expected_bias) in zip(loaded, layers, strict=True):
        assert torch.equal(weight, expected_weight)
        assert torch.equal(bias, expected_bias)


def test_a_member_of_a_cohort_is_saved_alone() -> None:
    config = parse_config({"epochs": 1})
    configs = [config.replace(learning_rate=rate) for rate in (0.1, 0.5, 0.9)]
    cohort = Cohort(configs, made_up())
    for _ in cohort.fit():
        pass
    module = build(config, pixels=48, classes=10)
    load_weights(module, save_weights(cohort.layers(1)))
    assert torch.equal(module.state_dict()["1.weight"], cohort.layers(1)[0][0])
    assert len(save_weights(cohort.layers(1))) < 2 * 4 * 490


def test_damaged_weights_are_refused() -> None:
    config = parse_config({"architecture": "mlp", "hidden": [9, 5]})
    module = build(config, pixels=48, classes=10)
    data = save_weights(some_layers(config))
    damaged = [b"", b"\0", data[:7], data[:100], data[:-1], data[8:], data + b"\0", b"\xff" * 8 + data[8:], b"{" + data]
    for each in damaged:
        with pytest.raises(ArtifactDamaged, match="train it again"):
            load_weights(module, each)


def test_weights_of_another_model_are_refused() -> None:
    module = build(parse_config({"architecture": "mlp", "hidden": [9, 5]}), pixels=48, classes=10)
    for other in ({}, {"architecture": "mlp", "hidden": [9]}, {"architecture": "mlp", "hidden": [5, 9]}):
        with pytest.raises(ArtifactDamaged, match="do not fit"):
            load_weights(module, save_weights(some_layers(parse_config(other))))


class Trap:
    """An object whose pickle, once read, says so."""

    read = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Trap, "read", True)


@pytest.mark.parametrize("protocol", [0, 2, 5, "torch.save"])
def test_pickles_are_refused_and_never_read(protocol: int | str) -> None:
    buffer = io.BytesIO()
    if isinstance(protocol, int):
        pickle.dump({"1.weight": torch.zeros(10, 48), "1.bias": torch.zeros(10), "trap": Trap()}, buffer, protocol)
    else:
        torch.save({"1.weight": torch.zeros(10, 48), "1.bias": torch.zeros(10), "trap": Trap()}, buffer)
    with pytest.raises(ArtifactDamaged):
        load_weights(build(parse_config({}), pixels=48, classes=10), buffer.getvalue())
    assert not Trap.read


def some_layers(config: RunConfig) -> list[tuple[Tensor, Tensor]]:
    return initial_layers(config.layer_sizes(pixels=48, classes=10), torch.Generator().manual_seed(3))


def made_up() -> TrainingData:
    """100 images of 4×4×3 random pixels."""
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (100, 48), dtype=np.uint8))
    labels = torch.from_numpy(random.integers(0, 10, 100))
    whole = ImageSet(images, labels)
    return TrainingData(whole, whole, torch.arange(80), torch.arange(80, 100), 10, 0.5, 0.29)
