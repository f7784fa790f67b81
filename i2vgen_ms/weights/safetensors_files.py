"""The safetensors format: a JSON header that says where each tensor lies, then the tensors.

Given a mapped file to read, or named tensors to write one after the other, so that neither needs the file's size in
memory. It does not know whose tensors they are. Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from i2vgen_ms.errors import CorruptCheckpointError
from i2vgen_ms.weights import limits
from i2vgen_ms.weights.mapping import MappedFile
from i2vgen_ms.weights.records import Span, TensorRecord, contiguous_stride

_FORMATS_LIMIT = 100_000_000  # of a header; what the parsed JSON of so large a one takes is gigabytes
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def looks_like(file: MappedFile) -> bool:
    """Whether the file begins as a safetensors file does: a header's length, then a JSON object."""
    start = file.bytes(0, 9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _FORMATS_LIMIT


def read(file: MappedFile) -> tuple[dict[str, TensorRecord], dict[str, str]]:
    """The tensors and the metadata of a file. Raises CorruptCheckpointError when it is cut off or wrong in itself."""
    length = int.from_bytes(file.bytes(0, 8), "little")
    if 8 + length > len(file):
        raise CorruptCheckpointError("the file is cut off within its header; download it again")
    if length > limits.SAFETENSORS_HEADER_BYTES:
        raise CorruptCheckpointError(
            f"its header is larger than {limits.SAFETENSORS_HEADER_BYTES >> 20} MiB, as no model's is"
        )
    try:
        header = json.loads(file.bytes(8, length), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError("its header is no JSON; download it again") from error
    if not isinstance(header, dict) or len(header) > limits.TENSORS:
        raise CorruptCheckpointError("its header is no list of tensors, or too long a one")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptCheckpointError("its metadata is not text")
    records = {name: _record(file, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for record in sorted(records.values(), key=lambda record: (record.start, record.nbytes)):
        if record.start < end:
            raise CorruptCheckpointError("its tensors overlap")
        end = record.start + record.nbytes
    return records, metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _record(file: MappedFile, name: str, entry: Any, base: int) -> TensorRecord:
    shown = f"{name!r:.120}"
    if not isinstance(entry, dict):
        raise CorruptCheckpointError(f"its tensor {shown} is not described")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry.get("dtype"), str) else None
    if dtype is None:
        raise CorruptCheckpointError(
            f"its tensor {shown} is of the type {entry.get('dtype')!r:.40}, which is not read here"
        )
    shape, offsets = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > limits.DIMENSIONS:
        raise CorruptCheckpointError(f"its tensor {shown} has an impossible shape or place")
    start, end = offsets
    if end - start != math.prod(shape) * dtype.itemsize:
        raise CorruptCheckpointError(f"its tensor {shown} has {end - start} bytes for the shape {shape}")
    if base + end > len(file):
        raise CorruptCheckpointError("the file is cut off within its tensors; download it again")
    return TensorRecord(file, dtype, shape, contiguous_stride(shape), base + start, Span(base + start, end - start))


def _counts(values: Any) -> tuple[int, ...] | None:
    if isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values):
        return tuple(values)
    return None


def write(
    path: str | os.PathLike[str],
    tensors: Iterable[tuple[str, tuple[int, ...], torch.dtype, Callable[[], torch.Tensor]]],
    metadata: Mapping[str, str],
) -> None:
    """Writes a new file at `path` and flushes it to the disk.

    Args:
        tensors: name, shape, dtype and a function that gives the tensor when its turn comes; one is held at a time.
        metadata: text by name, kept in the header.

    Raises FileExistsError when `path` is there, OSError when it cannot be written; a part may then be left.
    """
    planned = sorted(tensors, key=lambda entry: (-entry[2].itemsize, entry[0]))  # wide types first: all stay aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, shape, dtype, _ in planned:
        end = at + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape, dtype, make in planned:
            tensor = make()
            if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
                raise ValueError(f"{name} was announced as {shape} {dtype} and is {tuple(tensor.shape)} {tensor.dtype}")
            if tensor.numel():
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                file.write(flat.view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
