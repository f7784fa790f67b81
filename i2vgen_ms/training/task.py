"""What the loop asks of the thing that is trained. The loop knows no network; a task knows no steps and no files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.training.data.batch import Batch
from i2vgen_ms.training.ema import Average
from i2vgen_ms.training.randomness import Draws

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shown:
    """What a validation found: numbers by name, and clips `b f h w c` in [-1, 1] to be shown beside each other."""

    numbers: Mapping[str, float]
    columns: Mapping[str, Tensor]


class Task(ABC):
    """One kind of training.

    network: the module that is trained, and called by `loss` through what the loop made of it.
    """

    network: nn.Module

    def __init__(self, device: torch.device, frozen_precision: str) -> None:
        self.device = device
        self._frozen = frozen_precision

    @abstractmethod
    def loss(self, network: Callable[..., Any], batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, one number, and numbers to log, all on the device.

        network: `self.network`, or a wrapper around it.
        """

    @abstractmethod
    def validate(self, batch: Batch, seed: int) -> Shown:
        """What the network, as it is now, makes of held-out clips."""

    @abstractmethod
    def export(self, folder: Path, dtype: torch.dtype, batches: Callable[[], Iterator[Batch]]) -> None:
        """Writes what was trained into a new folder. batches: of held-out clips, for those who have to measure."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Those that are trained, by name."""
        return {name: parameter for name, parameter in self.network.named_parameters() if parameter.requires_grad}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within the block networks compute without gradients, in the number format for frozen ones."""
        dtype = AUTOCAST.get(self._frozen)
        with torch.no_grad(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            yield

    @contextmanager
    def evaluation(self, average: Average | None) -> Iterator[None]:
        """Within the block the network computes as in use: with the average, without dropout and gradients."""
        self.network.eval()
        try:
            with torch.no_grad():
                if average is None:
                    yield
                else:
                    with average.applied():
                        yield
        finally:
            self.network.train()


def train(modules: Iterable[nn.Module]) -> None:
    """Makes modules trainable."""
    for module in modules:
        module.train().requires_grad_(True)


def psnr(pixels: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1], cut to that range."""
    error = torch.mean((pixels.float().clamp(-1, 1) - truth.float()) ** 2).clamp(min=1e-10)
    return float(10 * torch.log10(4 / error))
