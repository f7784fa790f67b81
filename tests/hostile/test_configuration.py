"""D. configuration.json: what is no JSON, too large, too deep, incomplete, out of range, or asks for what it must not.

Everything is tried as a model is loaded, in the layout of the hub's folders and in our own.
"""

from __future__ import annotations

import copy
import json
import os
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2vgen_ms import hub
from i2vgen_ms.config import reader
from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.errors import CheckpointError, ConfigurationError, I2VGenError, MismatchedCheckpointError
from i2vgen_ms.pipelines import load
from tests.config.folders import change
from tests.hostile.helpers import copy_of, put, tree
from tests.plugin.loopback_hub import LoopbackHub

pytestmark = [pytest.mark.hostile, pytest.mark.group("D")]

FILE = "configuration.json"


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Path:
    return copy_of(folder, tmp_path / "model")


@pytest.fixture
def values(folder: Path) -> dict[str, Any]:
    """The hub's layout."""
    return json.loads((folder / FILE).read_text())


@pytest.fixture
def ours(folder: Path) -> dict[str, Any]:
    """The same in our layout."""
    return reader.read(folder).to_json()


def refused(model: Path, content: Any, *words: str) -> str:
    """The message of the ConfigurationError that loading ends in, at once; it says all of `words`."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    put(model / FILE, data)
    before, start = tree(model.parent), time.monotonic()
    with pytest.raises(I2VGenError) as caught:
        load(model, device="cpu")
    assert time.monotonic() - start < 5
    assert tree(model.parent) == before
    message = str(caught.value)
    assert isinstance(caught.value, ConfigurationError), repr(caught.value)
    assert message.startswith(FILE), message
    assert all(word in message for word in words), message
    assert len(message) < 2000
    return message


NO_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "half": (b'{"task": "image-to', "not JSON"),
    "web page": (b"<!DOCTYPE html><html>", "not JSON: Expecting value at line 1, column 1"),
    "YAML": (b"task: image-to-video\n", "not JSON"),
    "a comment": (b'{"task": "image-to-video"} // mine', "not JSON"),
    "single quotes": (b"{'task': 1}", "not JSON"),
    "a list": (b"[1]", "a JSON object is expected, got list"),
    "null": (b"null", "got NoneType"),
    "byte order mark": (b"\xef\xbb\xbf{}", "save it as UTF-8 without BOM"),
    "UTF-16": ('{"task": 1}'.encode("utf-16"), "not UTF-8 text: byte 0"),
    "no text": (b'{"a": "\xff\xfe"}', "not UTF-8 text"),
    "NUL": (b'{"a": "\x00"}', "not JSON"),
    "a key twice": (b'{"seed": 1, "seed": 2}', "the key 'seed' stands twice"),
    "a key twice, hidden": (b'{"seed": 1, "se\\u0065d": 2}', "the key 'seed' stands twice"),
    "NaN": (b'{"seed": NaN}', "NaN is not a number"),
    "infinity": (b'{"seed": -Infinity}', "-Infinity is not a number"),
    "too large a number": (b'{"seed": 1e999}', "too large for a number"),
    "an integer of a million digits": (b'{"seed": ' + b"9" * 900_000 + b"}", "too large for an integer"),
    "10 000 lists": (b"[" * 10_000 + b"]" * 10_000, "nested more than 32"),
    "10 000 objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested more than 32"),
    "just too deep": (b'{"a":' * 33 + b"1" + b"}" * 33, "nested more than 32"),
    "just too large": (b'{"a": "' + b"x" * 1_000_000 + b'"}', "larger than 1000000 bytes"),
    "a surrogate": (b'{"task": "\\ud800"}', "task"),
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_no_json(model: Path, kind: str) -> None:
    content, words = NO_JSON[kind]
    refused(model, content, words)


@pytest.mark.bounds(seconds=10, rss_mib=64)
def test_100_megabytes(model: Path) -> None:
    with put(model / FILE, b"{").open("r+b") as file:
        file.truncate(100_000_000)
    with pytest.raises(ConfigurationError, match="larger than 1000000 bytes; this is not a model's configuration"):
        load(model, device="cpu")


@pytest.mark.bounds(seconds=10, rss_mib=256)
def test_many_keys(model: Path, values: dict[str, Any]) -> None:
    """As many unknown keys as fit: one warning, and not a long one."""
    many = {f"k{number}": 0 for number in range(60_000)}
    put(model / FILE, json.dumps({**values, **many}).encode())
    with pytest.warns(ConfigurationWarning) as caught:
        reader.read(model)
    assert len(caught) == 1
    assert len(str(caught[0].message)) < 5000


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "nothing", "dangling link", "not a folder"])
def test_no_file(model: Path, what: str) -> None:
    path = model / FILE
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "dangling link":
        path.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"not a regular file|cannot be read|not found|is not a folder"):
        load(model / "open_clip_pytorch_model.bin" if what == "not a folder" else model, device="cpu")


OF_HUB = [
    *("task", "model", "model.model_args", "model.model_cfg"),
    *(f"model.model_args.{name}" for name in ("ckpt_clip", "ckpt_unet", "ckpt_autoencoder")),
    *(f"model.model_cfg.{name}" for name in ("batch_size", "target_fps", "max_frames", "latent_hei", "latent_wid")),
]
OF_OURS = [
    *("framework", "task", "format", "model", "pipeline", "weights", "encoder", "st_unet", "autoencoder"),
    *("diffusion", "output", "seed", "batch_size", "memory", "on_oom", "cuda_graphs", "compile", "dtype", "input"),
    *("weights.encoder", "encoder.type", "diffusion.steps", "diffusion.sampler", "output.width", "dtype.cpu.st_unet"),
]
WRONG = (None, 1.5, "text", [1], {"a": 1}, True, -1)


@pytest.mark.parametrize("path", OF_HUB)
def test_a_missing_key(model: Path, values: dict[str, Any], path: str) -> None:
    refused(model, change(values, path, ...), path)


@pytest.mark.parametrize("path", OF_OURS)
def test_a_missing_key_of_ours(model: Path, ours: dict[str, Any], path: str) -> None:
    """Without `format` it is taken for a hub's folder, which lacks other keys then."""
    refused(model, change(ours, path, ...), "missing", *([path] if path != "format" else ["model.model_args"]))


