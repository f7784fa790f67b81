"""Low-rank adapters (Hu et al. 2021) read from a file and added to a network's weights.

Given a network and what training wrote: a folder with adapter_model.safetensors and adapter_config.json in peft's
format, or the safetensors file alone, whose metadata hold the same configuration. Needs neither peft nor training.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.errors import ArgumentError, CheckpointError, MismatchedCheckpointError, NonFiniteError
from i2vgen_ms.weights.checkpoint import Checkpoint, open_checkpoint
from i2vgen_ms.weights.verified import is_finite

WEIGHTS, CONFIG, METADATA = "adapter_model.safetensors", "adapter_config.json", "adapter_config"
PREFIX = "base_model.model."
_NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
# Keys of the configuration under which the product of the two matrices is not all there is to add.
_OTHER_KINDS = ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "layer_replication")


@dataclass(frozen=True)
class Adapter:
    """The adapters of one file, by the name of the layer: `down: rank in` and `up: out rank`, and their factor."""

    path: Path
    pairs: dict[str, tuple[Tensor, Tensor]]
    factor: float

    def change(self, name: str, scale: float) -> Tensor:
        """What is added to the weight of a layer, fp32 `out in`."""
        down, up = self.pairs[name]
        return (up.float() @ down.float()) * (self.factor * scale)


def read(path: str | os.PathLike[str]) -> Adapter:
    """The adapters of a folder or a file.

    Raises: CheckpointError for a file that is not there, damaged, no adapter, or of a kind that is not known here;
    NonFiniteError for NaN or infinity.
    """
    place = Path(path)
    file = place / WEIGHTS if place.is_dir() else place
    checkpoint = open_checkpoint(file)
    config = _config(checkpoint, file)
    found: dict[str, dict[str, Tensor]] = {}
    for name, record in checkpoint.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise CheckpointError(f"{file}: {name:.150} is no weight of a low-rank adapter of a linear layer")
        tensor = record.load().clone()
        if not is_finite(tensor):
            raise NonFiniteError(f"{file}: the weights {name} hold NaN or infinity; the training of it failed")
        found.setdefault(match[1], {})[match[2]] = tensor
    rank = config["r"]
    for name, pair in found.items():
        shapes = {side: tuple(tensor.shape) for side, tensor in pair.items()}
        if shapes.keys() != {"A", "B"} or shapes["A"][:1] != (rank,) or shapes["B"][1:] != (rank,):
            raise CheckpointError(f"{file}: {name:.150}: a pair of matrices of rank {rank} is expected, got {shapes}")
    pairs = {name: (pair["A"], pair["B"]) for name, pair in found.items()}
    over = rank**0.5 if config.get("use_rslora") else rank
    return Adapter(file, pairs, config["lora_alpha"] / over)


def merge_into(network: nn.Module, path: str | os.PathLike[str], scale: float = 1.0) -> int:
    """Adds the adapters at `path`, `scale` times, to the network's weights; returns how many layers were changed.

    The sums are fp32 and then of the weight's type; the new weights are copies, so that a mapped file is not written
    to. Adding them again with the negative scale takes them away up to rounding.

    Raises: MismatchedCheckpointError, before anything is changed, when a layer is not there or of another size;
    ArgumentError for a scale that is no finite number; what `read` raises.
    """
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) < float("inf"):
        raise ArgumentError(f"lora_scale is a finite number, not {scale!r:.40}")
    adapter = read(path)
    layers = dict(network.named_modules())
    wrong = [line for name, pair in adapter.pairs.items() if (line := _misfit(layers.get(name), name, pair))]
    if wrong or not adapter.pairs:
        lines = "\n".join(wrong[:10]) or "it holds no adapter at all"
        raise MismatchedCheckpointError(
            f"{adapter.path} does not fit {type(network).__name__}; use the adapters that were trained on this model:\n"
            f"{lines}" + (f"\n... and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        )
    with torch.no_grad():
        for name in adapter.pairs:
            weight = layers[name].weight
            assert isinstance(weight, Tensor)
            changed = (weight.float() + adapter.change(name, scale).to(weight.device)).to(weight.dtype)
            layers[name].weight = nn.Parameter(changed, requires_grad=weight.requires_grad)
    return len(adapter.pairs)


def _misfit(layer: nn.Module | None, name: str, pair: tuple[Tensor, Tensor]) -> str:
    """What keeps a pair from a layer; nothing if it fits."""
    wanted = [pair[1].shape[0], pair[0].shape[1]]
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return f"  {name:.150}: the network has no such layer"
    return "" if list(weight.shape) == wanted else f"  {name:.150}: {wanted} in the file, {list(weight.shape)} here"


def _config(checkpoint: Checkpoint, file: Path) -> dict[str, Any]:
    text, beside = checkpoint.metadata.get(METADATA), file.with_name(CONFIG)
    if text is not None:
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{file}: its {METADATA} is no JSON") from error
    elif beside.is_file():
        config = read_object(beside)
    else:
        raise CheckpointError(f"{file}: no {CONFIG} beside it and none in its metadata, so its factor is not known")
    rank, alpha = (config.get(key) if isinstance(config, dict) else None for key in ("r", "lora_alpha"))
    numbers = isinstance(rank, int) and isinstance(alpha, (int, float)) and not isinstance(rank, bool)
    if not numbers or not (rank > 0 and 0 < alpha < 1e9):  # type: ignore[operator]
        raise CheckpointError(f"{file}: {CONFIG}: r and lora_alpha must be positive, not {rank!r:.20}, {alpha!r:.20}")
    for key in _OTHER_KINDS:
        if config.get(key):
            raise CheckpointError(f"{file}: {CONFIG}: adapters with {key} are not known here")
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{file}: {CONFIG}: adapters with biases are not known here")
    return dict(config)
