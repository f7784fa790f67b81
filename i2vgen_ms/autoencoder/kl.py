"""The autoencoder of Stable Diffusion with a KL-regularised latent (Rombach et al. 2022), for the frames of videos.

It is given pixels in [-1, 1] or latents, both `b f h w c`, and every number of its architecture. Frames do not see each
other, so any number of them is worked off in chunks that keep to a byte budget, and a frame that is too large for it in
strips. It knows nothing of noise levels, files or devices.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from i2vgen_ms.autoencoder import strips
from i2vgen_ms.autoencoder.coder import Decoder, Encoder
from i2vgen_ms.autoencoder.posterior import Posterior
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.tensors.ops import Ops

# A frame that takes up to so many times the bytes of a chunk is done at once all the same, in fewer and larger steps.
PATIENCE = 4


class AutoencoderKL(nn.Module):
    """Encoder, decoder, and the two linear maps between them and the latents.

    Args:
        channels: width of the first level; multipliers: width of each level as a multiple of it.
        residual_blocks: blocks a level in the encoder; the decoder has one more.
        in_channels: of the pixels. latent_channels: of the coders' small end. embed_channels: of the latents.
        norm_groups: of every group normalisation.
        scale_factor: latents = network's latents times this.
        chunk_bytes: what the activations of one chunk of frames may take; a chunk has at least one frame, and one that
            takes more than four times as much is worked off in strips, where PyTorch records no gradients.
        ops: the table of tensor operations.
    Raises: ConfigurationError when the numbers do not fit together.
    """

    def __init__(
        self,
        *,
        channels: int,
        multipliers: Sequence[int],
        residual_blocks: int,
        in_channels: int,
        latent_channels: int,
        embed_channels: int,
        norm_groups: int,
        scale_factor: float,
        chunk_bytes: int,
        ops: Ops,
    ) -> None:
        super().__init__()
        _check_numbers(channels, multipliers, residual_blocks, norm_groups, scale_factor, chunk_bytes)
        self.in_channels, self.embed_channels = in_channels, embed_channels
        self.scale_factor, self.chunk_bytes = scale_factor, chunk_bytes
        self.factor = 2 ** (len(multipliers) - 1)
        """Pixels a latent, each way."""
        self.encoder = Encoder(
            channels=channels,
            multipliers=multipliers,
            residual_blocks=residual_blocks,
            in_channels=in_channels,
            latent_channels=latent_channels,
            norm_groups=norm_groups,
            ops=ops,
        )
        self.decoder = Decoder(
            channels=channels,
            multipliers=multipliers,
            residual_blocks=residual_blocks,
            out_channels=in_channels,
            latent_channels=latent_channels,
            norm_groups=norm_groups,
            ops=ops,
        )
        self.to_moments = nn.Linear(2 * latent_channels, 2 * embed_channels)
        self.from_latents = nn.Linear(embed_channels, latent_channels)

    @property
    def dtype(self) -> torch.dtype:
        """The type it computes in."""
        return self.to_moments.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.to_moments.weight.device

    def encode(self, pixels: Tensor) -> Posterior:
        """The posterior of the latents of `pixels: b f h w c` in [-1, 1], on any device, of any float type.

        Raises: ArgumentError when the shape is not that, or a side is not a multiple of `factor`.
        """
        self._check(pixels, self.in_channels, "pixels")
        _, _, h, w, _ = pixels.shape
        if h % self.factor or w % self.factor:
            raise ArgumentError(
                f"pixels of {w}x{h} cannot be encoded: both sides have to be multiples of {self.factor}; "
                "pad the frames first"
            )
        frames = self.frames_per_chunk(self.encoder, h * w)
        moments = [
            self.to_moments(self._coded(self.encoder, self._here(chunk)))
            for chunk in pixels.flatten(0, 1).unsqueeze(0).split(frames, dim=1)
        ]
        together = torch.cat(moments, dim=1).reshape(*pixels.shape[:2], *moments[0].shape[2:])
        return Posterior.from_moments(together, scale=self.scale_factor)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yields the pixels of `latents: b f h w c` (scaled), as chunks `b k 8h 8w c` in the order of the frames.

        k is what fits into `chunk_bytes` and may be smaller in the last chunk. Values are those of the network: near
        [-1, 1], not cut to it, in the network's type.
        Raises: ArgumentError at once when the shape is not that.
        """
        self._check(latents, self.embed_channels, "latents")
        return self._decode(latents)

    def decode_all(self, latents: Tensor) -> Tensor:
        """All pixels of `latents: b f h w c` (scaled) in one tensor `b f 8h 8w c`."""
        return torch.cat(list(self.decode(latents)), dim=1)

    def activation_bytes(self, height: int, width: int) -> int:
        """An estimate of what encoding or decoding frames of that many pixels needs beside the weights."""
        coders = (self.encoder, self.decoder)
        return max(self.chunk_bytes, *(self._needed_bytes(coder, height, width) for coder in coders))

    def within(self, chunk_bytes: int) -> AutoencoderKL:
        """The same network, weights and all, with chunks of at most so many bytes."""
        other = copy.copy(self)
        other.chunk_bytes = min(self.chunk_bytes, chunk_bytes)
        return other

    def frames_per_chunk(self, coder: Encoder | Decoder, pixels: int) -> int:
        """How many frames of that many pixels (height times width) one call of `coder` may have; at least 1."""
        return max(1, self.chunk_bytes // self._frame_bytes(coder, pixels))

    def _needed_bytes(self, coder: Encoder | Decoder, height: int, width: int) -> int:
        """What one frame needs, at once or in strips."""
        if self._at_once(coder, height * width):
            return self._frame_bytes(coder, height * width)
        size = self.dtype.itemsize
        return self._pixel_bytes(height * width) + strips.peak_bytes(
            coder, height, width, itemsize=size, limit=self.chunk_bytes
        )

    def _frame_bytes(self, coder: Encoder | Decoder, pixels: int) -> int:
        return coder.peak_values * pixels * self.dtype.itemsize + self._pixel_bytes(pixels)

    def _pixel_bytes(self, pixels: int) -> int:
        """The pixels of this chunk and of the one before, which the caller may still hold."""
        return 2 * self.in_channels * pixels * self.dtype.itemsize

    def _decode(self, latents: Tensor) -> Iterator[Tensor]:
        b, _, h, w, _ = latents.shape
        frames = self.frames_per_chunk(self.decoder, h * w * self.factor**2)
        for span in latents.split(max(1, frames // b), dim=1):
            flat = span.flatten(0, 1).unsqueeze(0)
            parts = [self._decode_chunk(chunk) for chunk in flat.split(frames, dim=1)]
            pixels = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            yield pixels.reshape(*span.shape[:2], *pixels.shape[2:])

    def _decode_chunk(self, latents: Tensor) -> Tensor:
        # published: times the reciprocal, not divided
        unscaled = (1.0 / self.scale_factor) * latents
        return self._coded(self.decoder, self.from_latents(unscaled.to(self.device, self.dtype)))

    def _coded(self, coder: Encoder | Decoder, x: Tensor) -> Tensor:
        pixels = x.shape[2] * x.shape[3] * (1 if coder is self.encoder else self.factor**2)
        if torch.is_grad_enabled() or self._at_once(coder, pixels):
            y: Tensor = coder(x)
            return y
        return strips.coded(coder, x, limit=self.chunk_bytes)

    def _at_once(self, coder: Encoder | Decoder, pixels: int) -> bool:
        return self._frame_bytes(coder, pixels) <= PATIENCE * self.chunk_bytes

    def _here(self, pixels: Tensor) -> Tensor:
        """In the network's type where it computes, `c` side by side; moved first, as a device converts in no time."""
        return pixels.to(self.device, non_blocking=True).to(self.dtype).contiguous()

    @staticmethod
    def _check(x: Tensor, channels: int, name: str) -> None:
        if x.ndim != 5 or x.shape[-1] != channels or 0 in x.shape:
            raise ArgumentError(
                f"{name} have the shape {tuple(x.shape)}; the autoencoder takes b f h w c with {channels} channels, "
                "none of them empty"
            )


def _check_numbers(
    channels: int,
    multipliers: Sequence[int],
    residual_blocks: int,
    norm_groups: int,
    scale_factor: float,
    chunk_bytes: int,
) -> None:
    if not multipliers or residual_blocks < 1:
        raise ConfigurationError(
            f"autoencoder: multipliers {list(multipliers)} need one number a level, such as [1, 2, 4, 4], and "
            f"residual_blocks {residual_blocks} must be at least 1"
        )
    odd = [channels * m for m in multipliers if m < 1 or (channels * m) % norm_groups]
    if channels % norm_groups or odd:
        raise ConfigurationError(
            f"autoencoder: channels {channels} times multipliers {list(multipliers)} have to be positive multiples of "
            f"norm_groups, {norm_groups}"
        )
    if scale_factor == 0 or chunk_bytes < 1:
        raise ConfigurationError(
            f"autoencoder: scale_factor {scale_factor} must not be 0 and chunk_bytes {chunk_bytes} must be positive"
        )
