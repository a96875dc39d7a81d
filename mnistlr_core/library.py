"""Runs as people keep them: found, sorted and grouped; named, tagged, starred, archived and deleted.

Everything is asked of the database a page at a time; the whole table is never in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from mnistlr_core import schema
from mnistlr_core.config import RunConfig
from mnistlr_core.errors import EditConflict, EditRefused, RunNotFound
from mnistlr_core.records import EpochRow, Run, RunState
from mnistlr_core.store import Store, update_run
from mnistlr_core.verdicts import Measured

__all__ = ["FAMILY", "GroupRow", "Library", "Listed", "Listing", "RunQuery", "Sort"]

NAME_LENGTH, NOTE_LENGTH, TAG_LENGTH, MOST_TAGS = 80, 4000, 40, 20


class Sort(StrEnum):
    """What a list of runs can be sorted by."""

    CREATED = "created"
    NAME = "name"
    STATE = "state"
    BEST_ACCURACY = "best_accuracy"
    LAST_ACCURACY = "last_accuracy"
    BEST_LOSS = "best_loss"
    LAST_LOSS = "last_loss"
    TEST_ACCURACY = "test_accuracy"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, and in which order. An empty tuple allows every value."""

    text: str = ""
    """Somewhere in the name, note, tags, id or configuration; each word of it."""
    states: tuple[RunState, ...] = ()
    datasets: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """Runs that have every one of them."""
    starred: bool = False
    archived: bool = False
    sort: Sort = Sort.CREATED
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Listed:
    """A run in a list, with what its row shows. Best is the highest accuracy and the lowest loss, each by itself."""

    run: Run
    history: tuple[EpochRow, ...]
    tags: tuple[str, ...]

    def accuracy(self, *, best: bool) -> float | None:
        """Its best or last validation accuracy, 0..1."""
        values = [row.valid_accuracy for row in self.history if row.valid_accuracy is not None]
        return (max(values) if best else values[-1]) if values else None

    def loss(self, *, best: bool) -> float | None:
        """Its best or last validation loss, in nats."""
        values = [row.valid_loss for row in self.history if row.valid_loss is not None]
        return (min(values) if best else values[-1]) if values else None


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list, and how many runs the whole of it has."""

    rows: tuple[Listed, ...]
    total: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Runs that share a value of one field, or all but the seed: how many, their figures, and the newest of them."""

    value: str | None
    """As stored; None for runs that don't use the field. A family's digest where the groups are of all but the seed."""
    n: int
    accuracy: Measured | None
    """Best validation accuracy."""
    test_accuracy: Measured | None
    newest: tuple[str, ...]
    """The ids of at most `GROUP_RUNS` runs."""


GROUP_RUNS = 12
FAMILY = "all-but-seed"


