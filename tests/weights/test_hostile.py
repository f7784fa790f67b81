"""Nothing in a weight file is ever executed, however it asks for it."""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError, UnsafeCheckpointError
from i2vgen_ms.weights import limits
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.weights import hostile


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What an attack creates when it runs."""
    path = tmp_path / "marker"
    path.with_suffix(".py").write_text(hostile.CODE.format(path=str(path)))
    return path


def attempt(tmp_path: Path, data: bytes) -> CheckpointError:
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("carrier", hostile.CARRIERS)
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_an_attack_is_refused_and_named(tmp_path: Path, marker: Path, kind: str, carrier: str) -> None:
    value, name = hostile.attacks(marker)[kind]
    for protocol in (2, 4) if carrier != "raw" else (0, 1, 2, 3, 4, 5):
        error = attempt(tmp_path, hostile.CARRIERS[carrier](hostile.raw(value, protocol)))
        assert isinstance(error, UnsafeCheckpointError), error
        assert name in str(error)
        assert "safetensors" in str(error)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["os.system", "eval", "getattr chain", "runpy", "resolve_name", "setstate"])
def test_the_attacks_are_real(marker: Path, kind: str) -> None:
    pickle.loads(hostile.raw(hostile.attacks(marker)[kind][0]))
    assert marker.exists()


@pytest.mark.parametrize("carrier", hostile.CARRIERS)
@pytest.mark.parametrize("opcode", [b"\x82\x2a", b"\x83\x2a\x00", b"\x84\x2a\x00\x00\x00"])
def test_extension_codes_are_refused(tmp_path: Path, marker: Path, opcode: bytes, carrier: str) -> None:
    copyreg.add_extension("os", "system", 0x2A)
    try:
        command = f"touch '{marker}'".encode()
        data = b"\x80\x02" + opcode + b"U" + bytes([len(command)]) + command + b"\x85R."
        error = attempt(tmp_path, hostile.CARRIERS[carrier](data))
    finally:
        copyreg.remove_extension("os", "system", 0x2A)
    assert isinstance(error, UnsafeCheckpointError)
    assert "EXT" in str(error)
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02ccollections\nOrderedDict\n}X\x03\x00\x00\x00keyX\x05\x00\x00\x00valuesb.",  # state of a class
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}N\x86b.",  # state of a function
        b"\x80\x02}}X\x01\x00\x00\x00xR.",  # calls a dictionary
        b"\x80\x02X\x01\x00\x00\x00x)R.",  # calls text
        b"\x80\x02ccollections\nOrderedDict\n)R)R.",  # calls what a call returned
        b"Pstorage\n.",  # persistent id as text
        b"\x80\x05\x97.",  # a buffer from outside
    ],
)
def test_tricks_with_allowed_names_are_refused(tmp_path: Path, data: bytes) -> None:
    for carrier in hostile.CARRIERS.values():
        assert isinstance(attempt(tmp_path, carrier(data)), UnsafeCheckpointError)


def test_a_name_put_together_on_the_stack_is_seen(tmp_path: Path, marker: Path) -> None:
    parts = [b"\x8c\x05posix", b"\x94", b"0", b"\x8c\x06system", b"\x94", b"0", b"h\x00", b"h\x01", b"\x93"]
    command = f"touch '{marker}'".encode()
    data = b"\x80\x04" + b"".join(parts) + b"\x8c" + bytes([len(command)]) + command + b"\x85R."
    assert "posix.system" in str(attempt(tmp_path, hostile.as_zip(data)))
    assert not marker.exists()
    with pytest.raises(UnsafeCheckpointError, match=r"numpy\.testing"):
        raise attempt(tmp_path, hostile.as_zip(b"\x80\x02cnumpy.testing._private.utils\nrunstring\n."))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("installed", [True, False])
def test_a_lightning_checkpoint_is_read_without_lightning(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, new: bool, installed: bool
) -> None:
    modules = hostile.fake_lightning(marker)
    weights = {"first_stage_model.encoder.conv_in.weight": torch.randn(3, 2, 1, 1), "model.x": torch.randn(2).half()}
    with monkeypatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        lightning = modules["pytorch_lightning.callbacks.model_checkpoint"]
        kind = lightning.ModelCheckpoint
        value = {
            "epoch": 0,
            "global_step": np.int64(220_000),
            "pytorch-lightning_version": "1.8.6",
            "state_dict": OrderedDict(weights),
            "callbacks": {kind: {"best_model_score": np.float32(0.5), "monitor": None, "dirpath": Path("x")}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "set": {1, 2}, "bytes": b"x\xff"}],
            "hyper_parameters": hostile.Call(lightning.evil, kind()),
            "loops": kind(),
            "slice": slice(1, 2),
            "complex": 1j,
        }
        path = tmp_path / "v2-1_512-ema-pruned.ckpt"
        torch.save(value, path, _use_new_zipfile_serialization=new)
        if installed:  # the real names resolve, and still nothing of them runs
            checkpoint = open_checkpoint(path)
    if not installed:
        assert "pytorch_lightning" not in sys.modules
        checkpoint = open_checkpoint(path)
    assert not marker.exists()
    assert {name: record.load().dtype for name, record in checkpoint.items()} == {
        name: tensor.dtype for name, tensor in weights.items()
    }
    assert all(torch.equal(checkpoint[name].load(), tensor) for name, tensor in weights.items())


def test_whole_modules_and_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UnsafeCheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_checkpoint(path)
    program = hostile.as_zip(hostile.tensor_pickle(), _0=bytes(16))
    path.write_bytes(program)
    assert set(open_checkpoint(path)) == {"w"}
    file = io.BytesIO(program)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/code/__torch__.py", "def forward(self): pass")
    path.write_bytes(file.getvalue())
    with pytest.raises(UnsafeCheckpointError, match="TorchScript"):
        open_checkpoint(path)


def test_a_nested_tensor_subclass_does_not_recurse(tmp_path: Path) -> None:
    name = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    # call of f(f, None, (f, None, (f, None, ... ))), which would recurse as deep as the file likes
    data = b"\x80\x02" + name + (b"(" + name + b"N") * 5000 + b")" + b"Nt" * 5000 + b"R."
    assert isinstance(attempt(tmp_path, hostile.as_zip(data)), CorruptCheckpointError)


LIST = b"]\x94(" + b"N" * 50_000 + b"e"


BOMBS = {
    "memo index of four thousand million": (b"\x80\x02Nr\xff\xff\xff\xff0N.", "NoneType"),
    "bytes longer than memory": (b"\x80\x04\x8e" + struct.pack("<Q", 2**61) + b"x.", "damaged"),
    "text longer than the file": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.", "damaged"),
    "key whose hash takes 2 to the 60 steps": (b"\x80\x02}" + b")" + b"2\x86" * 60 + b"Ns.", "key"),
    "key of great depth": (b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.", "key"),
    "great depth": (b"\x80\x02)" + b"\x85" * 300_000 + b".", "a tuple"),
    "lists of great depth": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "a list"),
    "the same list copied for ever": (
        b"\x80\x04" + LIST + b"0" + b"cbuiltins\nset\nh\x00\x85R0" * 1000,
        "operations",
    ),
    "integer of a million bits": (
        b"\x80\x02\x8b" + struct.pack("<i", 125_000) + b"\x7f" * 125_000 + b".",
        "bits",
    ),
    "decimal of a million digits": (b"I" + b"9" * 1_000_000 + b"\n.", "damaged"),
    "key of a million letters": (b"\x80\x02}X" + struct.pack("<I", 10**6) + b"k" * 10**6 + b"Ns.", "key"),
    "operations without end": (b"\x80\x02" + b"N0" * 500_001 + b".", "operations"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_end_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    data, reason = BOMBS[kind]
    monkeypatch.setattr(limits, "PICKLE_OPERATIONS", 1_000_000)
    error = attempt(tmp_path, hostile.as_zip(data))
    assert reason in str(error).rpartition(": ")[2]


def test_a_text_with_an_escape_that_there_is_not_is_damage(tmp_path: Path) -> None:
    """Python's own tools only warn of it, which is an error in a program that asks for that."""
    file = tmp_path / "weights.bin"
    file.write_bytes(b"\x80\x02(S'\\s'\nt.")
    with pytest.raises(CheckpointError):
        open_checkpoint(file)
