"""Model folders for the tests: the whole of an official configuration.json, and writing one to disk."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

HUB: dict[str, Any] = {
    "framework": "pytorch",
    "task": "image-to-video",
    "model": {
        "type": "image-to-video-model",
        "model_args": {
            "ckpt_clip": "open_clip_pytorch_model.bin",
            "ckpt_unet": "base_03_alldata_fps_v_80g_0789000.pth",
            "ckpt_autoencoder": "v2-1_512-ema-pruned.ckpt",
            "seed": 666,
        },
        "model_cfg": {"batch_size": 1, "target_fps": 8, "max_frames": 32, "latent_hei": 32, "latent_wid": 56},
    },
    "pipeline": {"type": "image-to-video-task-pipeline"},
}


def hub(**model_cfg: Any) -> dict[str, Any]:
    """The official file with other values in model_cfg; a fresh copy."""
    values = copy.deepcopy(HUB)
    values["model"]["model_cfg"] |= model_cfg
    return values


def change(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path set; `...` deletes the key."""
    values = copy.deepcopy(values)
    *parents, last = path.split(".")
    target = values
    for key in parents:
        target = target.setdefault(key, {})
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return values


def write(folder: Path, content: Any) -> Path:
    """Writes configuration.json (bytes, text, or anything JSON can say) and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "configuration.json").write_bytes(data)
    return folder
