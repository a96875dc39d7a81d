"""Pages without a browser and without an engine: opened by a link, their store written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from streamlit.testing.v1 import AppTest

from mnistlr_core import tasks
from mnistlr_core.attempts import Attempts
from mnistlr_core.config import parse_config
from mnistlr_core.records import Claim, Run
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store

__all__ = ["claimed", "progress", "show", "text_of", "trained"]

APP = str(Path(__file__).parents[1] / "app.py")


def show(page_file: str | None = None, /, **query: Any) -> AppTest:
    """The app as a link opens it: its first page, or the page of this file."""
    page = AppTest.from_file(APP, default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = str(value)
    page.run()
    if page_file is not None:
        page.switch_page(page_file).run()
    assert not page.exception, page.exception[0].message
    return page


def text_of(page: AppTest) -> str:
    """All that is said on the page, line by line."""
    said = [
        str(getattr(element, "value", ""))
        for kind in ("markdown", "caption", "warning", "error", "info")
        for element in page.get(kind)
    ]
    return "\n".join([*said, *(element.proto.text for element in page.get("progress"))])


def claimed(store: Store, config: Any) -> tuple[Claim, Attempts]:
    attempts = Attempts(store)
    run_id = store.submit(config).run_id
    claim = attempts.claim(run_id, f"{run_id}-1")
    assert claim is not None
    return claim, attempts


def progress(attempts: Attempts, claim: Claim, *, steps: int, first: int = 1) -> None:
    losses = np.linspace(2, 1, steps).astype(np.float32)
    attempts.progress(claim, step=first + steps - 1, seconds=2.0, images_per_second=1000.0, losses=[(first, losses)])


def trained(settings: Settings, store: Store, values: dict[str, Any]) -> Run:
    run_id = store.submit(parse_config(values)).run_id
    tasks.train(settings.model_dump_json(), run_id, f"{run_id}-1")
    return store.run(run_id)
