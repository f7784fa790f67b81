"""The picture encoder: the published vector through the published names, with either end of the open_clip releases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.encoder.image import OpenClipImageEncoder
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.weights.names_clip import ImageEncoderLayout
from tests.encoder.conftest import EMBED_DIM, VISION
from tests.oracle import published, relative_error

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def build(state: dict[str, torch.Tensor]) -> OpenClipImageEncoder:
    with torch.device("meta"):
        ours = new()
    named = {ImageEncoderLayout().to_ours(name): tensor for name, tensor in state.items()}
    named.pop(None)
    ours.load_state_dict(named, strict=True, assign=True)
    return ours.eval()


def new(**changes: Any) -> OpenClipImageEncoder:
    numbers = {"embed_dim": EMBED_DIM, "vision": VISION, "activation": "gelu", "mean": MEAN, "std": STD}
    return OpenClipImageEncoder(**{**numbers, **changes})


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_the_vector_is_the_published(small, picture):
    theirs = published("image_to_video.modules.embedder").FrozenOpenCLIPVisualEmbedder(
        pretrained=small.path, arch=small.arch, device="cpu", vit_resolution=(32, 32), layer="penultimate"
    )
    ours = build(small.state)
    pixels = torch.cat([ours.preprocess(picture), ours.preprocess(255 - picture)])
    vectors = ours(pixels)
    assert vectors.shape == (2, 1, EMBED_DIM)
    assert relative_error(vectors, theirs(pixels).unsqueeze(1)) <= 1e-5


def test_normalisation_is_the_published(small, picture):
    transforms = published("image_to_video.utils.transforms")
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=MEAN, std=STD)])
    assert torch.equal(new().preprocess(picture), steps(picture).unsqueeze(0))


def test_every_published_tensor_matters(small, picture):
    ours = build(small.state)
    pixels = ours.preprocess(picture)
    before = ours(pixels)
    parameters = dict(ours.named_parameters())
    for name in small.state:
        if not name.startswith("visual."):
            continue
        parameter = parameters.pop(ImageEncoderLayout().to_ours(name))
        kept = parameter.clone()
        parameter.zero_()
        assert relative_error(ours(pixels), before) > 1e-6, name
        parameter.copy_(kept)
    assert not parameters, "parameters of ours that no published tensor fills"


def test_null_is_zeros_like_the_vectors(small):
    ours = build(small.state).double()
    null = ours.null(3)
    assert null.shape == (3, 1, EMBED_DIM)
    assert null.dtype == torch.float64
    assert not null.any()


def test_the_full_size_holds_the_vision_tower_only():
    vision = {"image_size": 224, "patch_size": 14, "width": 1280, "layers": 32, "head_width": 80, "mlp_ratio": 4.0}
    with torch.device("meta"):
        ours = new(embed_dim=1024, vision=vision)
    assert sum(p.numel() for p in ours.parameters()) == 632_076_800
    assert not list(ours.buffers())


def test_quick_gelu_is_another_function(small, picture):
    ours, quick = build(small.state), new(activation="quick_gelu")
    quick.load_state_dict(ours.state_dict())
    pixels = ours.preprocess(picture)
    assert relative_error(quick.eval()(pixels), ours(pixels)) > 1e-4


def test_layout_round_trip_and_strangers(small):
    layout = ImageEncoderLayout()
    for name, tensor in small.state.items():
        ours = layout.to_ours(name)
        assert (ours is None) == (not name.startswith("visual."))
        if ours is not None:
            assert layout.to_published(ours) == name
            assert layout.to_our_shape(ours, tensor) is tensor
            assert layout.to_published_shape(ours, tensor) is tensor
    with pytest.raises(KeyError):
        layout.to_published("ln_final.weight")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision": {**VISION, "image_size": 33}}, "image_size over patch_size: 33"),
        ({"vision": {**VISION, "head_width": 24}}, "width over head_width"),
        ({"vision": {**VISION, "layer": 3}}, "vision.layer: unknown key; did you mean 'layers'"),
        ({"vision": {k: v for k, v in VISION.items() if k != "width"}}, "lacks width"),
        ({"vision": {**VISION, "layers": 0}}, "layers is 0"),
        ({"vision": {**VISION, "width": 64.0}}, "width is 64.0; it has to be a positive whole number"),
        ({"vision": {**VISION, "mlp_ratio": "4"}}, "mlp_ratio is '4'; it has to be a positive number"),
        ({"activation": "gelo"}, "did you mean 'gelu'"),
        ({"std": [1.0, 0.0, 1.0]}, "std positive"),
        ({"mean": [0.5]}, "three colours"),
    ],
)
def test_numbers_that_do_not_fit(changes, words):
    with torch.device("meta"), pytest.raises(ConfigurationError, match=words):
        new(**changes)


def test_pictures_that_do_not_fit(picture):
    ours = new()
    with pytest.raises(ArgumentError, match=r"\(32, 31, 3\)"):
        ours.preprocess(picture[:, :31])
    with pytest.raises(ArgumentError, match="float64"):
        ours.preprocess(picture / 255)
    with pytest.raises(ArgumentError, match="b 3 32 32"):
        ours(torch.zeros(3, 32, 32))
