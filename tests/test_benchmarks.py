"""The training benchmark: ratios are paired by round, nothing is left out in silence, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import digits, training
from benchmarks.__main__ import main
from benchmarks.measure import ENGINE, Machine, ModelReport, Outcome, Report, Spread, Standing, ratio, spread
from benchmarks.report import to_json, to_text


def standing(key: str, *seconds: float, accuracy: float | None = None) -> Standing:
    return Standing(key, f"the {key}", tuple(Outcome((value,), accuracy) for value in seconds))


@pytest.fixture
def report() -> Report:
    compiled = Outcome((0.2, 0.4, 0.3), 0.9, first_epoch=1.5)
    standings = (
        standing(ENGINE, 0.1, 0.2, 0.1, accuracy=0.82),
        Standing("products", "the products", tuple(Outcome((value,), None, threads=1) for value in (0.05, 0.05, 0.04))),
        Standing("keras", "the keras", (compiled, compiled, compiled)),
        standing("article", 5.0, 8.0, 6.0, accuracy=0.81),
        Standing("skorch", "the skorch", (), absent="Not installed: skorch; pip install it"),
    )
    machine = Machine("a CPU", 2, 2, 0.5, "Linux x86_64", {"torch": "2.0", "skorch": None})
    model = ModelReport("linear", "Linear, SGD", 5, 3, standings)
    return Report("2026-01-01T00:00:00+00:00", "real MNIST", True, machine, (model,))


def test_a_spread_is_the_median_and_the_range() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == Spread(median=2.5, low=1.0, high=10.0, n=4)


def test_a_round_counts_with_the_median_of_its_epochs() -> None:
    assert Outcome((1.0, 9.0, 2.0), accuracy=None).seconds == 2.0


def test_ratios_are_taken_within_a_round() -> None:
    """The machine is ten times slower in the second round; the ratio of the medians would be 20, or 2."""
    slow_then = ratio(standing("a", 2.0, 20.0, 2.0), standing("b", 1.0, 10.0, 1.0))
    assert slow_then == Spread(2.0, 2.0, 2.0, 3)
    assert ratio(standing("a", 1.0, 4.0, 9.0), standing("b", 1.0, 2.0, 3.0)) == Spread(2.0, 1.0, 3.0, 3)


def test_what_was_not_measured_has_no_ratio(report: Report) -> None:
    (model,) = report.models
    assert ratio(None, standing("b", 1.0)) is None
    assert model.ratio("skorch", ENGINE) is None
    assert model.ratio("nobody", ENGINE) is None


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio(standing("a", 1.0, 2.0), standing("b", 1.0))


def test_the_table_has_every_contender_and_both_promises(report: Report) -> None:
    lines = to_text(report).splitlines()
    cells = [line.split() for line in lines]
    assert ["the", "engine", "0.100", "0.100–0.200", "3", "1.00", "1.00–1.00", "3", "0.8200", "–"] in cells
    assert ["the", "products", "0.0500", "0.0400–0.0500", "3", "0.400", "0.250–0.500", "3", "–", "–"] in cells
    assert "the skorch: absent. Not installed: skorch; pip install it" in lines
    assert "article's loop / engine: 50.0 (40.0–60.0 over 3 rounds)" in lines
    assert "engine / bare products: 2.50 (2.00–4.00 over 3 rounds)" in lines
    assert "the keras: the first epoch, which compiles and isn't counted, took 1.50 s at most" in lines
    assert "the products: threads of the faster measurement: 1" in lines


def test_the_table_says_so_when_a_promise_was_not_measured(report: Report) -> None:
    (model,) = report.models
    alone = ModelReport("linear", model.title, 5, 3, model.standings[1:2])
    text = to_text(Report(report.started_at, report.data, True, report.machine, (alone,)))
    assert "article's loop / engine: not measured" in text.splitlines()


def test_only_calm_rounds_count_where_there_are_any() -> None:
    calm, busy = 0.02, 0.5
    a = Standing("a", "the a", (Outcome((2.0,), None, others=calm), Outcome((90.0,), None, others=busy)))
    b = Standing("b", "the b", (Outcome((1.0,), None, others=calm), Outcome((1.0,), None, others=calm)))
    assert a.seconds == Spread(2.0, 2.0, 2.0, 1)
    assert ratio(a, b) == Spread(2.0, 2.0, 2.0, 1)
    assert a.others == calm
    assert not a.disturbed


def test_a_contender_without_a_calm_round_is_marked() -> None:
    busy = Outcome((1.0,), None, others=0.5)
    model = ModelReport("linear", "Linear", 5, 2, (Standing("a", "the a", (busy, busy)),))
    text = to_text(Report("", "", True, Machine("", 2, 2, None, "", {}), (model,)))
    assert "the a: NOT VALID, other processes took more than 10% of the processors throughout" in text


def test_json_keeps_the_raw_seconds_and_adds_what_follows_from_them(report: Report) -> None:
    value = json.loads(json.dumps(to_json(report), allow_nan=False))
    (model,) = value["models"]
    engine, products, keras, article, skorch = model["standings"]
    assert [outcome["epochs"] for outcome in engine["outcomes"]] == [[0.1], [0.2], [0.1]]
    assert keras["outcomes"][0] == {
        "epochs": [0.2, 0.4, 0.3],
        "accuracy": 0.9,
        "first_epoch": 1.5,
        "threads": None,
        "others": None,
    }
    assert keras["seconds_per_epoch"] == {"median": 0.3, "low": 0.3, "high": 0.3, "n": 3}
    assert products["ratio_to_engine"] == pytest.approx({"median": 0.4, "low": 0.25, "high": 0.5, "n": 3})
    assert article["seconds_per_epoch"]["median"] == 6.0
    assert skorch["seconds_per_epoch"] is None
    assert skorch["ratio_to_engine"] is None
    assert skorch["absent"]
    assert model["ratios"]["engine / bare products"] == {"median": 2.5, "low": 2.0, "high": 4.0, "n": 3}
    assert value["machine"]["versions"] == {"torch": "2.0", "skorch": None}
    assert value["real"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["training", "--epochs", "1"], "whole number from 2, but is '1'"),
        (["training", "--only", "engine,nobody"], "there is no nobody"),
        (["training", "--data", "nowhere"], "there is none in nowhere"),
    ],
)
def test_a_wrong_argument_is_refused_in_words(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err


def test_generated_digits_have_the_forms_that_the_contenders_take() -> None:
    made = digits.generated(50)
    assert (made.train_images.shape, made.train_images.dtype) == ((50, 784), torch.uint8)
    assert made.train_floats.shape == (50, 784)
    assert made.train_floats.dtype == np.float32
    picture, label = made.pictures[7]
    assert torch.equal(picture.flatten(), torch.from_numpy(made.train_floats[7]))
    assert label == made.train_labels[7]
    assert len(made.first(20).train_floats) == 20
    assert not made.is_real


def test_the_benchmark_runs_and_leaves_torch_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNISTLR_DATA", str(tmp_path))
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    file = tmp_path / "report.json"
    only = "engine,article,products,products-nn"
    main(["training", "--images", "130", "--epochs", "2", "--rounds", "2", "--json", str(file), "--only", only])
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    value = json.loads(file.read_text(encoding="utf-8"))
    assert value["data"].startswith("GENERATED")
    for model in value["models"]:
        assert [entry["key"] for entry in model["standings"]] == ["engine", "products", "products-nn", "article"]
        for entry in model["standings"]:
            assert all(len(outcome["epochs"]) == 2 and min(outcome["epochs"]) > 0 for outcome in entry["outcomes"])
        # Rounds that other processes disturbed don't count, and that is not this test's to say.
        assert all(found is None or found["n"] <= 2 for found in model["ratios"].values())


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.importlib.util.find_spec", lambda name: None)
    found = training.run(digits.generated(100), models=["linear"], only=["skorch", "engine"], epochs=2, rounds=1)
    text = to_text(found)
    assert "skorch: absent. Not installed: skorch; pip install -r benchmarks/requirements.txt" in text


def test_engine_and_article_learn_the_same() -> None:
    """Same model, steps and start: on the same images they end with nearly the same answers."""
    made = digits.generated(600)
    found = training.run(made, models=["linear"], only=["engine", "article"], epochs=10, rounds=1)
    engine, article = (standing.accuracy for standing in found.models[0].standings)
    assert engine is not None
    assert article is not None
    assert engine == pytest.approx(article, abs=0.05)
    assert engine > 0.2  # guessing reads 0.1
