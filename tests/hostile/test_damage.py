"""A2. Checkpoints that are cut off, damaged, inflated, or of another network than the configuration's."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from i2vgen_ms.errors import (
    CheckpointError,
    ConfigurationError,
    CorruptCheckpointError,
    I2VGenError,
    MismatchedCheckpointError,
)
from i2vgen_ms.pipelines import load
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.hostile.helpers import copy_of, put
from tests.weights import hostile

pytestmark = [pytest.mark.hostile, pytest.mark.group("A2")]

ENCODER = "open_clip_pytorch_model.bin"
FORMATS = ("zip", "legacy", "safetensors")
# Shares of the file; the first ones are bytes.
CUTS = (1, 7, 100, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.99999)


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    return copy_of(folder, tmp_path / "model")


@pytest.fixture
def state(folder: Path) -> dict[str, Tensor]:
    """The published tensors of the encoder."""
    return torch.load(folder / ENCODER, weights_only=True)


def written(value: Any, kind: str = "zip") -> bytes:
    buffer = io.BytesIO()
    if kind == "safetensors":
        from safetensors.torch import save

        return save(value)
    torch.save(value, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def refused(model: Path, data: bytes, kind: type[I2VGenError], words: str) -> str:
    put(model / ENCODER, data)
    with pytest.raises(I2VGenError, match=words) as caught:
        load(model, device="cpu")
    assert type(caught.value) is kind, repr(caught.value)
    assert str(model / ENCODER) in str(caught.value)
    assert len(str(caught.value)) < 4000
    return str(caught.value)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off(model: Path, state: dict[str, Tensor], kind: str, cut: float) -> None:
    whole = written(state, kind)
    refused(
        model,
        whole[: cut if isinstance(cut, int) else int(len(whole) * cut)],
        CorruptCheckpointError,
        "[Dd]ownload it again",
    )


def test_empty(model: Path) -> None:
    refused(model, b"", CorruptCheckpointError, "the file is empty; download it again")


def test_zeros(model: Path) -> None:
    refused(model, bytes(100_000), CorruptCheckpointError, "begins with zeros, as an unfinished download does")


def test_not_there(model: Path) -> None:
    (model / ENCODER).unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load(model, device="cpu")


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "nowhere"])
def test_not_a_file(model: Path, tmp_path: Path, what: str) -> None:
    path = model / ENCODER
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if what == "device" else tmp_path / "nowhere")
    words = "not a regular file|outside of the model folder"
    with pytest.raises((CheckpointError, ConfigurationError), match=words):
        load(model, device="cpu")


def _places(data: bytes) -> dict[str, int]:
    """Where a zip archive is hit: its pickle, the data of a tensor, a header, the directory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        directory = archive.start_dir
    pickle = next(info for name, info in entries.items() if name.endswith("data.pkl"))
    largest = max(entries.values(), key=lambda info: info.file_size)

    def start(info: zipfile.ZipInfo) -> int:
        name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
        return info.header_offset + 30 + name + extra

    return {
        "pickle": start(pickle) + pickle.file_size // 2,
        "data": start(largest) + largest.file_size // 2,
        "last data": start(largest) + largest.file_size - 1,
        "header": largest.header_offset + 1,
        "header's lengths": largest.header_offset + 27,
        "directory": directory + 2,
        "directory's sizes": directory + 24,
        "directory's offsets": directory + 43,
    }


@pytest.mark.parametrize(
    "place",
    [
        *("pickle", "data", "last data", "header", "header's lengths"),
        *("directory", "directory's sizes", "directory's offsets"),
    ],
)
def test_a_flipped_bit(model: Path, place: str) -> None:
    data = bytearray((model / ENCODER).read_bytes())
    data[_places(bytes(data))[place]] ^= 0x10
    refused(model, bytes(data), CorruptCheckpointError, "[Dd]ownload it again|no header|is compressed")


