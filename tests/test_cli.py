"""The command line as scripts call it: in processes of its own, with exit codes and JSON as promised."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from mnistlr_core.articles import RECIPES, article_configs
from mnistlr_core.config import fields, parse_config
from mnistlr_core.lab import Lab
from mnistlr_core.records import RunState
from mnistlr_core.settings import Settings
from tests.processes import eventually

DIGITS = ["--dataset", "digits", "--epochs", "2", "--batch-size", "32"]
HISTORY = {"epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy"}
CONTRACT = {
    *("id", "digest", "state", "cached", "config", "history", "best", "test"),
    *("seconds", "images_per_second", "device", "attempts"),
}
CLAIM = {"words", "figure", "epochs", "value", "tolerance", "relation"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Iterator[Lab]:
    """A lab whose cluster is up, as the dashboard's would be: the commands join it and need no torch of their own."""
    settings = Settings(home=tmp_path_factory.mktemp("cli"), data=digits / "none", device="cpu")
    shutil.copytree(digits, settings.prepared)
    with pytest.MonkeyPatch.context() as patch, closing(Lab(settings)) as opened:
        patch.setenv("MNISTLR_MIRROR", "http://127.0.0.1:9/")
        opened.start()
        eventually(lambda: opened.device is not None, what="the engine is up")
        yield opened


def test_training_prints_one_object_and_exits_0_and_the_second_answer_is_cached(lab: Lab) -> None:
    first, second = run(lab, "train", *DIGITS, "--json"), run(lab, "train", *DIGITS, "--json")
    assert (first.returncode, second.returncode) == (0, 0)
    run_, again = json.loads(first.stdout), json.loads(second.stdout)
    assert set(run_) >= CONTRACT
    assert (run_["state"], run_["cached"], again["cached"]) == ("finished", False, True)
    assert {key: again[key] for key in CONTRACT - {"cached"}} == {key: run_[key] for key in CONTRACT - {"cached"}}
    assert [set(row) for row in run_["history"]] == [HISTORY] * 2
    assert run_["history"][0]["test_loss"] is None
    assert run_["best"] in run_["history"]
    assert set(run_["test"]) == {"loss", "accuracy", "errors"}
    assert set(run_["config"]) == {spec.name for spec in fields()}
    assert "epoch 2/2" in first.stderr
    assert second.stderr == ""


def test_what_was_trained_can_be_listed_shown_and_deleted(lab: Lab) -> None:
    run_id = json.loads(run(lab, "train", *DIGITS, "--seed", "1", "--json").stdout)["id"]
    assert run_id in run(lab, "runs").stdout
    assert run_id in {entry["id"] for entry in json.loads(run(lab, "runs", "--json").stdout)["runs"]}
    assert json.loads(run(lab, "show", run_id, "--json").stdout)["id"] == run_id
    shown = run(lab, "show", run_id).stdout
    assert "epoch    2   training" in shown
    assert "wrong" in shown
    refused = run(lab, "delete", run_id)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert run(lab, "delete", run_id, "--yes").returncode == 0
    gone = run(lab, "show", run_id)
    assert gone.returncode == 1
    assert "There is no run" in gone.stderr or "there is no run" in gone.stderr


def test_runs_are_compared_in_values_figures_and_errors(lab: Lab) -> None:
    ids = [
        json.loads(run(lab, "train", *DIGITS, "--seed", "5", "--learning-rate", rate, "--json").stdout)["id"]
        for rate in ("0.3", "0.001")
    ]
    said = json.loads(run(lab, "compare", *ids, "--json").stdout)
    assert said["differs"] == {"learning_rate": [0.3, 0.001]}
    assert [one["id"] for one in said["runs"]] == ids
    wrong = [one["test"]["errors"] for one in said["runs"]]
    errors = said["errors"]
    assert errors["only_first"] + errors["both"] == wrong[0]
    assert errors["only_second"] + errors["both"] == wrong[1]
    assert 0 <= errors["mcnemar_p"] <= 1
    told = run(lab, "compare", *ids).stdout
    assert "learning_rate" in told
    assert "McNemar's exact test" in told
    assert run(lab, "compare", ids[0], "0123456789ab").returncode == 1


