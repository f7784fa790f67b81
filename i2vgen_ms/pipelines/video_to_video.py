"""Video to video: a clip and a text in, a larger and sharper clip out (stage 2 of I2VGen-XL; Zhang et al. 2023).

The clip's latents are noised part of the way and denoised again under the text (SDEdit; Meng et al. 2022). It is given
clips; it knows nothing of modelscope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from torch import Generator, Tensor

from i2vgen_ms import catalogue
from i2vgen_ms.cautions import caution
from i2vgen_ms.config.schema import VideoToVideoConfiguration
from i2vgen_ms.diffusion import noise
from i2vgen_ms.diffusion.schedule import start_scale, start_timestep
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media.audio import audio_for
from i2vgen_ms.media.clip import Clip, read_clip
from i2vgen_ms.media.fit import fit_chunks, fitted_size
from i2vgen_ms.pipelines.padding import pad_latents, pad_pixels
from i2vgen_ms.pipelines.sampling import sample, schedule_of
from i2vgen_ms.pipelines.stage import Call, Stage, finite
from i2vgen_ms.pipelines.windows import Windowed, windowing
from i2vgen_ms.runtime.beside import ahead
from i2vgen_ms.runtime.shortage import memory_advice
from i2vgen_ms.tensors.arrival import page_locked

INPUT_KEYS = ("video_path", "text")


class ClipWarning(UserWarning):
    """Something of the input does not reach the output: frames that are left out, words that are cut."""


@dataclass(frozen=True)
class Scene:
    """One input: a clip, and the text that says what it should show."""

    clip: Clip
    text: str


class VideoToVideo(Stage[VideoToVideoConfiguration, Scene]):
    """Makes larger, sharper videos from clips with one model; `i2vgen_ms.pipelines.load` makes it."""

    def __call__(self, video: Any, *, output: Any = None, **given: Any) -> Any:
        """Makes a new video from a clip, or one from each of a list of clips.

        Args:
            video: a path, a URL, bytes; frames as uint8 `f h w 3` or a tensor `c f h w` in [-1, 1] (both RGB); a dict
                {'video_path': any of these, 'text': what it should show}, as published; or a list of these.
            output, output_type, progress, dtype: as for image-to-video.
            text: what the video should show, for inputs that are no dict.
            seed, steps, sampler, spacing, guidance_scale, guidance_rescale, guidance_branches, timestep_rounding,
                width, height, fps, fit, max_frames, long_clips, overlap, strength, start_scale, posterior,
                negative_prompt, prompt_suffix, memory, on_oom, cuda_graphs: the configuration's value for this call.
                fps 'source' keeps the clip's rate, and with it the sound; prompt_suffix '' adds nothing to the text.
            window: True, or how many frames windows overlap: long clips are worked on in overlapping windows of
                max_frames and blended, instead of being cut.
            noised_latents: the noised latents `1 c f h w`, used instead of the clip's own.
            brownian_seed: of the samplers that follow a Brownian path; without it the seed decides.
        Returns: a Result, or a list of them.
        Raises: as image-to-video. Warns (ClipWarning) when frames are left out or words are cut.
        """
        return self._run_all(video, output, given)

    def tensor(self, pixels: Tensor, text: str = "", **given: Any) -> Tensor:
        """The video of one clip `f h w c` in [-1, 1], as decoded: fp32 `c f h w` on the CPU; arguments as a call's."""
        result = self(rearrange(pixels, "f h w c -> c f h w"), text=text, **{**given, "output_type": "pt"})
        tensor: Tensor = result.tensor
        return tensor

    def _begin(self, given: Mapping[str, Any], count: int) -> Call[VideoToVideoConfiguration]:
        if given.get("noised_latents") is not None and count != 1:
            raise ArgumentError(f"noised_latents belong to one clip, and {count} were given")
        # Clips differ in size and length, so each is a batch of its own.
        return replace(super()._begin({**given, **windowing(given.get("window"))}, count), count=1)

    def _batch_size(self, call: Call[VideoToVideoConfiguration]) -> int:
        return 1

    def _prepare(self, source: Any, call: Call[VideoToVideoConfiguration]) -> Scene:
        text = call.given.get("text") or ""
        if isinstance(source, Mapping):
            for key in source:
                if key not in INPUT_KEYS:
                    raise ArgumentError(f"a video-to-video input has the keys {' and '.join(INPUT_KEYS)}, not {key!r}")
            if "video_path" not in source:
                raise ArgumentError("a video-to-video input needs the key 'video_path'")
            source, text = source["video_path"], source.get("text") or text
        if not isinstance(text, str):
            raise ArgumentError(f"text must be a string, not {text!r:.80}")
        limit = call.settings.output.num_frames
        clip = read_clip(
            source,
            max_frames=None if call.settings.input.long_clips == "window" else limit,
            limits=self.limits,
            reader=catalogue.bind("readers", call.settings.input.reader),
        )
        if clip.truncated:
            count = "frames" if clip.left_out is None else f"{clip.left_out} frame{'' if clip.left_out == 1 else 's'}"
            caution(
                f"left out: {count} after frame {limit}; give window=True to work on the whole clip, or max_frames",
                ClipWarning,
                stacklevel=2,
            )
        return Scene(clip, text)

    def _settle(
        self, call: Call[VideoToVideoConfiguration], prepared: Sequence[Scene]
    ) -> Call[VideoToVideoConfiguration]:
        clip, settings = prepared[0].clip, call.settings
        wide, high = fitted_size(
            settings.input.fit, clip.width, clip.height, settings.output.width, settings.output.height
        )
        settings = settings.replace("output.width", wide).replace("output.height", high)
        fps: Any = settings.output.fps
        if fps == "source":
            if clip.fps is None:
                raise ArgumentError("fps='source', but the clip does not say its rate; give a number")
            fps = clip.fps
        window = settings.output.num_frames
        settings = settings.replace("output.num_frames", clip.count)
        sound = audio_for(clip, frames=clip.count, fps=fps)
        call = replace(call, settings=settings, fps=fps, window=window, audio=sound)
        call.given_latents("noised_latents")  # so that a wrong shape is found out before any work
        return call

    def _latents(self, prepared: Sequence[Scene], call: Call[VideoToVideoConfiguration], span: slice) -> Tensor:
        scene, settings = prepared[0], call.settings
        generators = call.generators(1)
        positive, negative = self._conditions(scene.text, call)
        schedule = schedule_of(settings.diffusion)
        first = start_timestep(schedule, settings.start.strength)
        noised = call.given_latents("noised_latents")
        if noised is None:
            latents = self._encode(scene.clip, call, generators[0])
            fresh = noise.initial(tuple(latents.shape), generators[0], settings.diffusion.offset_noise)
            noised = schedule.add_noise(latents, first, fresh.to(latents))
        x = noised.to(self.device) * start_scale(schedule, first, settings.start.scale)
        with call.placed("st_unet") as network:
            return sample(
                Windowed(network, window=call.window, overlap=settings.input.overlap),
                settings.diffusion,
                x,
                positive=positive,
                negative=negative,
                generators=generators,
                on_step=call.on_step,
                first_timestep=first,
                brownian_seed=call.given.get("brownian_seed"),
                graphs=call.graphs,
            )

    def _conditions(
        self, text: str, call: Call[VideoToVideoConfiguration]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        prompt = call.settings.prompt
        cut = call.networks.encoder.fit(text).cut  # the suffix comes after the text, and takes no room from it
        if cut:
            caution(
                f"the text is longer than the encoder reads: shorten it; these words are cut: {' '.join(cut)!r}",
                ClipWarning,
                stacklevel=2,
            )
        with memory_advice("encoding the text"), call.placed("encoder") as encoder:
            tokens = finite(encoder([text + prompt.suffix, prompt.negative]).float(), "encoding the text")
        return {"text": tokens[:1]}, {"text": tokens[1:]}

    def _encode(self, clip: Clip, call: Call[VideoToVideoConfiguration], generator: Generator) -> Tensor:
        """The clip's latents `1 c f h w`, padded to the size that the network takes."""
        output = call.settings.output
        with memory_advice("encoding the clip"), call.placed("autoencoder") as autoencoder:
            chunks = fit_chunks(clip.frames, call.settings.input.fit, width=output.width, height=output.height)
            padded = (pad_pixels(pixels, autoencoder.factor)[None] for pixels in chunks)
            # On the CPU there is nothing beside which they could be made.
            with ahead((page_locked(one, self.device) for one in padded), threaded=self.device.type != "cpu") as made:
                parts = [autoencoder.encode(pixels) for pixels in made]
        mean = torch.cat([part.mean for part in parts], dim=1)
        posterior = replace(parts[0], mean=mean, logvar=torch.cat([part.logvar for part in parts], dim=1))
        if call.settings.start.posterior == "mode":
            latents = posterior.mode()
        else:
            drawn = noise.initial(rearrange(mean, "b f h w c -> b c f h w").shape, generator)
            latents = posterior.sample(rearrange(drawn, "b c f h w -> b f h w c"))
        latents = rearrange(finite(latents.float(), "encoding the clip"), "b f h w c -> b c f h w")
        _, _, rows, columns = call.latent_shape()
        return pad_latents(latents, rows, columns)
