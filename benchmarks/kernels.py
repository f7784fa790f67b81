"""Which kernels a video of the published sizes takes, and how often; no device is needed.

    python -m benchmarks.kernels [--write]

The networks run on the meta device, so nothing is computed, as on a Hopper device. `--write` puts what is found into
configuration/kernels.json, for `runtime.beforehand` to compile.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.bench import META, inputs_on_meta, latent_shape
from benchmarks.models import configuration
from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.runtime import beforehand, operations, trial
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights import architecture

DTYPE = torch.float16
STAGES = {"image-to-video": 1, "video-to-video": 2}


class Launches:
    """How often each kernel was launched, by its variant (see `beforehand.Variant`) as JSON."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, kernel: Any, given: tuple[Any, ...], options: dict[str, Any]) -> None:
        name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.__name__}"
        pairs = zip(given, kernel.params, strict=False)
        arguments = [kind(one, fixed=not parameter.do_not_specialize) for one, parameter in pairs]
        self.counts[json.dumps([name, arguments, options])] += 1


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def kind(one: Any, *, fixed: bool) -> Any:
    """What Triton tells apart of an argument; fixed: also the numbers of which instructions depend."""
    if isinstance(one, Tensor):
        assert one.data_ptr() % 16 == 0
        return name_of(one.dtype)
    if isinstance(one, int):
        assert abs(one) < 2**31
        return (16 if one % 16 == 0 else 1 if one == 1 else 3) if fixed else 3
    if isinstance(one, float):
        return 0.5
    described: dict[str, Any] = {"dtype": name_of(one.base.dtype), "tile": list(one.block_shape)}
    layout = getattr(one, "layout", None)
    if layout is not None:
        names = ("swizzle_byte_width", "element_bitwidth", "rank")
        described["layout"] = {name: getattr(layout, name) for name in names}
    return described


@contextmanager
def as_on_hopper() -> Iterator[None]:
    """Tensors without a device are for the kernels that Hopper devices have."""
    from i2vgen_ms.runtime.kernels import long_attention, narrow_geglu

    with (
        mock.patch.object(long_attention, "on_hopper", return_value=True),
        mock.patch.object(narrow_geglu, "on_hopper", return_value=True),
        mock.patch.object(narrow_geglu, "multiprocessors", return_value=132),
    ):
        yield


@contextmanager
def recorded() -> Iterator[Launches]:
    """In place of launching kernels they are counted."""
    from triton.runtime.jit import JITFunction

    launches = Launches()

    def run(self: Any, *given: Any, grid: Any, warmup: bool, **options: Any) -> None:
        launches.add(self, given, options)

    with mock.patch.object(JITFunction, "run", run), as_on_hopper():
        yield launches


def runs(task: str, table: Ops) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is run for a task, with the name of the network that does it."""
    chosen, stage = configuration(STAGES[task], "full"), STAGES[task]
    network: Any = architecture.build(chosen, "st_unet", table).network.to(DTYPE)
    for branches in (1, 2):  # one after the other, or as one batch
        yield "st_unet", partial(network, **inputs_on_meta(chosen, stage, conditions=branches, dtype=DTYPE))
    coder: Any = architecture.build(chosen, "autoencoder", table).network.to(DTYPE)
    channels, frames, rows, columns = latent_shape(chosen)
    latents = torch.empty((1, frames, rows, columns, channels), device=META)
    yield "autoencoder", lambda: list(coder.decode(latents))
    if stage == 2:
        size = (1, frames, chosen.output.height, chosen.output.width, 3)
        yield "autoencoder", lambda: coder.encode(torch.empty(size, device=META))


def found() -> dict[str, dict[str, Counter[str]]]:
    """By task and network; under `trial` what trying the operations launches."""
    table = operations.fused_table(operations.IN_PARTS)
    with recorded() as launches, torch.no_grad():
        for probe in trial.probes(table, META).values():
            probe()
        result = {"trial": {"": launches.counts}}
        for task in STAGES:
            result[task] = {}
            for name, run in runs(task, table):
                launches.counts = result[task].setdefault(name, Counter())
                run()
    return result


def written(launches: dict[str, dict[str, Counter[str]]]) -> str:
    """The file's text, a variant a line."""
    half = json.dumps(name_of(DTYPE))

    def lines(counts: Counter[str], margin: str, change: Callable[[str], str] = str) -> str:
        return "[\n" + ",\n".join(f"{margin}  {change(one)}" for one in sorted(counts)) + f"\n{margin}]"

    parts = [f'  "trial": {lines(launches["trial"][""], "  ")}']
    for task in STAGES:
        networks = [
            f'    "{name}": {lines(counts, "    ", lambda one: one.replace(half, json.dumps(beforehand.HALF)))}'
            for name, counts in launches[task].items()
        ]
        parts.append(f'  "{task}": {{\n' + ",\n".join(networks) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"put it into configuration/{beforehand.FILE}")
    options = parser.parse_args()
    launches = found()
    print(f"{'what':30} {'kernels':>8} {'launches':>9}")
    for task, networks in launches.items():
        for name, counts in networks.items():
            print(f"{task + ' ' + name:30} {len(counts):8} {counts.total():9}")
    if options.write:
        (configuration_folder() / beforehand.FILE).write_text(written(launches), encoding="utf-8")


if __name__ == "__main__":
    main()
