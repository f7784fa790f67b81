"""One weight file, opened: its tensors by name, none of them read yet.

Given a path. The format is told by the file's first bytes, not by its name. It does not know which network the
tensors are for; `weights.load` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError
from i2vgen_ms.weights import safetensors_files, torch_files
from i2vgen_ms.weights.mapping import MappedFile
from i2vgen_ms.weights.records import TensorRecord

OWN_FORMAT = "i2vgen-ms/1"
# What is found in place of weights, by where and with what it begins; read as a pickle, each would be a riddle.
_FOREIGN = (
    (0, b"\x89PNG", "a PNG picture, not weights"),
    (0, b"\xff\xd8\xff", "a JPEG picture, not weights"),
    (4, b"ftyp", "a video, not weights"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (0, b"\xfd7zXZ", "an xz archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"\x89HDF", "an HDF5 file, which is not read here; save the weights with torch or safetensors"),
    (0, b"GGUF", "a GGUF file, which is not read here; save the weights with torch or safetensors"),
)


class Checkpoint(Mapping[str, TensorRecord]):
    """The tensors of one file by name. It keeps the file mapped as long as it, or a tensor of it, is in use."""

    def __init__(
        self, file: MappedFile, kind: str, records: Mapping[str, TensorRecord], metadata: Mapping[str, str]
    ) -> None:
        self.file = file
        self.kind = kind  # 'zip', 'legacy' or 'safetensors'
        self.metadata = dict(metadata)
        self._records = records

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def own_names(self) -> bool:
        """Whether `convert` wrote it: names and shapes are the network's own, and no layout is needed."""
        return self.metadata.get("format") == OWN_FORMAT

    def __getitem__(self, name: str) -> TensorRecord:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a weight file: `torch.save` zip (.pth, .bin, .ckpt), legacy torch file, or safetensors.

    Only headers are read, whatever the file's size; nothing in it is ever executed. A `state_dict` is unwrapped.

    Raises:
        UnsafeCheckpointError: its pickle asks for anything but plain tensor containers; the message names it.
        CorruptCheckpointError: cut off, damaged, compressed, or not a weight file (a Git-LFS pointer, a web page, ...).
        CheckpointError: it is not there or cannot be read.
    """
    file = MappedFile(path)
    metadata: dict[str, str] = {}
    start = file.bytes(0, 512)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        if start.startswith(b"PK\x03\x04"):
            kind, records = "zip", torch_files.read_zip(file)
        elif safetensors_files.looks_like(file):
            kind = "safetensors"
            records, metadata = safetensors_files.read(file)
        elif start.startswith(b"version https://git-lfs"):
            raise CorruptCheckpointError(
                "it is a Git-LFS pointer, not the weights; run `git lfs pull` or download it again"
            )
        elif text.startswith(b"<"):
            raise CorruptCheckpointError(
                "it is a web page, not weights: probably the page of an error; download it again"
            )
        elif text.startswith(b'{"'):
            raise CorruptCheckpointError("it is JSON text, not weights: probably the hub's error; download it again")
        elif foreign := next((what for at, magic, what in _FOREIGN if start.startswith(magic, at)), None):
            raise CorruptCheckpointError(f"it is {foreign}")
        elif not any(start):
            raise CorruptCheckpointError("it begins with zeros, as an unfinished download does; download it again")
        else:
            kind, records = "legacy", torch_files.read_legacy(file)
    except CheckpointError as error:
        raise type(error)(f"{file.path}: {error}") from error
    return Checkpoint(file, kind, records, metadata)
