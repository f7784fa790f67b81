"""Training of the small video classifier on the procedural world.

Given its settings and a device; gives back the trained network and how often it is right about clips it never saw.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.evaluation.classifier import CLASSES, Classifier, Settings, TrainingNumbers
from i2vgen_ms.world import Scene, Variety, draw, render, rules

_VARIETY = Variety(
    shapes=rules.SHAPES,
    motions={"glide": 0.55, "spin": 0.2, "grow": 0.1, "shrink": 0.1, "rest": 0.05},
    pairs=0.0,
    cameras=0.2,
)
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples fill 0 to 1 evenly


def train(
    settings: Settings,
    *,
    device: str | torch.device,
    seconds: float = math.inf,
    steps: int | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """Trains for a time, or for a number of steps, whichever ends first.

    Returns: the classifier, for use, on the device; and {'steps', 'seconds', 'clips', 'loss', and for each question
    the share of right answers about held-out clips}. With `steps` alone, and on the CPU, the same each time.
    """
    if steps is None and math.isinf(seconds):
        raise ArgumentError("training would never end; give seconds or steps")
    numbers, place = settings.training, torch.device(device)
    classifier = _new(settings).to(place)
    optimiser = torch.optim.AdamW(
        classifier.parameters(), lr=numbers.learning_rate, weight_decay=numbers.weight_decay, betas=(0.9, 0.99)
    )
    mixed = torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda")
    started, step, loss = time.monotonic(), 0, torch.zeros(())
    for video, answers in batches(numbers, "train", place):
        done = max((time.monotonic() - started) / seconds, 0.0 if steps is None else step / steps)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = numbers.learning_rate * _rate(done, numbers.warm_up)
        with mixed:
            logits = classifier(video)
            loss = torch.stack([F.cross_entropy(logits[name].float(), answers[name]) for name in CLASSES]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimiser.step()
        step += 1
    took = time.monotonic() - started
    classifier.eval().requires_grad_(False)
    measured = {
        "steps": step,
        "seconds": round(took, 1),
        "clips": step * numbers.batch,
        "loss": round(float(loss.detach()), 4),
    }
    return classifier, measured | accuracy(classifier, numbers)


def accuracy(classifier: Classifier, numbers: TrainingNumbers) -> dict[str, float]:
    """For each question the share of right answers about held-out clips."""
    place = classifier.to_features.weight.device
    right, count = dict.fromkeys(CLASSES, 0), 0
    for video, answers in batches(numbers, "held-out", place):
        if count >= numbers.held_out_clips:
            break
        with torch.no_grad():
            logits = classifier(video)
        for name in CLASSES:
            right[name] += int((logits[name].argmax(1) == answers[name]).sum())
        count += len(video)
    return {name: round(hits / count, 4) for name, hits in right.items()}


def batches(numbers: TrainingNumbers, split: str, device: torch.device) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Without end: videos `b f h w c` and, for each question, the right answers `b`.

    The share `mismatched` of the clips shows things and backgrounds that play the motion of another scene, so that
    marks say nothing there and only the motion does.
    """
    start = 0
    while True:
        span = range(start, start + numbers.batch)
        start += numbers.batch
        acting = [draw(numbers.seed, index, split=f"classifier {split}", variety=_VARIETY) for index in span]
        shown = [
            other if index * _GOLDEN % 1 < numbers.mismatched else own
            for index, own, other in zip(span, acting, [*acting[1:], acting[0]], strict=True)
        ]
        video = render(shown, frames=numbers.frames, fps=numbers.fps, device=device, acting=acting)
        yield video, answers(shown, acting, device)


def answers(shown: Sequence[Scene], acting: Sequence[Scene], device: torch.device) -> dict[str, Tensor]:
    """Of clips of `shown` that play the motions of `acting`, the places of the right answers in CLASSES."""
    words = {
        "motion": [_motion(scene) for scene in acting],
        "camera": [scene.camera for scene in acting],
        "shape": [scene.things[0].shape for scene in shown],
        "colour": [scene.things[0].colour for scene in shown],
    }
    return {
        name: torch.tensor([CLASSES[name].index(word) for word in said], device=device) for name, said in words.items()
    }


def _motion(scene: Scene) -> str:
    thing = scene.things[0]
    if thing.motion == "glide":
        return f"glide {rules.HEADINGS[thing.heading]}"
    return rules.TURNS[thing.turn] if thing.motion == "spin" else thing.motion


def _new(settings: Settings) -> Classifier:
    """A classifier with random weights from the settings' seed, on the CPU."""
    with torch.device("meta"):
        classifier = Classifier(numbers=settings.network)
    classifier = classifier.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(settings.training.seed)
    with torch.no_grad():
        for name, tensor in classifier.named_parameters():
            if tensor.ndim > 1:
                bound = math.sqrt(3 / tensor[0].numel())  # the variance of what comes out is that of what goes in
                tensor.uniform_(-bound, bound, generator=generator)
            else:
                tensor.fill_(float("norm.weight" in name))
    return classifier


def _rate(done: float, warm_up: float) -> float:
    """Share of the learning rate: a line up, then a half cosine down."""
    if done < warm_up:
        return (done + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))