@pytest.mark.parametrize("path", OF_HUB)
def test_a_wrong_type(model: Path, values: dict[str, Any], path: str) -> None:
    """Every kind of value that the key cannot have."""
    fits = copy.deepcopy(values)
    for key in path.split("."):
        fits = fits[key]
    for wrong in WRONG:
        is_number = isinstance(fits, int) and type(wrong) is int and wrong > 0
        is_name = isinstance(fits, str) and isinstance(wrong, str) and path != "task"  # any name of a file will do
        if not (is_number or is_name):
            refused(model, change(values, path, wrong), path)


@pytest.mark.parametrize("path", OF_OURS)
def test_a_wrong_type_of_ours(model: Path, ours: dict[str, Any], path: str) -> None:
    fits = copy.deepcopy(ours)
    for key in path.split("."):
        fits = fits[key]
    for wrong in WRONG:
        is_name = isinstance(fits, str) and isinstance(wrong, str) and path == "weights.encoder"
        is_switch = isinstance(fits, bool) and isinstance(wrong, bool)
        if path == "encoder.type" and wrong == "text":  # a name, of which the catalogue knows nothing
            refused(model, change(ours, path, wrong), "text", "Known:")
        elif not (is_name or is_switch):
            refused(model, change(ours, path, wrong), path.partition(".")[0])


RANGES = {
    "model.model_cfg.batch_size": (0, -1, 257, 10**9, 10**30, 1.0),
    "model.model_cfg.max_frames": (0, -1, 4097, 10**9, 10**30, 2.5),
    "model.model_cfg.target_fps": (0, -1, 241, 10**30),
    "model.model_cfg.latent_hei": (0, -1, 2049, 10**9),
    "model.model_cfg.latent_wid": (0, -1, 2049, 10**9),
    "model.model_cfg.UNet.dim": (0, -1, 65537, 10**30),
    "model.model_cfg.UNet.dim_mult": ([], [0], [65], [1] * 17, [-1]),
    "model.model_cfg.UNet.num_res_blocks": (0, 33),
    "model.model_cfg.UNet.attn_scales": ([0.3], [-1], [0], [2.0], [1e-320], [1.0] * 17),
    "model.model_cfg.UNet.num_tokens": (0, 4097),
    "model.model_cfg.auto_encoder.ddconfig.ch": (0, 65537),
    "model.model_cfg.embedder.vit_resolution": ([0, 0], [8193, 8193], [224], [224, 225]),
    "model.model_args.seed": (None, 1.5, -1, 2**64, 10**38, "1", True),
    "seed": (None, 1.5, -1, 2**64),
}


