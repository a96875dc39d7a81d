"""The database's tables, its numbered migrations, and how it is opened.

SQLite by default, PostgreSQL by URL. What SQLite is told here was measured, not assumed: writes begin IMMEDIATE
(deferred ones are refused at once under contention), `synchronous=FULL` (an acknowledged run survives a power cut), and
the write-ahead log only from 3.51.3 on (older libraries can corrupt it when several processes checkpoint).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from mnistlr_core.config import parse_config
from mnistlr_core.errors import StoreBusy, StoreDamaged, StoreError, StoreNewer

__all__ = [
    "SCHEMA_VERSION",
    "artifacts",
    "config_field",
    "database_now",
    "epochs",
    "looks",
    "open_database",
    "runs",
    "speeds",
    "steps",
    "tags",
]

_BUSY_SECONDS = 15
_WAL_SAFE = (3, 51, 3)
_APPLICATION_ID = 0x6D6E6C72  # "mnlr": marks an SQLite file as one of ours

metadata = sa.MetaData()

schema = sa.Table("mnistlr_schema", metadata, sa.Column("version", sa.Integer, nullable=False))

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("state", sa.String(10), nullable=False, index=True),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("queued_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("strikes", sa.Integer, nullable=False, default=0),
    sa.Column("lease_until", sa.Float),
    sa.Column("ticket", sa.String(64)),
    sa.Column("stop_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("steps_per_epoch", sa.Integer),
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),
    sa.Column("images_per_second", sa.Float),
    sa.Column("device", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("notice", sa.Text),
    sa.Column("diverged_step", sa.Integer),
    sa.Column("test_loss", sa.Float),
    sa.Column("test_accuracy", sa.Float),
    sa.Column("test_errors", sa.Integer),
    sa.Column("versions", sa.JSON, nullable=False, default=dict),
    # What people add to a run. `revision` counts their edits, so that two of them at once are noticed.
    sa.Column("name", sa.Text),
    sa.Column("note", sa.Text),
    sa.Column("starred", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("revision", sa.Integer, nullable=False, server_default=sa.text("0")),
    # The run's place in the palette, and the digest of its configuration without the seed.
    sa.Column("colour", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("family", sa.String(12), nullable=False, server_default=""),
)
sa.Index("ix_runs_family", runs.c.family)


def _of_run() -> sa.Column[Any]:
    return sa.Column("run_id", sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)


epochs = sa.Table(
    "epochs",
    metadata,
    _of_run(),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    *(
        sa.Column(f"{split}_{figure}", sa.Float)
        for split in ("train", "valid", "test")
        for figure in ("loss", "accuracy")
    ),
)

# Training losses by step, float32 little endian, in pieces as they were committed; a piece never crosses an epoch.
steps = sa.Table(
    "steps",
    metadata,
    _of_run(),
    sa.Column("first_step", sa.Integer, primary_key=True),
    sa.Column("losses", sa.LargeBinary, nullable=False),
)

looks = sa.Table(
    "looks",
    metadata,
    _of_run(),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("loss", sa.Float),
    sa.Column("accuracy", sa.Float, nullable=False),
)

tags = sa.Table("tags", metadata, _of_run(), sa.Column("tag", sa.String(40), primary_key=True))

artifacts = sa.Table(
    "artifacts",
    metadata,
    _of_run(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("epoch", sa.Integer),
)

speeds = sa.Table(
    "speeds",
    metadata,
    sa.Column("shape", sa.String(200), primary_key=True),
    sa.Column("flops", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("measured_at", sa.Float, nullable=False),
)


class database_now(FunctionElement[float]):  # noqa: N801  (an SQL function is spelled in lower case)
    """Seconds since 1970 by the database's own clock: leases must not depend on whose clock a process reads."""

    name = "database_now"
    type = sa.Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: object, compiler: object, **kwargs: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: object, compiler: object, **kwargs: object) -> str:
    return "extract(epoch from clock_timestamp())"


class config_field(FunctionElement[str]):  # noqa: N801
    """One field of a run's stored configuration as text; null where the configuration doesn't use it."""

    name = "config_field"
    type = sa.Text()
    inherit_cache = True


@compiles(config_field, "sqlite")
def _sqlite_field(element: config_field, compiler: SQLCompiler, **kwargs: object) -> str:
    column, name = element.clauses
    return f"CAST(json_extract({compiler.process(column)}, '$.' || {compiler.process(name)}) AS TEXT)"


@compiles(config_field, "postgresql")
def _postgresql_field(element: config_field, compiler: SQLCompiler, **kwargs: object) -> str:
    column, name = element.clauses
    return f"(CAST({compiler.process(column)} AS json) ->> {compiler.process(name)})"


def _to_2(connection: Connection) -> None:
    """What people keep: names, notes, tags, stars, archived runs; and each run's colour and family."""
    for column in (
        "name TEXT",
        "note TEXT",
        "starred BOOLEAN NOT NULL DEFAULT false",
        "archived BOOLEAN NOT NULL DEFAULT false",
        "revision INTEGER NOT NULL DEFAULT 0",
        "colour INTEGER NOT NULL DEFAULT 0",
        "family VARCHAR(12) NOT NULL DEFAULT ''",
    ):
        connection.execute(sa.text(f"ALTER TABLE runs ADD COLUMN {column}"))
    connection.execute(sa.text("CREATE INDEX ix_runs_family ON runs (family)"))
    connection.execute(
        sa.text(
            "CREATE TABLE tags (run_id VARCHAR(12) NOT NULL REFERENCES runs (id) ON DELETE CASCADE, "
            "tag VARCHAR(40) NOT NULL, PRIMARY KEY (run_id, tag))"
        )
    )
    kept = connection.execute(sa.text("SELECT id, config FROM runs ORDER BY created_at, id")).all()
    for place, row in enumerate(kept):
        values = {"id": row.id, "colour": place % 8, "family": parse_config(json.loads(row.config)).family}
        connection.execute(sa.text("UPDATE runs SET colour = :colour, family = :family WHERE id = :id"), values)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_to_2,)
