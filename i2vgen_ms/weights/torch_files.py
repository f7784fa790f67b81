"""Readers of the two formats `torch.save` has written: the zip archive, and the legacy run of pickles before torch 1.6.

Given a mapped file. They return the tensors of the saved state_dict as `TensorRecord`s by name; tensor data is not
read. They do not know which of the tensors anybody wants.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from typing import Any

from i2vgen_ms.errors import CorruptCheckpointError, UnsafeCheckpointError
from i2vgen_ms.weights import limits
from i2vgen_ms.weights.mapping import MappedFile
from i2vgen_ms.weights.pickle_globals import Global, Inert, PickledTensor, Storage
from i2vgen_ms.weights.pickles import PickleMachine
from i2vgen_ms.weights.records import Span, TensorRecord

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class _Bounded(io.RawIOBase):
    """The mapped file for `zipfile`, which would otherwise read a directory of any size into memory."""

    def __init__(self, file: MappedFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._file)}[whence]
        if base + offset < 0:
            raise OSError("seek before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        rest = max(len(self._file) - self._at, 0)
        size = rest if size < 0 else min(size, rest)
        if size > limits.ZIP_DIRECTORY_BYTES:
            raise CorruptCheckpointError(f"its zip directory is larger than {limits.ZIP_DIRECTORY_BYTES >> 20} MiB")
        data = self._file.bytes(self._at, size)
        self._at += size
        return data


def read_zip(file: MappedFile) -> dict[str, TensorRecord]:
    """The named tensors of a `torch.save` zip archive.

    Entries must be stored as they are: a compressed one could be a thousand times larger than the file, and cannot be
    mapped. Raises CorruptCheckpointError or UnsafeCheckpointError.
    """
    entries = _entries(file)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CorruptCheckpointError(
            "the archive holds no data.pkl, so it is no torch checkpoint"
            if not pickles
            else f"the archive holds {len(pickles)} pickles instead of one"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries or any(name.startswith(f"{root}code/") for name in entries):
        raise UnsafeCheckpointError(
            "it is a TorchScript archive, which carries program code. Nothing of it was run. Use a file that holds a "
            "state_dict only"
        )
    order = entries.get(f"{root}byteorder")
    if order is not None and file.bytes(order.start, order.length) != b"little":
        raise CorruptCheckpointError("it was saved on a big-endian machine; save it again on a little-endian one")
    pickle = entries[pickles[0]]
    if pickle.length > limits.PICKLE_BYTES:
        raise CorruptCheckpointError(f"its pickle is larger than {limits.PICKLE_BYTES >> 20} MiB")
    data = file.bytes(pickle.start, pickle.length)
    if pickle.crc is not None and zlib.crc32(data) != pickle.crc:
        raise CorruptCheckpointError("its pickle does not match its checksum; download it again")
    value = PickleMachine(data).load()
    return {
        name: _record(file, tensor, entries.get(f"{root}data/{tensor.storage.key}"))
        for name, tensor in _state_dict(value).items()
    }


def _entries(file: MappedFile) -> dict[str, Span]:
    """Where every entry of the archive lies, after checking that each is stored, whole, and apart from the others."""
    try:
        listed = zipfile.ZipFile(_Bounded(file)).infolist()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError, struct.error) as error:
        raise CorruptCheckpointError(
            "its zip directory is missing or damaged; the file is probably cut off. Download it again"
        ) from error
    spans: dict[str, Span] = {}
    for info in listed:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CorruptCheckpointError(
                f"its entry {info.filename!r:.120} is compressed, as torch never does; save it again with torch.save"
            )
        if info.flag_bits & _ENCRYPTED:
            raise CorruptCheckpointError(f"its entry {info.filename!r:.120} is encrypted")
        header = file.bytes(info.header_offset, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise CorruptCheckpointError(f"its entry {info.filename!r:.120} has no header where it should stand")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if info.filename in spans:
            raise CorruptCheckpointError(f"its entry {info.filename!r:.120} is there twice")
        spans[info.filename] = Span(start, info.file_size, info.CRC or None)  # 0: saved without checksums
    end = 0
    for span in sorted(spans.values(), key=lambda span: span.start):
        if span.start < end or span.start + span.length > len(file):
            raise CorruptCheckpointError("its entries overlap or reach beyond the end of the file; download it again")
        end = span.start + span.length
    return spans


def read_legacy(file: MappedFile) -> dict[str, TensorRecord]:
    """The named tensors of a file that `torch.save` wrote before torch 1.6.

    The format is five pickles (magic number, protocol, system, value, storage keys), then each storage as its length in
    elements (int64) and its data. Any other pickle is read too, so that the error can name what it asks for.
    """
    machine = PickleMachine(file.bytes(0, limits.PICKLE_BYTES))
    if machine.load() != LEGACY_MAGIC:
        raise CorruptCheckpointError(
            "it is a pickle, but not one that torch.save wrote; no tensors can be read from it"
        )
    if machine.load() != LEGACY_PROTOCOL:
        raise CorruptCheckpointError("it is of an unknown version of the legacy torch format")
    system = machine.load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CorruptCheckpointError("it was saved on a big-endian machine; save it again on a little-endian one")
    value = machine.load()
    keys = machine.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CorruptCheckpointError("its list of storages is damaged")
    spans: dict[str, Span] = {}
    at = machine.position
    for key in keys:
        header = file.bytes(at, 8)
        if len(header) < 8:
            raise CorruptCheckpointError("the file is cut off before its last storage; download it again")
        length = int.from_bytes(header, "little", signed=True)
        if key not in machine.storages or length < 0:
            raise CorruptCheckpointError(f"its storage {key!r:.80} belongs to no tensor")
        spans[key] = Span(at + 8, length * machine.storages[key].itemsize)
        at += 8 + spans[key].length
        if at > len(file):
            raise CorruptCheckpointError("the file is cut off within its tensors; download it again")
    return {name: _record(file, tensor, spans.get(tensor.storage.key)) for name, tensor in _state_dict(value).items()}


def _record(file: MappedFile, tensor: PickledTensor, span: Span | None) -> TensorRecord:
    storage: Storage = tensor.storage
    size = storage.itemsize
    if span is None:
        raise CorruptCheckpointError(f"the data of storage {storage.key!r:.80} is missing")
    if (storage.start + storage.length) * size > span.length:
        raise CorruptCheckpointError(
            f"storage {storage.key!r:.80} has {span.length} bytes, of which {(storage.start + storage.length) * size} "
            "are used"
        )
    start = span.start + storage.start * size + tensor.offset * tensor.dtype.itemsize
    return TensorRecord(file, tensor.dtype, tensor.shape, tensor.stride, start, span)


def _state_dict(value: Any) -> dict[str, PickledTensor]:
    """The tensors of a saved value: of its `state_dict` if it has one (training checkpoints do), else its own."""
    if not isinstance(value, dict):
        what = "tensor" if isinstance(value, PickledTensor) else type(value).__name__
        held = value.name if isinstance(value, (Inert, Global)) else f"a {what}"
        raise CorruptCheckpointError(f"it holds {held} instead of a dictionary of tensors")
    held = value.get("state_dict", value)
    if not isinstance(held, dict):
        raise CorruptCheckpointError("its state_dict is no dictionary of tensors")
    tensors = {name: item for name, item in held.items() if isinstance(item, PickledTensor)}
    if not tensors:
        keys = ", ".join(repr(key)[:60] for key in list(held)[:5] if isinstance(key, str))
        raise CorruptCheckpointError(f"it holds no tensors at its top or in state_dict; its keys are: {keys or 'none'}")
    if not all(isinstance(name, str) for name in tensors):
        raise CorruptCheckpointError("its tensors are not all named by text")
    return tensors
