"""Captions as token numbers, as the text encoder itself makes them."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.training import networks
from i2vgen_ms.training.words import tokens
from i2vgen_ms.world.scene import draw
from tests.training import small


@pytest.fixture(scope="module")
def encoder():
    return networks.fresh(small.configuration("video-to-video"), "encoder", 0)


def test_captions_become_the_numbers_that_the_encoder_makes_of_them(encoder) -> None:
    captions = [draw(0, index).caption for index in range(50)]
    captions += ["", "  two   spaces ", "It's 3 o'clock & raining", "Zürich, naïve", "a " * 200, "comma, stop. END"]
    assert torch.equal(tokens(encoder, captions), encoder.tokenize(captions))


def test_the_encoder_reads_numbers_as_it_reads_words(encoder) -> None:
    captions = ["a red arrow", "a blue star moving up"]
    assert torch.equal(encoder.embed(tokens(encoder, captions)), encoder(captions))
