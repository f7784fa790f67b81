"""Rows about the text that the second stage is given."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from i2vgen_ms.pipelines import ClipWarning, VideoToVideo
from tests.oracle import published

CALL: dict[str, Any] = {"steps": 1, "output_type": "pt", "progress": False}
ROOM = 75  # tokens between the marks of begin and end; each of the words here is one


@contextmanager
def texts_of(pipe: VideoToVideo) -> Iterator[list[tuple[list[str], bool, torch.Tensor]]]:
    """What the encoder is given meanwhile, whether gradients are recorded then, and its vectors."""
    seen: list[tuple[list[str], bool, torch.Tensor]] = []
    hook = pipe.networks.encoder.register_forward_hook(
        lambda module, args, vectors: seen.append((list(args[0]), torch.is_grad_enabled(), vectors))
    )
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("text", "given", "suffix", "negative"),
    [
        ("a boat", {}, True, True),
        ("", {}, True, True),
        ("a boat", {"prompt_suffix": ""}, False, True),
        ("a boat", {"negative_prompt": "dull"}, True, False),
    ],
)
def test_b35_the_published_words_are_added_unless_told_otherwise(
    second: VideoToVideo, clip: np.ndarray, text: str, given: dict[str, str], suffix: bool, negative: bool
) -> None:
    """B35: 64 of the 75 tokens are a suffix that nobody asked for. It is kept, and `prompt_suffix` takes it away."""
    theirs = published("video_to_video.utils.config").cfg
    with texts_of(second) as seen:
        second({"video_path": clip, "text": text}, **CALL, **given)
    ((texts, _, _),) = seen
    assert texts == [text + theirs.positive_prompt * suffix, theirs.negative_prompt if negative else "dull"]


def test_b35_no_gradients_are_recorded(second: VideoToVideo, clip: np.ndarray) -> None:
    """B35: the published text tower runs with gradients, which keeps its activations alive."""
    assert torch.is_grad_enabled()
    with texts_of(second) as seen:
        video = second(clip, text="a boat", **CALL).tensor
    ((_, recorded, vectors),) = seen
    assert not recorded
    assert not vectors.requires_grad
    assert not video.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("words", "cut"),
    [
        (11, ""),
        (12, ""),  # of the suffix alone
        (ROOM, ""),
        (ROOM + 1, "zeppelin"),
        (ROOM + 3, "boat boat zeppelin"),
    ],
)
@pytest.mark.parametrize("given", [{}, {"prompt_suffix": ""}])
def test_b35_words_are_cut_where_the_published_are_and_named(
    second: VideoToVideo, clip: np.ndarray, words: int, cut: str, given: dict[str, str]
) -> None:
    """B35: what is longer than 77 tokens is cut in silence. The same tokens are kept; the caller's lost words named."""
    text = " ".join(["boat"] * (words - 1) + ["zeppelin"])
    with warnings.catch_warnings(record=True) as caught, texts_of(second) as seen:
        warnings.simplefilter("always")
        second(clip, text=text, **CALL, **given)
    texts = seen[0][0]
    assert torch.equal(second.networks.encoder.tokenize(texts), open_clip.tokenize(texts))
    assert [str(warning.message).split("'")[1] for warning in caught] == ([cut] if cut else [])
    assert all(warning.category is ClipWarning for warning in caught)