"""The steps from each layout to the next one, from layout 1 on; a new store is made in the last layout at once."""
SCHEMA_VERSION = 1 + len(MIGRATIONS)


def open_database(url: str) -> Engine:
    """Open the database at `url`, made or upgraded as needed; several processes may do so at once.

    Raises:
        StoreNewer: a newer program wrote it.
        StoreDamaged: it is not a database, not one of ours, or broken. It is left as it is.
        StoreBusy: another process holds it.
        StoreError: its place can't be written.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = sa.create_engine(url, pool_pre_ping=True)
        with engine.begin() as connection:
            _upgrade(connection)
        return engine
    path = Path(parsed.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with translated(path.name), FileLock(f"{path}.lock", timeout=_BUSY_SECONDS):
            if not path.exists():
                _create_sqlite(path)
            _check_sqlite(path)
    except TimeoutError:
        raise StoreBusy(f"another process has been opening {path.name} for {_BUSY_SECONDS} s; try again") from None
    except OSError as error:
        raise StoreError(f"the store {path.name} can't be opened ({error.strerror}); check MNISTLR_HOME") from error
    return _sqlite_engine(path)


def _create_sqlite(path: Path) -> None:
    """Made complete under another name: a crash must not leave an empty file that looks like an empty store."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}.new")
    engine = _sqlite_engine(aside)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
            _upgrade(connection)
        engine.dispose()
        aside.replace(path)
    finally:
        engine.dispose()
        for leftover in (aside, *(aside.with_name(aside.name + end) for end in ("-journal", "-wal", "-shm"))):
            leftover.unlink(missing_ok=True)


def _check_sqlite(path: Path) -> None:
    """Refuse what is not ours, is broken or newer; back up and upgrade what is older."""
    if path.stat().st_size == 0:
        raise StoreDamaged(f"the store {path.name} is empty (0 bytes); move it away, or put a backup in its place")
    engine = _sqlite_engine(path)
    try:
        with engine.connect() as connection:
            health = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if health != "ok":
                raise StoreDamaged(f"the store {path.name} is damaged ({health}); put a backup in its place")
            if connection.exec_driver_sql("PRAGMA application_id").scalar_one() != _APPLICATION_ID:
                raise StoreDamaged(
                    f"{path.name} is an SQLite file, but not a mnistlr store; choose another MNISTLR_HOME"
                )
            version = _version(connection)
        if version < SCHEMA_VERSION:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
            raw = engine.raw_connection()  # VACUUM runs outside any transaction
            raw.cursor().execute("VACUUM INTO ?", (f"{path}.v{version}-{stamp}.backup",))
            raw.close()
        with engine.begin() as connection:
            _upgrade(connection)
    finally:
        engine.dispose()


def _version(connection: Connection) -> int:
    if not sa.inspect(connection).has_table(schema.name):
        return 0
    return int(connection.execute(sa.select(schema.c.version)).scalar_one())


def _upgrade(connection: Connection) -> None:
    """Make the tables, or run the migrations that are missing, in the caller's transaction: all of them or none."""
    version = _version(connection)
    if version > SCHEMA_VERSION:
        message = f"the store has layout {version}, this program knows layouts up to {SCHEMA_VERSION}"
        raise StoreNewer(f"{message}; update mnistlr, or choose another MNISTLR_HOME")
    if version == 0:
        metadata.create_all(connection)
        connection.execute(sa.insert(schema).values(version=SCHEMA_VERSION))
    elif version < SCHEMA_VERSION:
        for migrate in MIGRATIONS[version - 1 :]:
            migrate(connection)
        connection.execute(sa.update(schema).values(version=SCHEMA_VERSION))


def _sqlite_engine(path: Path) -> Engine:
    # No pool: a connection ends with its transaction (opening one takes a fraction of a millisecond), so that none is
    # left open on a file that was moved away, or for the collector to find.
    engine = sa.create_engine(
        f"sqlite:///{path.as_posix()}", connect_args={"timeout": _BUSY_SECONDS}, poolclass=sa.NullPool
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one
        journal = "WAL" if sqlite3.sqlite_version_info >= _WAL_SAFE else "DELETE"
        for pragma in (f"journal_mode={journal}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn the database's own complaints into ours, with what to do."""
    try:
        yield
    except OperationalError as error:
        words = str(error.orig)
        if "locked" in words or "busy" in words:
            raise StoreBusy(f"the store {name} is held by another process; try again") from error
        if "readonly" in words or "full" in words or "disk I/O" in words or "unable to open" in words:
            raise StoreError(f"the store {name} can't be written ({words}); make room or check permissions") from error
        raise StoreError(f"the store {name} does not answer ({words})") from error
    except DatabaseError as error:
        raise StoreDamaged(f"the store {name} is damaged ({error.orig}); put a backup in its place") from error
