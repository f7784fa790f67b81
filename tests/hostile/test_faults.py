"""Group G, files: whatever fails while a video is written, what stood there before is whole, and nothing is left."""

from __future__ import annotations

import builtins
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2vgen_ms.errors import OutputError
from i2vgen_ms.media.video import read_video
from i2vgen_ms.media.writers.container import ContainerSink
from i2vgen_ms.pipelines import ImageToVideo, image_to_video
from tests.hostile.helpers import leaves, tree
from tests.media.writers.samples import read

pytestmark = [pytest.mark.hostile, pytest.mark.group("G")]

ROOT = Path(__file__).resolve().parents[2]
CALL: dict[str, Any] = {"steps": 3, "seed": 1, "num_frames": 3}
NAMES = ("out.mp4", "out.gif", "frames/")
OPERATIONS = ("open", "fdopen", "fstat", "fsync", "replace", "rename", "chmod", "mkdir", "listdir")


class Faulty:
    """A file whose operations are counted, and fail when they are told to."""

    def __init__(self, file: Any, count: Callable[[str], None]) -> None:
        self._file, self._count = file, count

    def __enter__(self) -> Faulty:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._file, name)
        if name not in ("write", "read", "seek", "tell", "flush", "close"):
            return method

        def operation(*given: Any) -> Any:
            try:
                self._count(name)
            except OSError:
                if name == "close":
                    method()
                raise
            return method(*given)

        return operation


@contextmanager
def failing(at: int, code: int, folder: Path) -> Iterator[list[str]]:
    """The file operation number `at` that concerns `folder` fails; yields the names of all, as they come."""
    seen: list[str] = []
    ours: set[int] = set()

    def count(name: str) -> None:
        seen.append(name)
        if len(seen) == at:
            raise OSError(code, os.strerror(code))

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def operation(*given: Any, **named: Any) -> Any:
            first = given[0] if given else None
            mine = first in ours if isinstance(first, int) else str(first).startswith(str(folder))
            if not mine:
                return original(*given, **named)
            count(name)
            result = original(*given, **named)
            if name == "open":
                ours.add(result)
            return Faulty(result, count) if name == "fdopen" else result

        return operation

    opened = builtins.open

    def open_counted(name: Any, *given: Any, **named: Any) -> Any:
        if not str(name).startswith(str(folder)):
            return opened(name, *given, **named)
        count("open")
        return Faulty(opened(name, *given, **named), count)

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, counted(name))
        patch.setattr(builtins, "open", open_counted)
        yield seen


def frames_of(target: Path) -> int:
    return len(read(target))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.bounds(seconds=240)
def test_each_operation_fails_in_turn(
    pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, name: str, code: int
) -> None:
    target = str(tmp_path / name) + "/" * name.endswith("/")
    call = {"seed": 1, "steps": 1}
    pipe(picture, output=target, num_frames=2, **call)
    before, failures = tree(tmp_path), 0
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for at in range(1, 300):
        with failing(at, code, tmp_path) as seen:
            try:
                pipe(picture, output=target, num_frames=3, **call)
                error = None
            except OutputError as caught:
                error = caught
        what = (at, seen[-1], error)
        assert tree(tmp_path) >= before, what
        if error is not None:
            failures += 1
            assert tree(tmp_path) == before, what
            assert {path: path.read_bytes() for path in contents} == contents, what
            assert os.strerror(code) in str(error), what
            continue
        assert frames_of(Path(target)) == 3, what
        if len(seen) < at:
            break
        pipe(picture, output=target, num_frames=2, **call)  # a failure that does not matter, after the end
    else:
        pytest.fail("never ended")
    assert failures >= 12
    print(f"{name}: {failures} of {at - 1} operations are needed")  # noqa: T201


