"""The trained network in recordings: the same numbers as without, whatever is recorded when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training.graphed import Graphed
from tests.training import small


class Again:
    """A recorder that runs the function itself, and counts."""

    def __init__(self) -> None:
        self.recorded = 0

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        self.recorded += 1
        function()
        return function


class Network(nn.Module):
    """A part that all inputs use, a part that only some do, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, *, shift: Tensor, still: bool) -> Tensor:
        y = nn.functional.dropout(self.always(x) + shift, 0.5)
        return y if still else self.sometimes(y)


def pair() -> tuple[Network, Network, Graphed, Again]:
    torch.manual_seed(0)
    plain, recorder = Network(), Again()
    network = Network()
    network.load_state_dict(plain.state_dict())
    return plain, network, Graphed(network, network.parameters(), recorder), recorder


def step(network: Callable[..., Tensor], number: int, count: int, still: bool) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    x, shift = torch.randn(count, 4, generator=generator), torch.randn(count, 1, generator=generator)
    torch.manual_seed(number)
    loss = network(x, shift=shift, still=still).square().mean()
    loss.backward()
    return loss.detach()


def agree(one: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)


KINDS = [(2, False), (3, True), (2, False), (3, False), (3, True), (2, False)]


def test_every_step_is_that_of_the_plain_network() -> None:
    plain, network, graphed, recorder = pair()
    optimisers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (plain, network)]
    for number, kind in enumerate(KINDS):
        assert torch.equal(step(plain, number, *kind), step(graphed, number, *kind))
        agree(network, plain)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    assert recorder.recorded == 2 * 3, "a forward and a backward for each of three kinds"


def test_gradients_of_several_batches_add_up_whenever_a_kind_is_new() -> None:
    plain, network, graphed, _ = pair()
    for number, kind in enumerate(KINDS):
        step(plain, number, *kind)
        step(graphed, number, *kind)
    agree(network, plain)


def test_gradients_from_elsewhere_are_kept() -> None:
    plain, network, graphed, _ = pair()
    for one in (plain, network):
        one.always.weight.grad = torch.ones(4, 4)
    step(plain, 0, 2, False)
    step(graphed, 0, 2, False)
    agree(network, plain)


def test_new_values_of_the_parameters_are_seen() -> None:
    _, network, graphed, _ = pair()
    before = step(graphed, 0, 2, True)
    with torch.no_grad():
        network.always.weight.mul_(2)
    assert step(graphed, 0, 2, True) != before


def test_graphs_and_checkpointing_exclude_each_other(first, tmp_path) -> None:
    wanted = {"checkpointing": "torch", "numerics": small.NUMBERS | {"graphs": True}}
    with pytest.raises(ConfigurationError, match=r"graphs.*checkpointing 'torch'"):
        small.settings("small-image-to-video", first, tmp_path, **wanted)
