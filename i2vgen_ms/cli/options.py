"""Options that several commands have, and what the commands do with them alike.

Given a parser, or the options that were parsed. It computes nothing itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i2vgen_ms.errors import ArgumentError

LOADING = ("device", "dtype", "cache", "memory", "compile", "lora", "lora_scale")
COMMON = (
    *("seed", "steps", "sampler", "spacing", "timestep_rounding", "guidance_scale", "guidance_rescale"),
    *("guidance_branches", "fps", "width", "height", "on_oom", "cuda_graphs", "progress"),
)


def output(parser: argparse.ArgumentParser) -> None:
    """Where the videos go."""
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the video: .mp4 .mkv .webm .gif .webp, or a folder for PNGs; several inputs give OUT_0, OUT_1, ...",
    )


def model(parser: argparse.ArgumentParser, default: str) -> None:
    """Which model."""
    parser.add_argument("-m", "--model", default=default, metavar="FOLDER|ID", help=f"the model ({default})")
    parser.add_argument("--revision", metavar="NAME", help="revision of a model on the hub")


def loading(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """How a model is found and loaded; `several`: on each of some devices."""
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    more = "; several, as cuda:0,cuda:1, work side by side" if several else ""
    parser.add_argument("--device", metavar="NAME", help=f"cpu, cuda, cuda:1; the best one there is without it{more}")
    parser.add_argument("--dtype", metavar="NAME", help="float32, float16 or bfloat16, for all networks")
    parser.add_argument(
        "--memory", metavar="MODE", help="of a CUDA device: fast, balanced, low; auto takes the fastest that fits"
    )
    parser.add_argument(
        "--compile", action="store_true", default=None, help="compile the ST-UNet's blocks first; for memory fast"
    )
    parser.add_argument("--lora", metavar="FILE|FOLDER", help="a low-rank adapter that was trained on the model")
    parser.add_argument("--lora-scale", type=float, default=1.0, metavar="X", help="how much of it (1)")
    parser.add_argument("--cache", action="store_true", help="keep a copy of the weights in that dtype for later runs")


def call(parser: argparse.ArgumentParser, *, fps: Any = int) -> Any:
    """The group of the call's arguments, with those that both stages have; `fps`: from text to a value."""
    group = parser.add_argument_group("the call", "without an option the model's configuration.json decides")
    seed(group)
    group.add_argument("--steps", type=int)
    group.add_argument("--sampler", type=_part, metavar="NAME", help="see `i2vgen-ms parts samplers`")
    group.add_argument("--spacing", type=_part, metavar="NAME", help="see `i2vgen-ms parts spacings`")
    group.add_argument("--timestep-rounding", metavar="HOW", help="published, or exact")
    group.add_argument("--guidance-scale", type=float, metavar="X")
    group.add_argument("--guidance-rescale", type=float, metavar="X", help="0 to 1")
    group.add_argument("--guidance-branches", metavar="HOW", help="batched, or sequential in less memory")
    group.add_argument("--fps", type=fps)
    group.add_argument("--on-oom", metavar="WHAT", help="raise, or lower the memory mode and go on")
    group.add_argument("--cuda-graphs", metavar="WHEN", help="auto, on or off: record the network's calls, on CUDA")
    group.add_argument("--width", type=int, metavar="PIXELS")
    group.add_argument("--height", type=int, metavar="PIXELS")
    return group


def seed(group: Any) -> None:
    """What every call has."""
    group.add_argument("--seed", type=int)
    group.add_argument("--progress", action=argparse.BooleanOptionalAction, help="a bar; on a terminal by default")


def text(group: Any) -> None:
    """What the second stage reads beside a clip."""
    group.add_argument("--text", metavar="WORDS", help="what the video should show")


def pipeline(options: argparse.Namespace, name: str, revision: str | None, **other: Any) -> Any:
    """The loaded pipeline of a folder or an id; `other` replaces options of loading."""
    from i2vgen_ms import pipelines

    folder = Path(name)
    if not folder.is_dir():
        from i2vgen_ms import hub

        folder = hub.resolve(name, revision, local_files_only=options.local_files_only)
    return pipelines.load(folder, **{name: getattr(options, name) for name in LOADING} | other)


def given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options of these names that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def run(pipe: Any, names: Sequence[str], inputs: Sequence[str], output: str, call: dict[str, Any]) -> int:
    """Makes the videos of the `inputs` that `names` stand for; prints a line `input -> file (seed N)` for each."""
    several = len(names) > 1 or Path(names[0]).is_dir()
    results = pipe(list(inputs) if several else inputs[0], output=output, **call)
    for name, result in zip(inputs, results if several else [results], strict=True):
        print(f"{name} -> {result.path} (seed {result.seed})")
    return 0


def listed(names: Sequence[str], suffixes: Sequence[str], what: str) -> list[str]:
    """The inputs that the command line names: files and URLs as they are, those of a folder sorted by name."""
    inputs = []
    for name in names:
        if Path(name).is_dir():
            inside = [str(file) for file in sorted(Path(name).iterdir()) if file.suffix.lower() in suffixes]
            if not inside:
                raise ArgumentError(f"no {what} in the folder {name!r}; known names end in {', '.join(suffixes)}")
            inputs += inside
        else:
            inputs.append(name)
    return inputs


def json_dict(words: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(words)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('not a JSON object such as {"steps": 20}')
    return value


def latents(name: str) -> Any:
    """The array of a .npy file as a tensor."""
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(name, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise argparse.ArgumentTypeError(f"no array of numbers in {name!r}: {error}") from None


def _part(words: str) -> str | dict[str, Any]:
    """A part's name, or `{"type": name, ...options}` as JSON."""
    return json_dict(words) if words.startswith("{") else words
