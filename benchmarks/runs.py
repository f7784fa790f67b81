"""Rows of whole runs: the sampling of each stage, both stages end to end, and frames to a file.

A run of the published length is what was measured, plus the steps that were left out at the median step's time.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from benchmarks.bench import Bench, inputs, normal, placed
from benchmarks.timing import Row
from i2vgen_ms import catalogue
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.media.writers import open_writer
from i2vgen_ms.pipelines import Animation, delivery
from i2vgen_ms.pipelines.sampling import sample

# Steps that are run where nobody says how many.
STEPS = {"full": {1: 10, 2: 5}, "small": {1: 2, 2: 2}}
TEXT = "A red panda asleep in the snow"
# Seconds that decoding a frame takes the device; the processor is free for the file meanwhile.
PACE = {"full": 0.9 / 32, "small": 0.0}


class Steps:
    """The moments at which sampling steps began or ended, and what a run of the published length takes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []
        self._calls = 0

    def tick(self) -> None:
        self._times.append(_now(self._device))

    def counting(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The network, noting when every other call begins: guidance makes two a step."""

        def called(*given: Any, **named: Any) -> Tensor:
            if self._calls % 2 == 0:
                self.tick()
            self._calls += 1
            return network(*given, **named)

        return called

    def progress(self, event: Any) -> None:
        """For our pipelines: is told what they report."""
        if event.stage == "sampling":
            self.tick()

    def median(self) -> float:
        return statistics.median(later - sooner for sooner, later in pairwise(self._times))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def sampling(bench: Bench, stage: int) -> list[Row]:
    """All guided steps of a stage, from noise to latents."""
    pipe, side, gate = bench.ours(stage), bench.theirs(stage), bench.gate(stage)
    given = inputs(bench, stage, 2)
    x = given.ours["x"][:1]
    name = "image" if stage == 1 else "text"
    tokens = given.ours[name].split(1)
    published = int(pipe.configuration.diffusion.steps)
    steps = bench.steps or STEPS[bench.size][stage]
    diffusion = pipe.configuration.replace("diffusion.steps", steps).diffusion
    shared = {"fps": given.ours["fps"][:1]} if stage == 1 else {}
    spent: dict[str, list[float]] = {"published": [], "ours": []}

    def theirs() -> Steps:
        seen = Steps(bench.device)
        if stage == 1:
            side.sample_first(x, tokens[0], steps, seen.counting(side.unet))
        else:
            side.sample_second(x, tokens[0], tokens[1], steps, seen.counting(side.unet))
        return seen

    def ours() -> Steps:
        seen = Steps(bench.device)
        with torch.no_grad(), placed(pipe, "st_unet") as network:
            sample(
                network,
                diffusion,
                x,
                positive={name: tokens[0], **shared},
                negative={name: tokens[1] if stage == 2 else torch.zeros_like(tokens[0]), **shared},
                generators=[torch.Generator().manual_seed(0)],
                on_step=lambda _: seen.tick(),
                first_timestep=None if stage == 1 else 599,
                graphs=pipe.configuration.cuda_graphs,
            )
        return seen

    def whole(label: str, run: Callable[[], Steps]) -> Callable[[], float]:
        def timed() -> float:
            begun = _now(bench.device)
            seen = run()
            measured = _now(bench.device) - begun
            spent[label].append(seen.median())
            return measured + (published - steps) * seen.median()

        return timed

    taken = bench.taken(
        {"published": whole("published", theirs), "ours": whole("ours", ours)},
        measure=lambda function, _: float(function()),  # type: ignore[arg-type]
    )
    notes = {"steps run": f"{steps} of {published}"}
    per = {label: times[1:] for label, times in spent.items()}  # without the one that warmed up
    return [
        Row(f"stage {stage}, one guided step", "published", per["published"], per["ours"], gate=gate),
        Row(
            f"stage {stage}, {published} steps", "published", taken["published"], taken["ours"], gate=gate, notes=notes
        ),
    ]


def both(bench: Bench) -> list[Row]:
    """A picture in, all frames of stage 2 in memory; what goes from stage to stage stays there too."""
    pipes, sides = {n: bench.ours(n) for n in (1, 2)}, {n: bench.theirs(n) for n in (1, 2)}
    chain = Animation(pipes[1], pipes[2])
    published = {n: int(pipes[n].configuration.diffusion.steps) for n in (1, 2)}
    steps = {n: min(published[n], bench.steps or STEPS[bench.size][n]) for n in (1, 2)}
    picture = np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    prepared = normal((1, 3, 224, 224), torch.Generator().manual_seed(7))
    noise = inputs(bench, 1, 1).ours["x"]

    def missing(seen: dict[int, Steps]) -> float:
        return sum((published[n] - steps[n]) * seen[n].median() for n in (1, 2))

    def theirs() -> float:
        seen, begun = {n: Steps(bench.device) for n in (1, 2)}, _now(bench.device)
        video = sides[1].animate(prepared, noise, steps[1], seen[1].counting(sides[1].unet))
        sides[2].refine(video, TEXT, steps[2], seen[2].counting(sides[2].unet))
        return _now(bench.device) - begun + missing(seen)

    def ours() -> float:
        seen, begun = {n: Steps(bench.device) for n in (1, 2)}, _now(bench.device)
        chain(
            picture,
            text=TEXT,
            output_type="pt",
            first={"steps": steps[1], "progress": seen[1].progress},
            second={"steps": steps[2], "progress": seen[2].progress},
        )
        return _now(bench.device) - begun + missing(seen)

    taken = bench.taken(
        {"published": theirs, "ours": ours},
        measure=lambda function, _: float(function()),  # type: ignore[arg-type]
    )
    gates = [gate for n in (1, 2) if (gate := bench.gate(n)) is not None]
    worst = max(gates, key=lambda gate: gate.ours / gate.limit, default=None)
    notes = {"steps run": " + ".join(f"{steps[n]} of {published[n]}" for n in (1, 2))}
    return [Row("both stages, end to end", "published", taken["published"], taken["ours"], gate=worst, notes=notes)]


def files(bench: Bench) -> list[Row]:
    """Frames to an mp4 file, beyond the moment at which the last frame is decoded."""
    output = bench.ours(2).configuration.output
    frames = textured(output.num_frames, output.height, output.width).to(bench.device)
    pace, ffmpeg = PACE[bench.size], shutil.which("ffmpeg")
    part = catalogue.build("writers", output.writer)

    def decoded() -> Iterator[Tensor]:
        for chunk in frames.split(2):
            time.sleep(pace * len(chunk))
            yield chunk

    def ours(folder: Path) -> None:
        opened = open_writer(folder / "ours.mp4", width=output.width, height=output.height, fps=8, part=part)
        with opened as writer:
            delivery.deliver(decoded(), writer, "video", count=len(frames))

    def theirs(folder: Path) -> None:
        pictures = to_uint8(torch.cat(list(decoded())))
        for number, picture in enumerate(pictures, 1):
            _write_png(folder / f"{number:06d}.png", picture)
        video = folder / "theirs.mp4"
        if ffmpeg is None:
            _encode_files(sorted(folder.glob("*.png")), video)
        else:
            command = [ffmpeg, "-y", "-f", "image2", "-loglevel", "quiet", "-framerate", "8.0", "-i"]
            command += [f"{folder}/%06d.png", "-vcodec", "libx264", "-crf", "17", "-pix_fmt", "yuv420p"]
            subprocess.run([*command, str(video)], check=True)

    def beyond(write: Callable[[Path], None]) -> Callable[[], float]:
        def timed() -> float:
            with tempfile.TemporaryDirectory() as folder:
                begun = _now(bench.device)
                write(Path(folder))
                return _now(bench.device) - begun - pace * len(frames)

        return timed

    taken = bench.taken(
        {"published": beyond(theirs), "ours": beyond(ours)},
        measure=lambda function, _: float(function()),  # type: ignore[arg-type]
    )
    notes = {"decoding s": pace * len(frames), "published": "PNG, then ffmpeg" if ffmpeg else "PNG, then its libraries"}
    return [Row("frames to mp4, beyond the last decode", "published", taken["published"], taken["ours"], notes=notes)]


def textured(frames: int, height: int, width: int) -> Tensor:
    """Frames `f h w c` in [-1, 1] of a texture that moves, as compressible as pictures are."""
    generator = torch.Generator().manual_seed(8)
    canvas = torch.zeros(1, 3, height, width + 2 * frames)
    for scale in (4, 16, 64):
        rough = torch.randn((1, 3, height // scale + 2, (width + 2 * frames) // scale + 2), generator=generator)
        canvas += F.interpolate(rough, canvas.shape[2:], mode="bicubic") * (scale / 64) ** 0.5
    canvas = rearrange(canvas.clamp(-2, 2) / 2, "1 c h w -> h w c")
    return torch.stack([canvas[:, 2 * number : 2 * number + width] for number in range(frames)])


def _encode_files(pictures: list[Path], video: Path) -> None:
    """What the published command line asks of ffmpeg, by its libraries, where there is no such program."""
    import av

    with av.open(str(video), "w") as container:
        stream: Any = None
        for number, path in enumerate(pictures):
            with av.open(str(path)) as file:
                frame = next(file.decode(video=0))
            if stream is None:
                stream = container.add_stream("libx264", rate=8, options={"crf": "17"})
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
            # A picture comes with a time of its own, which is the same for all of them.
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_png(path: Path, picture: Any) -> None:
    """As published, with OpenCV; with Pillow where there is none."""
    try:
        import cv2
    except ImportError:
        from PIL import Image

        Image.fromarray(picture).save(path)
    else:
        cv2.imwrite(str(path), picture[:, :, ::-1])
