"""The three networks of a model, loaded from its folder in the number formats that are asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from i2vgen_ms.config.reader import weight_file
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.runtime.device import memory_advice
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.load import load


@dataclass(frozen=True)
class Networks:
    """Encoder, ST-UNet and autoencoder, on one device, without gradients. `Any`, because parts are swappable."""

    encoder: Any
    st_unet: Any
    autoencoder: Any


class Loader:
    """Loads the networks of one model folder, and keeps those of the dtypes that were asked for last.

    Loading is a mapping of files that were checked before, so that another dtype costs seconds and no second copy of
    the old one stays. Safe to call from several threads.
    """

    def __init__(self, configuration: Configuration, folder: Path, device: torch.device, *, cache: bool) -> None:
        self._configuration, self._folder, self._device, self._cache = configuration, folder, device, cache
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[str, Any]] = {}

    def networks(self, dtypes: Mapping[str, str]) -> Networks:
        """The networks in the given dtypes (by network name); each is read again only if its dtype changed."""
        with self._lock:
            for name in architecture.NETWORKS:
                if self._loaded.get(name, ("",))[0] != dtypes[name]:
                    self._loaded[name] = (dtypes[name], self._load(name, dtypes[name]))
            return Networks(**{name: self._loaded[name][1] for name in architecture.NETWORKS})

    def _load(self, name: str, dtype: str) -> torch.nn.Module:
        built = architecture.build(self._configuration, name)
        path = weight_file(self._folder, getattr(self._configuration.weights, name))
        with memory_advice(f"loading {path.name}"):
            network = load(
                built.network,
                path,
                built.layout,
                dtype=getattr(torch, dtype),
                device=self._device,
                cache=self._cache,
            )
        return network.to(memory_format=torch.channels_last) if self._device.type == "cuda" else network
