"""The two numbers of every row, operations and bytes, and the least time that a device needs for them.

    python -m benchmarks.counts [--tflops 650] [--attention-tflops 400] [--terabytes 4.3] [--json]

The networks run on the meta device, so nothing is computed. Operations are those of products, convolutions and
attention (a multiplication and an addition are two). Bytes are what those operations alone read and write in fp16, as
if everything between them were free: what norms, gates and sums move besides is in `unfused`, with each of torch's own
operations reading and writing its tensors once. `floor` is the sum over operations of whichever takes longer, its
arithmetic or its bytes; `floor, unfused` adds the bytes of the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.bench import META, inputs_on_meta, latent_shape
from benchmarks.models import configuration
from i2vgen_ms.weights import architecture

# Operations that give another view of their input move nothing.
VIEWS = (
    "view",
    "_unsafe_view",
    "transpose",
    "t",
    "permute",
    "expand",
    "slice",
    "split",
    "unsqueeze",
    "squeeze",
    "chunk",
)
ALLOCATIONS = ("empty", "new_empty", "empty_like", "detach", "alias", "as_strided", "select", "unbind")
NUMBER = 2


@dataclass
class Count:
    """Operations, bytes of the operations that have arithmetic, bytes of all others, and the seconds they take."""

    name: str
    operations: float = 0.0
    bytes: float = 0.0
    unfused: float = 0.0
    floor: float = 0.0

    def __str__(self) -> str:
        return f"{self.name:44}{self.operations / 1e12:10.2f}{self.bytes / 1e9:10.1f}{self.unfused / 1e9:10.1f}"


@dataclass(frozen=True)
class Device:
    """What a device reaches, a second: operations of products, of attention, and bytes."""

    flops: float
    attention_flops: float
    bandwidth: float


class Counter(TorchDispatchMode):
    """Adds up what runs under it."""

    def __init__(self, count: Count, device: Device) -> None:
        super().__init__()
        self.count, self.device = count, device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        moved = size_of((args, kwargs, out))
        if func.overloadpacket in flop_registry:
            operations = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
            self.add(operations, moved, self.device.flops)
        elif name not in VIEWS and name not in ALLOCATIONS:
            self.count.unfused += moved
        return out

    def add(self, operations: float, moved: float, flops: float) -> None:
        """One operation that has arithmetic, of which the device does `flops` a second."""
        self.count.operations += operations
        self.count.bytes += moved
        self.count.floor += max(operations / flops, moved / self.device.bandwidth)


class Attention(TorchFunctionMode):
    """Attention as one operation, which keeps the weights of the tokens to itself."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        out = torch.empty((*q.shape[:-1], v.shape[-1]), device=META)
        operations = 2 * (q.numel() + out.numel()) * k.shape[-2]
        self._counter.add(operations, size_of((q, k, v, out)), self._counter.device.attention_flops)
        return out


def size_of(tree: Any) -> int:
    """Bytes of the tensors of a tree in the number format of the rows; what is repeated is read once."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return sum(NUMBER * min(one.numel(), one.untyped_storage().nbytes() // one.element_size()) for one in tensors)


def count(name: str, run: Callable[[], Any], device: Device) -> Count:
    """What one call does."""
    result = Count(name)
    with torch.no_grad(), Counter(result, device) as counter, Attention(counter):
        run()
    return result


def counts(device: Device) -> list[Count]:
    """Of the forwards of which the rows are made."""
    found = []
    for stage in (1, 2):
        chosen = configuration(stage, "full")
        network = architecture.build(chosen, "st_unet").network
        for batch in (1, 2):
            given = inputs_on_meta(chosen, stage, batch=batch)
            name = f"stage {stage}, forward of batch {batch}"
            found.append(count(name, partial(network, **given), device))
    chosen = configuration(2, "full")
    coder: Any = architecture.build(chosen, "autoencoder").network
    frame = torch.empty((1, 1, chosen.output.height, chosen.output.width, 3), device=META)
    channels, _, rows, columns = latent_shape(chosen)
    latents = torch.empty((1, 1, rows, columns, channels), device=META)
    found.append(count("autoencoder, encode a frame", partial(coder.encode, frame), device))
    found.append(count("autoencoder, decode a frame", lambda: list(coder.decode(latents)), device))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.counts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tflops", type=float, default=650.0, help="what products reach")
    parser.add_argument("--attention-tflops", type=float, default=400.0, help="what attention reaches")
    parser.add_argument("--terabytes", type=float, default=4.3, help="what copies reach, a second")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = Device(options.tflops * 1e12, options.attention_tflops * 1e12, options.terabytes * 1e12)
    found = counts(device)
    if options.json:
        print(json.dumps([asdict(one) for one in found]))
        return
    print(f"{'':44}{'TFLOP':>10}{'GB':>10}{'unfused':>10}{'floor ms':>10}{'floor, unfused ms':>20}")
    for one in found:
        print(f"{one}{one.floor * 1e3:10.1f}{(one.floor + one.unfused / device.bandwidth) * 1e3:20.1f}")


if __name__ == "__main__":
    main()
