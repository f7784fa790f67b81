"""Several conditions an item: what they share is computed once. And what does not change is kept for a whole video."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.runtime import chunked
from i2vgen_ms.st_unet.network import SpatioTemporalUNet
from i2vgen_ms.st_unet.temporal import RotaryTemporalBlock
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import randomise, relative_error
from tests.runtime.small import Device
from tests.st_unet import networks
from tests.st_unet.networks import ROTARY, latents, temporal_choice

SHAPE: dict[str, Any] = {"multipliers": [1, 2], "residual_blocks": 1, "context_channels": 16}
T, FPS = torch.tensor([741.0, 741.0]), torch.tensor([8.0, 7.0])
# What the network is, the conditions of which there are several, and the others.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "image vector and rate": ("image-vector", {"fps_embedding": True}),
    "text": ("text", {}),
    "first frame": ("image-vector", {"extra_channels": 4, "fps_embedding": True}),
    "rotary": ("text-and-image", {"temporal": temporal_choice(RotaryTemporalBlock, **ROTARY), "head_channels": 4}),
    "attention on the coarse level alone": ("text", {"attention_levels": [1]}),
    "attention in the middle alone": ("text", {"attention_levels": []}),
}


def network(kind: str, ops: Ops | None = None) -> SpatioTemporalUNet:
    context, changes = KINDS[kind]
    made = networks.ours(context, device="cpu", ops=ops, **{**SHAPE, "attention_levels": [0], **changes})
    randomise(made)
    return made.requires_grad_(False)


def conditions(kind: str, count: int, items: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of which an item has `count`, and those that all share."""
    draw = torch.Generator().manual_seed(3)
    context, changes = KINDS[kind]
    several: dict[str, Any] = {}
    if context != "image-vector":
        several["text"] = torch.randn(count * items, 5, 16, generator=draw)
    if context != "text":
        several["image"] = torch.randn(count * items, 1, 1024, generator=draw)
    shared: dict[str, Any] = {"fps": FPS[:items]} if changes.get("fps_embedding") else {}
    if "extra_channels" in changes:
        shared["extra"] = torch.randn(items, 4, 3, 4, 6, generator=draw)
    return several, shared


