"""Compiled blocks: the same network, and the plain one wherever the compiler does not work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines import load
from i2vgen_ms.runtime import compiled
from i2vgen_ms.runtime.compiled import CompileWarning, Region, compile_blocks
from i2vgen_ms.tensors import attention, ops
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import relative_error
from tests.runtime.small import HERE, inputs, small_network


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What works is found out once a process."""
    compiled._problem.cache_clear()
    yield
    compiled._problem.cache_clear()


@pytest.mark.parametrize("hopper", [False, True])
def test_the_table_s_attention_is_looked_into_where_it_has_no_kernel_for_blocks(
    monkeypatch: pytest.MonkeyPatch, hopper: bool
) -> None:
    def own(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention.sdpa(q, k, v)

    table = Ops(attention=own, peak=1, parts=1)
    monkeypatch.setattr("i2vgen_ms.runtime.operations.table", lambda device: table)
    monkeypatch.setattr(compiled, "on_hopper", lambda device: hopper)
    made = compiled._outside(table, HERE)
    assert made.attention is (compiled._opaque(own) if hopper else attention.sdpa)
    assert (made.peak, made.parts) == (Ops.peak, Ops.parts)
    assert compiled._outside(replace(table, attention=attention.math), HERE).attention is attention.math


@pytest.mark.full  # tracing takes half a minute
def test_blocks_are_traced_as_a_whole_and_the_network_is_the_same() -> None:
    graphs: list[Any] = []

    def backend(graph: Any, examples: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def over_frames(*given: Any) -> torch.Tensor:
        assert not torch.compiler.is_compiling()  # a kernel of our own is called, not looked into
        called.append(True)
        return attention.over_frames(attention.sdpa, *given)

    called: list[bool] = []
    norm = lambda *given, **named: ops.group_norm(*given, **named)  # noqa: E731
    network = small_network(Ops(group_norm=norm, frame_attention=over_frames))
    assert compile_blocks(network, HERE, backend=backend)
    with torch.no_grad():
        assert relative_error(network(**inputs()), small_network()(**inputs())) <= 1e-6
        count = len(graphs)
        network(**inputs(1))
    assert len(graphs) == count > 1
    assert called
    assert network.state_dict().keys() == small_network().state_dict().keys()
    assert network.stem.ops.group_norm is not ops.group_norm
    assert network.middle_in.spatial.block.ops == Ops()


@pytest.mark.full  # a minute of the C++ compiler
@pytest.mark.filterwarnings("ignore")
def test_the_real_compiler() -> None:
    network = small_network()
    with torch.no_grad():
        assert compile_blocks(network, HERE)
        assert relative_error(network(**inputs()), small_network()(**inputs())) <= 1e-5
        assert network.middle_in.spatial.block.forward._fast is not None


def refusing(graph: Any, examples: Any) -> Any:
    raise RuntimeError("Failed to find C compiler")


def test_without_a_compiler_the_network_stays_as_it_is() -> None:
    network = small_network()
    with pytest.warns(CompileWarning, match="does not work on cpu and is not used: .*Failed to find C compiler"):
        assert not compile_blocks(network, HERE, backend=refusing)
    assert "forward" not in vars(network.middle_in.spatial.block)


def test_a_block_that_cannot_be_compiled_runs_plainly() -> None:
    region = Region(torch.sin, refusing)
    x = torch.ones(3)
    with pytest.warns(CompileWarning, match="cannot be compiled: .*Failed to find C compiler"):
        assert torch.equal(region(x), x.sin())
    assert torch.equal(region(x), x.sin())


def test_other_errors_are_not_the_compilers() -> None:
    def short(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    region = Region(short, "eager")
    region._fast = short
    with pytest.raises(torch.OutOfMemoryError):
        region(torch.ones(1))
    assert region._fast is not None
    with pytest.raises(TypeError):
        Region(torch.sin, "eager")(1, 2, 3)


def test_networks_without_such_blocks_are_left_alone() -> None:
    with pytest.warns(CompileWarning, match="Linear has no transformer blocks"):
        assert not compile_blocks(torch.nn.Linear(2, 2), HERE)


def test_load_asks_for_it_by_argument_or_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from i2vgen_ms.pipelines import networks
    from i2vgen_ms.random_model import make_random_model

    asked: list[Any] = []
    monkeypatch.setattr(networks, "compile_blocks", lambda network, device: asked.append(type(network).__name__))
    folder = make_random_model(tmp_path, {"max_frames": 3, "latent_hei": 4, "latent_wid": 8})
    load(folder, device="cpu")
    assert asked == []
    assert load(folder, device="cpu", compile=True).configuration.compile
    assert asked == ["SpatioTemporalUNet"]
    with pytest.raises(ArgumentError, match=r"memory 'fast' or 'auto', not 'low'"):
        load(folder, device="cpu", compile=True, memory="low")


def test_another_memory_mode_than_fast_is_warned_of() -> None:
    compiled.advise("fast")
    with pytest.warns(CompileWarning, match="this call runs in 'balanced'"):
        compiled.advise("balanced")
