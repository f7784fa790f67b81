"""The text encoder: the published vectors through the published names, whichever layout open_clip's blocks use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.transformer import Transformer

from i2vgen_ms.encoder.text import OpenClipTextEncoder
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.weights.names_clip import TextEncoderLayout
from tests.encoder.conftest import TEXT
from tests.oracle import published, relative_error

TEXTS = ["", "A red panda, asleep in the snow; 4K!", "word " * 100]


def new(**changes: Any) -> OpenClipTextEncoder:
    return OpenClipTextEncoder(**{"text": TEXT, "activation": "gelu", "layer": "penultimate", **changes})


def build(state: dict[str, torch.Tensor], layer: str = "penultimate") -> OpenClipTextEncoder:
    with torch.device("meta"):
        ours = new(layer=layer)
    layout = TextEncoderLayout(layers=3, skipped=1 if layer == "penultimate" else 0)
    named = {layout.to_ours(name): tensor for name, tensor in state.items()}
    named.pop(None)
    ours.load_state_dict(named, strict=True, assign=True)
    return ours.eval()


@pytest.mark.parametrize("layer", ["penultimate", "last"])
def test_the_vectors_are_the_published(small, layer):
    theirs = published("video_to_video.modules.embedder").FrozenOpenCLIPEmbedder(
        pretrained=small.path, arch=small.arch, device="cpu", layer=layer
    )
    # it turns its tokens to `n b d`, which open_clip's blocks took until 2.24; turned back around them
    blocks = theirs.text_transformer_forward
    theirs.text_transformer_forward = lambda x, attn_mask: blocks(x.transpose(0, 1), attn_mask).transpose(0, 1)
    ours = build(small.state, layer)
    vectors = ours(TEXTS)
    assert vectors.shape == (3, 77, 32)
    assert relative_error(vectors, theirs(TEXTS)) <= 1e-5


def test_tokens_first_blocks_give_the_same(small):
    ours = build(small.state)
    expected = ours(TEXTS)
    other = Transformer(width=32, layers=2, heads=4, mlp_ratio=2.0, batch_first=False)
    other.load_state_dict(ours.transformer.state_dict())
    ours.transformer = other.eval()
    assert relative_error(ours(TEXTS), expected) <= 1e-6


def test_every_published_tensor_matters(small):
    ours = build(small.state)
    before = ours(TEXTS)
    layout = TextEncoderLayout(layers=3, skipped=1)
    parameters = dict(ours.named_parameters())
    for name in small.state:
        our_name = layout.to_ours(name)
        if our_name is None:
            continue
        parameter = parameters.pop(our_name)
        kept = parameter.clone()
        parameter.zero_()
        assert relative_error(ours(TEXTS), before) > 1e-6, name
        parameter.copy_(kept)
    assert not parameters, "parameters of ours that no published tensor fills"


def test_the_full_size_holds_what_is_run_only():
    text = {**TEXT, "width": 1024, "heads": 16, "layers": 24, "mlp_ratio": 4.0}
    with torch.device("meta"):
        ours = new(text=text)
    block = 12 * 1024**2 + 13 * 1024
    assert sum(p.numel() for p in ours.parameters()) == 49408 * 1024 + 77 * 1024 + 23 * block + 2 * 1024
    assert not list(ours.buffers())


def test_a_tower_that_was_not_on_meta_is_finite():
    assert torch.isfinite(new().eval()(["a cat"])).all()


def test_half_precision_follows_its_weights(small):
    half = build(small.state).to(torch.bfloat16)
    vectors = half(TEXTS)
    assert vectors.dtype == torch.bfloat16
    assert relative_error(vectors, build(small.state)(TEXTS)) < 0.05


def test_cut_words_are_named():
    ours = new()
    fit = ours.fit("A red panda")
    assert (fit.kept, fit.cut, fit.tokens, fit.limit) == (("A", "red", "panda"), (), 3, 75)
    words = [f"cat{'s' if i % 2 else ''}" for i in range(74)] + ["Unbelievable-Quokkas", "tail"]
    fit = ours.fit(" ".join(words))
    assert fit.cut == ("Unbelievable-Quokkas", "tail")
    assert fit.kept == tuple(words[:74])
    # exactly what the tokenizer kept: all tokens of the kept words, and none of a whole word that is called cut
    tokens = ours.tokenize([" ".join(words)])[0]
    whole = ours.tokenize([" ".join(fit.kept)])[0]
    assert torch.equal(tokens[: 1 + 74], whole[: 1 + 74])
    assert ours.fit("").cut == ()


def test_layout_round_trip_and_strangers(small):
    layout = TextEncoderLayout(layers=3, skipped=1)
    unused = {"text_projection", "logit_scale"}
    for name, tensor in small.state.items():
        ours = layout.to_ours(name)
        left_out = name.startswith(("visual.", "transformer.resblocks.2.")) or name in unused
        assert (ours is None) == left_out
        if ours is not None:
            assert layout.to_published(ours) == name
            assert layout.to_our_shape(ours, tensor) is tensor
            assert layout.to_published_shape(ours, tensor) is tensor
    # a block that the architecture does not have is not passed over
    assert layout.to_ours("transformer.resblocks.3.ln_1.weight") == "transformer.resblocks.3.ln_1.weight"
    with pytest.raises(KeyError):
        layout.to_published("visual.proj")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": {**TEXT, "heads": 5}}, "width over heads"),
        ({"text": {**TEXT, "vocab_size": 1000}}, "vocab_size is 1000"),
        ({"text": {**TEXT, "layers": 1}}, "no block to run"),
        ({"text": {**TEXT, "context_length": 2}}, "no room"),
        ({"text": {**TEXT, "depth": 2}}, "text.depth: unknown key"),
        ({"layer": "first"}, "last, penultimate"),
    ],
)
def test_numbers_that_do_not_fit(changes, words):
    with torch.device("meta"), pytest.raises(ConfigurationError, match=words):
        new(**changes)


@pytest.mark.parametrize("texts", ["one text", [], [3]])
def test_what_is_not_a_list_of_texts(small, texts):
    with pytest.raises(ArgumentError, match="list of texts"):
        build(small.state)(texts)
