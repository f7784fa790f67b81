"""Loading a weight file into a network that was built on the meta device.

Given a network whose tensors have shapes but no data, a file, and the layout between them. Names, shapes and types
are compared, both ways, before any data is read. Tensors become the file's own mapped pages; only those that must be
of another type or on another device are copied, one at a time. It does not know what the network computes.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from i2vgen_ms.errors import CheckpointError, MismatchedCheckpointError
from i2vgen_ms.weights.cache import converted
from i2vgen_ms.weights.casting import Casting
from i2vgen_ms.weights.checkpoint import Checkpoint, open_checkpoint
from i2vgen_ms.weights.comparison import Comparison, compare
from i2vgen_ms.weights.layout import IDENTITY, Layout
from i2vgen_ms.weights.memory import Memory
from i2vgen_ms.weights.verified import verify

Network = TypeVar("Network", bound=nn.Module)


def load(
    module: Network,
    source: str | os.PathLike[str] | Checkpoint,
    layout: Layout = IDENTITY,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    check_finite: bool = True,
    sha256: str | None = None,
    memory: Memory | None = None,
    cache: bool = False,
) -> Network:
    """Gives `module`, built on the meta device, the tensors of a file, and returns it.

    Args:
        source: the file, or one that `open_checkpoint` opened.
        layout: the file's names and shapes; ignored for a file that `convert` wrote.
        dtype: of all real-number tensors; None leaves each as it is stored.
        device: where the tensors go; None is the CPU. On the CPU, tensors of the right type stay mapped from the file.
        check_finite: refuse NaN and infinity, also where `dtype` cannot hold a value.
        sha256: of the whole file, if it is known what it should be.
        memory: where it is remembered what was checked; None is the user's own.
        cache: keep a copy converted to `dtype` in this package's cache folder, and load it the next time.

    Raises:
        MismatchedCheckpointError: tensors are missing, unexpected, of another shape or type; ten of each are listed.
        UnsafeCheckpointError, CorruptCheckpointError: see `open_checkpoint` and `verify`.
        NonFiniteError: a tensor holds NaN or infinity, or values that `dtype` cannot hold.
    """
    memory = memory or Memory()
    if isinstance(source, Checkpoint):
        checkpoint = source
    else:
        twin = memory.twin(source)
        checkpoint = open_checkpoint(twin)
        if twin != Path(source):  # which may be a file that no hub listed
            sha256 = sha256 or memory.expected(source)
    comparison = matching(module, checkpoint, layout)
    digest = verify(checkpoint, comparison.pairs.values(), finite=check_finite, sha256=sha256, memory=memory)
    casting = Casting(checkpoint, comparison, dtype, check_finite=check_finite)
    if cache and casting.changes_types():
        casting = converted(casting, digest, memory)
    casting = replace(casting, device=device or "cpu")
    module.load_state_dict({name: casting.tensor(name) for name in casting.names()}, strict=True, assign=True)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta:
            raise CheckpointError(f"{name} is neither in the file nor computed by the network; it has no values")
    return module


def matching(module: nn.Module, checkpoint: Checkpoint, layout: Layout = IDENTITY) -> Comparison:
    """Compares a network with an opened file, reading headers only.

    Raises MismatchedCheckpointError with a readable list unless the file holds exactly the network's tensors.
    """
    comparison = compare(module.state_dict(keep_vars=True), checkpoint, layout)
    if not comparison.ok:
        raise MismatchedCheckpointError(
            f"{checkpoint.path} does not fit {type(module).__name__}:\n{comparison}\n"
            "Use the file that belongs to this configuration, or describe its architecture in configuration.json."
        )
    return comparison
