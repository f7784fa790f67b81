"""From a noisy state to clean latents: the configuration's schedule, spacing, sampler and guidance strung together.

It is given a network, a state and the conditions of both guidance branches; what the conditions mean and where the
state comes from is its callers' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Generator, Tensor

from i2vgen_ms import catalogue
from i2vgen_ms.config.schema import Diffusion
from i2vgen_ms.diffusion import noise, spacing
from i2vgen_ms.diffusion.denoiser import Denoiser
from i2vgen_ms.diffusion.samplers.sampler import Step
from i2vgen_ms.diffusion.schedule import NoiseSchedule
from i2vgen_ms.errors import NonFiniteError
from i2vgen_ms.runtime.graphs import recorded
from i2vgen_ms.runtime.shortage import memory_advice

Conditions = Mapping[str, Any]


def schedule_of(diffusion: Diffusion) -> NoiseSchedule:
    """The noise schedule that the configuration chooses."""
    schedule: NoiseSchedule = catalogue.build("schedules", diffusion.schedule)()
    return schedule


def sample(
    network: Callable[..., Tensor],
    diffusion: Diffusion,
    x: Tensor,
    *,
    positive: Conditions,
    negative: Conditions,
    generators: Sequence[Generator],
    on_step: Callable[[Step], Any],
    first_timestep: int | None = None,
    brownian_seed: int | None = None,
    graphs: str = "off",
) -> Tensor:
    """Clean latents `b c f h w` from the state `x`, variance-preserving at the first timestep.

    Args:
        network: `(x, t, **conditions) -> model output`.
        positive, negative: the conditions of the two guidance branches, tensors with the batch first.
        generators: one for each item of the batch, so that a batch gives what its items alone would give.
        on_step: is given every Step, and may raise to stop.
        first_timestep: where sampling begins; None is the noisiest.
        brownian_seed: of the Brownian path of the samplers that need one; None draws it from the generators.
        graphs: when the network's calls are recorded (runtime.graphs.recorded); its weights must not move meanwhile.
    """
    schedule = schedule_of(diffusion)
    sampler = catalogue.build("samplers", diffusion.sampler)
    levels = catalogue.build("spacings", diffusion.spacing)
    sigmas = spacing.grid(levels, schedule, sampler, diffusion.steps, first_timestep=first_timestep)
    guidance = catalogue.build("guidance", diffusion.guidance)
    done, total = 0, diffusion.steps
    with memory_advice("sampling"), recorded(network, x, graphs) as network:
        denoise = Denoiser(
            predict=_conditioned(guidance, network, positive, negative),
            schedule=schedule,
            prediction=diffusion.prediction,
            rounding=diffusion.timestep_rounding,
            stage=lambda: f"sampling, step {done + 1} of {total}: denoising",
        )
        draw = noise.make(sampler.noise, generator=list(generators), sigmas=sigmas, like=x, seed=brownian_seed)
        with noise.open_while(draw):
            for step in sampler(denoise, x, sigmas, draw):
                x, done = step.x, step.index + 1
                try:
                    on_step(step)
                except NonFiniteError:
                    denoise.settle()  # names the step, where that is what has been seen
                    raise
            denoise.settle()
    return x


def _conditioned(
    guidance: Any, network: Callable[..., Tensor], positive: Conditions, negative: Conditions
) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided output as a function of the state and the timestep; guidance of other packages may only be called."""
    if hasattr(guidance, "conditioned"):
        made: Callable[[Tensor, Tensor], Tensor] = guidance.conditioned(network, positive, negative)
        return made
    return lambda x, t: guidance(network, x, t, positive, negative)
