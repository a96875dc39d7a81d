"""Dask: start or join a cluster, keep it alive, and hand it what the store says is waiting.

The store owns the queue. Dask holds only what fits on the workers and one more, so whatever it forgets or kills is
simply handed out again. The tasks are named by text, so that neither this process nor the scheduler loads torch.
"""

from __future__ import annotations

import importlib
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mnistlr_core.attempts import Attempts
from mnistlr_core.cluster import LocalCluster, scheduler_address
from mnistlr_core.errors import EngineUnavailable, StoreError
from mnistlr_core.settings import Settings
from mnistlr_core.store import Store

if TYPE_CHECKING:  # imported by the thread that needs it: a stored answer, and the first page, need no Dask
    from distributed import Client, Future

__all__ = ["Engine"]

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_CONNECT_SECONDS = 5
_HEAD_START_SECONDS = 1.0
"""What the first page gets before the cluster starts, which takes two processors for some seconds; a run to be trained
cuts it short."""

_MOST_AT_ONCE = 64
"""Runs looked at in one round; the next round comes soon."""
_SLOT = "slot"
"""The resource a worker has one of: one run trains at a time, while its other threads serve small requests."""


class Engine:
    """A thread that keeps a cluster and its queue going. It is started at most once; `close` ends what it started.

    One process per home owns the local cluster, by a file lock that its death releases; others join it, and whoever
    gets the lock next starts a new one.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._settings_json = settings.model_dump_json()
        self._store = store
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None
        self._owner = FileLock(settings.engine / "owner.lock")
        self._training: dict[str, tuple[str, Future[Any]]] = {}
        self._asked: set[str] = set()
        self._preparing: dict[str, Future[Any] | None] = {}
        self._device: Future[Any] | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self.trouble: str | None = None
        """Why nothing is being trained just now, in words for the user; None when all is well."""

    def start(self) -> None:
        """Begin supervising, in the background; does nothing when that has begun."""
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._supervise, name="mnistlr-engine", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Look at the queue now: something was submitted."""
        self.start()
        self._wake.set()

    def prepare(self, dataset: str) -> None:
        """Have a worker make a data set ready; asked again while that is going on, it does nothing."""
        self._asked.add(dataset)
        self.start()

    def preparing(self, dataset: str) -> bool:
        """Whether a data set asked for is not done yet."""
        return dataset in self._asked or dataset in self._preparing

    @property
    def device(self) -> str | None:
        """The name of what the worker trains on, or None while it is starting."""
        if self._device is not None and self._device.status == "finished":
            with suppress(Exception):  # the scheduler may be gone between the two
                return str(self._device.result(timeout=1))
        return None

    def close(self) -> None:
        """Stop supervising; end the cluster if it is ours. Runs in training go on from their checkpoints later."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=15)

    def _supervise(self) -> None:
        self._wake.wait(_HEAD_START_SECONDS)
        try:
            while not self._closing.is_set():
                try:
                    self._tend()
                    self.trouble = None
                except EngineUnavailable as error:
                    self.trouble = str(error)
                except StoreError as error:
                    self.trouble = str(error)
                except Exception:
                    log.exception("the engine stumbled; it goes on")
                    self._disconnect()
                self._wake.wait(_TICK_SECONDS)
                self._wake.clear()
        finally:
            self._disconnect()
            if self._cluster is not None:
                self._cluster.close()
            self._owner.release()

    def _tend(self) -> None:
        """One round: a cluster that lives, a client that is connected, and full hands."""
        if self._settings.scheduler is None:
            self._tend_cluster()
        client = self._connected()
        self._collect()
        for dataset in self._asked.copy():
            self._preparing.setdefault(dataset, None)
            self._asked.discard(dataset)
        for dataset, preparing in self._preparing.items():
            if preparing is None:
                self._preparing[dataset] = self._submit(client, f"prepare-{dataset}", "prepare", dataset)
        waiting = self._store.waiting(len(self._training) + _MOST_AT_ONCE)
        fresh = [(run_id, ticket) for run_id, ticket in waiting if run_id not in self._training]
        if fresh:
            slots, resources = self._slots(client)
            for run_id, ticket in fresh[: max(0, slots + 1 - len(self._training))]:
                future = self._submit(client, f"train-{ticket}", "train", run_id, ticket, resources=resources)
                self._training[run_id] = (ticket, future)

    def _tend_cluster(self) -> None:
        if self._cluster is not None:
            if self._cluster.tend():
                return
            log.warning("the scheduler is gone; starting a new cluster")
            self._disconnect()
            self._cluster.close()
            self._cluster = None
        if not self._owner.is_locked:
            self._settings.engine.mkdir(parents=True, exist_ok=True)
            try:
                self._owner.acquire(blocking=False)
            except Timeout:
                return  # another process has the cluster; join it
        self._disconnect()
        self._cluster = LocalCluster(self._settings)

    def _connected(self) -> Client:
        if self._client is not None and self._client.status == "running":
            return self._client
        self._disconnect()
        address = self._settings.scheduler or scheduler_address(self._settings)
        if address is None:
            raise EngineUnavailable("the training engine is starting")
        import dask
        from distributed import Client

        try:
            with dask.config.set({"distributed.comm.retry.count": 0}):
                self._client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="mnistlr")
        except (OSError, TimeoutError) as error:
            raise EngineUnavailable("the training engine's scheduler does not answer; trying again") from error
        self._device = self._submit(self._client, "warm", "warm")
        return self._client

    def _disconnect(self) -> None:
        client, self._client, self._device = self._client, None, None
        self._training.clear()
        self._preparing = dict.fromkeys(self._preparing)  # to be asked of the next cluster
        if client is not None:
            with suppress(Exception):  # a client whose scheduler died complains while closing
                client.close(timeout=2)

    def _collect(self) -> None:
        """Let go of what ended. A task that failed before its run began counts against the run."""
        for run_id, (ticket, future) in list(self._training.items()):
            if not _over(future):
                continue
            del self._training[run_id]
            if future.status == "error":
                error = future.exception()
                log.warning("task of run %s failed: %s", run_id, error)
                Attempts(self._store).strike(
                    run_id, ticket, f"The worker could not train it: {type(error).__name__}: {error}"[:400]
                )
        self._preparing = {
            name: future for name, future in self._preparing.items() if future is None or not _over(future)
        }

    def _slots(self, client: Client) -> tuple[int, dict[str, int] | None]:
        """How many runs train at once, and what a task must ask for. Workers of a joined cluster may have no slots."""
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        slots = int(sum(worker.get("resources", {}).get(_SLOT, 0) for worker in workers))
        if slots:
            return slots, {_SLOT: 1}
        if self._settings.scheduler is None:
            return 0, {_SLOT: 1}  # our own workers are starting
        return sum(worker["nthreads"] for worker in workers), None

    def _submit(
        self, client: Client, key: str, task: str, *arguments: str, resources: dict[str, int] | None = None
    ) -> Future[Any]:
        """Equal keys are one task, whichever process submits them."""
        return client.submit(_call, task, self._settings_json, *arguments, key=key, resources=resources, retries=0)


def _over(future: Future[Any]) -> bool:
    return bool(future.status != "pending")


def _call(task: str, *arguments: str) -> Any:
    """Run a function of `mnistlr_core.tasks`, which only a worker loads."""
    return getattr(importlib.import_module("mnistlr_core.tasks"), task)(*arguments)
