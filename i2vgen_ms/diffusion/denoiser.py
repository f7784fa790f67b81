"""The denoiser: a network with its schedule and prediction type, as the one function that samplers know.

Given `predict`, which holds the network, its conditions and the guidance. It does not know samplers or step counts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from i2vgen_ms.diffusion import prediction as predictions
from i2vgen_ms.diffusion.schedule import NoiseSchedule, scales
from i2vgen_ms.diffusion.verdicts import Verdicts
from i2vgen_ms.errors import ConfigurationError, nearest

Predict = Callable[[Tensor, Tensor], Tensor]

ROUNDINGS = ("published", "exact")


class Denoiser:
    """`denoiser(x, sigma) -> x0`, for states of the variance-preserving kind, sigma in (0, inf].

    predict(x, t) -> output: t is fp32, shape (b,), on x's device.
    prediction: `eps`, `v` or `x0`.
    rounding: `published` shows the network the nearest whole timestep and takes x0 with that timestep's factors, though
        the state is scaled by sigma; `exact` uses sigma for both. They agree wherever sigma is a timestep's own.
    stage: words for the error that says where NaN or infinity appeared, or what gives them at each call.

    On a CUDA device that error is raised by the next call, or by `settle`, which has to follow the last one: nobody
    waits for the device meanwhile.
    """

    def __init__(
        self,
        *,
        predict: Predict,
        schedule: NoiseSchedule,
        prediction: str,
        rounding: str = "published",
        stage: str | Callable[[], str] = "denoising",
    ) -> None:
        if rounding not in ROUNDINGS:
            raise ConfigurationError(f"timestep_rounding {rounding!r} is unknown: {nearest(rounding, ROUNDINGS)}")
        self._predict = predict
        self._schedule = schedule
        self._prediction = predictions.check(prediction)
        self._rounding = rounding
        self._stage = stage
        self._verdicts = Verdicts()

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The clean latent that the network sees in x, of x's shape and dtype.

        Raises: NonFiniteError if it is not finite (on a CUDA device: if the one before was not).
        """
        t = self._schedule.timestep(sigma)
        a, s = scales(sigma)
        if self._rounding == "published":
            # published: the factors are those of the rounded timestep, not of sigma
            t = _rounded(t)
            a, s = self._schedule.alpha(t), self._schedule.sigma_vp(t)
        out = self._predict(x, torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device))
        x0 = predictions.to_x0(self._prediction, out.to(x.dtype), x, a, s)
        stage = self._stage if isinstance(self._stage, str) else self._stage()
        self._verdicts.ask(
            x0,
            f"{stage}: NaN or infinity at sigma {sigma:.6g} (timestep {t:g}); a half precision overflow, or "
            "broken weights or latents: try dtype float32 and check the model folder",
        )
        return x0

    def settle(self) -> None:
        """Waits for the last call's latents. Raises: NonFiniteError if they are not finite."""
        self._verdicts.settle()


def _rounded(t: float) -> float:
    """The nearest whole timestep, ties to even.

    t comes out of logarithms; the first rounding lets a tie be one (the published float32 breaks ties by chance).
    """
    return float(round(round(t, 6)))
