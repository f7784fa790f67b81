"""What is fuzzed: a reader, the samples to begin with, and nothing of how inputs are made from them."""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from i2vgen_ms.config import reader
from i2vgen_ms.errors import I2VGenError
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.media.video import read_video
from i2vgen_ms.weights.checkpoint import open_checkpoint
from i2vgen_ms.weights.verified import is_finite
from tests.hostile.fuzz import planted
from tests.weights import hostile

LIMITS = Limits(max_pixels=200_000, max_video_pixels=200_000, max_frames=32, max_clip_bytes=20_000_000)


@dataclass(frozen=True)
class Target:
    """`read` takes the bytes of an input and raises only what it should not; `samples` are good inputs."""

    read: Callable[[bytes], None]
    samples: Callable[[], list[bytes]]


@contextmanager
def _file(data: bytes) -> Iterator[str]:
    """The path of a file in memory that holds `data`."""
    descriptor = os.memfd_create("input")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _checkpoint(data: bytes) -> None:
    with _file(data) as path:
        try:
            opened = open_checkpoint(path)
        except I2VGenError:
            return
        for record in opened.values():
            # What is opened lies within the file, and can be read.
            tensor = record.load()
            assert record.span.start + record.span.length <= len(data)
            is_finite(tensor)
            assert tuple(tensor.shape) == record.shape


def _pickle(data: bytes) -> None:
    """In an archive whose checksums are right, which mutation alone would never make."""
    if len(data) > 1:
        carrier = (hostile.as_zip, lambda text: hostile.as_legacy(text, _0=(4, bytes(16))))[data[0] % 2]
        storages = {"_0": bytes(16)} if data[0] % 2 == 0 else {}
        _checkpoint(carrier(data[1:], **storages))


def _header(data: bytes) -> None:
    """A safetensors header of the right length."""
    _checkpoint(len(data).to_bytes(8, "little") + data + bytes(64))


def _configuration(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path(folder, "configuration.json").write_bytes(data)
        try:
            configuration = reader.read(folder)
        except I2VGenError:
            return
        assert type(configuration).from_json(configuration.to_json()) == configuration


def _picture(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_picture(data, limits=LIMITS)
        except I2VGenError:
            return
    assert picture.dtype == np.uint8
    assert picture.shape[0] * picture.shape[1] <= LIMITS.max_pixels


def _video(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clip = read_video(io.BytesIO(data), max_frames=8, limits=LIMITS, threads=1)
        except I2VGenError:
            return
    assert 1 <= len(clip.frames) <= 8


def _checkpoints() -> list[bytes]:
    from safetensors.torch import save

    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}
    made = [save(state)]
    for value in (state, {"state_dict": state, "epoch": 3}):
        for new in (True, False):
            buffer = io.BytesIO()
            torch.save(value, buffer, _use_new_zipfile_serialization=new)
            made.append(buffer.getvalue())
    return made


def _pickles() -> list[bytes]:
    made = [hostile.tensor_pickle(legacy=legacy) for legacy in (False, True)]
    made += [pickle.dumps({"a": [1, 2.5, "x", None, (True, b"y")], 3: {4}}, protocol) for protocol in range(6)]
    made += [b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R.", b"cposix\nsystem\n(S'x'\ntR."]
    return [bytes([carrier]) + text for text in made for carrier in (0, 1)]


def _headers() -> list[bytes]:
    one = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    return [
        json.dumps({"__metadata__": {"format": "pt"}, "a": one}).encode(),
        json.dumps({"a": {**one, "dtype": "BF16", "shape": [12]}}).encode(),
    ]


def _configurations() -> list[bytes]:
    made = [reader.shipped(variant) for variant in ("image-to-video", "video-to-video")]
    hub = Path(reader.data.configuration_folder(), "demo", "configuration.json").read_bytes()
    return [json.dumps(one.to_json()).encode() for one in made] + [hub]


def _pictures() -> list[bytes]:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    made = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    image.convert("P").save(buffer, "PNG", transparency=3)
    return [*made, buffer.getvalue()]


def _videos() -> list[bytes]:
    made = []
    for container, codec, pixels in (
        ("mp4", "libx264", "yuv420p"),
        ("matroska", "libx264", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
        ("gif", "gif", "rgb8"),
    ):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as out:
            stream: Any = out.add_stream(codec, rate=8)
            stream.width, stream.height, stream.pix_fmt = 32, 16, pixels
            for index in range(3):
                frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 80 * index, np.uint8), format="rgb24")
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        made.append(buffer.getvalue())
    return made


TARGETS = {
    "checkpoint": Target(_checkpoint, _checkpoints),
    "pickle": Target(_pickle, _pickles),
    "safetensors": Target(_header, _headers),
    "configuration": Target(_configuration, _configurations),
    "picture": Target(_picture, _pictures),
    "video": Target(_video, _videos),
}
# Of the engines' own test.
PLANTED = {"planted": Target(planted.read, lambda: [b"zzzz"])}
