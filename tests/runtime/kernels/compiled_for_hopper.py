"""Compiles `long_attention` for a Hopper device, which need not be there, and prints what came of it as JSON.

A program of its own, as Triton is told when it is imported whether it interprets.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from i2vgen_ms.runtime.kernels.long_attention import ROWS, TILE, WIDTH, _attend

LAYOUT = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
WIDE = [["tt.divisibility", 16]]


def compiled(dtype: str) -> dict[str, int]:
    rows = {"q": ROWS, "k": TILE["KEYS"], "v": TILE["KEYS"]}
    signature = {name: f"tensordesc<{dtype}[1, {count}, {WIDTH}],{LAYOUT!r}>" for name, count in rows.items()}
    signature |= {"out": f"*{dtype}", "queries": "i32", "keys": "i32", "width": "i32", "scale": "fp32"}
    signature |= dict.fromkeys(TILE, "constexpr")
    source = GluonASTSource(_attend, signature, dict(TILE), {(place,): WIDE for place in (3, 4, 5, 6)})
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stack, local = re.search(r"STACK:(\d+) .*?LOCAL:(\d+)", told).groups()  # type: ignore[union-attr]
    return {"wgmma": kernel.asm["ptx"].count("wgmma.mma_async"), "stack": int(stack), "local": int(local)}


if __name__ == "__main__":
    print(json.dumps([compiled(dtype) for dtype in ("fp16", "bf16")]))  # noqa: T201
