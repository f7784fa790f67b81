"""Where networks are: they come and go without a number changing, and idle ones give way."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from i2vgen_ms.runtime.residency import Resident, available_bytes, make_room
from tests.runtime.small import HERE, Device, inputs, small_network


def state(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("stream", [False, True])
def test_a_network_that_came_and_went_computes_the_same_bits(device: Device, stream: bool) -> None:
    wanted = small_network()(**inputs())
    one = device.resident()
    before, strides = state(one.network), [p.stride() for p in one.network.parameters()]
    for _ in range(2):
        with one.placed(stream=stream, keep=False) as network:
            assert torch.equal(network(**inputs()), wanted)
            assert torch.equal(network(**inputs()), wanted)
            assert one.on_device is not stream
        assert not one.on_device
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.network.state_dict().items())
    assert [p.stride() for p in one.network.parameters()] == strides


def test_it_stays_where_it_may(device: Device) -> None:
    one = device.resident()
    assert one.on_device
    with one.placed(stream=False, keep=True):
        pass
    assert one.on_device
    with one.placed(stream=False, keep=False):
        pass
    assert not one.on_device


def test_on_the_cpu_nothing_moves() -> None:
    network = small_network()
    addresses = [p.data_ptr() for p in network.parameters()]
    one = Resident(network, HERE, movable=False)
    with one.placed(stream=True, keep=False):
        pass
    assert [p.data_ptr() for p in network.parameters()] == addresses


def test_the_longest_idle_one_gives_way_first_and_only_as_many_as_need_be(device: Device) -> None:
    first, second, third = device.resident(), device.resident(), device.resident()
    for one in (second, first):  # first is now the one that was used last
        with one.placed(stream=False, keep=True):
            pass
    third.leave()
    device.size = 2 * first.nbytes
    with third.placed(stream=False, keep=True):
        assert (first.on_device, second.on_device, third.on_device) == (True, False, True)


def test_one_that_runs_does_not_give_way(device: Device) -> None:
    first, second = device.resident(), device.resident()
    second.leave()
    device.size = first.nbytes
    with first.placed(stream=False, keep=True), second.placed(stream=False, keep=False):
        assert first.on_device
        assert second.on_device
    make_room(HERE, first.nbytes + 1)
    assert not first.on_device


def test_room_for_what_it_computes_with_counts_too(device: Device) -> None:
    first, second = device.resident(), device.resident()
    device.size = 2 * first.nbytes + 1000
    with second.placed(stream=False, keep=True, workspace=1000):
        assert first.on_device
    with second.placed(stream=False, keep=True, workspace=1001):
        assert not first.on_device
        assert second.on_device


def test_idle_networks_count_as_available(device: Device) -> None:
    one = device.resident()
    device.size = 3 * one.nbytes
    assert available_bytes(HERE) == 3 * one.nbytes
    with one.placed(stream=False, keep=True):
        assert available_bytes(HERE) == 2 * one.nbytes


@pytest.mark.parametrize("stream", [False, True])
def test_threads_share_one_network(device: Device, stream: bool) -> None:
    one = device.resident()
    wanted = [small_network()(**inputs(seed)) for seed in range(4)]
    wrong: list[Any] = []

    def work(seed: int) -> None:
        with torch.no_grad(), one.placed(stream=stream, keep=False) as network:
            for _ in range(3):
                if not torch.equal(network(**inputs(seed)), wanted[seed]):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
    assert one.idle
    assert not one.on_device


@pytest.mark.parametrize("stream", [False, True])
def test_after_an_error_it_can_be_used_again(device: Device, stream: bool) -> None:
    one = device.resident()
    with pytest.raises(TypeError), one.placed(stream=stream, keep=False) as network:
        network(**{**inputs(), "text": torch.zeros(1, 5, 3)}, unknown=1)
    with pytest.raises(RuntimeError), one.placed(stream=stream, keep=False) as network:
        network(**{**inputs(), "text": torch.zeros(1, 5, 3)})
    done: list[Tensor] = []

    def work() -> None:  # another thread, which a lock that was not released would stop
        with one.placed(stream=stream, keep=False) as network:
            done.append(network(**inputs()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert done
    assert torch.equal(done[0], small_network()(**inputs()))
