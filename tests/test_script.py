"""A run taken away as a plain script: in a process of its own it sees the same batches, and ends where the run did."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistlr_core import data, fetch, recording, script, tasks
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import Inputs, Optimizer, RunConfig, parse_config
from mnistlr_core.download import LAYOUTS
from mnistlr_core.errors import RunError
from mnistlr_core.records import EpochRow, Run, RunState
from mnistlr_core.script import standalone_script
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store
from tests.evidence import evidence
from tests.test_config import configs
from tests.test_tasks import on_commit

RATES = {Optimizer.SGD: 0.1, Optimizer.ADAM: 0.003, Optimizer.ADAGRAD: 0.03}

# Every optimizer with every scaling, and beside them in turn whatever else a run may use.
TURNS: tuple[dict[str, Any], ...] = (
    {"momentum": 0.9, "weight_decay": 0.001},
    {"architecture": "mlp", "hidden": "20", "valid_fraction": 0.0, "test_watch": "epoch"},
    {"output_sigmoid": True, "train_fraction": 0.5, "momentum": 0.5, "nesterov": True},
    {"architecture": "mlp", "hidden": "24, 16", "output_sigmoid": True, "momentum": 0.9, "nesterov": True, "seed": 7},
    {"train_fraction": 0.3, "valid_fraction": 0.0, "test_watch": "steps", "test_watch_steps": 10, "batch_size": 2000},
    {"architecture": "mlp", "hidden": "32, 24, 16, 12", "weight_decay": 1e-4, "test_watch": "steps", "batch_size": 50},
    {"valid_fraction": 0.9, "train_fraction": 0.001, "batch_size": 1},
)
VARIANTS: dict[str, dict[str, Any]] = {
    f"{optimizer}-{inputs}": {
        "dataset": "digits",
        "epochs": 3,
        "batch_size": 32,
        "optimizer": optimizer,
        "inputs": inputs,
        "learning_rate": RATES[optimizer] / (1000 if inputs is Inputs.RAW else 1),
        **TURNS[place % len(TURNS)],
    }
    for place, (optimizer, inputs) in enumerate((o, i) for i in Inputs for o in Optimizer)
}

# Runs scripts one after the other in one process, for it takes longer to load torch than to train on digits.
RUNNER = """
import contextlib, io, json, pathlib, runpy, sys
said = {}
for path in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(path, run_name="__main__")
    said[pathlib.Path(path).stem] = output.getvalue()
print(json.dumps(said))
"""

# torchvision holds CIFAR-10's files to their published md5, which no test can meet: the engine's own arrays stand in.
CIFAR_RUNNER = """
import pathlib, runpy, sys
import numpy as np, torchvision.datasets
class CIFAR10:
    def __init__(self, root, *, train, download):
        part = "train" if train else "test"
        self.data = np.load(pathlib.Path(root) / f"{part}_images.npy")
        self.targets = np.load(pathlib.Path(root) / f"{part}_labels.npy").tolist()
torchvision.datasets.CIFAR10 = CIFAR10
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_exactly_the_public_names_are_exported() -> None:
    assert script.__all__ == ["standalone_script"]


