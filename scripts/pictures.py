"""Take a picture of every page in every state, on light and dark, on a desk and on a phone.

    python scripts/pictures.py [--out pictures] [--data ROOT] [--only WORDS]

Starts a server of its own on real MNIST, or on digits where MNIST is neither in ROOT, in MNISTLR_DATA nor beside the
checkout; trains what is needed; and writes `train-finished-1280-dark.png` and its like, each as high as its page.
`--only live` takes only the pictures with `live` in their names. Needs what the browser tests need.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import Browser, Page, expect, sync_playwright

from mnistlr_core import fetch
from mnistlr_core.catalogue import DATASETS
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.download import LAYOUTS
from mnistlr_core.lab import Lab
from mnistlr_core.records import Run
from mnistlr_core.settings import Settings
from tests.browser.server import Server, give_prepared, launch, serve
from tests.processes import eventually

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

LINEAR: dict[str, Any] = {"learning_rate": 0.1}
MLP: dict[str, Any] = {"architecture": "mlp", "hidden": "128, 64", "optimizer": "adam", "learning_rate": 0.001}
STOPPED: dict[str, Any] = {"architecture": "mlp", "learning_rate": 0.3, "epochs": 200}
DIVERGED: dict[str, Any] = {"inputs": "raw", "momentum": 0.999, "weight_decay": 10, "learning_rate": 100}
FAILED: dict[str, Any] = {"dataset": "kmnist"}
LIVE: dict[str, Any] = {"architecture": "mlp", "learning_rate": 0.1, "epochs": 20}
WAITING: dict[str, Any] = {"seed": 1}


@dataclass(frozen=True, slots=True)
class Scene:
    """One state of one page: where it is, and the words that are on it once it has come."""

    name: str
    address: str
    words: str


def main(arguments: list[str] | None = None) -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "pictures", help="the folder that the pictures go to")
    parser.add_argument("--data", type=Path, help="torchvision's root, with real MNIST below it")
    parser.add_argument("--only", default="", help="take only the pictures with this in their names")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    data = _mnist_root(options.data)
    print("On real MNIST." if data else "MNIST is not here: on scikit-learn's digits instead.")
    with tempfile.TemporaryDirectory(prefix="mnistlr-pictures-", ignore_cleanup_errors=True) as scratch:
        prepared = _prepare(Path(scratch) / "prepared", data)
        with _chromium() as browser:
            _with_data(browser, Path(scratch), prepared, dataset="mnist" if data else "digits", options=options)
            _without_mnist(browser, Path(scratch), prepared, options)


def _with_data(browser: Browser, scratch: Path, prepared: Path, *, dataset: str, options: argparse.Namespace) -> None:
    """Every state that needs no fault in the surroundings, on one server."""
    home = scratch / "home"
    give_prepared(home, prepared)
    configs = {
        name: parse_config({"dataset": dataset} | values)
        for name, values in {
            "finished": LINEAR,
            "finished-mlp": MLP,
            "stopped": STOPPED,
            "diverged": DIVERGED,
            "failed": FAILED,
            "live": LIVE,
            "queued": WAITING,
        }.items()
    }
    links = {name: f"/?run={config.short_id}" for name, config in configs.items()}
    with serve(home) as server, closing(Lab(Settings(home=home))) as lab:
        _shoot(browser, server, options, Scene("train-empty", "/", "What happens if I change this?"))
        _train(lab, configs)
        scenes = [
            Scene("train-live", links["live"], "Pause live updates"),
            Scene("train-queued", links["queued"], "Queued"),
            Scene("train-recent", "/", "Trained before"),
            Scene("train-finished", links["finished"], "Most confused"),
            Scene("train-finished-mlp", links["finished-mlp"], "Most confused"),
            Scene("train-stopped", links["stopped"], "Most confused"),
            Scene("train-diverged", links["diverged"], "Diverged at step"),
            Scene("train-failed", links["failed"], "Failed."),
            Scene("train-bad-input", f"/?{urlencode({'learning_rate': 'fast', 'seed': -1})}", "must be a number"),
            Scene("train-unknown-run", "/?run=0123456789ab", "There is no run"),
            Scene("train-recipe", "/?recipe=sigmoid-mlp&inputs=unit", "Differs in"),
            Scene("articles", "/articles", "Five articles, checked"),
            *(
                Scene(f"data-{name}", f"/data?{urlencode({'data_set': DATASETS[shown].title})}", "Data sets")
                for name, shown in {"digits": "digits", dataset: dataset, "missing": "fashion-mnist"}.items()
            ),
        ]
        for scene in scenes:
            _shoot(browser, server, options, scene)
            if scene.name == "train-queued":
                for name in ("queued", "live"):
                    lab.stop(configs[name].short_id)


def _train(lab: Lab, configs: dict[str, RunConfig]) -> None:
    """Bring every run into the state that it is named for; the last two are still at it."""
    for name in ("finished", "finished-mlp", "diverged", "failed", "stopped"):
        run_id = lab.submit(configs[name]).run_id
        if name == "stopped":
            _await(lab, run_id, lambda run: run.epoch >= 3)
            lab.stop(run_id)
        run = _await(lab, run_id, lambda run: not run.state.active)
        if run.state != name.partition("-")[0]:
            raise SystemExit(f"The run meant as {name} is {run.state}: {run.error}")
    _await(lab, lab.submit(configs["live"]).run_id, lambda run: run.epoch >= 2)
    lab.submit(configs["queued"])


def _await(lab: Lab, run_id: str, met: Callable[[Run], bool]) -> Run:
    eventually(lambda: met(lab.run(run_id)), seconds=300, what=f"run {run_id}")
    return lab.run(run_id)


def _without_mnist(browser: Browser, scratch: Path, prepared: Path, options: argparse.Namespace) -> None:
    """The first page where MNIST is not here and can't be fetched."""
    home = scratch / "home-without"
    shutil.copytree(prepared / "digits", home / "prepared" / "digits")
    with serve(home) as server:
        _shoot(browser, server, options, Scene("train-no-mnist", "/", "MNIST could not be"))


