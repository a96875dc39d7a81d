"""Runs, their histories and their queue in SQL. This module and `attempts` are the only owners of a run's state.

A run exists once its row does. What pages, scripts and the queue ask is here; what a worker writes is in `attempts`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
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
from mnistlr_core.errors import RunActive, RunNotFound, StoreDamaged
from mnistlr_core.records import EpochRow, Outcome, Result, Run, RunState, Speed, Submission, TestRow

__all__ = ["ACTIVE", "Store"]

COLOURS = 8
"""As many as the palette has."""

ACTIVE = (RunState.QUEUED, RunState.RUNNING)


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
        with self.writing() as db:
            row = db.execute(sa.select(schema.runs.c.state).where(schema.runs.c.digest == config.digest)).first()
            if row is None:
                now = schema.database_now()
                stored = config.stored()
                values: dict[str, Any] = {"id": config.short_id, "digest": config.digest, "config": stored}
                values |= {"family": config.family, "colour": _next_colour()}
                try:
                    db.execute(
                        sa.insert(schema.runs).values(**values, state=RunState.QUEUED, created_at=now, queued_at=now)
                    )
                except IntegrityError:  # PostgreSQL: another process inserted it since the select
                    return Submission(config.short_id, Outcome.JOINED)
                return Submission(config.short_id, Outcome.NEW)
            outcome = _outcome(RunState(row.state))
            if outcome is Outcome.RESUMED:
                again = {**_QUEUED_AGAIN, "queued_at": schema.database_now()}
                db.execute(update_run(config.short_id).values(**again))
            elif outcome is Outcome.JOINED:  # somebody wants it after all
                db.execute(update_run(config.short_id).values(stop_requested=False))
            return Submission(config.short_id, outcome)

    def preview(self, config: RunConfig) -> Outcome:
        """What `submit` would come to, without doing anything."""
        with self.reading() as db:
            state = db.execute(sa.select(schema.runs.c.state).where(schema.runs.c.digest == config.digest)).scalar()
        return Outcome.NEW if state is None else _outcome(RunState(state))

    def run(self, run_id: str) -> Run:
        """One run by its id, or by any longer part of its digest.

        Raises:
            RunNotFound: there is none.
        """
        if len(run_id) < 12:
            raise RunNotFound(f"a run's id has 12 digits or letters a–f; got {run_id[:80]!r}")
        with self.reading() as db:
            row = db.execute(sa.select(schema.runs).where(schema.runs.c.id == run_id[:12])).first()
        if row is None or not row.digest.startswith(run_id):
            raise RunNotFound(f"there is no run {run_id[:80]!r} here; it may have been deleted")
        return _run(row)

    def runs(self, *, limit: int = 100, offset: int = 0) -> tuple[Run, ...]:
        """Runs, newest first, without those put into the archive."""
        query = sa.select(schema.runs).where(~schema.runs.c.archived)
        query = query.order_by(schema.runs.c.created_at.desc(), schema.runs.c.id)
        with self.reading() as db:
            return tuple(_run(row) for row in db.execute(query.limit(limit).offset(offset)))

    def history(self, run_id: str) -> tuple[EpochRow, ...]:
        """A run's finished epochs, first to last."""
        columns = [schema.epochs.c[name] for name in EpochRow.__dataclass_fields__]
        query = sa.select(*columns).where(schema.epochs.c.run_id == run_id).order_by(schema.epochs.c.epoch)
        with self.reading() as db:
            return tuple(EpochRow(*row) for row in db.execute(query))

    def find(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Those of the runs that exist, by their whole ids."""
        with self.reading() as db:
            rows = db.execute(sa.select(schema.runs).where(schema.runs.c.id.in_(run_ids)))
            return {row.id: _run(row) for row in rows}

    def histories(self, run_ids: Sequence[str]) -> dict[str, tuple[EpochRow, ...]]:
        """The finished epochs of several runs, by their whole ids; empty for a run without any."""
        table = schema.epochs
        columns = [table.c[name] for name in EpochRow.__dataclass_fields__]
        query = sa.select(table.c.run_id, *columns).where(table.c.run_id.in_(run_ids)).order_by(table.c.epoch)
        found: dict[str, list[EpochRow]] = {run_id: [] for run_id in run_ids}
        with self.reading() as db:
            for run_id, *values in db.execute(query):
                found[run_id].append(EpochRow(*values))
        return {run_id: tuple(rows) for run_id, rows in found.items()}

    def epoch_seconds(self, run_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The training seconds at the end of each finished epoch, float32 [epochs], of several runs."""
        table = schema.epochs
        query = sa.select(table.c.run_id, table.c.seconds).where(table.c.run_id.in_(run_ids)).order_by(table.c.epoch)
        found: dict[str, list[float]] = {run_id: [] for run_id in run_ids}
        with self.reading() as db:
            for run_id, seconds in db.execute(query):
                found[run_id].append(seconds)
        return {run_id: np.array(seconds, dtype=np.float32) for run_id, seconds in found.items()}

    def step_losses(self, run_id: str) -> NDArray[np.float32]:
        """The training loss of every step so far, float32 [steps]."""
        table = schema.steps
        query = sa.select(table.c.losses).where(table.c.run_id == run_id).order_by(table.c.first_step)
        with self.reading() as db:
            pieces = db.execute(query).scalars().all()
        return np.frombuffer(b"".join(pieces), dtype="<f4").astype(np.float32)

    def test_rows(self, run_id: str) -> tuple[TestRow, ...]:
        """The looks at the test set, for a run that watches it every n steps."""
        table = schema.looks
        query = sa.select(table.c.step, table.c.loss, table.c.accuracy).where(table.c.run_id == run_id)
        with self.reading() as db:
            return tuple(TestRow(*row) for row in db.execute(query.order_by(table.c.step)))

    def artifact(self, run_id: str, name: str) -> Stored | None:
        """Where a run's `weights`, `predictions` or checkpoint is, or None."""
        table = schema.artifacts
        query = sa.select(table.c.path, table.c.size, table.c.sha256).where(
            table.c.run_id == run_id, table.c.name == name
        )
        with self.reading() as db:
            row = db.execute(query).first()
        return Stored(*row) if row else None

    def checkpoints(self, run_id: str) -> tuple[tuple[int, Stored], ...]:
        """The kept checkpoints as (epoch, file), newest first."""
        with self.reading() as db:
            return tuple((epoch, stored) for epoch, _, stored in checkpoints_of(db, run_id))

    # Asking for changes ----------------------------------------------------------------------------------------------

    def request_stop(self, run_id: str) -> None:
        """Ask a run to stop. A queued one stops at once; a running one when its worker next looks."""
        with self.writing() as db:
            queued = update_run(run_id).where(schema.runs.c.state == RunState.QUEUED)
            stopped = {"state": RunState.STOPPED, "finished_at": schema.database_now()}
            if db.execute(queued.values(**stopped)).rowcount == 0:
                db.execute(
                    update_run(run_id).where(schema.runs.c.state == RunState.RUNNING).values(stop_requested=True)
                )

    def delete(self, run_id: str) -> None:
        """Forget a run and its history. Its files are the caller's to remove, afterwards.

        Raises:
            RunNotFound: there is none.
            RunActive: it is queued or running.
        """
        with self.writing() as db:
            state = db.execute(sa.select(schema.runs.c.state).where(schema.runs.c.id == run_id)).scalar()
            if state is None:
                raise RunNotFound(f"there is no run {run_id!r} here; it may have been deleted")
            if state in ACTIVE:
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
        with self.reading() as db:
            rows = db.execute(query.order_by(table.c.queued_at, table.c.id).limit(limit)).all()
        return tuple((row.id, f"{row.id}-{row.attempts + 1}") for row in rows)

    # What things cost ------------------------------------------------------------------------------------------------

    def record_speed(self, speed: Speed) -> None:
        """Remember how long a step takes, for the estimates before pressing Train."""
        with self.writing() as db:
            insert_speed(db, speed)

    def speeds(self) -> tuple[Speed, ...]:
        """The measured speeds, newest first."""
        table = schema.speeds
        query = sa.select(table.c.shape, table.c.flops, table.c.seconds).order_by(table.c.measured_at.desc()).limit(500)
        with self.reading() as db:
            return tuple(Speed(*row) for row in db.execute(query))

    # Transactions ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads."""
        with schema.translated(self._name), self._engine.connect().execution_options(reading=True) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it or nothing."""
        with schema.translated(self._name), self._engine.begin() as connection:
            yield connection


_QUEUED_AGAIN: dict[str, Any] = {
    "state": RunState.QUEUED,
    "stop_requested": False,
    "strikes": 0,
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


def _next_colour() -> sa.ColumnElement[int]:
    """Consecutive runs have different colours."""
    return (sa.select(sa.func.count()).select_from(schema.runs).scalar_subquery()) % COLOURS


def _outcome(state: RunState) -> Outcome:
    if state.answered:
        return Outcome.CACHED
    return Outcome.JOINED if state.active else Outcome.RESUMED


def update_run(run_id: str) -> sa.Update:
    return sa.update(schema.runs).where(schema.runs.c.id == run_id)


def checkpoints_of(db: Connection, run_id: str) -> list[tuple[int, str, Stored]]:
    table = schema.artifacts
    query = sa.select(table.c.epoch, table.c.name, table.c.path, table.c.size, table.c.sha256)
    rows = db.execute(query.where(table.c.run_id == run_id, table.c.epoch.is_not(None)).order_by(table.c.epoch.desc()))
    return [(row.epoch, row.name, Stored(row.path, row.size, row.sha256)) for row in rows]


def insert_speed(db: Connection, speed: Speed) -> None:
    table = schema.speeds
    db.execute(sa.delete(table).where(table.c.shape == speed.shape))
    values = {"shape": speed.shape, "flops": speed.flops, "seconds": speed.seconds}
    db.execute(sa.insert(table).values(**values, measured_at=schema.database_now()))


def config_of(row: Row[Any]) -> RunConfig:
    """The stored configuration. Its digest is the run's identity, so a tampered or damaged one is found here."""
    try:
        config = parse_config(json.loads(row.config))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreDamaged(f"the configuration of run {row.id} can't be read ({error}); delete the run") from error
    if config.digest != row.digest:
        raise StoreDamaged(
            f"the record of run {row.id} was altered: its configuration has another digest; delete the run"
        )
    return config


def _run(row: Row[Any]) -> Run:
    result = None
    if row.test_accuracy is not None:
        result = Result(row.test_loss, row.test_accuracy, row.test_errors)
    return Run(
        id=row.id,
        digest=row.digest,
        config=config_of(row),
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
        name=row.name,
        note=row.note or "",
        starred=row.starred,
        archived=row.archived,
        revision=row.revision,
        colour=row.colour,
        family=row.family,
    )
