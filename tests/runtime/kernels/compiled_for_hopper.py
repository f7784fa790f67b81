"""Compiles the kernels made for Hopper devices, which need not be there, and prints what came of it as JSON.

    python -m tests.runtime.kernels.compiled_for_hopper long_attention|narrow_geglu

A program of its own, as Triton is told when it is imported whether it interprets.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from i2vgen_ms.runtime.kernels import long_attention, narrow_geglu

WIDE = [["tt.divisibility", 16]]


def described(dtype: str, *tile: int) -> str:
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=len(tile))
    return f"tensordesc<{dtype}{list(tile)},{layout!r}>"


def of_attention(dtype: str) -> dict[str, int]:
    tile, width = long_attention.TILE, long_attention.WIDTH
    rows = {"q": long_attention.ROWS, "k": tile["KEYS"], "v": tile["KEYS"]}
    signature = {name: described(dtype, 1, count, width) for name, count in rows.items()}
    signature |= {"out": f"*{dtype}", "queries": "i32", "keys": "i32", "width": "i32", "scale": "fp32"}
    return compiled(long_attention._attend, signature, tile, (3, 4, 5, 6))


def of_the_gate(dtype: str) -> dict[str, int]:
    rows, channels, depth = narrow_geglu.ROWS, narrow_geglu.CHANNELS, narrow_geglu.DEPTH
    signature = {"x": described(dtype, rows, depth), "weight": described(dtype, 2, channels, depth)}
    signature |= {"bias": f"*{dtype}", "out": described(dtype, rows, channels)}
    signature |= dict.fromkeys(("rows", "width", "blocks", "slots"), "i32")
    return compiled(narrow_geglu._product, signature, {"STEPS": 5, **narrow_geglu.TILE}, (2, 5))


def compiled(kernel: Any, signature: dict[str, str], constants: dict[str, int], wide: Sequence[int]) -> dict[str, int]:
    """Arguments at the places `wide` are multiples of 16."""
    signature = signature | dict.fromkeys(constants, "constexpr")
    source = GluonASTSource(kernel, signature, constants, {(place,): WIDE for place in wide})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stack, local = re.search(r"STACK:(\d+) .*?LOCAL:(\d+)", told).groups()  # type: ignore[union-attr]
    wgmma = made.asm["ptx"].count("wgmma.mma_async")
    return {"wgmma": wgmma, "stack": int(stack), "local": int(local), "shared": made.metadata.shared}


if __name__ == "__main__":
    one = {"long_attention": of_attention, "narrow_geglu": of_the_gate}[sys.argv[1]]
    print(json.dumps([one(dtype) for dtype in ("fp16", "bf16")]))  # noqa: T201
