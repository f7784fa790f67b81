"""`model.cfg`: a model's settings under the names that the published code gives them.

Given a pipeline of `i2vgen_ms.pipelines`; it keeps no values of its own. Reading shows the configuration of that one
model, writing changes it for the next call, with the same checks as configuration.json.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest
from i2vgen_ms.pipelines import ImageToVideo

WRITABLE = {
    "max_frames": "output.num_frames",
    "latent_hei": "output.height",
    "latent_wid": "output.width",
    "target_fps": "output.fps",
    "guide_scale": "diffusion.guidance.scale",
    "ddim_timesteps": "diffusion.steps",
    "ddim_eta": "diffusion.sampler.eta",
    "noise_strength": "diffusion.offset_noise",
    "num_timesteps": "diffusion.schedule.timesteps",
    "mean_type": "diffusion.prediction",
    "seed": "seed",
    "batch_size": "batch_size",
}
FIXED = {  # shape the networks, or how the encoder reads pictures: settled when the model is loaded
    "scale_factor": "autoencoder.scale_factor",
    "vit_resolution": "encoder.vision.image_size",
    "vit_mean": "encoder.mean",
    "vit_std": "encoder.std",
}
LATENT_SIZES = ("latent_hei", "latent_wid")  # in latents; the configuration counts pixels


class Settings:
    """The published names as attributes, and as items too."""

    def __init__(self, core: ImageToVideo) -> None:
        vars(self).update(_core=core, _lock=threading.Lock())

    def __getattr__(self, name: str) -> Any:
        path = WRITABLE.get(name) or FIXED.get(name)
        if path is None:
            raise AttributeError(f"the configuration has no setting {name!r}; {nearest(name, dir(self))}")
        value: Any = self._core.configuration.to_json()
        for key in path.split("."):
            if key not in value:
                raise AttributeError(f"{name}: the configuration has no {path} with the parts that are chosen now")
            value = value[key]
        if name in LATENT_SIZES:
            return -(-value // self._factor)
        return [value, value] if name == "vit_resolution" else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED:
            raise ArgumentError(
                f"{name} is settled when the model is loaded; change {FIXED[name]} in configuration.json"
            )
        if name not in WRITABLE:
            raise ArgumentError(f"unknown setting {name!r}; {nearest(name, WRITABLE)}")
        if getattr(value, "ndim", None) == 0:  # numpy's and torch's scalars
            value = value.item()
        try:
            if name in LATENT_SIZES:
                value = value * self._factor
            with self._lock:
                self._core.configuration = self._core.configuration.replace(WRITABLE[name], value)
        except (ConfigurationError, TypeError) as error:
            raise ArgumentError(f"{name} = {value!r}: {error}") from error

    @property
    def _factor(self) -> int:
        return int(self._core.networks.autoencoder.factor)

    def __dir__(self) -> list[str]:
        return [*WRITABLE, *FIXED]

    def __iter__(self) -> Iterator[str]:
        return (name for name in dir(self) if hasattr(self, name))

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from error

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={self[name]!r}' for name in self)})"
