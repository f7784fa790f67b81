"""A video is in its place complete, or what stood there before is untouched; bad names fail before any work."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from i2vgen_ms.errors import ArgumentError, OutputError
from i2vgen_ms.media.writers import Output, Picture, numbered, open_writer
from i2vgen_ms.media.writers.h264 import H264
from i2vgen_ms.media.writers.target import claimed, lock
from tests.media.writers.samples import NAMES, moving, read, write


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def named(folder: Path, name: str) -> str:
    return str(folder / name) + "/" * name.endswith("/")


def write_then(target, frames, act, outputs=None) -> None:
    """Writes frames, then does something before the block ends."""
    with open_writer(target, width=48, height=32, fps=8) as output:
        if outputs is not None:
            outputs.append(output)
        for frame in frames:
            output.write(frame)
        act()


def failing(error: BaseException):
    """A function that raises."""

    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_in_place_before_the_end_and_nothing_is_left_after_it(tmp_path, name):
    frames = moving()
    target = named(tmp_path, name)
    writer = open_writer(target, width=48, height=32, fps=8)
    assert listing(tmp_path) == []
    with writer as output:
        output.write(frames[0])
        assert not os.path.exists(target)
        (temporary,) = os.listdir(tmp_path)
        assert temporary.startswith(f".{name.rstrip('/')}.")
        assert temporary.endswith(".part")
    assert os.listdir(tmp_path) == [name.rstrip("/")]
    assert output.path == Path(target)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("failure", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("when", [0, 3])
def test_an_exception_leaves_what_was_there(tmp_path, name, failure, when):
    target = named(tmp_path, name)
    write(target, moving(frames=2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(type(failure)):
        write_then(target, moving()[:when], failing(failure))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(read(Path(target))) == 2


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_result_is_replaced_as_a_whole(tmp_path, name):
    target = named(tmp_path, name)
    write(target, moving(frames=6))
    write(target, moving(frames=3))
    assert len(read(Path(target))) == 3
    assert os.listdir(tmp_path) == [name.rstrip("/")]


def test_permissions_are_those_of_any_new_file_or_of_the_old_one(tmp_path):
    old = os.umask(0o027)
    try:
        path = write(tmp_path / "a.mp4", moving()).path
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    write(path, moving())
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.mp4").symlink_to("real/file.mp4")
    for _ in range(2):  # first it leads nowhere
        write(tmp_path / "link.mp4", moving())
        assert (tmp_path / "link.mp4").is_symlink()
        assert len(read(tmp_path / "real" / "file.mp4")) == 6
    assert listing(tmp_path) == ["link.mp4", "real", "real/file.mp4"]


@pytest.mark.parametrize(
    "name",
    [
        "a; touch PWNED.mp4",
        "$(touch PWNED).mp4",
        "`touch PWNED`.mp4",
        "-y.mp4",
        "two  spaces 'and' \"quotes\".mp4",
        "line\nbreak.mp4",
        "%d.mp4",
        "%06d.gif",
        "frame%03d.webm",
        "http:__x.mkv",
        "concat:a|b.mp4",
        "pipe:1.mp4",
        "ünïcödé 视频.webp",
        "UPPER.MP4",
        "a.b.c.mp4",
        "x" * 251 + ".mp4",
        "视" * 83 + "ab.mp4",
    ],
)
def test_names_are_used_literally(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    output = write(name, moving())
    assert os.listdir(tmp_path) == [name]
    assert output.path == tmp_path / name
    assert len(read(tmp_path / (name if name != "UPPER.MP4" else "UPPER.MP4"))) == 6


def refused(target, words: str, **options):
    with pytest.raises(OutputError, match=words) as caught:
        open_writer(target, **{"width": 4, "height": 4, "fps": 8, **options})
    assert isinstance(caught.value, OSError)
    return str(caught.value)


def test_bad_names_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(H264, "begin", lambda *args: pytest.fail("work began"))
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_bytes(b"mine")
    os.mkfifo(tmp_path / "pipe.mp4")
    before = listing(tmp_path)
    refused(tmp_path / "missing" / "a.mp4", "no folder .*missing.*make it first")
    refused(tmp_path / "file" / "a.mp4", "not a folder")
    refused(tmp_path / "folder.mp4", "is a folder; give the name of a file in it")
    refused(tmp_path / "pipe.mp4", "a device or a pipe")
    refused(tmp_path / ("x" * 252 + ".mp4"), "255 bytes")
    refused(tmp_path / ("视" * 84 + ".mp4"), "255 bytes")
    refused(str(tmp_path / "nul\0.mp4"), "NUL")
    refused("", "is empty")
    refused(tmp_path / "a.mp3", r"\.mp3.*did you mean '\.mp4'.*\.gif, \.mkv, \.mp4, \.webm, \.webp.*PNG")
    refused(tmp_path / "a.avi", "no writer")
    refused(tmp_path / "a.", "no writer")
    refused(str(tmp_path / "file") + "/", "is a file; end the name with")
    refused(tmp_path / "file", "is a file; end the name with")
    refused(tmp_path / "full", r"other files \('mine.txt'\)")
    refused(tmp_path, "other files")
    refused("/", "cannot be written|other files|is a folder")
    assert listing(tmp_path) == before


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder that not even root can write to")
def test_folders_that_cannot_be_written_to(tmp_path):
    refused("/sys/kernel/a.mp4", "cannot be written")
    refused("/sys/kernel/frames/", "cannot be written")


def test_read_only_results_are_not_replaced(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", moving()).path
    path.chmod(0o444)
    if os.getuid() == 0:  # to whom everything is writable
        monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o222))
    refused(path, "read-only")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 0}, "width"),
        ({"height": -2}, "height"),
        ({"width": 20_000}, "20000"),
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": float("inf")}, "fps"),
    ],
)
def test_sizes_and_rates_are_checked(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        open_writer(None, **{"width": 4, "height": 4, "fps": 8, **arguments})


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((32, 47, 3), np.uint8),
        np.zeros((32, 48), np.uint8),
        np.zeros((32, 48, 3), np.float32),
        [[[0, 0, 0]]],
    ],
)
def test_frames_are_checked(tmp_path, frame):
    with (
        pytest.raises(ArgumentError, match=r"uint8 array \(32, 48, 3\)"),
        open_writer(tmp_path / "a.mp4", width=48, height=32, fps=8) as output,
    ):
        output.write(frame)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_one_array_may_be_used_for_every_frame_and_any_strides_work(tmp_path, name):
    frames = moving()
    buffer = np.empty((32, 48, 3), np.uint8)
    with open_writer(named(tmp_path, name), width=48, height=32, fps=8) as output:
        for frame in frames:
            buffer[:] = frame
            output.write(buffer)
            buffer[:] = 0
    assert np.abs(read(output.path).astype(int) - frames).mean() < 4
    write(output.path, frames[:, ::-1, ::-1])
    assert np.abs(read(output.path).astype(int) - frames[:, ::-1, ::-1]).mean() < 4


def test_everything_is_on_the_disk_before_it_is_moved(tmp_path, monkeypatch):
    done: list[tuple[str, int]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(("fsync", os.fstat(fd).st_size)) or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append(("move", os.stat(a).st_size)) or replace(a, b))
    monkeypatch.setattr(os, "rename", lambda a, b: done.append(("move", os.stat(a).st_size)) or rename(a, b))
    path = write(tmp_path / "a.mp4", moving()).path
    assert done[:2] == [("fsync", path.stat().st_size), ("move", path.stat().st_size)]
    assert [what for what, _ in done[2:]] == ["fsync"]  # the folder
    done.clear()
    write(tmp_path / "frames/", moving())
    assert [what for what, _ in done] == ["fsync"] * 7 + ["move", "fsync"]


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_container_reports_a_failing_file_and_stays_silent_beside_that(room, capfd):
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "full")
            return super().write(data)

    def attempt(sink):
        try:
            for frame in moving():
                sink.write(frame)
            sink.finish()
        finally:
            sink.abort()

    with pytest.raises(OSError, match="full"):
        attempt(H264().begin(Full(), Picture(width=48, height=32, fps=Fraction(8), suffix=".mkv")))
    gc.collect()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_no_frames_are_no_video(tmp_path, name):
    with pytest.raises(OutputError, match="no frame"), open_writer(named(tmp_path, name), width=48, height=32, fps=8):
        pass
    assert listing(tmp_path) == []


def test_bytes_are_there_after_the_end_only(tmp_path):
    with open_writer(None, width=48, height=32, fps=8) as output:
        output.write(moving()[0])
        with pytest.raises(OutputError, match="not complete"):
            output.getvalue()
    assert output.path is None
    assert output.getvalue()[4:8] == b"ftyp"
    with pytest.raises(OutputError, match="not to memory"):
        write(tmp_path / "a.mp4", moving()).getvalue()
    outputs: list[Output] = []
    with pytest.raises(ValueError, match="mine"):
        write_then(None, moving(), failing(ValueError("mine")), outputs)
    with pytest.raises(OutputError, match="not complete"):
        outputs[0].getvalue()


def test_a_part_of_somebody_else(tmp_path):
    class Raw:
        suffixes = (".raw", ".mp4")

        def begin(self, place, what):
            class Sink:
                def __init__(self):
                    self.frames = []

                def write(self, frame):
                    self.frames.append(frame)

                def finish(self):
                    place.write(b"".join(frame.tobytes() for frame in self.frames) + what.suffix.encode())

                def abort(self):
                    pass

            return Sink()

    assert write(tmp_path / "a.raw", moving(), part=Raw()).path.read_bytes() == moving().tobytes() + b".raw"
    assert write(None, moving(), part=Raw()).getvalue() == moving().tobytes() + b".raw"
    with open_writer(None, width=48, height=32, fps=8, part=Raw()) as output:
        for frame in moving():
            output.write(frame)
            frame[:] = 0  # a part may keep what it is given
    assert output.getvalue() == moving().tobytes() + b".raw"
    assert write(tmp_path / "a.gif", moving(), part=Raw()).path.read_bytes()[:3] == b"GIF"
    refused(tmp_path / "a.rav", r"did you mean '\.raw'", part=Raw())


OPERATIONS = [(os, name) for name in ("open", "fdopen", "fsync", "replace", "rename", "chmod", "mkdir")]
OPERATIONS += [(builtins, "open"), (io, "open")]


@pytest.mark.parametrize("name", ["out.mp4", "frames/"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_whichever_file_operation_fails_nothing_is_lost(tmp_path, name, code):
    target = named(tmp_path, name)
    write(target, moving(frames=2))
    before = listing(tmp_path)
    failures = 0
    for k in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            calls = iter(range(1, 10_000))

            def counted(module, attribute, patch=patch, calls=calls, k=k):
                original = getattr(module, attribute)

                def operation(*args, **kwargs):
                    if str(args[0]).endswith((".py", ".so", ".pyc", "/dev/null")):
                        return original(*args, **kwargs)
                    if next(calls) == k:
                        raise OSError(code, os.strerror(code))
                    return original(*args, **kwargs)

                patch.setattr(module, attribute, operation)

            for module, attribute in OPERATIONS:
                counted(module, attribute)
            try:
                write(target, moving(frames=3))
                error = None
            except OutputError as caught:
                error = caught
        left = [entry for entry in listing(tmp_path) if ".part" in entry or ".old" in entry]
        count = len(read(Path(target)))
        if error is None:
            assert count == 3
            if next(calls) <= k:
                break
            write(target, moving(frames=2))  # a failure that did not matter
        else:
            failures += 1
            assert count == 2, (k, error)
            assert listing(tmp_path) == before, (k, error)
        assert left == [], k
    else:
        pytest.fail("never ended")
    assert failures >= 4


FULL = """
import os, resource, signal, sys
from i2vgen_ms.errors import OutputError
from tests.media.writers.samples import NAMES, moving, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for name in NAMES:
    target = os.path.join(sys.argv[1], name)
    whole = os.path.getsize(target) if os.path.isfile(target) else os.path.getsize(target + "frame_000001.png")
    for room in (0, 1, whole // 2, whole - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
        try:
            write(target, moving(frames=5))
            sys.exit(f"{name} was written into {room} bytes")
        except OutputError:
            pass
"""


def test_a_disk_that_fills_up(tmp_path):
    for name in NAMES:
        write(named(tmp_path, name), moving(frames=5))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = subprocess.run([sys.executable, "-W", "error", "-c", FULL, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(os.listdir(tmp_path)) == len(NAMES)


KILLED = """
import os, signal, sys
from i2vgen_ms.media.writers import open_writer
from tests.media.writers.samples import moving
with open_writer(sys.argv[1], width=48, height=32, fps=8) as output:
    for frame in moving():
        output.write(frame)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["out.mp4", "frames/"])
