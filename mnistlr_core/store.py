"""Runs, their histories and their queue in SQL: the only owner of a run's state.

A run exists once its row does. Training one needs a `claim`, which raises the run's attempt number; every later write
names that number, so that a worker which was frozen, cut off or thought dead is refused (`FenceLost`) once another one
has taken over. A claim is a lease: unless it is renewed the run is given out again, from its last checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from mnistlr_core import schema
from mnistlr_core.artifacts import Stored
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.errors import FenceLost, RunActive, RunNotFound, StoreDamaged
from mnistlr_core.records import Claim, EpochRow, Outcome, Result, Run, RunState, Speed, Submission, TestRow

__all__ = ["LEASE_SECONDS", "MAX_STRIKES", "Store"]

LEASE_SECONDS = 15.0
"""How long a claim holds without being renewed. Workers renew it several times as often."""

MAX_STRIKES = 3
"""A run that stops its worker this often without an epoch's progress fails: it would stop every worker in turn."""

_ACTIVE = (RunState.QUEUED, RunState.RUNNING)


class Store:
    """The database of runs. Cheap to keep, safe to share between threads; each call is one short transaction.

    Raises (any method): StoreBusy, StoreDamaged, StoreError.
    """

    def __init__(self, url: str) -> None:
        self._engine = schema.open_database(url)
        self._name = sa.make_url(url).database or "database"

    def close(self) -> None:
        self._engine.dispose()

    # Submitting and reading ------------------------------------------------------------------------------------------

    def submit(self, config: RunConfig) -> Submission:
        """Ask for a run: known answers are cached, runs in flight joined, stopped and failed ones taken up again.

        Decided in one transaction, so that equal submits from any number of processes make one run.
        """
        with self._writing() as db:
            row = db.execute(sa.select(schema.runs.c.state).where(schema.runs.c.digest == config.digest)).first()
            if row is None:
                now = schema.database_now()
                values = {"id": config.short_id, "digest": config.digest, "config": config.stored()}
                try:
                    db.execute(
                        sa.insert(schema.runs).values(**values, state=RunState.QUEUED, created_at=now, queued_at=now)
                    )
                except IntegrityError:  # PostgreSQL: another process inserted it since the select
                    return Submission(config.short_id, Outcome.JOINED)
                return Submission(config.short_id, Outcome.NEW)
            outcome = _outcome(RunState(row.state))
            if outcome is Outcome.RESUMED:
                db.execute(_update(config.short_id).values(**_QUEUED_AGAIN, strikes=0, queued_at=schema.database_now()))
            elif outcome is Outcome.JOINED:  # somebody wants it after all
                db.execute(_update(config.short_id).values(stop_requested=False))
            return Submission(config.short_id, outcome)

    def preview(self, config: RunConfig) -> Outcome:
        """What `submit` would come to, without doing anything."""
        with self._reading() as db:
            state = db.execute(sa.select(schema.runs.c.state).where(schema.runs.c.digest == config.digest)).scalar()
        return Outcome.NEW if state is None else _outcome(RunState(state))

    def run(self, run_id: str) -> Run:
        """One run by its id, or by any longer part of its digest.

        Raises:
            RunNotFound: there is none.
        """
        if len(run_id) < 12:
            raise RunNotFound(f"a run's id has 12 digits or letters a–f; got {run_id[:80]!r}")
        with self._reading() as db:
            row = db.execute(sa.select(schema.runs).where(schema.runs.c.id == run_id[:12])).first()
        if row is None or not row.digest.startswith(run_id):
            raise RunNotFound(f"there is no run {run_id[:80]!r} here; it may have been deleted")
        return _run(row)

    def runs(self, *, limit: int = 100, offset: int = 0) -> tuple[Run, ...]:
        """Runs, newest first."""
        query = sa.select(schema.runs).order_by(schema.runs.c.created_at.desc(), schema.runs.c.id)
        with self._reading() as db:
            return tuple(_run(row) for row in db.execute(query.limit(limit).offset(offset)))

    def history(self, run_id: str) -> tuple[EpochRow, ...]:
        """A run's finished epochs, first to last."""
        columns = [schema.epochs.c[name] for name in EpochRow.__dataclass_fields__]
        query = sa.select(*columns).where(schema.epochs.c.run_id == run_id).order_by(schema.epochs.c.epoch)
        with self._reading() as db:
            return tuple(EpochRow(*row) for row in db.execute(query))

    def step_losses(self, run_id: str) -> NDArray[np.float32]:
        """The training loss of every step so far, float32 [steps]."""
        table = schema.steps
        query = sa.select(table.c.losses).where(table.c.run_id == run_id).order_by(table.c.first_step)
        with self._reading() as db:
            pieces = db.execute(query).scalars().all()
        return np.frombuffer(b"".join(pieces), dtype="<f4").astype(np.float32)

    def test_rows(self, run_id: str) -> tuple[TestRow, ...]:
        """The looks at the test set, for a run that watches it every n steps."""
        table = schema.looks
        query = sa.select(table.c.step, table.c.loss, table.c.accuracy).where(table.c.run_id == run_id)
        with self._reading() as db:
            return tuple(TestRow(*row) for row in db.execute(query.order_by(table.c.step)))

    def artifact(self, run_id: str, name: str) -> Stored | None:
        """Where a run's `weights`, `predictions` or checkpoint is, or None."""
        table = schema.artifacts
        query = sa.select(table.c.path, table.c.size, table.c.sha256).where(table.c.run_id == run_id, table.c.name == name)
        with self._reading() as db:
            row = db.execute(query).first()
        return Stored(*row) if row else None

    def checkpoints(self, run_id: str) -> tuple[tuple[int, Stored], ...]:
        """The kept checkpoints as (epoch, file), newest first."""
        with self._reading() as db:
            return tuple((epoch, stored) for epoch, _, stored in _checkpoints(db, run_id))

    # Asking for changes ----------------------------------------------------------------------------------------------

    def request_stop(self, run_id: str) -> None:
        """Ask a run to stop. A queued one stops at once; a running one when its worker next looks."""
        with self._writing() as db:
            queued = _update(run_id).where(schema.runs.c.state == RunState.QUEUED)
            stopped = {"state": RunState.STOPPED, "finished_at": schema.database_now()}
            if db.execute(queued.values(**stopped)).rowcount == 0:
                db.execute(_update(run_id).where(schema.runs.c.state == RunState.RUNNING).values(stop_requested=True))

    def delete(self, run_id: str) -> None:
        """Forget a run and its history. Its files are the caller's to remove, afterwards.

        Raises:
            RunNotFound: there is none.
            RunActive: it is queued or running.
        """
        with self._writing() as db:
            state = db.execute(sa.select(schema.runs.c.state).where(schema.runs.c.id == run_id)).scalar()
            if state is None:
                raise RunNotFound(f"there is no run {run_id!r} here; it may have been deleted")
            if state in _ACTIVE:
                raise RunActive(f"run {run_id} is {state}; stop it first, then delete it")
            db.execute(sa.delete(schema.runs).where(schema.runs.c.id == run_id))

    # The queue -------------------------------------------------------------------------------------------------------

    def waiting(self, limit: int) -> tuple[tuple[str, str], ...]:
        """Runs to give to a worker, oldest first, as (id, ticket): queued, or running under a lease that ran out.

        A ticket names the attempt that would start; it changes as soon as one has.
        """
        table = schema.runs
        expired = sa.and_(table.c.state == RunState.RUNNING, table.c.lease_until < schema.database_now())
        query = sa.select(table.c.id, table.c.attempts).where(sa.or_(table.c.state == RunState.QUEUED, expired))
        with self._reading() as db:
            rows = db.execute(query.order_by(table.c.queued_at, table.c.id).limit(limit)).all()
        return tuple((row.id, f"{row.id}-{row.attempts + 1}") for row in rows)

    def claim(self, run_id: str, ticket: str) -> Claim | None:
        """Begin an attempt and take the lease, or None when there is nothing to do: stopped, finished, or held.

        A run that is running may be taken over when its lease ran out, or with the very ticket it was started with:
        then the scheduler has given the task out again, because its worker died. Either counts as a strike; at the
        third one without progress the run fails. Progress beyond the last checkpoint is dropped.
        """
        table = schema.runs
        with self._writing() as db:
            now = db.execute(sa.select(schema.database_now())).scalar_one()
            row = db.execute(sa.select(table).where(table.c.id == run_id)).first()
            if row is None or row.state not in _ACTIVE:
                return None
            taken_over = row.state == RunState.RUNNING
            if taken_over and row.lease_until >= now and row.ticket != ticket:
                return None
            if taken_over and row.stop_requested:
                db.execute(_update(run_id).values(state=RunState.STOPPED, finished_at=now, lease_until=None))
                return None
            strikes = row.strikes + taken_over
            if strikes >= MAX_STRIKES:
                error = f"It stopped its worker {strikes} times without finishing an epoch, so it was given up."
                db.execute(_update(run_id).values(state=RunState.FAILED, error=error, finished_at=now, lease_until=None))
                return None
            checkpoints = _checkpoints(db, run_id)
            epoch = checkpoints[0][0] if checkpoints else 0
            step, seconds = _rewind(db, run_id, epoch)
            attempt = row.attempts + 1
            notice = f"The worker stopped; the run went on from epoch {epoch} (attempt {attempt})." if taken_over else None
            db.execute(
                _update(run_id).values(
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
            return Claim(run_id, _config(row), attempt, epoch, step, seconds)

    def strike(self, run_id: str, ticket: str, reason: str) -> None:
        """A worker could not even begin this ticket: three times, and the run fails with the reason."""
        table = schema.runs
        with self._writing() as db:
            row = db.execute(sa.select(table.c.strikes, table.c.attempts).where(table.c.id == run_id)).first()
            if row is None or ticket != f"{run_id}-{row.attempts + 1}":
                return
            values: dict[str, Any] = {"strikes": row.strikes + 1}
            if row.strikes + 1 >= MAX_STRIKES:
                values |= {"state": RunState.FAILED, "error": reason, "finished_at": schema.database_now()}
            db.execute(_update(run_id).where(table.c.state.in_(_ACTIVE)).values(**values))

    # A worker's writes, all fenced -----------------------------------------------------------------------------------

    def begin(self, claim: Claim, *, steps_per_epoch: int, device: str, versions: Mapping[str, str]) -> None:
        """Say where and with what the attempt trains.

        Raises (as every fenced write):
            FenceLost: a newer attempt has the run, or it is gone.
        """
        with self._fenced(claim) as db:
            values = {"steps_per_epoch": steps_per_epoch, "device": device, "versions": dict(versions)}
            db.execute(_update(claim.run_id).values(**values))

    def renew(self, claim: Claim) -> bool:
        """Keep the lease; returns whether the run was asked to stop."""
        with self._fenced(claim) as db:
            return _stop_requested(db, claim.run_id)

    def rewind(self, claim: Claim, epoch: int, notice: str) -> Claim:
        """Fall back to an earlier checkpoint (0: the beginning), because a later one is damaged."""
        with self._fenced(claim) as db:
            step, seconds = _rewind(db, claim.run_id, epoch)
            values = {"epoch": epoch, "step": step, "seconds": seconds, "notice": notice}
            db.execute(_update(claim.run_id).values(**values))
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
                rows = [{"run_id": run_id, "step": t.step, "loss": finite(t.loss), "accuracy": t.accuracy} for t in tests]
                db.execute(sa.insert(schema.looks), rows)
            values: dict[str, Any] = {"step": step, "seconds": seconds, "images_per_second": images_per_second}
            if history:
                values |= {"epoch": history[-1][0].epoch, "strikes": 0}
            if checkpoint:
                epoch, stored = checkpoint
                _insert_artifact(db, run_id, f"checkpoint-{epoch}", stored, epoch)
                for _, name, _ in _checkpoints(db, run_id)[2:]:
                    db.execute(_without_artifact(run_id, name))
            db.execute(_update(run_id).values(**values))
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
                values |= {"test_loss": finite(result.loss), "test_accuracy": result.accuracy, "test_errors": result.errors}
            db.execute(_update(run_id).values(**values))
            for name, stored in (files or {}).items():
                _insert_artifact(db, run_id, name, stored, None)
            if state.answered:
                for _, name, _ in _checkpoints(db, run_id):
                    db.execute(_without_artifact(run_id, name))
            if speed:
                _record_speed(db, speed)
            kept = db.execute(sa.select(schema.artifacts.c.path).where(schema.artifacts.c.run_id == run_id))
            return frozenset(kept.scalars())

    # What things cost ------------------------------------------------------------------------------------------------

    def record_speed(self, speed: Speed) -> None:
        """Remember how long a step takes, for the estimates before pressing Train."""
        with self._writing() as db:
            _record_speed(db, speed)

    def speeds(self) -> tuple[Speed, ...]:
        """The measured speeds, newest first."""
        table = schema.speeds
        query = sa.select(table.c.shape, table.c.flops, table.c.seconds).order_by(table.c.measured_at.desc()).limit(500)
        with self._reading() as db:
            return tuple(Speed(*row) for row in db.execute(query))

    # Transactions ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with schema.translated(self._name), self._engine.connect().execution_options(reading=True) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with schema.translated(self._name), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _fenced(self, claim: Claim) -> Iterator[Connection]:
        """A transaction that is refused unless `claim` still has the run; it renews the lease."""
        table = schema.runs
        held = _update(claim.run_id).where(table.c.attempts == claim.attempt, table.c.state == RunState.RUNNING)
        with self._writing() as db:
            if db.execute(held.values(lease_until=schema.database_now() + LEASE_SECONDS)).rowcount != 1:
                raise FenceLost(f"attempt {claim.attempt} of run {claim.run_id} was superseded; it writes no more")
            yield db


_QUEUED_AGAIN: dict[str, Any] = {
    "state": RunState.QUEUED,
    "stop_requested": False,
    "finished_at": None,
    "error": None,
    "notice": None,
    "test_loss": None,
    "test_accuracy": None,
    "test_errors": None,
}


def finite(value: float | None) -> float | None:
    """NaN and infinities are told by a run's state, not by its figures: SQLite and JSON can't keep them."""
    return value if value is not None and math.isfinite(value) else None


def _outcome(state: RunState) -> Outcome:
    if state.answered:
        return Outcome.CACHED
    return Outcome.JOINED if state.active else Outcome.RESUMED


def _update(run_id: str) -> sa.Update:
    return sa.update(schema.runs).where(schema.runs.c.id == run_id)


def _stop_requested(db: Connection, run_id: str) -> bool:
    return bool(db.execute(sa.select(schema.runs.c.stop_requested).where(schema.runs.c.id == run_id)).scalar_one())


def _checkpoints(db: Connection, run_id: str) -> list[tuple[int, str, Stored]]:
    table = schema.artifacts
    query = sa.select(table.c.epoch, table.c.name, table.c.path, table.c.size, table.c.sha256)
    rows = db.execute(query.where(table.c.run_id == run_id, table.c.epoch.is_not(None)).order_by(table.c.epoch.desc()))
    return [(row.epoch, row.name, Stored(row.path, row.size, row.sha256)) for row in rows]


def _rewind(db: Connection, run_id: str, epoch: int) -> tuple[int, float]:
    """Drop everything after `epoch`; returns the steps and seconds up to its end."""
    table = schema.epochs
    at = db.execute(sa.select(table.c.step, table.c.seconds).where(table.c.run_id == run_id, table.c.epoch == epoch)).first()
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


def _record_speed(db: Connection, speed: Speed) -> None:
    table = schema.speeds
    db.execute(sa.delete(table).where(table.c.shape == speed.shape))
    values = {"shape": speed.shape, "flops": speed.flops, "seconds": speed.seconds}
    db.execute(sa.insert(table).values(**values, measured_at=schema.database_now()))


def _blob(losses: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(losses, dtype="<f4").tobytes()


def _epoch_values(run_id: str, row: EpochRow, step: int, seconds: float) -> dict[str, Any]:
    figures = {name: finite(getattr(row, name)) for name in EpochRow.__dataclass_fields__ if name != "epoch"}
    return {"run_id": run_id, "epoch": row.epoch, "step": step, "seconds": seconds, **figures}


def _config(row: Row[Any]) -> RunConfig:
    """The stored configuration. Its digest is the run's identity, so a tampered or damaged one is found here."""
    try:
        config = parse_config(json.loads(row.config))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"the configuration of run {row.id} can't be read ({error}); delete the run") from error
    if config.digest != row.digest:
        raise StoreDamaged(f"the record of run {row.id} was altered: its configuration has another digest; delete the run")
    return config


def _run(row: Row[Any]) -> Run:
    result = None
    if row.test_accuracy is not None:
        result = Result(row.test_loss, row.test_accuracy, row.test_errors)
    return Run(
        id=row.id,
        digest=row.digest,
        config=_config(row),
        state=RunState(row.state),
        created_at=row.created_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        stop_requested=row.stop_requested,
        epoch=row.epoch,
        step=row.step,
        steps_per_epoch=row.steps_per_epoch,
        seconds=row.seconds,
        images_per_second=row.images_per_second,
        device=row.device,
        error=row.error,
        notice=row.notice,
        diverged_step=row.diverged_step,
        test=result,
        versions=dict(row.versions),
    )
