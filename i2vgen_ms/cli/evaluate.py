"""`i2vgen-ms evaluate MODEL`: how good a model's videos are, beside what one gets without it."""

from __future__ import annotations

import argparse

from i2vgen_ms.cli import options as shared

LOADED_ALIKE = ("dtype", "memory", "compile")  # adapters are of the trained network alone
FRAMES = {"image-to-video": "num_frames", "video-to-video": "max_frames"}  # the call's names for how many


def arguments(parser: argparse.ArgumentParser) -> None:
    """The model, what it is evaluated on, where the numbers go, and how videos are made."""
    parser.add_argument("model", metavar="MODEL", help="a model's folder or id, of either stage")
    parser.add_argument("--revision", metavar="NAME", help="revision of a model on the hub")
    parser.add_argument("--clips", type=int, metavar="N", help="how many clips (32, or all pairs)")
    parser.add_argument(
        "--pairs",
        metavar="FOLDER",
        help="your own videos instead of the procedural world's: NAME.mp4, each with a NAME.png or .jpg that the video "
        "is made from; for video-to-video NAME.mp4 alone, or with its text in NAME.txt",
    )
    parser.add_argument("--world-seed", type=int, default=0, metavar="N", help="of the held-out scenes (0)")
    parser.add_argument(
        "--baseline", action="store_true", help="also the same model with an untrained network, for comparison"
    )
    parser.add_argument("--out", metavar="FILE.json", help="write the numbers there too")
    parser.add_argument("--sheet", metavar="FILE.png", help="write a contact sheet of ten clips: truth, model, others")
    shared.loading(parser)
    call = shared.call(parser)
    call.add_argument("--num-frames", type=int, metavar="N", help="of each video")


def run(options: argparse.Namespace) -> int:
    """Prints a table, a row a metric; writes the JSON file if it was asked for."""
    from i2vgen_ms.evaluation.run import evaluate

    pipe = shared.pipeline(options, options.model, options.revision)
    call = shared.given(options, shared.COMMON)
    if options.num_frames is not None:
        call[FRAMES[pipe.configuration.task]] = options.num_frames
    report = evaluate(
        pipe,
        clips=options.clips,
        pairs=options.pairs,
        untrained=options.baseline,
        world_seed=options.world_seed,
        sheet=options.sheet,
        loading={name: getattr(options, name) for name in LOADED_ALIKE},
        **call,
    )
    print(f"{report.model}: {report.task}, {report.clips} clips, {report.seconds:.0f} s")
    print(report.table())
    if options.out is not None:
        report.write(options.out)
        print(f"numbers: {options.out}")
    return 0
