"""From a model folder to the pipeline of its task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from i2vgen_ms import catalogue
from i2vgen_ms.config import data, reader
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ArgumentError, ConfigurationError, nearest
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.pipelines import arguments
from i2vgen_ms.pipelines.image_to_video import ImageToVideo
from i2vgen_ms.pipelines.networks import Adapter
from i2vgen_ms.pipelines.video_to_video import VideoToVideo
from i2vgen_ms.runtime import device as devices

STAGES: dict[str, Any] = {"image-to-video": ImageToVideo, "video-to-video": VideoToVideo}


def load(
    folder: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: Any = None,
    cache: bool = False,
    memory: str | None = None,
    compile: bool | None = None,
    lora: str | os.PathLike[str] | None = None,
    lora_scale: float = 1.0,
    limits: Limits | None = None,
) -> Any:
    """The pipeline of a model folder: an ImageToVideo or a VideoToVideo.

    Args:
        folder: a folder with configuration.json and the weight files, in the hub's or our own layout; or the id of a
            model that comes with the package, such as `i2vgen-ms/small-image-to-video`.
        device: `cpu`, `cuda`, `cuda:1`; None takes CUDA if there is one.
        dtype: a dtype name for all networks, or names by network; None takes the configuration's.
        cache: keep a copy of the weights in these dtypes in this package's cache folder, and map it the next time.
        memory: how the memory of a CUDA device is used: `fast` keeps all networks there; `balanced` has each there
            while it works, and runs the guidance branches one after the other; `low` brings the large ones there block
            by block; `auto` takes the fastest that fits. None takes the configuration's.
        compile: compile the ST-UNet's transformer blocks with torch.compile when they first run, which takes some
            seconds; for memory `fast` (or `auto`). None takes the configuration's.
        lora: a low-rank adapter that was trained on this model's ST-UNet: a folder in peft's format, or its safetensors
            file; it is added to the weights, `lora_scale` times.
        limits: how large pictures and clips may be, and which addresses and files are opened (media.limits.Limits);
            None is for inputs of one's own, see there for those of strangers.
    Raises: ConfigurationError, CheckpointError, DeviceError, each saying what to do.
    """
    place = devices.choose(device)
    if not Path(folder).is_dir():
        folder = data.bundled_folder(folder) or folder
    configuration = reader.read(folder)
    if configuration.task not in STAGES:
        raise ConfigurationError(
            f"{folder}: no pipeline does the task {configuration.task!r}; {nearest(configuration.task, STAGES)}"
        )
    catalogue.check(configuration.parts())
    adapter = None if lora is None else Adapter(Path(lora), lora_scale)
    configuration = arguments.applied(configuration, {"memory": memory})
    configuration = _compiling(configuration, compile)
    return STAGES[configuration.task](
        configuration, Path(folder), device=place, dtype=dtype, cache=cache, adapter=adapter, limits=limits
    )


def _compiling(configuration: Configuration, compile: bool | None) -> Configuration:
    """The configuration with that choice; ArgumentError where the memory mode it names has no use for it."""
    if compile is not None:
        if not isinstance(compile, bool):
            raise ArgumentError(f"compile is True or False, not {compile!r:.40}")
        configuration = configuration.replace("compile", compile)
    if configuration.compile and configuration.memory in ("balanced", "low"):
        raise ArgumentError(
            f"compile=True is for networks that stay on the device: give memory 'fast' or 'auto', not "
            f"{configuration.memory!r}"
        )
    return configuration
