"""What is known of one tensor in a weight file before its data is read.

Given by the format readers. A record knows where its elements lie and reads nothing until `load()`; it does not know
what the tensor is for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from i2vgen_ms.weights.mapping import MappedFile


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the file with its own checksum (a zip entry); `crc` is None where the file has none."""

    start: int
    length: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor: `start` is the file position of its first element in bytes, `stride` counts elements."""

    file: MappedFile
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    span: Span

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's elements, which may be fewer than its storage has."""
        return self.numel * self.dtype.itemsize

    @property
    def reach(self) -> int:
        """Elements from the first to the last, the gaps of a transposed or sliced tensor included."""
        if self.numel == 0:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def load(self) -> torch.Tensor:
        """The tensor as a view of the mapped file: nothing is copied, pages are read when touched."""
        if self.numel == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        return self.file.tensor(self.start, self.reach, self.dtype).as_strided(self.shape, self.stride)

    def release(self) -> None:
        """Lets go of the file's pages behind this tensor, once its values were copied elsewhere."""
        self.file.release(self.start, self.reach * self.dtype.itemsize)


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a row-major tensor of this shape."""
    stride: list[int] = []
    step = 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))
