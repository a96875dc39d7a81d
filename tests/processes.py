"""What the tests need to know of running processes."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

import psutil

__all__ = ["cluster_of", "eventually", "nanny_of", "scheduler_of", "worker_of"]


def eventually(met: Callable[[], object], *, seconds: float = 60.0, what: str = "") -> None:
    """Wait until `met()` is true; fail with `what` when that takes longer than anything here should."""
    deadline = monotonic() + seconds
    while not met():
        if monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or met}")
        sleep(0.05)


def cluster_of(pid: int) -> list[psutil.Process]:
    """Every process below `pid` that belongs to a local cluster."""
    return [child for child in psutil.Process(pid).children(recursive=True) if _is_ours(child)]


def scheduler_of(pid: int) -> psutil.Process:
    return _only(pid, "scheduler")


def nanny_of(pid: int) -> psutil.Process:
    return _only(pid, "worker")


def worker_of(pid: int) -> psutil.Process:
    """The process that trains: the nanny's child, which multiprocessing spawned."""
    for child in nanny_of(pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            return child
    raise psutil.NoSuchProcess(pid, msg="the nanny has no worker just now")


def _only(pid: int, role: str) -> psutil.Process:
    found = [child for child in cluster_of(pid) if child.cmdline()[4:5] == [role]]
    if len(found) != 1:
        raise psutil.NoSuchProcess(pid, msg=f"{len(found)} processes are the {role}")
    return found[0]


def _is_ours(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "mnistlr_core.orphan" in words or "multiprocessing" in words
