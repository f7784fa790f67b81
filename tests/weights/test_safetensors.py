"""Our safetensors files are the format's, both ways, and a wrong header is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError
from i2vgen_ms.weights import safetensors_files
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.weights.memory_use import peak_of


def test_what_we_write_the_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    tensors = {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "transposed": torch.randn(4, 6).t(),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.empty(0, 2),
        "flags": torch.tensor([True, False, True]),
    }
    safetensors_files.write(
        path, [(n, tuple(t.shape), t.dtype, partial(tensors.get, n)) for n, t in tensors.items()], {"format": "mine"}
    )
    read = safetensors.torch.load_file(path)
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "mine"}
    checkpoint = open_checkpoint(path)
    assert checkpoint.metadata == {"format": "mine"}
    for name, record in checkpoint.items():
        assert torch.equal(record.load(), tensors[name])
        assert record.start % record.dtype.itemsize == 0  # so that it can be mapped
    with pytest.raises(FileExistsError):
        safetensors_files.write(path, [], {})


def test_one_tensor_is_held_at_a_time(tmp_path: Path) -> None:
    tensors = [(f"{i}", (2**20,), torch.float32, partial(torch.full, (2**20,), float(i))) for i in range(32)]  # 128 MiB
    assert peak_of(lambda: safetensors_files.write(tmp_path / "w.safetensors", tensors, {})) < 64 * 2**20
    assert [int(r.load()[7]) for r in open_checkpoint(tmp_path / "w.safetensors").values()] == sorted(
        range(32), key=str
    )


def test_another_tensor_than_announced_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="announced"):
        safetensors_files.write(tmp_path / "w", [("w", (2,), torch.float32, lambda: torch.ones(3))], {})


def file_of(header: Any, data: int = 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes}


def test_the_plain_case_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(file_of(entry()))
    assert open_checkpoint(path)["w"].shape == (4,)


@pytest.mark.parametrize(
    "content",
    [
        file_of(entry(shape=[5])),
        file_of(entry(shape=[-4])),
        file_of(entry(shape=[True] * 4)),
        file_of(entry(shape=[1] * 50 + [4])),
        file_of(entry(shape="4")),
        file_of(entry(shape=[2**40, 2**40])),
        file_of(entry(dtype="F12")),
        file_of(entry(dtype=["F32"])),
        file_of(entry(data_offsets=[0, 17])),
        file_of(entry(data_offsets=[16, 0])),
        file_of(entry(data_offsets=[0])),
        file_of(entry(data_offsets=[4, 20])),
        file_of({"w": 3}),
        file_of({"__metadata__": {"a": 1}, **entry()}),
        file_of({"__metadata__": [], **entry()}),
        file_of({"a": entry()["w"], "b": entry()["w"]}),
        file_of(b'{"w":' + b"[" * 100_000),
        file_of(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},' + json.dumps(entry()).encode()[1:]),
        file_of(b"{not json}"),
        file_of(b'{"\xff": 1}'),
        file_of(entry(), data=15),
        (10**6).to_bytes(8, "little") + b"{",
        (2**62).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert isinstance(caught.value, CorruptCheckpointError)
