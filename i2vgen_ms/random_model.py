"""Small models with random weights, in the published file formats: they show that everything works, and noise.

Given a folder. Tests, benchmarks and evaluations use them where no trained weights are wanted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.config.schema import FILE, Configuration

# the shipped configuration of the small model, by its task
MODELS = {"image-to-video": "demo", "video-to-video": "demo-video-to-video"}


def make_random_model(
    folder: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    task: Literal["image-to-video", "video-to-video"] = "image-to-video",
) -> Path:
    """Fills `folder` with a small model of random weights, in the layout and the file formats of the published one.

    Args:
        folder: made if needed; files of it are replaced.
        changes: values for the configuration's `model_cfg`, such as {"max_frames": 4}.
        seed: of the weights.
        task: of the model.
    Returns: the folder. Raises: KeyError for another task.
    """
    from i2vgen_ms.config import reader

    folder = Path(folder)
    values = json.loads((configuration_folder() / MODELS[task] / FILE).read_text(encoding="utf-8"))
    values["model"]["model_cfg"] |= changes or {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(values, indent=2), encoding="utf-8")
    write_random_weights(folder, reader.read(folder), seed=seed)
    return folder


def write_random_weights(
    folder: Path, configuration: Configuration, *, seed: int = 0, dtype: Any = None, device: str = "cpu"
) -> None:
    """Writes the weight files that `configuration` names into `folder`, in the published formats.

    dtype: of the files, a torch.dtype; None is fp32. device: where the numbers are made, which decides what they are.
    """
    import torch

    from i2vgen_ms.weights import architecture

    generator = torch.Generator(device).manual_seed(seed)
    for name in architecture.NETWORKS:
        built = architecture.build(configuration, name)
        state = {}
        for ours, tensor in built.network.state_dict().items():
            published = built.layout.to_published(ours)
            values = random_values(ours, tensor.shape, generator).to("cpu", dtype or torch.float32)
            state[published] = built.layout.to_published_shape(ours, values).contiguous()
        content: Any = state if name == "encoder" else {"state_dict": state}
        torch.save(content, folder / getattr(configuration.weights, name))


def random_values(name: str, shape: Any, generator: Any) -> Any:
    """Values under which activations keep their size from layer to layer, so that nothing overflows or dies.

    `name` tells weights from biases; `shape` is a torch.Size, and the values are on the generator's device or the CPU.
    """
    import torch

    if len(shape) > 1:
        return torch.randn(shape, generator=generator, device=generator.device) / shape[1:].numel() ** 0.5
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
