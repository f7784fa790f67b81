"""The small autoencoder as fixtures, and no gradients."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.autoencoder.kl import AutoencoderKL
from tests.autoencoder.small import build, build_published


@pytest.fixture(scope="package")
def theirs() -> torch.nn.Module:
    return build_published()


@pytest.fixture(scope="package")
def ours(theirs: torch.nn.Module) -> AutoencoderKL:
    return build(theirs)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
