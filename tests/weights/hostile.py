"""Pickles that run something when Python's own unpickler reads them, and the three kinds of file that can carry one.

Every attack, when it runs, creates the file whose path it was given.
"""

from __future__ import annotations

import builtins
import importlib
import io
import os
import pickle
import pkgutil
import runpy
import struct
import subprocess
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CODE = "open({path!r}, 'w').close()"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Call:
    """Pickled as a call of `function(*arguments)`, optionally with a state to set on the result."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts

    def __call__(self) -> None:
        """Only because the pickler wants what it writes as a function to be callable."""


class Setter:
    """Runs something when its state is set."""

    def __setstate__(self, state: str) -> None:
        Path(state).touch()


KINDS = (
    *("os.system", "eval", "exec", "subprocess", "getattr chain", "runpy", "__import__", "resolve_name", "setstate"),
    *("nested torch.load", "in an OrderedDict", "as a dictionary key"),
)


def attacks(marker: Path) -> dict[str, tuple[Any, str]]:
    """By name: an object whose pickle creates `marker` when it is unpickled, and the global that must be named.

    `runpy` runs the script beside `marker`, which the caller writes with `CODE`.
    """
    code = CODE.format(path=str(marker))
    touch = f"touch '{marker}'"
    system = os.system.__module__ + ".system"
    return {
        "os.system": (Call(os.system, touch), system),
        "eval": (Call(eval, code), "builtins.eval"),
        "exec": (Call(exec, code), "builtins.exec"),
        "subprocess": (Call(subprocess.check_call, ["touch", str(marker)]), "check_call"),
        "getattr chain": (Call(Call(getattr, Call(importlib.import_module, "os"), "system"), touch), "getattr"),
        "runpy": (Call(runpy.run_path, str(marker.with_suffix(".py"))), "runpy.run_path"),
        "__import__": (Call(builtins.__import__, "antigravity"), "builtins.__import__"),
        "resolve_name": (Call(Call(pkgutil.resolve_name, "os:system"), touch), "pkgutil.resolve_name"),
        "setstate": (Call(Setter, state=str(marker)), "tests.weights.hostile.Setter"),
        "nested torch.load": (
            Call(torch.storage._load_from_bytes, b"anything"),
            "torch.storage._load_from_bytes",
        ),
        "in an OrderedDict": (OrderedDict(a=1, b=Call(os.system, touch)), system),
        "as a dictionary key": ({Call(os.system, touch): 1}, system),
    }


def fake_lightning(marker: Path) -> dict[str, types.ModuleType]:
    """Modules for `sys.modules` with a class and a function to pickle; when they are unpickled, `marker` appears."""

    class ModelCheckpoint:
        def __init__(self) -> None:
            self.best = 1

        def __setstate__(self, state: object) -> None:
            marker.touch()

    def evil(*_: object) -> None:
        marker.touch()

    name = "pytorch_lightning.callbacks.model_checkpoint"
    ModelCheckpoint.__module__ = evil.__module__ = name
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    evil.__qualname__ = "evil"
    modules = {}
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        modules[part] = types.ModuleType(part)
    modules[name].__dict__.update(ModelCheckpoint=ModelCheckpoint, evil=evil)
    return modules


def raw(value: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(value, protocol)


def as_zip(data: bytes, root: str = "archive", **entries: bytes) -> bytes:
    """A torch zip archive around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", data)
        archive.writestr(f"{root}/byteorder", b"little")
        archive.writestr(f"{root}/version", b"3\n")
        for key, content in entries.items():
            archive.writestr(f"{root}/data/{key.lstrip('_')}", content)
    return file.getvalue()


def as_legacy(data: bytes, **storages: tuple[int, bytes]) -> bytes:
    """A file in torch's format before 1.6 around any pickle; storages are (elements, bytes)."""
    head = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    keys = [key.lstrip("_") for key in storages]
    content = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    return b"".join(head) + data + pickle.dumps(keys, 2) + content


CARRIERS: dict[str, Callable[[bytes], bytes]] = {"zip": as_zip, "legacy": as_legacy, "raw": lambda data: data}


def tensor_pickle(
    *,
    shape: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    length: int = 4,
    storage: str = "FloatStorage",
    legacy: bool = False,
    dtype: str = "",
    view: tuple[int, int] | None = None,
) -> bytes:
    """{'w': tensor} with any numbers in it, sensible or not, on the storage '0'.

    `dtype` saves it as types newer than the storage classes are; `view` (start, length) as a slice of the storage.
    """

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def whole(value: int) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    def tuple_of(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(whole, values)) + b"t"

    part = b"" if not legacy else b"(" + text("v") + whole(view[0]) + whole(view[1]) + b"t" if view else b"N"
    persistent = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text("0") + text("cpu")
    persistent += whole(length) + part + b"tQ"
    arguments = b"(" + persistent + whole(offset) + tuple_of(shape) + tuple_of(stride) + b"\x89"
    arguments += b"ccollections\nOrderedDict\n)R" + (f"ctorch\n{dtype}\n" if dtype else "").encode() + b"t"
    version = b"3" if dtype else b"2"
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v" + version + b"\n" + arguments + b"Rs."
