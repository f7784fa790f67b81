"""`i2vgen-ms video-to-video CLIP... -o OUT`: a larger, sharper video of each clip, under a text."""

from __future__ import annotations

import argparse

from i2vgen_ms.cli import options as shared

MODEL = "damo/Video-to-Video"
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif")
CALL = (
    *(*shared.COMMON, "text", "max_frames", "window", "overlap", "long_clips", "fit", "strength", "start_scale"),
    *("posterior", "negative_prompt", "prompt_suffix", "noised_latents", "brownian_seed"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The clips, the output, the model, and an option for every argument of a call."""
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="videos or GIFs: files, URLs, or a folder of them")
    shared.output(parser)
    shared.model(parser, MODEL)
    shared.loading(parser)
    call = shared.call(parser, fps=_fps)
    shared.text(call)
    call.add_argument("--max-frames", type=int, metavar="N", help="the most frames that are worked on at once")
    call.add_argument(
        "--window",
        nargs="?",
        type=int,
        const=True,
        metavar="OVERLAP",
        help="work on the whole of a long clip, in windows that overlap by so many frames",
    )
    call.add_argument("--long-clips", metavar="HOW", help="cut, or window")
    call.add_argument("--overlap", type=int, metavar="N", help="frames by which windows overlap")
    call.add_argument("--fit", metavar="HOW", help="squash, crop, pad or keep")
    call.add_argument("--strength", type=float, metavar="X", help="how much is made anew, above 0 to 1")
    call.add_argument("--start-scale", metavar="HOW", help="published, or exact")
    call.add_argument("--posterior", metavar="HOW", help="sample, or mode")
    call.add_argument("--negative-prompt", metavar="WORDS", help="what the video should not show")
    call.add_argument("--prompt-suffix", metavar="WORDS", help="what is added to the text; '' adds nothing")
    call.add_argument(
        "--noised-latents", type=shared.latents, metavar="FILE.npy", help="1 c f h w, instead of the clip's own"
    )
    call.add_argument("--brownian-seed", type=int, metavar="N", help="of samplers that follow a Brownian path")


def run(options: argparse.Namespace) -> int:
    """Makes the videos; prints a line `clip -> file (seed N)` for each."""
    clips = shared.listed(options.clips, SUFFIXES, "clips")
    pipe = shared.pipeline(options, options.model, options.revision)
    return shared.run(pipe, options.clips, clips, options.output, shared.given(options, CALL))


def _fps(words: str) -> int | str:
    return words if words == "source" else int(words)
