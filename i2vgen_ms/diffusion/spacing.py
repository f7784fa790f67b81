"""Spacings: which noise levels a sampler visits.

Given a schedule and a number of steps, a spacing returns steps + 1 falling sigmas; the first is where the sampler
starts, the last where it ends. It does not know the sampler; `grid` brings the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from i2vgen_ms.diffusion.schedule import NoiseSchedule
from i2vgen_ms.errors import ArgumentError


class _Discarding(Protocol):
    """The one property of a sampler that a grid depends on."""

    @property
    def discard_penultimate(self) -> bool: ...


def published_ddim(
    schedule: NoiseSchedule, steps: int, *, first_timestep: int | None = None, last_timestep: int = 0
) -> list[float]:
    """The published image-to-video grid: every (n // steps)-th timestep from 1 on, and timestep 0, not 0 noise, to end.

    Where steps divides the n = 1000 timesteps the timesteps are the published ones (981, 961, ..., 1 for 50 steps);
    for other numbers, where the published loop takes more steps than asked, they are spread evenly. With steps = n the
    first timestep comes twice, and the first step is idle.

    Raises ArgumentError for more steps than timesteps.
    """
    first, last, count = _range(schedule, steps, first_timestep, last_timestep)
    if steps > count:
        raise ArgumentError(
            f"steps={steps}: the spacing published_ddim has one step a timestep at most, and there are {count}; "
            "ask for fewer steps or for the spacing 'trailing'"
        )
    # published: the first timestep is not the noisiest (981 of 999 for 50 steps), the last level is timestep 0's
    timesteps = [min(last + 1 + i * count // steps, first) for i in reversed(range(steps))]
    return [schedule.sigma(float(t)) for t in [*timesteps, last]]


def leading(
    schedule: NoiseSchedule, steps: int, *, first_timestep: int | None = None, last_timestep: int = 0
) -> list[float]:
    """Equal strides counted up from the last timestep, then 0; the noisiest timesteps are left out."""
    _, last, count = _range(schedule, steps, first_timestep, last_timestep)
    if steps > count:
        return linspace(schedule, steps, first_timestep=first_timestep, last_timestep=last_timestep)
    return _levels(schedule, [last + i * count / steps for i in reversed(range(steps))])


def linspace(
    schedule: NoiseSchedule, steps: int, *, first_timestep: int | None = None, last_timestep: int = 0
) -> list[float]:
    """Equal strides that include the first and the last timestep, then 0."""
    first, last, _ = _range(schedule, steps, first_timestep, last_timestep)
    stride = (first - last) / max(steps - 1, 1)
    return _levels(schedule, [max(first - i * stride, last) for i in range(steps)])


def trailing(
    schedule: NoiseSchedule, steps: int, *, first_timestep: int | None = None, last_timestep: int = 0
) -> list[float]:
    """Equal strides counted down from the first timestep, then 0 (Lin et al. 2023, table 2; the published stage 2).

    More steps than timesteps would pass the last one; then the strides are those of linspace, which meets this
    spacing at one step a timestep.
    """
    first, _, count = _range(schedule, steps, first_timestep, last_timestep)
    if steps > count:
        return linspace(schedule, steps, first_timestep=first_timestep, last_timestep=last_timestep)
    return _levels(schedule, [first - i * count / steps for i in range(steps)])


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    first_timestep: int | None = None,
    last_timestep: int = 0,
    rho: float = 7.0,
) -> list[float]:
    """Equal strides of `sigma^(1/rho)` from the first to the last timestep, then 0 (Karras et al. 2022, equation 5).

    Where the first level is infinite it stands alone, and the strides begin at the second level of `trailing`.
    """
    if not rho > 0:
        raise ArgumentError(f"rho={rho}: the spacing karras needs a positive rho")
    first, last, _ = _range(schedule, steps, first_timestep, last_timestep)
    start = trailing(schedule, steps, first_timestep=first, last_timestep=last)
    head = [sigma for sigma in start[:1] if sigma == math.inf]
    inner = steps - len(head)
    if inner < 2:
        return [*head, *start[len(head) :]]
    high, low = start[len(head)], schedule.sigma(float(last))
    roots = (high ** (1 / rho), low ** (1 / rho))
    between = [(roots[0] + i / (inner - 1) * (roots[1] - roots[0])) ** rho for i in range(1, inner - 1)]
    return [*head, high, *between, low, 0.0]


def grid(
    spacing: Callable[..., Sequence[float]],
    schedule: NoiseSchedule,
    sampler: _Discarding,
    steps: int,
    *,
    first_timestep: int | None = None,
    last_timestep: int = 0,
) -> list[float]:
    """The steps + 1 sigmas that `sampler` is to visit.

    A sampler with `discard_penultimate` jumps to 0 from one level higher: a level more is asked for, and the one
    before 0 dropped. A spacing that does not end at 0 has no such jump, and stays as it is.
    """
    sigmas = list(spacing(schedule, steps, first_timestep=first_timestep, last_timestep=last_timestep))
    if sampler.discard_penultimate and sigmas[-1] == 0:
        sigmas = list(spacing(schedule, steps + 1, first_timestep=first_timestep, last_timestep=last_timestep))
        del sigmas[-2]
    return sigmas


def _range(schedule: NoiseSchedule, steps: int, first: int | None, last: int) -> tuple[int, int, int]:
    """Checked (first timestep, last timestep, number of timesteps)."""
    top = schedule.timesteps - 1
    first = top if first is None else first
    if steps < 1:
        raise ArgumentError(f"steps={steps}: at least 1 step is needed")
    if not 0 <= last <= first <= top:
        raise ArgumentError(f"timesteps {first} down to {last}: they must fall, and lie in 0..{top}")
    if first == last and steps > 1:
        raise ArgumentError(f"steps={steps}: only 1 step fits between timestep {first} and itself")
    return first, last, first - last + 1


def _levels(schedule: NoiseSchedule, timesteps: Sequence[float]) -> list[float]:
    return [*(schedule.sigma(float(t)) for t in timesteps), 0.0]
