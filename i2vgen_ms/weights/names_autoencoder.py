"""Tensor names of the autoencoder: Stable Diffusion's, which published files use, and ours.

A Stable Diffusion checkpoint holds the autoencoder under `first_stage_model.` beside other networks; a file of the
autoencoder alone uses the same names without it. Both are read, the first is written. Maps of 1x1 are convolutions
there (`o i 1 1`) and linear layers here (`o i`); everything else has one shape. It knows nothing of files and builds
no network.
"""

from __future__ import annotations

import re

from torch import Tensor

PREFIX = "first_stage_model."

# beginnings of names, published and ours; # is a number
_PATHS = (
    ("quant_conv", "to_moments"),
    ("post_quant_conv", "from_latents"),
    ("encoder.down.#.block.#", "encoder.levels.#.blocks.#"),
    ("encoder.down.#.downsample", "encoder.levels.#.step"),
    ("decoder.up.#.block.#", "decoder.levels.#.blocks.#"),
    ("decoder.up.#.upsample", "decoder.levels.#.step"),
    *(
        (f"{side}.{published}", f"{side}.{ours}")
        for side in ("encoder", "decoder")
        for published, ours in (
            ("conv_in", "stem"),
            ("mid.block_#", "middle.block#"),
            ("mid.attn_1", "middle.attention"),
            ("norm_out", "norm"),
            ("conv_out", "head"),
        )
    ),
)
# layers inside of them
_LAYERS = (("nin_shortcut", "shortcut"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out"))

_LINEAR = {"to_moments", "from_latents", *(ours for _, ours in _LAYERS)}
_ROOTS = {published.split(".")[0] for published, _ in _PATHS}


class AutoencoderLayout:
    """Translates names and shapes of `AutoencoderKL` from and to Stable Diffusion's layout; tensors stay views."""

    def to_ours(self, published: str) -> str | None:
        """Our name; None for a tensor of another network.

        A name of the autoencoder that it cannot have comes back as it is, so that loading reports it as unexpected.
        """
        name = published.removeprefix(PREFIX)
        if name == published and name.split(".")[0] not in _ROOTS:
            return None
        return _translate(name, source=0) or published

    def to_published(self, ours: str) -> str:
        """The published name, with `first_stage_model.` before it.

        Raises: KeyError for a name that is not one of the network's.
        """
        name = _translate(ours, source=1)
        if name is None:
            raise KeyError(ours)
        return PREFIX + name

    def to_our_shape(self, ours: str, tensor: Tensor) -> Tensor:
        """`o i 1 1` to `o i` where we have a linear layer; anything else as it is."""
        return tensor[:, :, 0, 0] if _is_linear(ours) and tensor.shape[2:] == (1, 1) else tensor

    def to_published_shape(self, ours: str, tensor: Tensor) -> Tensor:
        """`o i` to `o i 1 1` where published files hold a convolution; anything else as it is."""
        return tensor[:, :, None, None] if _is_linear(ours) and tensor.ndim == 2 else tensor


def _translate(name: str, *, source: int) -> str | None:
    """`name` from column `source` of the tables to the other column; None when no path begins it."""
    layers = {pair[source]: pair[1 - source] for pair in _LAYERS}
    for pair in _PATHS:
        match = re.match(re.escape(pair[source]).replace(r"\#", r"(\d+)") + r"\.", name)
        if match:
            numbers = iter(match.groups())
            path = re.sub("#", lambda _: next(numbers), pair[1 - source])  # noqa: B023  (used up at once)
            rest = [layers.get(word, word) for word in name[match.end() :].split(".")]
            return ".".join([path, *rest])
    return None


def _is_linear(ours: str) -> bool:
    return ours.endswith(".weight") and ours.split(".")[-2] in _LINEAR
