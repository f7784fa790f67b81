"""`i2vgen-ms image-to-video PICTURE... -o OUT`: a video of each picture; no ModelScope if the model is a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from i2vgen_ms.errors import ArgumentError

MODEL = "damo/Image-to-Video"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
LOADING = ("device", "dtype", "cache")
CALL = (
    *("seed", "steps", "sampler", "spacing", "timestep_rounding", "guidance_scale", "guidance_rescale"),
    *("guidance_branches", "num_frames", "fps", "width", "height", "crop", "batch_size", "latents", "progress"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures, the output, the model, and an option for every argument of a call."""
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, URLs, or a folder of pictures")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the video: .mp4 .mkv .webm .gif .webp, or a folder for PNGs; several pictures give OUT_0, OUT_1, ...",
    )
    parser.add_argument("-m", "--model", default=MODEL, metavar="FOLDER|ID", help=f"the model ({MODEL})")
    parser.add_argument("--revision", metavar="NAME", help="revision of a model on the hub")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1; the best one there is without it")
    parser.add_argument("--dtype", metavar="NAME", help="float32, float16 or bfloat16, for all networks")
    parser.add_argument("--cache", action="store_true", help="keep a copy of the weights in that dtype for later runs")
    call = parser.add_argument_group("the call", "without an option the model's configuration.json decides")
    call.add_argument("--seed", type=int)
    call.add_argument("--steps", type=int)
    call.add_argument("--sampler", type=_part, metavar="NAME", help="see `i2vgen-ms parts samplers`")
    call.add_argument("--spacing", type=_part, metavar="NAME", help="see `i2vgen-ms parts spacings`")
    call.add_argument("--timestep-rounding", metavar="HOW", help="published, or exact")
    call.add_argument("--guidance-scale", type=float, metavar="X")
    call.add_argument("--guidance-rescale", type=float, metavar="X", help="0 to 1")
    call.add_argument("--guidance-branches", metavar="HOW", help="batched, or sequential in half the memory")
    call.add_argument("--num-frames", type=int, metavar="N")
    call.add_argument("--fps", type=int)
    call.add_argument("--width", type=int, metavar="PIXELS")
    call.add_argument("--height", type=int, metavar="PIXELS")
    call.add_argument("--crop", metavar="HOW", help="centre-square, fill or pad")
    call.add_argument("--batch-size", type=int, metavar="N", help="pictures at a time")
    call.add_argument("--latents", type=_latents, metavar="FILE.npy", help="initial noise, b c f h w, used as it is")
    call.add_argument("--progress", action=argparse.BooleanOptionalAction, help="a bar; on a terminal by default")


def run(options: argparse.Namespace) -> int:
    """Makes the videos; prints a line `picture -> file (seed N)` for each."""
    pictures = listed(options.pictures)
    folder = _folder(options.model, options.revision, options.local_files_only)

    from i2vgen_ms import pipelines

    pipe = pipelines.load(folder, **{name: getattr(options, name) for name in LOADING})
    call = {name: getattr(options, name) for name in CALL if getattr(options, name) is not None}
    several = len(options.pictures) > 1 or Path(options.pictures[0]).is_dir()
    results = pipe(pictures if several else pictures[0], output=options.output, **call)
    for picture, result in zip(pictures, results if several else [results], strict=True):
        print(f"{picture} -> {result.path} (seed {result.seed})")
    return 0


def listed(names: list[str]) -> list[str]:
    """The pictures that the command line names: files and URLs as they are, a folder's pictures sorted by name."""
    pictures = []
    for name in names:
        if Path(name).is_dir():
            inside = [str(file) for file in sorted(Path(name).iterdir()) if file.suffix.lower() in SUFFIXES]
            if not inside:
                raise ArgumentError(f"no pictures in the folder {name!r}; known names end in {', '.join(SUFFIXES)}")
            pictures += inside
        else:
            pictures.append(name)
    return pictures


def _folder(model: str, revision: str | None, local_files_only: bool) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from i2vgen_ms import hub

    return hub.resolve(model, revision, local_files_only=local_files_only)


def _part(text: str) -> str | dict[str, Any]:
    """A part's name, or `{"type": name, ...options}` as JSON."""
    if not text.startswith("{"):
        return text
    try:
        value: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a name and not JSON: {error}") from None
    return value


def _latents(name: str) -> Any:
    """The array of a .npy file as a tensor."""
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(name, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise argparse.ArgumentTypeError(f"no array of numbers in {name!r}: {error}") from None
