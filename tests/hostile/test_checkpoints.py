"""A. Checkpoints that ask for code to be run, in every form that a checkpoint can have, loaded as a model is.

Each stands in a model folder in place of a network's file; the pipeline is loaded from the folder. Nothing of the file
may run: every attack, if it did, would create the file `marker`.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from i2vgen_ms.errors import CorruptCheckpointError, I2VGenError, UnsafeCheckpointError
from i2vgen_ms.pipelines import load
from tests.hostile.helpers import copy_of, put
from tests.weights import hostile

pytestmark = [pytest.mark.hostile, pytest.mark.group("A")]

ENCODER, ST_UNET, AUTOENCODER = "open_clip_pytorch_model.bin", "small_random.pth", "small_random.ckpt"
FILES = (ENCODER, ST_UNET, AUTOENCODER)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    path = tmp_path / "marker"
    path.with_suffix(".py").write_text(hostile.CODE.format(path=str(path)))
    return path


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    return copy_of(folder, tmp_path / "model")


def refused(model: Path, data: bytes, *words: str, file: str = ENCODER) -> I2VGenError:
    """The error of loading the model with `data` in place of a network's file; it says all of `words`."""
    put(model / file, data)
    with pytest.raises(I2VGenError) as caught:
        load(model, device="cpu")
    message = str(caught.value)
    assert str(model / file) in message
    assert all(word in message for word in words), message
    assert "weights_only" not in message
    assert len(message) < 2000
    return caught.value


def global_call(module: str, name: str, *arguments: object) -> bytes:
    """A pickle that calls `module.name(*arguments)`, written by hand: nothing is imported to write it."""
    given = pickle.dumps(arguments, 2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + given + b"R."


# The ways into code that need nothing but the standard library or what torch installs; {code} is Python, {touch} shell.
NAMED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "importlib": ("importlib", "import_module", ("antigravity",)),
    "pip": ("pip", "main", ("install", "anything")),
    "pip, hidden": ("pip._internal.cli.main", "main", ("install",)),
    "timeit": ("timeit", "timeit", ("pass", "{code}")),
    "cProfile": ("cProfile", "run", ("{code}",)),
    "pydoc": ("pydoc", "pipepager", ("", "{touch}")),
    "code": ("code", "InteractiveInterpreter.runcode", ("{code}",)),
    "bdb": ("bdb", "Bdb.run", ("{code}",)),
    "operator": ("operator", "methodcaller", ("system", "{touch}")),
    "functools": ("functools", "partial", ("{code}",)),
    "ctypes": ("ctypes", "CDLL", ("libc.so.6",)),
    "socket": ("socket", "create_connection", ("127.0.0.1",)),
    "shutil": ("shutil", "rmtree", ("/nowhere",)),
    "webbrowser": ("webbrowser", "open", ("http://127.0.0.1/",)),
    "torch.hub": ("torch.hub", "load", ("somebody/repository", "entry")),
    "torch.jit": ("torch.jit", "load", ("{touch}",)),
    "torch.load again": ("torch.serialization", "load", ("{touch}",)),
    "collect_env": ("torch.utils.collect_env", "run", ("{touch}",)),
    "inductor": ("torch._inductor.codecache", "compile_file", ("{code}",)),
    "numpy.f2py": ("numpy.f2py.crackfortran", "myeval", ("{code}",)),
    "numpy.testing": ("numpy.testing._private.utils", "runstring", ("{code}", "x")),
    "modelscope": ("modelscope.utils.import_utils", "execute_code", ("{code}",)),
    "dotted name": ("collections", "OrderedDict.__class__.__subclasses__", ()),
    "a package like an inert one": ("lightningevil", "run", ("{touch}",)),
    "a name like a dtype": ("torch", "float32.__class__", ()),
    "Python 2": ("__builtin__", "execfile", ("{touch}",)),
}


