"""The published formats are read as torch reads them, and what is damaged is refused with the reason."""

from __future__ import annotations

import io
import os
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError, I2VGenError, UnsafeCheckpointError
from i2vgen_ms.weights.checkpoint import open_checkpoint
from i2vgen_ms.weights.mapping import MappedFile
from i2vgen_ms.weights.memory import Memory
from i2vgen_ms.weights.verified import verify
from tests.weights import hostile
from tests.weights.memory_use import peak_of, resident

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


def example() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"of.{name}": (torch.rand(3, 5, generator=generator) * 9).to(getattr(torch, name)) for name in DTYPES}
    base = torch.randn(4, 6, generator=generator)
    return tensors | {
        "shared.whole": base,
        "shared.row": base[2],
        "shared.transposed": base.t(),
        "shared.corner": base[1:3, 2:5],
        "scalar": torch.tensor(7.0),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def save(path: Path, kind: str, tensors: dict[str, torch.Tensor], wrapped: bool) -> None:
    if kind == "safetensors":
        safetensors.torch.save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, path)
        return
    value: Any = OrderedDict(tensors)
    value._metadata = {"": {"version": 1}}  # a module's state_dict has it
    if wrapped:
        value = {"state_dict": value, "step": 3, "note": "x", "other": torch.ones(1)}
    torch.save(value, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_format_gives_the_saved_tensors(tmp_path: Path, kind: str, wrapped: bool) -> None:
    path = tmp_path / "weights.any"
    tensors = example()
    save(path, kind, tensors, wrapped)
    checkpoint = open_checkpoint(path)
    assert checkpoint.kind == kind
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        record, loaded = checkpoint[name], checkpoint[name].load()
        assert (record.shape, record.dtype, record.nbytes) == (tensor.shape, tensor.dtype, tensor.nbytes)
        torch.testing.assert_close(loaded, tensor.detach(), rtol=0, atol=0)
        assert loaded.is_contiguous() == (tensor.is_contiguous() or kind == "safetensors")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_every_pickle_protocol_is_read(tmp_path: Path, kind: str, protocol: int) -> None:
    path = tmp_path / "weights.pth"
    tensors = example()
    torch.save({"state_dict": tensors}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=kind == "zip")
    assert all(torch.equal(record.load(), tensors[name]) for name, record in open_checkpoint(path).items())


def test_new_dtypes_and_checksumless_archives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    tensors = {"u": torch.arange(5).to(torch.uint16), "w": torch.randn(3)}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors, path)
    finally:
        torch.serialization.set_crc32_options(True)
    checkpoint = open_checkpoint(path)
    assert checkpoint["u"].dtype == torch.uint16
    assert torch.equal(checkpoint["w"].load(), tensors["w"])
    verify(checkpoint, checkpoint, memory=Memory(tmp_path / "memory.json"))


def test_writing_into_a_loaded_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.ones(1000)}, path)
    before = path.read_bytes()
    path.chmod(0o400)
    loaded = open_checkpoint(path)["w"].load()
    loaded.fill_(5)
    assert path.read_bytes() == before
    assert loaded.untyped_storage().nbytes() == 4000  # not the whole file: copying or saving it stays small


