"""The evaluation of a model: videos from held-out clips or from files, measured beside what one gets without it.

Given a loaded pipeline of either stage. The first stage makes videos of first frames, and is compared with repeating
them; the second mends spoilt clips, and is compared with bicubic enlargement.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.errors import CheckpointError, ConfigurationError
from i2vgen_ms.evaluation import metrics
from i2vgen_ms.evaluation.classifier import Classifier, features
from i2vgen_ms.evaluation.classifier import load as load_classifier
from i2vgen_ms.evaluation.frechet import frechet_distance
from i2vgen_ms.evaluation.report import Report
from i2vgen_ms.evaluation.samples import Samples, from_pairs, from_world
from i2vgen_ms.evaluation.untrained import write_untrained
from i2vgen_ms.media.sheet import write_sheet
from i2vgen_ms.pipelines import arguments
from i2vgen_ms.pipelines import load as load_pipeline
from i2vgen_ms.world import measure

MODEL, UNTRAINED = "model", "untrained"
_AT_ONCE = 8  # videos that are measured together
_METRICS = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "perceptual_distance": metrics.perceptual_distance,
    "temporal_error": metrics.temporal_error,
    "flicker": metrics.flicker,
    "sharpness": metrics.sharpness,
}


def evaluate(
    pipe: Any,
    *,
    clips: int | None = None,
    pairs: Any = None,
    untrained: bool = False,
    world_seed: int = 0,
    sheet: Any = None,
    loading: Mapping[str, Any] | None = None,
    **call: Any,
) -> Report:
    """Evaluates a loaded pipeline.

    Args:
        clips: how many; None: 32 of the world, or all of a folder.
        pairs: a folder of the user's own videos (see samples.from_pairs), instead of the procedural world.
        untrained: whether a column shows the same model with an untrained ST-UNet.
        world_seed: of the held-out scenes.
        sheet: a PNG file for a contact sheet: of each clip the truth, then the model's video, then the others.
        loading: how `pipe` was loaded (dtype, memory, compile), which the untrained model is as well.
        call: arguments of the pipeline's call, such as steps.
    """
    started = time.monotonic()
    settings = arguments.applied(pipe.configuration, call)
    if pairs is None:
        samples = from_world(settings, 32 if clips is None else clips, seed=world_seed)
    else:
        samples = from_pairs(pairs, settings, clips=clips)
    if settings.output.fps == "source":
        call = {**call, "fps": max(1, round(samples.fps))}
    size = settings.batch_size
    videos = {MODEL: made(pipe, samples, size, call), samples.called: samples.without}
    if untrained:
        with tempfile.TemporaryDirectory(prefix="i2vgen_ms-untrained-") as folder:
            write_untrained(Path(folder), pipe.configuration, pipe.folder)
            videos[UNTRAINED] = made(load_pipeline(folder, device=pipe.device, **(loading or {})), samples, size, call)
    if sheet is not None:
        write_sheet(sheet, [samples.truth, *videos.values()])
    classifier, notes = _classifier(pipe.device, samples)
    return Report(
        model=str(pipe.folder),
        task=settings.task,
        clips=len(samples.truth),
        settings={
            "data": "world" if pairs is None else str(pairs),
            "world_seed": world_seed if pairs is None else None,
            "width": samples.truth.shape[3],
            "height": samples.truth.shape[2],
            "num_frames": samples.truth.shape[1],
            "fps": samples.fps,
            "seed": settings.seed,
            "steps": settings.diffusion.steps,
            "sampler": settings.diffusion.sampler.to_json(),
            "guidance": settings.diffusion.guidance.to_json(),
        },
        columns={name: measured(video, samples, classifier, pipe.device) for name, video in videos.items()},
        seconds=time.monotonic() - started,
        notes=notes,
    )


def measured(
    video: Tensor, samples: Samples, classifier: Classifier | None, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """All metrics of report.METRICS that these samples allow, of videos `b f h w c`, each the mean over the videos."""
    found: dict[str, list[float]] = {}
    moved: dict[str, list[bool]] = {"direction_accuracy": [], "motion_accuracy": []}
    errors: list[tuple[float, int]] = []
    for start in range(0, len(video), _AT_ONCE):
        span = slice(start, start + _AT_ONCE)
        part, truth = video[span].to(device), samples.truth[span].to(device)
        for name, metric in _METRICS.items():
            found.setdefault(name, []).extend(metric(part, truth).tolist())
        if samples.pictures is not None:
            agreement = metrics.first_frame_psnr(part, samples.pictures[span].to(device))
            found.setdefault("first_frame_psnr", []).extend(agreement.tolist())
        if samples.scenes is not None:
            scenes = samples.scenes[span]
            moved["direction_accuracy"] += measure.directions(part, scenes, fps=samples.fps)
            moved["motion_accuracy"] += measure.motions(part, scenes, fps=samples.fps)
            gliding = sum(thing.direction is not None for scene in scenes for thing in scene.things)
            if gliding:
                errors.append((measure.place_error(part, scenes, fps=samples.fps), gliding))
    values = {name: _mean(numbers) for name, numbers in found.items()}
    if samples.scenes is not None:
        values |= {name: _mean([float(verdict) for verdict in verdicts]) for name, verdicts in moved.items()}
        values["place_error"] = _mean([error for error, count in errors for _ in range(count)])
    if classifier is not None:
        values["frechet_distance"] = frechet_distance(features(classifier, samples.truth), features(classifier, video))
    return values


def made(pipe: Any, samples: Samples, size: int, call: Mapping[str, Any]) -> Tensor:
    """The pipeline's videos, `b f h w c`, made from `size` inputs at a time."""
    found = []
    for start in range(0, len(samples.inputs), size):
        for result in pipe(samples.inputs[start : start + size], **{**call, "output_type": "pt"}):
            found.append(result.tensor.movedim(0, -1).clamp(-1, 1))
    return torch.stack(found)


def _classifier(device: torch.device, samples: Samples) -> tuple[Classifier | None, tuple[str, ...]]:
    if len(samples.truth) < 2:
        return None, ("a Frechet distance needs at least two clips",)
    try:
        return load_classifier(device=device), ()
    except (CheckpointError, ConfigurationError) as error:
        return None, (f"no Frechet distance: {error}",)


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan
