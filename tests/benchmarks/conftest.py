"""Tiny models that the benchmarks share, and the published classes left as other tests want them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracle import published


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the benchmarks fill with model folders when they first need them."""
    return tmp_path_factory.mktemp("benchmark-models")


@pytest.fixture(autouse=True)
def _attention_of_the_tests() -> Iterator[None]:
    """The benchmarks put another attention into the published classes; afterwards it is the tests' own again."""
    published("image_to_video.utils.config")  # which makes the place where it is
    with pytest.MonkeyPatch.context() as patch:
        ops = sys.modules["xformers.ops"]
        patch.setattr(ops, "memory_efficient_attention", ops.memory_efficient_attention)
        yield
