"""Training gives a plain PyTorch loop's numbers, the same every time, alone or in company, at once or resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import sklearn.metrics
import torch
from torch import Tensor, nn
from torch.nn import functional

from mnistlr_core import fetch, training
from mnistlr_core.batches import ImageSet
from mnistlr_core.config import Optimizer, RunConfig, parse_config
from mnistlr_core.data import Dataset, load, split
from mnistlr_core.training import (
    EXPLODED,
    Cohort,
    Diverged,
    EpochDone,
    Progress,
    Score,
    Steps,
    TrainingData,
    choose_device,
    device_name,
    scores,
)

pytestmark = pytest.mark.usefixtures("torch_threads")

PIXELS = 20

MODELS: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear, sigmoid on the output": {"output_sigmoid": True},
    "one hidden layer": {"architecture": "mlp", "hidden": [12]},
    "two hidden layers, sigmoid on the output": {"architecture": "mlp", "hidden": [12, 8], "output_sigmoid": True},
    "three hidden layers": {"architecture": "mlp", "hidden": [12, 8, 9]},
}

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.3},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.8, "nesterov": True},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
    "adam, weight decay": {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.01},
    "adagrad": {"optimizer": "adagrad", "learning_rate": 0.05},
    "adagrad, weight decay": {"optimizer": "adagrad", "learning_rate": 0.05, "weight_decay": 0.01},
}

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)

Layers = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def small() -> TrainingData:
    """300 made-up images of 20 pixels: 210 to train on, 40 held out, 50 unused; 60 to test."""
    random = np.random.default_rng(1)
    centres = random.integers(0, 256, (10, PIXELS))

    def images(count: int) -> ImageSet:
        labels = random.integers(0, 10, count)
        pixels = np.clip(centres[labels] + random.normal(0, 60, (count, PIXELS)), 0, 255).astype(np.uint8)
        return ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels))

    train, test = images(300), images(60)
    rows = torch.from_numpy(random.permutation(300))
    return TrainingData(train, test, rows[:210].sort().values, rows[210:250].sort().values, 10, 0.5, 0.3)


# Gradients


@each_model
@pytest.mark.parametrize("inputs", ["unit", "symmetric-twice"])
def test_a_step_follows_the_gradient_that_autograd_finds(
    small: TrainingData, model: dict[str, Any], inputs: str
) -> None:
    config = parse_config({**model, "inputs": inputs, "learning_rate": 1.0, "batch_size": 1000, "epochs": 3})
    assert_steps_follow_autograd([config], small)


@each_model
def test_each_member_of_a_cohort_follows_its_own_gradient(small: TrainingData, model: dict[str, Any]) -> None:
    config = parse_config({**model, "batch_size": 1000, "epochs": 3})
    assert_steps_follow_autograd([config.replace(learning_rate=rate) for rate in (0.5, 2.0, 8.0)], small)


def assert_steps_follow_autograd(configs: Sequence[RunConfig], data: TrainingData) -> None:
    """Every epoch is one plain SGD step on all rows: the weights move by the rate times the gradient."""
    cohort = Cohort(configs, data)
    images, labels = data.train.images[data.train_rows], data.train.labels[data.train_rows]
    before = [copied(cohort.layers(k)) for k in range(len(configs))]
    for _ in epochs(cohort.fit()):
        after = [copied(cohort.layers(k)) for k in range(len(configs))]
        for config, old, new in zip(configs, before, after, strict=True):
            exact = [t.double().requires_grad_() for layer in old for t in layer]
            loss = functional.cross_entropy(forward(config, exact, images), labels)
            gradients = torch.autograd.grad(loss, exact)
            moved = [
                (a - b) / config.learning_rate for x, y in zip(old, new, strict=True) for a, b in zip(x, y, strict=True)
            ]
            for ours, expected in zip(moved, gradients, strict=True):
                torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)
        before = after


# Against a plain loop


@pytest.mark.parametrize(
    "values",
    [
        {**OPTIMIZERS["sgd"], "batch_size": 100},
        {**OPTIMIZERS["momentum"], "inputs": "symmetric", "batch_size": 21},
        {**OPTIMIZERS["nesterov"], **MODELS["one hidden layer"], "inputs": "standardised"},
        {**OPTIMIZERS["adam"], **MODELS["three hidden layers"], "inputs": "symmetric-twice"},
        {**OPTIMIZERS["adam, weight decay"], **MODELS["linear, sigmoid on the output"]},
        {**OPTIMIZERS["adagrad"], **MODELS["two hidden layers, sigmoid on the output"]},
        {**OPTIMIZERS["adagrad, weight decay"], "inputs": "symmetric", "batch_size": 1},
        {**OPTIMIZERS["sgd"], "inputs": "raw", "learning_rate": 1e-4, "output_sigmoid": True},
        {**OPTIMIZERS["sgd"], "batch_size": 60_000},
    ],
    ids=lambda values: f"{values['optimizer']} {values.get('inputs', 'unit')} {values.get('batch_size', 32)}",
)
def test_a_run_gives_the_numbers_of_a_plain_loop(small: TrainingData, values: dict[str, Any]) -> None:
    config = parse_config({"batch_size": 32, "epochs": 4, "seed": 5, **values})
    cohort = Cohort([config], small)
    ours = history(cohort)
    plain = PlainLoop(config, small)
    assert_histories_close(ours, plain)
    for (weight, bias), layer in zip(cohort.layers(0), plain.linears, strict=True):
        torch.testing.assert_close(weight, layer.weight.detach(), rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(bias, layer.bias.detach(), rtol=1e-3, atol=2e-4)


@each_optimizer
def test_real_digits_are_learned_as_by_a_plain_loop(digits: Path, optimizer: dict[str, Any]) -> None:
    config = parse_config({"dataset": "digits", "batch_size": 64, "epochs": 3, **optimizer})
    data = training_data(load("digits", digits), config)
    cohort = Cohort([config], data)
    ours = history(cohort)
    plain = PlainLoop(config, data)
    assert_histories_close(ours, plain)
    assert cohort.score(data.test)[0].accuracy == pytest.approx(plain.score(data.test).accuracy, abs=0.01)
    assert cohort.score(data.test)[0].accuracy > 0.8


def assert_histories_close(ours: list[Progress], plain: PlainLoop) -> None:
    np.testing.assert_allclose(step_losses(ours)[0], plain.losses, rtol=1e-3, atol=1e-4)
    for done, expected in zip(epochs(ours), plain.epochs, strict=True):
        assert (done.epoch, done.step) == (expected.epoch, expected.step)
        assert done.valid is not None
        assert expected.valid is not None
        for (score,), (wanted,) in ((done.train, expected.train), (done.valid, expected.valid)):
            assert score.loss == pytest.approx(wanted.loss, rel=1e-3, abs=1e-4)
            assert score.accuracy == pytest.approx(wanted.accuracy, abs=0.0101)


def test_the_mean_of_an_epoch_weighs_every_image_the_same(small: TrainingData) -> None:
    config = parse_config({"batch_size": 64, "learning_rate": 1e-7, "epochs": 1, "inputs": "symmetric-twice"})
    cohort = Cohort([config], small)  # at this rate nothing moves, so the epoch's mean is the score of all its images
    (steps, done) = history(cohort)
    assert isinstance(steps, Steps)
    assert isinstance(done, EpochDone)
    (exact,) = cohort.score(small.train, small.train_rows)
    assert done.train[0].loss == pytest.approx(exact.loss, abs=1e-5)
    assert done.train[0].accuracy == exact.accuracy
    assert abs(float(steps.losses.mean()) - exact.loss) > 1e-4
    assert (steps.losses.shape, steps.images) == ((1, 4), 210)


def test_a_batch_larger_than_the_data_is_one_step_of_all_images(small: TrainingData) -> None:
    for batch_size in (210, 211, 60_000):
        cohort = Cohort([parse_config({"batch_size": batch_size, "epochs": 2, "learning_rate": 1e-7})], small)
        events = history(cohort)
        assert cohort.batches_per_epoch == 1
        assert [type(event) for event in events] == [Steps, EpochDone] * 2
        (exact,) = cohort.score(small.train, small.train_rows)
        assert step_losses(events) == pytest.approx(np.full((1, 2), exact.loss), abs=1e-5)


def test_every_step_is_told_once_and_in_order(digits: Path) -> None:
    for batch_size in (1, 7, 64, 500, 1024, 1025):
        config = parse_config({"dataset": "digits", "batch_size": batch_size, "epochs": 2})
        data = training_data(load("digits", digits), config)
        cohort = Cohort([config], data)
        step, images = 0, 0
        for event in cohort.fit():
            match event:
                case Steps(epoch, first, losses, count):
                    assert first == step + 1
                    step += losses.shape[1]
                    images += count
                    assert epoch == (step - 1) // cohort.batches_per_epoch + 1
                    assert cohort.step == step
                case EpochDone(epoch, at, _, _):
                    assert (at, images) == (step, epoch * len(data.train_rows))
                    assert at == epoch * cohort.batches_per_epoch
        assert cohort.epoch == 2


# The same numbers


@each_optimizer
@pytest.mark.parametrize("model", [MODELS["linear"], MODELS["three hidden layers"]], ids=["linear", "mlp"])
def test_the_same_configuration_gives_the_same_numbers_to_the_last_bit(
    small: TrainingData, model: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    config = parse_config({**model, **optimizer, "batch_size": 32, "epochs": 2})
    torch.manual_seed(1)
    first = Cohort([config], small)
    told = history(first)
    torch.manual_seed(2)
    elsewhere = torch.get_rng_state()
    second = Cohort([config], small)
    assert_same_history(history(second), told)
    assert_same_layers(first, second)
    assert torch.equal(torch.get_rng_state(), elsewhere)


def test_another_seed_gives_other_weights_and_another_order(small: TrainingData) -> None:
    config = parse_config({"batch_size": 32, "epochs": 1})
    first, second = (Cohort([config.replace(seed=seed)], small) for seed in (0, 1))
    assert not torch.equal(first.layers(0)[0][0], second.layers(0)[0][0])
    assert not np.array_equal(step_losses(history(first)), step_losses(history(second)))


@each_optimizer
@pytest.mark.parametrize("model", [MODELS["linear"], MODELS["three hidden layers"]], ids=["linear", "mlp"])
@pytest.mark.parametrize("members", [1, 3])
def test_interrupted_at_any_epoch_it_goes_on_to_the_last_bit(
    small: TrainingData, model: dict[str, Any], optimizer: dict[str, Any], members: int
) -> None:
    config = parse_config({**model, **optimizer, "batch_size": 32, "epochs": 3})
    configs = [config.replace(learning_rate=config.learning_rate / n) for n in range(1, members + 1)]
    whole = Cohort(configs, small)
    told: list[Progress] = []
    checkpoints: dict[int, tuple[int, bytes]] = {}
    for event in whole.fit():
        told.append(event)
        if isinstance(event, EpochDone):
            checkpoints[event.epoch] = (len(told), safetensors.torch.save(whole.state()))
    assert sorted(checkpoints) == [1, 2, 3]
    for epoch, (so_far, stored) in checkpoints.items():
        resumed = Cohort(configs, small)
        resumed.load_state(safetensors.torch.load(stored))
        assert (resumed.epoch, resumed.step) == (epoch, epoch * whole.batches_per_epoch)
        assert_same_history(history(resumed), told[so_far:])
        assert_same_layers(resumed, whole)


def test_a_cohort_that_was_stopped_midway_goes_back_to_its_checkpoint(small: TrainingData) -> None:
    config = parse_config(
        {**OPTIMIZERS["adam"], "batch_size": 32, "epochs": 3, "test_watch": "steps", "test_watch_steps": 2}
    )
    whole, stopped = Cohort([config], small), Cohort([config], small)
    told, stored = history(whole), {}
    for event in stopped.fit():
        if isinstance(event, EpochDone) and event.epoch == 1:
            stored = {name: tensor.clone() for name, tensor in stopped.state().items()}
        if stopped.step == 12:
            break
    stopped.load_state(stored)
    again = history(stopped)
    assert_same_history(again, told[-len(again) :])
    assert_same_layers(stopped, whole)


def test_a_state_does_not_change_while_training_goes_on(small: TrainingData) -> None:
    cohort = Cohort([parse_config({**OPTIMIZERS["adam"], "batch_size": 32, "epochs": 2})], small)
    done = epochs(cohort.fit())
    next(done)
    stored = safetensors.torch.save(cohort.state())
    assert safetensors.torch.save(cohort.state()) == stored
    next(done)
    assert safetensors.torch.save(cohort.state()) != stored


@pytest.mark.parametrize(
    "other",
    [MODELS["one hidden layer"], {"optimizer": "adam"}, {"optimizer": "adagrad"}, {"momentum": 0.9}],
    ids=["mlp", "adam", "adagrad", "momentum"],
)
def test_the_state_of_another_run_is_refused_and_changes_nothing(small: TrainingData, other: dict[str, Any]) -> None:
    config = parse_config({"batch_size": 32, "epochs": 1})
    trained = Cohort([config], small)
    history(trained)
    refusing = Cohort([parse_config({**config.model_dump(), **other})], small)
    before = {name: tensor.clone() for name, tensor in refusing.state().items()}
    with pytest.raises((KeyError, RuntimeError)):
        refusing.load_state(trained.state())
    after = refusing.state()
    assert [name for name, tensor in before.items() if not torch.equal(tensor, after[name])] == []


def test_looking_changes_nothing(small: TrainingData) -> None:
    config = parse_config({**OPTIMIZERS["nesterov"], **MODELS["one hidden layer"], "batch_size": 16, "epochs": 3})
    plain = Cohort([config], small)
    losses = step_losses(history(plain))
    watches: list[dict[str, Any]] = [{"test_watch": "steps", "test_watch_steps": n} for n in (1, 3, 14, 1000)]
    for watch in ({"test_watch": "epoch"}, *watches):
        watched = Cohort([parse_config({**config.model_dump(), **watch})], small)
        seen = []
        for event in watched.fit():
            seen.append(event)
            watched.score(small.test)
            watched.log_probabilities(small.train, small.valid_rows)
            watched.state()
        assert np.array_equal(step_losses(seen), losses)
        assert_same_layers(watched, plain)


@pytest.mark.parametrize("every", [1, 3, 7, 14, 15, 500])
def test_a_block_ends_at_every_multiple_of_the_watched_steps(small: TrainingData, every: int) -> None:
    values = {"batch_size": 16, "epochs": 3, "test_watch": "steps", "test_watch_steps": every}
    cohort = Cohort([parse_config(values)], small)
    ends = [cohort.step for event in cohort.fit() if isinstance(event, Steps)]
    assert cohort.step == 3 * 14
    assert set(range(every, cohort.step + 1, every)) <= set(ends)
    assert ends == sorted(set(ends))


# Who may influence what


def test_held_out_unused_and_test_images_do_not_influence_training(small: TrainingData) -> None:
    config = parse_config({**OPTIMIZERS["adam"], "batch_size": 32, "epochs": 2, "inputs": "standardised"})
    spoiled = ImageSet(small.train.images.clone(), small.train.labels.clone())
    outside = torch.ones(len(spoiled), dtype=torch.bool)
    outside[small.train_rows] = False
    spoiled.images[outside] = 255 - spoiled.images[outside]
    spoiled.labels[outside] = (spoiled.labels[outside] + 1) % 10
    other = TrainingData(spoiled, spoiled, small.train_rows, small.valid_rows, 10, small.pixel_mean, small.pixel_std)
    first, second = Cohort([config], small), Cohort([config], other)
    told, spoiled_told = history(first), history(second)
    assert_same_layers(first, second)
    assert np.array_equal(step_losses(told), step_losses(spoiled_told))
    for done, spoiled_done in zip(epochs(told), epochs(spoiled_told), strict=True):
        assert done.train == spoiled_done.train
        assert done.valid != spoiled_done.valid


def test_only_the_held_out_images_are_what_validation_scores(small: TrainingData) -> None:
    cohort = Cohort([parse_config({"batch_size": 32, "epochs": 1})], small)
    (done,) = epochs(cohort.fit())
    rows = small.valid_rows
    assert done.valid == cohort.score(ImageSet(small.train.images[rows], small.train.labels[rows]))
    nobody = TrainingData(small.train, small.test, small.train_rows, rows[:0], 10, 0.5, 0.3)
    (done,) = epochs(Cohort([parse_config({"batch_size": 32, "epochs": 1})], nobody).fit())
    assert done.valid is None


def test_shares_of_the_images_are_those_of_the_split(digits: Path) -> None:
    config = parse_config({"dataset": "digits", "valid_fraction": 0.25, "train_fraction": 0.1, "epochs": 1})
    data = training_data(load("digits", digits), config)
    cohort = Cohort([config.replace(batch_size=10)], data)
    told = history(cohort)
    assert sum(event.images for event in told if isinstance(event, Steps)) == len(data.train_rows) == 108
    assert len(data.valid_rows) == 359


def test_images_of_any_number_are_scored_whole(digits: Path) -> None:
    config = parse_config({"dataset": "digits", "epochs": 1})
    data = training_data(load("digits", digits), config)
    cohort = Cohort([config], data)
    history(cohort)
    everything = cohort.log_probabilities(data.train)
    assert everything.shape == (1, 10, 1437)
    for rows in (torch.arange(1), torch.arange(1024), torch.arange(1025), torch.arange(1436, -1, -1)):
        torch.testing.assert_close(cohort.log_probabilities(data.train, rows), everything[:, :, rows])
    torch.testing.assert_close(everything.exp().sum(1), torch.ones(1, 1437))


# Divergence


def test_a_loss_that_explodes_is_named_with_its_step_and_ends_the_run(small: TrainingData) -> None:
    config = parse_config({"inputs": "raw", "learning_rate": 100, "momentum": 0.9, "batch_size": 32, "epochs": 5})
    assert_diverges_where_a_plain_loop_does(config, small)


def test_weights_that_grow_without_bound_are_named_with_their_step(small: TrainingData) -> None:
    config = parse_config({**MODELS["one hidden layer"], "learning_rate": 1, "weight_decay": 10, "batch_size": 32})
    assert_diverges_where_a_plain_loop_does(config, small)


def test_a_divergence_after_the_first_epoch_is_named_with_its_step(small: TrainingData) -> None:
    config = parse_config({"learning_rate": 1, "weight_decay": 5, "batch_size": 32, "epochs": 50})
    step = assert_diverges_where_a_plain_loop_does(config, small)
    assert step > 7


def assert_diverges_where_a_plain_loop_does(config: RunConfig, data: TrainingData) -> int:
    cohort = Cohort([config], data)
    *told, last = history(cohort)
    assert isinstance(last, Diverged)
    assert not any(isinstance(event, Diverged) for event in told)
    losses = np.array(PlainLoop(config, data, stop_at=EXPLODED).losses)
    assert last.step == len(losses)
    assert (last.member, cohort.diverged) == (0, {0: last.step})
    assert not last.loss < EXPLODED
    assert cohort.epoch < config.epochs
    ours = step_losses(told)[0]
    assert (ours[: last.step - 1] < EXPLODED).all()
    np.testing.assert_allclose(ours[: last.step - 1], losses[:-1], rtol=1e-2)
    return last.step


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("model", [MODELS["linear"], MODELS["three hidden layers"]], ids=["linear", "mlp"])
def test_a_weight_that_is_no_number_diverges_at_the_next_step(
    small: TrainingData, model: dict[str, Any], poison: float
) -> None:
    cohort = Cohort([parse_config({**model, "batch_size": 32, "epochs": 5})], small)
    told = []
    for event in cohort.fit():
        told.append(event)
        if isinstance(event, EpochDone) and event.epoch == 2:
            cohort.layers(0)[-1][0][3] = poison
    assert isinstance(told[-1], Diverged)
    assert told[-1].step == 2 * 7 + 1
    assert cohort.epoch == 2


@each_model
@pytest.mark.parametrize("company", ["sgd", "adam"])
def test_a_member_that_diverges_leaves_the_others_as_they_would_be(
    small: TrainingData, model: dict[str, Any], company: str
) -> None:
    config = parse_config({**model, **OPTIMIZERS[company], "batch_size": 8, "epochs": 3})
    calm = config.replace(learning_rate=config.learning_rate / 3)
    wild = config.replace(optimizer="sgd", learning_rate=100.0, weight_decay=10.0)  # each step times -999
    with_wild, without = Cohort([config, wild, calm], small), Cohort([config, config, calm], small)
    told, expected = history(with_wild), history(without)
    (diverged,) = [event for event in told if isinstance(event, Diverged)]
    assert diverged.member == 1
    assert with_wild.diverged == {1: diverged.step}
    assert without.diverged == {}
    assert with_wild.epoch == 3
    for member in (0, 2):
        assert np.array_equal(step_losses(told)[member], step_losses(expected)[member])
        for ours, theirs in zip(epochs(told), epochs(expected), strict=True):
            assert ours.valid is not None
            assert theirs.valid is not None
            assert (ours.train[member], ours.valid[member]) == (theirs.train[member], theirs.valid[member])
        for ours_layer, theirs_layer in zip(with_wild.layers(member), without.layers(member), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours_layer, theirs_layer, strict=True))
    alone = Cohort([wild], small)
    assert [event.step for event in history(alone) if isinstance(event, Diverged)] == [diverged.step]


def test_a_diverged_member_is_frozen(small: TrainingData) -> None:
    config = parse_config({"inputs": "raw", "learning_rate": 1e-4, "batch_size": 8, "epochs": 4})
    cohort = Cohort([config, config.replace(learning_rate=100.0)], small)
    frozen = [cohort.layers(1)[0][0].clone() for _ in epochs(cohort.fit())]
    assert cohort.diverged == {1: 2}
    assert frozen[0].isfinite().all()
    assert all(torch.equal(weight, frozen[0]) for weight in frozen)


def test_a_cohort_ends_when_its_last_member_has_diverged(small: TrainingData) -> None:
    config = parse_config({"batch_size": 8, "epochs": 50})
    fast, slow = (
        config.replace(learning_rate=100.0, weight_decay=10.0),
        config.replace(learning_rate=1.0, weight_decay=2.5),
    )
    cohort = Cohort([slow, fast], small)
    told = history(cohort)
    assert [event.member for event in told if isinstance(event, Diverged)] == [1, 0]
    assert isinstance(told[-1], Diverged)
    assert cohort.epoch < 50


# Cohorts


@each_model
def test_a_member_of_a_cohort_learns_as_it_does_alone(small: TrainingData, model: dict[str, Any]) -> None:
    configs = [parse_config({**model, **optimizer, "batch_size": 32, "epochs": 2}) for optimizer in OPTIMIZERS.values()]
    together = history(cohort := Cohort(configs, small))
    for member, config in enumerate(configs):
        alone = history(single := Cohort([config], small))
        for ours, theirs in zip(epochs(together), epochs(alone), strict=True):
            assert ours.train[member].loss == pytest.approx(theirs.train[0].loss, abs=1e-3)
        for ours_layer, theirs_layer in zip(cohort.layers(member), single.layers(0), strict=True):
            for a, b in zip(ours_layer, theirs_layer, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "mnist"},
        {"inputs": "raw"},
        {"architecture": "mlp"},
        {"output_sigmoid": True},
        {"batch_size": 3},
        {"epochs": 3},
        {"valid_fraction": 0.0},
        {"train_fraction": 0.5},
        {"seed": 3},
    ],
    ids=str,
)
def test_runs_that_do_not_see_the_same_batches_are_no_cohort(small: TrainingData, change: dict[str, Any]) -> None:
    config = parse_config({"dataset": "digits"})
    with pytest.raises(ValueError, match="must share data, model, batches and seed; got 2 kinds"):
        Cohort([config, parse_config({**config.model_dump(), **change})], small)
    with pytest.raises(ValueError, match="must share"):
        Cohort([], small)


# Scores


def test_scores_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.log_softmax(3 * torch.randn(4, 10, 500, generator=generator), dim=1)
    labels = torch.randint(10, (500,), generator=generator)
    for score, answer in zip(scores(answers, labels), answers.double().exp().mT.numpy(), strict=True):
        answer /= answer.sum(1, keepdims=True)
        assert score.loss == pytest.approx(sklearn.metrics.log_loss(labels, answer, labels=range(10)), rel=1e-6)
        assert score.accuracy == sklearn.metrics.accuracy_score(labels, answer.argmax(1))


def test_the_lowest_class_wins_a_tie() -> None:
    even = torch.full((1, 10, 100), -math.log(10))
    labels = torch.arange(100) % 10
    assert scores(even, labels)[0].loss == pytest.approx(math.log(10))
    assert scores(even, labels)[0].accuracy == 0.1
    assert scores(even, torch.zeros(100, dtype=torch.int64))[0].accuracy == 1
    two = torch.log(torch.tensor([0.1, 0.4, 0.1, 0.4])).expand(1, 7, 4).mT.contiguous()
    assert scores(two, torch.full((7,), 1))[0].accuracy == 1
    assert scores(two, torch.full((7,), 3))[0].accuracy == 0


# Devices


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_device_there_is_is_chosen(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == choose_device("auto") == torch.device(expected)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda", 1)


def test_the_cpu_is_called_by_its_threads() -> None:
    assert device_name(torch.device("cpu")) == "CPU, 1 thread"


def test_exactly_the_public_names_are_exported() -> None:
    assert training.__all__ == [
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


# Real MNIST


@pytest.mark.mnist
def test_the_linear_article_reaches_its_claim(mnist: Dataset) -> None:
    config = parse_config({"learning_rate": 0.001, "batch_size": 100, "epochs": 5, "valid_fraction": 0})
    cohort = Cohort([config], data := training_data(mnist, config))
    history(cohort)
    assert cohort.step == 3000
    assert 0.81 <= cohort.score(data.test)[0].accuracy <= 0.845


@pytest.mark.mnist
def test_the_mlp_learns_within_two_epochs(mnist: Dataset) -> None:
    values = {"architecture": "mlp", "optimizer": "adam", "learning_rate": 0.001, "batch_size": 64, "epochs": 2}
    config = parse_config({**values, "valid_fraction": 0})
    cohort = Cohort([config], data := training_data(mnist, config))
    history(cohort)
    assert cohort.step == 2 * 938
    assert cohort.score(data.test)[0].accuracy > 0.95


@pytest.fixture(scope="module")
def mnist(mnist_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    prepared = tmp_path_factory.mktemp("mnist")
    return fetch.prepare("mnist", source=mnist_root, prepared=prepared)


class PlainLoop:
    """What a learner would write: torch's own modules, optimizers and autograd, one batch after the other."""

    def __init__(self, config: RunConfig, data: TrainingData, *, stop_at: float = math.inf) -> None:
        self.config, self.data = config, data
        self.losses: list[float] = []
        self.epochs: list[EpochDone] = []
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            sizes = config.layer_sizes(pixels=data.pixels, classes=data.classes)
            self.linears = [nn.Linear(*size) for size in sizes]
            between: list[nn.Module] = [nn.Sigmoid() for _ in sizes]
            modules = [module for pair in zip(self.linears, between, strict=True) for module in pair]
            self.model = nn.Sequential(*modules if config.output_sigmoid else modules[:-1])
            optimizer = self._optimizer()
            for epoch in range(1, config.epochs + 1):
                order = data.train_rows[torch.randperm(len(data.train_rows))]
                loss_sum, hits = 0.0, 0
                for rows in order.split(config.batch_size):
                    labels = data.train.labels[rows]
                    outputs = self.model(self._scaled(data.train.images[rows]))
                    loss = functional.cross_entropy(outputs, labels)
                    self.losses.append(loss.item())
                    if not loss.item() < stop_at:
                        return
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    loss_sum += loss.item() * len(rows)
                    hits += int((outputs.argmax(1) == labels).sum())
                train = Score(loss_sum / len(order), hits / len(order))
                valid = self.score(ImageSet(data.train.images[data.valid_rows], data.train.labels[data.valid_rows]))
                self.epochs.append(EpochDone(epoch, len(self.losses), (train,), (valid,)))

    def score(self, images: ImageSet) -> Score:
        with torch.no_grad():
            outputs = self.model(self._scaled(images.images))
        loss = functional.cross_entropy(outputs, images.labels).item()
        return Score(loss, (outputs.argmax(1) == images.labels).float().mean().item())

    def _scaled(self, images: Tensor) -> Tensor:
        return scaled(self.config, images.float(), mean=self.data.pixel_mean, std=self.data.pixel_std)

    def _optimizer(self) -> torch.optim.Optimizer:
        config, params = self.config, self.model.parameters()
        rate, decay = config.learning_rate, config.weight_decay
        match config.optimizer:
            case Optimizer.SGD:
                momentum, nesterov = config.momentum, config.nesterov
                return torch.optim.SGD(params, lr=rate, weight_decay=decay, momentum=momentum, nesterov=nesterov)
            case Optimizer.ADAM:
                return torch.optim.Adam(params, lr=rate, weight_decay=decay)
            case Optimizer.ADAGRAD:
                return torch.optim.Adagrad(params, lr=rate, weight_decay=decay)


