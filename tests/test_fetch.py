"""Fetching: what is published is what the raw files hold, and no fault of file, mirror or process gets through."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock

from mnistlr_core import data, fetch
from mnistlr_core.data import DATASETS, DatasetInfo, DatasetState
from mnistlr_core.errors import DatasetDamaged, DatasetError, DownloadFailed

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
BY_HAND = "put the unpacked files by hand into KMNIST/raw/ below the data folder: train-images-idx3-ubyte"


def idx_bytes(file: str) -> bytes:
    """A sound IDX file of MNIST's size with made-up content."""
    n = 60_000 if file.startswith("train") else 10_000
    shape = (n, 28, 28) if "images" in file else (n,)
    header = b"".join(k.to_bytes(4, "big") for k in (0x0800 + len(shape), *shape))
    return header + np.resize(np.arange(10, dtype=np.uint8), shape).tobytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A torchvision root with sound, made-up KMNIST files."""
    raw = tmp_path / "source" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).write_bytes(idx_bytes(file))
    return tmp_path / "source"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Mirror:
    """A web server on loopback whose every answer is `answer`; `paths` are the requests it got."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda request: request.send_error(404)
        self.stopping = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.paths.append(self.path)
                with contextlib.suppress(ConnectionError):
                    mirror.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/data"

    def deliver(self, body: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        return answer

    def trickle(self, request: BaseHTTPRequestHandler) -> None:
        """One byte a second of a file that would have 9 MB."""
        request.send_response(200)
        request.send_header("Content-Length", "9000000")
        request.end_headers()
        while not self.stopping.wait(1):
            request.wfile.write(b"\0")
            request.wfile.flush()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror()
    monkeypatch.setenv("MNISTLR_MIRROR", mirror.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=mirror.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield mirror
    mirror.stopping.set()
    mirror.server.shutdown()
    mirror.server.server_close()
    thread.join()


def test_raw_files_become_arrays_and_nothing_else_stays(source: Path, prepared: Path) -> None:
    dataset = fetch.prepare("kmnist", source=source, prepared=prepared)
    for stem, file in zip(DATASETS["kmnist"].shapes, FILES, strict=True):
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
    path = prepared / "kmnist" / "train_labels.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    path.write_bytes(content)
    fetch.prepare("kmnist", source=source, prepared=prepared)
    assert path.read_bytes() != content


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
        (write(FILES[0], lambda b: b[:-1]), "train-images-idx3-ubyte must have 47,040,016 bytes, but has 47,040,015"),
        (write(FILES[1], lambda b: b + b"\0"), "train-labels-idx1-ubyte must have 60,008 bytes, but has 60,009"),
        (write(FILES[2], lambda b: b[:7]), "t10k-images-idx3-ubyte must begin with 00000803 .* but begins"),
        (write(FILES[3], lambda b: b""), "t10k-labels-idx1-ubyte must begin with"),
        (write(FILES[2], lambda b: b"\xff" + b[1:]), "t10k-images-idx3-ubyte must begin with"),
        (write(FILES[0], lambda b: b[:4] + b"\x80\0\0\0" + b[8:]), "but begins 00000803 80000000"),
        (write(FILES[1], lambda b: b[:-1] + b"\x0a"), "train_labels must hold each label from 0 to 9 and no other"),
        (write(FILES[0], lambda b: b[:16] + bytes(len(b) - 16)), "train_images must hold pixels that differ"),
        (swap(FILES[0], FILES[1]), "train-images-idx3-ubyte must begin with 00000803"),
        (swap(FILES[1], FILES[3]), "train-labels-idx1-ubyte must begin with 00000801 0000ea60"),
        (swap(FILES[0], FILES[2]), "train-images-idx3-ubyte must begin with 00000803 0000ea60"),
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
    with pytest.raises(DatasetError, match="KMNIST could not be prepared: No space left on device"):
        fetch.prepare("kmnist", source=source, prepared=prepared)
    assert data.status("kmnist", prepared).state is DatasetState.FAILED
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}


def test_leftovers_of_a_killed_fetch_are_removed(source: Path, prepared: Path) -> None:
    (prepared / ".kmnist-0123" / "KMNIST" / "raw").mkdir(parents=True)
    (prepared / ".kmnist.status.json-0123").write_text("{")
    (prepared / ".mnist-0123").mkdir()
    data.write_status("kmnist", prepared, DatasetState.FETCHING, "Downloading.")
    fetch.prepare("kmnist", source=source, prepared=prepared)
    assert left_in(prepared) - {"kmnist.lock"} == {"kmnist", ".mnist-0123"}


def test_four_at_once_fetch_once(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = []
    publish = data.publish

    def slowly(*args: object, **kwargs: object) -> object:
        published.append(data.status("digits", prepared).state)
        time.sleep(0.3)
        return publish(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(data, "publish", slowly)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(fetch.prepare, "digits", source=prepared, prepared=prepared) for _ in range(4)]
        assert all(len(each.result().train_labels) == 1437 for each in asked)
    assert published == [DatasetState.FETCHING]


def test_those_who_waited_share_the_failure(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        time.sleep(0.5)
        raise DownloadFailed("No mirror answered.")

    monkeypatch.setattr(fetch, "_read_digits", fail)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(fetch.prepare, "digits", source=prepared, prepared=prepared) for _ in range(3)]
        assert [str(each.exception()) for each in asked] == ["No mirror answered."] * 3
    assert calls == [1]
    with pytest.raises(DownloadFailed):  # one who asks later tries again
        fetch.prepare("digits", source=prepared, prepared=prepared)
    assert calls == [1, 1]


def test_waiting_for_another_fetch_ends_at_the_deadline(prepared: Path) -> None:
    prepared.mkdir()
    with FileLock(prepared / "digits.lock"), pytest.raises(DownloadFailed, match="another process for more than 0"):
        fetch.prepare("digits", source=prepared, prepared=prepared, deadline_seconds=0.2)


def test_an_unforeseen_error_is_told_and_passed_on(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_read_digits", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch.prepare("digits", source=prepared, prepared=prepared)
    assert data.status("digits", prepared).message == "Preparing Digits 8×8 failed (ZeroDivisionError). Try again."


def html(mirror: Mirror) -> None:
    mirror.answer = mirror.deliver(b"<html>Please log in</html>")


def unavailable(mirror: Mirror) -> None:
    mirror.answer = lambda request: request.send_error(503)


def bomb(mirror: Mirror) -> None:
    mirror.answer = mirror.deliver(gzip.compress(bytes(50_000_000)))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda mirror: None, "127.0.0.1: HTTP Error 404: Not Found"),
        (unavailable, "127.0.0.1: HTTP Error 503: Service Unavailable"),
        (html, "127.0.0.1: File not found or corrupted."),
        (bomb, "127.0.0.1: File not found or corrupted."),
    ],
)
def test_a_mirror_that_fails_is_told_with_what_to_do(
    mirror: Mirror, prepared: Path, tmp_path: Path, fault: Callable[[Mirror], None], says: str
) -> None:
    fault(mirror)
    source = tmp_path / "source"
    with pytest.raises(DownloadFailed, match=BY_HAND) as caught:
        fetch.prepare("kmnist", source=source, prepared=prepared, deadline_seconds=60)
    assert f"KMNIST could not be downloaded ({says})" in str(caught.value)
    assert "Try again later" in str(caught.value)
    assert mirror.paths[0] == "/data/train-images-idx3-ubyte.gz"
    assert data.status("kmnist", prepared).message == str(caught.value)
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}
    assert not source.exists()


