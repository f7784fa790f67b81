"""The demonstration: the whole job on a bundled picture, on any machine, without a network connection.

No trained weights are bundled yet, so it makes a small model folder with random weights, in the published file formats,
and says so: the video shows that everything works, and noise.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.config.schema import FILE, Configuration

# the shipped configuration of the small model, by its task
MODELS = {"image-to-video": "demo", "video-to-video": "demo-video-to-video"}


def picture() -> Path:
    """The bundled picture."""
    return configuration_folder() / "demo" / "picture.jpg"


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


def run(output: str = "demo.mp4", *, steps: int = 12, say: Callable[[str], Any] = print) -> Path:
    """Makes a video from the bundled picture; `say` is told, line by line, what is done and what comes next."""
    from i2vgen_ms.pipelines import load

    started = time.monotonic()
    say("i2vgen_ms demo: a picture becomes a video, on this machine alone.")
    say("  No trained weights are bundled with this version. A small model with RANDOM weights is made now, in the")
    say("  published file formats, so the video will show coloured noise: it proves the way, not the quality.")
    folder = Path(tempfile.mkdtemp(prefix="i2vgen_ms-demo-"))
    try:
        pipeline = load(make_random_model(folder), device="cpu")
        result = pipeline(picture(), output=output, steps=steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    path = Path(result.path).resolve()
    shape = pipeline.configuration.output
    say(f"  picture  {picture()}")
    say(f"  video    {path} ({shape.num_frames} frames of {shape.width}x{shape.height}, seed {result.seed})")
    say(f"  took     {time.monotonic() - started:.1f} s")
    say("Next, with the published weights (about 11 GB, CC-BY-NC-ND-4.0; a GPU is advised):")
    say("  i2vgen-ms download damo/Image-to-Video --revision v1.1.0")
    say("  i2vgen-ms image-to-video PICTURE --model damo/Image-to-Video -o video.mp4")
    return path
