"""Ours beside the published implementation: both stages, random non-zero weights, interleaved in one process.

    python -m benchmarks.published                                   # every row, full size, on the CUDA device
    python -m benchmarks.published stage-2-forward stage-2 --repeat 5 --json out.json
    python -m benchmarks.published --ours both modes                 # our side alone, in a fraction of the time
    python -m benchmarks.published --size small --device cpu         # every row with tiny networks, in a minute
    python -m benchmarks.published --copy-oracle FOLDER              # where modelscope is; elsewhere: --oracle FOLDER

Rows, each within six minutes on an H200: `stage-1-forward`, `stage-2-forward` (a batch of 1, and of both guidance
branches, for which the published code runs its network twice); `stage-1-compiled`, `stage-2-compiled` (against the
published network under torch.compile); `stage-1` (50 steps), `stage-2` (30 steps): sampling alone, in which --steps N
are run and the others added at the median step's time; `modes` (stage 2 in the memory modes `balanced` and `low` beside
`fast`); `autoencoder`; `encoders`; `both` (a picture to all frames of stage 2); `first-call`, `memory`, and
`first-call-compiled`, for whose compiler give --repeat 1; `files`.

Published is modelscope's own classes with scaled_dot_product_attention in the place of xformers, run as its model
classes run them. `ratio` is of the medians. The gate is the relative L2 distance of our output from the published
network's in fp32 (weights and noise the same), and may not be larger than the distance of the published fp16 path; that
of `modes` is the distance from `fast` with branches one after the other, and has to be 0: places alone differ. The
command ends with 1 if one is. Nothing is downloaded; the weights need 5 GB in a temporary folder, or in --models.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import forwards, fresh, modes, oracle, runs
from benchmarks.bench import Bench, free
from benchmarks.models import SIZES
from benchmarks.timing import HEADER, Row, failed, versions

ROWS: dict[str, Callable[[Bench], Iterable[Row]]] = {
    "stage-1-forward": partial(forwards.network, stage=1),
    "stage-2-forward": partial(forwards.network, stage=2),
    "stage-1": partial(runs.sampling, stage=1),
    "stage-2": partial(runs.sampling, stage=2),
    "modes": modes.modes,
    "autoencoder": forwards.autoencoder,
    "encoders": forwards.encoders,
    "both": runs.both,
    "files": runs.files,
    "first-call": fresh.first_call,
    "memory": fresh.memory,
    "stage-1-compiled": partial(forwards.compiled, stage=1),
    "stage-2-compiled": partial(forwards.compiled, stage=2),
    "first-call-compiled": fresh.first_call_compiled,
}


# Rows that say nothing without another side.
BESIDE = ("stage-1-compiled", "stage-2-compiled", "first-call-compiled")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all without one")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--steps", type=int, help="how many sampling steps are run")
    parser.add_argument("--repeat", type=int, default=3, help="how often each side is measured")
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--ours", action="store_true", help="our side alone: no modelscope, no ratios and no gates")
    parser.add_argument("--models", type=Path, help="a folder to keep the models in, or that has them already")
    parser.add_argument("--oracle", type=Path, help="a folder with the published classes")
    parser.add_argument("--copy-oracle", type=Path, metavar="FOLDER", help="only fill such a folder")
    options = parser.parse_args(arguments)
    if options.copy_oracle:
        print(f"{len(oracle.copy_to(options.copy_oracle))} files in {options.copy_oracle}")
        return 0
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    rows = options.rows or [row for row in ROWS if not options.ours or row not in BESIDE]
    if options.ours and set(rows) & set(BESIDE):
        parser.error(f"{', '.join(BESIDE)} are comparisons; leave out --ours")
    if options.repeat < 1 or (options.steps is not None and options.steps < 2):
        parser.error("--repeat is at least 1 and --steps at least 2")
    if options.oracle:
        oracle.use(options.oracle)
    device = torch.device(options.device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # Of the published classes, whose ways are not this command's.
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        os.environ.setdefault("I2VGEN_MS_CACHE", f"{temporary}/cache")
        bench = Bench(
            options.models or Path(temporary) / "models",
            options.size,
            device,
            steps=options.steps,
            repeat=options.repeat,
            oracle=options.oracle,
            alone=options.ours,
        )
        try:
            wrong = failed(measure(bench, rows, options.json))
        finally:
            logging.disable(logging.NOTSET)
    for name in wrong:
        print(f"not exact: {name}", file=sys.stderr)
    return 1 if wrong else 0


def measure(bench: Bench, names: Sequence[str], file: Path | None) -> list[Row]:
    """Prints the rows as they come, and puts them into the file, which so has them whatever happens to the next."""
    found = {"size": bench.size, "versions": versions(bench.device)}
    print("  ".join(f"{key} {value}" for key, value in versions(bench.device).items()), HEADER, sep="\n", flush=True)
    rows: list[Row] = []
    for name in names:
        for row in ROWS[name](bench):
            rows.append(row)
            print(row, flush=True)
            if file is not None:
                content = {**found, "rows": [row.to_json() for row in rows]}
                file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        free(bench.device)
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