def scaled(config: RunConfig, pixels: Tensor, *, mean: float, std: float) -> Tensor:
    """ToTensor and Normalize as the tutorials write them."""
    scalings: dict[str, Callable[[Tensor], Tensor]] = {
        "raw": lambda x: x,
        "unit": lambda x: x / 255,
        "symmetric": lambda x: (x / 255 - 0.5) / 0.5,
        "symmetric-twice": lambda x: ((x / 255 - 0.5) / 0.5 - 0.5) * 2,
        "standardised": lambda x: (x / 255 - mean) / std,
    }
    return scalings[config.inputs](pixels)


def forward(config: RunConfig, tensors: Sequence[Tensor], images: Tensor) -> Tensor:
    """The outputs in double precision, from weights and biases by turns."""
    outputs = scaled(config, images.double(), mean=0.5, std=0.3)
    layers = list(zip(tensors[::2], tensors[1::2], strict=True))
    for depth, (weight, bias) in enumerate(layers):
        outputs = functional.linear(outputs, weight, bias)
        if depth < len(layers) - 1 or config.output_sigmoid:
            outputs = outputs.sigmoid()
    return outputs


def training_data(dataset: Dataset, config: RunConfig) -> TrainingData:
    def images(pixels: np.ndarray, labels: np.ndarray) -> ImageSet:
        flat = torch.from_numpy(np.array(pixels).reshape(len(pixels), -1))
        return ImageSet(flat, torch.from_numpy(labels.astype(np.int64)))

    rows = split(len(dataset.train_labels), valid_fraction=config.valid_fraction, train_fraction=config.train_fraction)
    return TrainingData(
        images(dataset.train_images, dataset.train_labels),
        images(dataset.test_images, dataset.test_labels),
        torch.from_numpy(rows.train),
        torch.from_numpy(rows.valid),
        len(dataset.info.classes),
        dataset.pixel_mean,
        dataset.pixel_std,
    )


