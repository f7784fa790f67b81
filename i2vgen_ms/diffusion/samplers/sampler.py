"""What every sampler is given and yields.

    sampler(denoise, x, sigmas, noise) -> iterator of Step

denoise(x, sigma) -> x0; x: the variance-preserving state at sigmas[0], any shape, fp32 (its dtype is kept); sigmas: the
levels to visit, falling, the first may be infinite, the last may be 0; noise(sigma, sigma_next) -> unit normal like x.
One Step is yielded for each pair of neighbouring levels; the last Step's x is the result, at the level sigmas[-1].

Class attributes: `order` of convergence in the step length; `noise`, the kind it draws (noise.py); and
`discard_penultimate`, whether its grid leaves out the level before 0 (spacing.grid).

Gradients are the caller's business: a generator must not hold a no_grad context across its yields.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from i2vgen_ms.errors import ArgumentError

Denoise = Callable[[Tensor, float], Tensor]
Noise = Callable[[float, float], Tensor]
NoiseKind = Literal["none", "independent", "brownian"]


@dataclass(frozen=True)
class Step:
    """The state after step `index` of `steps`: x at noise level sigma, and the x0 the step started from (a preview)."""

    index: int
    steps: int
    sigma: float
    x: Tensor
    x0: Tensor


class Sampler(Protocol):
    """The type of every sampler; see the module's docstring."""

    order: ClassVar[int]
    noise: ClassVar[NoiseKind]
    discard_penultimate: ClassVar[bool]

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]: ...


def intervals(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The (sigma, sigma_next) of each step; ArgumentError unless the levels fall and only the ends are extreme."""
    levels = [float(sigma) for sigma in sigmas]
    pairs = list(pairwise(levels))
    if not pairs:
        raise ArgumentError(f"sigmas={levels}: a sampler needs at least a first and a last level")
    if not all(sigma > 0 and 0 <= after <= sigma and after < math.inf for sigma, after in pairs):
        raise ArgumentError(
            f"sigmas={levels}: levels must not rise; only the first may be infinite and only the last 0"
        )
    return pairs
