"""Tensor names of OpenCLIP files, which hold a vision tower and a text tower, for the encoder that needs one of them.

It knows nothing of files and builds no network. No tensor has another shape here than there.
"""

from __future__ import annotations

import re

from torch import Tensor


class _SameShapes:
    """Both towers are open_clip's own classes."""

    def to_our_shape(self, ours: str, tensor: Tensor) -> Tensor:
        """The tensor as it is."""
        return tensor

    def to_published_shape(self, ours: str, tensor: Tensor) -> Tensor:
        """The tensor as it is."""
        return tensor


class ImageEncoderLayout(_SameShapes):
    """The vision tower: `visual.` there, `tower.` here."""

    def to_ours(self, published: str) -> str | None:
        """Our name; None for what is not of the vision tower."""
        return "tower." + published.removeprefix("visual.") if published.startswith("visual.") else None

    def to_published(self, ours: str) -> str:
        """The published name. Raises: KeyError for a name that is not the encoder's."""
        if not ours.startswith("tower."):
            raise KeyError(ours)
        return "visual." + ours.removeprefix("tower.")


class TextEncoderLayout(_SameShapes):
    """The text tower: the same names there and here, but for the blocks at the end that the encoder does not run.

    Args: layers: blocks in the file; skipped: how many of them at the end are left out (1 for `penultimate`).
    """

    def __init__(self, *, layers: int, skipped: int) -> None:
        self._left_out = range(layers - skipped, layers)

    def to_ours(self, published: str) -> str | None:
        """Our name; None for the vision tower, the projection, the logit scale and the blocks that are left out."""
        if not _is_text(published):
            return None
        block = re.match(r"transformer\.resblocks\.(\d+)\.", published)
        return None if block and int(block[1]) in self._left_out else published

    def to_published(self, ours: str) -> str:
        """The published name. Raises: KeyError for a name that is not the encoder's."""
        if not _is_text(ours):
            raise KeyError(ours)
        return ours


def _is_text(name: str) -> bool:
    return name == "positional_embedding" or name.startswith(("transformer.", "token_embedding.", "ln_final."))
