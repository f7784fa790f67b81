"""The autoencoder: the published results through the published names, every tensor of use."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from i2vgen_ms.autoencoder.kl import AutoencoderKL
from i2vgen_ms.autoencoder.posterior import Posterior
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights.names_autoencoder import AutoencoderLayout
from tests.autoencoder.small import NUMBERS, PUBLISHED, build, build_published, frames_first, normal, translated
from tests.oracle import published, relative_error


def test_encode_is_the_published(theirs, ours):
    pixels = normal(2, 3, 24, 40, 3).clamp(-1, 1)
    noise = normal(2, 3, 6, 10, 3, seed=1)
    expected = theirs.encode(frames_first(pixels))
    posterior = ours.encode(pixels)
    assert posterior.mean.shape == (2, 3, 6, 10, 3)
    assert relative_error(frames_first(posterior.mean), expected.mean) <= 1e-5
    assert relative_error(frames_first(posterior.logvar), expected.logvar) <= 1e-5
    sample = 0.18215 * (expected.mean + expected.std * frames_first(noise))
    assert relative_error(frames_first(posterior.sample(noise)), sample) <= 1e-5
    assert relative_error(frames_first(posterior.mode()), 0.18215 * expected.mode()) <= 1e-5


@pytest.mark.parametrize("attend", [attention.sdpa, attention.math])
def test_decode_is_the_published(theirs, attend):
    ours = build(theirs, ops=Ops(attention=attend))
    latents = normal(2, 3, 6, 10, 3)
    expected = theirs.decode(frames_first(1.0 / 0.18215 * latents))
    pixels = ours.decode_all(latents)
    assert pixels.shape == (2, 3, 24, 40, 3)
    assert relative_error(frames_first(pixels), expected) <= 1e-5


def test_logvar_is_cut_as_published():
    module = published("image_to_video.modules.autoencoder")
    moments = 40 * normal(1, 2, 3, 4, 6)
    expected = module.DiagonalGaussianDistribution(frames_first(moments))
    posterior = Posterior.from_moments(moments, scale=1.0)
    assert float(posterior.logvar.min()) == -30.0
    assert float(posterior.logvar.max()) == 20.0
    assert torch.equal(frames_first(posterior.logvar), expected.logvar)


def test_every_published_tensor_matters():
    """Zeroing one changes encoding or decoding, except the keys' bias, which softmax cancels."""
    theirs = build_published(seed=3)
    ours = build(theirs)
    pixels, latents = normal(1, 1, 8, 8, 3), normal(1, 1, 2, 2, 3)

    def both() -> Tensor:
        posterior = ours.encode(pixels)
        return torch.cat([t.flatten() for t in (posterior.mean, posterior.logvar, ours.decode_all(latents))])

    before = both()
    parameters = dict(ours.named_parameters())
    same = []
    for name in theirs.state_dict():
        our_name = AutoencoderLayout().to_ours("first_stage_model." + name)
        parameter = parameters.pop(our_name)
        kept = parameter.clone()
        parameter.zero_()
        if relative_error(both(), before) < 1e-6:
            same.append(name)
        parameter.copy_(kept)
    assert not parameters, "parameters of ours that no published tensor fills"
    assert sorted(same) == ["decoder.mid.attn_1.k.bias", "encoder.mid.attn_1.k.bias"]


def test_layout_round_trip_and_strangers(theirs):
    layout = AutoencoderLayout()
    for name, tensor in theirs.state_dict().items():
        ours = layout.to_ours(name)
        assert ours == layout.to_ours("first_stage_model." + name)
        assert ours is not None
        assert layout.to_published(ours) == "first_stage_model." + name
        shaped = layout.to_our_shape(ours, tensor)
        assert shaped.data_ptr() == tensor.data_ptr()
        assert torch.equal(layout.to_published_shape(ours, shaped), tensor)
        assert layout.to_published_shape(ours, shaped).shape == tensor.shape
    for name in (
        "model.diffusion_model.input_blocks.0.0.weight",
        "cond_stage_model.model.ln_final.weight",
        "model_ema.decay",
        "loss.logvar",
        "betas",
    ):
        assert layout.to_ours(name) is None
    strangers = ("first_stage_model.decoder.down.0.block.0.conv1.weight", "encoder.mid.attn.q.weight")
    for name in strangers:
        assert layout.to_ours(name) == name
    with pytest.raises(KeyError):
        layout.to_published("encoder.nothing.weight")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"multipliers": []}, "multipliers"),
        ({"channels": 48}, "norm_groups"),
        ({"scale_factor": 0.0}, "scale_factor"),
        ({"chunk_bytes": 0}, "chunk_bytes"),
        ({"residual_blocks": 0}, "residual_blocks"),
    ],
)
def test_numbers_that_do_not_fit(changes, words):
    with torch.device("meta"), pytest.raises(ConfigurationError, match=words):
        AutoencoderKL(**{**NUMBERS, **changes}, ops=Ops())


def test_shapes_that_do_not_fit(ours):
    with pytest.raises(ArgumentError, match="multiples of 4"):
        ours.encode(torch.zeros(1, 1, 10, 8, 3))
    with pytest.raises(ArgumentError, match=r"3 channels"):
        ours.encode(torch.zeros(1, 3, 1, 8, 8))
    with pytest.raises(ArgumentError, match=r"latents have the shape \(1, 0, 2, 2, 3\)"):
        ours.decode(torch.zeros(1, 0, 2, 2, 3))
    with pytest.raises(ArgumentError, match="noise has the shape"):
        ours.encode(torch.zeros(1, 1, 8, 8, 3)).sample(torch.zeros(1, 1, 3, 3, 3))


def test_the_published_size_has_the_published_tensors():
    ddconfig = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    with torch.device("meta"):
        theirs = published("image_to_video.modules.autoencoder").AutoencoderKL(ddconfig=ddconfig, embed_dim=4)
        ours = AutoencoderKL(**PUBLISHED, ops=Ops())
    expected = {name: tensor.shape for name, tensor in translated(theirs.state_dict()).items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    assert len(expected) == 248
