"""The tensors of a compared file as ours: in our names and shapes, in the wanted type, on the wanted device.

Given an opened checkpoint, its comparison with a network, and a dtype. One tensor is made at a time, and the file's
pages behind a copied one are let go of. It does not know what the tensors are for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from i2vgen_ms.errors import NonFiniteError
from i2vgen_ms.weights.checkpoint import Checkpoint
from i2vgen_ms.weights.comparison import Comparison
from i2vgen_ms.weights.verified import is_finite


@dataclass(frozen=True)
class Casting:
    """Makes the tensors of `checkpoint` one by one.

    `dtype` is of the real-number tensors (None: as stored). With `check_finite`, values it cannot hold are refused.
    """

    checkpoint: Checkpoint
    comparison: Comparison
    dtype: torch.dtype | None = None
    device: torch.device | str = "cpu"
    check_finite: bool = True

    def names(self) -> list[str]:
        """Our names, in the order in which the file holds them, so that it is read from front to back."""
        pairs = self.comparison.pairs
        return sorted(pairs, key=lambda ours: self.checkpoint[pairs[ours]].start)

    def dtype_of(self, ours: str) -> torch.dtype:
        """The type that the tensor will have."""
        stored = self.checkpoint[self.comparison.pairs[ours]].dtype
        return self.dtype if self.dtype is not None and stored.is_floating_point else stored

    def changes_types(self) -> bool:
        """Whether any tensor has to be converted."""
        return any(self.dtype_of(ours) != self.checkpoint[name].dtype for ours, name in self.comparison.pairs.items())

    def shape_of(self, ours: str) -> tuple[int, ...]:
        """The shape that the tensor will have."""
        record = self.checkpoint[self.comparison.pairs[ours]]
        return tuple(self.comparison.layout.to_our_shape(ours, torch.empty(record.shape, device="meta")).shape)

    def tensor(self, ours: str) -> Tensor:
        """Our tensor `ours`: the file's own pages where type and device allow it, else a copy.

        Raises NonFiniteError for values that are too large for the type.
        """
        published = self.comparison.pairs[ours]
        record = self.checkpoint[published]
        stored = record.load()
        wanted = self.dtype_of(ours)
        tensor = self.comparison.layout.to_our_shape(ours, stored)
        if wanted == stored.dtype and torch.device(self.device).type == "cpu":
            return tensor.contiguous()  # mapped as it is, unless it was saved transposed
        tensor = tensor.to(self.device).to(wanted).contiguous()
        if self.check_finite and _narrower(wanted, stored.dtype) and not is_finite(tensor):
            raise NonFiniteError(
                f"{self.checkpoint.path}: the weights {published} have values that {wanted} cannot hold; use float32"
            )
        record.release()
        return tensor


def _narrower(wanted: torch.dtype, stored: torch.dtype) -> bool:
    """Whether a finite number of the stored type can be too large for the wanted one."""
    return wanted.is_floating_point and torch.finfo(wanted).max < torch.finfo(stored).max
