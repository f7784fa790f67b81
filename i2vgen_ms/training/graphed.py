"""The trained network in CUDA graphs: its forward and its backward are recorded once a shape, and then played again.

Small networks keep a device busy for less time than it takes to start their kernels one by one; a graph starts them all
at once. Given the network and its parameters. It knows neither the loss nor the optimiser: what it returns has
gradients as any tensor has.

A recording holds addresses. So the inputs are copied into tensors of its own, the output is valid until the next call
with the same shapes, and gradients are summed up in buffers that become the parameters' `grad` whenever that is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

WARM_UP = 3  # calls before a recording: libraries choose and load their kernels in them


class Recorder(Protocol):
    """Runs a function and returns what runs it again, on the same tensors."""

    def warm_up(self, function: Callable[[], object]) -> None: ...

    def record(self, function: Callable[[], object]) -> Callable[[], object]: ...


class CudaRecorder:
    """Recordings as CUDA graphs, all in one pool of memory: they are played one after the other.

    Everything happens on one stream of its own, which the nodes that add up gradients remember.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], object]) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            function()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process prepare data meanwhile; what they do is none of the recording's business.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            function()
        return graph.replay


class Graphed:
    """A network as a function that is recorded for each shape of its inputs, with the same results.

    Args:
        network: called with tensors by position and by name; other arguments by name are constants of a recording.
        parameters: those that are trained. Their values may change in place only.
        recorder: what records.
    """

    def __init__(self, network: Callable[..., Tensor], parameters: Iterable[nn.Parameter], recorder: Recorder) -> None:
        self._network, self._recorder = network, recorder
        self._parameters = list(parameters)
        self._buffers: dict[int, Tensor] = {}
        self._recordings: dict[Any, _Recording] = {}

    def __call__(self, *inputs: Tensor, **named: Any) -> Tensor:
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        constants = {name: value for name, value in named.items() if name not in tensors}
        every = [*inputs, *tensors.values()]
        key = (len(inputs), *((tuple(t.shape), t.dtype) for t in every), *tensors, *constants.items())
        if key not in self._recordings:
            self._recordings[key] = self._recorded(inputs, tensors, constants)
        recording = self._recordings[key]
        for mine, given in zip(recording.inputs, every, strict=True):
            mine.copy_(given)
        output: Tensor = _Played.apply(recording.switch, recording)  # type: ignore[no-untyped-call]
        return output

    def _recorded(
        self, inputs: tuple[Tensor, ...], tensors: dict[str, Tensor], constants: dict[str, Any]
    ) -> _Recording:
        mine = [tensor.detach().clone() for tensor in (*inputs, *tensors.values())]
        named = dict(zip(tensors, mine[len(inputs) :], strict=True)) | constants

        def forward() -> Tensor:
            with torch.enable_grad():
                return self._network(*mine[: len(inputs)], **named)

        def both() -> None:
            output = forward()
            output.backward(torch.zeros_like(output))

        # A recording leaves no trace: neither in the gradients that were summed up before, nor in the random numbers.
        kept = [None if parameter.grad is None else parameter.grad.clone() for parameter in self._parameters]
        devices = [mine[0].device] if mine[0].is_cuda else []
        # Weights that are cast once and kept (autocast's cache) would be those of the recording for ever.
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            with torch.random.fork_rng(devices=devices):
                self._clear()
                for _ in range(WARM_UP):
                    self._recorder.warm_up(both)
                used = [index for index, parameter in enumerate(self._parameters) if parameter.grad is not None]
                self._clear()
                for index in used:
                    if index not in self._buffers:
                        self._buffers[index] = torch.zeros_like(self._parameters[index])
                    self._parameters[index].grad = self._buffers[index]
                return _Recording(self, mine, forward, used, self._recorder)
        finally:
            torch.set_autocast_cache_enabled(cached)
            for parameter, grad in zip(self._parameters, kept, strict=True):
                parameter.grad = grad

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def take_gradients(self, used: Iterable[int]) -> None:
        """Makes the buffers the gradients of these parameters, with what these are now."""
        none = []
        for index in used:
            parameter, buffer = self._parameters[index], self._buffers[index]
            if parameter.grad is None:
                none.append(buffer)
            elif parameter.grad is not buffer:
                buffer.copy_(parameter.grad)
            parameter.grad = buffer
        if none:
            torch._foreach_zero_(none)


class _Recording:
    """Forward and backward for one shape of inputs."""

    def __init__(
        self, owner: Graphed, inputs: list[Tensor], forward: Callable[[], Tensor], used: list[int], recorder: Recorder
    ) -> None:
        self.inputs = inputs
        self.switch = torch.zeros((), device=inputs[0].device, requires_grad=True)
        """What autograd follows to this recording: it has no other input that has gradients."""
        self._owner, self._used = owner, used

        def run_forward() -> None:
            self._output = forward()

        def run_backward() -> None:
            self._output.backward(self._gradient)

        self._play_forward = recorder.record(run_forward)
        self._gradient = torch.zeros_like(self._output)
        self._play_backward = recorder.record(run_backward)

    def forward(self) -> Tensor:
        self._play_forward()
        return self._output.detach()

    def backward(self, gradient: Tensor) -> None:
        self._gradient.copy_(gradient)
        self._owner.take_gradients(self._used)
        self._play_backward()


class _Played(torch.autograd.Function):
    """A recording as one operation."""

    @staticmethod
    def forward(ctx: Any, switch: Tensor, recording: _Recording) -> Tensor:
        ctx.recording = recording
        return recording.forward()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.recording.backward(gradients[0])
        return None, None