def history(cohort: Cohort) -> list[Progress]:
    return list(cohort.fit())


def epochs(told: Sequence[Progress] | Iterator[Progress]) -> Iterator[EpochDone]:
    return (event for event in told if isinstance(event, EpochDone))


def step_losses(told: Sequence[Progress]) -> np.ndarray:
    """[members, steps], over all epochs."""
    return np.concatenate([event.losses for event in told if isinstance(event, Steps)], axis=1)


def copied(layers: Layers) -> Layers:
    return [(weight.clone(), bias.clone()) for weight, bias in layers]


def assert_same_history(ours: Sequence[Progress], expected: Sequence[Progress]) -> None:
    assert [type(event) for event in ours] == [type(event) for event in expected]
    for event, wanted in zip(ours, expected, strict=True):
        if isinstance(event, Steps) and isinstance(wanted, Steps):
            assert (event.epoch, event.first_step, event.images) == (wanted.epoch, wanted.first_step, wanted.images)
            assert np.array_equal(event.losses, wanted.losses)
        else:
            assert event == wanted


def assert_same_layers(ours: Cohort, expected: Cohort) -> None:
    for member in range(len(expected.configs)):
        for layer, wanted in zip(ours.layers(member), expected.layers(member), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(layer, wanted, strict=True))