def test_every_bit_of_the_archives_own_words(model: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    """Whatever is damaged outside of the tensors: an error, or the very same tensors."""
    small = {name: state[name] for name in list(state)[:2]}
    whole = written(small)
    places = [*range(90), *range(len(whole) - 400, len(whole))]
    path = tmp_path / "damaged.pth"
    refusals = 0
    for at in places:
        for bit in (0x01, 0x80):
            data = bytearray(whole)
            data[at] ^= bit
            put(path, bytes(data))
            try:
                read = {name: record.load().clone() for name, record in open_checkpoint(path).items()}
            except CheckpointError:
                refusals += 1
                continue
            assert read.keys() == small.keys()
            assert all(torch.equal(read[name], tensor) for name, tensor in small.items())
    assert refusals > 100


def deflated(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for info in source.infolist():
            archive.writestr(info.filename, source.read(info))
    return target.getvalue()


def test_a_compressed_archive_is_not_inflated(model: Path) -> None:
    bomb = hostile.as_zip(hostile.tensor_pickle(shape=(2**27,), length=2**27), _0=bytes(2**24))
    start = time.monotonic()
    refused(model, deflated(bomb), CorruptCheckpointError, "is compressed, as torch never does")
    assert time.monotonic() - start < 5


def test_entries_that_lie_in_each_other(model: Path) -> None:
    """The second entry's directory record leads into the first one's data, as in bombs of overlapping entries."""
    data = bytearray(hostile.as_zip(hostile.tensor_pickle(), _0=bytes(16)))
    records = [at for at in range(len(data)) if data[at : at + 4] == b"PK\x01\x02"]
    data[records[-1] + 42 : records[-1] + 46] = data[records[0] + 42 : records[0] + 46]
    refused(model, bytes(data), CorruptCheckpointError, "overlap|there twice")


@pytest.mark.bounds(rss_mib=700)
def test_a_directory_of_many_entries(model: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(60_000):
            archive.writestr(f"a/data/{number}", b"")
    refused(model, target.getvalue(), CorruptCheckpointError, "no torch checkpoint")


EXPANDED: dict[str, dict[str, Any]] = {
    "a stride of zero": {"shape": (17_000_000_000,), "stride": (0,)},
    "beyond the storage": {"shape": (5,)},
    "offset beyond the storage": {"offset": 4},
    "negative size": {"shape": (-1,)},
    "negative stride": {"stride": (-1,)},
    "size of 2 to the 62": {"shape": (2**62,), "stride": (0,)},
    "many dimensions": {"shape": (1,) * 5000, "stride": (1,) * 5000},
    "a storage longer than its data": {"length": 2**40, "shape": (2**40,)},
    "a storage of negative length": {"length": -1},
    "another type than the storage": {"dtype": "float64"},
}


@pytest.mark.parametrize("carrier", ["zip", "legacy"])
@pytest.mark.parametrize("kind", EXPANDED)
def test_tensors_larger_than_their_storage(model: Path, kind: str, carrier: str) -> None:
    data = hostile.tensor_pickle(**EXPANDED[kind], legacy=carrier == "legacy")
    whole = hostile.as_zip(data, _0=bytes(16)) if carrier == "zip" else hostile.as_legacy(data, _0=(4, bytes(16)))
    refused(model, whole, CorruptCheckpointError, "storage|dimensions|not a count|length|cut off")


LIST = b"]\x94(" + b"N" * 50_000 + b"e"
BOMBS: dict[str, bytes] = {
    "text longer than the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "a key whose hash takes for ever": b"\x80\x02}" + b")" + b"2\x86" * 60 + b"Ns.",
    "great depth": b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "a list copied without end": b"\x80\x04" + LIST + b"0" + b"cbuiltins\nset\nh\x00\x85R0" * 1000,
    "an integer of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "operations without end": b"\x80\x02" + b"N0" * 1_500_000 + b".",
    "marks without end": b"\x80\x02" + b"(" * 3_000_000 + b".",
    "lists without end": b"\x80\x02" + b"]" * 3_000_000 + b".",
    "memo without end": b"\x80\x04N" + b"\x94" * 3_000_000 + b".",
}


@pytest.mark.bounds(seconds=90, rss_mib=1000)
@pytest.mark.parametrize("kind", BOMBS)
def test_pickles_that_grow(model: Path, kind: str) -> None:
    refused(model, hostile.as_zip(BOMBS[kind]), CorruptCheckpointError, "operations|damaged|key|tuple|no end")


def header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "longer than the file": (lambda: (2**20).to_bytes(8, "little") + b'{"a":1}', "cut off within its header"),
    "longer than anything": (lambda: (2**62).to_bytes(8, "little") + b"{}", "damaged"),
    "not JSON": (lambda: header(b"{nonsense}"), "no JSON"),
    "deep": (lambda: header(b'{"a":' + b"[" * 100_000), "no JSON"),
    "large": (lambda: header(b'{"a":[' + b"{}," * 30_000_000 + b"{}]}"), "larger than 16 MiB"),
    "a name twice": (lambda: header(b'{"a":1,"a":2}'), "no JSON"),
    "overlapping": (lambda: header(json.dumps({"a": ENTRY, "b": ENTRY}).encode(), bytes(8)), "overlap"),
    "beyond the file": (lambda: header(json.dumps({"a": ENTRY}).encode(), bytes(4)), "cut off within its tensors"),
    "negative": (
        lambda: header(json.dumps({"a": {**ENTRY, "shape": [-2]}}).encode(), bytes(8)),
        "impossible shape",
    ),
    "another size": (lambda: header(json.dumps({"a": {**ENTRY, "shape": [3]}}).encode(), bytes(12)), "8 bytes for"),
    "huge": (
        lambda: header(json.dumps({"a": {**ENTRY, "shape": [2**40, 2**40]}}).encode(), bytes(8)),
        "8 bytes for the shape",
    ),
    "unknown type": (
        lambda: header(json.dumps({"a": {**ENTRY, "dtype": "F8_E4M3"}}).encode(), bytes(8)),
        "not read here",
    ),
}


