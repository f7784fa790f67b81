"""Sampling: what it leaves behind."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from i2vgen_ms.config import reader
from i2vgen_ms.pipelines.sampling import sample

# Of latents, and of nothing else.
SHAPE = (1, 4, 2, 3, 7)


def network(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
    return torch.tanh(x)


@pytest.mark.parametrize("stops", [False, True])
def test_no_noise_stays_when_sampling_ends(stops: bool) -> None:
    """Not even until the garbage collector comes: what it would find may be on a device that is full."""
    diffusion = reader.shipped("video-to-video").replace("diffusion.steps", 4).diffusion
    steps, x = list[int](), torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))

    def on_step(step: Any) -> None:
        steps.append(len(alive()))
        if stops and step.index == 2:
            raise KeyboardInterrupt

    def run() -> None:
        condition = {"text": torch.zeros(1, 2, 4)}
        sample(
            network,
            diffusion,
            x,
            positive=condition,
            negative=condition,
            generators=[torch.Generator().manual_seed(0)],
            on_step=on_step,
        )

    gc.collect()
    gc.disable()
    try:
        before = len(alive())
        if stops:
            with pytest.raises(KeyboardInterrupt):
                run()
        else:
            run()
        assert len(alive()) == before
        assert max(steps) > before + 10, "a path was there"
    finally:
        gc.enable()


def alive() -> list[Tensor]:
    return [one for one in gc.get_objects() if type(one) is Tensor and one.shape == SHAPE]
