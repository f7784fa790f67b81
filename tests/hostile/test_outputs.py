"""F. Names for the result: strange ones are used as they are, impossible ones are refused before any network runs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from i2vgen_ms.errors import ArgumentError, OutputError
from i2vgen_ms.pipelines import ImageToVideo, VideoToVideo
from i2vgen_ms.pipelines.chain import Animation
from tests.hostile.helpers import QUICK, leaves, tree
from tests.hostile.privileges import read_only

pytestmark = [pytest.mark.hostile, pytest.mark.group("F")]

FRAMES = 3


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working folder too, so that names without a folder are tried."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@contextlib.contextmanager
def idle() -> Iterator[None]:
    """No network runs in this block."""

    def ran(module: Any, _: Any) -> None:
        raise AssertionError(f"{type(module).__name__} ran before the output was looked at")

    hook = register_module_forward_pre_hook(ran)
    try:
        yield
    finally:
        hook.remove()


def frames_of(path: Path) -> int:
    """How many frames a finished file or folder really holds."""
    if path.is_dir():
        return len([Image.open(one).load() for one in path.iterdir()])
    if path.suffix.lower() in (".gif", ".webp"):
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    with path.open("rb") as file, av.open(file) as container:
        return sum(1 for _ in container.decode(video=0))


def refused(pipe: ImageToVideo, picture: Any, output: Any, words: str, error: type[Exception] = OutputError) -> str:
    """The message of the error; no network ran and nothing changed in the working folder."""
    with idle(), leaves(Path.cwd()), pytest.raises(error, match=words) as caught:
        pipe(picture, output=output, **QUICK)
    if error is OutputError:
        assert isinstance(caught.value, OSError)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


LITERAL = {
    "semicolon": "a; touch PWNED.mp4",
    "and": "a && touch PWNED.mp4",
    "or": "a || touch PWNED.mp4",
    "backtick": "`touch PWNED`.mp4",
    "substitution": "$(touch PWNED).mp4",
    "variable": "${HOME}.mp4",
    "pipe": "a | touch PWNED.mp4",
    "redirection": "a > PWNED.mp4",
    "ampersand": "a & touch PWNED.mp4",
    "spaces": "  two  spaces .mp4",
    "single quotes": "it's '; touch PWNED; '.mp4",
    "double quotes": 'a"; touch PWNED; ".mp4',
    "backslash": "a\\b.mp4",
    "newline": "a\ntouch PWNED.mp4",
    "carriage return": "a\rb.mp4",
    "escape": "\x1b[31mred\x07.mp4",
    "dash": "-y.mp4",
    "two dashes": "--help.mp4",
    "%d": "%d.mp4",
    "%06d": "frame%06d.webm",
    "%s": "%s%n.gif",
    "star": "*.mp4",
    "brackets": "[a-z]?{b,c}.mp4",
    "tilde": "~.mp4",
    "protocol": "http:x.mp4",
    "concat": "concat:a|b.mp4",
    "pipe protocol": "pipe:1.mp4",
    "file protocol": "file:x.mkv",
    "crypto protocol": "crypto+file:x.mp4",
    "tee": "[f=mp4]a.mp4|[f=mp4]b.mp4",
    "unicode": "ünïcödé 视频 🎬.webp",
    "right to left": "a\u202e4pm.mp4",
    "decomposed": "e\u0301.mp4",
    "surrogate": "\udcff.mp4",
    "dots": "...mp4.mp4",
    "hidden": ".hidden.mp4",
    "long": "x" * 251 + ".mp4",
    "upper case": "UPPER.MP4",
    "mkv": "a.mkv",
    "webm": "a.webm",
    "gif": "a.gif",
    "webp": "a.webp",
}


@pytest.mark.parametrize("kind", LITERAL)
def test_names_are_taken_literally(pipe: ImageToVideo, picture: np.ndarray, place: Path, kind: str) -> None:
    name = LITERAL[kind]
    with leaves(place, name):
        result = pipe(picture, output=name, **QUICK)
    assert result.path == name
    assert frames_of(place / name) == FRAMES


@pytest.mark.parametrize("name", ["frames", "frames/", "%d/", "a; touch PWNED", "-y"])
def test_folders_are_taken_literally(pipe: ImageToVideo, picture: np.ndarray, place: Path, name: str) -> None:
    folder = name.rstrip("/")
    with leaves(place, folder, *(f"{folder}/frame_{number:06d}.png" for number in range(1, FRAMES + 1))):
        pipe(picture, output=name, **QUICK)
    assert frames_of(place / folder) == FRAMES


REFUSED = {
    "empty": ("", "is empty"),
    "NUL": ("a\0b.mp4", "NUL character, which no file name can"),
    "256 bytes": ("x" * 252 + ".mp4", "more than 255 bytes"),
    "256 bytes of unicode": ("视" * 84 + ".mp4", "more than 255 bytes"),
    "long path": ("a/" * 3000 + "b.mp4", "cannot be written|no folder"),
    "missing folder": ("missing/a.mp4", "no folder .*missing'; make it first"),
    "missing folder of a folder": ("missing/frames/", "make it first"),
    "folder": ("folder.mp4", "is a folder; give the name of a file in it"),
    "folder of others": ("full", r"holds other files \('mine.txt'\)"),
    "folder of others, slash": ("full/", "holds other files"),
    "the working folder": (".", "holds other files"),
    "the folder above": ("..", "holds other files"),
    "root": ("/", "cannot be written|other files|is a folder"),
    "file as a folder": ("file/a.mp4", "is not a folder"),
    "slash after a file": ("file.mp4/", "is a file; end the name with"),
    "file without suffix": ("file", "is a file; end the name with"),
    "unknown suffix": ("a.avi", r"no writer for names that end with '\.avi'.*Known: .*\.mp4"),
    "misspelt suffix": ("a.mp", r"did you mean '\.mp4'"),
    "dot": ("a.", "no writer"),
    "executable": ("a.exe", "no writer"),
    "/dev/full": ("/dev/full", "is a file|cannot be written"),
    "link to /dev/full": ("full.mp4", "is a device or a pipe"),
    "link to /dev/null": ("null.mp4", "is a device or a pipe"),
    "pipe": ("pipe.mp4", "is a device or a pipe"),
    "kernel": ("/sys/kernel/a.mp4", "cannot be written"),
    "processes": ("/proc/self/a.mp4", "cannot be written"),
    "dangling link's folder": ("dangling.mp4", "no folder"),
    "loop of links": ("loop.mp4", "cannot be written|loop|Too many"),
    "number": (3, "no name of a file"),
    "bytes": (b"a.mp4", "no name of a file"),
    "names for one picture": (["a.mp4", "b.mp4"], "no name of a file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_impossible_names(pipe: ImageToVideo, picture: np.ndarray, place: Path, kind: str) -> None:
    (place / "folder.mp4").mkdir()
    (place / "full").mkdir()
    (place / "full/mine.txt").write_text("mine")
    (place / "file").write_text("mine")
    (place / "file.mp4").write_text("mine")
    (place / "full.mp4").symlink_to("/dev/full")
    (place / "null.mp4").symlink_to("/dev/null")
    (place / "dangling.mp4").symlink_to("nowhere/at/all.mp4")
    (place / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(place / "pipe.mp4")
    name, words = REFUSED[kind]
    error = OutputError if isinstance(name, str) else ArgumentError
    refused(pipe, picture, name, words, error)
    assert (place / "full/mine.txt").read_text() == (place / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["a.mp4", "frames/"])
@pytest.mark.parametrize("there", [False, True])
def test_read_only_folders(pipe: ImageToVideo, picture: np.ndarray, place: Path, name: str, there: bool) -> None:
    if there:
        pipe(picture, output=name, **QUICK)
    before = tree(place)
    with read_only(place):
        refused(pipe, picture, name, "cannot be written: Permission denied")
    assert tree(place) == before


def test_a_read_only_file_is_not_replaced(
    pipe: ImageToVideo, picture: np.ndarray, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "a.mp4"
    path.write_bytes(b"mine")
    path.chmod(0o444)
    if os.getuid() == 0:  # to whom everything is writable
        monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o222))
    refused(pipe, picture, "a.mp4", "is there already and read-only")
    assert path.read_bytes() == b"mine"


def test_an_existing_file_is_replaced_as_a_whole(pipe: ImageToVideo, picture: np.ndarray, place: Path) -> None:
    (place / "a.mp4").write_bytes(b"old" * 10**6)
    with leaves(place):
        pipe(picture, output="a.mp4", **QUICK)
    assert frames_of(place / "a.mp4") == FRAMES


def test_a_link_is_followed_and_stays(pipe: ImageToVideo, picture: np.ndarray, place: Path) -> None:
    (place / "real").mkdir()
    (place / "link.mp4").symlink_to("real/file.mp4")
    with leaves(place, "real/file.mp4"):
        pipe(picture, output="link.mp4", **QUICK)
    assert (place / "link.mp4").is_symlink()
    assert frames_of(place / "real/file.mp4") == FRAMES


def test_dots_lead_where_they_lead(pipe: ImageToVideo, picture: np.ndarray, place: Path) -> None:
    (place / "sub").mkdir()
    with leaves(place, "a.mp4"):
        pipe(picture, output="sub/../a.mp4", **QUICK)


def test_every_place_of_a_list_is_looked_at_before_the_first_network_runs(
    pipe: ImageToVideo, picture: np.ndarray, place: Path
) -> None:
    with idle(), leaves(place), pytest.raises(OutputError, match="make it first"):
        pipe([picture] * 3, output=["a.mp4", "b.mp4", "missing/c.mp4"], **QUICK)


@pytest.mark.parametrize("names", [["a.mp4", "a.mp4"], ["a.mp4", "./sub/../a.mp4"], ["a.mp4", "link.mp4"]])
def test_one_name_for_two_results(pipe: ImageToVideo, picture: np.ndarray, place: Path, names: list[str]) -> None:
    (place / "sub").mkdir()
    (place / "link.mp4").symlink_to("a.mp4")
    with idle(), leaves(place), pytest.raises(ArgumentError, match="are one place, for two results; give two names"):
        pipe([picture] * 2, output=names, **QUICK)


@pytest.mark.parametrize(("names", "words"), [(["a.mp4"], "2 inputs but 1 outputs"), (7, "neither a name nor a list")])
def test_names_that_are_too_few(pipe: ImageToVideo, picture: np.ndarray, place: Path, names: Any, words: str) -> None:
    with idle(), leaves(place), pytest.raises(ArgumentError, match=words):
        pipe([picture] * 2, output=names, **QUICK)


def test_both_stages_look_at_both_places_first(
    pipe: ImageToVideo, second: VideoToVideo, picture: np.ndarray, place: Path
) -> None:
    both = Animation(pipe, second)
    for output, first, error in (
        ("missing/a.mp4", None, OutputError),
        ("a.mp4", "missing/b.mp4", OutputError),
        ("a.mp4", "a.mp4", ArgumentError),
    ):
        with idle(), leaves(place), pytest.raises(error, match=r"make it first|are one place"):
            both(picture, text="x", output=output, keep_first=first, seed=1)


def test_one_name_twice_at_once(pipe: ImageToVideo, picture: np.ndarray, place: Path) -> None:
    """Each writes a whole file beside the name; the last one stays, and nothing of the other."""
    errors: list[BaseException] = []

    def call(seed: int) -> None:
        try:
            pipe(picture, output="a.mp4", steps=2, seed=seed)
        except BaseException as error:
            errors.append(error)

    with leaves(place, "a.mp4"):
        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert frames_of(place / "a.mp4") == FRAMES


def test_a_place_that_goes_away_while_the_networks_run(pipe: ImageToVideo, picture: np.ndarray, place: Path) -> None:
    (place / "sub").mkdir()

    def remove(progress: Any) -> None:
        if progress.stage == "sampling" and (place / "sub").exists():
            for path in (place / "sub").iterdir():
                path.unlink()
            (place / "sub").rmdir()

    with pytest.raises(OutputError, match=r"cannot be written|could not be written"):
        pipe(picture, output="sub/a.mp4", progress=remove, **QUICK)
    assert tree(place) == set()


def test_a_foreign_file_that_appears_in_the_folder_meanwhile_is_not_lost(
    pipe: ImageToVideo, picture: np.ndarray, place: Path
) -> None:
    def put(progress: Any) -> None:
        (place / "frames").mkdir(exist_ok=True)
        (place / "frames/mine.txt").write_text("mine")

    with pytest.raises(OutputError, match="holds other files"):
        pipe(picture, output="frames/", progress=put, **QUICK)
    assert tree(place) == {"frames", "frames/mine.txt"}