def test_runs_are_named_noted_tagged_and_archived(lab: Lab) -> None:
    run_id = json.loads(run(lab, "train", *DIGITS, "--seed", "6", "--json").stdout)["id"]
    assert run(lab, "note", run_id, "slow but sure", "--name", "Tortoise").returncode == 0
    assert run(lab, "note", run_id).stdout == "slow but sure\n"
    assert lab.run(run_id).name == "Tortoise"
    assert (
        run(lab, "tag", run_id, "--add", "baseline", "--add", "two words").stdout == f"{run_id}  baseline, two words\n"
    )
    assert run(lab, "tag", run_id, "--remove", "baseline").stdout == f"{run_id}  two words\n"
    refused = run(lab, "tag", run_id, "--add", "x" * 41)
    assert (refused.returncode, "at most 40" in refused.stderr) == (1, True)
    assert run(lab, "archive", run_id).returncode == 0
    assert run_id not in run(lab, "runs").stdout
    assert run(lab, "archive", run_id, "--restore").returncode == 0
    assert run_id in run(lab, "runs").stdout


def test_a_run_is_taken_away_in_every_kind_of_file(lab: Lab, tmp_path: Path) -> None:
    run_id = json.loads(run(lab, "train", *DIGITS, "--seed", "7", "--json").stdout)["id"]
    files = {kind: tmp_path / f"run.{kind}" for kind in ("script", "report", "weights", "csv", "json")}
    done = run(lab, "export", run_id, *(word for kind, path in files.items() for word in (f"--{kind}", str(path))))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(path) for path in files.values()]
    compile(files["script"].read_text(), "script", "exec")
    assert files["report"].read_text().startswith("<!doctype html>")
    assert set(load(files["weights"].read_bytes())) == {"1.weight", "1.bias"}
    assert files["csv"].read_text().count("\n") == 3
    assert json.loads(files["json"].read_text())["id"] == run_id
    assert run(lab, "export", run_id).returncode == 2
    nowhere = run(lab, "export", run_id, "--csv", str(tmp_path / "none" / "x.csv"))
    assert (nowhere.returncode, "No such file" in nowhere.stderr) == (1, True)


