"""How a published file names and shapes the tensors of one network, both ways.

Given names and tensors one at a time. A layout knows no files and builds no network; it is what the part that owns
the network says about the files it can come from.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Layout(Protocol):
    """Translates tensor names and shapes from and to a published file. Tensors come out as views, never copies.

    A published name that is known not to belong to the part (a file may hold several networks) becomes None; one that
    looks like the part's and is not known is returned as it is, so that it is reported as unexpected.
    """

    def to_ours(self, published: str, /) -> str | None:
        """Our name of a tensor of the file, or None when it belongs to another part."""

    def to_published(self, ours: str, /) -> str:
        """The file's name of one of our tensors."""

    def to_our_shape(self, ours: str, tensor: Tensor, /) -> Tensor:
        """The file's tensor in the shape of ours called `ours`."""

    def to_published_shape(self, ours: str, tensor: Tensor, /) -> Tensor:
        """Our tensor called `ours` in the shape of the file's."""


class Identity:
    """The layout of files that hold our own names and shapes, as `convert` writes them."""

    def to_ours(self, published: str, /) -> str | None:
        return published

    def to_published(self, ours: str, /) -> str:
        return ours

    def to_our_shape(self, ours: str, tensor: Tensor, /) -> Tensor:
        return tensor

    def to_published_shape(self, ours: str, tensor: Tensor, /) -> Tensor:
        return tensor


IDENTITY = Identity()
