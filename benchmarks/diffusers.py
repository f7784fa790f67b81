"""Ours beside diffusers' UNet3DConditionModel of the same width: time and memory of a forward at equal shapes.

    pip install diffusers                                   # which this package does not need
    python -m benchmarks.diffusers [ROW...] [--size small] [--repeat R] [--json FILE]

Rows, each of some minutes: `stage-1`, `stage-1-batch-2`, `stage-2`, `stage-2-batch-2`; all without one. The shapes are
those of both stages (448x256 and 1280x720, 32 frames), a batch of 1 and of both guidance branches; fp16 on a CUDA
device, where both are given channels-last weights and scaled_dot_product_attention is what diffusers itself takes; fp32
on the CPU. Ours is stage 2's network, which is conditioned on a text as diffusers' is. The weights are random and not
the same (the two lay out their temporal blocks differently), so there is no gate of exactness; the parameters of both
are in the notes. `peak` is what torch allocates for a forward beside the weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bench import Bench, free, latent_shape, normal, placed
from benchmarks.models import SIZES, configuration, values_of
from benchmarks.timing import HEADER, Row, interleaved, versions

MISSING = "diffusers is not installed here: `pip install diffusers`; this package itself does not need it"
TOKENS = 77
# Whose size, and how many items at once.
ROWS = {"stage-1": (1, 1), "stage-1-batch-2": (1, 2), "stage-2": (2, 1), "stage-2-batch-2": (2, 2)}


def network(size: str, device: torch.device) -> nn.Module:
    """diffusers' network with the numbers of stage 2's configuration and random non-zero weights."""
    try:
        from diffusers import UNet3DConditionModel
    except ImportError:
        raise SystemExit(MISSING) from None
    numbers = configuration(2, size).st_unet.options
    levels = len(numbers["multipliers"])
    kinds = ["CrossAttnDownBlock3D" if n in numbers["attention_levels"] else "DownBlock3D" for n in range(levels)]
    with torch.device("meta"):
        made = UNet3DConditionModel(
            in_channels=numbers["latent_channels"],
            out_channels=numbers["out_channels"],
            block_out_channels=tuple(numbers["channels"] * one for one in numbers["multipliers"]),
            layers_per_block=numbers["residual_blocks"],
            down_block_types=tuple(kinds),
            up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
            cross_attention_dim=numbers["context_channels"],
            attention_head_dim=numbers["head_channels"],
            norm_num_groups=numbers["norm_groups"],
        )
    made = made.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(values_of(name, parameter.shape, generator))
    made = made.eval().requires_grad_(False)
    return _channels_last(made.half()) if device.type == "cuda" else made


def _channels_last(module: nn.Module) -> nn.Module:
    """The module with the channels of its convolutions' weights last, of those over frames too.

    `module.to(memory_format=...)` has one order of memory for all weights, which fits only those of four axes.
    """
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in orders:
            parameter.data = parameter.data.contiguous(memory_format=orders[parameter.ndim])
    return module


def rows(bench: Bench, names: Sequence[str]) -> list[Row]:
    """Time and peak of a forward for each shape."""
    theirs, pipe = network(bench.size, bench.device), bench.ours(2)
    dtype = torch.float16 if bench.half else torch.float32
    notes = {"parameters": f"{_parameters(theirs):.3f} G, ours {_parameters(pipe.networks.st_unet):.3f} G"}
    found = []
    for stage, batch in (ROWS[name] for name in names):
        generator = torch.Generator(bench.device).manual_seed(stage)
        x = normal((batch, *latent_shape(configuration(stage, bench.size))), generator).to(dtype)
        text = normal((batch, TOKENS, 1024), generator).to(dtype)
        t = torch.full((batch,), 741, device=bench.device)
        x = x[..., : _rows(pipe, *x.shape[3:]), :]
        sides = {"diffusers": _diffusers(theirs, x, t, text), "ours": _ours(pipe, x, t, text)}
        name = f"forward of batch {batch}, latents {'x'.join(map(str, x.shape[1:]))}"
        taken = interleaved(sides, repeat=bench.repeat, device=bench.device, warm=2)
        found.append(Row(name, "diffusers", taken["diffusers"], taken["ours"], notes=notes))
        if bench.device.type == "cuda":
            peaks = {side: [_peak(run, bench.device)] for side, run in sides.items()}
            found.append(Row(f"{name}, peak", "diffusers", peaks["diffusers"], peaks["ours"], unit="GiB"))
    return found


def _rows(pipe: Any, height: int, width: int) -> int:
    """Most rows, not more than `height`, that our network of stage 2 takes."""
    return next(rows for rows in range(height, 0, -1) if pipe.networks.st_unet.takes(rows, width))


def _diffusers(network: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.no_grad():
            out: Tensor = network(x, t, encoder_hidden_states=text).sample
            return out

    return forward


def _ours(pipe: Any, x: Tensor, t: Tensor, text: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.no_grad(), placed(pipe, "st_unet") as network:
            out: Tensor = network(x, t.float(), text=text)
            return out

    return forward


def _parameters(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e9


def _peak(run: Callable[[], Tensor], device: torch.device) -> float:
    free(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diffusers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all without one")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--models", type=Path, help="a folder to keep the model in, or that has it already")
    options = parser.parse_args(arguments)
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    device = torch.device(options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.models or Path(temporary), options.size, device, repeat=options.repeat)
        found = rows(bench, options.rows or list(ROWS))
    about = versions(device) | {"diffusers": _version()}
    print("  ".join(f"{key} {value}" for key, value in about.items()), HEADER, *found, sep="\n")
    if options.json:
        content = {"size": options.size, "versions": about, "rows": [row.to_json() for row in found]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def _version() -> str:
    import diffusers

    return str(diffusers.__version__)


if __name__ == "__main__":
    raise SystemExit(main())