class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm", "out.gif", "out.webp"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_full_disk(
    pipe: ImageToVideo,
    picture: np.ndarray,
    tmp_path: Path,
    name: str,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe(picture, output=tmp_path / name, **CALL)
    old = (tmp_path / name).read_bytes()
    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *given, **named: Full(fdopen(*given, **named), int(share * len(old))))
    with leaves(tmp_path), pytest.raises(OutputError, match=f"{name}.*No space left on device"):
        pipe(picture, output=tmp_path / name, **CALL)
    monkeypatch.undo()
    assert (tmp_path / name).read_bytes() == old
    assert pipe(picture, output=tmp_path / name, **CALL).path
    assert (tmp_path / name).read_bytes() == old


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_of_the_system(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        target = str(disk / name) + "/" * name.endswith("/")
        with leaves(tmp_path), pytest.raises(OutputError, match="No space left on device"):
            pipe(picture, output=target, steps=1, seed=1, num_frames=3, width=256, height=192)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("room", [0, 300])
def test_a_limit_on_the_size_of_files(
    pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, name: str, room: int
) -> None:
    target = str(tmp_path / name) + "/" * name.endswith("/")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        with leaves(tmp_path), pytest.raises(OutputError, match="File too large"):
            pipe(picture, output=target, **CALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


STAGES = ("preprocess", "step 1", "mid", "decode", "encode")


@contextmanager
def at_stage(stage: str, act: Callable[[], Any]) -> Iterator[Callable[..., Any]]:
    """Does something once when a call reaches a stage; yields the progress callback that the call needs for it."""
    wanted = {"step 1": ("sampling", 1), "mid": ("sampling", 2), "decode": ("decoding", 3)}.get(stage)
    done: list[str] = []

    def once() -> None:
        if not done:
            done.append(stage)
            act()

    def progress(event: Any) -> None:
        if (event.stage, event.step) == wanted:
            once()

    def before(original: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*given: Any, **named: Any) -> Any:
            once()
            return original(*given, **named)

        return changed

    with pytest.MonkeyPatch.context() as patch:
        if stage == "preprocess":
            patch.setattr(image_to_video, "read_picture", before(image_to_video.read_picture))
        if stage == "encode":
            patch.setattr(ContainerSink, "write", before(ContainerSink.write))
        yield progress
    assert done, f"the call never came to {stage!r}"


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c(pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, stage: str) -> None:
    pipe(picture, output=tmp_path / "out.mp4", **CALL)
    old = (tmp_path / "out.mp4").read_bytes()
    with (
        leaves(tmp_path),
        pytest.raises(KeyboardInterrupt),
        at_stage(stage, lambda: signal.raise_signal(signal.SIGINT)) as progress,
    ):
        pipe(picture, output=tmp_path / "out.mp4", progress=progress, **{**CALL, "seed": 2})
    assert (tmp_path / "out.mp4").read_bytes() == old
    assert pipe(picture, **CALL).video == old


KILLED = """
import os, sys
import numpy as np
from i2vgen_ms.pipelines import load
from tests.hostile.test_faults import CALL, at_stage
model, target, stage, number = sys.argv[1:]
pipe = load(model, device="cpu")
with at_stage(stage, lambda: os.kill(os.getpid(), int(number))) as progress:
    pipe(np.zeros((90, 160, 3), np.uint8), output=target, progress=progress, **CALL)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.bounds(seconds=120)
def test_a_killed_process(
    pipe: ImageToVideo,
    picture: np.ndarray,
    folder: Path,
    tmp_path: Path,
    stage: str,
    number: signal.Signals,
) -> None:
    target = tmp_path / "out.mp4"
    pipe(picture, output=target, **CALL)
    old = target.read_bytes()
    arguments = [sys.executable, "-c", KILLED, folder, target, stage, str(int(number))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == -number, done.stderr
    assert target.read_bytes() == old
    assert read_video(target, max_frames=9).count == 3
    assert len(tree(tmp_path)) <= 2  # the unfinished file, under a name of its own
    pipe(picture, output=target, **CALL)
    assert tree(tmp_path) == {"out.mp4"}
    assert target.read_bytes() == old
