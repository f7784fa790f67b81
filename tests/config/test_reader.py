"""Reading our own layout: every shipped file, every way to be wrong, weight files, isolation between readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms.config import data, reader
from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.config.part import PartSpec
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import ConfigurationError
from tests.config.folders import change, write

OURS: dict[str, Any] = json.loads((data.configuration_folder() / "image-to-video" / "configuration.json").read_text())


def test_the_shipped_numbers_are_the_published_ones() -> None:
    configuration = reader.shipped("image-to-video")
    assert configuration.diffusion.steps == 50
    assert configuration.diffusion.guidance.options["scale"] == 3.0
    assert configuration.output.model_dump(exclude={"writer"}) == {
        "width": 448,
        "height": 256,
        "num_frames": 32,
        "fps": 8,
    }
    assert configuration.seed == 666
    assert configuration.st_unet.type == "st-unet"
    assert configuration.st_unet.options["multipliers"] == [1, 2, 4, 4]


@pytest.mark.parametrize("variant", reader.variants())
def test_every_shipped_variant_reads_without_a_warning_and_round_trips(variant: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configuration = reader.shipped(variant)
    assert Configuration.from_json(json.loads(json.dumps(configuration.to_json()))) == configuration


def test_the_rotary_variant_differs_in_its_temporal_block_alone() -> None:
    plain, rotary = (reader.shipped(name) for name in ("image-to-video", "image-to-video-rotary"))
    assert rotary.st_unet.options["temporal"]["type"] == "rotary"
    assert rotary.replace("st_unet.temporal", {"type": "transformer"}) == plain


def test_an_unknown_variant_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'image-to-video'"):
        reader.shipped("image-to-vidoe")


def test_two_readers_share_nothing() -> None:
    first, second = reader.shipped("image-to-video"), reader.shipped("image-to-video")
    first.st_unet.options["multipliers"].append(8)
    first.st_unet.options["channels"] = 1
    assert second == reader.shipped("image-to-video") != first
    with pytest.raises(ValueError, match="frozen"):
        first.seed = 1  # type: ignore[misc]


def test_to_json_is_a_copy() -> None:
    configuration = reader.shipped("image-to-video")
    configuration.to_json()["st_unet"]["multipliers"].append(8)
    assert configuration == reader.shipped("image-to-video")


WRONG = [
    ("diffusion.stepz", 3, r"configuration.json: diffusion.stepz: unknown key; did you mean 'steps'"),
    ("sead", 3, "sead: unknown key; did you mean 'seed'"),
    ("diffusion.steps", ..., "diffusion.steps: missing"),
    ("diffusion", ..., "diffusion: missing"),
    ("diffusion", 5, "diffusion: "),
    ("diffusion.steps", 0, "diffusion.steps: .*greater than or equal to 1, got 0"),
    ("diffusion.steps", True, "diffusion.steps: .*valid integer, got True"),
    ("diffusion.steps", 2.0, "diffusion.steps: .*valid integer, got 2.0"),
    ("diffusion.steps", "2", "diffusion.steps: .*valid integer, got '2'"),
    ("diffusion.steps", 10**30, "diffusion.steps: .*an integer beyond"),
    ("diffusion.offset_noise", -0.1, "diffusion.offset_noise: .*greater than or equal to 0"),
    ("diffusion.prediction", "velocity", "diffusion.prediction: .*'eps', 'v' or 'x0'"),
    ("diffusion.sampler", "ddim", 'diffusion.sampler: an object {"type": name, ...options} is expected'),
    ("diffusion.sampler.type", ..., "diffusion.sampler.type: missing"),
    ("diffusion.sampler.type", 4, "diffusion.sampler.type: a part's name is expected, got 4"),
    ("diffusion.sampler.eta", -1, "diffusion.sampler.eta: a number from 0 to 1000 is expected, got -1"),
    ("diffusion.schedule.timesteps", 10**30, "diffusion.schedule.timesteps: a number from 1 to 100000"),
    ("st_unet.channels", -320, "st_unet.channels: a number from 1 to 65536 is expected, got -320"),
    ("st_unet.multipliers", [1, 0], "st_unet.multipliers.1: a number from 1"),
    ("st_unet.multipliers", [1] * 65, "st_unet.multipliers: a list of at most 64"),
    ("st_unet.temporal.not-a-name", 1, "st_unet.temporal: option names are identifiers"),
    ("st_unet.context.in_channels", 512, "st_unet.context.in_channels: 512 does not fit encoder.embed_dim = 1024"),
    ("st_unet.latent_channels", 8, "st_unet.latent_channels: 8 does not fit autoencoder.embed_channels = 4"),
    ("encoder.vision.layers", 0, "encoder.vision.layers: a number from 1"),
    ("encoder.mean", [1e300] * 3, "encoder.mean.0: a number from"),
    ("encoder.std", [0.0] * 3, "encoder.std.0: a number from"),
    ("encoder.activation", "ge\nlu", "encoder.activation: a printable text"),
    ("output.width", 0, "output.width: "),
    ("output.height", 10**6, "output.height: .*less than or equal to 16384"),
    ("output.num_frames", -1, "output.num_frames: "),
    ("output.fps", 0, "output.fps: "),
    ("batch_size", 0, "batch_size: "),
    ("batch_size", 10**9, "batch_size: "),
    ("seed", None, "seed: .*valid integer, got None"),
    ("seed", 1.5, "seed: .*valid integer, got 1.5"),
    ("seed", -1, "seed: "),
    ("seed", 2**64, "seed: "),
    ("input.crop", "center", "input.crop: .*'centre-square', 'fill' or 'pad'"),
    ("dtype.cuda.st_unet", "fp8", "dtype.cuda.st_unet: .*'float32', 'float16' or 'bfloat16'"),
    ("format", "i2vgen-ms/2", "format: .*'i2vgen-ms/1', got 'i2vgen-ms/2'"),
    ("framework", "jax", "framework: "),
    ("weights.st_unet", "../unet.pth", "weights.st_unet: a file name inside the model folder is expected"),
    ("weights.st_unet", "a/../../unet.pth", "weights.st_unet: a file name inside"),
    ("weights.st_unet", "/etc/passwd", "weights.st_unet: a file name inside"),
    ("weights.st_unet", "C:\\unet.pth", "weights.st_unet: a file name inside"),
    ("weights.st_unet", "..\\unet.pth", "weights.st_unet: a file name inside"),
    ("weights.st_unet", "", "weights.st_unet: a file name inside"),
    ("weights.st_unet", "a\u0000b", "weights.st_unet: a file name inside"),
    ("weights.st_unet", "~/x", "weights.st_unet: a file name inside"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_with_its_path(tmp_path: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        reader.read(write(tmp_path, change(OURS, path, value)))
    assert str(caught.value).startswith("configuration.json: ")
    assert type(caught.value)(str(caught.value)).args  # modelscope builds errors again from their text


def test_every_key_is_required(tmp_path: Path) -> None:
    def keys(values: dict[str, Any], prefix: str = "") -> list[str]:
        paths = []
        for key, value in values.items():
            paths.append(prefix + key)
            if isinstance(value, dict) and "type" not in value:
                paths += keys(value, f"{prefix}{key}.")
        return paths

    for path in keys(OURS):
        if path != "format":  # without it the file is a hub's, which the overlay tests cover
            with pytest.raises(ConfigurationError, match=f"{path}: missing"):
                reader.read(write(tmp_path, change(OURS, path, ...)))


NOT_A_CONFIGURATION = [
    (b"", "not JSON"),
    (b"{", "not JSON: .* at line 1, column"),
    (b"<!DOCTYPE html>", "not JSON"),
    (b"[]", "a JSON object is expected, got list"),
    (b"null", "a JSON object is expected, got NoneType"),
    (b"\xef\xbb\xbf{}", "byte order mark"),
    (b'{"a": "\xff"}', "not UTF-8 text: byte 7 is 0xff"),
    (b'{"seed": 1, "seed": 2}', "the key 'seed' stands twice"),
    (b'{"seed": NaN}', "NaN is not a number"),
    (b'{"seed": -Infinity}', "-Infinity is not a number"),
    (b'{"seed": 1e999}', "too large for a number"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "too large for an integer"),
    (b"[" * 100_000, "nested more than 32"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, "nested more than 32"),
    (b"{" + b" " * 1_000_000 + b"}", "larger than 1000000 bytes"),
    (b"{}", "task: None has no shipped configuration"),
]


@pytest.mark.parametrize(("content", "message"), NOT_A_CONFIGURATION)
def test_what_is_not_a_configuration_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigurationError, match=message) as caught:
        reader.read(write(tmp_path, content))
    assert time.monotonic() - start < 2
    assert str(caught.value).startswith("configuration.json: ")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "configuration.json")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        reader.read(tmp_path)  # would wait for a writer for ever


def test_a_link_to_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "configuration.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        reader.read(tmp_path)


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not found in"):
        reader.read(tmp_path)
    with pytest.raises(ConfigurationError, match="is not a folder"):
        reader.read(tmp_path / "nothing")
    (tmp_path / "configuration.json").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        reader.read(tmp_path)


@pytest.mark.parametrize("key", ["plugins", "allow_remote"])
def test_requests_for_code_are_ignored_with_a_warning(tmp_path: Path, key: str) -> None:
    with pytest.warns(ConfigurationWarning, match=key):
        configuration = reader.read(write(tmp_path, change(OURS, key, ["evil"])))
    assert configuration == Configuration.from_json(OURS)


def test_weight_files_may_not_leave_the_folder_through_a_link(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", OURS)
    (tmp_path / "outside.bin").touch()
    (folder / "open_clip_pytorch_model.bin").symlink_to("../outside.bin")
    with pytest.raises(ConfigurationError, match="outside of the model folder"):
        reader.read(folder)
    with pytest.raises(ConfigurationError, match="outside of the model folder"):
        reader.weight_file(folder, "open_clip_pytorch_model.bin")


def test_links_inside_the_folder_and_into_a_hub_cache_are_followed(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "models--x" / "snapshots" / "v1.1.0", OURS)
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    (blobs / "abc").touch()
    (snapshot / "open_clip_pytorch_model.bin").symlink_to("../../blobs/abc")
    (snapshot / "real.ckpt").touch()
    (snapshot / "v2-1_512-ema-pruned.ckpt").symlink_to("real.ckpt")
    (tmp_path / "alias").symlink_to(snapshot)
    assert reader.read(snapshot) == reader.read(tmp_path / "alias")
    (tmp_path / "elsewhere").touch()
    (snapshot / "other.bin").symlink_to("../../../elsewhere")
    with pytest.raises(ConfigurationError, match="outside of the model folder"):
        reader.weight_file(snapshot, "other.bin")


def test_replace_changes_one_value_of_a_copy() -> None:
    before = reader.shipped("image-to-video")
    after = before.replace("diffusion.steps", 20)
    assert (before.diffusion.steps, after.diffusion.steps) == (50, 20)
    assert after.replace("diffusion.steps", 50) == before
    assert before.replace("diffusion.sampler", "heun").diffusion.sampler == PartSpec("heun", {})
    assert before.replace("diffusion.sampler", PartSpec("ddim", {"eta": 0.5})).diffusion.sampler.options == {"eta": 0.5}
    assert before.replace("diffusion.sampler.eta", 0.5).diffusion.sampler.options == {"eta": 0.5}
    for path, value in (("diffusion.stepz", 1), ("difusion.steps", 1), ("diffusion.steps", True), ("", 1)):
        with pytest.raises(ConfigurationError):
            before.replace(path, value)


def test_parts_know_where_they_were_read() -> None:
    parts = dict(reader.shipped("image-to-video").parts())
    assert parts["diffusion.sampler"].where == "configuration.json: diffusion.sampler"
    assert {"encoder", "st_unet", "autoencoder", "output.writer", "diffusion.guidance"} <= set(parts)


def test_reading_needs_no_torch() -> None:
    code = "import sys; from i2vgen_ms.config import reader; reader.shipped('demo'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
