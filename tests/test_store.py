"""Identity, single flight, leases, fences and what the database survives."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from mnistlr_core import attempts as attempts_module
from mnistlr_core import records, schema
from mnistlr_core.artifacts import Stored
from mnistlr_core.attempts import MAX_STRIKES, Attempts
from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.errors import FenceLost, RunActive, RunNotFound, StoreDamaged, StoreError, StoreNewer
from mnistlr_core.records import Claim, EpochRow, Outcome, Result, RunState, Speed
from mnistlr_core.store import Store

CONFIG = parse_config({"epochs": 3})
FILE = Stored("x/checkpoint", 1, "0" * 64)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


@pytest.fixture
def attempts(store: Store) -> Attempts:
    return Attempts(store)


def test_a_new_run_is_queued_and_an_equal_one_joins_it(store: Store) -> None:
    assert store.preview(CONFIG) is Outcome.NEW
    submission = store.submit(CONFIG)
    assert (submission.outcome, store.run(submission.run_id).state) == (Outcome.NEW, RunState.QUEUED)
    assert store.submit(parse_config({"epochs": "3.0"})).outcome is Outcome.JOINED
    assert store.preview(CONFIG) is Outcome.JOINED


def test_a_hundred_equal_submits_make_one_run(url: str, store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = Counter(submission.outcome for submission in pool.map(lambda _: store.submit(CONFIG), range(50)))
    script = """if True:
        import sys
        from mnistlr_core.config import parse_config
        from mnistlr_core.store import Store
        store = Store(sys.argv[1])
        for _ in range(25):
            print(store.submit(parse_config({"epochs": 4})).outcome)
    """
    children = [
        subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = Counter(line for child in children for line in child.communicate(timeout=60)[0].split())
    assert outcomes == {Outcome.NEW: 1, Outcome.JOINED: 49}
    assert said == {"new": 1, "joined": 99}
    assert len(store.runs()) == 2


def test_a_finished_run_is_cached_and_final(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts)
    attempts.finish(claim, RunState.FINISHED, result=Result(0.5, 0.9, 1000))
    assert store.submit(CONFIG).outcome is Outcome.CACHED
    run = store.run(claim.run_id)
    assert (run.state, run.test) == (RunState.FINISHED, Result(0.5, 0.9, 1000))
    store.request_stop(run.id)
    assert store.run(run.id).state is RunState.FINISHED
    with pytest.raises(FenceLost):
        attempts.finish(claim, RunState.FAILED, error="too late")
    assert attempts.claim(run.id, "other") is None


def test_progress_is_kept_and_counted_once(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts)
    attempts.progress(claim, step=2, seconds=0.1, images_per_second=10.0, losses=[(1, losses(2.0, 1.5))])
    attempts.progress(
        claim,
        step=4,
        seconds=0.2,
        images_per_second=20.0,
        losses=[(3, losses(1.0, 0.5))],
        history=[(row(1), 4, 0.2)],
        tests=[records.TestRow(4, 0.6, 0.8)],
        checkpoint=(1, FILE),
    )
    run = store.run(claim.run_id)
    assert (run.epoch, run.step, run.images_per_second) == (1, 4, 20.0)
    assert store.history(run.id) == (row(1),)
    assert store.step_losses(run.id).tolist() == [2.0, 1.5, 1.0, 0.5]
    assert store.test_rows(run.id) == (records.TestRow(4, 0.6, 0.8),)
    assert store.checkpoints(run.id) == ((1, FILE),)


def test_what_is_not_finite_is_absent_not_nan(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts)
    nan = EpochRow(1, float("nan"), 0.1, float("inf"), 0.1, None, None)
    attempts.progress(claim, step=4, seconds=0.1, images_per_second=None, history=[(nan, 4, 0.1)])
    assert store.history(claim.run_id) == (EpochRow(1, None, 0.1, None, 0.1, None, None),)


def test_the_last_two_checkpoints_are_kept(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts)
    for epoch in (1, 2, 3):
        file = Stored(f"x/c{epoch}", epoch, "0" * 64)
        attempts.progress(
            claim,
            step=epoch,
            seconds=0.1,
            images_per_second=None,
            history=[(row(epoch), epoch, 0.1)],
            checkpoint=(epoch, file),
        )
    assert [epoch for epoch, _ in store.checkpoints(claim.run_id)] == [3, 2]
    kept = attempts.finish(claim, RunState.FINISHED, result=Result(1.0, 0.5, 5), files={"weights": FILE})
    assert kept == {FILE.path}


def test_a_held_run_is_not_given_out_again(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts)
    assert store.waiting(5) == ()
    assert attempts.claim(claim.run_id, "somebody else's ticket") is None


def test_a_lease_that_ran_out_is_taken_over_and_the_old_worker_refused(
    store: Store, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "LEASE_SECONDS", -1.0)
    zombie = claimed(store, attempts)
    attempts.progress(
        zombie, step=4, seconds=0.4, images_per_second=None, history=[(row(1), 4, 0.4)], checkpoint=(1, FILE),
        losses=[(1, losses(4, 3, 2, 1))],
    )  # fmt: skip
    attempts.progress(zombie, step=6, seconds=0.6, images_per_second=None, losses=[(5, losses(9, 9))])
    ((run_id, ticket),) = store.waiting(5)
    heir = attempts.claim(run_id, ticket)
    assert heir is not None
    assert (heir.attempt, heir.epoch, heir.step, heir.seconds) == (2, 1, 4, 0.4)
    assert store.step_losses(run_id).tolist() == [4, 3, 2, 1]
    assert "went on from epoch 1" in (store.run(run_id).notice or "")
    for write in (
        lambda: attempts.renew(zombie),
        lambda: attempts.progress(zombie, step=9, seconds=1, images_per_second=None, losses=[(7, losses(8))]),
        lambda: attempts.finish(zombie, RunState.FINISHED),
        lambda: attempts.rewind(zombie, 0, "x"),
    ):
        with pytest.raises(FenceLost):
            write()
    assert store.step_losses(run_id).tolist() == [4, 3, 2, 1]


def test_the_same_ticket_takes_over_at_once(store: Store, attempts: Attempts) -> None:
    run_id = store.submit(CONFIG).run_id
    ((_, ticket),) = store.waiting(1)
    assert attempts.claim(run_id, ticket) is not None
    again = attempts.claim(run_id, ticket)
    assert again is not None
    assert again.attempt == 2


def test_a_run_that_stops_its_worker_each_time_fails_in_words(store: Store, attempts: Attempts) -> None:
    run_id = store.submit(CONFIG).run_id
    claims = [attempts.claim(run_id, "ticket") for _ in range(MAX_STRIKES + 1)]
    assert [claim is not None for claim in claims] == [True] * MAX_STRIKES + [False]
    run = store.run(run_id)
    assert run.state is RunState.FAILED
    assert run.error == "It stopped its worker 3 times without finishing an epoch, so it was given up."
    assert store.submit(CONFIG).outcome is Outcome.RESUMED
    assert attempts.claim(run_id, "ticket") is not None


def test_progress_forgives_earlier_deaths(store: Store, attempts: Attempts) -> None:
    run_id = store.submit(CONFIG).run_id
    for epoch in range(1, 6):
        claim = attempts.claim(run_id, "ticket")
        assert claim is not None
        entry = [(row(epoch), epoch, 0.1)]
        attempts.progress(
            claim, step=epoch, seconds=0.1, images_per_second=None, history=entry, checkpoint=(epoch, FILE)
        )
    assert store.run(run_id).state is RunState.RUNNING


def test_a_worker_that_cannot_begin_counts_too(store: Store, attempts: Attempts) -> None:
    run_id = store.submit(CONFIG).run_id
    ((_, ticket),) = store.waiting(1)
    attempts.strike(run_id, "of another attempt", "not this")
    for _ in range(MAX_STRIKES):
        assert store.run(run_id).state is RunState.QUEUED
        attempts.strike(run_id, ticket, "No module named torch")
    assert (store.run(run_id).state, store.run(run_id).error) == (RunState.FAILED, "No module named torch")


def test_stopping(store: Store, attempts: Attempts) -> None:
    queued = store.submit(parse_config({"epochs": 9})).run_id
    store.request_stop(queued)
    assert store.run(queued).state is RunState.STOPPED
    claim = claimed(store, attempts)
    assert attempts.renew(claim) is False
    store.request_stop(claim.run_id)
    assert attempts.renew(claim) is True
    assert store.submit(CONFIG).outcome is Outcome.JOINED  # somebody wants it after all
    assert attempts.renew(claim) is False


def test_a_stop_asked_of_a_dead_worker_still_stops(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts, ticket="t")
    store.request_stop(claim.run_id)
    assert attempts.claim(claim.run_id, "t") is None
    assert store.run(claim.run_id).state is RunState.STOPPED


def test_deleting(store: Store, attempts: Attempts) -> None:
    claim = claimed(store, attempts)
    with pytest.raises(RunActive, match="stop it first"):
        store.delete(claim.run_id)
    attempts.progress(claim, step=1, seconds=0.1, images_per_second=None, losses=[(1, losses(1))])
    attempts.finish(claim, RunState.STOPPED)
    store.delete(claim.run_id)
    for gone in (lambda: store.run(claim.run_id), lambda: store.delete(claim.run_id)):
        with pytest.raises(RunNotFound):
            gone()
    assert store.submit(CONFIG).outcome is Outcome.NEW
    assert store.step_losses(claim.run_id).size == 0


@pytest.mark.parametrize("run_id", ["", "abc", "x" * 10**6, "../../etc", "%00", "' OR 1=1 --", "\0", "0" * 12])
def test_no_text_is_an_id_unless_it_is_one(store: Store, run_id: str) -> None:
    with pytest.raises(RunNotFound):
        store.run(run_id)


def test_a_run_is_found_by_id_and_by_digest(store: Store) -> None:
    run_id = store.submit(CONFIG).run_id
    assert store.run(CONFIG.digest).id == store.run(CONFIG.digest[:20]).id == run_id
    with pytest.raises(RunNotFound):
        store.run(run_id + "0000")


def test_the_newest_run_comes_first(store: Store) -> None:
    ids = [store.submit(parse_config({"seed": seed})).run_id for seed in range(5)]
    assert {run.id for run in store.runs()} == set(ids)
    assert len(store.runs(limit=2, offset=4)) == 1
    created = [run.created_at for run in store.runs()]
    assert created == sorted(created, reverse=True)


def test_an_altered_record_is_noticed(url: str, store: Store) -> None:
    run_id = store.submit(CONFIG).run_id
    engine = sa.create_engine(url)
    altered = json.dumps(json.loads(CONFIG.stored()) | {"epochs": 4})
    with engine.begin() as connection:
        connection.execute(sa.update(schema.runs).values(config=altered))
    engine.dispose()
    with pytest.raises(StoreDamaged, match="altered"):
        store.run(run_id)


def test_speeds_keep_the_newest_measurement_of_a_shape(store: Store) -> None:
    store.record_speed(Speed("a", 1.0, 1.0))
    store.record_speed(Speed("b", 2.0, 2.0))
    store.record_speed(Speed("a", 1.0, 3.0))
    assert {speed.shape: speed.seconds for speed in store.speeds()} == {"a": 3.0, "b": 2.0}


# Opening ------------------------------------------------------------------------------------------------------------


def test_a_store_survives_being_reopened(url: str, store: Store) -> None:
    run_id = store.submit(CONFIG).run_id
    store.close()
    again = Store(url)
    assert again.run(run_id).config == CONFIG
    again.close()


def test_eight_processes_may_start_on_a_new_store_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'raced' / 'store.db'}"
    script = """if True:
        import sys
        from mnistlr_core.config import parse_config
        from mnistlr_core.store import Store
        print(Store(sys.argv[1]).submit(parse_config({"epochs": 4})).outcome)
    """
    children = [
        subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    said = Counter(child.communicate(timeout=60)[0].strip() for child in children)
    assert said == {"new": 1, "joined": 7}
    assert {path.name for path in (tmp_path / "raced").iterdir()} <= {"store.db", "store.db.lock", "store.db-journal"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"not a database at all" * 100, "damaged"), (b"SQLite format 3\0" + b"\0" * 4000, "damaged")],
)
def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=words):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_truncated_store_is_refused(url: str, tmp_path: Path, store: Store) -> None:
    for seed in range(50):
        store.submit(parse_config({"seed": seed}))
    store.close()
    path = tmp_path / "store.db"
    cut = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(cut)
    with pytest.raises(StoreDamaged, match="damaged"):
        Store(url)
    assert path.read_bytes() == cut


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("create table theirs (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreDamaged, match="not a mnistlr store"):
        Store(f"sqlite:///{path}")


def test_a_newer_store_is_refused_with_both_versions(url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.update(schema.schema).values(version=schema.SCHEMA_VERSION + 1))
    engine.dispose()
    with pytest.raises(StoreNewer, match=f"layout {schema.SCHEMA_VERSION + 1}.*up to {schema.SCHEMA_VERSION}"):
        Store(url)


def test_an_older_store_is_backed_up_and_upgraded(
    url: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.submit(CONFIG).run_id
    store.close()

    def add_a_column(connection: sa.Connection) -> None:
        connection.execute(sa.text("alter table runs add column stars integer"))

    migrate_next(monkeypatch, add_a_column)
    upgraded = Store(url)
    assert upgraded.run(run_id).config == CONFIG
    upgraded.close()
    (backup,) = tmp_path.glob("*.backup")
    connection = sqlite3.connect(backup)
    assert connection.execute("select id from runs").fetchall() == [(run_id,)]
    assert connection.execute("select version from mnistlr_schema").fetchone() == (schema.SCHEMA_VERSION - 1,)
    connection.close()


def test_a_migration_that_breaks_off_changes_nothing(
    url: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = store.submit(CONFIG).run_id
    store.close()

    def break_off(connection: sa.Connection) -> None:
        connection.execute(sa.text("alter table runs add column stars integer"))
        connection.execute(sa.text("create table half_done (x integer)"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        migrate_next(patch, break_off)
        with pytest.raises(KeyboardInterrupt):
            Store(url)
    again = Store(url)
    assert again.run(run_id).config == CONFIG
    again.close()
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute("select name from sqlite_master where name = 'half_done'").fetchall() == []
    connection.close()


def test_a_place_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="MNISTLR_HOME"):
        Store(f"sqlite:///{tmp_path / 'file' / 'store.db'}")


def test_several_runs_and_their_histories_come_at_once(store: Store, attempts: Attempts) -> None:
    first, second = claimed(store, attempts), claimed(store, attempts, CONFIG.replace(seed=1))
    for epoch in (1, 2):
        attempts.progress(first, step=epoch, seconds=1.0, images_per_second=None, history=[(row(epoch), epoch, 1.0)])
    ids = [first.run_id, second.run_id, "0123456789ab"]
    assert store.find(ids) == {run_id: store.run(run_id) for run_id in ids[:2]}
    assert store.histories(ids) == {first.run_id: (row(1), row(2)), second.run_id: (), ids[2]: ()}
    assert store.find([]) == {}
    assert store.histories([]) == {}


def claimed(store: Store, attempts: Attempts, config: RunConfig = CONFIG, ticket: str | None = None) -> Claim:
    run_id = store.submit(config).run_id
    claim = attempts.claim(run_id, ticket or f"{run_id}-1")
    assert claim is not None
    return claim


def row(epoch: int) -> EpochRow:
    return EpochRow(epoch, 0.5, 0.8, 0.6, 0.7, None, None)


def losses(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def migrate_next(monkeypatch: pytest.MonkeyPatch, migration: object) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, migration))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
