"""A dashboard and a browser for it: `streamlit run app.py` on a free port with a home of its own, and Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psutil
from playwright.sync_api import Browser, Playwright

__all__ = ["NO_MIRROR", "Server", "give_prepared", "launch", "serve"]

ROOT = Path(__file__).resolve().parents[2]
NO_MIRROR = "http://127.0.0.1:9/"
"""Where nothing answers, and at once: a data set can't be fetched from there, whatever network there is."""

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_START_SECONDS = 90.0
_END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A dashboard that answers. `said` is its log so far."""

    url: str
    home: Path
    pid: int
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def launch(playwright: Playwright) -> Browser:
    """The Chromium that is on the path. Raises FileNotFoundError where there is none."""
    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(_CHROMIUM)} is on the path")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=path, args=arguments)


def give_prepared(home: Path, prepared: Path) -> None:
    """Put prepared data sets into a home, so that nothing is prepared again; hard links, which cost nothing."""
    for folder in prepared.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, home / "prepared" / folder.name, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


@contextmanager
def serve(home: Path, *, data: Path | None = None) -> Iterator[Server]:
    """Start a dashboard that trains on the processor; at the end, end it and see that no process of it is left.

    data: torchvision's root; without one there are no data sets but those in `home`, and nothing is downloaded.

    Raises AssertionError when the server doesn't answer in time, or leaves a process behind.
    """
    home.mkdir(parents=True, exist_ok=True)
    log, port = home / "server.log", _free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)),
                *("--server.headless", "true", "--server.fileWatcherType", "none"),
            ],
            cwd=ROOT,
            env=_environment(home, data or home / "no-data"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}", home, process.pid, log)
    try:
        _await_health(server, process)
        yield server
    finally:
        _end(process)


def _environment(home: Path, data: Path) -> dict[str, str]:
    """Ours, less what would tell this or that server otherwise."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MNISTLR_", "STREAMLIT_"))}
    return kept | {
        "MNISTLR_HOME": str(home),
        "MNISTLR_DATA": str(data),
        "MNISTLR_MIRROR": NO_MIRROR,
        "MNISTLR_DEVICE": "cpu",
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _await_health(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + _START_SECONDS
    while monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=5) as answer:  # noqa: S310 - http only
                if answer.read() == b"ok":
                    return
        except (urllib.error.URLError, OSError):
            sleep(0.05)
    raise AssertionError(f"the server did not come up:\n{server.said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(children, timeout=_END_SECONDS)
    names = [" ".join(child.cmdline()) for child in left if child.is_running()]
    for child in left:
        child.kill()
    assert not left, f"the server left processes behind: {names}"
