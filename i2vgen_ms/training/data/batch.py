"""The words that data and trainer share: what a batch should be, which clips it holds, and the batch itself.

A source has no state that a run would have to keep: which clips a batch holds follows from its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """What the clips of a batch have in common: frames, pixels, frames a second; `still` for single pictures."""

    frames: int
    width: int
    height: int
    fps: int
    still: bool = False


@dataclass(frozen=True)
class Plan:
    """One batch to come: its number in the run, the source's numbers of its clips, and what they have in common."""

    number: int
    indices: tuple[int, ...]
    spec: Spec


@dataclass(frozen=True)
class Batch:
    """Clips on the training device.

    pixels: fp32 `b f h w c` in [-1, 1]; None where their latents were cached.
    first: the first frames `b h w c`, as pixels.
    captions: one text a clip. fps: `b`, fp32. still: whether these are single pictures.
    moments: mean and logarithm of the variance of the cached latents, `b f h w c`.
    skipped: files that turned out to be unreadable, and why.
    """

    pixels: Tensor | None
    first: Tensor
    captions: tuple[str, ...]
    fps: Tensor
    still: bool = False
    moments: tuple[Tensor, Tensor] | None = None
    skipped: tuple[tuple[str, str], ...] = ()


class Source(Protocol):
    """Clips by number. `prepare` may run in a process of its own; everything else runs in the trainer's."""

    workers: int

    def plan(self, number: int, count: int, spec: Spec) -> Plan:
        """The batch of that number, of `count` clips."""

    def prepare(self, plan: Plan) -> Any:
        """What can be done on the CPU: reading, decoding, drawing numbers. The result can be sent between processes."""

    def finish(self, prepared: Any, device: torch.device) -> Batch:
        """The batch on the device, of what `prepare` gave."""


def rates(spec: Spec, count: int, device: torch.device) -> Tensor:
    """The frame rates of a batch, `b` fp32."""
    return torch.full((count,), float(spec.fps), device=device)


def numbers(first: int, count: int) -> Sequence[int]:
    """The clips of batch `first` of an endless source."""
    return range(first * count, (first + 1) * count)