@pytest.mark.parametrize("path", RANGES)
def test_out_of_range(model: Path, values: dict[str, Any], path: str) -> None:
    for wrong in RANGES[path]:
        refused(model, change(values, path, wrong), path)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_every_seed_in_range_is_a_seed(model: Path, values: dict[str, Any], seed: int) -> None:
    put(model / FILE, json.dumps(change(values, "model.model_args.seed", seed)).encode())
    assert load(model, device="cpu").configuration.seed == seed


LARGEST = {
    "model.model_cfg.UNet.dim": 65536,
    "model.model_cfg.UNet.dim_mult": [64] * 16,
    "model.model_cfg.UNet.num_res_blocks": 32,
    "model.model_cfg.auto_encoder.ddconfig.ch": 65536,
    "model.model_cfg.embedder.arch": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 8192, "patch_size": 1, "width": 65536, "layers": 512, "head_width": 32},
    },
}


@pytest.mark.bounds(seconds=60, rss_mib=512)
@pytest.mark.parametrize("path", LARGEST)
def test_networks_of_petabytes(model: Path, values: dict[str, Any], path: str) -> None:
    """In range, each alone: the file is seen not to fit before anything is given memory."""
    put(model / FILE, json.dumps(change(values, path, LARGEST[path])).encode())
    with pytest.raises((MismatchedCheckpointError, ConfigurationError)) as caught:
        load(model, device="cpu")
    assert len(str(caught.value)) < 8000


NAMES = [
    *("../w.pth", "a/../../w.pth", "..", ".", "", "/etc/passwd", "//host/share", "~/w.pth", "~root/w", "C:\\w.pth"),
    *("..\\w.pth", "a\x00b", "a\nb", "file:///etc/passwd", "http://127.0.0.1/w", "w.pth/", "x" * 300, "\u202eabc"),
]


@pytest.mark.parametrize("name", NAMES, ids=[repr(name)[:24] for name in NAMES])
def test_names_that_leave_the_folder(model: Path, values: dict[str, Any], ours: dict[str, Any], name: str) -> None:
    words = "a file name inside the model folder is expected"
    for key in ("ckpt_clip", "ckpt_unet", "ckpt_autoencoder"):
        refused(model, change(values, f"model.model_args.{key}", name), key, words)
    refused(model, change(ours, "weights.encoder", name), "weights.encoder", words)


