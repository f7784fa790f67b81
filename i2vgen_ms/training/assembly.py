"""From a run's settings to what the loop works with: the task with its networks, and the sources of clips.

Given the settings and a device. It is the one place that knows every kind of task and of data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ConfigurationError, MediaError
from i2vgen_ms.training import checkpointing, lora, networks
from i2vgen_ms.training.autoencoder import AutoencoderTraining
from i2vgen_ms.training.contrastive import IMAGE, TEXT, EncodersTraining, Towers
from i2vgen_ms.training.data.batch import Source, Spec
from i2vgen_ms.training.data.cache import LatentCache
from i2vgen_ms.training.data.files import FileSource, open_files
from i2vgen_ms.training.data.pool import Pool
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.training.denoising import Denoising, Networks
from i2vgen_ms.training.randomness import derive
from i2vgen_ms.training.sections import FileData, WorldData
from i2vgen_ms.training.settings import AutoencoderSettings, DenoisingSettings, EncodersSettings, Settings
from i2vgen_ms.training.task import Task, train

HELD_OUT = "held-out"  # the world's split for validation
Build = Callable[..., Any]  # a network by its name; `frozen` when it is not trained


@dataclass(frozen=True)
class Sources:
    """Clips to train on, clips that are held out, and (path, reason) of what cannot be read."""

    train: Source
    held_out: Source
    skipped: Sequence[tuple[str, str]] = ()


def task(settings: Settings, device: torch.device) -> Task:
    """The task with its networks on the device, the trained one in training mode.

    Raises: ConfigurationError, CheckpointError.
    """
    configuration, build = _model(settings.model, settings, device)
    if isinstance(settings, DenoisingSettings):
        return _denoising(settings, configuration, build, device)
    if isinstance(settings, AutoencoderSettings):
        autoencoder = build("autoencoder")
        train([autoencoder])
        checkpointing.apply(autoencoder, settings.checkpointing)
        return AutoencoderTraining(settings, configuration, autoencoder, device)
    assert isinstance(settings, EncodersSettings)
    text, build_text = _model(settings.text_model, settings, device)
    if settings.weights.encoder not in (networks.RANDOM, networks.MODEL):
        raise ConfigurationError(
            f"settings: weights.encoder: one folder holds no two encoders; give 'random', or 'model' for those of "
            f"model and text_model, not {settings.weights.encoder!r:.80}"
        )
    _expect(configuration, IMAGE, "model")
    _expect(text, TEXT, "text_model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(settings.seed, "weights", "towers"))
        towers = Towers(
            build("encoder"),
            build_text("encoder"),
            temperature=settings.objective.temperature,
            least_temperature=settings.objective.least_temperature,
        ).to(device)
    train([towers])
    for tower in (towers.image, towers.text):
        checkpointing.apply(tower, settings.checkpointing)
    return EncodersTraining(settings, configuration, text, towers, device)


def sources(settings: Settings, data: WorldData | FileData, task: Task) -> Sources:
    """The sources of a `data` section of the settings. Raises: ConfigurationError."""
    if isinstance(data, WorldData):
        make = partial(WorldSource, seed=data.seed, shapes=data.shapes, pairs=data.pairs, cameras=data.cameras)
        world: Source = make(split=data.split, scenes=data.scenes, workers=data.workers)
        if data.pool is not None:
            if not isinstance(task, Denoising):
                raise ConfigurationError("settings: data.pool: only the ST-UNet is trained on latents; give null")
            world = Pool(world, data.pool, seed=data.seed)
        if data.scenes is not None:  # few scenes are learnt by heart, and that is what is to be seen
            return Sources(world, make(split=data.split, scenes=data.scenes))
        return Sources(world, make(split=f"{HELD_OUT} {data.split}"))
    cache = None
    if data.cache is not None:
        if not isinstance(task, Denoising):
            raise ConfigurationError("settings: data.cache: only the ST-UNet is trained on latents; give null")
        cache = LatentCache(data.cache, task.cache_key())
    trained, held_out, skipped = open_files(
        Path(data.path),
        sizes=[(width, height) for width, height in settings.clips.sizes],
        seed=settings.seed,
        workers=data.workers,
        held_out=data.held_out,
        cache=cache,
    )
    return Sources(trained, held_out, skipped)


def fill_cache(source: Source, specs: Sequence[Spec], task: Task, *, rank: int, ranks: int) -> list[tuple[str, str]]:
    """Makes the latents that a source keeps and lacks for clips of these kinds; of a cache on disk, one rank's share.

    Returns (path, reason) of files that cannot be read; the source goes on to replace them.
    """
    if isinstance(source, Pool) and isinstance(task, Denoising):
        source.fill(specs, task.moments, task.device)
    if not isinstance(source, FileSource) or source.cache is None or not isinstance(task, Denoising):
        return []
    skipped = []
    # A file has one size, whichever of them the kinds are given in.
    wanted = list(dict.fromkeys(place for spec in specs for place in source.specs(spec)))
    for index, spec in wanted[rank::ranks]:
        item = source.items[index]
        if not source.cache.path(item, spec).exists():
            try:
                pixels = torch.from_numpy(source.pixels(index, spec))
            except MediaError as error:
                skipped.append((item.entry.path, str(error)))
            else:
                source.cache.store(item, spec, pixels, task.moments)
    return skipped


def _model(reference: str, settings: Settings, device: torch.device) -> tuple[Configuration, Build]:
    """A model's configuration with the sections of its networks' sources, and what builds a network of it."""
    given = settings.weights.model_dump()
    configuration, folder = networks.described(reference)
    configuration = networks.with_sources(configuration, given)

    def build(name: str, *, frozen: bool = False) -> nn.Module:
        network = networks.build(
            *(configuration, name),
            source=given[name],
            folder=folder,
            seed=settings.seed,
            device=device,
            frozen=frozen,
        )
        return network.to(memory_format=torch.channels_last)

    return configuration, build


def _denoising(
    settings: DenoisingSettings, configuration: Configuration, build: Build, device: torch.device
) -> Denoising:
    if settings.lora is not None and settings.weights.st_unet == networks.RANDOM:
        raise ConfigurationError(
            "settings: lora: adapters are trained beside a network that stays as it is, and weights.st_unet is "
            "'random'; give weights.st_unet 'model' (--set weights.st_unet=model), or a folder"
        )
    network = build("st_unet")
    if settings.lora is None:
        train([network])
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(settings.seed, "weights", "lora"))
            lora.inject(network, settings.lora)
        network.to(device).train()
    checkpointing.apply(network, settings.checkpointing)
    made = Networks(
        encoder=build("encoder", frozen=True), st_unet=network, autoencoder=build("autoencoder", frozen=True)
    )
    return Denoising(settings, configuration, made, device)


def _expect(configuration: Configuration, task: str, where: str) -> None:
    if configuration.task != task:
        raise ConfigurationError(
            f"settings: {where}: the task of the model is {configuration.task!r}, and {task!r} is needed"
        )
