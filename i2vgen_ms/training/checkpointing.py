"""Gradient checkpointing: a network's blocks are computed again on the way back instead of being remembered.

Given a network that says what its blocks are. Its numbers, its names and its parameters stay as they are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from i2vgen_ms.errors import ConfigurationError


def apply(network: nn.Module, kind: str) -> None:
    """Makes each block of `network.blocks()` remember its input alone.

    kind: `none`, `torch`, or `fairscale`, which keeps the inputs in the CPU's memory until they are needed.
    Raises: ConfigurationError when fairscale is not there, or the network does not say what its blocks are.
    """
    if kind == "none":
        return
    blocks = getattr(network, "blocks", None)
    if blocks is None:
        raise ConfigurationError(
            f"checkpointing: {type(network).__name__} has no method blocks() that lists what to remember; use 'none'"
        )
    for block in blocks():
        if kind == "torch":
            block.forward = partial(_again, block.forward)
        else:
            _offloaded(block)


def expect_even(kind: str, *, processes: int, uneven: bool) -> None:
    """Raises: ConfigurationError where `fairscale` fails: on several processes, some of whose steps are uneven.

    Its backward pass within the backward pass tells the exchange of gradients a second time that they are there, which
    it refuses once it looks for parameters that a step leaves out.
    """
    if kind == "fairscale" and processes > 1 and uneven:
        raise ConfigurationError(
            "settings: checkpointing: 'fairscale' cannot be used by several processes whose steps of single pictures "
            "leave out parameters; give checkpointing 'torch', or clips.pictures_every 0"
        )


def _again(forward: Any, *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)


def _offloaded(block: nn.Module) -> None:
    try:
        from fairscale.nn import checkpoint_wrapper
    except ImportError as error:
        raise ConfigurationError(
            f"checkpointing 'fairscale' needs the package fairscale ({error}); install i2vgen_ms[train], or use 'torch'"
        ) from error
    checkpoint_wrapper(block, offload_to_cpu=True)
