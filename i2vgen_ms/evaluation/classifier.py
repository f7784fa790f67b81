"""The small video classifier: says of a clip of the procedural world what moves how, in which shape and colour.

Its features are what the Frechet distance is computed over. Given videos `b f h w c` in [-1, 1] of any size and at
least two frames. It is trained on clips in which most things move otherwise than their marks say, so that it has to
look at the motion itself. `python -m i2vgen_ms.evaluation.classifier --out FOLDER` trains it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor, nn

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.config.json_file import read_object
from i2vgen_ms.config.messages import explain
from i2vgen_ms.config.sections import FileName, Section, Size
from i2vgen_ms.errors import ArgumentError, CheckpointError, ConfigurationError, OutputError
from i2vgen_ms.weights import safetensors_files
from i2vgen_ms.weights.checkpoint import OWN_FORMAT
from i2vgen_ms.weights.load import load as load_weights
from i2vgen_ms.world import rules

FILE, FOLDER = "classifier.json", "small-video-classifier"
CLASSES: dict[str, tuple[str, ...]] = {
    "motion": (*(f"glide {heading}" for heading in rules.HEADINGS), *rules.TURNS.values(), "grow", "shrink", "rest"),
    "camera": tuple(rules.CAMERAS),
    "shape": rules.SHAPES,
    "colour": tuple(rules.COLOURS),
}
_SHARP = 8.0  # of the softmax over places, which a network with small weights would not begin to use
Count = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


class NetworkNumbers(Section):
    """Sizes of the network.

    height, width: to which frames are resized. channels: of each level, every one half as wide as the one before.
    places: how many places are followed, at `moments` moments.
    """

    height: Size
    width: Size
    channels: Annotated[list[Count], Field(min_length=1, max_length=8)]
    norm_groups: Count
    places: Count
    moments: Count
    features: Count


class TrainingNumbers(Section):
    """mismatched: share of the clips in which things do not do what their marks say. warm_up: share of the time."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    batch: Count
    frames: Annotated[int, Field(ge=2, le=4096)]
    fps: Count
    mismatched: Share
    learning_rate: Rate
    weight_decay: Share
    warm_up: Share
    held_out_clips: Count


class Settings(Section):
    """A whole classifier.json."""

    format: Literal["i2vgen-ms-classifier/1"]
    weights: FileName
    network: NetworkNumbers
    training: TrainingNumbers


class Level(nn.Module):
    """Halves the height and the width, then looks along the frames: a (2+1)D convolution (Tran et al. 2018)."""

    def __init__(self, *, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.over_space = nn.Conv3d(in_channels, out_channels, (1, 5, 5), stride=(1, 2, 2), padding=(0, 2, 2))
        self.space_norm = nn.GroupNorm(norm_groups, out_channels)
        self.over_time = nn.Conv3d(out_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))
        self.time_norm = nn.GroupNorm(norm_groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.space_norm(self.over_space(x)))
        return F.silu(self.time_norm(self.over_time(x)))


class Classifier(nn.Module):
    """Levels of (2+1)D convolutions; what they see, and where they see it over time; a linear layer a question.

    Where: the mean place under a softmax over the grid (Finn et al. 2016, "Deep spatial autoencoders").
    """

    def __init__(self, *, numbers: NetworkNumbers) -> None:
        super().__init__()
        self.numbers = numbers
        widths = [3, *numbers.channels]
        self.levels = nn.ModuleList(
            Level(in_channels=before, out_channels=after, norm_groups=numbers.norm_groups)
            for before, after in zip(widths, numbers.channels, strict=False)
        )
        self.to_places = nn.Conv3d(widths[-1], numbers.places, 1)
        self.to_features = nn.Linear(2 * widths[-1] + 2 * numbers.places * numbers.moments, numbers.features)
        self.questions = nn.ModuleDict(
            {name: nn.Linear(numbers.features, len(classes)) for name, classes in CLASSES.items()}
        )

    def features(self, video: Tensor) -> Tensor:
        """Features `b d` of videos `b f h w c`."""
        if video.ndim != 5 or video.shape[-1] != 3 or video.shape[1] < 2:
            raise ArgumentError(f"videos are `b f h w 3` with at least two frames, not {tuple(video.shape)}")
        frames = video.to(self.to_features.weight).flatten(0, 1).movedim(-1, 1)
        size = (self.numbers.height, self.numbers.width)
        if tuple(frames.shape[2:]) != size:
            frames = F.interpolate(frames, size=size, mode="bilinear", antialias=True, align_corners=False)
        x = frames.unflatten(0, video.shape[:2]).movedim(1, 2)
        for level in self.levels:
            x = level(x)
        seen = torch.cat([x.mean((2, 3, 4)), x.amax((3, 4)).mean(2), self._places(x)], dim=1)
        return cast(Tensor, self.to_features(seen))

    def _places(self, x: Tensor) -> Tensor:
        """x and y in [-1, 1] of each place at each moment, `b n`, of activations `b c f h w`."""
        weights = (_SHARP * self.to_places(x)).flatten(3).softmax(-1).unflatten(3, x.shape[3:])
        rows, columns = (torch.linspace(-1, 1, size, device=x.device, dtype=weights.dtype) for size in x.shape[3:])
        paths = torch.stack([(weights.sum(3) * columns).sum(-1), (weights.sum(4) * rows).sum(-1)], dim=1)
        return F.adaptive_avg_pool1d(paths.flatten(1, 2), self.numbers.moments).flatten(1)

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """For each question of CLASSES the logits of its answers, `b n`."""
        features = F.silu(self.features(video))
        return {name: line(features) for name, line in self.questions.items()}


