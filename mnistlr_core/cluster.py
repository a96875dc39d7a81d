"""A Dask scheduler and its workers as plain subprocesses on loopback, which end with the process that started them.

Never by multiprocessing: Streamlit swaps `sys.modules["__main__"]`, so a spawned child would run the dashboard again.
Every child holds the read end of a pipe and leaves when the other end closes (see `orphan`), so that neither Ctrl-C nor
`kill -9` of the server leaves a process behind. What Dask is told in `_DASK` was measured; each line says why.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from mnistlr_core.errors import EngineUnavailable
from mnistlr_core.settings import Settings

__all__ = ["LocalCluster", "scheduler_address"]

log = logging.getLogger(__name__)

_START_SECONDS = 20.0

_DASK = """\
distributed:
  scheduler:
    allowed-failures: 1000000    # a dying worker fails innocent tasks too; the store counts the attempts instead
    worker-saturation: 1.0
    worker-ttl: 60s              # 5 min by default, for a worker that froze
    work-stealing: false
    active-memory-manager: {start: false}
  worker:
    profile: {enabled: false}    # it would stop the training a hundred times a second to look at its stack
    memory: {target: false, spill: false, pause: false}   # 'pause' would silently start no new task
  nanny:
    pre-spawn-environ:
      MALLOC_TRIM_THRESHOLD_: 268435456    # Dask's 64 kB hands every batch's buffer back to the system
      CUBLAS_WORKSPACE_CONFIG: ":4096:8"   # deterministic matrix products on a GPU
      # How long OpenMP's threads spin before they sleep; 300,000 by default. On an idle machine it makes no difference
      # here (1.3 to 1.9 s an MLP epoch); with one other busy process on two processors it is 3 s instead of 15 s.
      GOMP_SPINCOUNT: 1000
  comm:
    timeouts: {tcp: 30s}
  admin:
    system-monitor: {interval: 5s}
"""


class LocalCluster:
    """A scheduler and `settings.workers` workers, started now; `close` or this process's death ends them."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.engine
        self._folder.mkdir(parents=True, exist_ok=True)
        self._config = self._folder / "dask.yaml"
        self._config.write_text(_DASK, encoding="utf-8")
        self._file = self._folder / "scheduler.json"
        self._file.unlink(missing_ok=True)
        self._settings = settings
        loopback = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard"]
        self._scheduler = self._start("scheduler", [*loopback, "--port", "0", "--scheduler-file", str(self._file)])
        self._worker_arguments = [
            *("--scheduler-file", str(self._file), *loopback),
            *("--nworkers", str(settings.workers), "--nthreads", "4"),
            *("--resources", "slot=1", "--memory-limit", "0", "--death-timeout", "30"),
            *("--local-directory", str(self._folder / "scratch")),
        ]
        self._worker: subprocess.Popen[bytes] | None = None
        try:
            self.address = self._wait_for_address()
            self._worker = self._start("worker", self._worker_arguments)
        except BaseException:
            self.close()
            raise

    def tend(self) -> bool:
        """Restart the workers if they are gone; returns False when the scheduler is, so that all must begin anew."""
        if self._scheduler.poll() is not None:
            return False
        if self._worker is not None and self._worker.poll() is not None:
            log.warning("the workers ended with code %s; starting them again", self._worker.returncode)
            _leave(self._worker)
            self._worker = self._start("worker", self._worker_arguments)
        return True

    def close(self) -> None:
        """End the children and wait for them. The closed pipe is the order; a kill follows where it isn't obeyed."""
        children = [child for child in (self._worker, self._scheduler) if child is not None]
        for child in children:
            _leave(child)
        for child in children:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._file.unlink(missing_ok=True)

    def _start(self, role: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        # The children's environment is ours, and their Dask configuration the file written above.
        command = [sys.executable, "-m", "mnistlr_core.orphan", str(self._config), role, *arguments]
        with _log_file(self._folder / f"{role}.log") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=Path(__file__).parent.parent,
                # Ctrl-C in the terminal reaches the server alone, which then ends them in order.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def _wait_for_address(self) -> str:
        deadline = monotonic() + _START_SECONDS
        while monotonic() < deadline:
            if (address := scheduler_address(self._settings)) is not None:
                return address
            if self._scheduler.poll() is not None:
                break
            sleep(0.02)
        raise EngineUnavailable(
            f"the scheduler did not start; its log is {self._folder.name}/scheduler.log in MNISTLR_HOME"
        )


def _leave(child: subprocess.Popen[bytes]) -> None:
    """Close the pipe that keeps a child alive."""
    if child.stdin:
        with suppress(OSError):
            child.stdin.close()


def scheduler_address(settings: Settings) -> str | None:
    """The address in the local cluster's scheduler file, or None when there is none, or half of one."""
    try:
        return str(json.loads((settings.engine / "scheduler.json").read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError):
        return None


def _log_file(path: Path) -> IO[bytes]:
    """The child's log, begun anew when it has grown over a megabyte."""
    grown = path.exists() and path.stat().st_size > 1_000_000
    return path.open("wb" if grown else "ab")
