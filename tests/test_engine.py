"""The real cluster under real faults: processes are killed, and the runs must come out right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from mnistlr_core.config import RunConfig, parse_config
from mnistlr_core.data import DatasetState
from mnistlr_core.lab import Lab
from mnistlr_core.records import Outcome, Run, RunState
from mnistlr_core.settings import Settings
from tests.processes import cluster_of, eventually, nanny_of, scheduler_of, worker_of

# About 3 s of training, in many short epochs: long enough to be killed in the middle.
EPOCHS = 150
LONG = {"dataset": "digits", "architecture": "mlp", "hidden": "512", "batch_size": 16, "epochs": EPOCHS}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("engine"), data=digits / "none", device="cpu")
    shutil.copytree(digits, settings.prepared)
    return settings


@pytest.fixture(scope="module")
def lab(home: Settings) -> Iterator[Lab]:
    with closing(Lab(home)) as opened:
        yield opened


def test_reading_starts_nothing(lab: Lab) -> None:
    assert lab.runs() == ()
    assert lab.preview(parse_config(LONG)).outcome is Outcome.NEW
    assert lab.dataset_status("digits").state is DatasetState.READY
    assert cluster_of(os.getpid()) == []


def test_a_run_is_trained_and_then_cached(lab: Lab) -> None:
    config = parse_config({"dataset": "digits", "epochs": 3})
    submission = lab.submit(config)
    assert submission.outcome is Outcome.NEW
    run = wait(lab, submission.run_id)
    assert (run.state, run.epoch) == (RunState.FINISHED, 3)
    assert run.test is not None
    assert lab.predictions(run).errors == run.test.errors
    assert lab.submit(config).outcome is Outcome.CACHED
    assert lab.preview(config).outcome is Outcome.CACHED
    seconds = lab.preview(parse_config({"dataset": "digits", "epochs": 6})).seconds
    assert seconds is not None
    assert seconds > 0
    eventually(lambda: (lab.device or "").startswith("CPU"), what="the device's name")


def test_every_port_is_on_loopback(lab: Lab) -> None:
    wait(lab, lab.submit(parse_config({"dataset": "digits", "epochs": 1})).run_id)
    processes = [psutil.Process(), *cluster_of(os.getpid())]
    listening = [
        socket.laddr.ip
        for process in processes
        for socket in process.net_connections(kind="inet")
        if socket.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_stop_keeps_what_was_trained(lab: Lab) -> None:
    run = started(lab, parse_config(LONG | {"seed": 5}), epoch=1)
    lab.stop(run.id)
    stopped = wait(lab, run.id)
    assert stopped.state is RunState.STOPPED
    assert stopped.test is not None
    assert 1 <= stopped.epoch < EPOCHS
    assert lab.submit(parse_config(LONG | {"seed": 5})).outcome is Outcome.RESUMED
    assert wait(lab, run.id).state is RunState.FINISHED


@pytest.fixture(scope="module")
def unbroken(lab: Lab) -> tuple[Run, tuple[object, ...], bytes]:
    """The run that the others are compared with; it is deleted, so that it can be trained again."""
    run = wait(lab, lab.submit(parse_config(LONG)).run_id)
    assert run.state is RunState.FINISHED
    kept = run, lab.history(run.id), lab.step_losses(run.id).tobytes()
    lab.delete(run.id)
    return kept


@pytest.mark.parametrize("victim", [worker_of, nanny_of, scheduler_of])
def test_a_killed_process_costs_no_run_and_no_number(
    lab: Lab, unbroken: tuple[Run, tuple[object, ...], bytes], victim: object
) -> None:
    run = started(lab, parse_config(LONG), epoch=2)
    victim(os.getpid()).kill()  # type: ignore[operator]
    after = wait(lab, run.id)
    before, history, losses = unbroken
    assert after.state is RunState.FINISHED, after.error
    assert after.attempts == 2
    assert (lab.history(run.id), after.test) == (history, before.test)
    assert lab.step_losses(run.id).tobytes() == losses
    lab.delete(run.id)


def test_a_run_that_kills_its_worker_fails_and_its_neighbours_do_not(lab: Lab) -> None:
    slow = parse_config(LONG | {"hidden": "4096, 4096", "batch_size": 16, "epochs": 1})
    poison = lab.submit(slow).run_id
    innocents = [lab.submit(parse_config({"dataset": "digits", "epochs": 2, "seed": seed})).run_id for seed in range(3)]
    for attempt in range(1, 4):
        eventually(partial(_training, lab, poison, attempt), what=f"attempt {attempt}")
        worker_of(os.getpid()).kill()
    failed = wait(lab, poison)
    assert failed.state is RunState.FAILED
    assert "stopped its worker 3 times" in (failed.error or "")
    assert [wait(lab, run_id).state for run_id in innocents] == [RunState.FINISHED] * 3


def test_a_second_lab_joins_the_first_ones_cluster(lab: Lab, home: Settings) -> None:
    config = parse_config(LONG | {"seed": 7, "epochs": 30})
    with closing(Lab(home)) as second:
        outcomes = [lab.submit(config).outcome, second.submit(config).outcome]
        assert outcomes == [Outcome.NEW, Outcome.JOINED]
        assert wait(second, config.short_id).state is RunState.FINISHED
        assert len(cluster_of(os.getpid())) == len({p.pid for p in cluster_of(os.getpid())})
        scheduler_of(os.getpid())  # raises unless there is exactly one
    assert wait(lab, lab.submit(parse_config({"dataset": "digits", "seed": 8})).run_id).state is RunState.FINISHED


def test_a_joined_scheduler_needs_nothing_of_ours(home: Settings, tmp_path: Path) -> None:
    """MNISTLR_SCHEDULER: a cluster that somebody else started, whose workers announce no slots."""
    scheduler_file = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(scheduler_file), "--host", "127.0.0.1", "--no-dashboard"]
    with (tmp_path / "log").open("wb") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", role, *common, *extra], stdout=log, stderr=log)
            for role, extra in (("scheduler", ["--port", "0"]), ("worker", ["--nthreads", "1", "--no-nanny"]))
        ]
    try:
        eventually(lambda: scheduler_file.exists() and scheduler_file.stat().st_size > 0, what="the scheduler's file")
        eventually(lambda: _parses(scheduler_file), what="a whole scheduler file")
        address = json.loads(scheduler_file.read_text())["address"]
        joined = home.model_copy(update={"scheduler": address, "home": tmp_path / "joined"})
        (tmp_path / "joined").mkdir()
        joined.prepared.symlink_to(home.prepared)
        with closing(Lab(joined)) as lab:
            run = wait(lab, lab.submit(parse_config({"dataset": "digits", "epochs": 2})).run_id)
            assert run.state is RunState.FINISHED, run.error
            assert not (joined.engine / "scheduler.json").exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(home: Settings, end: signal.Signals) -> None:
    script = """if True:
        import signal, time
        from mnistlr_core.lab import Lab
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
        lab = Lab()
        lab.start()
        while lab.device is None:
            time.sleep(0.05)
        print("up", flush=True)
        time.sleep(600)
    """
    environment = os.environ | {"MNISTLR_HOME": str(home.home.parent / f"alone-{end}"), "MNISTLR_DEVICE": "cpu"}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        cluster = cluster_of(parent.pid)
        assert len(cluster) >= 3
        parent.send_signal(end)
        parent.wait(timeout=20)
    eventually(lambda: not any(alive(process) for process in cluster), seconds=20, what="the cluster is gone")


def wait(lab: Lab, run_id: str) -> Run:
    eventually(lambda: not lab.run(run_id).state.active, seconds=120, what=f"run {run_id} ends")
    return lab.run(run_id)


def started(lab: Lab, config: RunConfig, *, epoch: int) -> Run:
    """Submit, and wait until some epochs have been trained."""
    run_id = lab.submit(config).run_id
    eventually(lambda: lab.run(run_id).epoch >= epoch, what=f"epoch {epoch} of {run_id}")
    assert lab.run(run_id).state is RunState.RUNNING
    return lab.run(run_id)


def _training(lab: Lab, run_id: str, attempt: int) -> bool:
    run = lab.run(run_id)
    return run.attempts == attempt and run.step > 0


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _parses(path: Path) -> bool:
    try:
        return "address" in json.loads(path.read_text())
    except ValueError:
        return False
