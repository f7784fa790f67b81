"""Latent sizes: what a video size needs, and what the network can take."""

from __future__ import annotations

from typing import Protocol

from i2vgen_ms.errors import ArgumentError


class Sized(Protocol):
    """A network that says which latent sizes pass its levels."""

    def takes(self, height: int, width: int) -> bool: ...


def latent_size(network: Sized, *, height: int, width: int, factor: int) -> tuple[int, int]:
    """The smallest latent (rows, columns) that covers a video of `height` x `width` and that `network` can take.

    factor: pixels a latent each way. What is beyond the video's size is cropped after decoding.
    Raises: ArgumentError if nothing near that size passes the network.
    """
    rows, columns = -(-height // factor), -(-width // factor)
    # The levels repeat with a period of at most 2^levels; a network of more than eight levels would be no UNet.
    reach = range(257)
    row = next((rows + more for more in reach if network.takes(rows + more, _any_width(network, rows + more))), None)
    column = (
        None if row is None else next((columns + more for more in reach if network.takes(row, columns + more)), None)
    )
    if row is None or column is None:
        raise ArgumentError(f"no latent size near {rows}x{columns} (rows x columns) passes the network")
    return row, column


def _any_width(network: Sized, rows: int) -> int:
    """A width that passes, if this height does."""
    return next((width for width in range(1, 258) if network.takes(rows, width)), 1)
