"""Attention of many tokens on Hopper devices, whose products are started and waited for by hand.

As in FlashAttention-3 (Shah et al. 2024): one group of warps has the copy engine bring keys and values, three others
have 64 queries each. A group begins its products of a tile (the scores of these keys, and the values of those before)
when it is its turn, and takes its exponentials while the other groups have the units that multiply.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from i2vgen_ms.runtime.device import on_hopper
from i2vgen_ms.runtime.kernels.grids import cdiv

# Channels of a head, and queries of a group of warps.
WIDTH, ROWS = 64, 64
# Keys that are looked at together, how many such tiles are there at once, and how many groups share them; and the
# registers of a thread of theirs, of which three groups leave no more.
TILE: dict[str, int] = {"KEYS": 128, "STAGES": 2, "GROUPS": 3, "REGISTERS": 160}
# Of fewer queries the last tiles are too much of the whole, and cuDNN's kernels are as fast.
FEWEST = 2048
_LOG2_E = 1.4426950408889634


@gluon.jit
def _arrived(barriers, tile, STAGES: gl.constexpr):
    """Waits until the tile is there."""
    mbarrier.wait(barriers.index(tile % STAGES), (tile // STAGES) & 1)


@gluon.jit
def _multiplied(asked, known, tile, SCORES: gl.constexpr, KEYS: gl.constexpr, STAGES: gl.constexpr):
    """Begins the scores `ROWS KEYS` of a tile."""
    ROWS: gl.constexpr = asked.shape[0]
    keys = known.index(tile % STAGES).reshape([KEYS, known.shape[3]]).permute((1, 0))
    nothing = gl.zeros([ROWS, KEYS], gl.float32, SCORES)
    return warpgroup_mma(asked, keys, nothing, use_acc=False, is_async=True)


@gluon.jit
def _mixed(weights, values, tile, total, KEYS: gl.constexpr, STAGES: gl.constexpr):
    """Begins to add the values of a tile, weighted, to the outcome `ROWS WIDTH`."""
    return warpgroup_mma(weights, values.index(tile % STAGES).reshape([KEYS, values.shape[3]]), total, is_async=True)


@gluon.jit
def _masked(scores, tile, keys, KEYS: gl.constexpr):
    column = tile * KEYS + gl.arange(0, KEYS, gl.SliceLayout(0, scores.type.layout))
    return gl.where((column < keys)[None, :], scores, float("-inf"))


@gluon.jit
def _halves(x):
    return x.reshape([x.shape[0], 2, x.shape[1] // 2]).permute((0, 2, 1)).split()


@gluon.jit
def _highest(scores):
    """Of each row. A thread compares its numbers in four chains, as in one each comparison waits for the one before."""
    first, second = _halves(scores)
    first, second = _halves(gl.maximum(first, second))
    return gl.convert_layout(gl.max(gl.maximum(first, second), 1), gl.SliceLayout(1, scores.type.layout))


@gluon.jit
def _step(
    asked,
    shared,
    mixed,
    weights,
    top,
    total,
    tile,
    keys,
    scale,
    LAST: gl.constexpr,
    SCORES: gl.constexpr,
    WEIGHTS: gl.constexpr,
    GROUP: gl.constexpr,
    KEYS: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,
):
    """The scores of a tile, while the values of the one before are added; and its weights."""
    _, known, values, turns, _, known_there, known_free, values_there, values_free = shared
    _arrived(known_there, tile, STAGES)
    _arrived(values_there, tile - 1, STAGES)
    mbarrier.wait(turns.index(GROUP), (tile - 1) & 1)
    scores = _multiplied(asked, known, tile, SCORES, KEYS, STAGES)
    mixed = _mixed(weights, values, tile - 1, mixed, KEYS, STAGES)
    mbarrier.arrive(turns.index((GROUP + 1) % GROUPS), count=1)
    scores = warpgroup_mma_wait(1, deps=[scores])
    mbarrier.arrive(known_free.index(tile % STAGES), count=1)
    if LAST:
        scores = _masked(scores, tile, keys, KEYS)
    higher = gl.maximum(top, _highest(scores))
    less = gl.exp2((top - higher) * scale)
    exponentials = gl.exp2(scores * scale - (higher * scale)[:, None])
    total = total * less + gl.sum(exponentials, 1)
    mixed = warpgroup_mma_wait(0, deps=[mixed])
    mbarrier.arrive(values_free.index((tile - 1) % STAGES), count=1)
    mixed = mixed * gl.convert_layout(less, gl.SliceLayout(1, mixed.type.layout))[:, None]
    return mixed, gl.convert_layout(exponentials.to(known.dtype), WEIGHTS), higher, total


@gluon.jit
def _consume(
    shared,
    out,
    queries,
    keys,
    width,
    scale,
    GROUP: gl.constexpr,
    KEYS: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,
):
    """The outcome of a group's queries."""
    queries_shared, known, values, _, queries_there, known_there, known_free, values_there, _ = shared
    ROWS: gl.constexpr = queries_shared.shape[2]
    WIDTH: gl.constexpr = queries_shared.shape[3]
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    MIXED: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, MIXED, 2)
    tiles = (keys + KEYS - 1) // KEYS
    mbarrier.wait(queries_there, 0)
    asked = queries_shared.index(GROUP).reshape([ROWS, WIDTH])
    first = gl.to_tensor(0)
    _arrived(known_there, first, STAGES)
    scores = _multiplied(asked, known, first, SCORES, KEYS, STAGES)
    scores = warpgroup_mma_wait(0, deps=[scores])
    mbarrier.arrive(known_free.index(0), count=1)
    scores = _masked(scores, first, keys, KEYS)
    top = gl.max(scores, 1)
    exponentials = gl.exp2(scores * scale - (top * scale)[:, None])
    total = gl.sum(exponentials, 1)
    weights = gl.convert_layout(exponentials.to(known.dtype), WEIGHTS)
    mixed = gl.zeros([ROWS, WIDTH], gl.float32, MIXED)
    for tile in range(1, tiles - 1):
        mixed, weights, top, total = _step(
            *(asked, shared, mixed, weights, top, total, tile, keys, scale),
            *(False, SCORES, WEIGHTS, GROUP, KEYS, STAGES, GROUPS),
        )
    if tiles > 1:
        mixed, weights, top, total = _step(
            *(asked, shared, mixed, weights, top, total, tiles - 1, keys, scale),
            *(True, SCORES, WEIGHTS, GROUP, KEYS, STAGES, GROUPS),
        )
    _arrived(values_there, tiles - 1, STAGES)
    mixed = _mixed(weights, values, tiles - 1, mixed, KEYS, STAGES)
    mixed = warpgroup_mma_wait(0, deps=[mixed])
    mixed = mixed / gl.convert_layout(total, gl.SliceLayout(1, MIXED))[:, None]
    row = (gl.program_id(0) * GROUPS + GROUP) * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, MIXED))
    column = gl.program_id(1) * WIDTH + gl.arange(0, WIDTH, gl.SliceLayout(0, MIXED))
    place = (gl.program_id(2).to(gl.int64) * queries + row[:, None]) * width + column[None, :]
    gl.store(out + place, mixed.to(out.dtype.element_ty), mask=(row < queries)[:, None])


