"""Start-up: from an imported torch to the end of the first forward of the full-size stage-1 network, on the CPU.

    python -m benchmarks.startup [--folder DIR] [--json]

Writes a synthetic fp32 checkpoint of 5.7 GB in the published format, then runs each way in a process of its own:
the published one (constructor, torch.load, load_state_dict), ours the first time (the file is hashed and checked), and
ours later (the file is mapped). Peak memory is the process's resident set, mapped weights included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LATENTS = (1, 4, 1, 8, 8)


def _forward(network: Any, ours: bool) -> float:
    import torch

    x, t, fps = torch.zeros(LATENTS), torch.tensor([500]), torch.tensor([8])
    vector = torch.ones(1, 1, 1024)
    with torch.no_grad():
        out = network(x, t, image=vector, fps=fps) if ours else network(x, t, vector, fps=fps)
    return float(out.double().abs().mean())


def _published(path: str) -> float:
    import torch

    from benchmarks.oracle import network

    made = network()
    made.eval()
    # published: torch.load(path, map_location='cpu') of its day, which executes whatever the file says.
    made.load_state_dict(torch.load(path, map_location="cpu", weights_only=False)["state_dict"], strict=True)
    return _forward(made, ours=False)


def _ours(path: str) -> float:
    from i2vgen_ms.config import reader
    from i2vgen_ms.weights import architecture
    from i2vgen_ms.weights.load import load

    built = architecture.build(reader.shipped("image-to-video"), "st_unet")
    return _forward(load(built.network, path, built.layout), ours=True)


def _child(way: str, path: str) -> None:
    import torch

    # What either way has to import is not what is compared.
    if way == "published":
        from benchmarks.oracle import arguments

        arguments()
    else:
        import open_clip  # noqa: F401

        import i2vgen_ms.weights.load  # noqa: F401
    torch.set_num_threads(2)
    started = time.perf_counter()
    mean = (_published if way == "published" else _ours)(path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "mean": mean}))


def _measure(way: str, path: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.startup", "--child", way, "--path", str(path)]
    environment = os.environ | {"I2VGEN_MS_CACHE": str(cache)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _write(path: Path) -> int:
    # In a process of its own, so that its memory is not this one's.
    code = f"from benchmarks.oracle import write_checkpoint; print(write_checkpoint({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def measure(folder: Path) -> dict[str, Any]:
    """All rows, each a dict of seconds, peak bytes and the mean of the output (which has to be the same)."""
    path, cache = folder / "unet.pth", folder / "cache"
    weights = _write(path)
    rows = {
        "published": _measure("published", path, cache),
        "ours, first load": _measure("ours", path, cache),
        "ours, later load": _measure("ours", path, cache),
        "ours, later load again": _measure("ours", path, cache),
        "published again": _measure("published", path, cache),
    }
    return {"weights": weights, "rows": rows}


def _table(result: dict[str, Any]) -> str:
    base, weights = result["rows"]["published"], result["weights"]
    lines = [f"weights {weights / 1e9:.2f} GB; to the end of the first forward, after imports"]
    lines.append(f"{'':24}{'seconds':>9}{'ratio':>8}{'peak GB':>9}{'x weights':>11}{'mean |out|':>12}")
    for name, row in result["rows"].items():
        ratio = base["seconds"] / row["seconds"]
        lines.append(
            f"{name:24}{row['seconds']:9.2f}{ratio:8.1f}{row['peak'] / 1e9:9.2f}{row['peak'] / weights:11.2f}"
            f"{row['mean']:12.6f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is written (6 GB); default: a temporary one")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--child", choices=["published", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options.path)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder))
    print(json.dumps(result, indent=1) if options.json else _table(result))


if __name__ == "__main__":
    main()