# The same end


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Iterator[dict[str, tuple[Run, Any, Any]]]:
    """Every variant's run and history by its name, and what the script made of it printed."""
    home = tmp_path_factory.mktemp("scripts")
    settings = Settings(home=home, data=home / "none", device="cpu")
    shutil.copytree(digits, settings.prepared)
    with closing(Store(settings.database)) as store:
        runs = {name: train(settings, store, values) for name, values in VARIANTS.items()}
        paths = [written(home / f"{name}.py", run) for name, run in runs.items()]
        printed = json.loads(started("-c", RUNNER, *map(str, paths)))
        yield {name: (run, store.history(run.id), printed[name]) for name, run in runs.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_script_ends_where_the_run_ended(name: str, trained: dict[str, tuple[Run, Any, Any]]) -> None:
    run, history, printed = trained[name]
    assert run.state is RunState.FINISHED
    expected, got = last_line(printed)
    assert expected == pytest.approx(accuracy_of(run), abs=5e-5)
    assert got == pytest.approx(expected, abs=1.5 / 360)
    for mine, row in zip(epochs_of(printed), history, strict=True):
        assert_equal_but_for_rounding(mine, row)


def test_the_script_looks_at_the_test_images_where_the_run_did(trained: dict[str, tuple[Run, Any, Any]]) -> None:
    watched = {run.config.test_watch.value: printed for run, _, printed in trained.values()}
    assert len(re.findall("^epoch .: test loss", watched["epoch"], re.M)) == 3
    assert not re.findall("^(epoch|step) .*: test loss", watched["end"], re.M)
    by_steps = trained["adagrad-symmetric"]
    assert by_steps[0].config.test_watch_steps == 500
    assert "test loss" in by_steps[2]


def test_steps_between_looks_are_the_runs(settings: Settings, store: Store, tmp_path: Path) -> None:
    values = {"dataset": "digits", "epochs": 2, "test_watch": "steps", "test_watch_steps": 7, "learning_rate": 0.1}
    run = train(settings, store, values)
    printed = started(str(written(tmp_path / "looks.py", run)))
    found = re.findall(r"^step (\d+): test loss (\S+), accuracy (\S+)$", printed, re.M)
    looks = store.test_rows(run.id)
    assert [int(step) for step, _, _ in found] == [look.step for look in looks]
    assert [float(loss) for _, loss, _ in found] == pytest.approx([look.loss for look in looks], abs=2e-4)


@pytest.mark.parametrize(("commit", "batches"), [(5, 6), (9, 0)])
def test_a_stopped_run_is_repeated_as_far_as_it_came(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: int, batches: int
) -> None:
    values = {"dataset": "digits", "epochs": 9, "learning_rate": 0.1, "batch_size": 100}
    if batches:  # a block ends where the test set is looked at, and the run may stop there
        values |= {"test_watch": "steps", "test_watch_steps": batches}
    run_id = parse_config(values).short_id
    with monkeypatch.context() as patch:
        patch.setattr(recording, "COMMIT_SECONDS", 0.0)
        on_commit(patch, commit, lambda: store.request_stop(run_id))
        run = train(settings, store, values)
    assert run.state is RunState.STOPPED
    assert (run.step % 13 > 0) == bool(batches)
    printed = started(str(written(tmp_path / "stopped.py", run)))
    expected, got = last_line(printed)
    assert (expected, got) == pytest.approx((accuracy_of(run), accuracy_of(run)), abs=1.5 / 360)
    assert len(epochs_of(printed)) == -(-run.step // 13)
    assert "It was stopped: of 9 epochs it trained" in standalone_script(run)


def test_a_script_needs_nothing_of_ours(settings: Settings, store: Store, tmp_path: Path) -> None:
    run = train(settings, store, {"dataset": "digits", "epochs": 2, "learning_rate": 0.1})
    text = standalone_script(run)
    assert set(re.findall(r"^(?:from|import) (\w+)", text, re.M)) == {"numpy", "torch", "sklearn"}
    path = written(tmp_path / "alone.py", run)
    first, again = started("-I", str(path)), started("-I", str(path))  # -I: neither this folder nor the environment's
    assert first == again
    assert first.endswith(f"expected {accuracy_of(run):.4f}, got {last_line(first)[1]:.4f}\n")


@pytest.mark.mnist
def test_a_linear_run_on_mnist_is_repeated_to_the_image(mnist_root: Path, tmp_path: Path) -> None:
    expected, got = on_mnist(mnist_root, tmp_path, {"epochs": 3})
    assert got == pytest.approx(expected, abs=0.0005)


@pytest.mark.mnist
def test_an_mlp_on_mnist_is_repeated_but_for_rounding(mnist_root: Path, tmp_path: Path) -> None:
    values = {"architecture": "mlp", "hidden": "128, 64", "optimizer": "adam", "learning_rate": 0.001, "epochs": 1}
    expected, got = on_mnist(mnist_root, tmp_path, values | {"inputs": "standardised"})
    assert expected > 0.92
    assert got == pytest.approx(expected, abs=0.003)


@pytest.mark.mnist
@pytest.mark.parametrize("dataset", ["fashion-mnist", "kmnist"])
def test_the_look_alikes_are_read_by_their_own_names(dataset: str, mnist_root: Path, tmp_path: Path) -> None:
    """MNIST's files stand in for theirs: torchvision tells them apart by their folder."""
    shutil.copytree(mnist_root / "MNIST" / "raw", tmp_path / DATASETS[dataset].folder)
    expected, got = on_mnist(tmp_path, tmp_path, {"dataset": dataset, "epochs": 1, "train_fraction": 0.1})
    assert expected > 0.7
    assert got == pytest.approx(expected, abs=0.0005)


def test_colours_reach_the_model_in_the_engines_order(settings: Settings, store: Store, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    prototypes = random.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {}
    for part, size in (("train", 50_000), ("test", 10_000)):
        labels = random.integers(0, 10, size, dtype=np.uint8)
        arrays |= {f"{part}_images": prototypes[labels] // 2, f"{part}_labels": labels}
        arrays[f"{part}_images"] += random.integers(0, 128, (size, 1, 1, 3), dtype=np.uint8)
    data.publish("cifar10", settings.prepared, arrays, source="a test")
    values = {"dataset": "cifar10", "epochs": 1, "train_fraction": 0.02, "batch_size": 20, "inputs": "standardised"}
    values |= {"learning_rate": 0.003}
    run = train(settings, store, values)
    folder = str(settings.prepared / "cifar10")
    printed = started("-c", CIFAR_RUNNER, str(written(tmp_path / "cifar.py", run)), "--data", folder)
    expected, got = last_line(printed)
    assert expected > 0.3
    assert got == pytest.approx(expected, abs=0.001)
    assert_equal_but_for_rounding(epochs_of(printed)[0], store.history(run.id)[0])


# The text


@given(config=configs(), stopped_after=st.none() | st.integers(0, 10**6))
def test_any_run_makes_a_program(config: RunConfig, stopped_after: int | None) -> None:
    text = standalone_script(run_of(config, stopped_after))
    compile(text, "script.py", "exec")
    assert text.isascii()
    assert "$" not in text
    assert text.endswith('print(f"expected {EXPECTED:.4f}, got {accuracy:.4f}")\n')


def test_ruff_leaves_scripts_alone(tmp_path: Path) -> None:
    place = iter(range(10**6))

    @settings(max_examples=80, database=None)
    @given(config=configs(), stopped_after=st.none() | st.integers(1, 10**5))
    def write(config: RunConfig, stopped_after: int | None) -> None:
        (tmp_path / f"{next(place)}.py").write_text(standalone_script(run_of(config, stopped_after)), encoding="utf-8")

    write()
    for width in ("88", "120"):
        for command in (["check", "--select", "E,F,I,W,B,UP,SIM,RUF", "--no-cache"], ["format", "--check"]):
            line = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", width, str(tmp_path)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:]


def test_a_script_holds_what_its_run_uses_and_nothing_else() -> None:
    linear = standalone_script(evidence(RunConfig(), 0.9).run)
    for unused in ("MOMENTUM", "momentum", "nesterov", "decay", "Sigmoid", "step =", "LAST_BATCHES", "TRAINING_IMAGES"):
        assert unused not in linear
    assert linear.count("nn.Linear(") == 1
    assert "VALIDATION_IMAGES = 6000" in linear
    whole = standalone_script(evidence(RunConfig(valid_fraction=0.0), 0.9).run)
    assert not re.search("valid|numpy|np\\.", whole)
    adam = standalone_script(evidence(RunConfig(optimizer=Optimizer.ADAM, momentum=0.9, nesterov=True), 0.9).run)
    assert not re.search("momentum|nesterov|SGD\\(", adam, re.I)
    sgd = standalone_script(evidence(RunConfig(momentum=0.9, nesterov=True, weight_decay=0.1), 0.9).run)
    assert "MOMENTUM = 0.9\nWEIGHT_DECAY = 0.1\n" in sgd
    assert "nesterov=True" in sgd
    few = standalone_script(evidence(RunConfig(train_fraction=0.5, valid_fraction=0.0), 0.9).run)
    assert "TRAINING_IMAGES = 30000" in few
    assert "argparse" not in standalone_script(evidence(RunConfig(dataset="digits"), 0.9).run)


@pytest.mark.parametrize("state", [state for state in RunState if state not in (RunState.FINISHED, RunState.STOPPED)])
def test_a_run_without_a_result_is_refused_in_words(state: RunState) -> None:
    run = replace(evidence(RunConfig(), 0.9).run, state=state, test=None)
    with pytest.raises(RunError, match=rf"run {run.id} is {state.value} and has none; choose a run that finished"):
        standalone_script(run)


def test_a_machines_name_cannot_end_the_docstring() -> None:
    hostile = 'GPU"""\nimport os\n\\$model ${seed} \u202e'
    run = replace(evidence(RunConfig(), 0.9).run, device=hostile, versions={"torch": '2"""'})
    text = standalone_script(run)
    assert text.isascii()
    assert text.count('"""') == standalone_script(evidence(RunConfig(), 0.9).run).count('"""')
    assert not re.search("^import os", text, re.M)


def test_the_template_knows_every_trait_and_every_data_set() -> None:
    lines = script._template()
    named = frozenset().union(*(needs | refuses for needs, refuses, _ in lines))
    known = script._traits(RunConfig(), data.split(60_000, valid_fraction=0.1, train_fraction=1.0), 0)
    assert known <= named
    for inputs in Inputs:
        assert inputs.value in named
    assert {name: layout.class_name for name, layout in LAYOUTS.items()} == script._CLASSES
    assert set(DATASETS) - set(script._CLASSES) == {"digits"}
    assert int(script._SPLIT_SEED) == data._SPLIT_SEED
    assert int(script._DIGITS_SEED) == fetch._DIGITS_SEED


def train(settings: Settings, store: Store, values: dict[str, Any]) -> Run:
    run_id = store.submit(parse_config(values)).run_id
    tasks.train(settings.model_dump_json(), run_id, f"{run_id}-1")
    return store.run(run_id)


def on_mnist(root: Path, folder: Path, values: dict[str, Any]) -> tuple[float, float]:
    """(expected, got) of a run on torchvision's files below `root`."""
    settings = Settings(home=folder / "home", data=root, device="cpu")
    with closing(Store(settings.database)) as store:
        run = train(settings, store, values)
    return last_line(started(str(written(folder / "run.py", run)), "--data", str(root)))


def written(path: Path, run: Run) -> Path:
    path.write_text(standalone_script(run), encoding="utf-8")
    return path


def started(*arguments: str) -> str:
    """What a Python of its own prints; its exit code is 0."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # other jobs keep the other core
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_line(printed: str) -> tuple[float, float]:
    found = re.fullmatch(r"expected (\d\.\d{4}), got (\d\.\d{4})", printed.splitlines()[-1])
    assert found
    return float(found[1]), float(found[2])


def accuracy_of(run: Run) -> float:
    assert run.test is not None
    return run.test.accuracy


def epochs_of(printed: str) -> list[dict[str, tuple[float, float]]]:
    """Each epoch's (loss, accuracy) by what was measured: training, validation, test."""
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for epoch, part, loss, accuracy in re.findall(r"^epoch (\d+): (\w+) loss (\S+), accuracy (\S+)$", printed, re.M):
        found.setdefault(int(epoch), {})[part] = float(loss), float(accuracy)
    assert list(found) == list(range(1, len(found) + 1))
    return list(found.values())


def assert_equal_but_for_rounding(printed: dict[str, tuple[float, float]], row: EpochRow) -> None:
    measured = {
        "training": (row.train_loss, row.train_accuracy),
        "validation": (row.valid_loss, row.valid_accuracy),
        "test": (row.test_loss, row.test_accuracy),
    }
    there = {part: figures for part, figures in measured.items() if figures[0] is not None}
    assert printed.keys() == there.keys()
    for part, (loss, accuracy) in there.items():
        assert printed[part][0] == pytest.approx(loss, rel=1e-3, abs=2e-4)
        assert printed[part][1] == pytest.approx(accuracy, abs=0.008)


def run_of(config: RunConfig, stopped_after: int | None) -> Run:
    run = evidence(config.replace(epochs=2), 0.9).run  # histories take longer to make up than scripts
    run = replace(run, config=config)
    return run if stopped_after is None else replace(run, state=RunState.STOPPED, step=stopped_after)
