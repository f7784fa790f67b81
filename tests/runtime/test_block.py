"""Page-locking: memory that cannot be locked costs time and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from i2vgen_ms.runtime import block
from i2vgen_ms.runtime.block import Block
from tests.runtime.small import HERE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_lock_that_fails_fails_nothing_else() -> None:
    device = torch.device("cuda", 0)
    owner, buffer = Block([torch.ones(1000)], device), torch.zeros(2**20, dtype=torch.uint8)
    for _ in range(2):  # CUDA refuses to lock what is locked
        block._lock_pages(owner, buffer)
    assert buffer.is_pinned()
    assert (torch.ones(3, device=device) * 2).tolist() == [2, 2, 2]
    owner.to_device()
    assert owner.tensors[0].sum() == 1000


@pytest.mark.parametrize(("code", "wanted"), [(0, []), (712, ["zeros"])])
def test_what_a_failed_lock_leaves_is_raised_at_once_and_dropped(
    monkeypatch: pytest.MonkeyPatch, code: int, wanted: list[str]
) -> None:
    """The device's part is played: its first kernel after a failed lock raises."""
    started = []

    def add(_: int) -> None:
        raise RuntimeError("CUDA error: part or all of the requested memory range is already mapped")

    def zeros(*_: Any, device: torch.device) -> Any:
        assert device == HERE
        started.append("zeros")
        return SimpleNamespace(add_=add)

    runtime = SimpleNamespace(cudaHostRegister=lambda *_: code, cudaHostUnregister=lambda *_: 0)
    owner, buffer = Block([torch.ones(10)], HERE), torch.empty(100, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch, "zeros", zeros)
    block._lock_pages(owner, buffer)
    assert started == wanted
    del owner
