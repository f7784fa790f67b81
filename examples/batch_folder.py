"""Every picture of a folder through both stages; goes on where it stopped; one that fails does not stop the others.

    python examples/batch_folder.py PICTURES VIDEOS
    python examples/batch_folder.py PICTURES VIDEOS damo/Image-to-Video damo/Video-to-Video --device cuda

The text of NAME.png, if it has one, is NAME.txt beside it. The video is NAME.png.mp4: a file of that name is a complete
video, whatever happened before, so what is there need not be made again.
"""

import argparse
import sys
from pathlib import Path

from i2vgen_ms import hub, load
from i2vgen_ms.errors import I2VGenError
from i2vgen_ms.pipelines import Animation

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


def work_off(animate, pictures: Path, videos: Path, **call) -> int:
    """Makes the videos that are not there yet; returns how many failed."""
    videos.mkdir(parents=True, exist_ok=True)
    failed = 0
    for picture in sorted(path for path in pictures.iterdir() if path.suffix.lower() in PICTURES):
        video, words = videos / f"{picture.name}.mp4", picture.with_suffix(".txt")
        if video.exists():
            continue
        text = words.read_text(encoding="utf-8").strip() if words.is_file() else None
        try:
            print(animate(picture, output=video, text=text, **call).path, flush=True)
        except I2VGenError as error:
            failed += 1
            print(f"{picture}: {error}", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Every picture of a folder becomes a video, through both stages.")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("videos", type=Path)
    parser.add_argument("first", nargs="?", default="i2vgen-ms/small-image-to-video")
    parser.add_argument("second", nargs="?", default="i2vgen-ms/small-video-to-video")
    parser.add_argument("--device")
    parser.add_argument("--steps", type=int, help="of both samplers; the models' own without it")
    options = parser.parse_args()
    first, second = (load(hub.resolve(name), device=options.device) for name in (options.first, options.second))
    steps = {"steps": options.steps}
    left = work_off(Animation(first, second), options.pictures, options.videos, first=steps, second=steps)
    sys.exit(1 if left else 0)
