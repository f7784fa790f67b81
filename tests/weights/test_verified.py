"""A file's data is read for checking only once, and a converted copy is kept only for those who ask."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from i2vgen_ms.errors import CorruptCheckpointError, NonFiniteError
from i2vgen_ms.weights import casting, verified
from i2vgen_ms.weights.checkpoint import Checkpoint, open_checkpoint
from i2vgen_ms.weights.load import load
from i2vgen_ms.weights.memory import Memory
from i2vgen_ms.weights.verified import verify
from tests.weights.networks import LAYOUT, Net, meta, published_state, same


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tensors that are checked and the files that are hashed from now on."""
    seen: list[str] = []
    check, digest = verified._check, verified._digest

    def checking(checkpoint: Checkpoint, name: str, *rest: Any) -> None:
        seen.append(name)
        check(checkpoint, name, *rest)

    def hashing(checkpoint: Checkpoint) -> str:
        seen.append("sha256")
        return digest(checkpoint)

    monkeypatch.setattr(verified, "_check", checking)
    monkeypatch.setattr(verified, "_digest", hashing)
    return seen


def test_a_file_is_checked_once(net: Net, path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    load(meta(), path, LAYOUT, memory=memory)
    assert sorted(seen) == sorted([*published_state(net), "sha256"])
    seen.clear()
    load(meta(), path, LAYOUT, memory=Memory(memory.path), dtype=torch.float16)
    assert seen == []
    checkpoint = open_checkpoint(path)
    with pytest.raises(NonFiniteError, match=r"other\.weight"):  # other tensors of the file are checked when asked for
        verify(checkpoint, ["other.weight"], memory=memory)
    assert seen == ["other.weight"]
    seen.clear()
    os.utime(path, ns=(1, 2))
    load(meta(), path, LAYOUT, memory=memory)
    assert "sha256" in seen
    seen.clear()
    path.write_bytes(path.read_bytes())
    load(meta(), path, LAYOUT, memory=memory)
    assert "sha256" in seen


def test_the_expected_hash_is_compared_at_every_load(path: Path, memory: Memory) -> None:
    sha256 = verify(open_checkpoint(path), [], memory=memory)
    load(meta(), path, LAYOUT, memory=memory, sha256=sha256.upper())
    for _ in range(2):
        with pytest.raises(CorruptCheckpointError, match="sha256"):
            load(meta(), path, LAYOUT, memory=memory, sha256="0" * 64)


def test_a_file_that_changes_while_it_is_hashed_is_refused(path: Path, memory: Memory) -> None:
    checkpoint = open_checkpoint(path)
    shutil.copy(path, path.with_name("new"))
    os.replace(path.with_name("new"), path)
    with pytest.raises(CorruptCheckpointError, match="changed"):
        verify(checkpoint, [], memory=memory)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "[" * 5000),
        *('{"version": 2, "files": {}}', '{"version": 1, "files": []}', '{"version": 1, "files": {"a": 3}}'),
        '{"version": 1, "files": {"a": {"path": 3, "sha256": "", "checked": []}}}',
    ],
)
def test_a_damaged_memory_is_ignored_and_rewritten(path: Path, memory: Memory, content: str) -> None:
    memory.path.parent.mkdir()
    memory.path.write_text(content)
    load(meta(), path, LAYOUT, memory=memory)
    (entry,) = json.loads(memory.path.read_text())["files"].values()
    assert entry["path"] == str(path.resolve())
    assert [file.name for file in memory.path.parent.iterdir()] == [memory.path.name]


def test_the_memory_forgets_files_that_are_gone(path: Path, memory: Memory) -> None:
    load(meta(), path, LAYOUT, memory=memory)
    other = path.with_name("other.pth")
    torch.save({"w": torch.ones(1)}, other)
    path.unlink()
    verify(open_checkpoint(other), ["w"], memory=memory)
    assert [entry["path"] for entry in json.loads(memory.path.read_text())["files"].values()] == [str(other.resolve())]


def test_a_memory_that_cannot_be_written_only_warns(tmp_path: Path, path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="I2VGEN_MS_CACHE"):
        load(meta(), path, LAYOUT, memory=Memory(tmp_path / "file" / "verified.json"))


def test_equal_files_are_mapped_once(tmp_path: Path, path: Path, memory: Memory) -> None:
    second = tmp_path / "other-repository.pth"
    shutil.copyfile(path, second)
    load(meta(), path, LAYOUT, memory=memory)
    load(meta(), second, LAYOUT, memory=memory)
    assert memory.twin(second) == memory.twin(path) == path.resolve()
    link = tmp_path / "link.pth"
    os.link(second, link)
    assert memory.twin(link) == path.resolve()
    path.write_bytes(b"changed since")
    assert memory.twin(second) == second
    assert memory.twin(tmp_path / "absent") == tmp_path / "absent"


def test_a_converted_copy_is_kept_for_those_who_ask(
    net: Net, path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("I2VGEN_MS_CACHE", str(tmp_path / "home"))
    folder = tmp_path / "home" / "converted"
    load(meta(), path, LAYOUT, dtype=torch.float16, memory=memory)
    load(meta(), path, LAYOUT, dtype=torch.float32, memory=memory, cache=True)
    assert not folder.exists()
    first = load(meta(), path, LAYOUT, dtype=torch.float16, memory=memory, cache=True)
    (kept,) = folder.iterdir()
    assert same(net, first)
    assert first.first.weight.dtype == torch.float16

    def unwanted(self: casting.Casting, ours: str) -> None:
        assert self.checkpoint.path == kept

    original = casting.Casting.tensor
    monkeypatch.setattr(casting.Casting, "tensor", lambda self, ours: (unwanted(self, ours), original(self, ours))[1])
    assert same(first, load(meta(), path, LAYOUT, dtype=torch.float16, memory=memory, cache=True))
    monkeypatch.setattr(casting.Casting, "tensor", original)
    first = copy.deepcopy(first)  # the file it is mapped from is damaged now
    kept.write_bytes(kept.read_bytes()[:-5])
    assert same(first, load(meta(), path, LAYOUT, dtype=torch.float16, memory=memory, cache=True))
    assert list(folder.iterdir()) == [kept]
    kept.unlink()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        load(meta(), path, LAYOUT, dtype=torch.float16, memory=memory, cache=True)
    assert list(folder.iterdir()) == []
