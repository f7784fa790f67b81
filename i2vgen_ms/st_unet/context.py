"""The context: what the cross-attention layers look at, `b n d`, made from what the encoders gave.

Builders have one signature: `(text: b n d | None, image: b 1 d | None) -> b n d`. They know nothing of the encoders.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.errors import ArgumentError


class Looking(Protocol):
    """A layer that looks at the context, and says which keys and values it makes of it."""

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]: ...


class Context:
    """Tokens `b n d` that stay the same for a whole video, with what each layer makes of them.

    That is computed when the layer first runs, wherever its weights are then, and kept as long as this object.
    """

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self._made: dict[Looking, tuple[Tensor, Tensor]] = {}

    def of(self, layer: Looking) -> tuple[Tensor, Tensor]:
        """The layer's keys and values of the tokens."""
        if layer not in self._made:
            self._made[layer] = layer.keys_values(self.tokens)
        return self._made[layer]


class _Rows(Context):
    """Some of the tokens, whose keys and values are a part of what is made of all."""

    def __init__(self, whole: Context, part: slice) -> None:
        super().__init__(whole.tokens[part])
        self._whole, self._part = whole, part

    def of(self, layer: Looking) -> tuple[Tensor, Tensor]:
        keys, values = self._whole.of(layer)
        return keys[self._part], values[self._part]


def rows(context: Tensor | Context, count: int) -> list[Context]:
    """The context, so many rows at a time; keys and values are made of all, whose bits can depend on how many."""
    whole = context if isinstance(context, Context) else Context(context)
    return [_Rows(whole, slice(start, start + count)) for start in range(0, len(whole.tokens), count)]


class Prepared(NamedTuple):
    """What a network is told beside latents and time: the embedding `b e` of the frame rate, and the context."""

    rate: Tensor | None
    context: Tensor | Context

    @property
    def items(self) -> int:
        """How many conditions there are."""
        return len(self.context.tokens if isinstance(self.context, Context) else self.context)


def _required(value: Tensor | None, what: str) -> Tensor:
    if value is None:
        raise ArgumentError(f"this network needs {what} as its condition, and none was given")
    return value


class VectorTokens(nn.Module):
    """One vector `b 1 in` as `b tokens out`: Linear, SiLU, Linear."""

    def __init__(self, in_channels: int, hidden_channels: int, tokens: int, channels: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.expand = nn.Linear(in_channels, hidden_channels)
        self.project = nn.Linear(hidden_channels, tokens * channels)

    def forward(self, vector: Tensor) -> Tensor:
        flat = self.project(F.silu(self.expand(vector)))
        return flat.reshape(vector.shape[0], self.tokens, -1)


class TextContext(nn.Module):
    """Text tokens as they are (text-to-video, video-to-video)."""

    def __init__(self, *, context_channels: int, embedding_channels: int) -> None:
        super().__init__()

    def forward(self, text: Tensor | None, image: Tensor | None) -> Tensor:
        return _required(text, "text tokens (b n d)")


class ImageVectorContext(nn.Module):
    """An image vector as a few tokens (image-to-video)."""

    def __init__(self, *, in_channels: int, tokens: int, context_channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.image = VectorTokens(in_channels, embedding_channels, tokens, context_channels)

    def forward(self, text: Tensor | None, image: Tensor | None) -> Tensor:
        return self.image(_required(image, "an image vector (b 1 d)"))


class TextAndImageContext(nn.Module):
    """Text tokens followed by an image vector's tokens (VideoComposer, TF-T2V)."""

    def __init__(
        self, *, in_channels: int, hidden_channels: int, tokens: int, context_channels: int, embedding_channels: int
    ) -> None:
        super().__init__()
        self.image = VectorTokens(in_channels, hidden_channels, tokens, context_channels)

    def forward(self, text: Tensor | None, image: Tensor | None) -> Tensor:
        tokens = self.image(_required(image, "an image vector (b 1 d)"))
        return torch.cat([_required(text, "text tokens (b n d)"), tokens], dim=1)
