"""The state of a run in one file, from which it goes on after a kill to the same bits.

Given the trained parameters, their average and the optimiser; a safetensors file, written beside its place and moved
there whole. What is random in a run follows from its seed and its step, so that the step is all there is to keep of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.errors import CorruptCheckpointError, MismatchedCheckpointError, OutputError
from i2vgen_ms.training.ema import Average
from i2vgen_ms.weights import safetensors_files
from i2vgen_ms.weights.checkpoint import Checkpoint, open_checkpoint

FORMAT = "i2vgen-ms-run/1"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save(
    path: Path,
    numbers: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    average: Average | None,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Writes a run's state. numbers: what JSON can hold. Raises: OutputError when it cannot be written."""
    tensors = dict(_tensors(parameters, average, optimiser))
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    entries = [(name, tuple(t.shape), t.dtype, lambda t=t: t.detach().cpu()) for name, t in tensors.items()]
    try:
        safetensors_files.write(unfinished, entries, {"format": FORMAT, "run": json.dumps(dict(numbers))})  # type: ignore[arg-type]
        os.replace(unfinished, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def numbers_of(path: Path) -> dict[str, Any]:
    """The numbers that a run's state was written with. Raises: CheckpointError."""
    return _opened(path)[1]


def restore(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    average: Average | None,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Puts a run's state into the parameters, their average and the optimiser.

    Raises: CheckpointError; MismatchedCheckpointError for a state of another network, before anything is changed.
    """
    checkpoint, _ = _opened(path)
    for name, parameter in parameters.items():  # so that the optimiser has the tensors that are to be filled
        optimiser.state[parameter] = _empty_moments(parameter, name, checkpoint)
    wanted = dict(_tensors(parameters, average, optimiser))
    held = {name: record.shape for name, record in checkpoint.items()}
    if held != {name: tuple(tensor.shape) for name, tensor in wanted.items()}:
        different = sorted(name for name in held.keys() ^ wanted.keys()) or ["shapes"]
        raise MismatchedCheckpointError(
            f"{path} is the state of another run ({len(different)} differences, such as {different[0]}); "
            "start anew in another folder"
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(checkpoint[name].load())


def _tensors(
    parameters: Mapping[str, nn.Parameter], average: Average | None, optimiser: torch.optim.Optimizer
) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in parameters.items():
        yield f"network.{name}", parameter.data
        moments = optimiser.state.get(parameter, {})
        yield from ((f"optimiser.{name}.{key}", moments[key]) for key in _MOMENTS if key in moments)
    if average is not None:
        yield from ((f"average.{name}", tensor) for name, tensor in average.values.items())


def _empty_moments(parameter: nn.Parameter, name: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The optimiser's tensors of one parameter, in the parameter's memory layout; none if it had no gradient yet."""
    if f"optimiser.{name}.step" not in checkpoint:
        return {}
    fused = parameter.device.type == "cuda"
    step = torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu")
    return {"step": step, **{key: torch.zeros_like(parameter.data) for key in _MOMENTS[1:]}}


def _opened(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    checkpoint = open_checkpoint(path)
    try:
        numbers = json.loads(checkpoint.metadata.get("run", ""))
    except ValueError:
        numbers = None
    if checkpoint.metadata.get("format") != FORMAT or not isinstance(numbers, dict):
        raise CorruptCheckpointError(f"{path}: is not the state of a run")
    return checkpoint, numbers
