"""What is put aside comes back as it was, last in, first out, and is not kept on the device meanwhile."""

from __future__ import annotations

import weakref

import pytest
import torch

from i2vgen_ms.runtime.parking import Parking
from tests.runtime.small import HERE, Device, inputs, small_network

PLACES = [HERE, pytest.param(torch.device("cuda", 0), marks=pytest.mark.skipif("not torch.cuda.is_available()"))]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_stack(place: torch.device) -> None:
    stack, given = Parking(place), [torch.randn(1000, 100) for _ in range(5)]
    for one in given:
        stack.append(one.to(place))
        assert torch.equal(stack[-1].cpu(), one)
    assert len(stack) == 5
    stack.append(stack.pop() + 1)
    for one in reversed([*given[:4], given[4] + 1]):
        back = stack.pop()
        assert back.device == place
        assert torch.equal(back.cpu(), one)
    assert len(stack) == 0


def test_what_is_parked_is_free() -> None:
    stack, first = Parking(HERE), torch.randn(3)
    seen = weakref.ref(first)
    stack.append(first)
    del first
    assert seen() is not None
    stack.append(torch.randn(3))
    assert seen() is None


def test_a_streamed_network_parks_and_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    parked: list[int] = []
    park = Parking._parked

    def counted(self: Parking, tensor: torch.Tensor) -> object:
        parked.append(tensor.nbytes)
        return park(self, tensor)

    monkeypatch.setattr(Parking, "_parked", counted)
    device, network = Device(), small_network()
    resident = device.resident(network)
    with torch.no_grad():
        wanted = network(**inputs())
        assert not parked
        with resident.placed(stream=True, keep=False) as streamed:
            assert torch.equal(streamed(**inputs()), wanted)
        assert len(parked) >= 4
        assert network.shelf is list
        parked.clear()
        network(**inputs())
    assert not parked