def test_every_mirror_is_tried(mirror: Mirror, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNISTLR_MIRROR", f"http://127.0.0.1:9/dead {mirror.url}/")
    with pytest.raises(DownloadFailed, match=r"\(127\.0\.0\.1: .*; 127\.0\.0\.1: HTTP Error 404"):
        fetch.prepare("mnist", source=prepared / "none", prepared=prepared, deadline_seconds=60)
    assert mirror.paths


def test_cifar10_takes_its_archive_from_the_mirror(mirror: Mirror, prepared: Path) -> None:
    with pytest.raises(DownloadFailed, match="into cifar-10-batches-py/ below the data folder: data_batch_1"):
        fetch.prepare("cifar10", source=prepared / "none", prepared=prepared, deadline_seconds=60)
    assert mirror.paths == ["/data/cifar-10-python.tar.gz"]


def test_a_mirror_of_one_byte_a_second_ends_at_the_deadline(mirror: Mirror, prepared: Path) -> None:
    mirror.answer = mirror.trickle
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    began = time.monotonic()
    with pytest.raises(DownloadFailed, match=f"KMNIST did not arrive in time.*{BY_HAND}"):
        fetch.prepare("kmnist", source=prepared / "none", prepared=prepared, deadline_seconds=3)
    assert time.monotonic() - began < 6
    assert {child.pid for child in psutil.Process().children(recursive=True)} == children
    assert left_in(prepared) <= {"kmnist.lock", "kmnist.status.json"}


def test_the_download_dies_with_the_process_that_wanted_it(mirror: Mirror, prepared: Path) -> None:
    mirror.answer = mirror.trickle
    code = "import sys; from pathlib import Path; from mnistlr_core.fetch import prepare; p = Path(sys.argv[1]);"
    code += "prepare('kmnist', source=p / 'none', prepared=p)"
    with subprocess.Popen([sys.executable, "-c", code, str(prepared)]) as parent:
        until = time.monotonic() + 60
        while len(mirror.paths) < 2 and time.monotonic() < until:  # the first request only follows redirects
            time.sleep(0.1)
        told = data.status("kmnist", prepared)
        assert told.state is DatasetState.FETCHING
        assert told.fraction == pytest.approx(0, abs=0.01)
        assert "Downloading KMNIST: 0.0 of 21.2 MB." in told.message
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.kill()
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize("writable", [True, False])
def test_a_good_delivery_is_published_and_kept_where_the_source_allows(
    mirror: Mirror, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """torchvision pins each archive's md5, which made-up files can't have: so the child's body runs here, md5 aside."""
    from torchvision import datasets

    packed = {f"/data/{file}.gz": gzip.compress(idx_bytes(file), 1) for file in FILES}
    mirror.answer = lambda request: mirror.deliver(packed[request.path])(request)
    monkeypatch.setattr(datasets.KMNIST, "resources", [(f"{file}.gz", None) for file in FILES])
    monkeypatch.setattr(datasets.KMNIST, "mirrors", datasets.KMNIST.mirrors)
    monkeypatch.setattr(fetch, "_exit_with_parent", lambda: None)
    monkeypatch.setattr("socket.setdefaulttimeout", lambda _: None)

    def here(info: DatasetInfo, layout: object, root: Path, deadline: float, heartbeat: object) -> None:
        assert fetch._download_here(info.name, str(root)) == 0

    monkeypatch.setattr(fetch, "_download", here)
    target = tmp_path / "target"
    if not writable:
        target.write_text("a file, where a folder should be")
    dataset = fetch.prepare("kmnist", source=target, prepared=prepared)
    assert dataset.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    if writable:
        assert set(FILES) <= left_in(target / "KMNIST" / "raw")
        assert left_in(target) == {"KMNIST"}
    assert left_in(prepared) <= {"kmnist", "kmnist.lock"}


def test_cifar10_is_read_only_with_its_md5(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    small = DatasetInfo("cifar10", "CIFAR-10", (32, 32, 3), tuple("0123456789"), 50, 10, "A small one.", 1)
    monkeypatch.setattr(data, "DATASETS", {"cifar10": small})
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


@pytest.mark.mnist
def test_mnist_is_the_published_one(mnist_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    prepared = tmp_path_factory.mktemp("mnist")
    dataset = fetch.prepare("mnist", source=mnist_root, prepared=prepared)
    assert (round(dataset.pixel_mean, 4), round(dataset.pixel_std, 4)) == (0.1307, 0.3081)
    assert dataset.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    warning = data.status("mnist", prepared).warning
    assert warning is None or warning.startswith("train-images-idx3-ubyte is not byte for byte the published file")


@pytest.mark.mnist
@pytest.mark.parametrize("file", FILES)
def test_mnist_with_one_changed_byte_warns_of_pixels_to_train_on_and_refuses_the_rest(
    mnist_root: Path, tmp_path: Path, file: str
) -> None:
    raw = tmp_path / "source" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for each in FILES:
        content = bytearray((mnist_root / "MNIST" / "raw" / each).read_bytes())
        content[-1] ^= each == file
        (raw / each).write_bytes(content)
    if file == "train-images-idx3-ubyte":
        fetch.prepare("mnist", source=tmp_path / "source", prepared=tmp_path)
        assert "not byte for byte" in (data.status("mnist", tmp_path).warning or "")
    else:
        with pytest.raises(DatasetDamaged, match=f"{file} must have md5"):
            fetch.prepare("mnist", source=tmp_path / "source", prepared=tmp_path)


@pytest.mark.mnist
def test_training_images_that_were_cut_and_filled_with_zeros_are_refused(mnist_root: Path, tmp_path: Path) -> None:
    raw = tmp_path / "source" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for each in FILES:
        content = bytearray((mnist_root / "MNIST" / "raw" / each).read_bytes())
        if each == "train-images-idx3-ubyte":
            content[-1_000_000:] = bytes(1_000_000)
        (raw / each).write_bytes(content)
    with pytest.raises(DatasetDamaged, match="train-images-idx3-ubyte must have md5"):
        fetch.prepare("mnist", source=tmp_path / "source", prepared=tmp_path)
