"""What the weight tests share: a network, its published file, a memory of its own; one thread, as tensors are small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from i2vgen_ms.weights.memory import Memory
from tests.weights.networks import Net, published_state


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