@gluon.jit
def _produce(
    q,
    k,
    v,
    shared,
    keys,
    KEYS: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,
):
    """Has the queries brought, then tiles of keys and values, each as soon as all groups can spare a place."""
    queries_shared, known, values, _, queries_there, known_there, known_free, values_there, values_free = shared
    ROWS: gl.constexpr = queries_shared.shape[2]
    WIDTH: gl.constexpr = queries_shared.shape[3]
    item, column = gl.program_id(2), gl.program_id(1) * WIDTH
    mbarrier.expect(queries_there, GROUPS * ROWS * WIDTH * 2)
    for group in gl.static_range(GROUPS):
        row = (gl.program_id(0) * GROUPS + group) * ROWS
        tma.async_copy_global_to_shared(q, [item, row, column], queries_there, queries_shared.index(group))
    for tile in range(0, (keys + KEYS - 1) // KEYS):
        place, turn = tile % STAGES, (tile // STAGES) & 1
        mbarrier.wait(known_free.index(place), turn ^ 1)
        mbarrier.expect(known_there.index(place), KEYS * WIDTH * 2)
        tma.async_copy_global_to_shared(k, [item, tile * KEYS, column], known_there.index(place), known.index(place))
        mbarrier.wait(values_free.index(place), turn ^ 1)
        mbarrier.expect(values_there.index(place), KEYS * WIDTH * 2)
        tma.async_copy_global_to_shared(v, [item, tile * KEYS, column], values_there.index(place), values.index(place))


@gluon.jit
def _attend(
    q,
    k,
    v,
    out,
    queries,
    keys,
    width,
    scale,
    KEYS: gl.constexpr,
    STAGES: gl.constexpr,
    GROUPS: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """softmax(q k^T scale) v, `scale` to the base of 2; grid (block of queries, head, item)."""
    WIDTH: gl.constexpr = q.block_shape[2]
    queries_shared = gl.allocate_shared_memory(q.dtype, [GROUPS, 1, q.block_shape[1], WIDTH], q.layout)
    known = gl.allocate_shared_memory(k.dtype, [STAGES, 1, KEYS, WIDTH], k.layout)
    values = gl.allocate_shared_memory(v.dtype, [STAGES, 1, KEYS, WIDTH], v.layout)
    turns = gl.allocate_shared_memory(gl.int64, [GROUPS, 1], mbarrier.MBarrierLayout())
    queries_there = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    known_there = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    known_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    values_there = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    values_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(queries_there, count=1)
    for place in gl.static_range(STAGES):
        mbarrier.init(known_there.index(place), count=1)
        mbarrier.init(values_there.index(place), count=1)
        mbarrier.init(known_free.index(place), count=GROUPS)
        mbarrier.init(values_free.index(place), count=GROUPS)
    for group in gl.static_range(GROUPS):
        mbarrier.init(turns.index(group), count=1)
    mbarrier.arrive(turns.index(0), count=1)
    gl.static_assert(GROUPS == 3)
    shared = (queries_shared, known, values, turns, queries_there, known_there, known_free, values_there, values_free)
    gl.warp_specialize(
        [
            (_consume, (shared, out, queries, keys, width, scale, 0, KEYS, STAGES, GROUPS)),
            (_consume, (shared, out, queries, keys, width, scale, 1, KEYS, STAGES, GROUPS)),
            (_consume, (shared, out, queries, keys, width, scale, 2, KEYS, STAGES, GROUPS)),
            (_produce, (q, k, v, shared, keys, KEYS, STAGES, GROUPS)),
        ],
        [4, 4, 1],
        [REGISTERS, REGISTERS, 24],
    )


def takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel can do it, and faster than cuDNN's: q `b n heads d`, k and v `b m heads d`, half precision.

    The copy engine wants the heads of a token side by side, and rows that begin at multiples of 16 bytes.
    """
    half = q.dtype == k.dtype == v.dtype and q.dtype in (torch.float16, torch.bfloat16)
    return (
        half
        and q.shape[3] == k.shape[3] == v.shape[3] == WIDTH
        and min(q.shape[1], k.shape[1]) >= FEWEST
        and all(_addressable(one) for one in (q, k, v))
        and on_hopper(q.device)
    )


def _addressable(x: Tensor) -> bool:
    item, token, head, channel = x.stride()
    rows = item > 0 and item % 8 == 0 and token % 8 == 0 and token >= WIDTH * x.shape[2]
    side_by_side = channel == 1 and (head == WIDTH or x.shape[2] == 1)
    return side_by_side and rows and x.data_ptr() % 16 == 0


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v` for tensors that it `takes`; the result is `b n heads d`."""
    items, queries, heads, _ = q.shape
    out = q.new_empty(q.shape)
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
    described = [
        TensorDescriptor.from_tensor(one.flatten(2), [1, rows, WIDTH], layout)
        for one, rows in ((q, ROWS), (k, TILE["KEYS"]), (v, TILE["KEYS"]))
    ]
    with torch.cuda.device_of(q):
        _attend[(cdiv(queries, ROWS * TILE["GROUPS"]), heads, items)](
            *described, out, queries, k.shape[1], heads * WIDTH, WIDTH**-0.5 * _LOG2_E, **TILE, num_warps=4
        )
    return out