def test_exported_configurations_are_trained_again_elsewhere(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "configs.json"
    configs = [parse_config({"dataset": "digits", "epochs": 1, "seed": seed}) for seed in (31, 32)]
    path.write_text(json.dumps([config.model_dump(mode="json") for config in configs]))
    done = run(lab, "import", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert [one["id"] for one in json.loads(done.stdout)["runs"]] == [config.short_id for config in configs]
    path.write_text('[{"epochs": 0}, {"seed": -1}]')
    bad = run(lab, "import", str(path))
    assert bad.returncode == 2
    assert [line.split(":")[0] for line in bad.stderr.splitlines()] == ["1. epochs", "2. seed"]
    assert run(lab, "import", str(tmp_path / "none.json")).returncode == 1


def test_bad_input_is_one_line_per_problem_and_exit_2(lab: Lab) -> None:
    bad = run(
        lab, "train", "--learning-rate", "fast", "--epochs", "0", "--optimizer", "lbfgs", "--hidden", "9,many", "--json"
    )
    assert bad.returncode == 2
    assert bad.stdout == ""
    lines = bad.stderr.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["epochs", "hidden", "learning_rate", "optimizer"]
    assert "learning_rate: must be a number from 1e-07 to 100; got 'fast'" in lines
    assert run(lab, "train", "--no-such-field", "1").returncode == 2


def test_divergence_is_exit_3(lab: Lab) -> None:
    blown_up = ["--inputs", "raw", "--learning-rate", "100", "--momentum", "0.999", "--weight-decay", "10"]
    diverged = run(lab, "train", *DIGITS, *blown_up, "--json")
    assert diverged.returncode == 3
    found = json.loads(diverged.stdout)
    assert found["state"] == "diverged"
    assert found["test"] is None
    assert found["diverged_step"] > 0


def test_a_stopped_run_is_exit_4_and_tells_what_it_kept(lab: Lab) -> None:
    long = ["--dataset", "digits", "--architecture", "mlp", "--hidden", "512", "--batch-size", "16", "--epochs", "1000"]
    config = parse_config(
        {"dataset": "digits", "architecture": "mlp", "hidden": "512", "batch_size": 16, "epochs": 1000}
    )
    with start(lab, "train", *long, "--json") as process:
        eventually(lambda: _epoch(lab, config.short_id) > 0, what="the run trains")
        assert run(lab, "stop", config.short_id).returncode == 0
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 4
    assert json.loads(output)["state"] == "stopped"
    assert lab.run(config.short_id).state is RunState.STOPPED


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_the_run_in_order(lab: Lab) -> None:
    long = ["--dataset", "digits", "--architecture", "mlp", "--hidden", "512", "--batch-size", "8", "--epochs", "1000"]
    config = parse_config(
        {"dataset": "digits", "architecture": "mlp", "hidden": "512", "batch_size": 8, "epochs": 1000}
    )
    with start(lab, "train", *long) as process:
        eventually(lambda: _epoch(lab, config.short_id) > 0, what="the run trains")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 4
    assert lab.run(config.short_id).state is RunState.STOPPED


def test_data_sets_are_told_of_and_fetched(lab: Lab) -> None:
    status = run(lab, "data", "status").stdout
    assert "digits" in status
    assert "ready" in status
    assert run(lab, "data", "fetch", "digits").returncode == 0
    failed = run(lab, "data", "fetch", "mnist")
    assert failed.returncode == 1
    assert run(lab, "data", "fetch", "imagenet").returncode == 2


def test_recipes_are_listed_with_their_claims(lab: Lab) -> None:
    listed = run(lab, "recipes").stdout
    assert all(id in listed for id in RECIPES)
    assert "82 % test accuracy after 3,000 iterations" in listed
    (first, *others) = json.loads(run(lab, "recipes", "--json").stdout)["recipes"]
    assert [first["id"], *(recipe["id"] for recipe in others)] == list(RECIPES)
    assert parse_config(first["config"]) == RECIPES[first["id"]].config
    assert set(first["claims"][0]) == CLAIM


def test_a_recipe_is_trained_with_the_values_that_are_given_besides(lab: Lab) -> None:
    given = ["--recipe", "kaggle-raw-pixels", "--dataset", "digits", "--epochs", "2", "--json"]
    trained = json.loads(run(lab, "train", *given).stdout)
    assert parse_config(trained["config"]) == RECIPES["kaggle-raw-pixels"].config.replace(dataset="digits", epochs=2)
    refused = run(lab, "train", "--recipe", "nope")
    assert refused.returncode == 2
    assert refused.stderr.startswith("recipe: must be one of towards-data-science")


def test_articles_are_trained_where_they_are_missing_and_measured(lab: Lab) -> None:
    first = run(lab, "articles", "--seeds", "2", "--dataset", "digits", "--json")
    assert first.returncode == 0, first.stderr
    said = json.loads(first.stdout)
    assert said["trained"] == len(article_configs(2, "digits"))
    assert [article["id"] for article in said["articles"]] == list(RECIPES)
    for article in said["articles"]:
        assert len(article["test_accuracy"]) == 2
        assert article["verdict"] is None  # claims are about MNIST
    again = run(lab, "articles", "--seeds", "2", "--dataset", "digits", "--json")
    assert json.loads(again.stdout)["trained"] == 0
    assert json.loads(again.stdout)["articles"] == said["articles"]
    assert "The article's figures are of MNIST" in run(lab, "articles", "--seeds", "2", "--dataset", "digits").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_all_of_the_articles(lab: Lab) -> None:
    with start(lab, "articles", "--seeds", "9", "--dataset", "digits", "--json") as process:
        wanted = {config.short_id for config in article_configs(9, "digits")}
        eventually(lambda: len({run.id for run in lab.runs()} & wanted) == len(wanted), what="all are asked for")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 4
    assert json.loads(output)["seeds"] == 9
    assert not any(run.state.active for run in lab.runs())


def test_the_doctor_looks_at_everything(lab: Lab) -> None:
    said = run(lab, "doctor")
    assert "ok   engine: trains on CPU" in said.stdout
    assert "store" in said.stdout


def test_a_lab_of_its_own_is_started_and_ended(tmp_path: Path, digits: Path) -> None:
    settings = Settings(home=tmp_path / "alone", data=digits / "none", device="cpu")

    shutil.copytree(digits, settings.prepared)
    environment = os.environ | {"MNISTLR_HOME": str(settings.home), "MNISTLR_DATA": str(settings.data)}
    command = [sys.executable, "-m", "mnistlr_core", "train", *DIGITS, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"
    assert not (settings.engine / "scheduler.json").exists()


def run(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    with start(lab, *arguments) as process:
        output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def start(lab: Lab, *arguments: str) -> subprocess.Popen[str]:
    surroundings: dict[str, Any] = {"MNISTLR_HOME": str(lab.settings.home), "MNISTLR_DATA": str(lab.settings.data)}
    # Ctrl-C must reach the process although a shell's background jobs, and so perhaps this one, ignore it.
    interruptible = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = interruptible + "from mnistlr_core.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _epoch(lab: Lab, run_id: str) -> int:
    found = [run for run in lab.runs() if run.id == run_id]
    return found[0].epoch if found else 0
