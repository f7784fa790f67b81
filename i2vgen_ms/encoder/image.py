"""The picture encoder: OpenCLIP's vision tower, one projected vector a picture.

It is given the numbers of the architecture and pictures that already have its size. It knows nothing of files, of
cropping, or of the network that attends to the vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from open_clip.transformer import LayerNorm, VisionTransformer
from torch import Tensor, nn

from i2vgen_ms.encoder.clip import Numbers, VisionNumbers, activation_class, check_multiple, read_numbers
from i2vgen_ms.errors import ArgumentError, ConfigurationError


class OpenClipImageEncoder(nn.Module):
    """The vision half of CLIP (Radford et al. 2021), without the text half.

    Args:
        embed_dim: length of the vector. vision: the numbers of `VisionNumbers`, by name.
        activation: `gelu` or `quick_gelu`.
        mean, std: of each colour in [0, 1], by which pixels are normalised.
    Raises: ConfigurationError when the numbers do not fit together.
    """

    def __init__(
        self, *, embed_dim: int, vision: Numbers, activation: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        numbers = read_numbers(VisionNumbers, vision, name="encoder.vision")
        check_multiple(numbers.image_size, numbers.patch_size, "encoder.vision: image_size over patch_size")
        heads = check_multiple(numbers.width, numbers.head_width, "encoder.vision: width over head_width")
        if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
            raise ConfigurationError(f"encoder: mean {list(mean)} and std {list(std)} need three colours, std positive")
        self.embed_dim, self.image_size = embed_dim, numbers.image_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.tower = VisionTransformer(
            image_size=numbers.image_size,
            patch_size=numbers.patch_size,
            width=numbers.width,
            layers=numbers.layers,
            heads=heads,
            mlp_ratio=numbers.mlp_ratio,
            output_dim=embed_dim,
            act_layer=activation_class(activation),
            norm_layer=LayerNorm,
        )

    def preprocess(self, image: np.ndarray) -> Tensor:
        """A picture `h w 3`, uint8 RGB, both sides `image_size`, as `1 3 h w` for `forward` (fp32, on the CPU).

        Raises: ArgumentError for another shape or type.
        """
        side = self.image_size
        if image.shape != (side, side, 3) or image.dtype != np.uint8:
            raise ArgumentError(
                f"the encoder's picture is {image.dtype} of the shape {image.shape}; "
                f"it takes uint8 of {(side, side, 3)}"
            )
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std).unsqueeze(0)

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors `b 1 d` of normalised pictures `b 3 h w` (as `preprocess` gives them, on any device).

        Raises: ArgumentError for another shape.
        """
        side = self.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
            raise ArgumentError(f"pictures have the shape {tuple(pixels.shape)}; the encoder takes b 3 {side} {side}")
        return self.tower(pixels.to(self.tower.proj)).unsqueeze(1)

    def blocks(self) -> Iterable[nn.Module]:
        """The modules that hold almost all weights, in the order in which `forward` runs them."""
        return self.tower.transformer.resblocks

    def null(self, batch: int) -> Tensor:
        """The vectors `b 1 d` that stand for no picture: zeros."""
        return self.tower.proj.new_zeros(batch, 1, self.embed_dim)
