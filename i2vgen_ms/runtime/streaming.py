"""Streaming: a network's blocks come to the device one after the other, each while the one before it computes.

Given modules in the order in which they run, and their blocks. Only the timing changes, not a number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from i2vgen_ms.runtime.block import Block
from i2vgen_ms.runtime.parking import Parking


class Stream:
    """Streams `blocks[i]` in time for `modules[i]`; one forward of `root` at a time.

    On the device are the block that computes and the one after it, in no more memory than these two need: where
    activations are large weights are small, and the other way round. A module that runs out of turn is waited for, so
    that the order is a matter of speed alone. What `root` puts on a `shelf` of its own is parked on the host meanwhile.
    `close` ends it; meanwhile the root is not to be copied.
    """

    def __init__(self, root: nn.Module, modules: Sequence[nn.Module], blocks: Sequence[Block]) -> None:
        self._blocks = list(blocks)
        self._lock = threading.RLock()
        device = blocks[0].device
        self._coming: dict[int, _Coming] = {}  # by their numbers, the blocks that are on the device or on their way
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._fetch(0)  # before the hooks, which would stay behind if there were no memory for it
        self._hooks: list[Any] = []
        self._root, self._own = cast(Any, root), vars(root).get("forward")
        try:
            # Not by hooks, of which none is called when it is interrupted.
            self._root.forward = self._one_at_a_time(root.forward)
            if hasattr(root, "shelf"):
                self._root.shelf = partial(Parking, device)
            for index, module in enumerate(modules):
                self._hooks.append(module.register_forward_pre_hook(lambda *_, i=index: self._before(i)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends streaming; the modules have their tensors on the host."""
        with self._lock:
            for hook in self._hooks:
                hook.remove()
            vars(self._root).pop("forward", None)
            if self._own is not None:
                self._root.forward = self._own
            if hasattr(self._root, "shelf"):
                self._root.shelf = list
            for index in list(self._coming):
                self._drop(index)

    def _one_at_a_time(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def locked(*given: Any, **named: Any) -> Any:
            with self._lock:
                return forward(*given, **named)

        return locked

    def _before(self, index: int) -> None:
        following = (index + 1) % len(self._blocks)
        for other in self._coming.keys() - {index, following}:
            self._drop(other)
        if index not in self._coming:
            self._fetch(index)
        coming, block = self._coming[index], self._blocks[index]
        coming.wait()
        block.point_at(block.views(coming.buffer))
        if following not in self._coming:
            with suppress(torch.OutOfMemoryError):  # then it comes when it is asked for, and this one has left
                self._fetch(following)

    def _fetch(self, index: int) -> None:
        block = self._blocks[index]
        self._coming[index] = _Coming(block.host(), block.device, self._beside)

    def _drop(self, index: int) -> None:
        self._blocks[index].to_host()
        # Its memory may be used for something else only when the copy into it has ended, also if nobody waited for it.
        self._coming.pop(index).wait()


class _Coming:
    """A buffer of the device into which a copy of `source` is made: on a CUDA device by the stream `beside`.

    The memory is the computing stream's: it may have been used by what that was asked for before, and is free for what
    it is asked for later.
    """

    def __init__(self, source: Tensor, device: torch.device, beside: torch.cuda.Stream | None) -> None:
        self._copied: torch.cuda.Event | None = None
        self.buffer = torch.empty_like(source, device=device)
        if beside is None:
            self.buffer.copy_(source)
            return
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            self.buffer.copy_(source, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(beside)

    def wait(self) -> None:
        """What the current stream is asked for from now on has the copy."""
        if self._copied is not None:
            stream = torch.cuda.current_stream(self.buffer.device)
            stream.wait_event(self._copied)
            self.buffer.record_stream(stream)  # which may be another than the one that was current before
