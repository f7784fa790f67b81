"""Training of the ST-UNet: a clip's latents are noised, and the network is asked for what is clean in them.

Stage 1 is told the first frame's vector, the rate and, where it has an extra input, the first frame's latents; stage 2
the caption, and is shown spoilt clips too (objective.py says how). Given the networks and the settings; it knows
neither steps nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from i2vgen_ms.autoencoder.posterior import Posterior
from i2vgen_ms.config.schema import Configuration, ImageToVideoConfiguration, VideoToVideoConfiguration
from i2vgen_ms.config.sections import FIRST_FRAME_CHANNELS
from i2vgen_ms.diffusion.schedule import start_timestep
from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.media.frames import to_pixels
from i2vgen_ms.pipelines.conditions import first_frame_input
from i2vgen_ms.pipelines.padding import pad_pixels
from i2vgen_ms.pipelines.sampling import schedule_of
from i2vgen_ms.runtime.sizes import latent_size
from i2vgen_ms.training import export, lora
from i2vgen_ms.training.data.batch import Batch
from i2vgen_ms.training.data.degrade import degrade
from i2vgen_ms.training.networks import fingerprint
from i2vgen_ms.training.objective import Objective
from i2vgen_ms.training.pictures import encoder_pictures
from i2vgen_ms.training.randomness import Draws, derive
from i2vgen_ms.training.sampled import sampled
from i2vgen_ms.training.settings import DenoisingSettings
from i2vgen_ms.training.task import Shown, Task, psnr
from i2vgen_ms.training.words import tokens

_SHARE_OF_LEVELS = 8  # validation losses are of each clip at so many noise levels


@dataclass(frozen=True)
class Networks:
    """The three networks of a model; the ST-UNet is the one that is trained."""

    encoder: Any
    st_unet: Any
    autoencoder: Any


@dataclass(frozen=True)
class Prepared:
    """A batch as the network sees it: clean latents `b c f h w`, its conditions, and the spoilt clips' latents."""

    x0: Tensor
    conditions: dict[str, Tensor]
    spoilt: Tensor | None
    spoilt_pixels: Tensor | None


