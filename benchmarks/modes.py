"""The row of memory modes: what `balanced` and `low` cost beside `fast`, and that they change nothing.

What is compared bit by bit is what the sampler ends with, from the same state: in `low` the autoencoder works on fewer
frames at a time, and on large ones in strips, which are other shapes and so may round otherwise.

Each mode has a pipeline of its own, so that none finds what another left. The peak of each is in the row `memory`,
whose processes have one pipeline alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Generator, Tensor

from benchmarks.bench import Bench, normal
from benchmarks.runs import STEPS, TEXT, Steps, _now
from benchmarks.timing import Gate, Row, interleaved, relative_error
from i2vgen_ms.pipelines import Progress
from i2vgen_ms.runtime.memory import PLANS

MODES = tuple(PLANS)


def modes(bench: Bench) -> Iterator[Row]:
    """Whole calls of stage 2, frames in and frames in memory out, in each mode."""
    pipes = {"fast": bench.ours(2)} | {mode: bench.ours(2, memory=mode) for mode in MODES[1:]}
    settings = bench.configuration(2)
    published = int(settings.diffusion.steps)
    steps = min(published, bench.steps or STEPS[bench.size][2])
    shape = (settings.output.num_frames, 256, 448, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def video(mode: str, **given: Any) -> Tensor:
        made: Tensor = pipes[mode](frames, text=TEXT, steps=steps, output_type="pt", **given).tensor
        return made

    def whole(mode: str) -> Callable[[], float]:
        def timed() -> float:
            seen, begun = Steps(bench.device), _now(bench.device)
            video(mode, progress=seen.progress)
            return _now(bench.device) - begun + (published - steps) * seen.median()

        return timed

    state = normal((1, *bench.latent_shape(2)), Generator().manual_seed(0))

    def latents(mode: str) -> Tensor:
        seen: list[Tensor] = []

        def look(progress: Progress) -> None:
            if progress.latents is not None:
                seen[:] = [progress.latents.cpu()]

        video(mode, guidance_branches="sequential", noised_latents=state, progress=look)
        return seen[0]

    wanted = latents("fast")
    for mode in MODES[1:]:
        taken = interleaved(
            {"fast": whole("fast"), mode: whole(mode)},
            repeat=bench.repeat,
            device=bench.device,
            measure=lambda function, _: float(function()),  # type: ignore[arg-type]
        )
        times = statistics.median(taken[mode]) / statistics.median(taken["fast"])
        yield Row(
            f"stage 2, {published} steps, {mode}",
            "fast",
            taken["fast"],
            taken[mode],
            gate=Gate(relative_error(latents(mode), wanted), 0.0, rounding=0),
            notes={"time x fast": times, "steps run": f"{steps} of {published}"},
        )
