"""Spoiling clips: smaller and larger again, out of focus, noisy, compressed; what the second stage is to mend.

Given clean clips on any device, `b f h w c` in [-1, 1]. One choice is made for a whole batch, by the program, so that
nothing waits for the device; noise is every pixel's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from i2vgen_ms.training.randomness import Draws
from i2vgen_ms.training.sections import Degrading

BLOCK = 8
# JPEG's example tables (ITU-T T.81, annex K) rise from the low frequencies to the high ones about like these lines.
_LIGHT, _COLOUR = (10.0, 6.0), (14.0, 10.0)


def degrade(
    pixels: Tensor, settings: Degrading, draws: Draws, *, autoencode: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The spoilt clips, of the same shape: small, spoilt, and enlarged as video-to-video enlarges what it is given.

    autoencode: pixels to pixels through the autoencoder, as what a first stage makes has been.
    """
    b, _, height, width, _ = pixels.shape
    factor = draws.host.choice(settings.factors)
    small = rearrange(pixels, "b f h w c -> (b f) c h w")
    size = (max(BLOCK, round(height / factor)), max(BLOCK, round(width / factor)))
    if size != (height, width):
        small = F.interpolate(small, size=size, mode="bilinear", align_corners=False, antialias=True)
    small = blurred(small, draws.host.uniform(*settings.blur))
    small = small + draws.host.uniform(*settings.noise) * draws.normal(*small.shape)
    compress = draws.host.random() < settings.compressed
    quality = draws.host.uniform(*settings.quality)
    if draws.host.random() < settings.autoencoded and autoencode is not None:
        small = rearrange(autoencode(rearrange(small, "(b f) c h w -> b f h w c", b=b)), "b f h w c -> (b f) c h w")
    if compress:
        small = compressed(small, quality)
    # as a file would hold it, and as the fit 'squash' enlarges it
    small = ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    large = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)
    return rearrange(large, "(b f) c h w -> b f h w c", b=b)


def blurred(pictures: Tensor, deviation: float) -> Tensor:
    """Pictures `n c h w` under a Gaussian of that deviation in pixels; edges are continued."""
    reach = math.ceil(3 * deviation)
    if deviation < 0.05 or reach < 1:
        return pictures
    places = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    line = torch.exp(-0.5 * (places / deviation) ** 2)
    line = (line / line.sum()).expand(pictures.shape[1], 1, 1, -1)
    groups = pictures.shape[1]
    across = F.conv2d(F.pad(pictures, (reach, reach, 0, 0), mode="replicate"), line, groups=groups)
    down = F.pad(across, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(down, line.transpose(2, 3), groups=groups)


def compressed(pictures: Tensor, quality: float) -> Tensor:
    """Pictures `n 3 h w` in [-1, 1] with what compression by blocks leaves of them; `quality` 1 to 100, as of JPEG.

    Brightness and colours are transformed by cosines in blocks of 8 x 8, rounded to steps that rise with the frequency,
    and transformed back.
    """
    height, width = pictures.shape[2:]
    padded = F.pad(pictures, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    frequency = torch.arange(BLOCK, device=pictures.device, dtype=pictures.dtype)
    both = frequency[:, None] + frequency[None, :]
    steps = torch.stack([first + slope * both for first, slope in (_LIGHT, _COLOUR, _COLOUR)])
    steps = (steps * scale).clamp(min=1.0) / 127.5
    mix, back = (table.to(pictures.device, pictures.dtype, non_blocking=True) for table in (_YCC, _YCC_INVERSE))
    blocks = rearrange(padded, "n c (y v) (x u) -> n y x c v u", v=BLOCK, u=BLOCK)
    planes = torch.einsum("k c, n y x c v u -> n y x k v u", mix, blocks)
    cosines = _cosines(pictures)
    waves = torch.einsum("i v, n y x k v u, j u -> n y x k i j", cosines, planes, cosines)
    waves = (waves / steps[:, :, :]).round() * steps
    planes = torch.einsum("i v, n y x k i j, j u -> n y x k v u", cosines, waves, cosines)
    pixels = torch.einsum("c k, n y x k v u -> n c y v x u", back, planes)
    return rearrange(pixels, "n c y v x u -> n c (y v) (x u)")[:, :, :height, :width]


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal cosine transform of BLOCK values, `frequency place` (DCT-II)."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    table = torch.cos(math.pi / BLOCK * (place[None, :] + 0.5) * place[:, None]) * math.sqrt(2 / BLOCK)
    table[0] /= math.sqrt(2)
    return table.to(like.dtype).to(like.device, non_blocking=True)


# brightness and two colour differences of red, green and blue (ITU-R BT.601)
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_YCC_INVERSE = torch.linalg.inv(_YCC)
