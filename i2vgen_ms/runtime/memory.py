"""Memory modes: what a call does to fit the device's memory, and which of them `auto` picks.

Given the sizes of the networks and of what they compute with. It moves nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Mode = Literal["auto", "fast", "balanced", "low"]


@dataclass(frozen=True)
class Plan:
    """What one call does.

    keep: networks stay on the device after use, until another pipeline needs the room; otherwise each is there only
    while it works. sequential: the guidance branches run one after the other. stream: the ST-UNet and the encoder come
    to the device block by block. chunk_bytes: what the activations of a network that works in chunks may take at most.
    """

    mode: str
    keep: bool
    sequential: bool
    stream: bool
    chunk_bytes: int | None = None

    def within(self, network: Any) -> Any:
        """The network; one that can work in smaller chunks with as small ones as the plan wants."""
        if self.chunk_bytes is None or not hasattr(network, "within"):
            return network
        return network.within(self.chunk_bytes)


# Of `low`, at least and at most. For a frame at once the autoencoder takes up to so many chunks (its PATIENCE), and
# those may be as much as another network takes anyway. So beside 32 frames of 1280x720 it does one at once in fp16
# (1.55 GiB), several times as fast as in strips; in fp32, and beside 16 frames, in strips (1.4 GiB, in fp16 0.7).
LOW_CHUNKS = 256 * 2**20, 512 * 2**20
AT_ONCE = 4
PLANS = {
    "fast": Plan("fast", keep=True, sequential=False, stream=False),
    "balanced": Plan("balanced", keep=False, sequential=True, stream=False),
    "low": Plan("low", keep=False, sequential=True, stream=True, chunk_bytes=LOW_CHUNKS[0]),
}
# What is tried after running out of memory. A device whose memory modes are all alike has none.
LOWER = {"fast": "balanced", "balanced": "low"}
ONLY = Plan("only", keep=True, sequential=False, stream=False)
# The estimates below leave out small tensors, chunks of work, the allocator's gaps and the libraries' workspaces.
MARGIN = 1.1
SPARE = 512 * 2**20


class MemoryWarning(UserWarning):
    """A call ran out of memory and goes on in a lower memory mode."""


@dataclass(frozen=True)
class Need:
    """Bytes: of a network's weights, and of what it computes with when guidance is batched and when it is not."""

    weights: int
    batched: int
    sequential: int


def choose(mode: str, needs: Mapping[str, Need], available: int) -> Plan:
    """The plan of a mode; for `auto` the fastest one that fits into the available bytes.

    needs: of each network. available: bytes of the device that the call can have.
    """
    if mode == "auto":
        mode = next((one for one in LOWER if required(one, needs) <= available), "low")
    plan = PLANS[mode]
    if plan.chunk_bytes is None:
        return plan
    least, most = LOW_CHUNKS
    others = max(need.sequential for name, need in needs.items() if name != "autoencoder")
    return replace(plan, chunk_bytes=max(least, min(most, others // AT_ONCE)))


def required(mode: str, needs: Mapping[str, Need]) -> int:
    """Bytes of the device that a call in the mode `fast` or `balanced` is estimated to need."""
    if mode == "fast":
        bare = sum(need.weights for need in needs.values()) + max(need.batched for need in needs.values())
    else:
        bare = max(need.weights + need.sequential for need in needs.values())
    return int(bare * MARGIN) + SPARE
