"""Which device to run on."""

from __future__ import annotations

import torch

from i2vgen_ms.errors import DeviceError


def choose(name: str | torch.device | None = None) -> torch.device:
    """The device of that name (`cpu`, `cuda`, `cuda:1`, `gpu`); without a name CUDA if there is one, else the CPU.

    Raises: DeviceError for a name that is not a device, or a device that is not there. Nothing falls back silently.
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    text = str(name)
    kind = text.replace("gpu", "cuda", 1) if text.startswith("gpu") else text
    try:
        device = torch.device(kind)
    except RuntimeError as error:
        raise DeviceError(f"device {text!r} is unknown; use 'cpu', 'cuda' or 'cuda:<number>'") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device {text!r} is not supported; use 'cpu', 'cuda' or 'cuda:<number>'")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {text!r} was asked for, but torch finds no CUDA device; use device 'cpu'")
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"device {text!r} was asked for, but there are only {count} CUDA devices (from cuda:0)")
    return torch.device("cuda", index)


def has_copy_engine(device: torch.device) -> bool:
    """Whether the device brings tiles of a tensor by itself (compute capability 9.0 and later)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


def on_hopper(device: torch.device) -> bool:
    """Whether the device multiplies by groups of warps (compute capability 9.0), as none does before or after it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors a CUDA device has."""
    return torch.cuda.get_device_properties(device).multi_processor_count