@pytest.mark.bounds(seconds=60, rss_mib=800)
@pytest.mark.parametrize("kind", HEADERS)
def test_safetensors_headers(model: Path, kind: str) -> None:
    make, words = HEADERS[kind]
    refused(model, make(), CorruptCheckpointError, words)


def test_missing_tensors(model: Path, state: dict[str, Tensor]) -> None:
    name = next(iter(state))
    del state[name]
    message = refused(model, written(state), MismatchedCheckpointError, "1 tensor missing")
    assert name in message
    assert "configuration.json" in message


def test_extra_tensors(model: Path, state: dict[str, Tensor]) -> None:
    state["visual.surplus.weight"] = torch.zeros(3)
    refused(model, written(state), MismatchedCheckpointError, "1 tensor unexpected:\n  visual.surplus.weight")


def test_other_names(model: Path, state: dict[str, Tensor]) -> None:
    renamed = {f"visual.other.{name}": tensor for name, tensor in state.items()}
    refused(model, written(renamed), MismatchedCheckpointError, "tensors missing:(.|\n)*tensors unexpected:(.|\n)*more")


@pytest.mark.parametrize("kind", FORMATS)
def test_another_shape(model: Path, state: dict[str, Tensor], kind: str) -> None:
    name = "visual.class_embedding"
    state[name] = torch.zeros(3)
    message = refused(model, written(state, kind), MismatchedCheckpointError, "1 tensor of another shape")
    assert name in message
    assert "[3] in the file" in message


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_another_type(model: Path, state: dict[str, Tensor], dtype: str) -> None:
    name = "visual.class_embedding"
    state[name] = state[name].to(getattr(torch, dtype))
    refused(model, written(state), MismatchedCheckpointError, f"1 tensor of another type(.|\n)*torch.{dtype} in the")


CONTENTS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "a list": (lambda state: list(state.values()), "it holds a list instead of a dictionary"),
    "a tensor": (lambda state: next(iter(state.values())), "it holds a tensor instead of a dictionary"),
    "nothing": (lambda state: {}, "it holds no tensors"),
    "None": (lambda state: None, "it holds a NoneType"),
    "numbers as names": (lambda state: dict(enumerate(state.values())), "not all named by text"),
    "a state_dict that is a list": (lambda state: {"state_dict": [1]}, "its state_dict is no dictionary"),
    "tensors two levels down": (lambda state: {"model": {"state_dict": state}}, "it holds no tensors at its top"),
    "sparse": (lambda state: {"w": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor"),
    "quantised": (
        lambda state: {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        "_rebuild_qtensor",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", CONTENTS)
def test_other_contents(model: Path, state: dict[str, Tensor], kind: str) -> None:
    make, words = CONTENTS[kind]
    put(model / ENCODER, written(make(state)))
    with pytest.raises(CheckpointError, match=words):
        load(model, device="cpu")


def test_a_file_that_shrinks_between_loads(model: Path) -> None:
    """What was remembered of the whole file says nothing of the cut one."""
    load(model, device="cpu")
    whole = (model / ENCODER).read_bytes()
    refused(model, whole[:-1], CorruptCheckpointError, "[Dd]ownload it again")
    put(model / ENCODER, whole)
    load(model, device="cpu")
