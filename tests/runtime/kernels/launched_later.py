"""Compiles kernels beforehand for a device that is not there, then launches in vain all that a video does; prints, as
JSON, how many were compiled before and which were only then.

A program of its own, as Triton is told when it is imported whether it interprets.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from benchmarks import kernels
from i2vgen_ms.config import reader
from i2vgen_ms.runtime import beforehand, operations, trial


class Driver:
    """Of one Hopper device."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main(task: str) -> tuple[int, list[str]]:
    compiled: list[str] = []
    compile_, run = JITFunction._do_compile, JITFunction.run

    def counted(self: Any, *given: Any, **options: Any) -> Any:
        compiled.append(self.__name__)
        return compile_(self, *given, **options)

    def unlaunched(self: Any, *given: Any, **options: Any) -> Any:
        return run(self, *given, **{**options, "warmup": True})

    triton.runtime.driver.set_active(Driver())
    with (
        mock.patch.object(JITFunction, "_do_compile", counted),
        mock.patch.object(JITFunction, "run", unlaunched),
        mock.patch.object(CompiledKernel, "run", None),
        mock.patch.object(torch.cuda, "device", return_value=nullcontext()),
        mock.patch.object(torch.cuda, "get_device_capability", return_value=(9, 0)),
        kernels.as_on_hopper(),
        torch.no_grad(),
    ):
        dtypes = {"st_unet": "float16", "autoencoder": "float16"}
        beforehand.compile_kernels(reader.shipped(task), dtypes, torch.device("cuda", 0))
        before = len(compiled)
        table = operations.fused_table(operations.IN_PARTS)
        for probe in trial.probes(table, kernels.META).values():
            probe()
        for _, video in kernels.runs(task, table):
            video()
    return before, compiled[before:]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))  # noqa: T201
