"""A file mapped into memory, handing out tensors that are the file's own pages.

Given a path. Pages are read when they are touched, shared with every other process that maps the file, and given back
by the system when memory is short. The mapping is private: writing into a tensor never reaches the file. It does not
know formats or names. A file must not be cut short while it is mapped (replacing it by rename is safe), as with every
mapping.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import torch

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError


class MappedFile:
    """One regular file, mapped; `len()` is its size in bytes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises CheckpointError when `path` is no readable regular file, CorruptCheckpointError when it is empty."""
        self.path = Path(path)
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):  # asked before opening: a FIFO would block
                raise CheckpointError(f"{self.path}: not a regular file")
            with self.path.open("rb") as file:
                self.stat = os.fstat(file.fileno())
                if self.stat.st_size == 0:
                    raise CorruptCheckpointError(f"{self.path}: the file is empty; download it again")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self._map)

    def bytes(self, start: int, length: int) -> bytes:
        """A copy of at most `length` bytes from `start`; shorter at the end of the file."""
        return self._map[start : start + length]

    def tensor(self, start: int, count: int, dtype: torch.dtype) -> torch.Tensor:
        """`count` elements from byte `start` as a flat tensor over the mapping; copied only where it is not aligned."""
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if start < 0 or start + count * dtype.itemsize > len(self):
            raise CorruptCheckpointError(f"{self.path}: a tensor lies outside the file")
        if start % dtype.itemsize:
            raw = torch.frombuffer(self._map, dtype=torch.uint8, count=count * dtype.itemsize, offset=start)
            return raw.clone().view(dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=start)

    def release(self, start: int, length: int) -> None:
        """Lets go of the pages wholly inside the span; what was written into them is lost, the file is read again.

        For data that was copied elsewhere (to a device, to another dtype), so that it does not count as memory in use.
        """
        page = mmap.PAGESIZE
        first = -(-start // page) * page
        last = min((start + length) // page * page, len(self))
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
