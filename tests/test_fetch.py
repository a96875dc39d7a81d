"""Fetching: what is published is what the raw files hold, and no fault of file, mirror or process gets through."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock

from mnistlr_core import catalogue, data, download, fetch
from mnistlr_core.catalogue import DATASETS, DatasetInfo
from mnistlr_core.data import DatasetState
from mnistlr_core.download import LAYOUTS, Say
from mnistlr_core.errors import DatasetDamaged, DatasetError, DownloadFailed

# For a child: what never answers is waited for a hundredth of the time that the product has set, all else in full.
SHORT_SILENCE = """
import socket, urllib.request
real = urllib.request.urlopen
def urlopen(request):
    return real(request, timeout=socket.getdefaulttimeout() / (100 if "/silent/" in request.full_url else 1))
urllib.request.urlopen = urlopen
"""

# For a child that only has to live until it is killed: a torchvision that is there at once.
QUICK_TORCHVISION = """
import sys, types, urllib.request
class KMNIST:
    def __init__(self, root, download):
        urllib.request.urlopen(self.mirrors[0]).read()
sys.modules["torchvision"] = types.SimpleNamespace(datasets=types.SimpleNamespace(KMNIST=KMNIST))
"""

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
BY_HAND = "put the unpacked files by hand into KMNIST/raw/ below the data folder: train-images-idx3-ubyte"
SMALL = replace(DATASETS["kmnist"], train_size=60, test_size=20, download_bytes=1 << 21)

Answer = Callable[[BaseHTTPRequestHandler], None]


def idx_bytes(file: str) -> bytes:
    """A sound IDX file of SMALL's size with made-up content."""
    n = SMALL.train_size if file.startswith("train") else SMALL.test_size
    shape = (n, 28, 28) if "images" in file else (n,)
    header = b"".join(k.to_bytes(4, "big") for k in (0x0800 + len(shape), *shape))
    return header + np.resize(np.arange(10, dtype=np.uint8), shape).tobytes()


