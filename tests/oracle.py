"""The published classes, as the installed `modelscope` ships them, for sameness tests.

They import xformers and fairscale at module level (defect A4). Neither is needed to know what they compute, so inert
stand-ins are put into `sys.modules` while they are imported: attention is plain softmax attention, checkpointing is a
pass-through. `published('image_to_video.modules.unet_i2v')` returns the module of that name below
`modelscope.models.multi_modal`, past any redirection that this package installs for users.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from typing import Any

import torch

ROOT = "modelscope.models.multi_modal."


def _memory_efficient_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_bias: Any = None, op: Any = None
) -> torch.Tensor:
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    return weights @ v


def _stand_in(name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []  # type: ignore[attr-defined]
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def _install_stand_ins() -> None:
    if "xformers" not in sys.modules:
        ops = _stand_in("xformers.ops", memory_efficient_attention=_memory_efficient_attention)
        sys.modules["xformers"] = _stand_in("xformers", ops=ops)
        sys.modules["xformers.ops"] = ops
    if "fairscale" not in sys.modules:
        checkpoint = _stand_in("fairscale.nn.checkpoint", checkpoint_wrapper=lambda module, **_: module)
        nn = _stand_in("fairscale.nn", checkpoint=checkpoint)
        sys.modules["fairscale"] = _stand_in("fairscale", nn=nn)
        sys.modules["fairscale.nn"] = nn
        sys.modules["fairscale.nn.checkpoint"] = checkpoint


def published(name: str) -> types.ModuleType:
    """The published module `modelscope.models.multi_modal.<name>`."""
    _install_stand_ins()
    return importlib.import_module(ROOT + name)


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 1.0) -> torch.nn.Module:
    """Gives every parameter non-zero values, the published zero-initialised layers too, and switches to eval.

    Without it whole branches of a fresh published network are multiplied by zero, and a test sees nothing of them.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * scale / fan_in**0.5)
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)
    return module.eval()


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative L2 distance, in float64."""
    ours, theirs = ours.double(), theirs.double()
    return float((ours - theirs).norm() / theirs.norm())
