"""`i2vgen-ms animate PICTURE... -o OUT`: a large video of each picture, through both stages."""

from __future__ import annotations

import argparse

from i2vgen_ms.cli import image_to_video, video_to_video
from i2vgen_ms.cli import options as shared

CALL = ("text", "keep_first", "first", "second", "seed", "progress")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The pictures, the output, both models, and an option for every argument of a call."""
    image_to_video.inputs(parser)
    shared.output(parser)
    for stage, model in (("first", image_to_video.MODEL), ("second", video_to_video.MODEL)):
        parser.add_argument(
            f"--{stage}-model", default=model, metavar="FOLDER|ID", help=f"the {stage} stage's model ({model})"
        )
        parser.add_argument(f"--{stage}-revision", metavar="NAME", help="its revision on the hub")
    shared.loading(parser)
    parser.add_argument("--second-device", metavar="NAME", help="for the second stage; as --device without it")
    parser.add_argument("--second-lora", metavar="FILE|FOLDER", help="for the second stage; --lora is for the first")
    call = parser.add_argument_group("the call", "without an option the models' configuration.json decide")
    shared.text(call)
    call.add_argument("--keep-first", metavar="FILE", help="write the first stage's video too")
    for stage, example in (("first", '{"num_frames": 16}'), ("second", '{"strength": 0.5}')):
        call.add_argument(
            f"--{stage}",
            type=shared.json_dict,
            metavar="JSON",
            help=f"more arguments of the {stage} stage, for example '{example}'",
        )
    shared.seed(call)


def run(options: argparse.Namespace) -> int:
    """Makes the videos; prints a line `picture -> file (seed N)` for each."""
    from i2vgen_ms.pipelines import Animation

    pictures = shared.listed(options.pictures, image_to_video.SUFFIXES, "pictures")
    other = {"lora": options.second_lora}
    if options.second_device is not None:
        other["device"] = options.second_device
    pipe = Animation(
        shared.pipeline(options, options.first_model, options.first_revision),
        shared.pipeline(options, options.second_model, options.second_revision, **other),
    )
    return shared.run(pipe, options.pictures, pictures, options.output, shared.given(options, CALL))
