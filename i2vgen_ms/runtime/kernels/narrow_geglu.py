"""The gate's product of few channels on Hopper devices, whose products are started and waited for by hand.

A tile of few summed channels is multiplied about as fast as its gates are computed, and as fast as it is brought. Here
a multiprocessor keeps the weights of its channels and goes through the tokens: one group of warps has the copy engine
bring these, and of two others one multiplies while the other computes its gates ("ping-pong", as in FlashAttention-3,
Shah et al. 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from i2vgen_ms.runtime.device import multiprocessors, on_hopper
from i2vgen_ms.runtime.kernels import geglu
from i2vgen_ms.runtime.kernels.grids import cdiv

# Tokens of a tile, channels of its values (and as many of their gates), summed channels a step; tiles of tokens and
# summed channels that are there at once, beside the weights; and the registers of a thread of the second group.
ROWS, CHANNELS, DEPTH = 64, 128, 64
TILE: dict[str, int] = {"PLACES": 4, "REGISTERS": 240}
# Weights of more summed channels have no room, and of fewer tokens the last tiles are too much of the whole.
WIDEST, FEWEST = 320, 2**14

_gelu = gluon.jit(geglu._gelu.fn)


@gluon.jit
def _share(rows, blocks, slots, ROWS: gl.constexpr, CHANNELS: gl.constexpr):
    """A program's slot, how many tiles that has, and the first of its channels."""
    slot = gl.program_id(0) // blocks
    tiles = ((rows + ROWS - 1) // ROWS - slot + slots - 1) // slots
    return slot, tiles, (gl.program_id(0) % blocks) * CHANNELS


@gluon.jit
def _multiply(shared, tile, GROUP: gl.constexpr, STEPS: gl.constexpr, PLACES: gl.constexpr):
    """Values and gates `ROWS 2*CHANNELS` of a tile, when it is this group's turn."""
    weights, tokens, _, there, free, turns, _ = shared
    ROWS: gl.constexpr = tokens.shape[1]
    DEPTH: gl.constexpr = tokens.shape[2]
    BOTH: gl.constexpr = weights.shape[1] * weights.shape[2]
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BOTH, 16])
    both = gl.zeros([ROWS, BOTH], gl.float32, LAYOUT)
    mbarrier.wait(turns.index(GROUP), (tile // 2) & 1)
    for step in gl.static_range(STEPS):
        number = tile * STEPS + step
        mbarrier.wait(there.index(number % PLACES), (number // PLACES) & 1)
        weight = weights.index(step).reshape([BOTH, DEPTH]).permute((1, 0))
        both = warpgroup_mma(tokens.index(number % PLACES), weight, both, use_acc=step > 0, is_async=True)
        if step == STEPS - 1:
            mbarrier.arrive(turns.index(1 - GROUP), count=1)
        if step > 0:
            both = warpgroup_mma_wait(1, deps=[both])
            mbarrier.arrive(free.index((number - 1) % PLACES), count=1)
    both = warpgroup_mma_wait(0, deps=[both])
    mbarrier.arrive(free.index((tile * STEPS + STEPS - 1) % PLACES), count=1)
    return both


@gluon.jit
def _consume(
    shared,
    bias,
    out,
    rows,
    width,
    blocks,
    slots,
    GROUP: gl.constexpr,
    STEPS: gl.constexpr,
    PLACES: gl.constexpr,
):
    """Every other tile of a program."""
    weights, tokens, weights_there, _, _, _, results = shared
    ROWS: gl.constexpr = tokens.shape[1]
    CHANNELS: gl.constexpr = weights.shape[2]
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, CHANNELS, 16])
    slot, tiles, first = _share(rows, blocks, slots, ROWS, CHANNELS)
    column = first + gl.arange(0, CHANNELS, gl.SliceLayout(0, LAYOUT))
    inside = column < width
    mbarrier.wait(weights_there, 0)
    for tile in range(GROUP, tiles, 2):
        both = _multiply(shared, tile, GROUP, STEPS, PLACES)
        value, gate = both.reshape([ROWS, 2, CHANNELS]).permute((0, 2, 1)).split()
        value, gate = gl.convert_layout(value, LAYOUT), gl.convert_layout(gate, LAYOUT)
        value += gl.load(bias + column, mask=inside, other=0.0).to(gl.float32)[None, :]
        gate += gl.load(bias + width + column, mask=inside, other=0.0).to(gl.float32)[None, :]
        made = (value * _gelu(gate)).to(out.dtype)
        tma.store_wait(pendings=0)  # the tile before has been read
        results.index(GROUP).store(made)
        fence_async_shared()
        tma.async_copy_shared_to_global(out, [(slot + tile * slots) * ROWS, first], results.index(GROUP))
    tma.store_wait(pendings=0)


@gluon.jit
def _produce(x, weight, shared, rows, blocks, slots, STEPS: gl.constexpr, PLACES: gl.constexpr):
    """Has the weights brought, then tile after tile, each step as soon as its place is free."""
    weights, tokens, weights_there, there, free, _, _ = shared
    ROWS: gl.constexpr = tokens.shape[1]
    DEPTH: gl.constexpr = tokens.shape[2]
    BOTH: gl.constexpr = weights.shape[1] * weights.shape[2]
    slot, tiles, first = _share(rows, blocks, slots, ROWS, weights.shape[2])
    mbarrier.expect(weights_there, STEPS * BOTH * DEPTH * 2)
    for step in gl.static_range(STEPS):
        tma.async_copy_global_to_shared(weight, [0, first, step * DEPTH], weights_there, weights.index(step))
    for tile in range(0, tiles):
        for step in gl.static_range(STEPS):
            number = tile * STEPS + step
            place = number % PLACES
            mbarrier.wait(free.index(place), ((number // PLACES) & 1) ^ 1)
            mbarrier.expect(there.index(place), ROWS * DEPTH * 2)
            row = (slot + tile * slots) * ROWS
            tma.async_copy_global_to_shared(x, [row, step * DEPTH], there.index(place), tokens.index(place))


@gluon.jit(do_not_specialize=["rows", "blocks", "slots"])
def _product(
    x,
    weight,
    bias,
    out,
    rows,
    width,
    blocks,
    slots,
    STEPS: gl.constexpr,
    PLACES: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """out = (x value) * gelu(x gate), both plus their biases; grid (block of channels of each slot of tokens).

    Descriptors of x `rows summed` and weights `2 width summed`, value before gate. A slot has every `slots`th tile.
    """
    CHANNELS: gl.constexpr = weight.block_shape[1]
    DEPTH: gl.constexpr = weight.block_shape[2]
    weights = gl.allocate_shared_memory(weight.dtype, [STEPS, 2, CHANNELS, DEPTH], weight.layout)
    tokens = gl.allocate_shared_memory(x.dtype, [PLACES, x.block_shape[0], DEPTH], x.layout)
    results = gl.allocate_shared_memory(x.dtype, [2, x.block_shape[0], CHANNELS], out.layout)
    weights_there = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    there = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(weights_there, count=1)
    for place in gl.static_range(PLACES):
        mbarrier.init(there.index(place), count=1)
        mbarrier.init(free.index(place), count=1)
    for group in gl.static_range(2):
        mbarrier.init(turns.index(group), count=1)
    mbarrier.arrive(turns.index(0), count=1)
    shared = (weights, tokens, weights_there, there, free, turns, results)
    gl.warp_specialize(
        [
            (_consume, (shared, bias, out, rows, width, blocks, slots, 0, STEPS, PLACES)),
            (_consume, (shared, bias, out, rows, width, blocks, slots, 1, STEPS, PLACES)),
            (_produce, (x, weight, shared, rows, blocks, slots, STEPS, PLACES)),
        ],
        [4, 1],
        [REGISTERS, 24],
    )


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` can do it, and faster than `geglu.product`."""
    many = x.numel() >= FEWEST * x.shape[-1]
    return many and x.shape[-1] <= WIDEST and geglu.fits(x, weight) and on_hopper(x.device)


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`tensors.ops.geglu` of what `fits`."""
    tokens, width = x.reshape(-1, x.shape[-1]), len(weight) // 2
    out = x.new_empty((*x.shape[:-1], width))
    blocks = cdiv(width, CHANNELS)
    slots = max(1, min(multiprocessors(x.device) // blocks, cdiv(len(tokens), ROWS)))
    flat, deep = (gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=rank) for rank in (2, 3))
    with torch.cuda.device_of(x):
        _product[(blocks * slots,)](
            TensorDescriptor.from_tensor(tokens, [ROWS, DEPTH], flat),
            TensorDescriptor.from_tensor(weight.view(2, width, -1), [2, CHANNELS, DEPTH], deep),
            bias,
            TensorDescriptor.from_tensor(out.view(-1, width), [ROWS, CHANNELS], flat),
            *(len(tokens), width, blocks, slots),
            STEPS=cdiv(x.shape[-1], DEPTH),
            **TILE,
            num_warps=4,
        )
    return out
