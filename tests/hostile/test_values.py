"""A3. Weights whose numbers are none, too large, or of a kind that no network here has."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from i2vgen_ms.config import reader
from i2vgen_ms.errors import I2VGenError, MismatchedCheckpointError, NonFiniteError
from i2vgen_ms.pipelines import load
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.load import load as load_weights
from tests.hostile.helpers import QUICK, copy_of, put

pytestmark = [pytest.mark.hostile, pytest.mark.group("A3")]

FILES = {"encoder": "open_clip_pytorch_model.bin", "st_unet": "small_random.pth", "autoencoder": "small_random.ckpt"}
NUMBERS = {"NaN": torch.nan, "infinity": torch.inf, "negative infinity": -torch.inf}


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    return copy_of(folder, tmp_path / "model")


def change(model: Path, network: str, value: float | complex | None, *, kind: str = "zip", every: bool = False) -> str:
    """Puts `value` into one element of a tensor of the network's file (None: only its type changes); its name."""
    path = model / FILES[network]
    content = torch.load(path, weights_only=True)
    state = content.get("state_dict", content)
    name = max(state, key=lambda name: state[name].numel())
    tensor = state[name].clone()
    if isinstance(value, complex):
        tensor = tensor.to(torch.complex64)
    if every:
        state.update({key: torch.zeros_like(one) for key, one in state.items()})
    elif value is not None:
        tensor.view(-1)[tensor.numel() // 2] = value
        state[name] = tensor
    buffer = io.BytesIO()
    if kind == "safetensors":
        from safetensors.torch import save

        put(path, save({key: one.contiguous() for key, one in state.items()}))
    else:
        torch.save(content, buffer, _use_new_zipfile_serialization=kind == "zip")
        put(path, buffer.getvalue())
    return name


@pytest.mark.parametrize("network", FILES)
@pytest.mark.parametrize("number", NUMBERS)
def test_non_finite_weights(model: Path, network: str, number: str) -> None:
    name = change(model, network, NUMBERS[number])
    with pytest.raises(NonFiniteError) as caught:
        load(model, device="cpu")
    assert all(words in str(caught.value) for words in (name, str(model / FILES[network]), "hold NaN or infinity"))


@pytest.mark.parametrize("kind", ["legacy", "safetensors"])
def test_non_finite_weights_in_other_formats(model: Path, kind: str) -> None:
    name = change(model, "encoder", torch.nan, kind=kind)
    with pytest.raises(NonFiniteError, match="hold NaN or infinity") as caught:
        load(model, device="cpu")
    assert name in str(caught.value)


def test_non_finite_weights_are_not_remembered_as_checked(model: Path) -> None:
    change(model, "encoder", torch.nan)
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            load(model, device="cpu")


def test_who_wants_them_can_have_them(model: Path) -> None:
    name = change(model, "encoder", torch.nan)
    built = architecture.build(reader.read(model), "encoder")
    network = load_weights(built.network, model / FILES["encoder"], built.layout, check_finite=False)
    tensors = network.state_dict()
    assert sum(int(torch.isnan(tensor).sum()) for tensor in tensors.values()) == 1
    assert name


@pytest.mark.parametrize("network", FILES)
def test_values_that_half_precision_cannot_hold(model: Path, network: str) -> None:
    name = change(model, network, 1e6)
    load(model, device="cpu")
    with pytest.raises(NonFiniteError, match=r"have values that torch.float16 cannot hold; use float32") as caught:
        load(model, device="cpu", dtype="float16")
    assert name in str(caught.value)


@pytest.mark.parametrize("network", FILES)
def test_zeros(model: Path, picture: np.ndarray, tmp_path: Path, network: str) -> None:
    """Zeros are numbers: the model loads; a call ends in a video, or in an error that says what became infinite."""
    change(model, network, None, every=True)
    pipe = load(model, device="cpu")
    target = tmp_path / "video.mp4"
    try:
        pipe(picture, output=target, **QUICK)
    except I2VGenError as error:
        assert isinstance(error, NonFiniteError)  # noqa: PT017 - either way is right
        assert not target.exists()
    else:
        assert target.stat().st_size > 0
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "video.mp4"}


@pytest.mark.parametrize("network", FILES)
def test_complex(model: Path, network: str) -> None:
    name = change(model, network, 1 + 1j)
    words = r"torch\.complex64 in the file, torch\.float32 wanted"
    with pytest.raises(MismatchedCheckpointError, match=words) as caught:
        load(model, device="cpu")
    assert name in str(caught.value)


def test_denormal_and_largest_numbers_are_numbers(model: Path) -> None:
    for value in (1e-45, 3.4e38, -0.0):
        change(model, "encoder", value)
        load(model, device="cpu")
