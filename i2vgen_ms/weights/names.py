"""The ST-UNet's tensor names, ours and the published ones, both ways.

The published names count blocks through the whole network, so they depend on how many levels and blocks there are; the
layout is made for one architecture. The published file spells one name `temopral_conv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import Tensor

_LINEAR = {"weight": "weight", "bias": "bias"}


def _nested(pairs: dict[str, str], inner: dict[str, str] = _LINEAR) -> dict[str, str]:
    """Every our-prefix: published-prefix of `pairs`, extended by every pair of `inner`."""
    return {f"{o}.{a}": f"{p}.{b}" for o, p in pairs.items() for a, b in inner.items()}


_PERCEPTRON = _nested({"expand": "0", "project": "2"})
_RESIDUAL = _nested(
    {
        "norm_in": "in_layers.0",
        "conv_in": "in_layers.2",
        "embedding": "emb_layers.1",
        "norm_out": "out_layers.0",
        "conv_out": "out_layers.3",
        "skip": "skip_connection",
        **{f"temporal.norms.{i}": f"temopral_conv.conv{i + 1}.0" for i in range(4)},
        # published: the first of the four has no dropout, so its convolution is one place earlier.
        **{f"temporal.convolutions.{i}": f"temopral_conv.conv{i + 1}.{3 if i else 2}" for i in range(4)},
    }
)
_ATTENTION = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
_TRANSFORMER = _nested(
    {
        "norm": "norm",
        "project_in": "proj_in",
        "project_out": "proj_out",
        **{f"block.norm{i}": f"transformer_blocks.0.norm{i}" for i in (1, 2, 3)},
        **{
            f"block.attention{i}.{o}": f"transformer_blocks.0.attn{i}.{p}"
            for i in (1, 2)
            for o, p in _ATTENTION.items()
        },
        "block.feed_forward.project_in": "transformer_blocks.0.ff.net.0.proj",
        "block.feed_forward.project_out": "transformer_blocks.0.ff.net.2",
    }
)


def _rotary(repeats: int) -> dict[str, str]:
    parts = ("norm", "to_qkv", "to_out")
    return _nested({f"layers.{i}.{part}": f"att_layers.{i}.{part}" for i in range(repeats) for part in parts})


class StUNetLayout:
    """Names and shapes of the published ST-UNet files for one architecture.

    Args:
        levels: how many resolutions; residual_blocks: how many a level on the way down.
        attention_levels: the levels (0 finest) with attention.
        context: type name of the context builder (`image-vector`, `text`, `text-and-image`).
        rotary_repeats: 0 for transformer temporal blocks, else the rotary blocks' number of layers.
    """

    def __init__(
        self,
        *,
        levels: int,
        residual_blocks: int,
        attention_levels: Sequence[int],
        context: str,
        rotary_repeats: int = 0,
    ) -> None:
        self._levels, self._blocks, self._attention = levels, residual_blocks, tuple(attention_levels)
        self._temporal = _rotary(rotary_repeats) if rotary_repeats else _TRANSFORMER
        pairs = _nested({"time_embedding": "time_embed", "fps_embedding": "fps_embedding"}, _PERCEPTRON)
        vector = "context_embedding" if context == "image-vector" else "pre_image_condition"
        pairs |= _nested({"context.image": vector}, _PERCEPTRON)
        pairs |= {
            "temporal_shared.frequencies": "rotary_emb.freqs",
            "temporal_shared.bias.weight": "time_rel_pos_bias.relative_attention_bias.weight",
        }
        for part in self._down(), self._middle(), self._up():
            for ours, theirs, inner in part:
                pairs |= _nested({ours: theirs}, inner)
        self._to_published = pairs
        self._to_ours = {published: ours for ours, published in pairs.items()}

    def _stage(self, ours: str, published: str, level: int) -> Iterator[tuple[str, str, dict[str, str]]]:
        yield f"{ours}.residual", f"{published}.0", _RESIDUAL
        if level in self._attention:
            yield f"{ours}.spatial", f"{published}.1", _TRANSFORMER
            yield f"{ours}.temporal", f"{published}.2", self._temporal

    def _down(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        yield "stem", "input_blocks.0.0", _LINEAR
        yield "stem_temporal", "input_blocks.0.1", self._temporal
        position = 1
        for level in range(self._levels):
            for block in range(self._blocks):
                yield from self._stage(f"down.{level}.stages.{block}", f"input_blocks.{position}", level)
                position += 1
            if level < self._levels - 1:
                yield f"down.{level}.resample.convolution", f"input_blocks.{position}.op", _LINEAR
                position += 1

    def _middle(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        yield "middle_in.residual", "middle_block.0", _RESIDUAL
        yield "middle_in.spatial", "middle_block.1", _TRANSFORMER
        yield "middle_in.temporal", "middle_block.2", self._temporal
        yield "middle_out", "middle_block.3", _RESIDUAL

    def _up(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        position = 0
        for level in reversed(range(self._levels)):
            for block in range(self._blocks + 1):
                yield from self._stage(f"up.{level}.stages.{block}", f"output_blocks.{position}", level)
                position += 1
            if level:
                place = 3 if level in self._attention else 1
                yield f"up.{level}.resample.convolution", f"output_blocks.{position - 1}.{place}.conv", _LINEAR
        yield "head_norm", "out.0", _LINEAR
        yield "head", "out.2", _LINEAR

    def to_ours(self, published_name: str) -> str | None:
        """Our name of a published tensor; None for the copies of the shared rotary frequencies in each block."""
        if published_name.endswith(".rotary_emb.freqs"):
            return None
        # A name outside the architecture is passed on as it is, so that the strict comparison reports it.
        return self._to_ours.get(published_name, published_name)

    def to_published(self, our_name: str) -> str:
        return self._to_published.get(our_name, our_name)

    def to_our_shape(self, our_name: str, tensor: Tensor) -> Tensor:
        """A published tensor without the axes of length one that convolutions carry where ours is a matrix (a view)."""
        return tensor.flatten(-1 - self._carried(our_name)) if self._carried(our_name) else tensor

    def to_published_shape(self, our_name: str, tensor: Tensor) -> Tensor:
        """The inverse of `to_our_shape` (a view)."""
        return tensor.reshape(*tensor.shape, *[1] * self._carried(our_name))

    def _carried(self, our_name: str) -> int:
        """How many axes of length one the published tensor ends with, and ours does not."""
        if our_name.endswith(".skip.weight"):
            return 2
        if re.search(r"temporal\.(project_in|project_out|convolutions\.\d+)\.weight$", our_name):
            return 1
        return 0
