"""Random numbers of a run: the initial latents and what stochastic samplers add.

Given generators or seeds; the global generators are neither read nor seeded. It does not know samplers; a sampler says
which `kind` it needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor

from i2vgen_ms.errors import ArgumentError, nearest

Noise = Callable[[float, float], Tensor]

KINDS = ("none", "independent", "brownian")

DECIMALS = 6  # of the times torchsde tells apart; rounded before it does, or it warns of ends outside its range
KEPT = 12  # tensors of a path that wait to be used again; thirty steps draw 1920 times, with torchsde's 45 1490 times


def initial(shape: Sequence[int], generator: Generator, offset_strength: float = 0.0) -> Tensor:
    """Unit normal latents, `b c f h w`, fp32 on the CPU.

    offset_strength: weight of a second draw `b c f 1 1`, one number a frame and channel (offset noise; the published
    stage 1 uses 0.1). 0 draws nothing more.
    """
    latents = torch.randn(tuple(shape), generator=generator, dtype=torch.float32)
    if offset_strength:
        offset = torch.randn((*latents.shape[:3], 1, 1), generator=generator, dtype=torch.float32)
        latents = latents + offset_strength * offset
    return latents


class Independent:
    """A fresh unit normal tensor each step, drawn on the CPU in fp32 and moved to where `like` is.

    generator: one for the whole batch, or a sequence with one for each batch item.
    """

    def __init__(self, generator: Generator | Sequence[Generator], like: Tensor) -> None:
        self._generators = [generator] if isinstance(generator, Generator) else list(generator)
        self._like = like
        batch = like.shape[0]
        if len(self._generators) not in (1, batch):
            raise ArgumentError(f"{len(self._generators)} generators for a batch of {batch}: give 1 or {batch}")

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        shape = (self._like.shape[0] // len(self._generators), *self._like.shape[1:])
        draws = [torch.randn(shape, generator=g, dtype=torch.float32) for g in self._generators]
        return torch.cat(draws).to(self._like.device, self._like.dtype)


class Brownian:
    """Increments of one Brownian path over sigma, each divided by the square root of its length.

    The path is a function of the seed and of the range of the finite positive sigmas, not of the steps taken in
    between, so that finer steps refine the same path (torchsde's tree; Li et al. 2020). torchsde knows times to
    6 decimals: the noise of a step in sigma that is not much longer is a little off unit variance, and 0 if it is
    shorter. The path lives on the device of `like` and is made when it is first asked for.

    seed: one for the whole batch, or a sequence with one for each batch item.
    """

    def __init__(self, seed: int | Sequence[int], sigmas: Sequence[float], like: Tensor) -> None:
        finite = [sigma for sigma in sigmas if 0 < sigma < math.inf]
        self._range = (min(finite), max(finite)) if finite else (0.0, 0.0)
        self._seeds = [seed] if isinstance(seed, int) else list(seed)
        self._like = like
        self._trees: list[Any] = []
        batch = like.shape[0]
        if len(self._seeds) not in (1, batch):
            raise ArgumentError(f"{len(self._seeds)} Brownian seeds for a batch of {batch}: give 1 or {batch}")

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        low, high = self._range
        if not low <= sigma_next < sigma <= high:
            raise ArgumentError(f"Brownian noise from sigma {sigma} to {sigma_next}: the path covers {low} to {high}")
        if not self._trees:
            self._trees = self._grow(low, high)
        # published: the path runs towards larger sigma, so that a step down takes its negative increment
        start, end = round(sigma_next, DECIMALS), round(sigma, DECIMALS)
        increment = -torch.cat([tree(start, end) for tree in self._trees])
        return increment / math.sqrt(sigma - sigma_next)

    def close(self) -> None:
        """Lets go of the path's tensors; asked again, it is made anew, the same.

        The tree's branches know its root, so that without this it would stay until Python looks for such circles.
        """
        for tree in self._trees:
            for kind in type(tree).__mro__:
                for name in getattr(kind, "__slots__", ()):
                    if hasattr(tree, name):
                        delattr(tree, name)
        self._trees = []

    def _grow(self, low: float, high: float) -> list[Any]:
        import torchsde

        shape = (self._like.shape[0] // len(self._seeds), *self._like.shape[1:])
        # published: torchsde.BrownianTree, which is this with a larger cache and without a say in it
        return [
            torchsde.BrownianInterval(
                t0=low,
                t1=high,
                size=shape,
                dtype=self._like.dtype,
                device=self._like.device,
                entropy=seed,
                tol=10**-DECIMALS,
                pool_size=24,
                halfway_tree=True,
                cache_size=KEPT,
            )
            for seed in self._seeds
        ]


def make(
    kind: str,
    *,
    generator: Generator | Sequence[Generator],
    sigmas: Sequence[float],
    like: Tensor,
    seed: int | Sequence[int] | None = None,
) -> Noise:
    """The noise function a sampler of this `kind` needs: noise(sigma, sigma_next) -> unit normal, like `like`.

    seed: of the Brownian path; None draws it from the generator (one draw a generator, for `brownian` only).
    """
    if kind == "none":
        return _refuse
    if kind == "independent":
        return Independent(generator, like)
    if kind != "brownian":
        raise ArgumentError(f"noise kind {kind!r} is unknown: {nearest(kind, KINDS)}")
    if seed is None:
        generators = [generator] if isinstance(generator, Generator) else generator
        seed = [int(torch.randint(0, 2**63 - 1, (), generator=g)) for g in generators]
    return Brownian(seed, sigmas, like)


@contextmanager
def open_while(draw: Noise) -> Iterator[Noise]:
    """The noise; when the context ends, what it keeps on the device is let go of."""
    try:
        yield draw
    finally:
        if isinstance(draw, Brownian):
            draw.close()


def _refuse(sigma: float, sigma_next: float) -> Tensor:
    raise ArgumentError("a sampler that declares noise='none' asked for noise; it must declare the kind it uses")
