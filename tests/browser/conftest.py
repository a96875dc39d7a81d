"""A real Chromium, a dashboard for each module, and pages that are looked over when their test has ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Protocol, TypedDict, Unpack
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright

from mnistlr_core import fetch
from tests.browser.server import Server, give_prepared, launch, serve

_TIMEOUT = 60_000  # ms; the machine may be busy


class MakeHome(Protocol):
    """Makes a home for a server, with every prepared data set, or with digits alone."""

    def __call__(self, *, mnist: bool = True) -> Path: ...


class Look(TypedDict, total=False):
    """How a browser context shows a page."""

    color_scheme: Literal["light", "dark"]


class Visit(Protocol):
    """Opens an address in a browser context of its own, which nothing shares with another."""

    def __call__(
        self, address: str = "/", /, *, at: Server | None = None, width: int = 1280, **look: Unpack[Look]
    ) -> Page:
        """Go to `address` at a server, the module's if none is given, in a window `width` pixels wide."""


@pytest.fixture(scope="session")
def browser(wanting: Callable[[str, str], BaseException]) -> Iterator[Browser]:
    expect.set_options(timeout=_TIMEOUT)
    with sync_playwright() as playwright:
        try:
            chromium = launch(playwright)
        except FileNotFoundError as error:
            raise wanting("browser", str(error)) from error
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def everything(digits: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared digits, and MNIST where it is; prepared once, and only read from then on."""
    prepared = tmp_path_factory.mktemp("everything")
    shutil.copytree(digits / "digits", prepared / "digits")
    try:
        root = request.getfixturevalue("mnist_root")
    except pytest.skip.Exception:
        return prepared
    fetch.prepare("mnist", source=root, prepared=prepared)
    return prepared


@pytest.fixture(scope="session")
def make_home(everything: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeHome:
    def make(*, mnist: bool = True) -> Path:
        home = tmp_path_factory.mktemp("home")
        give_prepared(home, everything if mnist else digits)
        return home

    return make


@pytest.fixture(scope="module")
def server(make_home: MakeHome) -> Iterator[Server]:
    with serve(make_home()) as running:
        yield running
        assert "Traceback" not in running.said, running.said


@pytest.fixture
def start() -> Iterator[Callable[[Path], Server]]:
    """Starts servers for one test, which nobody has asked for anything yet."""
    with ExitStack() as running:
        yield lambda home: running.enter_context(serve(home))


@pytest.fixture
def visit(browser: Browser, start: object, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Opens pages; afterwards none of them may show an exception, or have logged an error.

    Needs `start` only in order to be done before the servers end.
    """
    pages: list[Page] = []
    errors: list[str] = []

    def opened(address: str = "/", /, *, at: Server | None = None, width: int = 1280, **look: Unpack[Look]) -> Page:
        base = (at or request.getfixturevalue("server")).url
        page = browser.new_context(base_url=base, viewport={"width": width, "height": 900}, **look).new_page()
        page.set_default_timeout(_TIMEOUT)
        page.on("console", lambda message: _note(message, errors))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: _refuse(dialog, errors))
        pages.append(page)
        page.goto(address)
        return page

    yield opened
    said = [text for page in pages for text in page.get_by_test_id("stException").all_inner_texts()]
    for page in pages:
        page.context.close()
    assert not said, f"the page shows {said}"
    assert not errors, f"the browser logged {errors}"


def _note(message: ConsoleMessage, errors: list[str]) -> None:
    """Keep an error, unless it is one of Streamlit's own.

    Its page asks other hosts for icons, which may be out of reach, and below an address such as `/train` it first looks
    for its server in a folder of that name.
    """
    address = urlsplit(message.location.get("url", ""))
    outside = address.hostname not in (None, "127.0.0.1") and "net::ERR_" in message.text
    looking = address.path.split("/")[2:3] == ["_stcore"] and "404" in message.text
    if message.type == "error" and not (outside or looking):
        errors.append(f"{message.text} ({address.geturl()})")


def _refuse(dialog: Dialog, errors: list[str]) -> None:
    """No page of ours asks by a dialog of the browser's: a script came in from somewhere."""
    errors.append(f"a dialog says {dialog.message}")
    dialog.dismiss()
