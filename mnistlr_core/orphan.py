"""The entry of the local cluster's processes, which makes them end with their parent.

    python -m mnistlr_core.orphan DASK_YAML scheduler|worker ARGUMENTS...

Standard input is a pipe whose other end only the parent holds. When that closes, however the parent died, this process
leaves at once. No signal is involved, so it works alike on Linux, macOS and Windows. (The worker proper is a child of
Dask's nanny and dies with it.)
"""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["main"]


def _leave_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # nothing here is worth an orderly exit: what matters is in the store


def main(arguments: list[str]) -> None:
    """Become `dask scheduler` or `dask worker`, configured by the given file."""
    threading.Thread(target=_leave_with_parent, name="leave-with-parent", daemon=True).start()
    config, role, *rest = arguments
    os.environ["DASK_CONFIG"] = config  # must stand before dask is imported; the nanny's child inherits it
    from distributed.cli import dask_scheduler, dask_worker

    command = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}[role]
    command(rest, prog_name=f"mnistlr-{role}")


if __name__ == "__main__":
    main(sys.argv[1:])