# Tables with which conditions are worked on as one batch, and one after the other.
WAYS = {"together": Ops(), "apart": Ops(together=0)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "items"), [(2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_sharing_is_repeating(kind: str, count: int, items: int, way: str) -> None:
    mine, x = network(kind, WAYS[way]), latents(batch=items, height=4, width=6)
    several, shared = conditions(kind, count, items)
    repeated = {name: torch.cat([one] * count) for name, one in {"x": x, "t": T[:items], **shared}.items()}
    wanted = mine(**repeated, **several)
    got = mine(x, T[:items], **shared, **several)
    assert got.shape == wanted.shape
    assert relative_error(got, wanted) <= 1e-5
    for one, other in zip(got.chunk(count)[1:], got.chunk(count), strict=False):
        assert relative_error(one, other) > 1e-3


@pytest.mark.parametrize(
    ("way", "wanted"),
    [
        ("together", {"stem": [1], "residual": [1], "project_in": [1], "temporal": [2], "head": [2]}),
        ("apart", {"stem": [1], "residual": [1], "project_in": [1], "temporal": [1, 1], "head": [1, 1]}),
    ],
)
@torch.no_grad()
def test_what_comes_before_the_context_is_computed_once(way: str, wanted: dict[str, list[int]]) -> None:
    mine, sizes = network("text", WAYS[way]), dict[str, list[int]]()
    watched = {
        "stem": mine.stem,
        "residual": mine.down[0].stages[0].residual,
        "project_in": mine.down[0].stages[0].spatial.project_in,
        "temporal": mine.down[0].stages[0].temporal,
        "head": mine.head,
    }
    for name, module in watched.items():
        module.register_forward_pre_hook(lambda _, given, name=name: sizes.setdefault(name, []).append(len(given[0])))
    several, shared = conditions("text", 2, 1)
    mine(latents(batch=1, height=4, width=6), T[:1], **shared, **several)
    assert sizes == wanted


@pytest.mark.parametrize(("places", "heads"), [(2 * 3 * 4 * 6, 1), (2 * 3 * 4 * 6 - 1, 2)])
@torch.no_grad()
def test_the_size_without_conditions_decides_how_they_are_worked_on(places: int, heads: int) -> None:
    mine, calls = network("text", Ops(together=places)), list[int]()
    mine.head.register_forward_pre_hook(lambda *_: calls.append(0))
    several, shared = conditions("text", 2)
    mine(latents(height=4, width=6), T, **shared, **several)
    assert len(calls) == heads


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_apart_is_each_alone(kind: str) -> None:
    mine, x = network(kind, WAYS["apart"]), latents(height=4, width=6)
    several, shared = conditions(kind, 2)
    both = mine(x, T, **shared, **several).chunk(2)
    for index, got in enumerate(both):
        alone = {name: one.chunk(2)[index] for name, one in several.items()}
        # Keys and values are made of all conditions, as of one, in products whose bits can depend on how many.
        assert relative_error(got, mine(x, T, **shared, **alone)) <= 1e-5


@pytest.mark.parametrize(("limit", "divided"), [(2000, True), (10**9, False)])
@torch.no_grad()
def test_sharing_in_parts(monkeypatch: pytest.MonkeyPatch, limit: int, divided: bool) -> None:
    for name in ("LIMIT", "BLOCK_LIMIT"):
        monkeypatch.setattr(chunked, name, limit)
    several, shared = conditions("text", 2)
    given = {"x": latents(height=4, width=6), "t": T, **shared, **several}
    made: list[int] = []

    def in_parts(function: Any, *inputs: torch.Tensor, axis: int) -> torch.Tensor:
        made.append(0)

        def counted(*part: torch.Tensor, **named: Any) -> torch.Tensor:
            made[-1] += 1
            return cast(torch.Tensor, function(*part, **named))

        return chunked.in_parts(counted, *inputs, axis=axis)

    parts = Ops(in_parts=in_parts, feed_forward=chunked.feed_forward)
    assert relative_error(network("text", parts)(**given), network("text")(**given)) <= 1e-5
    assert min(made) > 1 if divided else set(made) == {1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_prepared_conditions_give_the_same_bits_and_are_worked_on_once(kind: str, way: str) -> None:
    mine, x = network(kind, WAYS[way]), latents(height=4, width=6)
    several, shared = conditions(kind, 2)
    wanted = [mine(x, t, **several, **shared) for t in (T, T - 40)]
    calls: list[str] = []
    for name, module in mine.named_modules():
        if name.endswith("spatial.block.attention2.to_k") or name in ("context", "fps_embedding"):
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    ready = mine.prepare(**several, **shared)
    assert all(torch.equal(mine(x, t, **ready), one) for t, one in zip((T, T - 40), wanted, strict=True))
    assert len(calls) == len(set(calls)) > 1
    assert ready.keys() == {"prepared", *({"extra"} & shared.keys())}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["text", "attention on the coarse level alone", "attention in the middle alone"])
@torch.no_grad()
def test_prepared_conditions_of_a_network_that_is_streamed(way: str, kind: str) -> None:
    one, (several, shared) = Device().resident(network(kind, WAYS[way])), conditions(kind, 2)
    given = {**shared, **several}
    x = latents(height=4, width=6)
    wanted = [network(kind, WAYS[way])(x, t, **given) for t in (T, T - 40)]
    one.leave()
    with one.placed(stream=True, keep=False) as streamed:
        ready = [streamed.prepare(**given) for _ in range(2)]
        got = [streamed(x, t, **both) for t in (T, T - 40) for both in ready]
    assert all(torch.equal(mine, wanted[index // 2]) for index, mine in enumerate(got))


def test_conditions_that_fit_no_item_are_refused() -> None:
    several, shared = conditions("text", 3, 1)
    with pytest.raises(ArgumentError, match="a batch of 2 needs as many conditions, or a multiple, not 3"):
        network("text")(latents(height=4, width=6), T, **several, **shared)
