"""Loading is strict, maps instead of copying, and reads a file's data for checking only once."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError, MismatchedCheckpointError, NonFiniteError
from i2vgen_ms.weights import casting, verified
from i2vgen_ms.weights.checkpoint import Checkpoint, open_checkpoint
from i2vgen_ms.weights.load import load
from i2vgen_ms.weights.verified import Memory, verify
from tests.weights.memory_use import peak_of


class Net(nn.Module):
    """A few kinds of tensors: matrices, a convolution, a scale without bias, a whole-number buffer."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.mix = nn.Linear(width, width, bias=False)
        self.conv = nn.Conv2d(2, 3, 3)
        self.register_buffer("steps", torch.arange(3))


class Published:
    """A layout with a prefix, other names, and matrices that are convolutions of width one in the file."""

    def to_ours(self, published: str) -> str | None:
        if not published.startswith("net."):
            return None
        return published.removeprefix("net.").replace("proj_in.", "first.").replace("q.0.", "mix.")

    def to_published(self, ours: str) -> str:
        return "net." + ours.replace("first.", "proj_in.").replace("mix.", "q.0.")

    def to_our_shape(self, ours: str, tensor: Tensor) -> Tensor:
        return tensor.flatten(-2) if ours == "mix.weight" else tensor

    def to_published_shape(self, ours: str, tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(-1) if ours == "mix.weight" else tensor


LAYOUT = Published()


def meta(width: int = 6) -> Net:
    with torch.device("meta"):
        return Net(width)


def published_state(net: nn.Module) -> dict[str, Tensor]:
    return {
        LAYOUT.to_published(name): LAYOUT.to_published_shape(name, tensor).clone()
        for name, tensor in net.state_dict().items()
    }


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "cache" / "verified.json")


@pytest.fixture
def path(tmp_path: Path, net: Net) -> Path:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": published_state(net) | {"other.weight": torch.full((3,), torch.nan)}}, path)
    return path


