"""Adapters from files that were written by hand: what is added, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from i2vgen_ms.errors import ArgumentError, CheckpointError, MismatchedCheckpointError, NonFiniteError
from i2vgen_ms.weights import lora

RANK, ALPHA = 2, 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5, bias=False))


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.lora_A": (RANK, 3), "0.lora_B": (4, RANK), "1.lora_A": (RANK, 4), "1.lora_B": (5, RANK)}
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def written(folder: Path, changes: dict[str, Any] | None = None, held: dict[str, Tensor] | None = None) -> Path:
    save_file(tensors() if held is None else held, folder / lora.WEIGHTS)
    (folder / lora.CONFIG).write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA} | (changes or {})))
    return folder


@pytest.mark.parametrize("prefix", ["", lora.PREFIX])
@pytest.mark.parametrize("suffix", ["", ".default"])
def test_the_product_is_added_in_its_scale(tmp_path: Path, prefix: str, suffix: str) -> None:
    held = {prefix + name.replace(".weight", f"{suffix}.weight"): tensor for name, tensor in tensors().items()}
    net, before = network(), network().state_dict()
    assert lora.merge_into(net, written(tmp_path, held=held), 0.5) == 2
    for layer in ("0", "1"):
        product = tensors()[f"{layer}.lora_B.weight"] @ tensors()[f"{layer}.lora_A.weight"]
        expected = before[f"{layer}.weight"] + 0.5 * ALPHA / RANK * product
        torch.testing.assert_close(net.state_dict()[f"{layer}.weight"], expected)
    assert torch.equal(net.state_dict()["0.bias"], before["0.bias"])


def test_rank_stabilised_adapters_have_another_factor(tmp_path: Path) -> None:
    assert lora.read(written(tmp_path)).factor == ALPHA / RANK
    assert lora.read(written(tmp_path, {"use_rslora": True})).factor == ALPHA / RANK**0.5


def test_weights_keep_their_type_and_are_copies(tmp_path: Path) -> None:
    net = network().half().requires_grad_(False)
    before = net[0].weight
    kept = before.clone()
    lora.merge_into(net, written(tmp_path))
    assert net[0].weight.dtype == torch.float16
    assert not net[0].weight.requires_grad
    assert torch.equal(before, kept), "a mapped file is not written to"
    assert not torch.equal(net[0].weight, kept)


def test_the_configuration_may_stand_in_the_file_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(tensors(), file, metadata={lora.METADATA: json.dumps({"r": RANK, "lora_alpha": 1})})
    assert lora.read(file).factor == 0.5
    save_file(tensors(), file, metadata={lora.METADATA: "{"})
    with pytest.raises(CheckpointError, match="its adapter_config is no JSON"):
        lora.read(file)
    save_file(tensors(), file)
    with pytest.raises(CheckpointError, match="its factor is not known"):
        lora.read(file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "adapters with use_dora are not known"),
        ({"rank_pattern": {"a": 1}}, "adapters with rank_pattern"),
        ({"bias": "all"}, "adapters with biases"),
        ({"r": 0}, "must be positive, not 0"),
        ({"lora_alpha": "x"}, "must be positive"),
        ({"lora_alpha": True, "r": True}, "must be positive"),
        ({"r": 3}, "a pair of matrices of rank 3 is expected"),
    ],
)
def test_kinds_of_adapters_that_are_not_known_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        lora.read(written(tmp_path, change))


def test_halves_strangers_and_what_is_not_finite_are_refused(tmp_path: Path) -> None:
    half = {name: tensor for name, tensor in tensors().items() if name != "1.lora_B.weight"}
    with pytest.raises(CheckpointError, match="a pair of matrices"):
        lora.read(written(tmp_path, held=half))
    with pytest.raises(CheckpointError, match=r"1\.weight is no weight of a low-rank adapter"):
        lora.read(written(tmp_path, held=tensors() | {"1.weight": torch.zeros(1)}))
    broken = tensors() | {"0.lora_A.weight": torch.full((RANK, 3), float("nan"))}
    with pytest.raises(NonFiniteError, match=r"0\.lora_A\.weight hold NaN"):
        lora.read(written(tmp_path, held=broken))
    with pytest.raises(CheckpointError):
        lora.read(tmp_path / "nothing")


def test_adapters_of_another_network_change_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path)
    wider = nn.Sequential(nn.Linear(3, 4), nn.Linear(7, 5))
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(
        MismatchedCheckpointError, match=r"does not fit Sequential.*\n  1: \[5, 4\] in the file, \[5, 7\]"
    ):
        lora.merge_into(wider, folder)
    assert all(torch.equal(before[name], tensor) for name, tensor in wider.state_dict().items())
    with pytest.raises(MismatchedCheckpointError, match="0: the network has no such layer"):
        lora.merge_into(nn.Linear(2, 2), folder)
    with pytest.raises(MismatchedCheckpointError, match="it holds no adapter at all"):
        lora.merge_into(network(), written(tmp_path, held={}))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "1", True, None])
def test_a_scale_is_a_finite_number(tmp_path: Path, scale: Any) -> None:
    with pytest.raises(ArgumentError, match="a finite number"):
        lora.merge_into(network(), written(tmp_path), scale)
