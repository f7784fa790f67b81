"""The full-size network: 1.42 billion parameters through our loader from a file in the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.oracle import network as published_network
from i2vgen_ms.config import reader
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.load import load
from tests.oracle import randomise, relative_error
from tests.st_unet.networks import latents


def test_the_shipped_numbers_describe_the_published_network() -> None:
    with torch.device("meta"):
        theirs = published_network()
    built = architecture.build(reader.shipped("image-to-video"), "st_unet")
    shapes = {
        built.layout.to_published(name): tuple(built.layout.to_published_shape(name, tensor).shape)
        for name, tensor in built.network.state_dict().items()
    }
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert sum(parameter.numel() for parameter in built.network.parameters()) == 1_419_843_396


@pytest.mark.full
@torch.no_grad()
def test_full_size_equals_published(tmp_path: Path, record_property: Any) -> None:
    with torch.device("meta"):
        theirs = published_network()
    theirs = randomise(theirs.to_empty(device="cpu"))
    path = tmp_path / "unet.pth"
    torch.save({"state_dict": theirs.state_dict()}, path)
    built = architecture.build(reader.shipped("image-to-video"), "st_unet")
    mine = load(built.network, path, built.layout)

    x, vector = latents(batch=1, frames=3, height=8, width=16), torch.randn(1, 1, 1024, generator=torch.Generator())
    t, fps = torch.tensor([741]), torch.tensor([8])
    error = relative_error(mine(x, t, image=vector, fps=fps), theirs(x, t, vector, fps=fps))
    record_property("relative L2 of the full-size network", f"{error:.1e}")
    assert error <= 1e-5
