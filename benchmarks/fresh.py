"""Rows that need processes of their own: the first call of a process, and the most memory of a run.

    python -m benchmarks.fresh JOB SIDE --models FOLDER --size full|small --device DEVICE [--oracle FOLDER]

runs one JOB (`first-call`, `memory`) of one SIDE (`published`, `compiled`, `ours`; for memory also `ours:balanced` and
`ours:low`) and prints its numbers as JSON; `first_call` and `memory` here start these processes and make rows of them.
A call is loading stage 2 and running it with two steps, for memory with three, which fill the path of the sampler's
noise; of `compiled` it is a guided step alone. What imports take, and the device's start, is not counted, nor what is
done once for a file and remembered beyond the process (hashing it and checking its numbers). The later call loads anew
and runs again in the same process. For memory a pipeline is called twice, as a second call may find what the first one
left. Each side has as many processes as rows have repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import oracle
from benchmarks.bench import Bench, free, inputs, their_forward
from benchmarks.forwards import COMPILED
from benchmarks.memory import GIB, Driver
from benchmarks.models import SIZES
from benchmarks.runs import TEXT, _now
from benchmarks.theirs import Theirs
from benchmarks.timing import Row
from i2vgen_ms.pipelines import load
from i2vgen_ms.runtime.memory import PLANS

STEPS = {"first-call": 2, "memory": 3}
MODES = tuple(PLANS)
# The numbers of one process, by what they are.
Told = dict[str, float]


def first_call(bench: Bench) -> list[Row]:
    """The first call beyond a later one, with no kernels kept from before, and with those of the first process."""
    cold, cached, published = list[Told](), list[Told](), list[Told]()
    for _ in range(bench.repeat):
        with tempfile.TemporaryDirectory() as kept:
            cold.append(_child(bench, "first-call", "ours", kept))
            cached.append(_child(bench, "first-call", "ours", kept))
        if not bench.alone:
            with tempfile.TemporaryDirectory() as kept:
                published.append(_child(bench, "first-call", "published", kept))
    return [
        _beyond("first call beyond a later, cold kernels", "published", published, cold),
        _beyond("first call beyond a later, cached kernels", "published", published, cached),
    ]


def first_call_compiled(bench: Bench) -> list[Row]:
    """The same against torch.compile, whose kernels are not kept from before either."""
    ours, compiled = list[Told](), list[Told]()
    for _ in range(bench.repeat):
        for side, told in (("ours", ours), ("compiled", compiled)):
            with tempfile.TemporaryDirectory() as kept:
                told.append(_child(bench, "first-call", side, kept))
    return [_beyond("first call beyond a later, cold, beside compile", "compiled", compiled, ours)]


def _beyond(name: str, base: str, theirs: list[Told], ours: list[Told]) -> Row:
    def difference(told: list[Told]) -> list[float]:
        return [one["first"] - one["later"] for one in told]

    notes = {f"ours, {call} s": statistics.median(one[call] for one in ours) for call in ("first", "later")}
    return Row(name, base, difference(theirs), difference(ours), notes=notes)


def memory(bench: Bench) -> Iterator[Row]:
    """The peak of stage 2, as torch counts it and as the driver does; on the CPU the process's resident set."""

    def told(side: str) -> list[Told]:
        return [_child(bench, "memory", side, None) for _ in range(bench.repeat)]

    published = [] if bench.alone else told("published")
    for mode in MODES:
        ours = told(f"ours:{mode}")
        for what in ours[0]:
            name = f"stage 2, peak memory by {what}, {mode}"
            yield Row(name, "published", [one[what] for one in published], [one[what] for one in ours], unit="GiB")


def _child(bench: Bench, job: str, side: str, kernels: str | None) -> Told:
    bench.home(2)
    bench.release()
    command = [sys.executable, "-m", "benchmarks.fresh", job, side, "--models", str(bench.folder)]
    command += ["--size", bench.size, "--device", str(bench.device)]
    command += ["--oracle", str(bench.oracle)] if bench.oracle else []
    environment = dict(os.environ)
    if kernels is not None:
        environment |= {
            "TRITON_CACHE_DIR": f"{kernels}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{kernels}/inductor",
            "CUDA_CACHE_PATH": f"{kernels}/cuda",
        }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{job} of {side} failed:\n{done.stderr[-2000:]}")
    result: Told = json.loads(done.stdout.splitlines()[-1])
    return result


def ready(bench: Bench, side: str, steps: int) -> Callable[[], object]:
    """Loads a side of stage 2; what is returned runs it with so many steps."""
    output = bench.configuration(2).output
    frames = np.random.default_rng(0).integers(0, 256, (output.num_frames, 256, 448, 3), dtype=np.uint8)
    if side.startswith("ours"):
        pipe = bench.ours(2, memory=side.partition(":")[2] or "fast")
        return lambda: pipe(frames, text=TEXT, steps=steps, output_type="pt", progress=False)
    theirs = Theirs(bench.home(2), 2, bench.device, half=bench.half)
    if side == "published":
        video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
        _ = theirs.unet, theirs.autoencoder, theirs.encoder
        return lambda: theirs.refine(video, TEXT, steps, theirs.unet)
    given = inputs(bench, 2, 2)
    theirs.unet = torch.compile(theirs.unet, disable=not COMPILED[bench.size])  # type: ignore[assignment]
    return lambda: their_forward(theirs, given)


def _first(bench: Bench, side: str) -> Told:
    torch.zeros(1, device=bench.device)
    if side == "ours":
        # So that the weight files are known: else only the first process of a command would check them.
        load(bench.home(2), device="cpu")
        free(bench.device)

    def timed(function: Callable[[], object]) -> tuple[float, Any]:
        begun = _now(bench.device)
        result = function()
        return _now(bench.device) - begun, result

    steps = STEPS["first-call"]
    loading, run = timed(lambda: ready(bench, side, steps))
    del run
    bench.release()
    again, run = timed(lambda: ready(bench, side, steps))
    first, later = (timed(run)[0] for _ in range(2))
    return {"first": loading + first, "later": again + later}


def _peak(bench: Bench, side: str) -> Told:
    cuda = bench.device.type == "cuda"
    watching: AbstractContextManager[Any] = Driver() if cuda else nullcontext()
    with watching as driver:
        run = ready(bench, side, STEPS["memory"])
        for _ in range(2):
            run()
    if not cuda:
        return {"resident set": _resident() / GIB}
    return {"torch": torch.cuda.max_memory_allocated(bench.device) / GIB, "the driver": driver.peak / GIB}


def _resident() -> int:
    """The most bytes of this process; getrusage would count those of the process that started it, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["first-call", "memory"])
    parser.add_argument("side")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", type=torch.device, required=True)
    parser.add_argument("--oracle", type=Path)
    options = parser.parse_args()
    if options.oracle:
        oracle.use(options.oracle)
    bench = Bench(options.models, options.size, options.device)
    bench.home(2)
    free(bench.device)
    print(json.dumps((_first if options.job == "first-call" else _peak)(bench, options.side)))


if __name__ == "__main__":
    main()
