"""CUDA graphs: a network's calls, recorded once for a video and then replayed, so that no launch is waited for.

A forward pass is thousands of kernels. Where each has little to do, the device is done with it before Python has asked
for the next one; a graph asks for all of them at once. The kernels and their numbers are those of a plain call.

Given a network and what changes from call to call. It does not know what the network computes, nor when the weights
move: they must stay where they are for as long as a recording lives.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# Places `b f h w` of the latents up to which launching takes longer than computing. On an H200 both branches
# are launched in 95 ms and computed in 1.5 us a place: 57344 places (32 frames of 448x256) gain, most of all where the
# branches run one after the other (189 to 94 ms a step); twice as many would gain nothing for the memory of a forward
# that a recording keeps.
PLACES = 2**16
# Kinds of calls that are recorded: two where the branches of guidance run one after the other, each with its own
# conditions. Of more, the conditions are made anew for each call, and no recording would be used twice.
KINDS = 4
_LOCK = threading.Lock()
_STREAMS: dict[torch.device, torch.cuda.Stream] = {}


class GraphWarning(UserWarning):
    """A network's calls cannot be recorded, and are made one by one: the same results, slower."""


class Recorder(Protocol):
    """What runs a function so that it can be recorded afterwards, and records it."""

    def warm_up(self, function: Callable[[], Tensor]) -> Tensor: ...

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]: ...

    def close(self) -> None: ...


@contextmanager
def recorded(network: Callable[..., Tensor], x: Tensor, mode: str) -> Iterator[Callable[..., Tensor]]:
    """The network, its calls recorded if that pays for states like `x: b c f h w`; afterwards its memory is free again.

    mode: `auto`, `on` whatever the size, or `off`; on the CPU nothing is ever recorded.
    """
    places = x.numel() // x.shape[1]
    if mode == "off" or x.device.type != "cuda" or (mode == "auto" and places > PLACES):
        yield network
        return
    graphs = Graphs(network, CudaRecorder(x.device))
    try:
        yield graphs
    finally:
        graphs.close()


@dataclass
class _Call:
    """One kind of call; `conditions` keeps alive what its key names. Without `replay` it was made once."""

    conditions: dict[str, Any]
    x: Tensor | None = None
    t: Tensor | None = None
    out: Tensor | None = None
    replay: Callable[[], None] | None = None


class Graphs:
    """`network(x, t, **conditions)`, each kind of call made as it is at first, recorded the second time, then replayed.

    A kind is the shape of x and t with the very objects that the conditions are. One thread at a time. When recording
    fails, as for a network that waits for its device, all calls are plain from then on, with a GraphWarning.
    """

    def __init__(self, network: Callable[..., Tensor], recorder: Recorder) -> None:
        self._network, self._recorder = network, recorder
        self._calls: dict[Any, _Call] = {}
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._network, name)

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        if self._closed:
            return self._network(x, t, **conditions)
        key = (x.shape, x.dtype, t.shape, t.dtype, *((name, id(value)) for name, value in conditions.items()))
        call = self._calls.get(key)
        if call is None:
            return self._first(key, x, t, conditions)
        if call.replay is None:
            try:
                self._record(call, x, t)
            except Exception as error:  # whatever a driver, a library or the network raises
                self._give_up(error)
                return self._network(x, t, **conditions)
        return _replayed(call, x, t)

    def close(self) -> None:
        """Frees the recordings; calls are plain from now on."""
        if not self._closed:
            self._closed = True
            self._calls.clear()
            self._recorder.close()

    def _first(self, key: Any, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> Tensor:
        if len(self._calls) == KINDS:
            self.close()
            return self._network(x, t, **conditions)
        out = self._recorder.warm_up(lambda: self._network(x, t, **conditions))
        self._calls[key] = _Call(conditions)
        return out

    def _record(self, call: _Call, x: Tensor, t: Tensor) -> None:
        mine, time = x.clone(), t.clone()
        replay, out = self._recorder.record(lambda: self._network(mine, time, **call.conditions))
        call.x, call.t, call.out, call.replay = mine, time, out, replay

    def _give_up(self, error: Exception) -> None:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.close()
        warnings.warn(f"the network's calls cannot be recorded as CUDA graphs: {words}", GraphWarning, stacklevel=4)


def _replayed(call: _Call, x: Tensor, t: Tensor) -> Tensor:
    assert call.x is not None
    assert call.t is not None
    assert call.out is not None
    assert call.replay is not None
    call.x.copy_(x)
    call.t.copy_(t)
    call.replay()
    return call.out.clone()  # the next replay writes there again


class CudaRecorder:
    """Records on a device; all recordings share one pool of memory, as they run one after the other.

    The first call and the recording run on one stream a device, which is made once, so that what libraries keep for a
    stream is there when the recording begins. Threads take turns in that; captures are `thread_local`, so that what
    others do meanwhile on their streams, memory that they take and give back too, neither gets into a recording nor
    spoils it. One thing does: a thread that waits for the whole device (`torch.cuda.synchronize`) in the tenth of a
    second of a recording gets CUDA's error for it. Nothing in this package does that.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def warm_up(self, function: Callable[[], Tensor]) -> Tensor:
        """What the function returns, usable on the current stream."""
        current = torch.cuda.current_stream(self._device)
        with _LOCK:
            stream = _stream(self._device)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                out = function()
            current.wait_stream(stream)
            out.record_stream(current)
        return out

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What runs the function's kernels again, and where their result is then."""
        with _LOCK:
            stream = _stream(self._device)
            for busy in (torch.cuda.current_stream(self._device), stream):
                busy.synchronize()
            torch.cuda.empty_cache()  # the first call's memory, which the recording needs once more, in its own pool
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.stream(stream):
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    out = function()
                except BaseException:
                    with suppress(Exception):
                        graph.capture_end()
                    _mend(self._device, self._pool)
                    raise
                try:
                    graph.capture_end()
                except BaseException:
                    _mend(self._device, self._pool)
                    raise
        self._graphs.append(graph)
        return graph.replay, out

    def close(self) -> None:
        """Frees the recordings' memory."""
        self._graphs.clear()
        torch.cuda.empty_cache()


def _stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]


def _mend(device: torch.device, pool: Any) -> None:
    """After a recording that failed: torch's allocator and its generator of random numbers would go on recording.

    A recording that succeeds puts the generator right. Each step may have been done already.
    """
    for undo in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        with suppress(Exception):
            getattr(torch._C, undo)(device.index, pool)
    with suppress(Exception):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(_stream(device)):
            something = torch.zeros(1, device=device)
            graph.capture_begin(capture_error_mode="thread_local")
            something.add_(1)
            graph.capture_end()
