"""Kernels compiled beforehand, several at a time; otherwise each is when it is first launched, one after the other.

Which kernels a video takes, for which formats and constants, is told by configuration/kernels.json, as
`python -m benchmarks.kernels` finds it for the published sizes. It is a matter of time alone: what the file does not
have, or has wrong, is compiled when it is launched.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import Any

import torch

from i2vgen_ms.config import reader
from i2vgen_ms.config.data import configuration_folder
from i2vgen_ms.config.part import PartSpec
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.runtime.device import has_copy_engine, on_hopper

FILE = "kernels.json"
# In the file: the format of the network that launches a kernel.
HALF = "half"
# Of kernels that not every device is given, which ones are.
NEEDS: dict[str, Callable[[torch.device], bool]] = {
    "long_attention._attend": on_hopper,
    "geglu._product": has_copy_engine,
    "narrow_geglu._product": on_hopper,
}
# What takes longest to compile.
LONGEST = ("long_attention._attend", "narrow_geglu._product", "geglu._product")
# A quarter of a compilation is Python, for which more threads would wait.
THREADS = 8

# A kernel's module and name, what it is given by place (a tensor by its format, a descriptor by its format and tile, or
# a number), and what by name.
Variant = tuple[str, Sequence[Any], Mapping[str, Any]]

_LOCK, _BINDING = threading.Lock(), threading.Lock()
_compiled: set[tuple[str, torch.device]] = set()


def compile_kernels(configuration: Configuration, dtypes: Mapping[str, str], device: torch.device) -> int:
    """Compiles what a model's networks of these formats, by their names, launch on a CUDA device; once in a process.

    Returns: how many were compiled. That others were not is no error here: whoever launches a kernel that cannot be
    compiled meets the reason, and can deal with it; one for which there was no thread is compiled then.
    """
    with _LOCK:
        new = {
            repr(one): one for one in variants(configuration, dtypes, device) if (repr(one), device) not in _compiled
        }
        if not new or not _has_triton(device):
            return 0
        jobs: list[Future[None]] = []
        pool = ThreadPoolExecutor(min(THREADS, _processors()), "i2vgen-ms compiler")
        try:
            with suppress(RuntimeError):  # the system has no more threads, or the interpreter is ending
                for one in new.values():
                    jobs.append(pool.submit(_compile, one, device))
            wait(jobs)
        finally:
            pool.shutdown(cancel_futures=True)
        _compiled.update((name, device) for name in new)
        return sum(job.exception() is None for job in jobs)


def variants(configuration: Configuration, dtypes: Mapping[str, str], device: torch.device) -> list[Variant]:
    """What is launched on the device by networks as wide as the published ones that are in half precision, and when
    operations are tried; each once, and first what takes longest to compile."""
    file, task = _file(), configuration.task
    told: list[tuple[Variant, str | None]] = [(variant, None) for variant in file["trial"]]
    for name, listed in file[task].items():
        alike = _widths(getattr(configuration, name)) == _widths(getattr(_published(task), name))
        if alike and dtypes.get(name) in ("float16", "bfloat16"):
            told += [(variant, dtypes[name]) for variant in listed]
    found: dict[str, Variant] = {}
    for (kernel, given, options), dtype in told:
        if kernel not in NEEDS or NEEDS[kernel](device):
            variant = (kernel, [_in(dtype, one) for one in given], options)
            found.setdefault(repr(variant), variant)
    return sorted(found.values(), key=lambda one: one[0] not in LONGEST)


def _widths(part: PartSpec) -> tuple[Any, ...]:
    return part.type, part.options.get("channels"), part.options.get("multipliers")


def _has_triton(device: torch.device) -> bool:
    """Whether it works, as trying the operations says; its driver is loaded here, once, and not by several threads."""
    try:
        with torch.cuda.device(device):
            importlib.import_module("triton").runtime.driver.active.get_current_target()
    except Exception:  # whatever a driver that is not there raises
        return False
    return True


def _in(dtype: str | None, one: Any) -> Any:
    if isinstance(one, dict):
        return {**one, "dtype": _in(dtype, one["dtype"])}
    return dtype if one == HALF else one


def launched(variant: Variant) -> tuple[Any, list[Any], dict[str, Any]]:
    """The kernel, and what it is launched with, in which tensors have no memory."""
    kernel, given, options = variant
    module, _, name = kernel.rpartition(".")
    function = getattr(importlib.import_module(f"i2vgen_ms.runtime.kernels.{module}"), name)
    return function, [_stand_in(one) for one in given], dict(options)


def _stand_in(one: Any) -> Any:
    if isinstance(one, str):
        return torch.empty(1, dtype=getattr(torch, one), device="meta")
    if not isinstance(one, dict):
        return one
    base = torch.empty(one["tile"], dtype=getattr(torch, one["dtype"]), device="meta")
    if "layout" not in one:
        from triton.tools.tensor_descriptor import TensorDescriptor

        return TensorDescriptor.from_tensor(base, one["tile"])
    from triton.experimental.gluon.language import NVMMASharedLayout
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as Described

    return Described.from_tensor(base, one["tile"], NVMMASharedLayout(**one["layout"]))


def _compile(variant: Variant, device: torch.device) -> None:
    function, given, options = launched(variant)
    with torch.cuda.device(device):  # of this thread
        with _BINDING:  # two threads would make two of these, and the kernels of one be lost
            _ = function.device_caches[device.index]
        kernel = function.warmup(*given, grid=(1,), **options)
        _ = kernel.run  # what launches it is compiled too, in some versions of Triton


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((configuration_folder() / FILE).read_text(encoding="utf-8"))
    return found


_published = cache(reader.shipped)
