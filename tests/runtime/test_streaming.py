"""Streaming keeps two blocks on the device, and a module that runs out of turn has its own weights all the same."""

from __future__ import annotations

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


def test_any_order_gives_the_same_bits() -> None:
    chain = Chain(5).requires_grad_(False)
    x = torch.randn(2, 8)
    orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 0, 4], [1], [0, 1, 2, 3, 4]]
    wanted = [chain(x, order) for order in orders]
    blocks = [Block(list(layer.parameters()), HERE) for layer in chain.layers]
    stream = Stream(chain, list(chain.layers), blocks)
    there: list[tuple[int, list[int]]] = []
    for index, layer in enumerate(chain.layers):
        layer.register_forward_pre_hook(lambda *_, i=index: there.append((i, sorted(stream._coming))))
    got = [chain(x, order) for order in orders]
    assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))
    assert there == [(i, sorted([i, (i + 1) % 5])) for order in orders for i in order]
    assert set(stream._coming) == {0}  # what has computed has left
    assert all(block.tensors[0].data_ptr() == block._host_views[0].data_ptr() for block in blocks)
    stream.close()
    assert not stream._coming
    assert all(torch.equal(*pair) for pair in zip((chain(x, order) for order in orders), wanted, strict=True))
    assert not any(module._forward_hooks for module in chain.modules())
    assert not chain._forward_pre_hooks


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
