"""`i2vgen-ms image-to-video PICTURE... -o OUT`: a video of each picture; no ModelScope if the model is a folder."""

from __future__ import annotations

import argparse

from i2vgen_ms.cli import options as shared

MODEL = "damo/Image-to-Video"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
CALL = (*shared.COMMON, "num_frames", "crop", "batch_size", "latents")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures, the output, the model, and an option for every argument of a call."""
    inputs(parser)
    shared.output(parser)
    shared.model(parser, MODEL)
    shared.loading(parser)
    call = shared.call(parser)
    call.add_argument("--num-frames", type=int, metavar="N")
    call.add_argument("--crop", metavar="HOW", help="centre-square, fill or pad")
    call.add_argument("--batch-size", type=int, metavar="N", help="pictures at a time")
    call.add_argument(
        "--latents", type=shared.latents, metavar="FILE.npy", help="initial noise, b c f h w, used as it is"
    )


def inputs(parser: argparse.ArgumentParser) -> None:
    """The pictures."""
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, URLs, or a folder of pictures")


def run(options: argparse.Namespace) -> int:
    """Makes the videos; prints a line `picture -> file (seed N)` for each."""
    pictures = shared.listed(options.pictures, SUFFIXES, "pictures")
    pipe = shared.pipeline(options, options.model, options.revision)
    return shared.run(pipe, options.pictures, pictures, options.output, shared.given(options, CALL))
