"""`i2vgen-ms train SETTINGS`: one run of training; `torchrun -m i2vgen_ms train SETTINGS` on several devices."""

from __future__ import annotations

import argparse
import json
from typing import Any

RANK = 16  # of adapters, where none is given
TARGETS = ("to_q", "to_k", "to_v", "to_out")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The settings, what to change in them, and where."""
    parser.add_argument(
        "settings", metavar="SETTINGS", help="a JSON file, or the name of shipped settings such as small-image-to-video"
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        type=_change,
        metavar="PATH=VALUE",
        help="another value at a dotted path, as JSON or as a plain word: length.steps=20; may be repeated",
    )
    parser.add_argument("-m", "--model", metavar="FOLDER|ID", help="the model, instead of the settings'")
    parser.add_argument("--revision", metavar="NAME", help="revision of a model on the hub")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    parser.add_argument("-o", "--output", metavar="DIR", help="the folder of the run, instead of the settings'")
    parser.add_argument("--data", metavar="PATH", help="a folder of videos and pictures, or a .jsonl or .csv list")
    parser.add_argument(
        "--lora", nargs="?", const=RANK, type=int, metavar="RANK", help=f"train adapters of this rank ({RANK}) alone"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1; the best one there is without it")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="a bar; on a terminal by default")


def run(options: argparse.Namespace) -> int:
    """Trains; prints the folder of what was made."""
    from i2vgen_ms.training import Trainer, read
    from i2vgen_ms.training.models import located

    settings = read(options.settings)
    for path, value in (*_own(options, settings), *options.changes):
        settings = settings.replace(path, value)
    settings = located(settings, revision=options.revision, local_files_only=options.local_files_only)
    trainer = Trainer(settings, device=options.device, resume=options.resume, progress=options.progress)
    made = trainer.train()
    if trainer.is_main:
        print(made)
    return 0


def _own(options: argparse.Namespace, settings: Any) -> list[tuple[str, Any]]:
    """The changes that have an option of their own."""
    from i2vgen_ms.training.settings import of_files

    changes: list[tuple[str, Any]] = []
    for name in ("model", "output"):
        if getattr(options, name) is not None:
            changes.append((name, getattr(options, name)))
    if options.data is not None:
        changes.append(("data", of_files(settings.data, options.data)))
    if options.lora is not None:
        targets = list(TARGETS)
        changes.append(("lora", {"rank": options.lora, "alpha": options.lora, "dropout": 0.0, "targets": targets}))
    return changes


def _change(words: str) -> tuple[str, Any]:
    path, sign, text = words.partition("=")
    if not sign or not path:
        raise argparse.ArgumentTypeError(f"{words!r} is not PATH=VALUE, such as length.steps=20")
    try:
        return path, json.loads(text)
    except ValueError:
        return path, text