def features(classifier: Classifier, video: Tensor, *, batch: int = 16) -> Tensor:
    """Features `b d` of videos `b f h w c`, fp32 on the CPU, worked out `batch` videos at a time."""
    device = classifier.to_features.weight.device
    with torch.no_grad():
        return torch.cat([classifier.features(part.to(device)).float().cpu() for part in video.split(batch)])


def read_settings(folder: str | os.PathLike[str] | None = None) -> Settings:
    """The settings in a folder; of the shipped classifier without one."""
    path = (configuration_folder() / FOLDER if folder is None else Path(folder)) / FILE
    if not path.is_file():
        raise ConfigurationError(f"{path} is not there; give the folder of a classifier")
    try:
        return Settings.model_validate(read_object(path))
    except ValidationError as error:
        raise ConfigurationError(explain(error, Settings, FILE)) from None


def load(folder: str | os.PathLike[str] | None = None, *, device: str | torch.device = "cpu") -> Classifier:
    """The trained classifier of a folder, for use; the shipped one without a folder.

    Raises: ConfigurationError, CheckpointError (also when it was never trained).
    """
    settings = read_settings(folder)
    path = (configuration_folder() / FOLDER if folder is None else Path(folder)) / settings.weights
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not there; train it: python -m i2vgen_ms.evaluation.classifier --out {path.parent}"
        )
    with torch.device("meta"):
        classifier = Classifier(numbers=settings.network)
    return load_weights(classifier, path, dtype=torch.float32, device=device).eval().requires_grad_(False)


def save(classifier: Classifier, settings: Settings, folder: str | os.PathLike[str], measured: dict[str, Any]) -> Path:
    """Writes settings and weights (fp16) into `folder`, each file moved into place whole; gives back the weights' path.

    measured: what is known about it, kept in the file's metadata as JSON. Raises: OutputError.
    """
    folder = Path(folder)
    state = classifier.state_dict()
    entries = [
        (name, tuple(tensor.shape), torch.float16, lambda tensor=tensor: tensor.detach().to("cpu", torch.float16))
        for name, tensor in state.items()
    ]
    target = folder / settings.weights
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors_files.write(beside, entries, {"format": OWN_FORMAT, "measured": json.dumps(measured)})
        os.replace(beside, target)
        described = folder / FILE
        if not described.exists():
            described.write_text(json.dumps(settings.model_dump(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"the classifier cannot be written to {folder}: {error}") from error
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a classifier and writes it; prints how often it is right about held-out clips."""
    from i2vgen_ms.evaluation.classifier_training import train

    parser = argparse.ArgumentParser(prog="python -m i2vgen_ms.evaluation.classifier", description=main.__doc__)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where classifier.safetensors is written")
    parser.add_argument("--settings", metavar="FOLDER", help="the folder of the classifier.json; the shipped one")
    parser.add_argument("--seconds", type=float, default=60, help="of training (60)")
    parser.add_argument("--device", default="cuda", metavar="NAME", help="cuda or cpu (cuda)")
    options = parser.parse_args(argv)
    settings = read_settings(options.settings)
    classifier, measured = train(settings, device=options.device, seconds=options.seconds)
    path = save(classifier, settings, options.out, measured)
    sys.stdout.write(f"{json.dumps(measured)}\n{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
