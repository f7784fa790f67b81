"""What ModelScope's model classes of both tasks share: a pipeline of `i2vgen_ms.pipelines` in ModelScope's shape.

Given a model folder and the arguments that ModelScope hands to constructors. It knows no files and no numbers; the
subclasses name their task and say what they are called with.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from modelscope.models.base import TorchModel

from i2vgen_ms import catalogue, pipelines
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.pipelines import arguments
from i2vgen_ms.plugin.device import placed
from i2vgen_ms.plugin.settings import Settings


class StageModel(TorchModel):
    """The model of one folder.

    Args:
        model_dir: the folder.
        device: `cpu`, `cuda:0`, `gpu`, ...; None takes CUDA if there is one. Without CUDA a GPU becomes the CPU, with
            one DeviceWarning.
        dtype: a dtype name for all networks, or names by network.
        cache: keep a copy of the weights in these dtypes, and load it the next time.
        compile: compile the ST-UNet's blocks when they first run; see `i2vgen_ms.load`.
        lora, lora_scale: a low-rank adapter for the ST-UNet, and how much of it; see `i2vgen_ms.load`.
        limits: a `media.limits.Limits` for what is read; see `i2vgen_ms.load`.
        settings: any argument of a call (`seed=3`, `steps=20`, ...), as this model's value for every call.
        model_args, model_cfg, device_map, cfg_dict: what ModelScope passes along; the first two are read from the
            folder's configuration.json, the others cannot be used.
    Raises: ArgumentError for an unknown argument, naming the nearest; ConfigurationError, CheckpointError, DeviceError.
    """

    TASK: ClassVar[str]

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: Any = None,
        cache: bool = False,
        compile: bool | None = None,
        lora: str | os.PathLike[str] | None = None,
        lora_scale: float = 1.0,
        limits: Any = None,
        model_args: Any = None,
        model_cfg: Any = None,
        device_map: Any = None,
        cfg_dict: Any = None,
        **settings: Any,
    ) -> None:
        if device_map is not None or cfg_dict is not None:
            raise ArgumentError(
                "device_map and cfg_dict are not supported; use device, and the folder's configuration.json"
            )
        arguments.check_names(settings, self.TASK)
        core = pipelines.load(
            os.fspath(model_dir),
            device=placed(device),
            dtype=dtype,
            cache=cache,
            memory=settings.get("memory"),
            compile=compile,
            lora=lora,
            lora_scale=lora_scale,
            limits=limits,
        )
        if core.configuration.task != self.TASK:
            raise ConfigurationError(
                f"{model_dir} holds a model of the task {core.configuration.task!r}, not {self.TASK!r}"
            )
        super().__init__(os.fspath(model_dir), device=str(core.device))
        self.core = core
        self.core.configuration = arguments.applied(self.core.configuration, settings)
        self.defaults = {name: value for name, value in settings.items() if name in arguments.others(self.TASK)}
        self.cfg = Settings(self.core)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.core.device

    @property
    def generator(self) -> torch.nn.Module:
        """The ST-UNet."""
        network: torch.nn.Module = self.core.networks.st_unet
        return network

    @property
    def autoencoder(self) -> torch.nn.Module:
        """The autoencoder of the latents."""
        network: torch.nn.Module = self.core.networks.autoencoder
        return network

    @property
    def clip_encoder(self) -> torch.nn.Module:
        """The encoder of the picture or the text."""
        network: torch.nn.Module = self.core.networks.encoder
        return network

    @property
    def diffusion(self) -> Any:
        """The noise schedule that the configuration chooses now."""
        return catalogue.build("schedules", self.core.configuration.diffusion.schedule)()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        raise ArgumentError(
            "the networks stay where they were loaded; give device and dtype to pipeline() or Model.from_pretrained()"
        )
