"""What a denoising network is asked for: noised latents, and the answer that it should give.

Given clean latents and a noise schedule. It knows neither networks nor where latents come from. Noise is `eps + 0.1 o`
with one number o a frame and channel where the run wants offset noise (Guttenberg 2023).

The way from a spoilt clip. The second stage starts from a spoilt clip's latents `y`, noised to `sigma_s`, and should
end at the clean clip's `x0`. A sampler without noise of its own that is told x0 keeps the noise it sees in its state,
`(y + sigma_s eps - x0) / sigma_s`, all the way down: that is `eps + (y - x0) / sigma_s`. So states with *this* as their
noise are those that the network meets, at every level, and x0, v and eps follow from it by the usual formulas; the
network learns to take away what is spoilt together with the noise. Samplers that add noise of their own keep a part
`u` in [0, 1] of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.diffusion import prediction as predictions
from i2vgen_ms.diffusion.schedule import NoiseSchedule
from i2vgen_ms.training.randomness import Draws


@dataclass(frozen=True)
class Question:
    """Noised latents `x: b c f h w` at timesteps `t: b`, and the wanted output of the network."""

    x: Tensor
    t: Tensor
    answer: Tensor

    def loss(self, output: Tensor) -> Tensor:
        """The mean squared difference, fp32, one number."""
        return F.mse_loss(output.float(), self.answer)


class Objective:
    """Makes questions.

    Args:
        schedule: the noise levels. prediction: what the network's output means, `eps`, `v` or `x0`.
        first_timestep: the noisiest that occurs; None is the schedule's last.
        offset_noise: weight of the noise that a whole frame has in common.
        stratified: spread the timesteps of a batch evenly, instead of drawing each for itself.
        shift: how much more often noisy timesteps are drawn than clean ones: the place u in [0, 1) among them becomes
            `shift u / (1 + (shift - 1) u)` (Esser et al. 2024, equation 23); 1 draws all alike.
        device: where everything is.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        prediction: str,
        first_timestep: int | None,
        offset_noise: float,
        stratified: bool,
        shift: float,
        device: torch.device,
    ) -> None:
        self._prediction = predictions.check(prediction)
        self.first_timestep = schedule.timesteps - 1 if first_timestep is None else first_timestep
        self._sigma_start = schedule.sigma(float(self.first_timestep))
        self._offset_noise, self._stratified, self._shift = offset_noise, stratified, shift
        self._alphas = schedule.alphas_cumprod.sqrt().float().to(device)
        self._sigmas = (1 - schedule.alphas_cumprod).sqrt().float().to(device)

    def draw(self, x0: Tensor, draws: Draws, *, spoilt: Tensor | None = None, part: Tensor | None = None) -> Question:
        """A question about clean latents `x0: b c f h w`, fp32.

        spoilt: latents of the spoilt clips, like x0; part: how much of the difference the state keeps, `b` in [0, 1].
        """
        noise = draws.normal(*x0.shape)
        if self._offset_noise:
            noise = noise + self._offset_noise * draws.normal(*x0.shape[:3], 1, 1)
        t = self._timesteps(len(x0), draws)
        if spoilt is not None:
            share = 1.0 if part is None else part.reshape(-1, 1, 1, 1, 1)
            noise = noise + share * (spoilt - x0) / self._sigma_start
        return self.at(x0, t, noise)

    def at(self, x0: Tensor, t: Tensor, noise: Tensor) -> Question:
        """The question at whole timesteps `t: b` with a given noise."""
        a, s = (table[t].reshape(-1, 1, 1, 1, 1) for table in (self._alphas, self._sigmas))
        answers = {"eps": lambda: noise, "v": lambda: a * noise - s * x0, "x0": lambda: x0}
        return Question(a * x0 + s * noise, t.float(), answers[self._prediction]())

    def _timesteps(self, count: int, draws: Draws) -> Tensor:
        """Whole timesteps `count` from 0 to the noisiest, int64."""
        places = draws.uniform(count)
        if self._stratified:
            places = (torch.arange(count, device=places.device) + places) / count
        places = self._shift * places / (1 + (self._shift - 1) * places)
        return (places * (self.first_timestep + 1)).long().clamp_(max=self.first_timestep)
