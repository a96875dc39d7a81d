"""Each optimizer is torch.optim's own, on a member's part of the cohort's tensors."""

from __future__ import annotations

from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from mnistlr_core.config import Optimizer, RunConfig, parse_config
from mnistlr_core.optimizers import MemberOptimizer

pytestmark = pytest.mark.usefixtures("torch_threads")

SHAPES = ((10, 784), (10,), (37, 5), (1,))

STEPS = 25

KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "sgd, weight decay": {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.05},
    "sgd, momentum": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    "sgd, momentum, weight decay": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.5, "weight_decay": 0.05},
    "sgd, nesterov": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    "sgd, nesterov, weight decay": {
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.8,
        "nesterov": True,
        "weight_decay": 0.05,
    },
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adam, weight decay": {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
    "adagrad": {"optimizer": "adagrad", "learning_rate": 0.1},
    "adagrad, weight decay": {"optimizer": "adagrad", "learning_rate": 0.1, "weight_decay": 0.1},
}

each_kind = pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)


@each_kind
def test_every_step_is_torch_optims(values: dict[str, Any]) -> None:
    params, grads, optimizer = member(values)
    reference = [p.clone().requires_grad_() for p in params]
    theirs = torch_optimizer(parse_config(values), reference)
    for step in range(STEPS):
        fill(grads, step)
        for param, grad in zip(reference, grads, strict=True):
            param.grad = grad.clone()
        optimizer.step()
        theirs.step()
        for ours, expected in zip(params, reference, strict=True):
            torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-6)


@each_kind
def test_a_weight_whose_gradient_is_always_zero_moves_only_by_weight_decay(values: dict[str, Any]) -> None:
    params, grads, optimizer = member(values)
    before = params[0][:, :100].clone()
    for step in range(3):
        fill(grads, step)
        grads[0][:, :100] = 0
        optimizer.step()
    assert torch.equal(params[0][:, :100], before) == ("weight_decay" not in values)
    assert not torch.isnan(params[0]).any()


@each_kind
def test_from_its_state_it_goes_on_to_the_last_bit(values: dict[str, Any]) -> None:
    params, grads, optimizer = member(values)
    for step in range(5):
        fill(grads, step)
        optimizer.step()
    stored = safetensors.torch.save(optimizer.state())
    weights = [param.clone() for param in params]
    for step in range(5, 10):
        fill(grads, step)
        optimizer.step()

    again, again_grads, resumed = member(values)
    for param, weight in zip(again, weights, strict=True):
        param.copy_(weight)
    resumed.load_state(safetensors.torch.load(stored))
    for step in range(5, 10):
        fill(again_grads, step)
        resumed.step()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, params, strict=True))
    assert resumed.state().keys() == optimizer.state().keys()
    assert all(torch.equal(resumed.state()[name], tensor) for name, tensor in optimizer.state().items())


@each_kind
def test_a_state_without_one_of_its_tensors_is_refused(values: dict[str, Any]) -> None:
    _, _, optimizer = member(values)
    for name in optimizer.state():
        with pytest.raises(KeyError):
            optimizer.load_state({k: v for k, v in optimizer.state().items() if k != name})


@each_kind
def test_a_members_step_touches_no_neighbour(values: dict[str, Any]) -> None:
    alone, alone_grads, optimizer = member(values)
    stacked = [torch.stack([torch.full_like(p, 7), p, torch.full_like(p, float("nan"))]) for p in alone]
    stacked_grads = [torch.full_like(p, 3) for p in stacked]
    among = MemberOptimizer(parse_config(values), [p[1] for p in stacked], [g[1] for g in stacked_grads])
    for step in range(3):
        fill(alone_grads, step)
        fill([g[1] for g in stacked_grads], step)
        optimizer.step()
        among.step()
    for ours, whole, grad in zip(alone, stacked, stacked_grads, strict=True):
        torch.testing.assert_close(whole[1], ours, rtol=1e-6, atol=1e-7)
        assert (whole[0] == 7).all()
        assert whole[2].isnan().all()
        assert (grad[::2] == 3).all()


def member(values: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], MemberOptimizer]:
    generator = torch.Generator().manual_seed(5)
    params = [torch.randn(shape, generator=generator) for shape in SHAPES]
    grads = [torch.zeros(shape) for shape in SHAPES]
    return params, grads, MemberOptimizer(parse_config(values), params, grads)


def fill(grads: list[Tensor], step: int) -> None:
    """Gradients of this step: of very different sizes, as those of a real model are."""
    generator = torch.Generator().manual_seed(step)
    for depth, grad in enumerate(grads):
        grad.copy_(torch.randn(grad.shape, generator=generator) * 10.0 ** (-depth))


def torch_optimizer(config: RunConfig, params: list[Tensor]) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    match config.optimizer:
        case Optimizer.SGD:
            return torch.optim.SGD(
                params, lr=rate, weight_decay=decay, momentum=config.momentum, nesterov=config.nesterov
            )
        case Optimizer.ADAM:
            return torch.optim.Adam(params, lr=rate, weight_decay=decay)
        case Optimizer.ADAGRAD:
            return torch.optim.Adagrad(params, lr=rate, weight_decay=decay)
