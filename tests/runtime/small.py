"""A small ST-UNet with what it is called with, and a stand-in for a device with little memory."""

from __future__ import annotations

from typing import Any

import torch

from i2vgen_ms.runtime.residency import Resident
from i2vgen_ms.st_unet.network import SpatioTemporalUNet
from i2vgen_ms.tensors.ops import Ops
from tests.oracle import randomise
from tests.st_unet.networks import CONTEXTS, SMALL, temporal_choice

HERE = torch.device("cpu")


def small_network(ops: Ops | None = None) -> SpatioTemporalUNet:
    numbers = {**SMALL, "multipliers": [1, 2], "residual_blocks": 1, "attention_levels": [0], "context_channels": 16}
    network = SpatioTemporalUNet(**numbers, context=CONTEXTS["text"], temporal=temporal_choice(), ops=ops or Ops())
    randomise(network, seed=1)
    return network.requires_grad_(False)


def inputs(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(1, 4, 3, 4, 6, generator=generator),
        "t": torch.tensor([7.0]),
        "text": torch.randn(1, 5, 16, generator=generator),
    }


class Device:
    """Residents move to and from other memory of the host, of which `size` bytes may be used."""

    def __init__(self) -> None:
        self.size, self._residents = 10**12, list[Resident]()

    def resident(self, network: Any = None) -> Resident:
        self._residents.append(Resident(network or small_network(), HERE, movable=True))
        return self._residents[-1]

    def free_bytes(self, device: torch.device) -> int:
        return self.size - sum(one.nbytes for one in self._residents if one.on_device)