@pytest.mark.parametrize("carrier", hostile.CARRIERS)
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_pickled_attacks(model: Path, marker: Path, kind: str, carrier: str) -> None:
    value, name = hostile.attacks(marker)[kind]
    error = refused(model, hostile.CARRIERS[carrier](hostile.raw(value)), name, "Nothing of it was run", "safetensors")
    assert isinstance(error, UnsafeCheckpointError)
    assert not marker.exists()


@pytest.mark.parametrize("carrier", hostile.CARRIERS)
@pytest.mark.parametrize("kind", NAMED)
def test_named_attacks(model: Path, marker: Path, kind: str, carrier: str) -> None:
    module, name, arguments = NAMED[kind]
    code, touch = hostile.CODE.format(path=str(marker)), f"touch '{marker}'"
    given = tuple(argument.format(code=code, touch=touch) for argument in arguments)
    data = hostile.CARRIERS[carrier](global_call(module, name, *given))
    before = set(sys.modules)
    error = refused(model, data, f"{module}.{name}".replace("__builtin__", "builtins"), "Nothing of it was run")
    assert isinstance(error, UnsafeCheckpointError)
    assert not marker.exists()
    assert module in before or module not in sys.modules, "the name was imported"


@pytest.mark.parametrize("kind", ["timeit", "cProfile", "collect_env"])
def test_the_named_attacks_are_real(marker: Path, kind: str) -> None:
    """Python's own unpickler runs them."""
    module, name, arguments = NAMED[kind]
    code, touch = hostile.CODE.format(path=str(marker)), f"touch '{marker}'"
    given = [argument.format(code=code, touch=touch) for argument in arguments]
    pickle.loads(global_call(module, name, *given))
    assert marker.exists()


@pytest.mark.parametrize("carrier", hostile.CARRIERS)
@pytest.mark.parametrize("opcode", [b"\x82\x2b", b"\x83\x2b\x00", b"\x84\x2b\x00\x00\x00"])
def test_extension_codes(model: Path, marker: Path, opcode: bytes, carrier: str) -> None:
    copyreg.add_extension("posix", "system", 0x2B)
    try:
        command = f"touch '{marker}'".encode()
        data = b"\x80\x02" + opcode + b"U" + bytes([len(command)]) + command + b"\x85R."
        refused(model, hostile.CARRIERS[carrier](data), "EXT", "Nothing of it was run")
    finally:
        copyreg.remove_extension("posix", "system", 0x2B)
    assert not marker.exists()


STATES: dict[str, bytes] = {
    "state of a class": b"ccollections\nOrderedDict\n}X\x03\x00\x00\x00keyX\x05\x00\x00\x00valuesb.",
    "state of a function": b"ctorch._utils\n_rebuild_tensor_v2\n}N\x86b.",
    "call of a dictionary": b"})R.",
    "call of text": b"X\x01\x00\x00\x00x)R.",
    "call of a result": b"ccollections\nOrderedDict\n)R)R.",
    "INST": b"(S'x'\niposix\nsystem\n.",
    "OBJ": b"(cposix\nsystem\nS'x'\no.",
    "NEWOBJ": b"cposix\nsystem\n)\x81.",
    "NEWOBJ_EX": b"cposix\nsystem\n)}\x92.",
    "persistent id as text": b"Pstorage\n.",
    "buffer from outside": b"\x97.",
    "STACK_GLOBAL": b"\x8c\x05posix\x8c\x06system\x93.",
}


@pytest.mark.parametrize("carrier", hostile.CARRIERS)
@pytest.mark.parametrize("kind", STATES)
def test_operations(model: Path, kind: str, carrier: str) -> None:
    error = refused(model, hostile.CARRIERS[carrier](b"\x80\x04" + STATES[kind]), "Nothing of it was run")
    assert isinstance(error, UnsafeCheckpointError)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_modules(model: Path, file: str, new: bool) -> None:
    buffer = io.BytesIO()
    torch.save(nn.utils.skip_init(nn.Linear, 2, 2), buffer, _use_new_zipfile_serialization=new)
    error = refused(model, buffer.getvalue(), "torch.nn.modules.linear.Linear", "safetensors", file=file)
    assert isinstance(error, UnsafeCheckpointError)


