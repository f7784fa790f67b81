"""Low-rank adapters in training: put beside the layers of a network by peft, and written in its format.

Given a network and the settings of the adapters. Reading and merging them needs no peft: `i2vgen_ms.weights.lora`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training import export
from i2vgen_ms.training.sections import Lora
from i2vgen_ms.weights.lora import CONFIG, METADATA, PREFIX, WEIGHTS

ADAPTER = "default"


def inject(network: nn.Module, settings: Lora) -> None:
    """Puts adapters beside the layers whose last name is one of the targets; they alone are trainable afterwards.

    Layers of other names are no targets: those that hand their weights to an operation, as the feed-forward layers do,
    would leave the adapter out. Raises: ConfigurationError when no layer has such a name, or peft is not there.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigurationError(f"lora needs the package peft ({error}); install i2vgen_ms[train]") from error
    names = [name for name, layer in network.named_modules() if _is_target(name, layer, settings)]
    if not names:
        raise ConfigurationError(f"lora.targets: no linear layer of this network is called {settings.targets}")
    network.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names, bias="none"
    )
    inject_adapter_in_model(config, network, adapter_name=ADAPTER)


def write(folder: Path, network: nn.Module, settings: Lora, dtype: torch.dtype) -> None:
    """Writes the adapters of a network into `folder`: the weights, and the configuration beside and inside of them."""
    config = _config(network, settings)
    tensors = {
        PREFIX + name.replace(f".{ADAPTER}.weight", ".weight"): parameter
        for name, parameter in network.named_parameters()
        if ".lora_" in name
    }
    export.write_json(folder / CONFIG, config)
    export.write_tensors(folder / WEIGHTS, tensors, dtype, {"format": "pt", METADATA: json.dumps(config)})


def _config(network: nn.Module, settings: Lora) -> dict[str, Any]:
    names = [name.removesuffix(".lora_A") for name, _ in network.named_modules() if name.endswith(".lora_A")]
    return {
        "peft_type": "LORA",
        "task_type": None,
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "bias": "none",
        "target_modules": names,
    }


def _is_target(name: str, layer: nn.Module, settings: Lora) -> bool:
    return isinstance(layer, nn.Linear) and name.rpartition(".")[2] in settings.targets
