"""Memory modes at full size on a CUDA device: how much each takes, how long it lasts.

    python -m benchmarks.memory                        # stage 2 and both stages, every mode
    python -m benchmarks.memory stage-2:low:4 chain:auto:8 --steps 5

A row is JOB:MODE or JOB:MODE:GIB, where GIB is what the device is said to have: torch may allocate that much less the
0.75 GiB that the driver and the libraries take. Jobs: `stage-1` (32 frames of
448x256), `stage-2` (32 frames of 1280x720), `chain` (two pipelines, one after the other, as the model cards have it).
The weights are random and of the published sizes; each row is a process of its own. `torch` is the peak of what torch
allocated, `device` the peak of what the driver counts for the process, libraries and gaps included. `step s` is the
median of the last pipeline's steps; with fewer steps `whole s` is the run with the missing ones added at that time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

GIB = 2**30
LIBRARIES = 0.75
ROWS = [f"{job}:{mode}" for job in ("stage-2", "chain") for mode in ("fast", "balanced", "low", "auto")]
STEPS = {"image-to-video": 50, "video-to-video": 30}


class Driver:
    """The most that the device's driver counted as used since the process began, by looking every few milliseconds."""

    def __init__(self) -> None:
        import torch

        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        self.before = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 2**20
        self.total = torch.cuda.mem_get_info(0)[1]
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        import torch

        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self.total - torch.cuda.mem_get_info(0)[0] - self.before)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


class Clock:
    """Is told a call's progress, and times its steps."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def __call__(self, progress: Any) -> None:
        if progress.stage == "sampling":
            import torch

            torch.cuda.synchronize()
            self._times.append(time.monotonic())

    def median(self) -> float:
        """Seconds a step; the first two warm up."""
        return statistics.median(later - sooner for sooner, later in pairwise(self._times[1:]))


def make_models(folder: Path) -> None:
    """The two models with random weights of full size, fp16 in the files."""
    import torch

    from i2vgen_ms.config import reader
    from i2vgen_ms.random_model import write_random_weights

    for task in STEPS:
        configuration = reader.shipped(task)
        (folder / task).mkdir(parents=True)
        (folder / task / "configuration.json").write_text(json.dumps(configuration.to_json()), encoding="utf-8")
        write_random_weights(folder / task, configuration, dtype=torch.float16, device="cuda")


def measure(folder: Path, job: str, mode: str, steps: int | None) -> dict[str, Any]:
    """One row, in this process."""
    import numpy as np
    import torch

    from i2vgen_ms.pipelines import load

    warnings.simplefilter("ignore")
    row, chosen = dict[str, Any](), list[str]()
    picture = np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    video: Any = np.random.default_rng(0).integers(0, 256, (32, 256, 448, 3), dtype=np.uint8)
    tasks = {"stage-1": ["image-to-video"], "stage-2": ["video-to-video"]}.get(job, list(STEPS))
    _watch_plans(chosen)
    with Driver() as driver, tempfile.TemporaryDirectory() as out:
        started, missing = time.monotonic(), 0.0
        pipes = {task: load(folder / task, device="cuda:0", memory=mode) for task in tasks}
        row["load s"] = time.monotonic() - started
        started = time.monotonic()
        for task, pipe in pipes.items():
            name, source = f"{out}/{task}.mp4", picture if task == "image-to-video" else video
            clock = Clock()
            video = pipe(source, output=name, steps=steps or STEPS[task], progress=clock).path
            row["step s"] = clock.median()
            missing += (STEPS[task] - (steps or STEPS[task])) * row["step s"]
        torch.cuda.synchronize()
        row["run s"] = time.monotonic() - started
        row["whole s"] = row["run s"] + missing
    row["torch GiB"] = torch.cuda.max_memory_allocated() / GIB
    row["device GiB"] = driver.peak / GIB
    row["plans"] = "+".join(chosen)
    return row


def _watch_plans(chosen: list[str]) -> None:
    """Notes which plan each call takes."""
    from i2vgen_ms.pipelines import stage

    choose = stage.choose

    def noting(*args: Any) -> Any:
        plan = choose(*args)
        chosen.append(plan.mode)
        return plan

    stage.choose = noting  # type: ignore[assignment]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=ROWS, metavar="JOB:MODE[:GIB]")
    parser.add_argument("--steps", type=int, help="fewer steps than the published 50 and 30; the peak is the same")
    parser.add_argument("--models", type=Path, help="a folder to keep the models in, or that has them already")
    parser.add_argument("--json", action="store_true", help="a JSON line a row")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        job, mode, *cap = options.one.split(":")
        if cap:
            import torch

            share = (float(cap[0]) - LIBRARIES) * GIB
            torch.cuda.set_per_process_memory_fraction(share / torch.cuda.mem_get_info(0)[1])
        print(json.dumps(measure(options.models, job, mode, options.steps)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        models = options.models or Path(temporary) / "models"
        if not models.exists():
            make_models(models)
            import torch

            torch.cuda.empty_cache()
        os.environ.setdefault("I2VGEN_MS_CACHE", f"{temporary}/cache")
        print(
            f"{'row':24}{'torch GiB':>10}{'device GiB':>11}{'load s':>8}{'run s':>8}{'step s':>8}{'whole s':>9}  plans",
            flush=True,
        )
        for name in options.rows:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", name, "--models", str(models)]
            command += ["--steps", str(options.steps)] if options.steps else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name:24}failed: {done.stderr.strip().splitlines()[-1][:200]}", flush=True)
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            if options.json:
                print(json.dumps({"row": name, **row}), flush=True)
            else:
                memory = f"{row['torch GiB']:10.2f}{row['device GiB']:11.2f}"
                times = f"{row['load s']:8.1f}{row['run s']:8.1f}{row['step s']:8.2f}{row['whole s']:9.1f}"
                print(f"{name:24}{memory}{times}  {row['plans']}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
