"""What workers write to the store: claims, progress, ends.

Training a run needs a `claim`, which raises the run's attempt number; every later write names that number, so that a
worker which was frozen, cut off or thought dead is refused (`FenceLost`) once another one has taken over. A claim is a
lease: unless it is renewed the run is given out again, from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from mnistlr_core import schema
from mnistlr_core.artifacts import Stored
from mnistlr_core.errors import FenceLost
from mnistlr_core.records import Claim, EpochRow, Result, RunState, Speed, TestRow
from mnistlr_core.store import ACTIVE, Store, checkpoints_of, config_of, finite, insert_speed, update_run

__all__ = ["LEASE_SECONDS", "MAX_STRIKES", "Attempts"]

LEASE_SECONDS = 15.0
"""How long a claim holds without being renewed. Workers renew it several times as often."""

MAX_STRIKES = 3
"""A run that stops its worker this often without an epoch's progress fails: it would stop every worker in turn."""


class Attempts:
    """The attempts at training the runs of a store; each call is one short transaction.

    Raises (any method): StoreBusy, StoreDamaged, StoreError.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, run_id: str, ticket: str) -> Claim | None:
        """Begin an attempt and take the lease, or None when there is nothing to do: stopped, finished, or held.

        A run that is running may be taken over when its lease ran out, or with the very ticket it was started with:
        then the scheduler has given the task out again, because its worker died. Either counts as a strike; at the
        third one without progress the run fails. Progress beyond the last checkpoint is dropped.
        """
        table = schema.runs
        with self._store.writing() as db:
            now = db.execute(sa.select(schema.database_now())).scalar_one()
            row = db.execute(sa.select(table).where(table.c.id == run_id)).first()
            if row is None or row.state not in ACTIVE:
                return None
            taken_over = row.state == RunState.RUNNING
            if taken_over and row.lease_until >= now and row.ticket != ticket:
                return None
            if taken_over and row.stop_requested:
                db.execute(update_run(run_id).values(state=RunState.STOPPED, finished_at=now, lease_until=None))
                return None
            strikes = row.strikes + taken_over
            if strikes >= MAX_STRIKES:
                error = f"It stopped its worker {strikes} times without finishing an epoch, so it was given up."
                db.execute(
                    update_run(run_id).values(state=RunState.FAILED, error=error, finished_at=now, lease_until=None)
                )
                return None
            checkpoints = checkpoints_of(db, run_id)
            epoch = checkpoints[0][0] if checkpoints else 0
            step, seconds = _rewind(db, run_id, epoch)
            attempt = row.attempts + 1
            notice = (
                f"The worker stopped; the run went on from epoch {epoch} (attempt {attempt})." if taken_over else None
            )
            db.execute(
                update_run(run_id).values(
                    state=RunState.RUNNING,
                    attempts=attempt,
                    strikes=strikes,
                    ticket=ticket,
                    lease_until=now + LEASE_SECONDS,
                    epoch=epoch,
                    step=step,
                    seconds=seconds,
                    error=None,
                    **({"notice": notice} if notice else {}),
                )
            )
            return Claim(run_id, config_of(row), attempt, epoch, step, seconds)

    def strike(self, run_id: str, ticket: str, reason: str) -> None:
        """A worker could not even begin this ticket: three times, and the run fails with the reason."""
        table = schema.runs
        with self._store.writing() as db:
            row = db.execute(sa.select(table.c.strikes, table.c.attempts).where(table.c.id == run_id)).first()
            if row is None or ticket != f"{run_id}-{row.attempts + 1}":
                return
            values: dict[str, Any] = {"strikes": row.strikes + 1}
            if row.strikes + 1 >= MAX_STRIKES:
                values |= {"state": RunState.FAILED, "error": reason, "finished_at": schema.database_now()}
            db.execute(update_run(run_id).where(table.c.state.in_(ACTIVE)).values(**values))

    # A worker's writes, all fenced -----------------------------------------------------------------------------------

    def begin(self, claim: Claim, *, steps_per_epoch: int, device: str, versions: Mapping[str, str]) -> None:
        """Say where and with what the attempt trains.

        Raises (as every fenced write):
            FenceLost: a newer attempt has the run, or it is gone.
        """
        with self._fenced(claim) as db:
            values = {"steps_per_epoch": steps_per_epoch, "device": device, "versions": dict(versions)}
            db.execute(update_run(claim.run_id).values(**values))

    def renew(self, claim: Claim) -> bool:
        """Keep the lease; returns whether the run was asked to stop."""
        with self._fenced(claim) as db:
            return _stop_requested(db, claim.run_id)

    def rewind(self, claim: Claim, epoch: int, notice: str) -> Claim:
        """Fall back to an earlier checkpoint (0: the beginning), because a later one is damaged."""
        with self._fenced(claim) as db:
            step, seconds = _rewind(db, claim.run_id, epoch)
            values = {"epoch": epoch, "step": step, "seconds": seconds, "notice": notice}
            db.execute(update_run(claim.run_id).values(**values))
        return Claim(claim.run_id, claim.config, claim.attempt, epoch, step, seconds)

    def progress(
        self,
        claim: Claim,
        *,
        step: int,
        seconds: float,
        images_per_second: float | None,
        losses: Sequence[tuple[int, NDArray[np.float32]]] = (),
        history: Sequence[tuple[EpochRow, int, float]] = (),
        tests: Sequence[TestRow] = (),
        checkpoint: tuple[int, Stored] | None = None,
    ) -> bool:
        """Commit what was done since the last call, together with its checkpoint; returns whether to stop.

        Args:
            step: optimizer steps done.
            seconds: training seconds of all attempts up to here.
            losses: (first step, losses float32 [n]) pieces, none of which crosses an epoch.
            history: (row, last step, training seconds) of the epochs that ended.
            checkpoint: (epoch, file) that holds the state at that epoch's end. The last two are kept.
        """
        run_id = claim.run_id
        with self._fenced(claim) as db:
            if losses:
                pieces = [{"run_id": run_id, "first_step": first, "losses": _blob(values)} for first, values in losses]
                db.execute(sa.insert(schema.steps), pieces)
            if history:
                db.execute(sa.insert(schema.epochs), [_epoch_values(run_id, *entry) for entry in history])
            if tests:
                rows = [
                    {"run_id": run_id, "step": t.step, "loss": finite(t.loss), "accuracy": t.accuracy} for t in tests
                ]
                db.execute(sa.insert(schema.looks), rows)
            values: dict[str, Any] = {"step": step, "seconds": seconds, "images_per_second": images_per_second}
            if history:
                values |= {"epoch": history[-1][0].epoch, "strikes": 0}
            if checkpoint:
                epoch, stored = checkpoint
                _insert_artifact(db, run_id, f"checkpoint-{epoch}", stored, epoch)
                for _, name, _ in checkpoints_of(db, run_id)[2:]:
                    db.execute(_without_artifact(run_id, name))
            db.execute(update_run(run_id).values(**values))
            return _stop_requested(db, run_id)

    def finish(
        self,
        claim: Claim,
        state: RunState,
        *,
        result: Result | None = None,
        files: Mapping[str, Stored] | None = None,
        error: str | None = None,
        diverged_step: int | None = None,
        speed: Speed | None = None,
    ) -> frozenset[str]:
        """End the attempt. Returns the paths of the files to keep; any other file of the run may go.

        A stopped or failed run keeps its checkpoint, so that it can be taken up again.
        """
        run_id = claim.run_id
        with self._fenced(claim) as db:
            values: dict[str, Any] = {"state": state, "error": error, "diverged_step": diverged_step}
            values |= {"finished_at": schema.database_now(), "lease_until": None, "stop_requested": False}
            if result:
                values |= {
                    "test_loss": finite(result.loss),
                    "test_accuracy": result.accuracy,
                    "test_errors": result.errors,
                }
            db.execute(update_run(run_id).values(**values))
            for name, stored in (files or {}).items():
                _insert_artifact(db, run_id, name, stored, None)
            if state.answered:
                for _, name, _ in checkpoints_of(db, run_id):
                    db.execute(_without_artifact(run_id, name))
            if speed:
                insert_speed(db, speed)
            kept = db.execute(sa.select(schema.artifacts.c.path).where(schema.artifacts.c.run_id == run_id))
            return frozenset(kept.scalars())

    @contextmanager
    def _fenced(self, claim: Claim) -> Iterator[Connection]:
        """A transaction that is refused unless `claim` still has the run; it renews the lease."""
        table = schema.runs
        held = update_run(claim.run_id).where(table.c.attempts == claim.attempt, table.c.state == RunState.RUNNING)
        with self._store.writing() as db:
            if db.execute(held.values(lease_until=schema.database_now() + LEASE_SECONDS)).rowcount != 1:
                raise FenceLost(f"attempt {claim.attempt} of run {claim.run_id} was superseded; it writes no more")
            yield db


def _stop_requested(db: Connection, run_id: str) -> bool:
    return bool(db.execute(sa.select(schema.runs.c.stop_requested).where(schema.runs.c.id == run_id)).scalar_one())


def _rewind(db: Connection, run_id: str, epoch: int) -> tuple[int, float]:
    """Drop everything after `epoch`; returns the steps and seconds up to its end."""
    table = schema.epochs
    at = db.execute(
        sa.select(table.c.step, table.c.seconds).where(table.c.run_id == run_id, table.c.epoch == epoch)
    ).first()
    step, seconds = (at.step, at.seconds) if at else (0, 0.0)
    for later in (
        sa.delete(table).where(table.c.run_id == run_id, table.c.epoch > epoch),
        sa.delete(schema.steps).where(schema.steps.c.run_id == run_id, schema.steps.c.first_step > step),
        sa.delete(schema.looks).where(schema.looks.c.run_id == run_id, schema.looks.c.step > step),
        sa.delete(schema.artifacts).where(schema.artifacts.c.run_id == run_id, schema.artifacts.c.epoch > epoch),
    ):
        db.execute(later)
    return step, seconds


def _insert_artifact(db: Connection, run_id: str, name: str, stored: Stored, epoch: int | None) -> None:
    db.execute(_without_artifact(run_id, name))
    values = {"path": stored.path, "size": stored.size, "sha256": stored.sha256, "epoch": epoch}
    db.execute(sa.insert(schema.artifacts).values(run_id=run_id, name=name, **values))


def _without_artifact(run_id: str, name: str) -> sa.Delete:
    table = schema.artifacts
    return sa.delete(table).where(table.c.run_id == run_id, table.c.name == name)


def _blob(losses: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(losses, dtype="<f4").tobytes()


def _epoch_values(run_id: str, row: EpochRow, step: int, seconds: float) -> dict[str, Any]:
    figures = {name: finite(getattr(row, name)) for name in EpochRow.__dataclass_fields__ if name != "epoch"}
    return {"run_id": run_id, "epoch": row.epoch, "step": step, "seconds": seconds, **figures}
