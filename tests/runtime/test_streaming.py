"""Streaming keeps two blocks on the device, and a module that runs out of turn has its own weights all the same."""

from __future__ import annotations

import threading

import pytest
import torch

from i2vgen_ms.runtime.block import Block
from i2vgen_ms.runtime.streaming import Stream
from tests.runtime.small import HERE, Device, inputs, small_network


class Chain(torch.nn.Module):
    """Linear layers in the order that is asked for."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(count))

    def forward(self, x: torch.Tensor, order: list[int]) -> torch.Tensor:
        for index in order:
            x = self.layers[index](x)
        return x


@pytest.fixture
def chain() -> Chain:
    return Chain(5).requires_grad_(False)


def stream_of(chain: Chain) -> tuple[Stream, list[Block]]:
    blocks = [Block(list(layer.parameters()), HERE) for layer in chain.layers]
    for block in blocks:
        block.to_host()
    return Stream(chain, list(chain.layers), blocks), blocks


def on_the_host(block: Block) -> bool:
    return block.tensors[0].data_ptr() == block._host_views[0].data_ptr()


def test_any_order_gives_the_same_bits(chain: Chain) -> None:
    x = torch.randn(2, 8)
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 0, 4], [1], [0, 1, 2, 3, 4]]
    wanted = [chain(x, order) for order in orders]
    stream, blocks = stream_of(chain)
    there: list[tuple[int, list[int]]] = []
    for index, layer in enumerate(chain.layers):
        layer.register_forward_pre_hook(lambda *_, i=index: there.append((i, sorted(stream._coming))))
    got = [chain(x, order) for order in orders]
    assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))
    assert there == [(i, sorted([i, (i + 1) % 5])) for order in orders for i in order]
    # what has left the device has its numbers on the host
    assert [on_the_host(block) for block in blocks] == [True, True, True, True, False]
    for _ in range(2):
        stream.close()
    assert not stream._coming
    assert all(map(on_the_host, blocks))
    assert all(torch.equal(*pair) for pair in zip((chain(x, order) for order in orders), wanted, strict=True))
    assert all(len(layer._forward_pre_hooks) == 1 for layer in chain.layers)  # this test's
    assert "forward" not in vars(chain)


def test_a_forward_of_its_own_is_there_again(chain: Chain) -> None:
    plain, seen = chain.forward, list[list[int]]()
    chain.forward = lambda x, order: (seen.append(order), plain(x, order))[1]  # type: ignore[method-assign]
    own = chain.forward
    stream, _ = stream_of(chain)
    chain(torch.randn(2, 8), [0, 1])
    stream.close()
    assert seen == [[0, 1]]
    assert chain.forward is own


def test_a_constructor_that_fails_leaves_nothing_behind(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(chain.layers[3], "register_forward_pre_hook", fail)
    with pytest.raises(ValueError):
        stream_of(chain)
    assert "forward" not in vars(chain)
    assert not any(layer._forward_pre_hooks for layer in chain.layers)


def test_a_block_that_is_needed_again_stays(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, _ = stream_of(chain)
    fetched: list[int] = []
    fetch = stream._fetch
    monkeypatch.setattr(stream, "_fetch", lambda index: (fetched.append(index), fetch(index)))
    chain(torch.randn(2, 8), [0, 1, 1, 1, 2])
    assert fetched == [1, 2, 3]  # 0 was there


def test_one_block_alone_stays() -> None:
    chain, x = Chain(1).requires_grad_(False), torch.randn(2, 8)
    wanted = chain(x, [0, 0])
    stream, _ = stream_of(chain)
    for _ in range(2):
        assert torch.equal(chain(x, [0, 0]), wanted)
        assert set(stream._coming) == {0}
    stream.close()


def test_where_two_blocks_have_no_room_they_come_one_after_the_other(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 8)
    wanted = chain(x, [0, 1, 2, 3, 4])
    stream, _ = stream_of(chain)
    fetch = stream._fetch

    def one_at_a_time(index: int) -> None:
        if stream._coming:
            raise torch.OutOfMemoryError
        fetch(index)

    monkeypatch.setattr(stream, "_fetch", one_at_a_time)
    stream._drop(0)
    # The following block has no room; once that is asked for, the one before has left.
    assert torch.equal(chain(x, [0, 1, 2, 3, 4]), wanted)
    monkeypatch.setattr(stream, "_fetch", lambda index: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):  # where there is no room for one
        chain(x, [0])
    monkeypatch.setattr(stream, "_fetch", fetch)
    assert torch.equal(chain(x, [0, 1, 2, 3, 4]), wanted)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_within_a_block_it_goes_on(chain: Chain, error: type[BaseException]) -> None:
    def fail(*_: object) -> None:
        raise error

    x = torch.randn(2, 8)
    wanted = chain(x, [0, 1, 2, 3, 4])
    stream, blocks = stream_of(chain)
    handle = chain.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(error):
        chain(x, [0, 1, 2])
    handle.remove()
    assert len(stream._coming) == 2
    assert sum(not on_the_host(block) for block in blocks) == 1
    made: list[torch.Tensor] = []
    other = threading.Thread(target=lambda: made.append(chain(x, [0, 1, 2, 3, 4])), daemon=True)
    other.start()
    other.join(30)
    assert made, "another thread waits for the one that was interrupted"
    assert torch.equal(made[0], wanted)
    stream.close()


def test_a_forward_that_leaves_blocks_out() -> None:
    wanted = small_network()(**inputs(), skip_temporal=True)
    one = Device().resident()
    one.leave()
    stream = Stream(
        one.network,
        list(one.network.blocks()),
        [Block([*module.parameters()], HERE) for module in one.network.blocks()],
    )
    assert torch.equal(one.network(**inputs(), skip_temporal=True), wanted)
    stream.close()


def test_almost_all_weights_are_in_the_blocks() -> None:
    network = small_network()
    inside = sum(p.numel() for module in network.blocks() for p in module.parameters())
    outside = sum(p.numel() for p in network.parameters()) - inside
    rest = [network.time_embedding, network.context, network.stem, network.stem_temporal, network.head_norm]
    assert outside == sum(p.numel() for module in [*rest, network.head] for p in module.parameters())


def test_the_blocks_run_in_the_order_that_is_said() -> None:
    network = small_network()
    ran: list[torch.nn.Module] = []
    for module in network.blocks():
        module.register_forward_hook(lambda module, *_: ran.append(module))
    network(**inputs())
    assert [id(module) for module in ran] == [id(module) for module in network.blocks()]
