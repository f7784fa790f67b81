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
            if not _fits(layout, ours, record.shape, target):
                shapes = f"{list(record.shape)} in the file, {list(_published_shape(layout, ours, target))} wanted"
                misshaped.append(f"{_both(ours, published)}: {shapes}")
            elif not _convertible(record.dtype, target.dtype):
                mistyped.append(f"{_both(ours, published)}: {record.dtype} in the file, {target.dtype} wanted")
    missing = [
        f"{_both(ours, _published(layout, ours))} {list(_published_shape(layout, ours, target))}"
        for ours, target in wanted.items()
        if ours not in pairs
    ]
    return Comparison(pairs, layout, missing, unexpected, misshaped, mistyped)


def _fits(layout: Layout, ours: str, stored: tuple[int, ...], target: Tensor) -> bool:
    """Whether the layout makes our shape of the stored one, by a view that gives the stored one back."""
    try:
        view = layout.to_our_shape(ours, torch.empty(stored, device="meta"))
        return view.shape == target.shape and tuple(_published_shape(layout, ours, view)) == stored
    except (RuntimeError, ValueError, LookupError, TypeError):  # a shape that the layout cannot treat at all
        return False


def _published_shape(layout: Layout, ours: str, tensor: Tensor) -> torch.Size:
    return layout.to_published_shape(ours, torch.empty(tensor.shape, device="meta")).shape


def _convertible(stored: torch.dtype, wanted: torch.dtype) -> bool:
    """Real numbers of any precision stand for each other; integers, booleans, complex numbers for themselves only."""
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