def test_what_a_killed_process_left_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path, name):
    target = named(tmp_path, name)
    write(target, moving(frames=2))
    done = subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read(Path(target))) == 2
    assert len(os.listdir(tmp_path)) == 2
    foreign = tmp_path / f".{name.rstrip('/')}.mine.part"
    foreign.write_bytes(b"mine")
    with open_writer(target, width=48, height=32, fps=8) as first:
        first.write(moving()[0])
        write(target, moving(frames=4))
        assert len(read(Path(target))) == 4
        first.write(moving()[1])
        first.write(moving()[2])
    assert len(read(Path(target))) == 3
    assert sorted(os.listdir(tmp_path)) == sorted([foreign.name, name.rstrip("/")])


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_threads_with_one_name_each_write_a_whole_file(tmp_path, name):
    errors: list[BaseException] = []

    def work(count: int) -> None:
        try:
            for _ in range(3):
                write(tmp_path / name, moving(frames=count))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(count,)) for count in (2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == [name]
    assert len(read(tmp_path / name)) in (2, 3, 4, 5)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
@pytest.mark.parametrize("removed", [True, False])
def test_a_new_file_that_somebody_just_takes_for_abandoned_is_not_used(tmp_path, removed):
    """Who saw the file before it was locked has the lock while it removes it, or finds that it is in use."""
    path = tmp_path / "new"
    mine, theirs = os.open(path, os.O_RDWR | os.O_CREAT), os.open(path, os.O_RDONLY)
    assert lock(theirs)

    def remove() -> None:
        if removed:
            path.unlink()
        os.close(theirs)

    later = threading.Timer(0.2, remove)
    later.start()
    try:
        assert claimed(mine, path) is not removed
    finally:
        later.join()
        os.close(mine)


def test_a_folder_with_frames_of_somebody_else_is_never_touched(tmp_path):
    folder = tmp_path / "frames"
    write(folder, moving(frames=2))
    own = sorted(folder.iterdir())
    stolen = folder / "frame_000003.png"
    stolen.write_bytes(own[0].read_bytes().replace(b"Software\0i2vgen_ms", b"Software\0something"))
    refused(folder, "frame_000003.png")
    stolen.unlink()
    stolen.symlink_to(own[0])
    refused(folder, "frame_000003.png")
    stolen.unlink()
    with pytest.raises(OutputError, match="mine"):
        write_then(folder, moving(), lambda: (folder / "mine").write_bytes(b"appeared while we worked"))
    assert sorted(os.listdir(folder)) == ["frame_000001.png", "frame_000002.png", "mine"]
    assert os.listdir(tmp_path) == ["frames"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "frames").mkdir()
    assert sorted(os.listdir(write(tmp_path / "frames", moving(frames=2)).path)) == [
        "frame_000001.png",
        "frame_000002.png",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name.mp4", "name_0.mp4"),
        ("./a.b/name.webm", "./a.b/name_0.webm"),
        ("frames/", "frames_0/"),
        ("frames", "frames_0"),
        (Path("a") / "b.gif", "a/b_0.gif"),
    ],
)
def test_names_of_several_results(name, expected):
    assert numbered(name, 0) == expected
