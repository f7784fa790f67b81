"""A fixed number of clips as latents on the training device, from which every batch is drawn.

Given a source of clips and what encodes them. It is for sources that are costly beside a small network: each clip is
made once, and then a batch is a choice of rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from i2vgen_ms.media.frames import to_levels, to_pixels
from i2vgen_ms.tensors.arrival import page_locked
from i2vgen_ms.training.data.batch import Batch, Plan, Source, Spec, rates
from i2vgen_ms.training.data.cache import Encode, Stored
from i2vgen_ms.training.data.stream import batches
from i2vgen_ms.training.randomness import derive

MADE_AT_ONCE = 128


@dataclass(frozen=True)
class Kept:
    """The clips of one kind, their moments in fp16, and their captions."""

    stored: Stored
    captions: tuple[str, ...]


class Pool:
    """A source of `count` clips of each kind, those with which another source begins.

    Each batch draws its clips anew, without a clip twice where there are enough of them. `fill` comes first.
    """

    workers = 0  # nothing is left to do on the CPU

    def __init__(self, source: Source, count: int, *, seed: int) -> None:
        self._source, self._count, self._seed = source, count, seed
        self._kept: dict[Spec, Kept] = {}

    def fill(self, specs: Sequence[Spec], encode: Encode, device: torch.device) -> None:
        """Makes the clips of these kinds. encode: clips `b f h w c` in [-1, 1] to their latents' moments."""
        for spec in specs:
            if spec not in self._kept:
                self._kept[spec] = self._made(spec, encode, device)

    def plan(self, number: int, count: int, spec: Spec) -> Plan:
        choose = random.Random(derive(self._seed, "pool", int(spec.still), number))
        clips = range(self._count)
        indices = choose.sample(clips, count) if count <= self._count else choose.choices(clips, k=count)
        return Plan(number, tuple(indices), spec)

    def prepare(self, plan: Plan) -> Plan:
        return plan

    def finish(self, prepared: Plan, device: torch.device) -> Batch:
        kept, count = self._kept[prepared.spec], len(prepared.indices)
        stored = kept.stored
        rows = page_locked(torch.tensor(prepared.indices), device).to(device, non_blocking=True)
        return Batch(
            pixels=None,
            first=to_pixels(stored.first[rows]),
            captions=tuple(kept.captions[index] for index in prepared.indices),
            fps=rates(prepared.spec, count, device),
            still=prepared.spec.still,
            moments=(stored.mean[rows].float(), stored.logvar[rows].float()),
        )

    def _made(self, spec: Spec, encode: Encode, device: torch.device) -> Kept:
        plans = (self._source.plan(number, MADE_AT_ONCE, spec) for number in range(-(-self._count // MADE_AT_ONCE)))
        columns: list[tuple[Tensor, Tensor, Tensor]] = []
        captions: list[str] = []
        for batch in batches(self._source, plans, device):
            assert batch.pixels is not None
            mean, logvar = encode(batch.pixels)
            columns.append((mean.half(), logvar.half(), to_levels(batch.first)))
            captions += batch.captions
        stored = Stored(*(torch.cat(column)[: self._count] for column in zip(*columns, strict=True)))
        return Kept(stored, tuple(captions[: self._count]))
