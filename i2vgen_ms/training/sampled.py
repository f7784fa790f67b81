"""Latents as the model's pipeline makes them: the same noise, start and sampler. For validations.

Given a network, the model's configuration and the conditions of both guidance branches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.config.schema import Configuration, VideoToVideoConfiguration
from i2vgen_ms.diffusion import noise
from i2vgen_ms.diffusion.schedule import start_scale, start_timestep
from i2vgen_ms.pipelines.sampling import sample, schedule_of


def sampled(
    network: nn.Module,
    configuration: Configuration,
    given: Tensor,
    *,
    positive: Mapping[str, Tensor],
    negative: Mapping[str, Tensor],
    seeds: Sequence[int],
    steps: int | None,
) -> Tensor:
    """Latents `b c f h w`.

    given: latents of the clips that the second stage starts from; of the first stage only their shape counts.
    seeds: one a clip, as of so many calls of the pipeline. steps: of the sampler; None takes the configuration's.
    """
    if steps is not None:
        configuration = configuration.replace("diffusion.steps", steps)
    diffusion, first = configuration.diffusion, None
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (1, *given.shape[1:])
    x = torch.cat([noise.initial(shape, generator, diffusion.offset_noise) for generator in generators]).to(given)
    if isinstance(configuration, VideoToVideoConfiguration):
        schedule = schedule_of(diffusion)
        first = start_timestep(schedule, configuration.start.strength)
        x = schedule.add_noise(given, first, x) * start_scale(schedule, first, configuration.start.scale)
    return sample(
        partial(_without_gradients, network),
        diffusion,
        x,
        positive=positive,
        negative=negative,
        generators=generators,
        on_step=lambda step: None,
        first_timestep=first,
    )


def _without_gradients(network: nn.Module, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
    with torch.no_grad():
        output: Tensor = network(x, t, **conditions)
        return output