def test_the_state_dict_of_something_else_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for value, text in (
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a tensor"),
        ({"model": {"w": torch.ones(1)}}, "keys are: 'model'"),
        ({"state_dict": [1]}, "state_dict is no dictionary"),
        ({3: torch.ones(1)}, "named by text"),
        ({}, "none"),
    ):
        torch.save(value, path)
        with pytest.raises(CorruptCheckpointError, match=text):
            open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git-LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\xef\xbb\xbf  <?xml version='1.0'?><Error/>", "web page"),
        (bytes(5000), "zeros"),
        (b"Not Found", "damaged"),
        (b"PK\x03\x04" + bytes(200), "cut off"),
        (b"\x80\x02}.", "torch.save wrote"),
        (b"\x80\x02", "damaged"),
    ],
)
def test_what_is_no_weight_file_is_told_by_its_beginning(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=text) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", ".", "pipe"):
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / "weights.pth"
    save(whole, kind, {f"w{i}": torch.randn(40, 7) for i in range(5)}, True)
    data = whole.read_bytes()
    for tenth in range(10):
        for shift in (0, 1, 9):
            path.write_bytes(data[: len(data) * tenth // 10 + shift])
            with pytest.raises(CheckpointError):
                open_checkpoint(path)
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptCheckpointError):
        open_checkpoint(path)


def test_a_flipped_bit_is_found_at_the_first_load(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    tensors = {f"w{i}": torch.randn(50, 50) for i in range(4)}
    torch.save(tensors, path)
    data = path.read_bytes()
    verify(open_checkpoint(path), tensors, memory=Memory(tmp_path / "good.json"))
    for number, name in enumerate(tensors):
        place = open_checkpoint(path)[name].start + 4321
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        checkpoint = open_checkpoint(path)
        with pytest.raises(CorruptCheckpointError, match=rf"{name} does not match its checksum"):
            verify(checkpoint, checkpoint, memory=Memory(tmp_path / f"{number}.json"))
    pickle = data.index(b"_rebuild_tensor_v2")
    path.write_bytes(data[:pickle] + b"_RE" + data[pickle + 3 :])
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        open_checkpoint(path)


def _zip(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return path


def test_the_archive_must_be_a_plain_one(tmp_path: Path) -> None:
    good = hostile.as_zip(hostile.tensor_pickle(), _0=bytes(16))
    assert torch.equal(open_checkpoint(_zip(tmp_path, good))["w"].load(), torch.zeros(4))
    newer = hostile.tensor_pickle(storage="UntypedStorage", dtype="float16", length=16, offset=2)
    assert open_checkpoint(_zip(tmp_path, hostile.as_zip(newer, _0=bytes(16))))["w"].dtype == torch.float16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", hostile.tensor_pickle(length=2**27, shape=(2**27,)))
        archive.writestr("archive/data/0", bytes(2**22), zipfile.ZIP_DEFLATED)
    with pytest.raises(CorruptCheckpointError, match="compressed"):
        open_checkpoint(_zip(tmp_path, file.getvalue()))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file := io.BytesIO(good), "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(CorruptCheckpointError, match="twice"):
        open_checkpoint(_zip(tmp_path, file.getvalue()))
    overlapping = bytearray(good)
    first = overlapping.index(b"PK\x01\x02", overlapping.index(b"PK\x01\x02") + 1)
    overlapping[first + 42 : first + 46] = bytes(4)  # the second entry begins where the first does
    with pytest.raises(CorruptCheckpointError, match="overlap"):
        open_checkpoint(_zip(tmp_path, bytes(overlapping)))
    with pytest.raises(CorruptCheckpointError, match="big-endian"):
        open_checkpoint(_zip(tmp_path, good.replace(b"little", b"big---")))
    with pytest.raises(CorruptCheckpointError, match=r"no data\.pkl"):
        open_checkpoint(_zip(tmp_path, good.replace(b"data.pkl", b"data.pkx")))
    with pytest.raises(CorruptCheckpointError, match="missing"):
        open_checkpoint(_zip(tmp_path, hostile.as_zip(hostile.tensor_pickle(), _1=bytes(16))))


@pytest.mark.parametrize(
    "numbers",
    [
        {"shape": (130_000, 130_000), "stride": (0, 0), "length": 1},
        {"shape": (5,)},
        {"offset": 1},
        {"stride": (2,)},
        {"shape": (2, 2), "stride": (1,)},
        {"shape": (2, 2), "stride": (3, 1)},
        {"shape": (-4,)},
        {"stride": (-1,)},
        {"offset": -1},
        {"length": 5},
        {"length": -1},
        {"shape": (2**70,)},
        {"shape": (1,) * 100, "stride": (1,) * 100},
        {"storage": "DoubleStorage"},
        {"dtype": "float64"},  # on a storage of float32
        {"storage": "UntypedStorage", "dtype": "float64", "length": 16},
    ],
    ids=str,
)
@pytest.mark.parametrize("carrier", ["zip", "legacy"])
def test_a_tensor_must_lie_in_its_storage(tmp_path: Path, numbers: dict[str, Any], carrier: str) -> None:
    data = hostile.tensor_pickle(legacy=carrier == "legacy", **numbers)
    whole = hostile.as_zip(data, _0=bytes(16)) if carrier == "zip" else hostile.as_legacy(data, _0=(4, bytes(16)))
    with pytest.raises(CorruptCheckpointError):
        open_checkpoint(_zip(tmp_path, whole))


def test_a_storage_that_is_a_part_of_another_is_read(tmp_path: Path) -> None:
    """Very old files save slices of a storage so."""
    numbers = torch.arange(9.0).numpy().tobytes()
    for view, expected in (((3, 4), [4.0, 5.0, 6.0]), ((5, 4), [6.0, 7.0, 8.0])):
        data = hostile.tensor_pickle(legacy=True, shape=(3,), offset=1, length=9, view=view)
        path = _zip(tmp_path, hostile.as_legacy(data, _0=(9, numbers)))
        assert open_checkpoint(path)["w"].load().tolist() == expected
    for view in ((6, 4), (-1, 4), (3, 3)):
        data = hostile.tensor_pickle(legacy=True, shape=(3,), offset=1, length=9, view=view)
        with pytest.raises(CorruptCheckpointError):
            open_checkpoint(_zip(tmp_path, hostile.as_legacy(data, _0=(9, numbers))))


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damage_of_any_byte_ends_in_our_own_error_or_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    save(path, kind, {"a": torch.ones(3), "b": torch.ones(2, 2)}, True)
    data = path.read_bytes()
    choose = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(choose.choice((1, 1, 3, 20))):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        path.write_bytes(damaged)
        try:
            for record in open_checkpoint(path).values():
                record.load().sum()
        except I2VGenError as error:
            refused += isinstance(error, (CorruptCheckpointError, UnsafeCheckpointError))
    assert refused > 50


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_opening_five_gigabytes_takes_no_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    size = 5 * 2**30
    if kind == "zip":  # a sparse file: torch leaves holes where the data would be
        with torch.serialization.skip_data():
            torch.save({"state_dict": {"big": torch.empty(size // 4), "small": torch.ones(4)}}, path)
    else:
        header = b'{"big":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (size // 4, size)
        header += b" " * (-len(header) % 8)  # as every writer pads it
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(path, 8 + len(header) + size)

    def work() -> None:
        big = open_checkpoint(path)["big"].load()
        assert big.shape == (size // 4,)
        assert big[-1] == big[12345] == 0

    assert peak_of(work) < 20 * 2**20
    path.unlink()


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"w": torch.arange(4_000_000)}, path)
    record = open_checkpoint(path)["w"]
    loaded = record.load()
    before = resident()
    assert int(loaded.sum()) == 7_999_998_000_000
    assert resident() - before > 25_000_000
    record.release()
    assert resident() - before < 4_000_000
    assert int(loaded.sum()) == 7_999_998_000_000


def test_unaligned_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" + torch.arange(5.0).numpy().tobytes())
    loaded = MappedFile(path).tensor(1, 5, torch.float32)
    assert torch.equal(loaded, torch.arange(5.0))
    assert loaded.data_ptr() % 4 == 0  # not every kernel and processor reads other addresses
    with pytest.raises(CorruptCheckpointError, match="outside"):
        MappedFile(path).tensor(2, 5, torch.float32)
