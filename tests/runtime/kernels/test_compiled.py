"""The kernels through Triton's compiler, which needs no device: it refuses what the interpreter forgives."""

from __future__ import annotations

import sys

import pytest

from tests.runtime.uninterpreted import python

# In a process of its own, because the tests of the numbers may have set Triton to its interpreter for good.
COMPILE = """
import importlib, pkgutil
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
import i2vgen_ms.runtime.kernels as package

CONSTANTS = {"ROWS": 32, "COLUMNS": 64, "SPLITS": 32, "WIDTH": 16, "SILU": True, "SHIFT": True, "FRAMES": 32,
             "TILES": 2, "X": True, "Y": True, "BIAS": True, "KEYS": 16384, "M": 64, "N": 64, "K": 32,
             "AFTER": True, "UNIT": 4, "FIRST": 64, "REST": 16}
HALF = {"x", "y", "total", "out", "weight", "bias", "shift", "after", "q", "k", "v", "shares"}
TILES = {"tokens": "tensordesc<fp16[64,32]>", "weights": "tensordesc<fp16[2,64,32]>",
         "result": "tensordesc<fp16[64,64]>"}
CALLED = {"_gelu", "_looked_up", "_scores"}  # by other kernels, which compile them with themselves
made = []
for module in pkgutil.iter_modules(package.__path__):
    if module.name in ("long_attention", "narrow_geglu"):  # in another language; see compiled_for_hopper.py
        continue
    for kernel in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
        if not isinstance(kernel, JITFunction) or kernel.__name__ in CALLED:
            continue
        kinds = {
            name: "constexpr" if name in CONSTANTS
            else TILES[name] if name in TILES
            else "*fp16" if name in HALF
            else "*fp32" if name in POINTERS
            else "fp32" if name in {"eps", "scale"}
            else "i32"
            for name in kernel.arg_names
        }
        source = ASTSource(kernel, kinds, {name: CONSTANTS[name] for name in kernel.arg_names if name in CONSTANTS})
        compiled = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32))
        made.append(kernel.__name__)
        assert "ptx" in compiled.asm
print(*made)
"""
POINTERS = {"means", "squares", "scales", "shifts", "scores", "sums"}


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux")
@pytest.mark.full
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles(capability: int, tmp_path) -> None:
    code = f"CAPABILITY, POINTERS = {capability}, {POINTERS!r}\n{COMPILE}"
    compiled = python(tmp_path, "-c", code).split()
    assert {
        "_statistics",
        "_whole",
        "_fold",
        "_interleave",
        "_weigh",
        "_merge",
        "_apply",
        "_normalise",
        "_add",
        "_gated",
        "_product",
        "_attend",
        "_join",
        "_double",
    } <= set(compiled)
