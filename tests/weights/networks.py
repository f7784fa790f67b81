"""A small network and a published layout for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A few kinds of tensors: matrices, a convolution, a scale without bias, a whole-number buffer."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.mix = nn.Linear(width, width, bias=False)
        self.conv = nn.Conv2d(2, 3, 3)
        self.register_buffer("steps", torch.arange(3))


class Published:
    """A layout with a prefix, other names, and matrices that are convolutions of width one in the file."""

    def to_ours(self, published: str) -> str | None:
        if not published.startswith("net."):
            return None
        return published.removeprefix("net.").replace("proj_in.", "first.").replace("q.0.", "mix.")

    def to_published(self, ours: str) -> str:
        return "net." + ours.replace("first.", "proj_in.").replace("mix.", "q.0.")

    def to_our_shape(self, ours: str, tensor: Tensor) -> Tensor:
        return tensor.flatten(-2) if ours == "mix.weight" else tensor

    def to_published_shape(self, ours: str, tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(-1) if ours == "mix.weight" else tensor


LAYOUT = Published()


def meta(width: int = 6) -> Net:
    with torch.device("meta"):
        return Net(width)


def published_state(net: nn.Module) -> dict[str, Tensor]:
    return {
        LAYOUT.to_published(name): LAYOUT.to_published_shape(name, tensor).clone()
        for name, tensor in net.state_dict().items()
    }


def same(net: nn.Module, loaded: nn.Module) -> bool:
    return all(
        torch.equal(a.to(b.dtype), b)
        for a, b in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