def _shoot(browser: Browser, server: Server, options: argparse.Namespace, scene: Scene) -> None:
    for width in WIDTHS:
        for scheme in SCHEMES:
            name = f"{scene.name}-{width}-{scheme}.png"
            if options.only not in name:
                continue
            context = browser.new_context(
                base_url=server.url, color_scheme=scheme, viewport={"width": width, "height": 900}
            )
            with closing(context):
                page = context.new_page()
                page.goto(scene.address)
                expect(page.get_by_text(scene.words).first).to_be_visible(timeout=90_000)
                _settle(page, width)
                page.screenshot(path=options.out / name, animations="disabled")
            print(name, flush=True)


def _settle(page: Page, width: int) -> None:
    """Make the window as high as its page, so that all of it is in the picture, and wait for what comes late."""
    height = 0
    for _ in range(6):
        page.wait_for_timeout(500)
        # The height of what is in the scrolled area; its own is never less than the window's.
        needed = page.evaluate(
            "Math.ceil(document.querySelector('[data-testid=stMainBlockContainer]').getBoundingClientRect().height)"
        )
        if needed == height and page.get_by_test_id("stSkeleton").count() == 0:
            return
        height = int(needed)
        page.set_viewport_size({"width": width, "height": max(height, 500)})


def _prepare(prepared: Path, data: Path | None) -> Path:
    fetch.prepare("digits", source=prepared / "none", prepared=prepared)
    if data is not None:
        fetch.prepare("mnist", source=data, prepared=prepared)
    return prepared


def _mnist_root(given: Path | None) -> Path | None:
    offered = (given, os.environ.get("MNISTLR_DATA"), ROOT.parent / "shared" / "mnist")
    return next((Path(root) for root in offered if root and LAYOUTS["mnist"].is_in(Path(root))), None)


@contextmanager
def _chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright, closing(launch(playwright)) as browser:
        yield browser


if __name__ == "__main__":
    main()
