"""Training of both encoders against each other: a clip's first frame and its caption are to point the same way (CLIP;
Radford et al. 2021).

Given the image tower of a first stage and the text tower of a second one. The text tower's projection and the
temperature are needed for training alone and are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.training import export
from i2vgen_ms.training.data.batch import Batch
from i2vgen_ms.training.denoising import encoder_pictures
from i2vgen_ms.training.randomness import Draws
from i2vgen_ms.training.settings import EncodersSettings
from i2vgen_ms.training.task import Shown, Task
from i2vgen_ms.training.words import tokens

IMAGE, TEXT = "image-to-video", "video-to-video"  # the two folders, named by the stage that uses the tower


class Towers(nn.Module):
    """Both encoders, a projection of the text to the image's width, and the temperature.

    The vector of a text is that of its end mark, which has seen all words.
    """

    def __init__(self, image: Any, text: Any, *, temperature: float, least_temperature: float) -> None:
        super().__init__()
        self.image, self.text = image, text
        width = text.positional_embedding.shape[1]
        self.projection = nn.Linear(width, image.embed_dim, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self._largest = -math.log(least_temperature)

    def forward(self, pictures: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`pictures: b 3 s s`, token numbers `b n` to unit vectors `b d` of both and the factor of their products."""
        seen = self.image(pictures)[:, 0]
        ends = numbers.argmax(dim=1)  # the end mark is the last word of the vocabulary
        read = self.projection(self.text.embed(numbers)[torch.arange(len(numbers), device=numbers.device), ends])
        scale = self.log_scale.clamp(max=self._largest).exp()
        return F.normalize(seen.float(), dim=-1), F.normalize(read.float(), dim=-1), scale


class EncodersTraining(Task):
    """Training of both encoders.

    Args:
        settings: of the run. image, text: the configurations of both stages. towers: both encoders, on the device.
    """

    def __init__(
        self,
        settings: EncodersSettings,
        image: Configuration,
        text: Configuration,
        towers: Towers,
        device: torch.device,
    ) -> None:
        super().__init__(device, settings.numerics.frozen)
        self._image, self._text, self._towers = image, text, towers
        self.network: nn.Module = towers

    def loss(self, network: Callable[..., Any], batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        seen, read, scale = network(*self._inputs(batch))
        return contrast(seen, read, scale), {"scale": scale.detach()}

    def validate(self, batch: Batch, seed: int) -> Shown:
        seen, read, _ = self._towers(*self._inputs(batch))
        products, same = seen @ read.T, self._same(batch.captions)
        found = [same.gather(1, table.argmax(1, keepdim=True)).float().mean() for table in (products, products.T)]
        return Shown({"text found": float(found[0]), "picture found": float(found[1])}, {})

    def export(self, folder: Path, dtype: torch.dtype, batches: Callable[[], Iterator[Batch]]) -> None:
        """Writes two folders, each with a configuration and the file of its encoder."""
        for name, configuration, tower in (
            (IMAGE, self._image, self._towers.image),
            (TEXT, self._text, self._towers.text),
        ):
            (folder / name).mkdir()
            export.write(folder / name, configuration, {"encoder": tower}, dtype)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        pictures = encoder_pictures(batch.first, self._towers.image, self._image)
        return pictures, tokens(self._towers.text, batch.captions).to(self.device, non_blocking=True)

    def _same(self, captions: tuple[str, ...]) -> Tensor:
        """Which captions are the same words, `b b`."""
        numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        column = torch.tensor([numbers[caption] for caption in captions]).to(self.device, non_blocking=True)
        return column[:, None] == column[None, :]


def contrast(seen: Tensor, read: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss of unit vectors `b d`: cross entropy of each one's partner among all, both ways.

    Texts that are the same words have the same vector, so that naming one of them as the right one, or all, comes to
    the same.
    """
    products, partners = scale * seen @ read.T, torch.arange(len(seen), device=seen.device)
    return (F.cross_entropy(products, partners) + F.cross_entropy(products.T, partners)) / 2
