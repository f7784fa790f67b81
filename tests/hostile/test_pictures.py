"""Group B: pictures that are none, damaged, too large, or of an unusual kind."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from i2vgen_ms.errors import I2VGenError, MediaLimitError, UnreadableMediaError
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.pipelines import ImageToVideo
from tests.hostile.helpers import QUICK, leaves

# What is refused takes no memory for its pixels: the largest here would be 12 GiB.
pytestmark = [pytest.mark.hostile, pytest.mark.group("B"), pytest.mark.bounds(seconds=20, rss_mib=250)]


def photo(width: int = 48, height: int = 32) -> np.ndarray:
    """A smooth picture whose corners differ."""
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), 255 - x * 255 // width], axis=-1)
    return levels.astype(np.uint8)


def encoded(array: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 1, colour: int = 0) -> bytes:
    """A PNG file of these dimensions with these chunks; without any it is a header and nothing else."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def white(side: int) -> bytes:
    """A whole PNG of one bit a pixel, a few dozen kilobytes."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-side // 8)
    return png(side, side, chunk(b"IDAT", b"".join(packer.compress(row) for _ in range(side)) + packer.flush()))


def polyglot(head: bytes) -> bytes:
    """What its first bytes say, with a good PNG behind them."""
    return head + encoded(photo())


def text_bomb() -> bytes:
    """A small picture with a comment that unfolds to 200 MB."""
    packed = zlib.compress(bytes(200_000_000), 9)
    return png(1, 1, chunk(b"zTXt", b"Comment\0\0" + packed), chunk(b"IDAT", zlib.compress(b"\0\xff")))


def huge(kind: str) -> bytes:
    """A header that announces 65500 x 65500 pixels, or the most that the format can say."""
    sides = struct.pack("<HH", 65500, 65500)
    return {
        "png": png(65500, 65500, chunk(b"IDAT", zlib.compress(b"\0"))),
        "gif": b"GIF89a" + sides + b"\0\0\0,\0\0\0\0" + sides + b"\0\x02\x02\x4c\x01\0;",
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 65500, 65500, 1, 24, 0, 0, 0, 0, 0, 0),
        "jpeg": resized_jpeg(65500),
        "webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xdb\xff\0" * 2 + bytes(20),
        "tiff": resized_tiff(65500),
    }[kind]


def resized_jpeg(side: int) -> bytes:
    data = bytearray(encoded(photo(), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def resized_tiff(side: int) -> bytes:
    data = encoded(photo(), "TIFF")
    for tag, old in ((256, 48), (257, 32)):
        entry = next(
            struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", old)
            for kind in (3, 4)
            if struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", old) in data
        )
        data = data.replace(entry, struct.pack("<HHII", tag, 4, 1, side))
    return data


def truncated(kind: str) -> bytes:
    data = encoded(photo(200, 150), kind)
    return data[: len(data) // 2]


NOT_A_PICTURE = r"not a picture, or of a format that is not accepted \(PNG, JPEG"
DAMAGED = "is damaged"
# Libraries that know their format say it first: a WebP has at most 16383 pixels a side.
HUGE = "too many pixels|could not create decoder object|"
LIMIT = "at most 64000000 are read"
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (bytes, "is empty"),
    "one byte": (lambda: b"\x89", NOT_A_PICTURE),
    "text": (lambda: b"a picture of a boat\n" * 20, NOT_A_PICTURE),
    "html": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", NOT_A_PICTURE),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', NOT_A_PICTURE),
    "xml entities": (lambda: b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa">]><svg>&a;</svg>', NOT_A_PICTURE),
    "pdf": (lambda: polyglot(b"%PDF-1.7\n1 0 obj <<>> endobj\n"), NOT_A_PICTURE),
    "eps": (lambda: polyglot(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(rm) system\n"), NOT_A_PICTURE),
    "fits": (lambda: polyglot(b"SIMPLE  =                    T".ljust(2880)), NOT_A_PICTURE),
    "ico": (lambda: b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0\x68\4\0\0\x16\0\0\0" + bytes(1200), NOT_A_PICTURE),
    "psd": (lambda: b"8BPS\0\1" + bytes(100), NOT_A_PICTURE),
    "ppm": (lambda: b"P6 99999999 99999999 255\n", NOT_A_PICTURE),
    "git-lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", NOT_A_PICTURE),
    "truncated png": (lambda: truncated("PNG"), DAMAGED),
    "truncated jpeg": (lambda: truncated("JPEG"), DAMAGED),
    "truncated webp": (lambda: truncated("WEBP"), "is damaged|not a picture"),
    "truncated gif": (lambda: truncated("GIF"), DAMAGED),
    "truncated tiff": (lambda: truncated("TIFF"), DAMAGED),
    "truncated bmp": (lambda: truncated("BMP"), DAMAGED),
    "truncated avif": (lambda: truncated("AVIF"), "is damaged|not a picture"),
    "header only": (lambda: png(48, 32), DAMAGED),
    "signature only": (lambda: b"\x89PNG\r\n\x1a\n", "is damaged|not a picture"),
    "jpeg header only": (lambda: encoded(photo(), "JPEG")[:160], "is damaged|not a picture"),
    "no pixels": (lambda: png(0, 32, chunk(b"IDAT", zlib.compress(b""))), "is damaged|not a picture|no pixels"),
    "wrong checksum": (lambda: encoded(photo())[:29] + bytes(4) + encoded(photo())[33:], "is damaged|not a picture"),
    "no pixel data": (lambda: encoded(photo()).replace(b"IDAT", b"IDAt"), NOT_A_PICTURE),
    "text bomb": (text_bomb, "is damaged"),
    "88 Mpx": (lambda: white(9400), LIMIT),
    "144 Mpx": (lambda: white(12000), "too many pixels|" + LIMIT),
    "400 Mpx": (lambda: white(20000), "too many pixels|" + LIMIT),
    **{
        f"65500 x 65500 {kind}": (lambda kind=kind: huge(kind), HUGE + LIMIT)
        for kind in ("png", "gif", "bmp", "jpeg", "webp", "tiff")  # type: ignore[misc]
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_any_work(pipe: ImageToVideo, tmp_path: Path, what: str) -> None:
    make, words = REFUSED[what]
    (tmp_path / "input.png").write_bytes(make())
    with leaves(tmp_path), pytest.raises((UnreadableMediaError, MediaLimitError), match=words) as caught:
        pipe(tmp_path / "input.png", output=tmp_path / "out.mp4", **QUICK)
    assert "input.png" in str(caught.value)
    assert len(str(caught.value)) < 600


def places(folder: Path) -> dict[str, str]:
    good = folder / "good.png"
    good.write_bytes(encoded(photo()))
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(folder)  # names of sockets are short
        server.bind("socket.png")
        os.chdir(here)
    return {
        "a folder": str(folder / "folder.png"),
        "a pipe": str(folder / "pipe.png"),
        "a socket": str(folder / "socket.png"),
        "/dev/zero": "/dev/zero",
        "a link to a device": str(folder / "device.png"),
        "a link to nothing": str(folder / "dangling.png"),
        "a link to itself": str(folder / "circle.png"),
        "a missing file": str(folder / "none.png"),
        "a name with NUL": str(good) + "\0.jpg",
        "an endless name": "a" * 5000,
        "a file as folder": str(good / "x.png"),
    }


PLACES = ("a folder", "a pipe", "a socket", "/dev/zero", "a link to a device", "a link to nothing", "a link to itself")
PLACES += ("a missing file", "a name with NUL", "an endless name", "a file as folder")


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_regular_file_is_refused_at_once(pipe: ImageToVideo, tmp_path: Path, what: str) -> None:
    name = places(tmp_path)[what]
    with leaves(tmp_path), pytest.raises(UnreadableMediaError, match=r"cannot be opened: .|not a file") as caught:
        pipe(name, output=tmp_path / "out.mp4", **QUICK)
    assert len(str(caught.value)) < 400


def test_a_link_to_a_picture_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(encoded(photo()))
    (tmp_path / "link.png").symlink_to("real.png")
    assert np.array_equal(read_picture(tmp_path / "link.png"), photo())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (47, 31)])
def test_any_shape_makes_a_video(pipe: ImageToVideo, width: int, height: int) -> None:
    data = encoded(photo(width, height))
    assert np.array_equal(read_picture(data), photo(width, height))
    assert pipe(data, output_type="frames", **QUICK).frames.shape[0] == 3


def converted(mode: str) -> Image.Image:
    image = Image.fromarray(photo())
    if mode.startswith("I;16"):
        return Image.fromarray(photo()[:, :, 0].astype(np.uint16) * 257)
    if mode == "PA":
        image = image.convert("P")
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("1", "PNG"), ("P", "PNG")),
        *(("P", "GIF"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF")),
        *(("YCbCr", "JPEG"), ("LAB", "TIFF"), ("RGB", "AVIF"), ("RGB", "BMP")),
    ],
)
def test_every_mode_shows_what_it_shows(mode: str, kind: str) -> None:
    """Nothing turns white or black: the darkest and the lightest part of the picture stay what they are."""
    shown = read_picture(encoded(converted(mode), kind)).astype(int)
    assert shown.shape == (32, 48, 3)
    grey = mode in ("L", "LA", "I", "F", "1", "I;16")
    wanted = np.asarray(Image.fromarray(photo()).convert("L").convert("RGB")).astype(int) if grey else photo()
    wanted = np.repeat(photo()[:, :, :1], 3, axis=2).astype(int) if mode == "I;16" else wanted
    loss = {"1": 140, "P": 20, "I": 2, "F": 2}.get(mode, 12)
    assert np.abs(shown - wanted).mean() < loss
    assert shown.std() > 40


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert (read_picture(encoded(image, transparency=0)) == 255).all()
    assert (read_picture(encoded(image)) == (10, 20, 30)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_any_way_shows_upright(orientation: int) -> None:
    upright = photo()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_picture(encoded(np.ascontiguousarray(stored), exif=exif)), upright)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert np.array_equal(read_picture(encoded(photo(), exif=exif)), photo())


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    first = Image.fromarray(np.full((32, 48, 3), 250, np.uint8))
    others = [Image.fromarray(np.full((32, 48, 3), level, np.uint8)) for level in range(0, 100, 2)]
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=others, **({"lossless": True} if kind == "WEBP" else {}))
    assert (read_picture(file.getvalue()) == 250).all()


@pytest.mark.parametrize("profile", ["sRGB", "garbage"])
def test_a_colour_profile_changes_nothing(profile: str) -> None:
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if profile == "sRGB" else b"\xff" * 5000
    assert np.array_equal(read_picture(encoded(photo(), icc_profile=data)), photo())


def test_the_name_does_not_decide_the_format(tmp_path: Path) -> None:
    (tmp_path / "picture.pdf").write_bytes(encoded(photo()))
    assert np.array_equal(read_picture(tmp_path / "picture.pdf"), photo())


def test_what_follows_the_picture_is_not_read() -> None:
    assert np.array_equal(read_picture(encoded(photo()) + b"<?php system($_GET[0]); ?>" * 9), photo())


def test_bytes_are_counted_before_they_are_read(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MediaLimitError, match=r"1048576\.0 MiB; at most 64\.0 MiB"):
        read_picture(tmp_path / "sparse.png")


class Endless(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return bytes(size if size >= 0 else 1 << 20)


def test_an_endless_stream_is_left_at_the_limit() -> None:
    with pytest.raises(MediaLimitError, match=r"more than 64\.0 MiB"):
        read_picture(Endless())


@pytest.mark.parametrize("side", [8001, 9400])
def test_the_limit_is_the_callers(side: int) -> None:
    data = white(side)
    with pytest.raises(MediaLimitError, match="at most 1000 are read"):
        read_picture(data, limits=Limits(max_pixels=1000))


def test_a_flipped_bit_anywhere_gives_a_picture_or_a_typed_error() -> None:
    dice = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        good = encoded(photo(), kind)
        for _ in range(60):
            data = bytearray(good)
            data[dice.integers(len(data))] ^= 1 << int(dice.integers(8))
            with contextlib.suppress(I2VGenError):
                assert read_picture(bytes(data), limits=Limits(max_pixels=10**6)).dtype == np.uint8
