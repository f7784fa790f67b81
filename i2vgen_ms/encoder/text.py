"""The text encoder: OpenCLIP's text tower up to the layer that diffusion models read, one vector a token.

It is given the numbers of the architecture and texts. It knows nothing of files, of prompts' suffixes, or of the
network that attends to the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import torch
from open_clip import SimpleTokenizer
from open_clip.transformer import LayerNorm, Transformer
from torch import Tensor, nn

from i2vgen_ms.encoder.clip import Numbers, TextNumbers, activation_class, check_multiple, read_numbers
from i2vgen_ms.errors import ArgumentError, ConfigurationError

# how many blocks at the end are not run; they are not built either
SKIPPED_BLOCKS = {"last": 0, "penultimate": 1}


@dataclass(frozen=True)
class Fit:
    """How much of a text the encoder takes in: its words, split where the encoder can no longer read them whole."""

    kept: tuple[str, ...]
    cut: tuple[str, ...]
    tokens: int
    """Of the whole text."""
    limit: int
    """The most tokens a text may have; the marks of begin and end are not counted."""


class OpenClipTextEncoder(nn.Module):
    """The text half of CLIP (Radford et al. 2021), without the vision half and the projection.

    Args:
        text: the numbers of `TextNumbers`, by name. activation: `gelu` or `quick_gelu`.
        layer: the block after which the final norm reads, `penultimate` (Stable Diffusion 2) or `last`.
    Raises: ConfigurationError when the numbers do not fit together.
    """

    def __init__(self, *, text: Numbers, activation: str, layer: Literal["penultimate", "last"]) -> None:
        super().__init__()
        numbers = read_numbers(TextNumbers, text, name="encoder.text")
        check_multiple(numbers.width, numbers.heads, "encoder.text: width over heads")
        if layer not in SKIPPED_BLOCKS:
            raise ConfigurationError(f"encoder.layer {layer!r} is unknown; it is one of {', '.join(SKIPPED_BLOCKS)}")
        blocks = numbers.layers - SKIPPED_BLOCKS[layer]
        if blocks < 1 or numbers.context_length < 3:
            raise ConfigurationError(
                f"encoder.text: layers {numbers.layers} leave no block to run for the layer {layer!r}, or "
                f"context_length {numbers.context_length} has no room for a token between its two marks"
            )
        words = tokenizer().vocab_size
        if numbers.vocab_size < words:
            raise ConfigurationError(
                f"encoder.text.vocab_size is {numbers.vocab_size}, but the tokenizer has {words} tokens"
            )
        self.context_length = numbers.context_length
        self.token_embedding = nn.Embedding(numbers.vocab_size, numbers.width)
        self.positional_embedding = nn.Parameter(torch.empty(numbers.context_length, numbers.width).normal_(std=0.01))
        self.transformer = Transformer(
            width=numbers.width,
            layers=blocks,
            heads=numbers.heads,
            mlp_ratio=numbers.mlp_ratio,
            act_layer=activation_class(activation),
            norm_layer=LayerNorm,
        )
        self.ln_final = LayerNorm(numbers.width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Vectors `b n d` of b texts, n = context_length. Words beyond it are cut; `fit` says which.

        Raises: ArgumentError when it is not a list of texts.
        """
        return self.embed(self.tokenize(texts).to(self.positional_embedding.device))

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors `b n d` of token numbers `b n` (as `tokenize` gives them), on the encoder's device."""
        x = self.token_embedding(tokens) + self.positional_embedding
        # made here and not kept, so that a tower built on the meta device has nothing that no file fills
        causal = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        return self.ln_final(self.transformer(x, attn_mask=causal))

    def blocks(self) -> Iterable[nn.Module]:
        """The modules that hold almost all weights, in the order in which `forward` runs them."""
        return self.transformer.resblocks

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token numbers `b n` of b texts, int64, on the CPU.

        Raises: ArgumentError when it is not a list of texts.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not texts:
            raise ArgumentError(f"the text encoder takes a list of texts, not {texts!r}")
        return tokenizer()(list(texts), context_length=self.context_length)

    def fit(self, text: str) -> Fit:
        """Which words of `text` the encoder takes in, and which it would cut because there is no room for them."""
        limit = self.context_length - 2
        encode = tokenizer().encode
        tokens = len(encode(text))
        words = text.split()
        ends = list(accumulate(len(encode(word)) for word in words))
        kept = sum(end <= limit for end in ends)
        return Fit(kept=tuple(words[:kept]), cut=tuple(words[kept:]), tokens=tokens, limit=limit)


@lru_cache(maxsize=1)
def tokenizer() -> SimpleTokenizer:
    """CLIP's byte pair tokenizer, with the vocabulary that open_clip ships."""
    return SimpleTokenizer()
