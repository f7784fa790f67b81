"""Whether a weight file is sound: its sha256, its checksums, and that its numbers are finite.

Given an opened checkpoint and the names of the tensors that somebody wants from it. What was found out is kept in a
`weights.memory`, so that a file is read through once.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

from i2vgen_ms.errors import CorruptCheckpointError, NonFiniteError
from i2vgen_ms.weights.checkpoint import Checkpoint
from i2vgen_ms.weights.memory import Entry, Memory, identity
from i2vgen_ms.weights.records import TensorRecord


def verify(
    checkpoint: Checkpoint,
    names: Iterable[str],
    *,
    finite: bool = True,
    sha256: str | None = None,
    memory: Memory | None = None,
) -> str:
    """The sha256 of a file whose named tensors are whole and, if `finite`, free of NaN and infinity.

    The file is read once, the first time; later calls find the answer in `memory` (by default the user's) and read
    nothing.

    Raises:
        CorruptCheckpointError: its sha256 is not the expected `sha256`, or not what the hub it was downloaded from
            listed, or a tensor does not match its checksum.
        NonFiniteError: naming the tensor that holds NaN or infinity.
    """
    memory = memory or Memory()
    wanted = sorted(names)
    key = hashlib.sha256("\n".join([f"finite={finite}", *wanted]).encode()).hexdigest()[:32]
    stat = checkpoint.file.stat
    known = memory.recall(stat)
    if known is None or key not in known.checked:
        with ThreadPoolExecutor(1) as pool:  # hashing and checking both leave the interpreter free
            digest = None if known else pool.submit(_digest, checkpoint)
            for name in wanted:
                _check(checkpoint, name, checkpoint[name], finite)
            found = known.sha256 if known else digest.result() if digest else ""
        checked = known.checked if known else ()
        known = Entry(str(checkpoint.path.resolve()), found, (*checked, key)[-32:])
        memory.remember(stat, known)  # of what it is, not of what it should be
    _expect(checkpoint, known.sha256, sha256)
    _expect_listed(checkpoint, known.sha256, memory)
    return known.sha256


def _digest(checkpoint: Checkpoint) -> str:
    with checkpoint.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if identity(os.fstat(file.fileno())) != identity(checkpoint.file.stat):
            raise CorruptCheckpointError(f"{checkpoint.path}: the file changed while it was read; load it again")
    return digest


def _expect(checkpoint: Checkpoint, found: str, wanted: str | None) -> None:
    if wanted is not None and found != wanted.lower():
        raise CorruptCheckpointError(
            f"{checkpoint.path}: its sha256 is {found}, but {wanted.lower()} is expected; download it again"
        )


def _expect_listed(checkpoint: Checkpoint, found: str, memory: Memory) -> None:
    listed = memory.expected(checkpoint.path)
    if listed is not None and found != listed:
        raise CorruptCheckpointError(
            f"{checkpoint.path}: its sha256 is {found}, but the hub listed {listed}: it was damaged or changed since "
            "it was downloaded; download it again, or copy the model's folder elsewhere to use it as it is"
        )


def _check(checkpoint: Checkpoint, name: str, record: TensorRecord, finite: bool) -> None:
    span = record.span
    if span.crc is not None and span.length:
        data = record.file.tensor(span.start, span.length, torch.uint8)
        if zlib.crc32(data.numpy().data) != span.crc:
            raise CorruptCheckpointError(
                f"{checkpoint.path}: the data of {name} does not match its checksum; download it again"
            )
    if finite and not is_finite(record.load()):
        raise NonFiniteError(
            f"{checkpoint.path}: the weights {name} hold NaN or infinity; the file is damaged or its training failed"
        )
    record.release()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite, in one pass and without a temporary of the tensor's size."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    low, high = torch.aminmax(tensor)  # NaN, too, comes through
    return bool(torch.isfinite(low) & torch.isfinite(high))
