"""Which memory mode `auto` picks."""

from __future__ import annotations

import pytest

from i2vgen_ms.runtime.memory import PLANS, Need, choose, required

GIB = 2**30
NEEDS = {
    "encoder": Need(2 * GIB, GIB // 4, GIB // 4),
    "st_unet": Need(3 * GIB, 8 * GIB, 4 * GIB),
    "autoencoder": Need(GIB // 4, 3 * GIB, 3 * GIB),
}


def test_what_is_asked_for_is_what_there_is() -> None:
    assert [choose(mode, NEEDS, 0).mode for mode in PLANS] == list(PLANS)
    assert [choose(mode, NEEDS, 0) for mode in ("fast", "balanced")] == [PLANS["fast"], PLANS["balanced"]]


@pytest.mark.parametrize(("gib", "mib"), [(0.1, 256), (1, 256), (1.5, 384), (2, 512), (100, 512)])
def test_in_low_chunks_take_what_is_taken_anyway(gib: float, mib: int) -> None:
    """Four of them, within bounds."""
    needs = NEEDS | {"st_unet": Need(GIB, 100 * GIB, int(gib * GIB))}
    assert choose("low", needs, 0).chunk_bytes == mib * 2**20


@pytest.mark.parametrize(("gib", "mode"), [(141, "fast"), (16, "fast"), (14, "balanced"), (9, "balanced"), (8, "low")])
def test_auto_takes_the_fastest_that_fits(gib: int, mode: str) -> None:
    assert choose("auto", NEEDS, gib * GIB).mode == mode


def test_what_is_required() -> None:
    # All weights and the largest batched need; or the largest network with its sequential need; and something to spare.
    for mode, bare in (("fast", 13.25 * GIB), ("balanced", 7 * GIB)):
        assert 1.05 * bare < required(mode, NEEDS) < 1.2 * bare