@pytest.mark.parametrize("file", FILES)
def test_torchscript(model: Path, file: str) -> None:
    buffer = io.BytesIO((model / file).read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/code/__torch__.py", "def forward(self): pass")
        archive.writestr(f"{root}/constants.pkl", pickle.dumps(()))
    error = refused(model, buffer.getvalue(), "TorchScript", "Nothing of it was run", file=file)
    assert isinstance(error, UnsafeCheckpointError)


def numpy_scalar() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": np.float64(3.0)}, buffer)
    return buffer.getvalue()


NOT_WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "numpy scalar": (numpy_scalar, "it holds no tensors"),
    "numpy array": (lambda: _saved({"w": np.zeros(3)}), "it holds no tensors"),
    "Git-LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n",
        "run `git lfs pull`",
    ),
    "web page": (lambda: b"\xef\xbb\xbf \n<!DOCTYPE html><html>504 Gateway Time-out</html>", "it is a web page"),
    "JSON": (lambda: b'{"Code": 404, "Message": "not found"}', "it is JSON text"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "it is a PNG picture, not weights"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(100), "it is a gzip archive"),
    "tar": (lambda: b"weights/" + bytes(249) + b"ustar\x00" + bytes(300), "it is a tar archive"),
    "zip without weights": (lambda: _zip({"readme.txt": b"hello"}), "no torch checkpoint"),
    "two pickles": (lambda: _zip({"a/data.pkl": b".", "b/data.pkl": b"."}), "2 pickles instead of one"),
    "keras": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "it is an HDF5 file"),
    "gguf": (lambda: b"GGUF\x03\x00\x00\x00" + bytes(100), "it is a GGUF file"),
    "text": (lambda: b"weights\n" * 9, "download it again"),
}


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _zip(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_what_is_no_checkpoint(model: Path, kind: str) -> None:
    make, words = NOT_WEIGHTS[kind]
    assert isinstance(refused(model, make(), words), CorruptCheckpointError)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_lightning_checkpoint_is_read_through_stand_ins(
    model: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    """The classes that it names would run something, if they were built; its tensors are read all the same."""
    plain = load(model, device="cpu").networks.autoencoder.state_dict()
    weights = torch.load(model / AUTOENCODER, weights_only=True)["state_dict"]
    buffer = io.BytesIO()
    with monkeypatch.context() as patch:
        modules = hostile.fake_lightning(marker)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        lightning = modules["pytorch_lightning.callbacks.model_checkpoint"]
        value = {
            "state_dict": OrderedDict(weights),
            "callbacks": {lightning.ModelCheckpoint: {"best_model_score": np.float32(0.5)}},
            "hyper_parameters": hostile.Call(lightning.evil, lightning.ModelCheckpoint()),
            "loops": lightning.ModelCheckpoint(),
        }
        torch.save(value, buffer, _use_new_zipfile_serialization=new)
        put(model / AUTOENCODER, buffer.getvalue())
        read = load(model, device="cpu").networks.autoencoder.state_dict()
    assert not marker.exists()
    assert read.keys() == plain.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in plain.items())


def test_code_beside_the_weights_is_not_looked_at(model: Path, marker: Path) -> None:
    """A repository's own Python files, requirements and plugins are nothing to us."""
    for name in ("__init__.py", "ms_wrapper.py", "sitecustomize.py", "setup.py", "torch.py"):
        (model / name).write_text(hostile.CODE.format(path=str(marker)))
    (model / "requirements.txt").write_text("anything\n")
    load(model, device="cpu")
    assert not marker.exists()
    assert str(model) not in sys.path
