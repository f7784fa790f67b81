"""Device names as ModelScope's users write them. Nothing here makes a device the current one of the process."""

from __future__ import annotations

import warnings

import torch


class DeviceWarning(UserWarning):
    """A GPU was asked for, and the work runs on the CPU."""


def placed(device: str | torch.device | None) -> str | None:
    """`gpu`, `gpu:1`, `cuda`, `cuda:1`, `cpu` as torch names it; None stays None (the best there is).

    Without CUDA a GPU becomes the CPU, with one DeviceWarning: ModelScope's scripts name a GPU by habit, and its own
    code falls back too. Whether a device of that number exists is checked where the networks are loaded.
    """
    if device is None:
        return None
    name = str(device).lower().replace("gpu", "cuda", 1)
    if name.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        warnings.warn(
            f"device {str(device)!r} was asked for, but torch finds no CUDA device: running on the CPU, where the "
            "full-size model takes hours",
            DeviceWarning,
            stacklevel=2,
        )
        return "cpu"
    return name