def put_raw_files(root: Path) -> None:
    raw = root / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).write_bytes(idx_bytes(file))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the catalogue say that KMNIST has 60 and 20 images, so that made-up files are small."""
    monkeypatch.setattr(catalogue, "DATASETS", {**DATASETS, "kmnist": SMALL})


@pytest.fixture
def source(small: None, tmp_path: Path) -> Path:
    """A torchvision root with sound, made-up KMNIST files."""
    put_raw_files(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Mirror:
    """A web server on loopback whose answer depends on the path's first part; `paths` are the requests it got."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.stopping = threading.Event()
        self.trickling = threading.Event()
        self.answers: dict[str, Answer] = {
            "missing": lambda request: request.send_error(404),
            "unavailable": lambda request: request.send_error(503),
            "page": lambda request: self.deliver(request, b"<html>Please log in</html>"),
            "bomb": lambda request: self.deliver(request, gzip.compress(bytes(5_000_000), 1)),
            "cut": lambda request: self.deliver(request, bytes(1000), length=9_000_000),
            "mute": lambda request: None,
            "silent": self.be_silent,
            "trickle": self.trickle,
        }
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.paths.append(self.path)
                with contextlib.suppress(ConnectionError):
                    mirror.answers[self.path.split("/")[1]](self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def urls(self, *names: str) -> str:
        return " ".join(f"http://127.0.0.1:{self.server.server_address[1]}/{name}" for name in names)

    def deliver(self, request: BaseHTTPRequestHandler, body: bytes, *, length: int | None = None) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    def be_silent(self, request: BaseHTTPRequestHandler) -> None:
        self.stopping.wait()

    def trickle(self, request: BaseHTTPRequestHandler) -> None:
        """One MiB at once, and then one byte a second."""
        self.deliver(request, bytes(1 << 20), length=9_000_000)
        self.trickling.set()
        while not self.stopping.wait(1):
            request.wfile.write(b"\0")


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=mirror.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield mirror
    mirror.stopping.set()
    mirror.server.shutdown()
    mirror.server.server_close()
    thread.join()


@pytest.fixture
def in_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have every Python process that is started run some code first, so that the product needs no door for tests."""

    def set_up(code: str) -> None:
        folder = tmp_path / "before"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return set_up


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def lives(process: psutil.Process) -> bool:
    """Whether it runs; an orphan that has ended may wait a while for init to collect it."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_exactly_the_public_names_are_exported() -> None:
    assert fetch.__all__ == ["prepare"]
    assert download.__all__ == ["LAYOUTS", "Layout", "Say", "download"]


def test_raw_files_become_arrays_and_nothing_else_stays(source: Path, prepared: Path) -> None:
    dataset = fetch.prepare("kmnist", source=source, prepared=prepared)
    for stem, file in zip(SMALL.shapes, FILES, strict=True):
        assert getattr(dataset, stem).tobytes() == idx_bytes(file)[16 if "images" in file else 8 :]
    assert data.status("kmnist", prepared).state is DatasetState.READY
    assert data.status("kmnist", prepared).warning is None
    assert left_in(prepared) <= {"kmnist", "kmnist.lock"}


def test_what_is_prepared_needs_no_source(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_fetch", None)
    fetch.prepare("digits", source=digits / "none", prepared=digits)


def test_a_read_only_source_is_used_as_it_is(source: Path, prepared: Path) -> None:
    raw = source / "KMNIST" / "raw"
    for path in (raw, raw.parent, source):
        path.chmod(0o555)
    try:
        fetch.prepare("kmnist", source=source, prepared=prepared)
        assert left_in(raw) == set(FILES)
    finally:
        for path in (source, raw.parent, raw):
            path.chmod(0o755)


def test_damaged_arrays_are_made_again(source: Path, prepared: Path) -> None:
    fetch.prepare("kmnist", source=source, prepared=prepared)
    path = prepared / "kmnist" / "train_images.npy"
    sound = path.read_bytes()
    then = path.stat().st_mtime_ns
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    os.utime(path, ns=(then, then + 1))
    fetch.prepare("kmnist", source=source, prepared=prepared)
    assert path.read_bytes() == sound


def write(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def harm(raw: Path) -> None:
        (raw / file).write_bytes(change((raw / file).read_bytes()))

    return harm


def swap(one: str, two: str) -> Callable[[Path], None]:
    def harm(raw: Path) -> None:
        (raw / one).rename(raw / "aside")
        (raw / two).rename(raw / one)
        (raw / "aside").rename(raw / two)

    return harm


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (write(FILES[0], lambda b: b[:-1]), "train-images-idx3-ubyte must have 47,056 bytes, but has 47,055"),
        (write(FILES[1], lambda b: b + b"\0"), "train-labels-idx1-ubyte must have 68 bytes, but has 69"),
        (write(FILES[2], lambda b: b[:7]), "t10k-images-idx3-ubyte must begin with 00000803 .* but begins"),
        (write(FILES[3], lambda b: b""), "t10k-labels-idx1-ubyte must begin with"),
        (write(FILES[2], lambda b: b"\xff" + b[1:]), "t10k-images-idx3-ubyte must begin with"),
        (write(FILES[0], lambda b: b[:4] + b"\x80\0\0\0" + b[8:]), "but begins 00000803 80000000"),
        (write(FILES[1], lambda b: b[:-1] + b"\x0a"), "train_labels must hold each label from 0 to 9 and no other"),
        (write(FILES[0], lambda b: b[:16] + bytes(len(b) - 16)), "train_images must hold pixels that differ"),
        (swap(FILES[0], FILES[1]), "train-images-idx3-ubyte must begin with 00000803"),
        (swap(FILES[1], FILES[3]), "train-labels-idx1-ubyte must begin with 00000801 0000003c"),
        (swap(FILES[0], FILES[2]), "train-images-idx3-ubyte must begin with 00000803 0000003c"),
    ],
)
def test_a_damaged_raw_file_is_named_and_never_published(
    source: Path, prepared: Path, harm: Callable[[Path], None], says: str
) -> None:
    harm(source / "KMNIST" / "raw")
    with pytest.raises(DatasetDamaged, match=says) as caught:
        fetch.prepare("kmnist", source=source, prepared=prepared)
    told = data.status("kmnist", prepared)
    assert (told.state, told.message) == (DatasetState.DAMAGED, str(caught.value))
    assert str(source) not in told.message
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}


