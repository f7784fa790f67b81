"""Where a run's random numbers come from: each is a function of the seed and of its place in the run.

So a run needs no memory of generators to go on after a kill, and two processes draw what one would have drawn.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import torch


def derive(seed: int, *place: str | int) -> int:
    """A seed below 2^63 for one use, such as `derive(seed, 'noise', step)`; unrelated for different places."""
    words = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True)
class Draws:
    """The generators of one batch: `device` for tensors where they are needed, `host` for choices of the program."""

    device: torch.Generator
    host: random.Random

    @classmethod
    def at(cls, device: torch.device, seed: int, *place: str | int) -> Draws:
        """Fresh generators for a place of the run."""
        generator = torch.Generator(device).manual_seed(derive(seed, "device", *place))
        return cls(generator, random.Random(derive(seed, "host", *place)))

    def normal(self, *shape: int) -> torch.Tensor:
        """Unit normal numbers, fp32, on the device."""
        return torch.randn(shape, generator=self.device, device=self.device.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers in [0, 1), fp32, on the device."""
        return torch.rand(shape, generator=self.device, device=self.device.device)
