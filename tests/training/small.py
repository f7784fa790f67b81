"""The smallest models of both stages, and settings of runs on them that take seconds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch

from i2vgen_ms.config import reader
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.training import networks
from i2vgen_ms.training.export import write
from i2vgen_ms.training.settings import Settings, read

WIDTH, HEIGHT, FRAMES = 32, 16, 4
AUTOENCODER = {"channels": 8, "multipliers": [1, 1, 1, 1], "latent_channels": 4, "embed_channels": 4, "norm_groups": 4}
ST_UNET = {
    "latent_channels": 4,
    "out_channels": 4,
    "channels": 16,
    "multipliers": [1, 2],
    "head_channels": 8,
    "norm_groups": 4,
    "context_channels": 16,
}
NUMBERS = {"train": "no", "frozen": "no", "fast_kernels": False, "graphs": False}


def configuration(task: str, *, extra: bool = True, **changes: Any) -> Configuration:
    """A model of a task; `changes` are values at dotted paths, with __ for the dots."""
    values = reader.shipped(f"small-{task}").to_json()
    values["autoencoder"] |= AUTOENCODER
    values["st_unet"] |= ST_UNET | {"extra_channels": 4 if extra and task == "image-to-video" else 0}
    values["output"] |= {"width": WIDTH, "height": HEIGHT, "num_frames": FRAMES}
    values["diffusion"] |= {"steps": 2}
    if task == "image-to-video":
        values["input"] |= {"first_frame": "latents" if extra else "unused"}
        values["encoder"] |= {"embed_dim": 16}
        values["encoder"]["vision"] |= {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 8}
        values["st_unet"]["context"] |= {"in_channels": 16, "tokens": 2}
    else:
        values["encoder"]["text"] |= {"width": 16, "heads": 2, "layers": 2}
    made = Configuration.from_json(copy.deepcopy(values))
    for path, value in changes.items():
        made = made.replace(path.replace("__", "."), value)
    return made


def folder(place: Path, task: str, **changes: Any) -> Path:
    """A model folder with new weights for all networks, as a run leaves it."""
    made = configuration(task, **changes)
    place.mkdir(parents=True)
    parts = {name: networks.fresh(made, name, seed) for seed, name in enumerate(("encoder", "st_unet", "autoencoder"))}
    write(place, made, parts, torch.float32)
    return place


def settings(name: str, model: Path, output: Path, **changes: Any) -> Settings:
    """Settings of a short run on a small model: the shipped ones of that name, made small."""
    given: dict[str, Any] = {
        "model": str(model),
        "output": str(output),
        "weights": {"encoder": "model", "st_unet": "model", "autoencoder": "model"},
        "length": {"steps": 4, "minutes": None},
        "batch": {"clips": 2, "pictures": 3, "accumulation": 1},
        "clips": {"frames": [FRAMES], "fps": [8], "sizes": [[WIDTH, HEIGHT]], "pictures_every": 0},
        "data.pool": None,
        "data.workers": 0,
        "numerics": NUMBERS,
        "log.every": 1,
        "validation": {"times": 0, "clips": 2, "steps": 2},
        "export": "float32",
    }
    return read(name, given | {path.replace("__", "."): value for path, value in changes.items()})


def log(output: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The logged numbers of a run."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]
