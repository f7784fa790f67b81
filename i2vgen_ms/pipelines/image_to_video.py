"""Image to video: a picture in, a video that agrees with it out (stage 1 of I2VGen-XL; Zhang et al. 2023).

It is given pictures; the network sees each as one vector, and as the first frame if the model is made for that. It
knows nothing of modelscope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from i2vgen_ms.config.schema import ImageToVideoConfiguration
from i2vgen_ms.diffusion import noise
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media.crop import crop_picture, resize_for_encoder
from i2vgen_ms.media.fit import fit_chunks
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.pipelines import delivery
from i2vgen_ms.pipelines.conditions import first_frame_input
from i2vgen_ms.pipelines.padding import pad_latents, pad_pixels
from i2vgen_ms.pipelines.sampling import sample
from i2vgen_ms.pipelines.stage import Call, Stage, finite
from i2vgen_ms.runtime.shortage import memory_advice


@dataclass(frozen=True)
class View:
    """One picture: as the encoder takes it, `1 3 s s`; and as the first frame, `1 h w 3` in [-1, 1], if it is used."""

    pixels: Tensor
    first: Tensor | None = None


class ImageToVideo(Stage[ImageToVideoConfiguration, View]):
    """Makes videos from pictures with one model; `i2vgen_ms.pipelines.load` makes it."""

    def __call__(self, picture: Any, *, output: Any = None, **given: Any) -> Any:
        """Makes a video from a picture, or one from each of a list of pictures.

        Args:
            picture: a path, a URL, a PIL image, bytes, an array (`h w 3`, blue first, as published), a tensor (RGB); or
                a list of these.
            output: the file to write, chosen by its suffix: .mp4, .mkv, .webm, .gif, .webp; without a suffix a folder
                of PNG files. For a list: one name, which gives name_0.mp4, name_1.mp4, ..., or a list of names.
            output_type: `video` (default): a file, or its bytes if no output is named; `frames`: uint8 `f h w c`; `pt`:
                fp32 `c f h w` near [-1, 1].
            seed, steps, sampler, spacing, guidance_scale, guidance_branches, num_frames, fps, width, height, crop,
            batch_size, memory, on_oom, cuda_graphs: the configuration's value for this call. A sampler or spacing is a
                name or a dict with options. on_oom 'lower': after running out of memory the batch is made again, from
                the same seed, in the next lower memory mode, with a MemoryWarning.
            latents: the initial noise `b c f h w`, used as it is, at the size that the network takes.
            progress: True or False for a bar; or a callable that is given a Progress and cancels by returning False.
            dtype: for this call, as for `load`.
        Returns: a Result, or a list of them.
        Raises: ArgumentError, MediaError, OutputError, NonFiniteError, OutOfMemoryError, Cancelled. If anything is
            raised, no file of the batch that was being worked on was written or changed.
        """
        return self._run_all(picture, output, given)

    def tensor(self, pictures: Tensor, **given: Any) -> Tensor:
        """Videos of normalised pictures `b 3 s s`, as decoded: fp32 `b c f h w` on the CPU. Arguments as for a call."""
        call = self._begin(given, len(pictures))
        if call.settings.input.first_frame != "unused":
            raise ArgumentError(
                "this model needs the picture as the first frame too; call the pipeline with the picture"
            )

        def make(call: Call[ImageToVideoConfiguration]) -> Tensor:
            sampled = self._latents([View(picture) for picture in pictures.split(1)], call, slice(None))
            return torch.stack([delivery.channels_first(list(self._decode(one, call))) for one in sampled])

        with call.reporter, torch.no_grad():
            return self._fitting(call, make)[0]

    def _begin(self, given: Mapping[str, Any], count: int) -> Call[ImageToVideoConfiguration]:
        call = super()._begin(given, count)
        call.given_latents("latents")  # so that a wrong shape is found out before any work
        return call

    def _prepare(self, source: Any, call: Call[ImageToVideoConfiguration]) -> View:
        cut, output, encoder = call.settings.input, call.settings.output, call.networks.encoder
        picture = read_picture(source, limits=self.limits)
        image = crop_picture(picture, cut.crop, size=cut.crop_size, width=output.width, height=output.height)
        pixels = encoder.preprocess(resize_for_encoder(image, encoder.image_size))
        if cut.first_frame == "unused":
            return View(pixels)
        return View(pixels, next(fit_chunks(picture[None], "crop", width=output.width, height=output.height)))

    def _latents(self, prepared: Sequence[View], call: Call[ImageToVideoConfiguration], span: slice) -> Tensor:
        count = len(prepared)
        with memory_advice("encoding the picture"), call.placed("encoder") as encoder:
            vectors = encoder(torch.cat([view.pixels for view in prepared]).to(self.device)).float()
            vectors = finite(vectors, "encoding the picture")
            nothing = encoder.null(count).to(vectors)
        generators = call.generators(count)
        start = call.given_latents("latents")
        if start is None:
            strength, shape = call.settings.diffusion.offset_noise, (1, *call.latent_shape())
            start = torch.cat([noise.initial(shape, generator, strength) for generator in generators])
        else:
            start = start[span]
        shared = {"fps": torch.full((count,), float(call.fps), device=self.device)}
        if call.settings.input.first_frame != "unused":
            shared["extra"] = self._first_frames([view.first for view in prepared if view.first is not None], call)
        with call.placed("st_unet") as network:
            return sample(
                network,
                call.settings.diffusion,
                start.to(self.device),
                positive={"image": vectors, **shared},
                negative={"image": nothing, **shared},
                generators=generators,
                on_step=call.on_step,
                graphs=call.graphs,
            )

    def _first_frames(self, frames: Sequence[Tensor], call: Call[ImageToVideoConfiguration]) -> Tensor:
        """The extra input of the network for the first frames, each `1 h w 3`."""
        _, count, rows, columns = call.latent_shape()
        with memory_advice("encoding the picture"), call.placed("autoencoder") as autoencoder:
            padded = pad_pixels(torch.cat(list(frames)), autoencoder.factor)
            latents = finite(autoencoder.encode(padded.unsqueeze(1)).mode().float(), "encoding the picture")
        latents = pad_latents(rearrange(latents, "b f h w c -> b c f h w"), rows, columns)
        return first_frame_input(latents[:, :, 0], count, call.settings.input.first_frame)
