"""Training of the autoencoder: frames through the small end and back, close in pixels and in edges.

Given the network and the weights of the loss. It looks at every frame for itself, as the network does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.autoencoder.posterior import Posterior
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.training import export
from i2vgen_ms.training.data.batch import Batch
from i2vgen_ms.training.randomness import Draws
from i2vgen_ms.training.settings import AutoencoderSettings
from i2vgen_ms.training.task import Shown, Task, psnr

_MEASURED_BATCHES = 4  # from which the latents' size is taken
_WHOLE = 2**62  # bytes a chunk: all frames at once, as gradients need them all anyway


class Both(nn.Module):
    """The autoencoder there and back; pixels and unit noise in, pixels and the posterior's numbers out."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`pixels: b f h w c`, `noise: b f h w z` to pixels, mean and logvar."""
        posterior: Posterior = self.autoencoder.encode(pixels)
        decoded = self.autoencoder.decode_all(posterior.sample(noise))
        return decoded, posterior.mean, posterior.logvar


class AutoencoderTraining(Task):
    """Training of the autoencoder.

    Args:
        settings: of the run. configuration: of the model. network: the autoencoder, on the device.
    """

    def __init__(
        self, settings: AutoencoderSettings, configuration: Configuration, network: Any, device: torch.device
    ) -> None:
        super().__init__(device, settings.numerics.frozen)
        self._weights, self._configuration = settings.objective, configuration
        self._autoencoder = network
        network.chunk_bytes = _WHOLE
        self.network = Both(network)

    def loss(self, network: Callable[..., Any], batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = _pixels(batch)
        b, f, height, width, _ = pixels.shape
        factor, channels = self._autoencoder.factor, self._autoencoder.embed_channels
        noise = draws.normal(b, f, height // factor, width // factor, channels)
        decoded, mean, logvar = network(pixels, noise)
        decoded = decoded.float()
        parts = {
            "absolute": F.l1_loss(decoded, pixels),
            "squared": F.mse_loss(decoded, pixels),
            "edges": edge_distance(decoded, pixels),
            "kl": divergence(mean.float(), logvar.float()),
        }
        total = torch.stack([getattr(self._weights, name) * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def validate(self, batch: Batch, seed: int) -> Shown:
        pixels = _pixels(batch)
        posterior = self._autoencoder.encode(pixels)
        decoded = self._autoencoder.decode_all(posterior.mode()).float()
        numbers = {
            "psnr": psnr(decoded, pixels),
            "edges": float(edge_distance(decoded, pixels)),
            "latents": float(posterior.mean.float().std()),
            "uncertainty": float(torch.exp(0.5 * posterior.logvar.float()).mean()),
        }
        return Shown(numbers, {"made": decoded, "truth": pixels})

    def export(self, folder: Path, dtype: torch.dtype, batches: Callable[[], Iterator[Batch]]) -> None:
        """Writes the autoencoder, and a configuration whose scale_factor brings its latents to unit size."""
        values = [self._autoencoder.encode(_pixels(batch)).mean.float().flatten() for batch in _few(batches())]
        size = float(torch.cat(values).square().mean().sqrt())
        configuration = self._configuration.replace("autoencoder.scale_factor", round(1 / max(size, 1e-5), 5))
        export.write(folder, configuration, {"autoencoder": self._autoencoder}, dtype)


def edge_distance(pixels: Tensor, truth: Tensor) -> Tensor:
    """The mean absolute difference between the two pictures' differences of neighbours, down and across."""
    return sum(
        ((pixels.diff(dim=axis) - truth.diff(dim=axis)).abs().mean() for axis in (2, 3)), start=pixels.new_zeros(())
    )


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Kullback-Leibler divergence from a unit normal distribution, the mean over all values (Kingma and Welling)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def _few(batches: Iterator[Batch]) -> Iterator[Batch]:
    return islice(batches, _MEASURED_BATCHES)


def _pixels(batch: Batch) -> Tensor:
    if batch.pixels is None:
        raise ArgumentError("the autoencoder is trained on pixels; give data.cache null")
    return batch.pixels
