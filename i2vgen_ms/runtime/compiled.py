"""Regional compilation: the transformer blocks of a network by torch.compile, each on its own.

Blocks of one width are one compilation, so that it takes seconds, not the minutes of a whole network; between them the
network runs as ever. Inside of them the operations are the plain definitions, which the compiler fuses itself. Given a
network; it does not know where its weights are.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.runtime import operations
from i2vgen_ms.runtime.device import on_hopper
from i2vgen_ms.runtime.shortage import of_the_device, of_the_host
from i2vgen_ms.st_unet.transformer import TransformerBlock
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops

# Shapes of one kind of block that are compiled before torch would give up: widths, levels, and parts of two lengths.
SHAPES = 64
_LOCK = threading.Lock()


class CompileWarning(UserWarning):
    """Something is not compiled, or compiled without much use; the results are the same."""


def compile_blocks(network: nn.Module, device: torch.device, *, backend: Any = "inductor") -> bool:
    """Makes the network's transformer blocks compile when they first run on the device; whether it did.

    Where the compiler does not work, or there are no such blocks, the network stays as it is, with a CompileWarning.
    """
    blocks = [module for module in network.modules() if isinstance(module, TransformerBlock)]
    if not blocks:
        warnings.warn(
            f"{type(network).__name__} has no transformer blocks of this package; nothing of it is compiled",
            CompileWarning,
            stacklevel=2,
        )
        return False
    problem = _problem(device, backend)
    if problem is not None:
        warnings.warn(f"torch.compile does not work on {device} and is not used: {problem}", CompileWarning, 2)
        return False
    _many_shapes()
    inside = {id(module) for block in blocks for module in block.modules()}
    for module in network.modules():
        ops = getattr(module, "ops", None)
        if isinstance(ops, Ops):
            setattr(module, "ops", Ops() if id(module) in inside else _outside(ops, device))  # noqa: B010
    for block in blocks:
        block.forward = Region(block.forward, backend)  # type: ignore[method-assign]
    return True


class Region:
    """A function that is compiled when it is first called for a shape; plain from when that fails, with a warning."""

    def __init__(self, plain: Callable[..., Tensor], backend: Any) -> None:
        self._plain = plain
        self._fast: Callable[..., Tensor] | None = torch.compile(plain, dynamic=False, backend=backend)

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        if self._fast is None:
            return self._plain(*given, **named)
        try:
            return self._fast(*given, **named)
        except Exception as error:
            if of_the_device(error) or of_the_host(error):
                raise
            self._fast = None
            out = self._plain(*given, **named)  # raises where the compiler is not what is wrong
            warnings.warn(f"a transformer block cannot be compiled: {_words(error)}", CompileWarning, stacklevel=2)
            return out


def _outside(ops: Ops, device: torch.device) -> Ops:
    """What compiled blocks are handed from outside: a kernel of our own is a call for them, not code to look into.

    The table's attention is such a call on Hopper devices; elsewhere, where of our kernels it has only that of few keys
    for blocks, it is PyTorch's, which is looked into.
    """
    attend, frames = ops.attention, ops.frame_attention
    if attend is operations.table(device).attention:
        attend = _opaque(attend) if on_hopper(device) else attention.sdpa
    return replace(
        ops,
        attention=attend,
        frame_attention=None if frames is None else _opaque(frames),
        peak=Ops.peak,
        parts=Ops.parts,
    )


@cache
def _opaque(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    made: Callable[..., Tensor] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return made


@cache
def _problem(device: torch.device, backend: Any) -> str | None:
    """What is wrong with the compiler, if anything; found out once a process, on a few numbers."""
    try:
        numbers = torch.arange(8.0, device=device)
        out = torch.compile(lambda x: (x + 1).sin() * 2, dynamic=False, backend=backend)(numbers)
        if not torch.allclose(out, (numbers + 1).sin() * 2):
            return "its results are wrong"
    except Exception as error:  # whatever a compiler, a driver or a missing package can raise
        return _words(error)
    return None


def _many_shapes() -> None:
    """torch compiles a function for a few shapes only, of all networks together, and then runs it as it is."""
    import torch._dynamo.config as limits

    with _LOCK:
        limits.recompile_limit = max(limits.recompile_limit, SHAPES)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def advise(mode: str) -> None:
    """Warns that a compiled network is meant for the memory mode `fast`, if another one was taken."""
    if mode != "fast":
        warnings.warn(
            f"compiled networks are meant for memory='fast'; this call runs in {mode!r}, and gains little",
            CompileWarning,
            stacklevel=3,
        )
