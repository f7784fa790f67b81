"""Loading is strict, and maps instead of copying."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2vgen_ms.errors import CheckpointError, MismatchedCheckpointError, NonFiniteError
from i2vgen_ms.weights.load import load
from i2vgen_ms.weights.memory import Memory
from tests.weights.memory_use import peak_of
from tests.weights.networks import LAYOUT, Net, meta, same


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
