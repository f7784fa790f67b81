"""What a weight file lacks, has too much, or has in another shape than a network wants.

Given the network's tensors (on the meta device: only names, shapes and types are looked at), an opened checkpoint and
the layout between them. Reads headers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from i2vgen_ms.weights.checkpoint import Checkpoint
from i2vgen_ms.weights.layout import IDENTITY, Layout

SHOWN = 10


@dataclass(frozen=True)
class Comparison:
    """The outcome: `pairs` maps our names to the file's; the lists hold one line of text for each difference."""

    pairs: Mapping[str, str]
    layout: Layout
    missing: Sequence[str] = field(default=())
    unexpected: Sequence[str] = field(default=())
    misshaped: Sequence[str] = field(default=())
    mistyped: Sequence[str] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the file holds exactly the network's tensors."""
        return not (self.missing or self.unexpected or self.misshaped or self.mistyped)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.misshaped,
            "of another type": self.mistyped,
        }
        for kind, found in kinds.items():
            if found:
                yield f"{len(found)} tensor{'s' if len(found) > 1 else ''} {kind}:"
                yield from (f"  {line}" for line in found[:SHOWN])
                if len(found) > SHOWN:
                    yield f"  ... and {len(found) - SHOWN} more"


def compare(wanted: Mapping[str, Tensor], checkpoint: Checkpoint, layout: Layout = IDENTITY) -> Comparison:
    """Compares a network's tensors by name with a file's; the layout is ignored for a file with our own names."""
    if checkpoint.own_names:
        layout = IDENTITY
    pairs: dict[str, str] = {}
    unexpected: list[str] = []
    misshaped: list[str] = []
    mistyped: list[str] = []
    for published, record in checkpoint.items():
        try:
            ours = layout.to_ours(published)
        except LookupError:
            ours = published
        if ours is None:
            continue
        if ours not in wanted:
            unexpected.append(f"{_clip(published)} {list(record.shape)}")
        elif ours in pairs:
            unexpected.append(f"{_clip(published)}, which is the same tensor as {_clip(pairs[ours])}")
        else:
            pairs[ours] = published
            target = wanted[ours]
            try:
                shape = layout.to_our_shape(ours, torch.empty(record.shape, device="meta")).shape
            except (RuntimeError, ValueError, IndexError, TypeError):  # the file's shape does not fit the layout at all
                shape = torch.Size(record.shape)
                fits = False
            else:
                fits = shape == target.shape
            if not fits:
                misshaped.append(f"{_both(ours, published)}: {list(shape)} in the file, {list(target.shape)} wanted")
            elif not _convertible(record.dtype, target.dtype):
                mistyped.append(f"{_both(ours, published)}: {record.dtype} in the file, {target.dtype} wanted")
    missing = [
        f"{_both(ours, _published(layout, ours))} {list(t.shape)}" for ours, t in wanted.items() if ours not in pairs
    ]
    return Comparison(pairs, layout, missing, unexpected, misshaped, mistyped)


def _convertible(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Real numbers of any precision stand for each other; integers, booleans and complex numbers only for themselves."""
    return stored == wanted or (stored.is_floating_point and wanted.is_floating_point)


def _published(layout: Layout, ours: str) -> str:
    try:
        return layout.to_published(ours)
    except LookupError:
        return ours


def _both(ours: str, published: str) -> str:
    return ours if ours == published else f"{ours} ({_clip(published)})"


def _clip(name: str) -> str:
    return name if name.isprintable() and len(name) <= 150 else repr(name[:150])