def test_a_full_disk_is_told_in_words(source: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with pytest.raises(DatasetError, match="KMNIST could not be prepared: No space left on device") as caught:
        fetch.prepare("kmnist", source=source, prepared=prepared)
    told = data.status("kmnist", prepared)
    assert (told.state, told.message) == (DatasetState.FAILED, str(caught.value))
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, where a folder should be")
    with pytest.raises(DatasetError, match="Digits 8×8 could not be prepared: Not a directory"):
        fetch.prepare("digits", source=tmp_path, prepared=tmp_path / "file" / "prepared")


def test_leftovers_of_a_killed_fetch_are_removed(source: Path, prepared: Path) -> None:
    (prepared / ".kmnist-0123" / "KMNIST" / "raw").mkdir(parents=True)
    (prepared / ".kmnist.status.json-0123").write_text("{")
    (prepared / ".mnist-0123").mkdir()
    data.write_status("kmnist", prepared, DatasetState.FETCHING, "Downloading.")
    fetch.prepare("kmnist", source=source, prepared=prepared)
    assert left_in(prepared) - {"kmnist.lock"} == {"kmnist", ".mnist-0123"}


def meeting(n: int) -> Callable[[Path, float], FileLock]:
    """A FileLock that nobody gets before `n` threads want it."""
    barrier = threading.Barrier(n, timeout=60)

    def lock(path: Path, timeout: float) -> FileLock:
        barrier.wait()
        return FileLock(path, timeout=timeout)

    return lock


def test_four_at_once_fetch_once(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    read = fetch._read_digits

    def watched() -> fetch.Arrays:
        states.append(data.status("digits", prepared).state)
        return read()

    monkeypatch.setattr(fetch, "_read_digits", watched)
    monkeypatch.setattr(fetch, "FileLock", meeting(4))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(fetch.prepare, "digits", source=prepared, prepared=prepared) for _ in range(4)]
        assert all(len(each.result().train_labels) == 1437 for each in asked)
    assert states == [DatasetState.FETCHING]


@pytest.mark.parametrize("error", [DownloadFailed("No mirror answered."), DatasetDamaged("A file is damaged.")])
def test_those_who_waited_share_the_failure(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, error: DatasetError
) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(fetch, "_read_digits", fail)
    with monkeypatch.context() as patched, ThreadPoolExecutor(3) as pool:
        patched.setattr(fetch, "FileLock", meeting(3))
        asked = [pool.submit(fetch.prepare, "digits", source=prepared, prepared=prepared) for _ in range(3)]
        assert [str(each.exception()) for each in asked] == [str(error)] * 3
    assert calls == [1]
    with pytest.raises(type(error)):  # one who asks later tries again
        fetch.prepare("digits", source=prepared, prepared=prepared)
    assert calls == [1, 1]


def test_a_failure_told_by_a_clock_that_was_ahead_is_not_shared(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared.mkdir()
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda: 1e11)
        data.write_status("digits", prepared, DatasetState.FAILED, "No mirror answered.")
    fetch.prepare("digits", source=prepared, prepared=prepared)


def test_waiting_for_another_fetch_ends_at_the_deadline(prepared: Path) -> None:
    prepared.mkdir()
    with FileLock(prepared / "digits.lock"), pytest.raises(DownloadFailed, match="another process for more than 0"):
        fetch.prepare("digits", source=prepared, prepared=prepared, deadline_seconds=0.1)


def test_an_unforeseen_error_is_told_and_passed_on(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_read_digits", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch.prepare("digits", source=prepared, prepared=prepared)
    assert data.status("digits", prepared).message == "Preparing Digits 8×8 failed (ZeroDivisionError). Try again."


def test_each_fault_of_a_mirror_is_told_with_what_to_do(
    mirror: Mirror,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_child: Callable[[str], None],
) -> None:
    in_child(SHORT_SILENCE)
    names = ["missing", "unavailable", "silent", "mute", "page", "bomb", "cut"]
    monkeypatch.setenv("MNISTLR_MIRROR", f"{mirror.urls(*names)}/ http://127.0.0.1:9/closed")
    with pytest.raises(DownloadFailed, match=BY_HAND) as caught:
        fetch.prepare("kmnist", source=tmp_path / "source", prepared=prepared)
    begin, _, reasons = str(caught.value).partition("(")
    assert begin == "KMNIST could not be downloaded "
    assert reasons.partition("). Try again later, or ")[0].split("; ") == [
        "127.0.0.1: HTTP Error 404: Not Found",
        "127.0.0.1: HTTP Error 503: Service Unavailable",
        "127.0.0.1: timed out",
        "127.0.0.1: Remote end closed connection without response",
        "127.0.0.1: File not found or corrupted.",
        "127.0.0.1: File not found or corrupted.",
        "127.0.0.1: File not found or corrupted.",
        "127.0.0.1: <urlopen error [Errno 111] Connection refused>",
    ]
    assert list(dict.fromkeys(mirror.paths)) == [f"/{name}/train-images-idx3-ubyte.gz" for name in names]
    assert data.status("kmnist", prepared).message == str(caught.value)
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}
    assert not (tmp_path / "source").exists()


def test_a_good_delivery_is_published_and_kept(
    small: None,
    mirror: Mirror,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_child: Callable[[str], None],
) -> None:
    """The whole way through a real child; torchvision is only told the md5 of the made-up files."""
    packed = {f"{file}.gz": gzip.compress(idx_bytes(file)) for file in FILES}
    resources = [(file, hashlib.md5(body, usedforsecurity=False).hexdigest()) for file, body in packed.items()]
    in_child(f"from torchvision.datasets import KMNIST; KMNIST.resources = {resources!r}")
    mirror.answers["good"] = lambda request: mirror.deliver(request, packed[Path(request.path).name])
    monkeypatch.setenv("MNISTLR_MIRROR", mirror.urls("cut", "good"))
    dataset = fetch.prepare("kmnist", source=tmp_path / "source", prepared=prepared)
    for stem, file in zip(SMALL.shapes, FILES, strict=True):
        assert getattr(dataset, stem).tobytes() == idx_bytes(file)[16 if "images" in file else 8 :]
        assert (tmp_path / "source" / "KMNIST" / "raw" / file).read_bytes() == idx_bytes(file)
    assert list(dict.fromkeys(mirror.paths)) == [f"/cut/{FILES[0]}.gz", *(f"/good/{file}" for file in packed)]
    assert left_in(tmp_path / "source") == {"KMNIST"}
    assert left_in(prepared) <= {"kmnist", "kmnist.lock"}


def test_a_good_delivery_is_published_where_the_source_cannot_keep_it(
    small: None, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "download", lambda info, root, *, deadline, say: put_raw_files(root))
    (tmp_path / "source").write_text("a file, where a folder should be")
    fetch.prepare("kmnist", source=tmp_path / "source", prepared=prepared)
    assert left_in(prepared) <= {"kmnist", "kmnist.lock"}


def test_a_mirror_of_one_byte_a_second_ends_at_the_deadline(
    small: None, mirror: Mirror, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline falls when half of the file was told to be here, by a clock that jumps: no wait, and no race."""
    said: list[tuple[str, float | None]] = []
    half = threading.Event()

    def listening(info: DatasetInfo, root: Path, *, deadline: float, say: Say) -> None:
        def listen(message: str, fraction: float | None) -> None:
            said.append((message, fraction))
            if fraction == 0.5:
                half.set()

        download.download(info, root, deadline=deadline, say=listen)

    monkeypatch.setattr(fetch, "download", listening)
    monkeypatch.setattr(download, "monotonic", lambda: time.monotonic() + 1000 * half.is_set())
    monkeypatch.setenv("MNISTLR_MIRROR", mirror.urls("trickle"))
    before = children()
    with pytest.raises(DownloadFailed, match=f"KMNIST did not arrive in time.*{BY_HAND}"):
        fetch.prepare("kmnist", source=prepared / "none", prepared=prepared, deadline_seconds=120)
    assert said[0] == ("Downloading KMNIST: 0.0 of 2.1 MB.", 0)
    assert said[-1] == ("Downloading KMNIST: 1.0 of 2.1 MB.", 0.5)
    assert children() == before
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('one line\\nand the last\\n')", "and the last"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9"),
    ],
)
def test_a_child_that_crashes_is_told_with_its_last_words(
    prepared: Path, in_child: Callable[[str], None], code: str, says: str
) -> None:
    in_child(code)
    with pytest.raises(DownloadFailed, match=rf"KMNIST could not be downloaded \({says}\)\. Try again later"):
        fetch.prepare("kmnist", source=prepared / "none", prepared=prepared)


def test_the_download_dies_with_the_process_that_wanted_it(
    mirror: Mirror, prepared: Path, monkeypatch: pytest.MonkeyPatch, in_child: Callable[[str], None]
) -> None:
    in_child(QUICK_TORCHVISION)
    monkeypatch.setenv("MNISTLR_MIRROR", mirror.urls("trickle"))
    code = "import sys; from pathlib import Path; from mnistlr_core.fetch import prepare; p = Path(sys.argv[1]);"
    code += "prepare('kmnist', source=p / 'none', prepared=p)"
    here = Path(__file__).resolve().parents[1]
    with subprocess.Popen([sys.executable, "-c", code, str(prepared)], cwd=here) as parent:
        try:
            while not mirror.trickling.wait(0.1):
                assert parent.poll() is None
            told = data.status("kmnist", prepared)
            while not told.message.startswith("Downloading KMNIST: "):  # the next beat says so
                assert told.state is DatasetState.FETCHING
                time.sleep(0.05)
                told = data.status("kmnist", prepared)
            offspring = psutil.Process(parent.pid).children(recursive=True)
            assert offspring
        finally:
            parent.kill()
    until = time.monotonic() + 60
    while any(map(lives, offspring)):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("own", [True, False])
def test_cifar10_is_one_archive(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    from torchvision.datasets import CIFAR10

    if own:
        monkeypatch.setenv("MNISTLR_MIRROR", mirror.urls("missing"))
    else:
        monkeypatch.delenv("MNISTLR_MIRROR", raising=False)
        monkeypatch.setattr(CIFAR10, "url", f"{mirror.urls('missing')}/{CIFAR10.filename}")
    assert download._try_mirrors("cifar10", str(tmp_path)) == ["127.0.0.1: HTTP Error 404: Not Found"]
    assert mirror.paths == ["/missing/cifar-10-python.tar.gz"]
    assert "into cifar-10-batches-py/ below the data folder: data_batch_1" in LAYOUTS["cifar10"].by_hand()


def test_cifar10_is_read_only_with_its_md5(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    small = DatasetInfo(
        "cifar10", "CIFAR-10", (32, 32, 3), tuple("0123456789"), 50, 10, "A small one.", 1, "cifar-10-batches-py"
    )
    monkeypatch.setattr(catalogue, "DATASETS", {"cifar10": small})
    folder = tmp_path / "source" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3, 32, 32)).astype(np.uint8)
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for at, file in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        content = pickle.dumps({"data": pixels[at].reshape(10, -1), "labels": list(range(10))})
        (folder / file).write_bytes(content)
        lists["test_list" if at == 5 else "train_list"].append(
            [file, hashlib.md5(content, usedforsecurity=False).hexdigest()]
        )
    content = pickle.dumps({"label_names": list("0123456789")})
    (folder / "batches.meta").write_bytes(content)
    for name, value in lists.items():
        monkeypatch.setattr(CIFAR10, name, value)
    monkeypatch.setattr(
        CIFAR10, "meta", CIFAR10.meta | {"md5": hashlib.md5(content, usedforsecurity=False).hexdigest()}
    )

    dataset = fetch.prepare("cifar10", source=tmp_path / "source", prepared=prepared)
    np.testing.assert_array_equal(dataset.test_images, pixels[5].transpose(0, 2, 3, 1))
    (folder / "data_batch_3").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DatasetDamaged, match="data_batch_3 must have md5"):
        fetch.prepare("cifar10", source=tmp_path / "source", prepared=tmp_path / "other")


def mnist_with(mnist_root: Path, root: Path, file: str, change: Callable[[bytes], bytes]) -> Path:
    """A torchvision root with real MNIST, one of its files changed."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for each in FILES:
        real = mnist_root / "MNIST" / "raw" / each
        if each == file:
            (raw / each).write_bytes(change(real.read_bytes()))
        else:
            (raw / each).symlink_to(real.resolve())
    return root


@pytest.mark.mnist
def test_mnist_is_the_published_one(mnist_root: Path, prepared: Path) -> None:
    dataset = fetch.prepare("mnist", source=mnist_root, prepared=prepared)
    assert (round(dataset.pixel_mean, 4), round(dataset.pixel_std, 4)) == (0.1307, 0.3081)
    assert dataset.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    warning = data.status("mnist", prepared).warning
    assert warning is None or warning.startswith("train-images-idx3-ubyte is not byte for byte the published file")
    shutil.rmtree(prepared)


@pytest.mark.mnist
@pytest.mark.parametrize("file", FILES)
def test_mnist_with_one_changed_byte_warns_of_pixels_to_train_on_and_refuses_the_rest(
    mnist_root: Path, tmp_path: Path, prepared: Path, file: str
) -> None:
    source = mnist_with(mnist_root, tmp_path / "source", file, lambda b: b[:-1] + bytes([b[-1] ^ 1]))
    if file == "train-images-idx3-ubyte":
        fetch.prepare("mnist", source=source, prepared=prepared)
        assert "not byte for byte" in (data.status("mnist", prepared).warning or "")
        shutil.rmtree(prepared)
    else:
        with pytest.raises(DatasetDamaged, match=f"{file} must have md5"):
            fetch.prepare("mnist", source=source, prepared=prepared)


@pytest.mark.mnist
def test_training_images_that_were_cut_and_filled_with_zeros_are_refused(
    mnist_root: Path, tmp_path: Path, prepared: Path
) -> None:
    source = mnist_with(mnist_root, tmp_path / "source", FILES[0], lambda b: b[:-1_000_000] + bytes(1_000_000))
    with pytest.raises(DatasetDamaged, match="train-images-idx3-ubyte must have md5"):
        fetch.prepare("mnist", source=source, prepared=prepared)


def test_the_catalogue_says_where_torchvision_wants_the_files() -> None:
    for name, layout in LAYOUTS.items():
        assert {Path(file).parent.as_posix() for file in layout.files} == {DATASETS[name].folder}
