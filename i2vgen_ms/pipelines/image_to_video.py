"""Image to video: a picture in, a video that agrees with it out (stage 1 of I2VGen-XL; Zhang et al. 2023).

It is given a model folder and strings the parts together: media, encoder, noise, sampler, autoencoder, media. It knows
nothing of modelscope, and keeps nothing of a call, so that threads may share it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Generator, Tensor

from i2vgen_ms import catalogue
from i2vgen_ms.config import reader
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.diffusion import noise, spacing
from i2vgen_ms.diffusion.denoiser import Denoiser
from i2vgen_ms.errors import ArgumentError, NonFiniteError, nearest
from i2vgen_ms.media.crop import crop_picture, resize_for_encoder
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.media.writers import numbered, open_writer
from i2vgen_ms.pipelines import arguments
from i2vgen_ms.pipelines.networks import Loader, Networks
from i2vgen_ms.pipelines.progress import Progress, Reporter
from i2vgen_ms.pipelines.result import Result
from i2vgen_ms.runtime import device as devices
from i2vgen_ms.runtime.sizes import latent_size

OUTPUT_TYPES = ("video", "frames", "pt")
Target = str | os.PathLike[str] | None


def load(folder: str | os.PathLike[str], *, device: str | torch.device | None = None, dtype: Any = None) -> ImageToVideo:
    """The image-to-video pipeline of a model folder.

    Args:
        folder: a folder with configuration.json and the weight files, in the hub's or our own layout.
        device: `cpu`, `cuda`, `cuda:1`; None takes CUDA if there is one.
        dtype: a dtype name for all networks, or names by network; None takes the configuration's.
    Raises: ConfigurationError, CheckpointError, DeviceError, each saying what to do.
    """
    return ImageToVideo(reader.read(folder), Path(folder), device=devices.choose(device), dtype=dtype)


class ImageToVideo:
    """Makes videos from pictures with one model; see `load`."""

    def __init__(
        self, configuration: Configuration, folder: Path, *, device: torch.device, dtype: Any = None
    ) -> None:
        self.configuration, self.folder, self.device = configuration, folder, device
        self._dtypes = arguments.dtypes(configuration, device.type, dtype)
        self._loader = Loader(configuration, folder, device)
        self._loader.networks(self._dtypes)

    @property
    def networks(self) -> Networks:
        """The loaded encoder, ST-UNet and autoencoder."""
        return self._loader.networks(self._dtypes)

    def __call__(self, picture: Any, *, output: Any = None, **given: Any) -> Any:
        """Makes a video from a picture, or one from each of a list of pictures.

        Args:
            picture: a path, a URL, a PIL image, bytes, an array (`h w 3`, blue first, as published), a tensor (RGB); or a
                list of these.
            output: the file to write, chosen by its suffix: .mp4, .mkv, .webm, .gif, .webp; without a suffix a folder of
                PNG files. For a list: one name, which gives name_0.mp4, name_1.mp4, ..., or a list of names.
            output_type: `video` (default): a file, or its bytes if no output is named; `frames`: uint8 `f h w c`; `pt`:
                fp32 `c f h w` near [-1, 1].
            seed, steps, sampler, spacing, guidance_scale, guidance_branches, num_frames, fps, width, height, crop,
            batch_size: the configuration's value for this call. A sampler or spacing is a name or a dict with options.
            latents: the initial noise `b c f h w`, used as it is, at the size that the network takes.
            progress: True or False for a bar; or a callable that is given a Progress and cancels by returning False.
            dtype: for this call, as for `load`.
        Returns: a Result, or a list of them.
        Raises: ArgumentError, MediaError, OutputError, NonFiniteError, OutOfMemoryError, Cancelled. If anything is
            raised, no file was written or changed.
        """
        arguments.check_names(given)
        settings = arguments.applied(self.configuration, given)
        output_type = given.get("output_type") or "video"
        if output_type not in OUTPUT_TYPES:
            raise ArgumentError(f"output_type={output_type!r} is unknown; {nearest(str(output_type), OUTPUT_TYPES)}")
        many = isinstance(picture, (list, tuple))
        pictures = list(picture) if many else [picture]
        outputs = _outputs(output, len(pictures)) if many else [output]
        latents = _as_batch(given.get("latents"), len(pictures))
        results = []
        with Reporter(given.get("progress")) as reporter:
            for start in range(0, len(pictures), settings.batch_size):
                span = slice(start, start + settings.batch_size)
                batch = _Batch(settings, outputs[span], output_type, None if latents is None else latents[span], reporter)
                results += self._run(pictures[span], batch, given.get("dtype"))
        return results if many else results[0]

    def encode(self, pictures: Tensor) -> Tensor:
        """Normalised pictures `b 3 s s` as the vectors `b 1 d` that the network is conditioned on."""
        with torch.no_grad(), devices.memory_advice("encoding the picture"):
            vectors: Tensor = self.networks.encoder(pictures.to(self.device)).float()
        return vectors

    def tensor(self, pictures: Tensor, **given: Any) -> Tensor:
        """Videos of normalised pictures `b 3 s s`, as decoded: fp32 `b c f h w` on the CPU. Arguments as for a call."""
        settings = arguments.applied(self.configuration, given)
        networks = self._networks_of(given.get("dtype"))
        with torch.no_grad(), Reporter(given.get("progress")) as reporter:
            latents = _as_batch(given.get("latents"), len(pictures))
            batch = _Batch(settings, [None] * len(pictures), "pt", latents, reporter)
            sampled = self._sample(networks, networks.encoder(pictures.to(self.device)).float(), batch)
            return torch.stack([_channels_first(self._decode(networks, one, batch)) for one in sampled])

    def _networks_of(self, dtype: Any) -> Networks:
        if dtype is None:
            return self.networks
        return self._loader.networks(arguments.dtypes(self.configuration, self.device.type, dtype))

    def _run(self, pictures: Sequence[Any], batch: _Batch, dtype: Any) -> list[Result]:
        settings, networks = batch.settings, self._networks_of(dtype)
        images = [networks.encoder.preprocess(self._cut(read_picture(picture), networks, settings)) for picture in pictures]
        with ExitStack() as stack, torch.no_grad():
            # Before any heavy work, so that a place that cannot be written to is found out now.
            writers = [stack.enter_context(writer) if writer else None for writer in batch.writers()]
            with devices.memory_advice("encoding the picture"):
                context = networks.encoder(torch.cat(images).to(self.device)).float()
            sampled = self._sample(networks, context, batch)
            kept = [
                self._finish(networks, one, writer, batch, index)
                for index, (one, writer) in enumerate(zip(sampled, writers, strict=True))
            ]
        return [batch.result(*pair) for pair in zip(batch.outputs, writers, kept, strict=True)]

    @staticmethod
    def _cut(image: Any, networks: Networks, settings: Configuration) -> Any:
        size = {"width": settings.output.width, "height": settings.output.height, "size": settings.input.crop_size}
        return resize_for_encoder(crop_picture(image, settings.input.crop, **size), networks.encoder.image_size)

    def _sample(self, networks: Networks, context: Tensor, batch: _Batch) -> Tensor:
        """Clean latents `b c f h w` for the vectors `b 1 d`."""
        diffusion, count = batch.settings.diffusion, len(context)
        schedule = catalogue.build("schedules", diffusion.schedule)()
        sampler = catalogue.build("samplers", diffusion.sampler)
        sigmas = spacing.grid(catalogue.build("spacings", diffusion.spacing), schedule, sampler, diffusion.steps)
        # Every item has its own generator, so that a batch gives what the items alone would give.
        generators = [Generator().manual_seed(batch.settings.seed) for _ in range(count)]
        x = self._initial(networks, batch, generators).to(self.device)
        draw = noise.make(sampler.noise, generator=generators, sigmas=sigmas, like=x)
        fps = torch.full((count,), float(batch.settings.output.fps), device=self.device)
        guidance = catalogue.build("guidance", diffusion.guidance)
        positive = {"image": context, "fps": fps}
        negative = {"image": networks.encoder.null(count).to(context), "fps": fps}
        denoise = Denoiser(
            predict=lambda state, t: guidance(networks.st_unet, state, t, positive, negative),
            schedule=schedule,
            prediction=diffusion.prediction,
            rounding=diffusion.timestep_rounding,
        )
        with devices.memory_advice("sampling"):
            for step in sampler(denoise, x, sigmas, draw):
                x = step.x
                batch.reporter.report(Progress("sampling", step.index + 1, step.steps, step.x0))
        return x

    def _initial(self, networks: Networks, batch: _Batch, generators: list[Generator]) -> Tensor:
        output, network = batch.settings.output, networks.st_unet
        rows, columns = latent_size(
            network, height=output.height, width=output.width, factor=networks.autoencoder.factor
        )
        shape = (1, network.latent_channels, output.num_frames, rows, columns)
        if batch.latents is None:
            strength = batch.settings.diffusion.offset_noise
            return torch.cat([noise.initial(shape, generator, strength) for generator in generators])
        if tuple(batch.latents.shape[1:]) != shape[1:]:
            raise ArgumentError(
                f"latents have the shape {tuple(batch.latents.shape)}; {output.num_frames} frames of "
                f"{output.width}x{output.height} need b {' '.join(map(str, shape[1:]))} (b c f h w)"
            )
        return batch.latents.float()

    def _decode(self, networks: Networks, latents: Tensor, batch: _Batch) -> Iterator[Tensor]:
        """Chunks of frames `f h w c`, cropped to the video's size, of the latents `c f h w` of one video."""
        output = batch.settings.output
        done = 0
        chunks = networks.autoencoder.decode(rearrange(latents, "c f h w -> 1 f h w c"))
        while True:
            with devices.memory_advice("decoding"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            frames = chunk[0, :, : output.height, : output.width]
            if not torch.isfinite(frames).all():
                raise NonFiniteError(
                    f"decoding: NaN or infinity after frame {done}; try dtype 'float32' for the autoencoder"
                )
            done += len(frames)
            batch.reporter.report(Progress("decoding", done, latents.shape[1]))
            yield frames

    def _finish(self, networks: Networks, latents: Tensor, writer: Any, batch: _Batch, index: int) -> Any:
        """Decodes one video, writing while decoding; returns what the output type asks to be kept."""
        kept = []
        for frames in self._decode(networks, latents, batch):
            if batch.output_type == "pt":
                kept.append(frames)
            if writer is None and batch.output_type == "pt":
                continue
            pictures = to_uint8(frames)
            if batch.output_type == "frames":
                kept.append(pictures)
            if writer is not None:
                for picture in pictures:
                    writer.write(picture)
        if batch.output_type == "frames":
            return np.concatenate(kept)
        return _channels_first(iter(kept)) if kept else None


class _Batch:
    """What the pictures that are worked off together share."""

    def __init__(
        self,
        settings: Configuration,
        outputs: Sequence[Target],
        output_type: str,
        latents: Tensor | None,
        reporter: Reporter,
    ) -> None:
        self.settings, self.outputs, self.output_type = settings, outputs, output_type
        self.latents, self.reporter = latents, reporter

    def writers(self) -> list[Any]:
        """A writer for each output; None where frames are asked for and no file is."""
        output = self.settings.output
        part = catalogue.build("writers", output.writer)
        return [
            open_writer(
                target,
                width=output.width,
                height=output.height,
                fps=output.fps,
                part=part,
                metadata={"comment": f"i2vgen_ms seed={self.settings.seed}"},
            )
            if target is not None or self.output_type == "video"
            else None
            for target in self.outputs
        ]

    def result(self, target: Target, writer: Any, kept: Any) -> Result:
        return Result(
            seed=self.settings.seed,
            path=None if target is None else os.fspath(target),
            video=writer.getvalue() if writer is not None and target is None else None,
            frames=kept if self.output_type == "frames" else None,
            tensor=kept if self.output_type == "pt" else None,
        )


def _outputs(output: Any, count: int) -> list[Target]:
    """One output a picture: none at all, numbered names, or the names that were given."""
    if output is None:
        return [None] * count
    if isinstance(output, (str, os.PathLike)):
        return [numbered(output, index) for index in range(count)]
    names = list(output)
    if len(names) != count:
        raise ArgumentError(f"{count} pictures but {len(names)} outputs; give one name, or one for each picture")
    return names


def _as_batch(latents: Any, count: int) -> Tensor | None:
    if latents is None:
        return None
    if not isinstance(latents, Tensor) or latents.ndim != 5 or len(latents) != count:
        have = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ArgumentError(f"latents must be a tensor b c f h w with b = {count} (one for each picture), not {have}")
    return latents


def _channels_first(chunks: Iterator[Tensor]) -> Tensor:
    return rearrange(torch.cat([chunk.float().cpu() for chunk in chunks]), "f h w c -> c f h w")