class Library:
    """The runs of a store, as people look for and keep them; each call is one short transaction.

    Raises (any method): StoreBusy, StoreDamaged, StoreError.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    # Finding ---------------------------------------------------------------------------------------------------------

    def list(self, query: RunQuery, *, limit: int = 25, offset: int = 0) -> Listing:
        """One page of the runs that a query finds."""
        runs = schema.runs
        key, joined = _sort_key(query.sort)
        order = (key.desc() if query.descending else key.asc()).nulls_last()
        wanted = sa.select(runs.c.id).select_from(joined).where(*_conditions(query))
        wanted = wanted.order_by(order, runs.c.created_at.desc(), runs.c.id).limit(limit).offset(offset)
        with self._store.reading() as db:
            total = db.execute(sa.select(sa.func.count()).select_from(runs).where(*_conditions(query))).scalar_one()
            ids = list(db.execute(wanted).scalars())
        found, histories, tags = self._store.find(ids), self._store.histories(ids), self.tags(ids)
        rows = (Listed(found[run_id], histories[run_id], tags[run_id]) for run_id in ids if run_id in found)
        return Listing(tuple(rows), int(total))

    def groups(self, query: RunQuery, field: str, *, limit: int = 25, offset: int = 0) -> tuple[GroupRow, ...]:
        """One page of the runs that a query finds, by the value of a configuration's field, or by FAMILY.

        The group with the best mean validation accuracy comes first. Raises ValueError for what is no field.
        """
        if field != FAMILY and field not in RunConfig.model_fields:
            raise ValueError(f"runs are grouped by a configuration's field or by {FAMILY}; got {field!r}")
        runs = schema.runs
        key = runs.c.family if field == FAMILY else schema.config_field(runs.c.config, sa.literal_column(f"'{field}'"))
        best, joined = _sort_key(Sort.BEST_ACCURACY)
        test = runs.c.test_accuracy
        columns = [key.label("value"), sa.func.count().label("n")]
        for name, value in (("best", best), ("test", test)):
            columns += [
                sa.func.count(value).label(f"{name}_n"),
                sa.func.avg(value).label(f"{name}_mean"),
                sa.func.avg(value * value).label(f"{name}_square"),
            ]
        grouped = sa.select(*columns).select_from(joined).where(*_conditions(query)).group_by(key)
        grouped = grouped.order_by(sa.desc("best_mean").nulls_last(), key).limit(limit).offset(offset)
        with self._store.reading() as db:
            rows = db.execute(grouped).all()
            found = []
            for row in rows:
                same = key.is_(None) if row.value is None else key == row.value
                newest = sa.select(runs.c.id).where(*_conditions(query), same)
                newest = newest.order_by(runs.c.created_at.desc()).limit(GROUP_RUNS)
                ids = tuple(db.execute(newest).scalars())
                accuracy = _measured(row.best_n, row.best_mean, row.best_square)
                tested = _measured(row.test_n, row.test_mean, row.test_square)
                found.append(GroupRow(row.value, row.n, accuracy, tested, ids))
        return tuple(found)

    def tags(self, run_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The tags of several runs, in the alphabet's order."""
        found: dict[str, list[str]] = {run_id: [] for run_id in run_ids}
        table = schema.tags
        with self._store.reading() as db:
            query = sa.select(table).where(table.c.run_id.in_(run_ids)).order_by(table.c.tag)
            for run_id, tag in db.execute(query):
                found[run_id].append(tag)
        return {run_id: tuple(names) for run_id, names in found.items()}

    def all_tags(self) -> tuple[str, ...]:
        """Every tag that some run has."""
        with self._store.reading() as db:
            return tuple(db.execute(sa.select(schema.tags.c.tag).distinct().order_by(schema.tags.c.tag)).scalars())

    # Keeping ---------------------------------------------------------------------------------------------------------

    def edit(self, run_id: str, revision: int, *, name: str, note: str) -> None:
        """Write a run's name and note, as edited from the given revision. An empty name is its label again.

        Raises:
            EditRefused: a rule is broken.
            EditConflict: it was edited since that revision; nothing is written.
            RunNotFound: it was deleted.
        """
        name, note = _line("name", name, NAME_LENGTH), _text(note)
        values = {"name": name or None, "note": note or None, "revision": revision + 1}
        with self._store.writing() as db:
            edited = update_run(run_id).where(schema.runs.c.revision == revision).values(**values)
            if db.execute(edited).rowcount:
                return
            if db.execute(sa.select(schema.runs.c.id).where(schema.runs.c.id == run_id)).first() is None:
                raise RunNotFound(f"there is no run {run_id!r} here; it may have been deleted")
            raise EditConflict("somebody else edited this run in the meantime; look at their words, then save again")

    def star(self, run_ids: Sequence[str], *, on: bool) -> None:
        """Star runs, or take their stars away."""
        self._set(run_ids, starred=on)

    def archive(self, run_ids: Sequence[str], *, on: bool) -> None:
        """Put runs into the archive, out of every list, or take them back. They keep all they have."""
        self._set(run_ids, archived=on)

    def _set(self, run_ids: Sequence[str], **values: Any) -> None:
        with self._store.writing() as db:
            db.execute(sa.update(schema.runs).where(schema.runs.c.id.in_(run_ids)).values(**values))

    def tag(self, run_ids: Sequence[str], *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Add tags to runs, and take others away. Raises EditRefused."""
        added = {_line("tag", tag, TAG_LENGTH) for tag in add} - {""}
        table = schema.tags
        with self._store.writing() as db:
            known = sa.select(schema.runs.c.id).where(schema.runs.c.id.in_(run_ids))
            ids = list(db.execute(known).scalars())
            db.execute(sa.delete(table).where(table.c.run_id.in_(ids), table.c.tag.in_(list(remove))))
            had = {(run_id, tag) for run_id, tag in db.execute(sa.select(table).where(table.c.run_id.in_(ids)))}
            new = [
                {"run_id": run_id, "tag": tag} for run_id in ids for tag in sorted(added) if (run_id, tag) not in had
            ]
            if new:
                db.execute(sa.insert(table), new)
            most = sa.select(sa.func.count()).where(table.c.run_id.in_(ids)).group_by(table.c.run_id)
            if any(count > MOST_TAGS for count in db.execute(most).scalars()):
                raise EditRefused(f"a run has at most {MOST_TAGS} tags; take one away first")  # and nothing is written


def _conditions(query: RunQuery) -> list[sa.ColumnElement[bool]]:
    runs, tags = schema.runs, schema.tags
    conditions: list[sa.ColumnElement[bool]] = [runs.c.archived if query.archived else ~runs.c.archived]
    if query.starred:
        conditions.append(runs.c.starred)
    if query.states:
        conditions.append(runs.c.state.in_(query.states))
    for field, values in (
        ("dataset", query.datasets),
        ("architecture", query.architectures),
        ("optimizer", query.optimizers),
    ):
        if values:
            conditions.append(schema.config_field(runs.c.config, sa.literal_column(f"'{field}'")).in_(values))
    conditions += [runs.c.id.in_(sa.select(tags.c.run_id).where(tags.c.tag == tag)) for tag in query.tags]
    for word in query.text.split()[:10]:
        pattern = "%" + word.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
        tagged = sa.select(tags.c.run_id).where(tags.c.tag.ilike(pattern, escape="\\"))
        columns = (runs.c.name, runs.c.note, runs.c.id, runs.c.config)
        conditions.append(sa.or_(*(c.ilike(pattern, escape="\\") for c in columns), runs.c.id.in_(tagged)))
    return conditions


def _sort_key(sort: Sort) -> tuple[sa.ColumnElement[Any], sa.FromClause]:
    """The expression to sort by, and what to select from so that it is there."""
    runs, epochs = schema.runs, schema.epochs
    match sort:
        case Sort.BEST_ACCURACY | Sort.BEST_LOSS:
            figures = sa.func.max(epochs.c.valid_accuracy), sa.func.min(epochs.c.valid_loss)
            best = sa.select(epochs.c.run_id, figures[0].label("accuracy"), figures[1].label("loss"))
            table = best.group_by(epochs.c.run_id).subquery()
            key = table.c.accuracy if sort is Sort.BEST_ACCURACY else table.c.loss
            return key, runs.outerjoin(table, table.c.run_id == runs.c.id)
        case Sort.LAST_ACCURACY | Sort.LAST_LOSS:
            last = sa.and_(epochs.c.run_id == runs.c.id, epochs.c.epoch == runs.c.epoch)
            key = epochs.c.valid_accuracy if sort is Sort.LAST_ACCURACY else epochs.c.valid_loss
            return key, runs.outerjoin(epochs, last)
        case Sort.NAME:
            return sa.func.coalesce(runs.c.name, runs.c.config), runs
        case Sort.CREATED:
            return runs.c.created_at, runs
        case _:
            return runs.c[sort.value], runs


def _measured(n: int, mean: float | None, mean_of_squares: float | None) -> Measured | None:
    """Mean and sample standard deviation from sums, as SQL has them: figures in 0..1 leave digits enough."""
    if not n or mean is None or mean_of_squares is None:
        return None
    variance = max(0.0, mean_of_squares - mean * mean) * n / (n - 1) if n > 1 else None
    return Measured(mean, None if variance is None else math.sqrt(variance), n)


def _line(what: str, value: str, length: int) -> str:
    """A value of one line, without spaces around it."""
    value = " ".join(value.split())
    if len(value) > length or not value.isprintable():
        raise EditRefused(f"a {what} has at most {length} printable characters; got {len(value)}")
    return value


def _text(value: str) -> str:
    value = value.strip()
    if len(value) > NOTE_LENGTH:
        raise EditRefused(f"a note has at most {NOTE_LENGTH:,} characters; got {len(value):,}")
    if "\0" in value:
        raise EditRefused("a note is plain text; it holds a character that isn't")
    return value
