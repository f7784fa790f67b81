"""Quality against steps: every sampler on a model that was trained on the procedural world, on the same held-out clips.

    python -m benchmarks.samplers                                          # i2vgen-ms/small-image-to-video
    python -m benchmarks.samplers i2vgen-ms/small-video-to-video --clips 4 --steps 5 10 20
    python -m benchmarks.samplers --json numbers.json --plot picture.png   # the plot needs matplotlib

Prints PSNR and the Frechet distance of each sampler at each number of steps, and of stage 1 how many directions are
right; the rows come as they are done, and the file holds all that are done.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from i2vgen_ms import catalogue, load
from i2vgen_ms.evaluation import metrics
from i2vgen_ms.evaluation.classifier import features
from i2vgen_ms.evaluation.classifier import load as load_classifier
from i2vgen_ms.evaluation.frechet import frechet_distance
from i2vgen_ms.evaluation.run import made
from i2vgen_ms.evaluation.samples import Samples, from_world
from i2vgen_ms.world.measure import directions

STEPS = (5, 10, 20, 50)
HEADER = f"{'sampler':>14}{'steps':>7}{'PSNR, dB':>10}{'SSIM':>8}{'Frechet':>9}{'directions right':>18}"


def compare(pipe: Any, samples: Samples, steps: Sequence[int], size: int, **call: Any) -> Iterator[dict[str, Any]]:
    """A row of numbers for each sampler at each number of steps; `size` inputs are made at a time."""
    classifier = load_classifier(device=pipe.device)
    truth = samples.truth
    true_features = features(classifier, truth)
    for count in steps:
        for sampler in catalogue.names("samplers"):
            with warnings.catch_warnings():
                # Of samplers that are told to take very few steps, which is what is measured here.
                warnings.simplefilter("ignore")
                given = {**call, "sampler": sampler, "steps": count, "fps": round(samples.fps), "progress": False}
                video = made(pipe, samples, size, given)
            row = {
                "sampler": sampler,
                "steps": count,
                "psnr": float(metrics.psnr(video, truth).mean()),
                "ssim": float(metrics.ssim(video, truth).mean()),
                "frechet_distance": frechet_distance(true_features, features(classifier, video)),
            }
            if samples.scenes is not None and samples.pictures is not None:
                right = directions(video, samples.scenes, fps=samples.fps)
                row["direction_accuracy"] = sum(right) / len(right) if right else None
            yield row


def line(row: dict[str, Any]) -> str:
    right = row.get("direction_accuracy")
    return (
        f"{row['sampler']:>14}{row['steps']:>7}{row['psnr']:>10.2f}{row['ssim']:>8.4f}{row['frechet_distance']:>9.1f}"
        f"{'-' if right is None else format(right, '.3f'):>18}"
    )


def plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """PSNR and Frechet distance against steps, a line a sampler."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for axis, (key, title) in zip(
        axes, {"psnr": "PSNR, dB", "frechet_distance": "Frechet distance"}.items(), strict=True
    ):
        # Lines that lie upon each other stay visible: each is thinner than the one before.
        names = list(dict.fromkeys(row["sampler"] for row in rows))
        for place, name in enumerate(names):
            own = sorted((row["steps"], row[key]) for row in rows if row["sampler"] == name)
            axis.plot(
                *zip(*own, strict=True), marker="o", markersize=3, linewidth=5 - 0.8 * place, label=name, alpha=0.8
            )
        axis.set(xlabel="steps", title=title, xscale="log")
        ticks = sorted({row["steps"] for row in rows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.samplers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="i2vgen-ms/small-image-to-video")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--batch", type=int, help="inputs made at a time; all in stage 1, one in stage 2")
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("--plot", type=Path, help="a PNG file for the plot")
    options = parser.parse_args(arguments)
    if options.clips < 2:
        parser.error("--clips is at least 2, for a Frechet distance")
    pipe = load(options.model, device=options.device)
    samples = from_world(pipe.configuration, options.clips)
    first = pipe.configuration.task == "image-to-video"
    size = options.batch or (options.clips if first else 1)
    rows: list[dict[str, Any]] = []
    print(HEADER, flush=True)
    for row in compare(pipe, samples, options.steps, size, **({"batch_size": size} if first else {})):
        rows.append(row)
        print(line(row), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        plot(options.plot, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
