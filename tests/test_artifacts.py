"""Files are written whole, proved on reading, and never lead outside their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlr_core.artifacts import Artifacts, Stored
from mnistlr_core.errors import ArtifactDamaged, ArtifactMissing

HOSTILE = ["..", "../x", "a/b", "", ".hidden", "C:x", "a\\b", "a\0b", "%2e%2e", "file://x", "A", "ü", "-x", "a..b"]


@pytest.fixture(params=["folder", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    """A local folder, and fsspec's memory file system, which stands for any other."""
    return Artifacts(str(tmp_path / "files") if request.param == "folder" else f"memory://{tmp_path.name}")


def test_what_was_written_is_read(artifacts: Artifacts) -> None:
    stored = artifacts.write("run1", "a1-weights.safetensors", b"weights")
    assert artifacts.read(stored) == b"weights"
    assert stored.size == 7


def test_writing_again_replaces(artifacts: Artifacts) -> None:
    first = artifacts.write("run1", "checkpoint", b"one")
    second = artifacts.write("run1", "checkpoint", b"three")
    assert artifacts.read(second) == b"three"
    with pytest.raises(ArtifactDamaged):
        artifacts.read(first)


def test_deleting_keeps_what_it_is_told_to(artifacts: Artifacts) -> None:
    kept, gone = artifacts.write("run1", "kept", b"k"), artifacts.write("run1", "gone", b"g")
    artifacts.delete("run1", keep=frozenset({kept.path}))
    assert artifacts.read(kept) == b"k"
    with pytest.raises(ArtifactMissing, match="train the run again"):
        artifacts.read(gone)
    artifacts.delete("run1")
    artifacts.delete("run1")
    with pytest.raises(ArtifactMissing):
        artifacts.read(kept)


@given(cut=st.integers(0, 63), flip=st.integers(0, 64 * 8 - 1))
def test_any_damage_is_found(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int) -> None:
    root = tmp_path_factory.mktemp("files")
    artifacts = Artifacts(str(root))
    stored = artifacts.write("run1", "file", bytes(range(64)))
    path = root / "run1" / "file"
    path.write_bytes(bytes(range(64))[:cut])
    with pytest.raises(ArtifactDamaged, match="train the run again"):
        artifacts.read(stored)
    flipped = bytearray(range(64))
    flipped[flip // 8] ^= 1 << flip % 8
    path.write_bytes(flipped)
    with pytest.raises(ArtifactDamaged):
        artifacts.read(stored)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_outside(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ValueError, match="artifact's name"):
        artifacts.write(name, "file", b"x")
    with pytest.raises(ValueError, match="artifact's name"):
        artifacts.write("run1", name, b"x")
    with pytest.raises((ValueError, ArtifactMissing)):
        artifacts.read(Stored(f"run1/{name}", 1, "0"))
    with pytest.raises(ValueError, match="artifact's name"):
        artifacts.delete(name)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(str(tmp_path))
    artifacts.write("run1", "file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        artifacts.write("run1", "file", b"new")
    assert [path.name for path in (tmp_path / "run1").iterdir()] == ["file"]
    assert (tmp_path / "run1" / "file").read_bytes() == b"old"