@pytest.mark.parametrize("how", ["file", "folder", "absolute", "loop", "chain", "blobs of another model"])
def test_links_that_leave_the_folder(model: Path, values: dict[str, Any], tmp_path: Path, how: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    put(outside / "w.pth", b"secret")
    name = "w.pth"
    if how == "folder":
        (model / "sub").symlink_to("../outside")
        name = "sub/w.pth"
    elif how == "loop":
        (model / "w.pth").symlink_to("w.pth")
    elif how == "chain":
        (model / "one").symlink_to("../outside/w.pth")
        (model / "w.pth").symlink_to("one")
    elif how == "blobs of another model":
        snapshot = tmp_path / "models--a" / "snapshots" / "v1"
        snapshot.parent.mkdir(parents=True)
        model = model.rename(snapshot)
        other = tmp_path / "models--b" / "blobs"
        other.mkdir(parents=True)
        put(other / "w.pth", b"secret")
        (model / "w.pth").symlink_to("../../../models--b/blobs/w.pth")
    else:
        (model / "w.pth").symlink_to((outside / "w.pth") if how == "absolute" else "../outside/w.pth")
    put(model / FILE, json.dumps(change(values, "model.model_args.ckpt_clip", name)).encode())
    with pytest.raises((ConfigurationError, CheckpointError), match=r"outside of the model folder|is not a file of"):
        load(model, device="cpu")


CODE = {"plugins": ["evil-package"], "allow_remote": True}


@pytest.mark.parametrize("layout", ["hub", "ours"])
@pytest.mark.parametrize("key", CODE)
def test_requests_for_code_are_ignored_with_a_warning(
    model: Path, values: dict[str, Any], ours: dict[str, Any], key: str, layout: str
) -> None:
    chosen = values if layout == "hub" else ours
    put(model / FILE, json.dumps({**chosen, key: CODE[key]}).encode())
    with pytest.warns(ConfigurationWarning, match=f"ignored: {key}"):
        load(model, device="cpu")


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """ModelScope with this package in it; whatever would install or import a repository's code fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelscope.pipelines import pipeline
        from modelscope.utils import plugins

    import i2vgen_ms

    assert i2vgen_ms.__version__

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("code of the repository was asked for")

    for name in ("register_plugins_repo", "register_modelhub_repo", "install_requirements_by_files"):
        monkeypatch.setattr(plugins, name, reached, raising=False)
    return SimpleNamespace(pipeline=pipeline)


def test_requests_for_code_through_modelscope(model: Path, values: dict[str, Any], modelscope: SimpleNamespace) -> None:
    marker = model / "marker"
    put(model / "ms_wrapper.py", f"open({str(marker)!r}, 'w')".encode())
    put(model / "requirements.txt", b"evil-package\n")
    put(model / FILE, json.dumps({**values, **CODE}).encode())
    with pytest.warns(ConfigurationWarning, match="ignored: plugins, allow_remote"):
        modelscope.pipeline("image-to-video", str(model), device="cpu", trust_remote_code=True)
    assert not marker.exists()


@pytest.mark.parametrize("how", ["a key twice", "byte order mark"])
def test_a_repository_whose_task_cannot_be_read_is_not_handed_on(
    model: Path, values: dict[str, Any], modelscope: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """ModelScope itself would read such a file, and do what it asks for."""
    text = json.dumps({**values, **CODE})
    text = "\ufeff" + text if how == "byte order mark" else text[:-1] + ', "task": "image-to-video"}'
    put(model / FILE, text.encode())
    with LoopbackHub({("evil/model", "master"): model}) as server:
        for name, value in server.environment(model.parent / "cache").items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigurationError, match=r"stands twice|byte order mark"):
            modelscope.pipeline("image-to-video", "evil/model", device="cpu")
        assert not any("FilePath=small_random" in line for line in server.log)


def test_unknown_keys_of_the_hub_are_warned_about_once(model: Path, values: dict[str, Any]) -> None:
    values["model"]["model_cfg"]["new_option"] = 1
    put(model / FILE, json.dumps({**values, "novelty": {"a": 1}}).encode())
    with pytest.warns(ConfigurationWarning, match=r"ignored: novelty, model\.model_cfg\.new_option") as caught:
        load(model, device="cpu")
    assert len(caught) == 1


def test_unknown_keys_of_ours_are_refused(model: Path, ours: dict[str, Any]) -> None:
    refused(model, {**ours, "sead": 1}, "sead: unknown key; did you mean 'seed'?")


@pytest.mark.parametrize(
    "name",
    ["os:system", "builtins:eval", "../evil", "i2vgen_ms.cli.main:main", "ddim\n", "__class__", "ddim.__init__", ""],
)
def test_a_part_is_a_name_of_the_catalogue_and_never_code(model: Path, ours: dict[str, Any], name: str) -> None:
    for path in ("st_unet.type", "diffusion.sampler.type", "encoder.type", "autoencoder.type"):
        put(model / FILE, json.dumps(change(ours, path, name)).encode())
        with pytest.raises(ConfigurationError, match=path.replace(".", r"\.")):
            load(model, device="cpu")


def test_a_configuration_that_was_sound_is_not_changed_by_reading(model: Path, values: dict[str, Any]) -> None:
    before = (model / FILE).read_bytes()
    assert hub.task_of(model) == "image-to-video"
    load(model, device="cpu")
    assert (model / FILE).read_bytes() == before
    assert json.loads(before) == values
