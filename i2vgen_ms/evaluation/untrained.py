"""A model folder whose ST-UNet was never trained, the rest unchanged: what training must be better than."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from i2vgen_ms.config.reader import weight_file
from i2vgen_ms.config.schema import FILE, Configuration
from i2vgen_ms.random_model import random_values
from i2vgen_ms.weights import architecture, safetensors_files
from i2vgen_ms.weights.checkpoint import OWN_FORMAT

_NAME = "untrained.safetensors"


def write_untrained(folder: Path, configuration: Configuration, source: Path, *, seed: int = 0) -> Path:
    """Fills the empty `folder` with the model of the folder `source`, its ST-UNet's weights drawn at random.

    Random weights keep the size of what passes through them. Files are linked where the file system can.
    """
    changed = configuration.replace("weights.st_unet", _NAME)
    (folder / FILE).write_text(json.dumps(changed.to_json(), indent=2), encoding="utf-8")
    for name in {changed.weights.encoder, changed.weights.autoencoder}:
        path, target = weight_file(source, name), folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)
    generator = torch.Generator().manual_seed(seed)
    network = architecture.build(configuration, "st_unet").network
    entries = []
    for name, tensor in network.state_dict().items():

        def make(name: str = name, shape: torch.Size = tensor.shape) -> Tensor:
            values: Tensor = random_values(name, shape, generator).half()
            return values

        entries.append((name, tuple(tensor.shape), torch.float16, make))
    safetensors_files.write(folder / _NAME, entries, {"format": OWN_FORMAT, "part": "st_unet"})
    return folder
