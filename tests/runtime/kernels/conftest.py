"""The kernels on a CUDA device, or else on the CPU in Triton's interpreter (see tests/conftest.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    """A few numbers can nearly cancel, and then rounding is all there is; so they are the same in every run."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        # cuDNN's fp32 is TF32 unless it is told otherwise, and definitions are computed with it too.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield


@pytest.fixture(scope="session")
def place() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
