"""Captions as token numbers, quickly: a word that was seen before is not cut up again.

It gives what the text encoder's own `tokenize` gives. Knows nothing of networks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from i2vgen_ms.encoder.text import OpenClipTextEncoder, tokenizer

# Words of these alone are cut up each for itself; anything else goes to the tokenizer whole.
_PLAIN = re.compile(r"[A-Za-z ,.]*")


def tokens(encoder: OpenClipTextEncoder, captions: Sequence[str]) -> Tensor:
    """Token numbers `b n` of captions, int64, on the CPU."""
    rows = torch.zeros(len(captions), encoder.context_length, dtype=torch.long)
    for row, caption in zip(rows, captions, strict=True):
        if _PLAIN.fullmatch(caption):
            numbers = [number for word in caption.split() for number in _word(word)]
            kept = [_start(), *numbers[: encoder.context_length - 2], _end()]
            row[: len(kept)] = torch.tensor(kept)
        else:
            row[:] = encoder.tokenize([caption])[0]
    return rows


@lru_cache(maxsize=65536)
def _word(word: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(word))


def _start() -> int:
    return int(tokenizer().sot_token_id)


def _end() -> int:
    return int(tokenizer().eot_token_id)
