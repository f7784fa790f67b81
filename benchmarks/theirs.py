"""The published side: the published classes with a model folder's weights, run as the published model classes run them.

Stage 1 keeps its network in fp32 and stage 2 in fp16, both under autocast; guidance runs the network twice; frames are
encoded one at a time in fp32, and decoded 8 at a time in fp32 (stage 1) or 2 at a time under autocast (stage 2). On the
CPU everything is fp32. Given a model folder of `benchmarks.models`; it knows nothing of ours.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from benchmarks.models import TASKS, state_of
from benchmarks.oracle import published
from i2vgen_ms.config import reader

PLACES = {1: "image_to_video", 2: "video_to_video"}
# published: of stage 2, numbers that stand in the code
NOISED, SCALE_FACTOR = 600, 0.18215


def unet(stage: int, configuration: Any) -> nn.Module:
    """The published network of a stage with the numbers of a configuration, as its constructor leaves it."""
    numbers = configuration.st_unet.options
    given = {
        "in_dim": numbers["latent_channels"],
        "out_dim": numbers["out_channels"],
        "y_dim": numbers["context_channels"],
        "context_dim": numbers["context_channels"],
        "dim": numbers["channels"],
        "dim_mult": numbers["multipliers"],
        "num_heads": numbers["stem_heads"],
        "head_dim": numbers["head_channels"],
        "num_res_blocks": numbers["residual_blocks"],
        "attn_scales": [1 / 2**level for level in numbers["attention_levels"]],
        "use_checkpoint": False,
    }
    made: nn.Module
    if stage == 1:
        context = {"num_tokens": numbers["context"]["tokens"], "input_dim": numbers["context"]["in_channels"]}
        made = published(f"{PLACES[1]}.modules.unet_i2v").Img2VidSDUNet(**given, **context)
    else:
        made = published(f"{PLACES[2]}.modules.unet_v2v").Vid2VidSDUNet(**given)
    return made


class Theirs:
    """The published networks of one stage, each made when it is first asked for.

    Args:
        home: the model folder. stage: 1 or 2. device: where they run.
        half: fp16 as published; False is fp32 throughout, as on the CPU.
    """

    def __init__(self, home: Path, stage: int, device: torch.device, *, half: bool) -> None:
        self.home, self.stage, self.device, self.half = home, stage, device, half
        self.configuration: Any = reader.read(home)
        if self.configuration.task != TASKS[stage]:
            raise ValueError(f"{home} is not a model folder of stage {stage}")

    @cached_property
    def unet(self) -> nn.Module:
        made = self._filled(lambda: unet(self.stage, self.configuration), "st_unet")
        return made.half() if self.half and self.stage == 2 else made

    @cached_property
    def autoencoder(self) -> Any:
        numbers = self.configuration.autoencoder.options
        ddconfig = {
            "double_z": True,
            "z_channels": numbers["latent_channels"],
            "resolution": 256,
            "in_channels": numbers["in_channels"],
            "out_ch": numbers["in_channels"],
            "ch": numbers["channels"],
            "ch_mult": numbers["multipliers"],
            "num_res_blocks": numbers["residual_blocks"],
            "attn_resolutions": [],
            "dropout": 0.0,
        }
        kind = published(f"{PLACES[self.stage]}.modules.autoencoder").AutoencoderKL
        return self._filled(lambda: kind(ddconfig=ddconfig, embed_dim=numbers["embed_channels"]), "autoencoder")

    @cached_property
    def encoder(self) -> Any:
        """The published embedder; it has tensors that no vector depends on, which stay as they are made."""
        module = published(f"{PLACES[self.stage]}.modules.embedder")
        kind = module.FrozenOpenCLIPVisualEmbedder if self.stage == 1 else module.FrozenOpenCLIPEmbedder
        made = kind(pretrained=None, arch=self._architecture(), device=self.device)
        state = {name: tensor.float() for name, tensor in state_of(self.home, "encoder").items()}
        unknown = made.model.load_state_dict(state, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"the published encoder has no {unknown[0]!r}")
        made.model.to(self.device)
        if self.stage == 2:
            # It turns its tokens to `n b d`, which open_clip's blocks took until 2.24; turned back around them.
            blocks = made.text_transformer_forward
            made.text_transformer_forward = lambda x, attn_mask: blocks(x.transpose(0, 1), attn_mask).transpose(0, 1)
        return made

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.float16, enabled=self.half)

    def forward(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        """One forward, as the published samplers call it."""
        with torch.no_grad(), self.autocast():
            out: Tensor = self.unet(x, t=t, **conditions)
            return out

    def encode_picture(self, pixels: Tensor) -> Tensor:
        """The vector `b 1 d` of a normalised picture."""
        with torch.no_grad():
            vector: Tensor = self.encoder(pixels).unsqueeze(1)
            return vector

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            tokens: Tensor = self.encoder(list(texts))
            return tokens

    def encode(self, frames: Tensor) -> Tensor:
        """Scaled means of the latents `f c h w` of frames `f c h w`."""
        with torch.no_grad():
            return SCALE_FACTOR * torch.cat([self.autoencoder.encode(frame).mean for frame in frames.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Frames `f c h w` of scaled latents `f c h w`."""
        chunk = 8 if self.stage == 1 else 2
        context = torch.autocast(self.device.type, dtype=torch.float16, enabled=self.half and self.stage == 2)
        with torch.no_grad(), context:
            unscaled = 1.0 / SCALE_FACTOR * latents
            chunks = torch.chunk(unscaled, max(1, len(unscaled) // min(chunk, len(unscaled))))
            return torch.cat([self.autoencoder.decode(part) for part in chunks])

    def sample_first(self, noise: Tensor, image: Tensor, steps: int, unet: Callable[..., Tensor]) -> Tensor:
        """Stage 1's latents: DDIM with two forwards a step."""
        config, utils = self.configuration.diffusion, f"{PLACES[1]}.utils"
        numbers = config.schedule.options
        betas = published(f"{utils}.shedule").beta_schedule(
            "linear_sd", numbers["timesteps"], init_beta=numbers["first_beta"], last_beta=numbers["last_beta"]
        )
        diffusion = published(f"{utils}.diffusion").GaussianDiffusion(
            betas=betas, mean_type="v", var_type="fixed_small", loss_type="mse"
        )
        fps = torch.tensor([8], dtype=torch.long, device=self.device)
        with torch.no_grad(), self.autocast():
            latents: Tensor = diffusion.ddim_sample_loop(
                noise=noise,
                model=unet,
                model_kwargs=[{"y": image, "fps": fps}, {"y": torch.zeros_like(image), "fps": fps}],
                guide_scale=config.guidance.options["scale"],
                ddim_timesteps=steps,
                eta=0.0,
            )
            return latents

    def sample_second(
        self, latents: Tensor, positive: Tensor, negative: Tensor, steps: int, unet: Callable[..., Tensor]
    ) -> Tensor:
        """Stage 2's latents from those of the clip: noised, then DPM++ 2M SDE with two forwards a step."""
        config, utils = self.configuration.diffusion, f"{PLACES[2]}.utils"
        sigmas = published(f"{utils}.schedules_sdedit").noise_schedule(
            schedule="logsnr_cosine_interp", n=1000, zero_terminal_snr=True, scale_min=2.0, scale_max=4.0
        )
        diffusion = published(f"{utils}.diffusion_sdedit").GaussianDiffusion_SDEdit(sigmas=sigmas, prediction_type="v")
        with torch.no_grad(), self.autocast():
            t = torch.tensor([NOISED - 1], device=self.device)
            out: Tensor = diffusion.sample(
                noise=diffusion.diffuse(latents, t, torch.randn_like(latents)),
                model=unet,
                model_kwargs=[{"y": positive}, {"y": negative}],
                guide_scale=config.guidance.options["scale"],
                guide_rescale=config.guidance.options["rescale"],
                solver="dpmpp_2m_sde",
                steps=steps,
                t_max=NOISED - 1,
                t_min=0,
                discretization="trailing",
            )
            return out

    def animate(self, pixels: Tensor, noise: Tensor, steps: int, unet: Callable[..., Tensor]) -> Tensor:
        """Stage 1 as a whole: frames `1 c f h w` in fp32 on the CPU."""
        latents = self.sample_first(noise, self.encode_picture(pixels.to(self.device)), steps, unet)
        frames = self.decode(rearrange(latents, "1 c f h w -> f c h w"))
        return rearrange(frames, "f c h w -> 1 c f h w").float().cpu()

    def refine(self, video: Tensor, text: str, steps: int, unet: Callable[..., Tensor]) -> Tensor:
        """Stage 2 as a whole, from frames `1 c f h w`: the same, larger."""
        output, prompt = self.configuration.output, self.configuration.prompt
        positive, negative = (self.encode_text([one]) for one in (text + prompt.suffix, prompt.negative))
        frames = rearrange(video.clamp(-1, 1), "1 c f h w -> f c h w")
        large = F.interpolate(frames, size=(output.height, output.width), mode="bilinear").to(self.device)
        clip = rearrange(self.encode(large), "f c h w -> 1 c f h w")
        latents = self.sample_second(clip, positive, negative, steps, unet)
        decoded = self.decode(rearrange(latents, "1 c f h w -> f c h w"))
        return rearrange(decoded, "f c h w -> 1 c f h w").float().cpu()

    def _filled(self, make: Callable[[], nn.Module], name: str) -> nn.Module:
        """What `make` makes, not initialised, with the folder's weights."""
        with torch.device("meta"):
            made = make()
        made = made.to_empty(device=self.device)
        made.load_state_dict(state_of(self.home, name), strict=True)
        return made.eval().requires_grad_(False)

    def _architecture(self) -> str:
        """The name of the encoder's architecture, told to open_clip."""
        import open_clip

        options = self.configuration.encoder.options
        small = {"image_size": 224, "patch_size": 32, "width": 32, "layers": 1, "head_width": 32}
        words = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
        numbers = {
            "embed_dim": options.get("embed_dim", 32),
            "vision_cfg": options.get("vision", small),
            "text_cfg": options.get("text", words),
        }
        name = f"benchmark-{zlib.crc32(json.dumps(numbers).encode()):08x}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(numbers), encoding="utf-8")
            open_clip.add_model_config(path)
        return name
