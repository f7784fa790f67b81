"""The processes and the number formats of a run, as accelerate runs them: one process, or several on one host or many.

Given the settings about numbers. What the loop needs of accelerate stands here alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.runtime import device as devices
from i2vgen_ms.training.graphed import CudaRecorder, Graphed
from i2vgen_ms.training.sections import Numerics


class Processes:
    """This process among those of the run.

    Args:
        numerics: number formats. device: a name, or None for the process's own.
        uneven: whether some steps leave out parameters, which the exchange of gradients has to know.
    Raises: ConfigurationError without accelerate; DeviceError for a device that is not there.
    """

    def __init__(self, numerics: Numerics, device: str | None, *, uneven: bool) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState, GradientState
            from accelerate.utils import DistributedDataParallelKwargs
        except ImportError as error:
            raise ConfigurationError(
                f"training needs the package accelerate ({error}); install i2vgen_ms[train]"
            ) from error
        place = devices.choose(device)
        if numerics.train == "fp16" and place.type == "cpu":
            raise ConfigurationError("settings: numerics.train: 'fp16' needs a CUDA device; give 'bf16' or 'no'")
        # Accelerate keeps one state for a process; another run may want another number format or device.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        GradientState._reset_state()
        self._numerics = numerics
        self._accelerator = Accelerator(
            cpu=place.type == "cpu",
            mixed_precision=numerics.train,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=uneven)],
        )
        self.device: torch.device = self._accelerator.device
        if place.type == "cuda" and device is not None and self._accelerator.num_processes == 1:
            self.device = place
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process

    def prepare(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[Any, Any]:
        """The network and the optimiser as the steps use them; the network itself computes in the number format too."""
        prepared, stepper = self._accelerator.prepare(network, optimiser, device_placement=[False, False])
        if self._numerics.graphs and self.device.type == "cuda" and self.count == 1:
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            return Graphed(prepared, trained, CudaRecorder(self.device)), stepper
        return prepared, stepper

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss."""
        self._accelerator.backward(loss)

    def gathering(self, network: Any, *, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward of a batch; only with the last one of a step gradients are exchanged."""
        return nullcontext() if last else self._accelerator.no_sync(network)

    def clip(self, parameters: Iterable[nn.Parameter], norm: float) -> Tensor:
        """Cuts the gradients' common norm to at most `norm`; returns what it was, on the device."""
        clipped: Tensor = self._accelerator.clip_grad_norm_(list(parameters), norm)
        return clipped

    def agreed(self, value: float) -> float:
        """The main process's value, in all processes."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def summed(self, values: Tensor) -> Tensor:
        """The sum of the processes' values, in all of them."""
        if self.count == 1:
            return values
        total: Tensor = self._accelerator.reduce(values, reduction="sum")
        return total

    def gathered(self, items: list[Any]) -> list[Any]:
        """What all processes have, in all of them."""
        if self.count == 1:
            return items
        from accelerate.utils import gather_object

        everybody: list[Any] = gather_object(items)
        return everybody

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()

    def scaler_state(self) -> dict[str, float] | None:
        """The loss scale of fp16 training and how long it has held."""
        scaler = self._accelerator.scaler
        return None if scaler is None else dict(scaler.state_dict())

    def restore_scaler(self, state: dict[str, float] | None) -> None:
        """Sets what `scaler_state` gave."""
        if state and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state)

    @contextmanager
    def numerics(self) -> Iterator[None]:
        """Within the block CUDA may use its fast kernels, if the settings say so; the global random state is kept."""
        precision, search = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
        devices_used = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices_used):
            try:
                if self._numerics.fast_kernels and self.device.type == "cuda":
                    torch.set_float32_matmul_precision("high")
                    torch.backends.cudnn.benchmark = True
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
                torch.backends.cudnn.benchmark = search
