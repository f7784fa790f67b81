"""A model folder becomes safetensors and goes back, unchanged; `check` tells what will load and why not."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.config.reader import read
from i2vgen_ms.errors import ArgumentError, CheckpointError, ConfigurationError, OutputError
from i2vgen_ms.random_model import make_random_model
from i2vgen_ms.weights import architecture, safetensors_files
from i2vgen_ms.weights import convert as converting
from i2vgen_ms.weights.check import check
from i2vgen_ms.weights.checkpoint import open_checkpoint
from i2vgen_ms.weights.convert import convert
from i2vgen_ms.weights.load import load

UNET = {
    **{"dim": 32, "dim_mult": [1, 1], "num_res_blocks": 1, "head_dim": 32, "num_heads": 1, "attn_scales": [0.5]},
    **{"context_dim": 32, "y_dim": 64},
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model(tmp_path_factory.mktemp("models") / "original", {"UNet": UNET})


@pytest.fixture(scope="module")
def ours(original: Path) -> Path:
    """The same model in our own names."""
    return convert(original, original.with_name("ours"))


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A copy whose files may be changed."""
    return Path(shutil.copytree(original, tmp_path / "source"))


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The values of one network as it loads from a folder."""
    configuration = read(folder)
    built = architecture.build(configuration, name)
    network = load(built.network, folder / getattr(configuration.weights, name), built.layout)
    return dict(network.state_dict())


def test_there_and_back_changes_nothing(original: Path, ours: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    assert convert(ours, back, layout="modelscope") == back
    assert sorted(path.name for path in ours.iterdir()) == [
        "autoencoder.safetensors",
        "configuration.json",
        "encoder.safetensors",
        "st_unet.safetensors",
    ]
    before, after = read(original), read(back)
    assert after.replace("weights", before.weights.model_dump()) == before
    assert read(ours).replace("weights", before.weights.model_dump()) == before
    for name in architecture.NETWORKS:
        files = [torch.load(folder / getattr(read(folder).weights, name)) for folder in (original, back)]
        states = [file.get("state_dict", file) for file in files]
        assert ("state_dict" in files[1]) == (name != "encoder") == ("state_dict" in files[0])
        assert set(states[0]) == set(states[1])
        for key, tensor in states[0].items():
            assert torch.equal(tensor, states[1][key])
            assert tensor.shape == states[1][key].shape
        loaded = tensors(ours, name)
        assert all(torch.equal(value, loaded[key]) for key, value in tensors(original, name).items())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_type_of_the_numbers_is_chosen(original: Path, tmp_path: Path) -> None:
    half = convert(original, tmp_path / "half", dtype="float16")
    again = convert(half, tmp_path / "again", dtype="float32", layout="modelscope")
    for name in architecture.NETWORKS:
        start, halved, doubled = (tensors(folder, name) for folder in (original, half, again))
        for key, tensor in start.items():
            assert halved[key].dtype == torch.float16
            assert doubled[key].dtype == torch.float32
            assert torch.equal(tensor.half(), halved[key])
            assert torch.equal(halved[key].float(), doubled[key])


def test_an_official_folder_keeps_its_own_file_names(original: Path, tmp_path: Path) -> None:
    half = convert(original, tmp_path / "half", dtype="bfloat16", layout="modelscope")
    assert read(half) == read(original)
    assert json.loads((half / "configuration.json").read_text())["model"]["type"] == "image-to-video-model"


def test_what_the_published_layout_cannot_say_is_told(ours: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(ours, tmp_path / "changed"))
    values = json.loads((changed / "configuration.json").read_text())
    values["diffusion"]["steps"] = 7
    values["autoencoder"]["chunk_bytes"] = 10**6
    (changed / "configuration.json").write_text(json.dumps(values))
    with pytest.warns(ConfigurationWarning, match=r": autoencoder\.chunk_bytes, diffusion\.steps$"):
        convert(changed, tmp_path / "back", layout="modelscope")
    values["autoencoder"]["norm_groups"] = 16  # in no tensor's shape: it would load, and be another network
    (changed / "configuration.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=r"no key for autoencoder\.norm_groups,"):
        convert(changed, tmp_path / "again", layout="modelscope")
    assert not (tmp_path / "again").exists()


def test_texts_come_along_and_other_files_do_not(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("read me")
    (source / "LICENSE").symlink_to("/etc/hostname")
    (source / "code.py").write_text("print()")
    result = convert(source, tmp_path / "result")
    assert (result / "README.md").read_text() == "read me"
    assert not (result / "code.py").exists()
    assert not (result / "LICENSE").exists()


def test_destinations_are_not_overwritten(original: Path, source: Path, tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    for destination, reason in (
        (used, "is there already"),
        (tmp_path / "file", "is there already"),
        (source, "is there already"),
        (source / "inside", "lies inside"),
        (tmp_path / "no" / "parent", "does not exist"),
    ):
        with pytest.raises(OutputError, match=reason):
            convert(source, destination)
    assert (used / "precious").read_text() == "x"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert check(convert(source, empty)).ok


@pytest.mark.parametrize("wrong", [{"dtype": "float8"}, {"layout": "diffusers"}])
def test_unknown_choices_are_refused(original: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="Known"):
        convert(original, tmp_path / "result", **wrong)


@pytest.mark.parametrize("layout", converting.LAYOUTS)
def test_nothing_is_left_of_a_conversion_that_fails(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """Every flush to the disk and the last move fail in turn; each leaves the place as it was."""
    calls = {"made": 0, "failing": 0}
    fsync, replace = os.fsync, os.replace

    def failing(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if any(".partial" in str(argument) or isinstance(argument, int) for argument in arguments):
                calls["made"] += 1
                if calls["made"] == calls["failing"]:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", failing(fsync))
    monkeypatch.setattr(os, "replace", failing(replace))
    destination = tmp_path / "result"
    for number in range(1, 5):
        calls.update(made=0, failing=number)
        with pytest.raises(OutputError, match="No space"):
            convert(original, destination, layout=layout)
        assert list(tmp_path.iterdir()) == []
    calls.update(made=0, failing=0)
    assert check(convert(original, destination, layout=layout)).ok
    assert calls["made"] == 4


def test_a_full_disk_is_seen_before_the_work(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20 * 2**20))
    with pytest.raises(OutputError, match="GiB are needed"):
        convert(original, tmp_path / "result", dtype="float32")
    monkeypatch.setattr(safetensors_files, "write", lambda *_: pytest.fail("written"))
    with pytest.raises(OutputError):
        convert(original, tmp_path / "result")


def test_a_source_that_does_not_load_is_refused_first(source: Path, tmp_path: Path) -> None:
    (source / read(source).weights.autoencoder).write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="web page"):
        convert(source, tmp_path / "result")
    assert not (tmp_path / "result").exists()


def test_a_good_folder_is_said_to_load(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2vgen_ms.weights.records.TensorRecord.load", lambda self: pytest.fail("data was read"))
    report = check(original)
    assert report.ok
    text = str(report)
    for name in ("configuration", *architecture.NETWORKS):
        assert f"{name} (" in text
    assert "tensors, float32" in text
    assert "NOT" not in text


def test_each_reason_not_to_load_is_said(source: Path) -> None:
    weights = read(source).weights
    unet = source / weights.st_unet
    state = torch.load(unet)["state_dict"]
    gone = state.pop("out.2.bias")
    state["input_blocks.0.0.weight"] = torch.ones(3, 3)
    torch.save({"state_dict": state}, unet)
    (source / weights.encoder).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    autoencoder = source / weights.autoencoder
    autoencoder.rename(str(autoencoder) + ".incomplete")
    report = check(source)
    assert not report.ok
    assert [finding.ok for finding in report.findings] == [True, False, False, False]
    text = str(report)
    assert "Git-LFS pointer" in text
    assert f"head.bias (out.2.bias) {list(gone.shape)}" in text
    assert "stem.weight (input_blocks.0.0.weight): [3, 3] in the file" in text
    assert "download is not finished" in text
    assert "3 broken" in text
    (source / (weights.autoencoder + ".incomplete")).unlink()
    assert "file is not there" in str(check(source))
    autoencoder.write_bytes(b"\x80\x02cos\nsystem\n.")
    assert "os.system" in str(check(source))
    autoencoder.write_bytes((source / weights.st_unet).read_bytes()[:-100])
    assert "cut off" in str(check(source))
    (source / "configuration.json").write_text("{}")
    assert not check(source).ok
    assert not check(source / "nowhere").ok


def test_a_network_of_other_numbers_is_told_by_its_shapes(source: Path) -> None:
    values = json.loads((source / "configuration.json").read_text())
    values["model"]["model_cfg"]["UNet"]["num_res_blocks"] += 1
    (source / "configuration.json").write_text(json.dumps(values))
    report = check(source)
    assert not report.ok
    assert "missing" in str(report)
    with pytest.raises((CheckpointError, ConfigurationError), match="missing"):
        convert(source, source.with_name("result"))


def test_our_own_files_say_what_they_are(ours: Path) -> None:
    checkpoint = open_checkpoint(ours / "st_unet.safetensors")
    assert checkpoint.own_names
    assert checkpoint.metadata["part"] == "st_unet"
    assert "stem.weight" in checkpoint
