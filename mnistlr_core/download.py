"""Downloading a dataset's raw files through torchvision, in a process that can be killed.

torchvision has no timeout, so it runs in a child (`python -m mnistlr_core.download <name> <folder>`) that is killed at
the deadline, and ends itself when its parent dies. `MNISTLR_MIRROR`, one or more base URLs separated by spaces,
replaces torchvision's mirrors; every file is still held to torchvision's md5.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from mnistlr_core.catalogue import DatasetInfo
from mnistlr_core.errors import DownloadFailed

__all__ = ["LAYOUTS", "Layout", "Say", "download"]

Say = Callable[[str, float | None], None]
"""Takes what is being done, in words, and how far it is, 0..1, where that is known."""

_SILENCE_SECONDS = 30.0  # after which the child tries the next mirror
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Layout:
    """What torchvision calls a dataset, and the files it expects below the data folder."""

    class_name: str
    folder: str
    files: tuple[str, ...]

    def is_in(self, root: Path) -> bool:
        return all((root / file).is_file() for file in self.files)

    def by_hand(self) -> str:
        names = ", ".join(Path(file).name for file in self.files)
        where = Path(self.files[0]).parent.as_posix()
        return f"Try again later, or put the unpacked files by hand into {where}/ below the data folder: {names}."


def _idx(class_name: str) -> Layout:
    files = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return Layout(class_name, class_name, tuple(f"{class_name}/raw/{file}" for file in files))


def _cifar(class_name: str, folder: str) -> Layout:
    files = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    return Layout(class_name, folder, tuple(f"{folder}/{file}" for file in files))


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "mnist": _idx("MNIST"),
        "fashion-mnist": _idx("FashionMNIST"),
        "kmnist": _idx("KMNIST"),
        "cifar10": _cifar("CIFAR10", "cifar-10-batches-py"),
    }
)


def download(info: DatasetInfo, root: Path, *, deadline: float, say: Say) -> None:
    """Download one of LAYOUTS into `root`, a folder that is there and empty; `deadline` is a time.monotonic().

    Raises DownloadFailed, and then leaves whatever came in `root`. No child outlives the call.
    """
    by_hand, total, log = LAYOUTS[info.name].by_hand(), info.download_bytes, root / "stderr.txt"
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "mnistlr_core.download", info.name, str(root)],
            stdin=subprocess.PIPE,  # never written to: the child ends itself when our end closes
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
        ) as child,
    ):
        try:
            while child.poll() is None:
                left = deadline - monotonic()
                if left <= 0:
                    raise DownloadFailed(f"{info.title} did not arrive in time. {by_hand}")
                done = sum(file.stat().st_size for file in root.rglob("*.gz"))
                say(f"Downloading {info.title}: {done / 1e6:.1f} of {total / 1e6:.1f} MB.", min(1.0, done / total))
                with suppress(subprocess.TimeoutExpired):
                    child.wait(min(0.25, left))
        finally:
            child.kill()
    if child.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").replace(str(root), "…").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {child.returncode}")
        raise DownloadFailed(f"{info.title} could not be downloaded ({last[:_LONGEST_REASON]}). {by_hand}")


def _try_mirrors(name: str, root: str) -> list[str]:
    """Download from the first mirror that delivers; returns what went wrong at each where none does."""
    from torchvision import datasets

    kind: Any = getattr(datasets, LAYOUTS[name].class_name)
    archive = getattr(kind, "filename", "")  # CIFAR-10 is one archive, the others a file each
    own = os.environ.get("MNISTLR_MIRROR", "").split()
    failures = []
    for mirror in own or getattr(kind, "mirrors", None) or [kind.url.removesuffix(archive)]:
        base = mirror.rstrip("/") + "/"
        # one at a time: torchvision itself goes on to the next mirror only after some kinds of failure
        only = type(kind.__name__, (kind,), {"mirrors": [base], "url": base + archive})
        try:
            only(root, download=True)
        except Exception as error:  # whatever a mirror makes torchvision raise, the next one may do better
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failures.append(f"{urlsplit(mirror).hostname}: {lines[-1]}")
        else:
            return []
    return failures


def _exit_with_parent() -> None:
    while os.read(0, 1):  # b"" once the parent closed its end, or died; sys.stdin would hold a lock at exit
        pass
    os._exit(1)


def _main(name: str, root: str) -> int:
    """The child's whole life; what went wrong is the last line on stderr."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    failures = _try_mirrors(name, root)
    print("; ".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