class Denoising(Task):
    """Training of the ST-UNet of either stage.

    Args:
        settings: of the run. configuration: of the model. networks: on the device; frozen but for the ST-UNet.
    Raises: ConfigurationError for settings that this model has no use for.
    """

    def __init__(
        self, settings: DenoisingSettings, configuration: Configuration, networks: Networks, device: torch.device
    ) -> None:
        super().__init__(device, settings.numerics.frozen)
        self._settings, self._configuration, self._networks = settings, configuration, networks
        self._wanted = settings.objective
        self.network: nn.Module = networks.st_unet
        self._is_second = isinstance(configuration, VideoToVideoConfiguration)
        if self._wanted.degrading is not None and not self._is_second:
            raise ConfigurationError("settings: objective.degrading: only video-to-video starts from a clip; give null")
        if self._wanted.degrading is not None:
            _expect_pixels(settings)
        _expect_sizes(settings, networks)
        self._extra = int(getattr(networks.st_unet, "extra_channels", 0))
        self._first_frame: str = "unused"
        if isinstance(configuration, ImageToVideoConfiguration):
            self._first_frame = configuration.input.first_frame
        beside = FIRST_FRAME_CHANNELS.get(self._first_frame)
        known = 0 if beside is None else networks.st_unet.latent_channels + beside
        if self._extra != known:
            raise ConfigurationError(
                f"st_unet.extra_channels is {self._extra}; what is known here is what input.first_frame = "
                f"{self._first_frame!r} gives, {known} channels"
            )
        schedule = schedule_of(configuration.diffusion)
        start = self._wanted.start
        if isinstance(configuration, VideoToVideoConfiguration) and start is None:
            start = configuration.start.strength
        first = None if start is None else start_timestep(schedule, start)
        self._objective = Objective(
            schedule,
            prediction=configuration.diffusion.prediction,
            first_timestep=first,
            offset_noise=self._wanted.offset_noise,
            stratified=self._wanted.timesteps == "stratified",
            shift=self._wanted.shift,
            device=device,
        )
        self._null: Tensor | None = None

    def loss(self, network: Callable[..., Any], batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        prepared = self._prepared(batch, draws)
        conditions = self._without_some(prepared.conditions, draws)
        question = self._objective.draw(
            prepared.x0, draws, spoilt=prepared.spoilt, part=self._parts(len(prepared.x0), draws)
        )
        output = network(question.x, question.t, **conditions, skip_temporal=batch.still)
        return question.loss(output), {}

    def _prepared(self, batch: Batch, draws: Draws) -> Prepared:
        spoilt = spoilt_pixels = None
        if self._wanted.degrading is not None:
            if batch.pixels is None:
                raise ConfigurationError("objective.degrading spoils pixels, and the source of clips gave latents")
            with torch.no_grad():
                spoilt_pixels = degrade(
                    batch.pixels, self._wanted.degrading, draws, autoencode=self._through_the_autoencoder
                )
        with self.frozen():
            posterior = self._posterior(batch)
            x0 = _channels_second(self._latents(posterior, draws))
            if spoilt_pixels is not None:
                spoilt = _channels_second(self._latents(self._networks.autoencoder.encode(spoilt_pixels), draws))
            conditions = self._conditions(batch, posterior, x0.shape[2])
        return Prepared(x0, conditions, spoilt, spoilt_pixels)

    def _posterior(self, batch: Batch) -> Posterior:
        if batch.moments is not None:
            mean, logvar = batch.moments
            return Posterior(mean, logvar, self._networks.autoencoder.scale_factor)
        posterior: Posterior = self._networks.autoencoder.encode(batch.pixels)
        return posterior

    def _latents(self, posterior: Posterior, draws: Draws) -> Tensor:
        if self._wanted.posterior == "mode":
            return posterior.mode()
        return posterior.sample(draws.normal(*posterior.mean.shape))

    def _through_the_autoencoder(self, pixels: Tensor) -> Tensor:
        """Small clips as a first stage's decoder makes them; sides that it cannot halve are padded and cut again."""
        count, (height, width) = pixels.shape[0], pixels.shape[2:4]
        padded = pad_pixels(rearrange(pixels, "b f h w c -> (b f) h w c"), self._networks.autoencoder.factor)
        with self.frozen():
            latents = self._networks.autoencoder.encode(rearrange(padded, "(b f) h w c -> b f h w c", b=count)).mode()
            decoded: Tensor = self._networks.autoencoder.decode_all(latents)
        return decoded[:, :, :height, :width].float()

    def _conditions(self, batch: Batch, posterior: Posterior, frames: int) -> dict[str, Tensor]:
        encoder = self._networks.encoder
        if self._is_second:
            numbers = tokens(encoder, batch.captions).to(self.device, non_blocking=True)
            return {"text": encoder.embed(numbers).float()}
        vectors = encoder(encoder_pictures(batch.first, encoder, self._configuration)).float()
        conditions = {"image": vectors, "fps": batch.fps}
        if self._extra:
            first = rearrange(posterior.mode()[:, 0].float(), "b h w c -> b c h w")
            conditions["extra"] = first_frame_input(first, frames, self._first_frame)
        return conditions

    def _without_some(self, conditions: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        """The conditions, where the dropout falls replaced by those that stand for none."""
        kept = dict(conditions)
        name = "text" if self._is_second else "image"
        count = len(kept[name])
        drop = (draws.uniform(count) < self._wanted.condition_dropout)[:, None, None]
        kept[name] = torch.where(drop, self._nothing().to(kept[name]), kept[name])
        if "extra" in kept:
            keep = (draws.uniform(count) >= self._wanted.extra_dropout).to(kept["extra"])
            kept["extra"] = kept["extra"] * keep.reshape(-1, 1, 1, 1, 1)
        return kept

    def _nothing(self) -> Tensor:
        """The null condition, `1 n d`: no picture, or no words."""
        if self._null is None:
            with self.frozen():
                encoder = self._networks.encoder
                self._null = (encoder([""]) if self._is_second else encoder.null(1)).float()
        return self._null

    def _parts(self, count: int, draws: Draws) -> Tensor | None:
        """How much of the difference to the spoilt clip each example's state keeps, `b` in [0, 1]."""
        spoiling = self._wanted.degrading
        if spoiling is None:
            return None
        kind, some = draws.uniform(count), draws.uniform(count)
        partly = torch.where(kind < spoiling.full + spoiling.between, some, torch.zeros_like(some))
        return torch.where(kind < spoiling.full, torch.ones_like(some), partly)

    def cache_key(self) -> str:
        """What tells the latents of this autoencoder from another's."""
        return fingerprint(self._configuration, "autoencoder", self._networks.autoencoder)

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance `b f h w c` of clips, uint8 or in [-1, 1], `b f h w c`, to be kept."""
        with self.frozen():
            posterior = self._networks.autoencoder.encode(to_pixels(pixels.to(self.device)))
        return posterior.mean, posterior.logvar

    def validate(self, batch: Batch, seed: int) -> Shown:
        draws = Draws.at(self.device, seed, "validation")
        prepared = self._prepared(batch, draws)
        losses = []
        top = self._objective.first_timestep
        for level in range(_SHARE_OF_LEVELS):
            t = torch.full((len(prepared.x0),), round((level + 0.5) / _SHARE_OF_LEVELS * top), device=self.device)
            question = self._objective.at(prepared.x0, t, draws.normal(*prepared.x0.shape))
            losses.append(question.loss(self.network(question.x, question.t, **prepared.conditions)))
        made, truth = self._sampled(batch, prepared, seed), batch.pixels
        if truth is None:
            truth = self._networks.autoencoder.decode_all(rearrange(prepared.x0, "b c f h w -> b f h w c")).float()
        numbers = {
            "loss": float(torch.stack(losses).mean()),
            "psnr": psnr(made, truth),
            "psnr first frame": psnr(made[:, 0], truth[:, 0]),
        }
        columns = {"made": made, "truth": truth}
        if prepared.spoilt_pixels is not None:
            numbers["psnr given"] = psnr(prepared.spoilt_pixels, truth)
            columns = {"given": prepared.spoilt_pixels, **columns}
        return Shown(numbers, columns)

    def _sampled(self, batch: Batch, prepared: Prepared, seed: int) -> Tensor:
        """Clips `b f h w c` as the pipeline would make them."""
        positive, negative = self._branches(batch, prepared.conditions)
        latents = sampled(
            self.network,
            self._configuration,
            prepared.x0 if prepared.spoilt is None else prepared.spoilt,
            positive=positive,
            negative=negative,
            seeds=[derive(seed, item) for item in range(len(prepared.x0))],
            steps=self._settings.validation.steps,
        )
        pixels: Tensor = self._networks.autoencoder.decode_all(rearrange(latents, "b c f h w -> b f h w c"))
        return pixels.float()

    def _branches(self, batch: Batch, conditions: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The conditions of both guidance branches, as the pipeline has them."""
        if not isinstance(self._configuration, VideoToVideoConfiguration):
            nothing = self._nothing().to(conditions["image"]).expand_as(conditions["image"])
            return conditions, {**conditions, "image": nothing}
        prompt = self._configuration.prompt
        with self.frozen():
            texts = self._networks.encoder([*(caption + prompt.suffix for caption in batch.captions), prompt.negative])
        texts = texts.float()
        return {"text": texts[:-1]}, {"text": texts[-1:].expand_as(texts[:-1])}

    def export(self, folder: Path, dtype: torch.dtype, batches: Callable[[], Iterator[Batch]]) -> None:
        if self._settings.lora is not None:
            lora.write(folder, self.network, self._settings.lora, dtype)
        else:
            networks = vars(self._networks)
            export.write(folder, self._configuration, networks, dtype)


def _expect_pixels(settings: DenoisingSettings) -> None:
    own = ((f"phases.{number}.data", phase.data) for number, phase in enumerate(settings.phases))
    for where, data in (("data", settings.data), *own):
        for kept in ("cache", "pool"):
            if getattr(data, kept, None) is not None:
                raise ConfigurationError(
                    f"settings: {where}.{kept}: clips are spoilt as pixels, not latents; give null"
                )


def _expect_sizes(settings: DenoisingSettings, networks: Networks) -> None:
    factor = networks.autoencoder.factor
    for width, height in settings.clips.sizes:
        rows, columns = latent_size(networks.st_unet, height=height, width=width, factor=factor)
        if (columns * factor, rows * factor) != (width, height):
            raise ConfigurationError(
                f"settings: clips.sizes: the network takes no clips of {width}x{height}; the next size that it takes "
                f"is {columns * factor}x{rows * factor}"
            )


def _channels_second(latents: Tensor) -> Tensor:
    return rearrange(latents.float(), "b f h w c -> b c f h w")
