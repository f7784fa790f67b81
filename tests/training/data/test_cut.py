"""A clip's frames are the same ones wherever decoding began."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from i2vgen_ms.errors import UnreadableMediaError
from i2vgen_ms.media import video as videos
from i2vgen_ms.training.data import cut as cuts
from i2vgen_ms.training.data.batch import Spec
from i2vgen_ms.training.data.listing import LOCAL, Entry, Item, look

FRAMES, RATE = 96, 24
B_FRAMES = {"g": "24", "bf": "3", "b-pyramid": "normal", "sc_threshold": "0"}
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "plain.mp4": ("libx264", {"g": "24", "bf": "0"}),
    "b.mp4": ("libx264", B_FRAMES),
    "b.mkv": ("libx264", B_FRAMES),
    "open.mp4": ("libx264", B_FRAMES | {"x264-params": "open-gop=1:keyint=24:min-keyint=24:bframes=3"}),
    "open.mkv": ("libx264", B_FRAMES | {"x264-params": "open-gop=1:keyint=24:min-keyint=24:bframes=3"}),
    "refreshed.mp4": ("libx264", {"g": "24", "x264-params": "intra-refresh=1:keyint=24"}),
    "open-265.mp4": ("libx265", {"x265-params": "open-gop=1:keyint=24:min-keyint=24:bframes=3:log-level=none"}),
    "one.webm": ("libvpx-vp9", {"g": "24", "deadline": "realtime", "cpu-used": "8"}),
    "old.avi": ("mpeg4", {"g": "24", "bf": "2"}),
}


def written(path: Path, codec: str, options: dict[str, str], times: Any = range(FRAMES), rate: Any = RATE) -> Item:
    """A file whose frames all differ, each at its time in 1/24 s."""
    rows = np.random.default_rng(0).integers(0, 256, (FRAMES, 8, 12, 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.thread_count = 1
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.kron(rows[index], np.ones((8, 8, 1), np.uint8)), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    (item,), skipped = look([Entry(str(path))])
    assert not skipped
    return item


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every frame that is decoded."""
    calls: list[int] = []
    upright = videos._upright
    monkeypatch.setattr(videos, "_upright", lambda *given: calls.append(1) or upright(*given))
    return calls


@pytest.mark.parametrize("name", KINDS)
def test_a_jump_leads_to_the_frames_that_counting_finds(tmp_path: Path, decoded: list[int], name: str) -> None:
    item = written(tmp_path / name, *KINDS[name])
    with videos.open_video(item.entry.path, limits=LOCAL, threads=1) as video:
        truth = list(video)
    assert len(truth) == FRAMES
    jumped = 0
    for first in (*range(1, FRAMES - 8, 13), *range(69, 76)):
        made = cuts.cut(item, Spec(3, 0, 0, 8), first / RATE)
        assert np.array_equal(made, np.stack([truth[first + place] for place in (0, 3, 6)])), first
        decoded.clear()
        jumped += cuts._after_a_jump(item, [first, first + 6]) is not None
        if "refreshed" not in name:  # which has no key frames, and is decoded from a screen before, or from the first
            assert len(decoded) <= 1 + 24 + 7 + 4, "from the key frame before it, and no earlier"
    assert jumped >= 10 or "refreshed" in name


def test_frames_that_are_not_evenly_spaced_are_counted(tmp_path: Path) -> None:
    times = [index + (index >= 50) * 0.5 for index in range(FRAMES)]
    item = written(tmp_path / "uneven.mkv", "libx264", {"g": "24"}, times=[round(2 * time) for time in times])
    with videos.open_video(item.entry.path, limits=LOCAL, threads=1) as video:
        truth = list(video)
    assert cuts._after_a_jump(item, [75, 78]) is None
    spec = Spec(2, 0, 0, 1)
    start = 60 / item.fps
    assert np.array_equal(cuts.cut(item, spec, start)[0], truth[60])


def test_what_is_shown_before_a_key_frame_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = written(tmp_path / "old.avi", "mpeg4", {"g": "24", "bf": "0"})
    whole = cuts.cut(item, Spec(3, 0, 0, 8), 66 / RATE)

    def into_the_middle(self: videos.Video, seconds: Fraction) -> bool:
        place = int(seconds / self._stream.time_base)
        self._container.seek(place, stream=self._stream, any_frame=True)
        self._first, self._times, self._frames = None, [], self._decode()
        return True

    monkeypatch.setattr(videos.Video, "jump", into_the_middle)
    assert np.array_equal(cuts.cut(item, Spec(3, 0, 0, 8), 66 / RATE), whole)


def test_a_file_that_ends_early_is_named(tmp_path: Path) -> None:
    item = written(tmp_path / "short.mkv", *KINDS["plain.mp4"])
    with pytest.raises(UnreadableMediaError, match=r"short\.mkv' ends before its frame 96, which it announces"):
        cuts.cut(item, Spec(2, 0, 0, 24), 95 / RATE)
