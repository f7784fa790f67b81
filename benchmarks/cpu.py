"""One guided step of stage 1 on the CPU, at small latents: ours beside the published class, fp32, the same weights.

    python -m benchmarks.cpu [--size small] [--threads 2] [--repeat R] [--json FILE]

The network is that of full size, the latents 1x4x8x16x32 (8 frames of 256x128). Guidance runs the published network
twice and ours once, with a batch of both branches, as the shipped configurations have it. The second step of a run
is timed, as ours keeps the memory that its steps give back. Both networks are made without initialising them and
share their tensors, so that 8 GB of memory are enough. The gate is what `benchmarks.published` has: the guided output
may differ by no more than what rounding does.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import SIZES, configuration, values_of
from benchmarks.theirs import unet
from benchmarks.timing import HEADER, Gate, Row, failed, interleaved, relative_error, seconds, versions
from i2vgen_ms import catalogue
from i2vgen_ms.runtime import heap, operations
from i2vgen_ms.runtime.processor import quicken
from i2vgen_ms.weights import architecture

LATENTS = {"full": (1, 4, 8, 16, 32), "small": (1, 4, 2, 16, 16)}
HERE = torch.device("cpu")


def sides(size: str) -> dict[str, Callable[[], Tensor]]:
    """A guided step of each, on the same numbers."""
    chosen = configuration(1, size)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        theirs = unet(1, chosen)
    theirs = theirs.to_empty(device=HERE).eval().requires_grad_(False)
    for name, parameter in theirs.named_parameters():
        parameter.copy_(values_of(name, parameter.shape, generator))
    built = architecture.build(chosen, "st_unet", operations.table(HERE))
    state = {}
    for name, tensor in theirs.state_dict().items():
        if (here := built.layout.to_ours(name)) is not None:
            state[here] = built.layout.to_our_shape(here, tensor)
    network = built.network
    network.load_state_dict(state, strict=True, assign=True)
    quicken(network)  # as pipelines do

    x = torch.randn(LATENTS[size], generator=generator)
    image = torch.randn((1, 1, 1024), generator=generator)
    guidance: Any = catalogue.build("guidance", chosen.diffusion.guidance)
    scale = chosen.diffusion.guidance.options["scale"]

    def published() -> Tensor:
        t, fps = torch.tensor([741]), torch.tensor([8])
        plus, minus = (theirs(x, t, one, fps=fps) for one in (image, torch.zeros_like(image)))
        return minus + scale * (plus - minus)

    def ours() -> Tensor:
        fps = torch.tensor([8.0])
        positive, negative = ({"image": one, "fps": fps} for one in (image, torch.zeros_like(image)))
        out: Tensor = guidance(network, x, torch.tensor([741.0]), positive, negative)
        return out

    return {"published": published, "ours": ours}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the published classes
            row, about = measure(options.size, options.repeat), versions(HERE)
    finally:
        torch.set_num_threads(before)
    print("  ".join(f"{key} {value}" for key, value in about.items()), HEADER, row, sep="\n")
    if options.json:
        content = {"size": options.size, "versions": about, "rows": [row.to_json()]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if failed([row]) else 0


def measure(size: str, repeat: int) -> Row:
    """The row. The first calls, which are not timed, are those that are compared."""
    both = sides(size)
    results = {name: run() for name, run in both.items()}
    gate = Gate(relative_error(results["ours"], results["published"]), 0.0)

    def timed(step: Callable[[], object], device: torch.device) -> float:
        # Our pipelines do so for a whole run. Of both a later step is timed.
        with heap.kept(device) if step is both["ours"] else nullcontext():
            step()
            return seconds(step, device)

    taken = interleaved(both, repeat=repeat, device=HERE, warm=0, measure=timed)
    name = f"cpu, one guided step, latents {'x'.join(map(str, LATENTS[size]))}"
    return Row(name, "published", taken["published"], taken["ours"], gate=gate)


if __name__ == "__main__":
    raise SystemExit(main())
