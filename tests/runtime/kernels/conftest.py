"""The kernels on a CUDA device, or else on the CPU in Triton's interpreter (see tests/conftest.py)."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def place() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
