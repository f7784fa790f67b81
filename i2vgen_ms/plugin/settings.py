"""`model.cfg`: a model's settings under the names that the published code gives them.

Given a pipeline of `i2vgen_ms.pipelines`; it keeps no values of its own. Reading shows the configuration of that one
model, writing changes it for the next call, with the same checks as configuration.json.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest

WRITABLE = {
    "max_frames": "output.num_frames",
    "latent_hei": "output.height",
    "latent_wid": "output.width",
    "target_fps": "output.fps",
    "guide_scale": "diffusion.guidance.scale",
    "num_timesteps": "diffusion.schedule.timesteps",
    "mean_type": "diffusion.prediction",
    "seed": "seed",
}
TASK_WRITABLE = {
    "image-to-video": {
        "ddim_timesteps": "diffusion.steps",
        "ddim_eta": "diffusion.sampler.eta",
        "noise_strength": "diffusion.offset_noise",
        "batch_size": "batch_size",
    },
    "video-to-video": {"positive_prompt": "prompt.suffix", "negative_prompt": "prompt.negative"},
}
FIXED = {"scale_factor": "autoencoder.scale_factor"}
TASK_FIXED = {  # shape the networks, or how the encoder reads pictures: settled when the model is loaded
    "image-to-video": {
        "vit_resolution": "encoder.vision.image_size",
        "vit_mean": "encoder.mean",
        "vit_std": "encoder.std",
    },
    "video-to-video": {},
}
MODE, FAST = "solver_mode", "fast"  # video-to-video: a sampler and its steps at once
LATENT_SIZES = ("latent_hei", "latent_wid")  # in latents; the configuration counts pixels


class Settings:
    """The published names as attributes, and as items too."""

    def __init__(self, core: Any) -> None:
        task = core.configuration.task
        writable, fixed = WRITABLE | TASK_WRITABLE[task], FIXED | TASK_FIXED[task]
        modes = (MODE,) if hasattr(core.configuration, "solver_modes") else ()
        vars(self).update(_core=core, _lock=threading.Lock(), _writable=writable, _fixed=fixed, _modes=modes)

    def __getattr__(self, name: str) -> Any:
        if name in self._modes:
            return self._mode
        path = self._writable.get(name) or self._fixed.get(name)
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
        if name in self._fixed:
            raise ArgumentError(
                f"{name} is settled when the model is loaded; change {self._fixed[name]} in configuration.json"
            )
        if name in self._modes:
            return self._set_mode(value)
        if name not in self._writable:
            raise ArgumentError(f"unknown setting {name!r}; {nearest(name, [*self._writable, *self._modes])}")
        if getattr(value, "ndim", None) == 0:  # numpy's and torch's scalars
            value = value.item()
        try:
            if name in LATENT_SIZES:
                value = value * self._factor
            with self._lock:
                self._core.configuration = self._core.configuration.replace(self._writable[name], value)
        except (ConfigurationError, TypeError) as error:
            raise ArgumentError(f"{name} = {value!r}: {error}") from error

    @property
    def _factor(self) -> int:
        return int(self._core.networks.autoencoder.factor)

    @property
    def _mode(self) -> str:
        """`fast` or `other`, the published mode that has the sampler and the steps of now; `custom` if neither does."""
        configuration = self._core.configuration
        now = (configuration.diffusion.sampler, configuration.diffusion.steps)
        modes = ((name, getattr(configuration.solver_modes, name)) for name in (FAST, "other"))
        return next((name for name, mode in modes if (mode.sampler, mode.steps) == now), "custom")

    def _set_mode(self, value: Any) -> None:
        # published: every value but 'fast' chooses the slow one.
        with self._lock:
            configuration = self._core.configuration
            modes = configuration.solver_modes
            mode = modes.fast if value == FAST else modes.other
            configuration = configuration.replace("diffusion.sampler", mode.sampler)
            self._core.configuration = configuration.replace("diffusion.steps", mode.steps)

    def __dir__(self) -> list[str]:
        return [*self._writable, *self._modes, *self._fixed]

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
