"""The average of weights over steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from i2vgen_ms.training.ema import Average


def test_the_average_decays_as_it_is_told_after_the_first_steps() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    average = Average({"w": parameter}, 0.5)
    expected = 0.0
    for step in range(1, 6):
        parameter.data.fill_(float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.values["w"], torch.full((3,), expected))
    assert average.count == 5


def test_within_the_block_the_network_has_the_average_and_afterwards_its_own() -> None:
    layer = nn.Linear(2, 2)
    average = Average(dict(layer.named_parameters()), 0.9)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    seen: list[torch.Tensor] = []

    def stopping() -> None:
        with average.applied():
            seen.append(layer.weight.detach().clone())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopping()
    assert torch.equal(seen[0], before)
    assert torch.equal(layer.weight, before + 1.0)
    assert torch.equal(average.values["weight"], before)