def same(net: nn.Module, loaded: nn.Module) -> bool:
    return all(
        torch.equal(a.to(b.dtype), b)
        for a, b in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_a_published_file_becomes_the_network(net: Net, path: Path, memory: Memory) -> None:
    loaded = load(meta(), path, LAYOUT, memory=memory)
    assert same(net, loaded)
    assert type(loaded.mix.weight) is nn.Parameter
    assert loaded.mix.weight.shape == (6, 6)


def test_what_needs_no_conversion_is_mapped(path: Path, memory: Memory) -> None:
    loaded = load(meta(), path, LAYOUT, memory=memory)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
    for name, tensor in loaded.state_dict().items():
        assert any(start <= tensor.data_ptr() < end for start, end in spans), name


def test_numbers_are_converted_to_the_wanted_type(net: Net, path: Path, memory: Memory) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        loaded = load(meta(), path, LAYOUT, dtype=dtype, memory=memory)
        assert same(net, loaded)
        assert loaded.first.weight.dtype == dtype
        assert loaded.steps.dtype == torch.int64


def change(path: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    state = torch.load(path)["state_dict"]
    edit(state)
    torch.save({"state_dict": state}, path)


def test_every_difference_is_reported(path: Path, memory: Memory) -> None:
    def edit(state: dict[str, Tensor]) -> None:
        del state["net.conv.bias"]
        state["net.extra.weight"] = torch.ones(2, 3)
        state["net.proj_in.weight"] = torch.ones(6, 5)
        state["net.q.0.weight"] = torch.ones(6, 2, 3)  # would become 6 x 6 as well
        state["net.steps"] = torch.ones(3)

    change(path, edit)
    with pytest.raises(MismatchedCheckpointError) as caught:
        load(meta(), path, LAYOUT, memory=memory)
    text = str(caught.value)
    assert str(path) in text
    assert "1 tensor missing:\n  conv.bias (net.conv.bias) [3]" in text
    assert "1 tensor unexpected:\n  net.extra.weight [2, 3]" in text
    assert "2 tensors of another shape:" in text
    assert "first.weight (net.proj_in.weight): [6, 5] in the file, [6, 4] wanted" in text
    assert "mix.weight (net.q.0.weight): [6, 2, 3] in the file, [6, 6, 1] wanted" in text
    assert "steps (net.steps): torch.float32 in the file, torch.int64 wanted" in text
    assert "other.weight" not in text


def test_long_lists_are_cut(tmp_path: Path, memory: Memory) -> None:
    path = tmp_path / "weights.pth"
    torch.save({f"w{i}": torch.ones(1) for i in range(37)}, path)
    with pytest.raises(
        MismatchedCheckpointError, match=r"37 tensors unexpected:(\n  w\d+ \[1\]){10}\n  \.\.\. and 27 more"
    ):
        load(meta(), path, memory=memory)


def test_shapes_are_compared_before_data_is_read(path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2vgen_ms.weights.records.TensorRecord.load", lambda self: pytest.fail("read"))
    with pytest.raises(MismatchedCheckpointError):
        load(meta(7), path, LAYOUT, memory=memory)


def test_two_tensors_for_one_are_refused(path: Path, memory: Memory) -> None:
    change(path, lambda state: state.update({"net.first.bias": state["net.proj_in.bias"]}))
    with pytest.raises(MismatchedCheckpointError, match="is the same tensor as"):
        load(meta(), path, LAYOUT, memory=memory)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers_are_refused(path: Path, memory: Memory, value: float, dtype: torch.dtype) -> None:
    def edit(state: dict[str, Tensor]) -> None:
        state["net.conv.weight"] = state["net.conv.weight"].to(dtype)
        state["net.conv.weight"][2, 1, 0, 2] = value

    change(path, edit)
    with pytest.raises(NonFiniteError, match=r"net\.conv\.weight"):
        load(meta(), path, LAYOUT, memory=memory)
    assert not torch.isfinite(load(meta(), path, LAYOUT, check_finite=False, memory=memory).conv.weight).all()
    with pytest.raises(NonFiniteError):  # that it was allowed once is not remembered as sound
        load(meta(), path, LAYOUT, memory=memory)


def test_a_value_that_the_type_cannot_hold_is_refused(path: Path, memory: Memory) -> None:
    change(path, lambda state: state["net.conv.bias"].fill_(70_000.0))
    with pytest.raises(NonFiniteError, match=r"net\.conv\.bias.*float16.*float32"):
        load(meta(), path, LAYOUT, dtype=torch.float16, memory=memory)
    assert load(meta(), path, LAYOUT, memory=memory).conv.bias[0] == 70_000
    assert load(meta(), path, LAYOUT, dtype=torch.bfloat16, memory=memory).conv.bias[0] > 69_000


def test_complex_weights_are_refused(path: Path, memory: Memory) -> None:
    change(path, lambda state: state.update({"net.conv.bias": torch.ones(3, dtype=torch.complex64)}))
    with pytest.raises(MismatchedCheckpointError, match="complex64"):
        load(meta(), path, LAYOUT, memory=memory)


def test_a_buffer_that_nobody_fills_is_an_error(path: Path, memory: Memory) -> None:
    network = meta()
    network.register_buffer("forgotten", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(CheckpointError, match="forgotten"):
        load(network, path, LAYOUT, memory=memory)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_loading_holds_the_weights_once(tmp_path: Path, memory: Memory, dtype: torch.dtype) -> None:
    path = tmp_path / "weights.pth"
    layers, width = 24, 1024
    torch.save({f"{i}.weight": torch.rand(width, width) for i in range(layers)}, path)
    size = layers * width * width * dtype.itemsize

    def first_use() -> nn.Module:
        with torch.device("meta"):
            network = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        load(network, path, dtype=dtype, memory=memory)
        assert all(layer.weight.max() <= 1 for layer in network.children())
        return network

    first, later = peak_of(first_use), peak_of(first_use)  # the first checks the file, the second only maps it
    assert 0.7 * size < first < 1.2 * size
    assert 0.7 * size < later < 1.2 * size
