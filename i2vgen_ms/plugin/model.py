"""ModelScope's model class of image-to-video, around a pipeline of `i2vgen_ms.pipelines`.

Given a model folder and the arguments that ModelScope hands to constructors. It knows no files and no numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from modelscope.models.base import TorchModel
from torch import Tensor

from i2vgen_ms import catalogue, pipelines
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines import arguments
from i2vgen_ms.plugin.device import placed
from i2vgen_ms.plugin.settings import Settings

TASK = "image-to-video"


class ImageToVideo(TorchModel):
    """The image-to-video model of one folder.

    Args:
        model_dir: the folder.
        device: `cpu`, `cuda:0`, `gpu`, ...; None takes CUDA if there is one. Without CUDA a GPU becomes the CPU, with
            one DeviceWarning.
        dtype: a dtype name for all networks, or names by network.
        cache: keep a copy of the weights in these dtypes, and load it the next time.
        settings: any argument of a call (`seed=3`, `steps=20`, ...), as this model's value for every call.
        model_args, model_cfg, device_map, cfg_dict: what ModelScope passes along; the first two are read from the
            folder's configuration.json, the others cannot be used.
    Raises: ArgumentError for an unknown argument, naming the nearest; ConfigurationError, CheckpointError, DeviceError.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: Any = None,
        cache: bool = False,
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
        arguments.check_names(settings, TASK)
        core = pipelines.load(os.fspath(model_dir), device=placed(device), dtype=dtype, cache=cache)
        super().__init__(os.fspath(model_dir), device=str(core.device))
        self.core = core
        self.core.configuration = arguments.applied(self.core.configuration, settings)
        self.defaults = {name: value for name, value in settings.items() if name in arguments.others(TASK)}
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
        """The encoder of the picture."""
        network: torch.nn.Module = self.core.networks.encoder
        return network

    @property
    def diffusion(self) -> Any:
        """The noise schedule that the configuration chooses now."""
        return catalogue.build("schedules", self.core.configuration.diffusion.schedule)()

    def forward(self, input: Mapping[str, Tensor], **call: Any) -> Tensor:
        """The videos of prepared pictures.

        Args:
            input: {'vit_frame': normalised pictures `b 3 s s`}, as `clip_encoder.preprocess` makes them.
            call: arguments of a call, such as seed and steps.
        Returns: fp32 `b c f h w` on the CPU, near [-1, 1].
        Raises: ArgumentError; everything that a call may raise.
        """
        frames = input.get("vit_frame") if isinstance(input, Mapping) else None
        if not isinstance(frames, Tensor) or frames.ndim != 4:
            raise ArgumentError("the model takes {'vit_frame': tensor b 3 s s}; for pictures call the pipeline")
        return self.core.tensor(frames, **{**self.defaults, **call})

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        raise ArgumentError(
            "the networks stay where they were loaded; give device and dtype to pipeline() or Model.from_pretrained()"
        )
