"""Weights converted once to another number format, kept for later loads; only for those who ask for it.

Given what `load` would convert anyway. The copy is a safetensors file in our own names, in the folder `converted` of
this package's cache, named by what it was made from: the file's sha256, the tensors that were taken, and the type. It
can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError, NonFiniteError
from i2vgen_ms.weights import safetensors_files
from i2vgen_ms.weights.casting import Casting
from i2vgen_ms.weights.checkpoint import OWN_FORMAT, open_checkpoint
from i2vgen_ms.weights.comparison import Comparison
from i2vgen_ms.weights.layout import IDENTITY
from i2vgen_ms.weights.memory import Memory, cache_folder
from i2vgen_ms.weights.verified import verify


def converted(casting: Casting, sha256: str, memory: Memory) -> Casting:
    """The same tensors, read from the converted copy, which is written if it is not there or damaged.

    `sha256` is the source file's. Raises OSError when the cache folder cannot be written, and what `Casting` raises.
    """
    path = cache_folder() / "converted" / f"{_key(casting, sha256)}.safetensors"
    try:
        return _opened(casting, path, memory)
    except (CheckpointError, NonFiniteError):  # not there, or damaged: nothing but a copy is lost
        _write(casting, path, sha256)
    return _opened(casting, path, memory)


def _opened(casting: Casting, path: Path, memory: Memory) -> Casting:
    checkpoint = open_checkpoint(path)
    expected = {ours: (casting.shape_of(ours), casting.dtype_of(ours)) for ours in casting.names()}
    if {name: (record.shape, record.dtype) for name, record in checkpoint.items()} != expected:
        raise CorruptCheckpointError(f"{path}: does not hold what was converted; delete it")
    verify(checkpoint, expected, finite=casting.check_finite, memory=memory)
    comparison = Comparison({name: name for name in expected}, IDENTITY)
    return replace(casting, checkpoint=checkpoint, comparison=comparison)


def _write(casting: Casting, path: Path, sha256: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial")
    try:
        write(casting, unfinished, {"sha256": sha256})
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def write(casting: Casting, path: Path, metadata: dict[str, str]) -> None:
    """Writes the casting's tensors to a new safetensors file in our names; one tensor is in memory at a time."""
    tensors = [
        (ours, casting.shape_of(ours), casting.dtype_of(ours), partial(casting.tensor, ours))
        for ours in casting.names()
    ]
    safetensors_files.write(path, tensors, {"format": OWN_FORMAT, **metadata})


def _key(casting: Casting, sha256: str) -> str:
    taken = [(ours, published, list(casting.shape_of(ours))) for ours, published in casting.comparison.pairs.items()]
    text = json.dumps([sha256, str(casting.dtype), sorted(taken)])
    return hashlib.sha256(text.encode()).hexdigest()[:40]
