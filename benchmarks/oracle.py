"""The published classes for measurements beside ours: full size, random non-zero weights, modelscope there or not.

Where modelscope is not installed they come from a folder that `copy_to` filled on a machine that has it: the few files
that define the networks and their samplers, with empty packages around them.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests import oracle
from tests.oracle import randomise

FILES = (
    "image_to_video/modules/autoencoder.py",
    "image_to_video/modules/embedder.py",
    "image_to_video/modules/unet_i2v.py",
    "image_to_video/utils/config.py",
    "image_to_video/utils/diffusion.py",
    "image_to_video/utils/shedule.py",
    "video_to_video/modules/autoencoder.py",
    "video_to_video/modules/embedder.py",
    "video_to_video/modules/unet_v2v.py",
    "video_to_video/utils/config.py",
    "video_to_video/utils/diffusion_sdedit.py",
    "video_to_video/utils/schedules_sdedit.py",
    "video_to_video/utils/solvers_sdedit.py",
)
LOGGER = "import logging\n\n\ndef get_logger():\n    return logging.getLogger('modelscope')\n"


def published(name: str) -> types.ModuleType:
    """The published module `name`, its attention scaled_dot_product_attention. Exits with advice if there is none."""
    if "modelscope" not in sys.modules and importlib.util.find_spec("modelscope") is None:
        raise SystemExit(
            "modelscope is not installed here: where it is, run `python -m benchmarks.published --copy-oracle FOLDER`, "
            "carry the folder here and give it with --oracle FOLDER"
        )
    _stand_in_for_missing()
    found = oracle.published(name)
    sys.modules["xformers.ops"].memory_efficient_attention = _attention  # type: ignore[attr-defined]
    return found


def use(folder: Path) -> None:
    """From now on the published classes are those of a folder that `copy_to` filled."""
    if not (folder / "modelscope").is_dir():
        raise SystemExit(f"{folder} has no folder modelscope; --copy-oracle {folder} makes it where modelscope is")
    if "modelscope" in sys.modules:
        raise SystemExit("--oracle comes too late: modelscope was imported already")
    sys.path.insert(0, str(folder.resolve()))


def copy_to(folder: Path) -> list[Path]:
    """Copies what `use` needs into a folder; returns the files."""
    spec = importlib.util.find_spec("modelscope")
    if spec is None or spec.origin is None:
        raise SystemExit("modelscope is not installed here, so that there is nothing to copy")
    source = Path(spec.origin).parent / "models" / "multi_modal"
    target = folder / "modelscope" / "models" / "multi_modal"
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    shutil.copyfile(Path(spec.origin).with_name("version.py"), folder / "modelscope" / "version.py")
    (folder / "modelscope" / "utils").mkdir(exist_ok=True)
    for path in [folder / "modelscope", *(folder / "modelscope").rglob("*/")]:
        (path / "__init__.py").touch()
    (folder / "modelscope" / "utils" / "logger.py").write_text(LOGGER, encoding="utf-8")
    return sorted((folder / "modelscope").rglob("*.py"))


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_bias: Any = None, op: Any = None) -> Any:
    # One head of as many items: the way in which xformers itself reads three dimensions.
    return F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)


def _stand_in_for_missing() -> None:
    """What the published files import and the networks of these measurements do not use."""
    if importlib.util.find_spec("rotary_embedding_torch") is None:
        sys.modules.setdefault("rotary_embedding_torch", types.ModuleType("rotary_embedding_torch"))
        sys.modules["rotary_embedding_torch"].RotaryEmbedding = nn.Identity  # type: ignore[attr-defined]


def arguments() -> dict[str, Any]:
    """The published constructor arguments of stage 1's network."""
    return dict(published("image_to_video.utils.config").cfg.UNet)


def network() -> nn.Module:
    """The published stage-1 network as its constructor leaves it."""
    unet: nn.Module = published("image_to_video.modules.unet_i2v").Img2VidSDUNet(**arguments())
    return unet


def write_checkpoint(path: str, seed: int = 0) -> int:
    """A synthetic fp32 file in the published format, {'state_dict': ...}; returns the bytes of its weights."""
    with torch.device("meta"):
        made = network()
    state = randomise(made.to_empty(device="cpu"), seed).state_dict()
    torch.save({"state_dict": state}, path)
    return sum(tensor.nbytes for tensor in state.values())
