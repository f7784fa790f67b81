"""The autoencoder: the published results through the published names, any number of frames, a byte budget kept."""

from __future__ import annotations

import copy
import math
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from i2vgen_ms.autoencoder.kl import AutoencoderKL
from i2vgen_ms.autoencoder.posterior import Posterior
from i2vgen_ms.errors import ArgumentError, ConfigurationError
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights.names_autoencoder import AutoencoderLayout
from tests.oracle import published, randomise, relative_error

NUMBERS: dict[str, Any] = {
    "channels": 64,
    "multipliers": [1, 2, 2],
    "residual_blocks": 1,
    "in_channels": 3,
    "latent_channels": 4,
    "embed_channels": 3,
    "norm_groups": 32,
    "scale_factor": 0.18215,
    "chunk_bytes": 1 << 30,
}


def build_published(seed: int = 0) -> torch.nn.Module:
    module = published("image_to_video.modules.autoencoder")
    ddconfig = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 64,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return randomise(module.AutoencoderKL(ddconfig=ddconfig, embed_dim=3), seed)


def translated(state: dict[str, Tensor], prefix: str = "first_stage_model.") -> dict[str, Tensor]:
    layout = AutoencoderLayout()
    result = {}
    for name, tensor in state.items():
        ours = layout.to_ours(prefix + name)
        assert ours is not None
        result[ours] = layout.to_our_shape(ours, tensor)
    return result


def build(theirs: torch.nn.Module, ops: Ops | None = None, **changes: Any) -> AutoencoderKL:
    with torch.device("meta"):
        ours = AutoencoderKL(**{**NUMBERS, **changes}, ops=ops or Ops())
    ours.load_state_dict(translated(theirs.state_dict()), strict=True, assign=True)
    return ours.eval()


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    return build_published()


@pytest.fixture(scope="module")
def ours(theirs: torch.nn.Module) -> AutoencoderKL:
    return build(theirs)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frames_first(x: Tensor) -> Tensor:
    return x.flatten(0, 1).permute(0, 3, 1, 2)


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


@pytest.mark.parametrize("frames", [1, 3, 15, 20, 33])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_any_number_of_frames_in_any_chunks(ours, frames, dtype, bound):
    """Chunks change no more than the order of additions: nothing in float64."""
    ours, batch = copy.deepcopy(ours).to(dtype), 2 if frames in (3, 20) else 1
    latents = normal(batch, frames, 2, 3, 3).to(dtype)
    whole = ours.decode_all(latents)
    encoded = ours.encode(whole)
    for per_chunk in (1, 8):
        ours.chunk_bytes = per_chunk * (ours.decoder.peak_values + 6) * (8 * 12) * dtype.itemsize
        chunks = list(ours.decode(latents))
        assert all(chunk.shape[0] == batch for chunk in chunks)
        assert len(chunks) == math.ceil(frames / max(1, per_chunk // batch))
        assert relative_error(torch.cat(chunks, dim=1), whole) <= bound
        again = ours.encode(whole)
        assert again.mean.shape == encoded.mean.shape
        assert relative_error(again.mean, encoded.mean) <= bound
        assert relative_error(again.logvar, encoded.logvar) <= bound


def test_decoding_is_lazy(theirs):
    """The first chunk is there before the second is computed, so a file can be written meanwhile."""
    ours = build(theirs, chunk_bytes=1)
    calls = []
    ours.decoder.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0].shape[1]))
    chunks = ours.decode(normal(1, 3, 2, 2, 3))
    assert calls == []
    next(chunks)
    assert calls == [1]
    next(chunks)
    assert calls == [1, 1]


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an operation creates, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def ignore(self, *tensors: Tensor) -> None:
        self.seen |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        return result


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_the_byte_budget_is_kept_and_used(theirs, way):
    budget = 24 << 20
    ours = build(theirs, chunk_bytes=budget)
    argument = normal(1, 24, 32, 32, 3) if way == "encode" else normal(1, 24, 8, 8, 3)
    memory = PeakBytes()
    memory.ignore(argument, *ours.parameters())
    with memory:
        if way == "encode":
            ours.encode(argument)
        else:
            for _ in ours.decode(argument):
                pass
    assert 0.5 * budget < memory.peak <= budget


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
    numbers = {"channels": 128, "multipliers": [1, 2, 4, 4], "residual_blocks": 2, "embed_channels": 4}
    with torch.device("meta"):
        theirs = published("image_to_video.modules.autoencoder").AutoencoderKL(ddconfig=ddconfig, embed_dim=4)
        ours = AutoencoderKL(**{**NUMBERS, **numbers}, ops=Ops())
    expected = {name: tensor.shape for name, tensor in translated(theirs.state_dict()).items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    assert len(expected) == 248
