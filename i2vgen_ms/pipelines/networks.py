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
from i2vgen_ms.runtime import beforehand, memory, operations, residency
from i2vgen_ms.runtime.compiled import compile_blocks
from i2vgen_ms.runtime.processor import quicken
from i2vgen_ms.runtime.residency import Resident
from i2vgen_ms.runtime.shortage import memory_advice
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.load import load
from i2vgen_ms.weights.lora import merge_into


@dataclass(frozen=True)
class Networks:
    """Encoder, ST-UNet and autoencoder, without gradients, each with its keeper. `Any`, because parts are swappable.

    Where their tensors are is the keeper's business: what computes asks `residents[name].placed` first.
    """

    residents: Mapping[str, Resident]

    @property
    def encoder(self) -> Any:
        return self.residents["encoder"].network

    @property
    def st_unet(self) -> Any:
        return self.residents["st_unet"].network

    @property
    def autoencoder(self) -> Any:
        return self.residents["autoencoder"].network


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter of the ST-UNet (see weights.lora), and how much of it."""

    path: Path
    scale: float


class Loader:
    """Loads the networks of one model folder, and keeps those of the dtypes that were asked for last.

    Loading is a mapping of files that were checked before, so that another dtype costs seconds and no second copy of
    the old one stays. Safe to call from several threads.
    """

    def __init__(
        self,
        configuration: Configuration,
        folder: Path,
        device: torch.device,
        *,
        cache: bool,
        adapter: Adapter | None = None,
    ) -> None:
        self._configuration, self._folder, self._device, self._cache = configuration, folder, device, cache
        self._adapter = adapter
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[str, Resident]] = {}

    def networks(self, dtypes: Mapping[str, str]) -> Networks:
        """The networks in the given dtypes (by network name); each is read again only if its dtype changed."""
        with self._lock:
            new = [name for name in architecture.NETWORKS if self._loaded.get(name, ("",))[0] != dtypes[name]]
            if new and self._device.type == "cuda":
                beforehand.compile_kernels(self._configuration, dtypes, self._device)
            with memory_advice("trying the operations"):
                table = operations.table(self._device)
            missing = {name: architecture.build(self._configuration, name, table) for name in new}
            place = self._place(sum(_bytes(built.network, dtypes[name]) for name, built in missing.items()))
            for name, built in missing.items():
                self._loaded[name] = (dtypes[name], self._load(name, built, dtypes[name], place))
            return Networks({name: self._loaded[name][1] for name in architecture.NETWORKS})

    def _place(self, needed: int) -> torch.device:
        """Where the networks are loaded to: the device, if they may stay there and there is room beside what is."""
        mode, host = self._configuration.memory, torch.device("cpu")
        if not needed or self._device.type == "cpu" or mode in ("balanced", "low"):
            return host
        roomy = mode == "fast" or needed + memory.SPARE <= residency.free_bytes(self._device)
        return self._device if roomy else host

    def _load(self, name: str, built: architecture.Architecture, dtype: str, place: torch.device) -> Resident:
        path = weight_file(self._folder, getattr(self._configuration.weights, name))
        with memory_advice(f"loading {path.name}"):
            network = load(
                built.network,
                path,
                built.layout,
                dtype=getattr(torch, dtype),
                device=place,
                cache=self._cache,
            )
            if name == "st_unet" and self._adapter is not None:
                merge_into(network, self._adapter.path, self._adapter.scale)
            if name == "st_unet" and self._configuration.compile:
                compile_blocks(network, self._device)
            elif name == "st_unet" and self._device.type == "cpu":
                quicken(network)
        movable = self._device.type != "cpu"
        return Resident(
            network.to(memory_format=torch.channels_last) if movable else network, self._device, movable=movable
        )


def _bytes(network: torch.nn.Module, dtype: str) -> int:
    size = getattr(torch, dtype).itemsize
    return sum(tensor.numel() * size for tensor in [*network.parameters(), *network.buffers()])
