"""Image to video: a picture in, a video that agrees with it out (stage 1 of I2VGen-XL; Zhang et al. 2023).

It is given pictures; the network sees each as one vector. It knows nothing of modelscope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.config.schema import ImageToVideoConfiguration
from i2vgen_ms.diffusion import noise
from i2vgen_ms.media.crop import crop_picture, resize_for_encoder
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.pipelines import delivery
from i2vgen_ms.pipelines.sampling import sample
from i2vgen_ms.pipelines.stage import Call, Stage
from i2vgen_ms.runtime.device import memory_advice


class ImageToVideo(Stage[ImageToVideoConfiguration, Tensor]):
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
            batch_size, memory: the configuration's value for this call. A sampler or spacing is a name or a dict with
                options.
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
        with call.reporter, torch.no_grad():
            call = call.planned(self.device)
            sampled = self._latents(list(pictures.split(1)), call, slice(None))
            return torch.stack([delivery.channels_first(list(self._decode(one, call))) for one in sampled])

    def _begin(self, given: Mapping[str, Any], count: int) -> Call[ImageToVideoConfiguration]:
        call = super()._begin(given, count)
        call.given_latents("latents")  # so that a wrong shape is found out before any work
        return call

    def _prepare(self, source: Any, call: Call[ImageToVideoConfiguration]) -> Tensor:
        """The picture as the encoder takes it, `1 3 s s`."""
        cut, output, encoder = call.settings.input, call.settings.output, call.networks.encoder
        image = crop_picture(
            read_picture(source), cut.crop, size=cut.crop_size, width=output.width, height=output.height
        )
        pixels: Tensor = encoder.preprocess(resize_for_encoder(image, encoder.image_size))
        return pixels

    def _latents(self, prepared: Sequence[Tensor], call: Call[ImageToVideoConfiguration], span: slice) -> Tensor:
        count = len(prepared)
        with memory_advice("encoding the picture"), call.placed("encoder") as encoder:
            vectors = encoder(torch.cat(list(prepared)).to(self.device)).float()
            nothing = encoder.null(count).to(vectors)
        generators = call.generators(count)
        start = call.given_latents("latents")
        if start is None:
            strength, shape = call.settings.diffusion.offset_noise, (1, *call.latent_shape())
            start = torch.cat([noise.initial(shape, generator, strength) for generator in generators])
        else:
            start = start[span]
        fps = torch.full((count,), float(call.fps), device=self.device)
        with call.placed("st_unet") as network:
            return sample(
                network,
                call.settings.diffusion,
                start.to(self.device),
                positive={"image": vectors, "fps": fps},
                negative={"image": nothing, "fps": fps},
                generators=generators,
                on_step=call.on_step,
            )
