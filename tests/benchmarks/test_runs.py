"""What a whole run consists of, where no row says so in passing."""

from __future__ import annotations

from pathlib import Path

import av

from benchmarks.runs import _encode_files, _write_png, textured
from i2vgen_ms.media.frames import to_uint8


def test_published_pictures_become_a_video_without_its_program(tmp_path: Path) -> None:
    """As many frames as pictures, eight a second: more than the encoder keeps back before it says the first time."""
    for number, picture in enumerate(to_uint8(textured(9, 64, 64))):
        _write_png(tmp_path / f"{number:06d}.png", picture)
    video = tmp_path / "video.mp4"
    _encode_files(sorted(tmp_path.glob("*.png")), video)
    with av.open(str(video)) as container:
        assert container.streams.video[0].average_rate == 8
        assert len(list(container.decode(video=0))) == 9
