"""The spatio-temporal UNet of I2VGen-XL, ModelScopeT2V and their family, as one network with switches.

It is given noisy latents, a timestep and conditions, and returns the model output (noise, velocity or clean latents:
that is the schedule's business). It knows nothing of prompts, pictures, samplers or weight files. Wang et al. 2023,
"ModelScope text-to-video technical report"; Zhang et al. 2023, "I2VGen-XL".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.st_unet.context import Context, Prepared, rows
from i2vgen_ms.st_unet.embedding import NumberEmbedding
from i2vgen_ms.st_unet.level import Level, Stage
from i2vgen_ms.st_unet.passage import Passage
from i2vgen_ms.st_unet.resample import Downsample, Upsample
from i2vgen_ms.st_unet.residual import RESIDUAL_NORM_EPS, ResidualBlock
from i2vgen_ms.st_unet.temporal import TemporalChoice
from i2vgen_ms.st_unet.transformer import SpatialTransformer
from i2vgen_ms.tensors.layers import GroupNorm, SpatialConvolution
from i2vgen_ms.tensors.ops import Ops


class SpatioTemporalUNet(nn.Module):
    """Latents, timestep and conditions to the model output.

    Args:
        latent_channels: channels of the noisy latents.
        extra_channels: channels of further inputs put beside the latents (0: none).
        out_channels: channels of the output.
        channels: width of the finest level; `multipliers` gives each level's width in multiples of it.
        residual_blocks: residual blocks a level on the way down (one more on the way up).
        head_channels: channels of an attention head; `stem_heads` are the heads of the first temporal block.
        attention_levels: levels (0 is the finest) that have attention; the middle always has.
        context_channels: width of the context tokens.
        norm_groups: groups of every group norm.
        dropout: dropout of the residual blocks in training.
        vertical_padding: (rows, columns) of padding of the halving convolutions; rows beyond 1 are cropped again after
            doubling. (1, 1), or (2, 1) in the 720p networks.
        fps_embedding: whether the frame rate is a condition.
        context: makes the context builder of context.py from (context_channels, embedding_channels).
        temporal: makes the temporal blocks of temporal.py.
        ops: the operations table.
    """

    # Arguments of which `forward` takes several for each item.
    per_condition = ("text", "image")

    def __init__(
        self,
        *,
        latent_channels: int,
        extra_channels: int,
        out_channels: int,
        channels: int,
        multipliers: Sequence[int],
        residual_blocks: int,
        head_channels: int,
        stem_heads: int,
        attention_levels: Sequence[int],
        context_channels: int,
        norm_groups: int,
        dropout: float,
        vertical_padding: Sequence[int],
        fps_embedding: bool,
        context: Callable[..., nn.Module],
        temporal: TemporalChoice,
        ops: Ops,
    ) -> None:
        super().__init__()
        embedding = 4 * channels
        widths = [channels * multiplier for multiplier in multipliers]
        levels = range(len(widths))
        padding = (vertical_padding[0], vertical_padding[1])
        self.latent_channels, self.extra_channels, self.out_channels = latent_channels, extra_channels, out_channels
        self.level_count, self.padding, self.ops = len(widths), padding, ops
        self.shelf: Callable[[], Any] = list
        """Makes where skips wait: what has `append`, `pop` and `[-1]` as a list has."""

        def temporal_block(width: int, heads: int) -> nn.Module:
            return temporal.block(
                channels=width,
                heads=stem_heads if temporal.fixed_heads else heads,
                head_channels=head_channels,
                norm_groups=norm_groups,
                ops=ops,
            )

        def residual(in_width: int, out_width: int) -> ResidualBlock:
            return ResidualBlock(
                in_width,
                out_width,
                embedding_channels=embedding,
                norm_groups=norm_groups,
                dropout=dropout,
                ops=ops,
            )

        def spatial(width: int) -> SpatialTransformer:
            return SpatialTransformer(
                width,
                context_channels=context_channels,
                heads=width // head_channels,
                head_channels=head_channels,
                norm_groups=norm_groups,
                ops=ops,
            )

        def stage(in_width: int, level: int) -> Stage:
            width = widths[level]
            if level not in attention_levels:
                return Stage(residual(in_width, width), None, None)
            return Stage(residual(in_width, width), spatial(width), temporal_block(width, width // head_channels))

        self.time_embedding = NumberEmbedding(channels, embedding)
        self.fps_embedding = NumberEmbedding(channels, embedding) if fps_embedding else None
        self.context = context(context_channels=context_channels, embedding_channels=embedding)
        self.temporal_shared = temporal.shared_part(heads=stem_heads, head_channels=head_channels)

        self.stem = SpatialConvolution(latent_channels + extra_channels, channels, ops=ops)
        self.stem_temporal = temporal_block(channels, stem_heads)
        skips = [channels]
        self.down = nn.ModuleList()
        width = channels
        for level in levels:
            stages = []
            for _ in range(residual_blocks):
                stages.append(stage(width, level))
                width = widths[level]
                skips.append(width)
            last = level == len(widths) - 1
            if not last:
                skips.append(width)
            self.down.append(Level(stages, None if last else Downsample(width, padding=padding, ops=ops)))

        self.middle_in = Stage(residual(width, width), spatial(width), temporal_block(width, width // head_channels))
        self.middle_out = residual(width, width)

        up: list[nn.Module] = []
        for level in reversed(levels):
            stages = []
            for _ in range(residual_blocks + 1):
                stages.append(stage(width + skips.pop(), level))
                width = widths[level]
            up.append(Level(stages, Upsample(width, crop=padding[0] - 1, ops=ops) if level else None))
        self.up = nn.ModuleList(reversed(up))  # up[level] is the way up on that level

        self.head_norm = GroupNorm(width, groups=norm_groups, eps=RESIDUAL_NORM_EPS, per_frame=True, ops=ops)
        self.head = SpatialConvolution(width, out_channels, ops=ops)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights, which the activations have too."""
        return self.stem.weight.dtype

    def blocks(self) -> Iterator[nn.Module]:
        """The modules that hold almost all weights, in the order in which `forward` runs them."""
        yield from self.descent()
        yield self.middle_out
        for level in cast(Iterable[Level], reversed(self.up)):
            yield from level.stages
            if level.resample is not None:
                yield level.resample

    def activation_bytes(self, latents: tuple[int, int, int, int, int], conditions: int = 1) -> int:
        """An estimate of what `forward` needs beside the weights for latents `b c f h w` of so many conditions."""
        b, _, f, h, w = latents
        activation = b * f * h * w * self.head_norm.weight.shape[0] * self.dtype.itemsize
        if not self._apart(b * f * h * w, conditions):
            return self.ops.activation_bytes(conditions * activation, self.dtype.itemsize)
        # What they share waits for the others: an activation, and the tokens made of it.
        return self.ops.activation_bytes(activation, self.dtype.itemsize) + 2 * activation

    def takes(self, height: int, width: int) -> bool:
        """Whether latents of this size pass the levels and meet their skips at equal size."""
        rows, columns = self.padding
        for _ in range(self.level_count - 1):
            halved = (height + 2 * rows - 3) // 2 + 1, (width + 2 * columns - 3) // 2 + 1
            if (2 * halved[0] - 2 * (rows - 1), 2 * halved[1]) != (height, width):
                return False
            height, width = halved
        return True

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        text: Tensor | None = None,
        image: Tensor | None = None,
        fps: Tensor | None = None,
        extra: Tensor | None = None,
        prepared: Prepared | None = None,
        skip_temporal: bool = False,
    ) -> Tensor:
        """The model output for noisy latents.

        Args:
            x: noisy latents `b c f h w`.
            t: timesteps `b`, whole or not.
            text: text tokens `(g b) n d`; image: an image vector `(g b) 1 d`; which of them is needed is the context
                builder's choice. With g > 1 each item is seen under g conditions, the b items under the first of them
                first; what comes before the first look at the context is computed once for all of them.
            fps: frame rates `b`, needed if the network is conditioned on them.
            extra: further inputs `b e f h w`, needed if `extra_channels` > 0.
            prepared: what `prepare` made, in place of text, image and fps.
            skip_temporal: leave out everything that mixes frames (training on single images).
        Returns: `(g b) out f h w` in the dtype of x.
        Raises: ArgumentError for a missing condition or a size that the levels cannot halve and double.
        """
        if prepared is None:
            prepared = Prepared(*self._conditions(text, image, fps))
        rate, context = prepared
        self._check(x, extra, prepared.items)
        groups = prepared.items // len(x)
        apart = self._apart(x[:, 0].numel(), groups)
        embedding = self._embedding(t, rate, 1 if apart else groups)
        shared = self.temporal_shared(x.shape[2]) if self.temporal_shared is not None else None

        inputs = x if extra is None else torch.cat([x, extra.to(x)], dim=1)
        y = self.stem(rearrange(inputs.to(self.dtype), "b c f h w -> b f h w c").contiguous())
        if not skip_temporal:
            y = self.stem_temporal(y, shared)

        begun = [y]  # which is emptied, so that nothing keeps y
        del y
        passage = Passage(self, embedding, shared, skip_temporal)
        out = passage.apart(begun, rows(context, len(x))) if apart else passage.together(begun, context)
        return rearrange(out, "b f h w c -> b c f h w").to(x.dtype)

    def descent(self) -> Iterator[nn.Module]:
        """The stages and halvings, in the order in which `forward` runs them on the way down, and the lowest stage."""
        for level in cast(Iterable[Level], self.down):
            yield from level.stages
            if level.resample is not None:
                yield level.resample
        yield self.middle_in

    def prepare(
        self, *, text: Tensor | None = None, image: Tensor | None = None, fps: Tensor | None = None, **others: Any
    ) -> dict[str, Any]:
        """Arguments of `forward` in place of these, for the many steps of a video: what does not change is kept.

        That is the context, the frame rate's embedding, and each cross-attention's keys and values, computed in the
        first forward, as streamed weights need. At full size in fp16 they take 8 MB for both branches' 77 text tokens.
        """
        rate, context = self._conditions(text, image, fps)
        return {"prepared": Prepared(rate, Context(context)), **others}

    def _apart(self, places: int, conditions: int) -> bool:
        """Whether the conditions of latents of so many places are worked on one after the other."""
        return conditions > 1 and places > self.ops.together

    def _conditions(
        self, text: Tensor | None, image: Tensor | None, fps: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """The embedding `b e` of the frame rate, and the context `(g b) n d`."""
        if self.fps_embedding is not None and fps is None:
            raise ArgumentError("this network is conditioned on the frame rate: give fps")
        tokens = self.context(*(None if one is None else one.to(self.dtype) for one in (text, image)))
        return None if self.fps_embedding is None else self.fps_embedding(fps), tokens

    def _embedding(self, t: Tensor, rate: Tensor | None, groups: int) -> Tensor:
        """Of time and frame rate, `(g b) e`, past the SiLU that every residual block begins with."""
        embedding = self.time_embedding(t)
        return F.silu(embedding if rate is None else embedding + rate).repeat(groups, 1)

    def _check(self, x: Tensor, extra: Tensor | None, items: int) -> None:
        if x.ndim != 5 or x.shape[1] != self.latent_channels:
            raise ArgumentError(f"latents must be b {self.latent_channels} f h w, not {tuple(x.shape)}")
        if items % len(x):
            raise ArgumentError(f"a batch of {len(x)} needs as many conditions, or a multiple, not {items}")
        if (extra is None) != (self.extra_channels == 0):
            have = "none" if extra is None else tuple(extra.shape)
            raise ArgumentError(f"this network takes {self.extra_channels} extra input channels; given: {have}")
        if not self.takes(*x.shape[3:]):
            raise ArgumentError(
                f"latents of {x.shape[3]}x{x.shape[4]} (rows x columns) cannot be halved {self.level_count - 1} times; "
                "pad them to a size that does (see runtime.sizes)"
            )
