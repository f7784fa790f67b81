"""Rewriting a model folder: to safetensors in our own names, or back to the published files.

Given a folder that loads. The new folder is built beside its destination and moved into place when it is whole; the
old one is only read. Tensors of networks that the folder's task does not use (OpenCLIP's text tower, Stable
Diffusion's own network) are not carried over.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.config.reader import read, shipped, weight_file
from i2vgen_ms.config.schema import FILE, Configuration
from i2vgen_ms.errors import ArgumentError, ConfigurationError, OutputError, nearest
from i2vgen_ms.weights import architecture, cache
from i2vgen_ms.weights.casting import Casting
from i2vgen_ms.weights.check import check
from i2vgen_ms.weights.checkpoint import open_checkpoint
from i2vgen_ms.weights.hub_configuration import hub_configuration
from i2vgen_ms.weights.load import matching
from i2vgen_ms.weights.memory import Memory
from i2vgen_ms.weights.verified import verify

LAYOUTS = ("safetensors", "modelscope")
DTYPES = ("float32", "float16", "bfloat16")
_TEXTS = ("README*", "LICENSE*", "NOTICE*")
_MAX_TEXT_BYTES = 2**20
_NETWORK_SETTINGS = tuple(f"{name}." for name in architecture.NETWORKS)
_HOW_NOT_WHAT = ("st_unet.attention.type", "autoencoder.chunk_bytes")  # they change no number
_SPARE_BYTES = 16 * 2**20


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    layout: str = "safetensors",
    memory: Memory | None = None,
) -> Path:
    """Writes the model folder `src` anew at `dst`, which must not exist or be empty, and returns its path.

    Args:
        dtype: `float32`, `float16` or `bfloat16` for all real-number tensors; None keeps each as it is.
        layout: `safetensors` writes our own names; `modelscope` the published files and their configuration.json. With
            a `dtype` the latter needs memory for the largest file, as torch writes a file's tensors together.
        memory: where it is remembered which files were checked; None is the user's own.

    Raises:
        ArgumentError: another dtype or layout.
        OutputError: `dst` is in use, lies inside `src`, cannot be written, or the disk is too full.
        ConfigurationError: `src` has no good configuration.json, or the published layout cannot describe its networks.
        CheckpointError, NonFiniteError: a weight file of `src` does not load.
    """
    if layout not in LAYOUTS:
        raise ArgumentError(f"layout {layout!r} is not known; {nearest(layout, LAYOUTS)}")
    if dtype is not None and dtype not in DTYPES:
        raise ArgumentError(f"dtype {dtype!r} is not known; {nearest(str(dtype), DTYPES)}")
    src, dst = Path(src), Path(dst)
    configuration = read(src)
    _check_destination(src, dst)
    castings = {}
    for name in architecture.NETWORKS:
        castings[name] = _casting(src, configuration, name, dtype, memory or Memory())
    _check_space(dst, castings)
    files = _file_names(configuration, layout)
    with _unfinished(dst) as folder:
        for name, casting in castings.items():
            path = folder / files[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            if layout == "safetensors":
                cache.write(casting, path, {"part": name})
            else:
                _write_published(casting, architecture.build(configuration, name).layout, path, name)
        configuration = configuration.replace("weights", files)
        _write_json(folder / FILE, _configuration(configuration, layout))
        _check_result(folder, configuration)
        for text in (path for pattern in _TEXTS for path in sorted(src.glob(pattern))):
            if text.is_file() and not text.is_symlink() and text.stat().st_size <= _MAX_TEXT_BYTES:
                shutil.copyfile(text, folder / text.name)
    return dst


def _casting(src: Path, configuration: Configuration, name: str, dtype: str | None, memory: Memory) -> Casting:
    built = architecture.build(configuration, name)
    path = weight_file(src, getattr(configuration.weights, name))
    checkpoint = open_checkpoint(memory.twin(path))
    comparison = matching(built.network, checkpoint, built.layout)
    verify(checkpoint, comparison.pairs.values(), memory=memory)
    return Casting(checkpoint, comparison, getattr(torch, dtype) if dtype else None)


def _file_names(configuration: Configuration, layout: str) -> dict[str, str]:
    if layout == "safetensors":
        return {name: f"{name}.safetensors" for name in architecture.NETWORKS}
    ours: dict[str, str] = configuration.weights.model_dump()
    published = shipped(configuration.task).weights.model_dump()
    return {name: published[name] if ours[name].endswith(".safetensors") else ours[name] for name in ours}


def _configuration(configuration: Configuration, layout: str) -> dict[str, Any]:
    if layout == "safetensors":
        return configuration.to_json()
    return hub_configuration(configuration, shipped(configuration.task))


def _check_result(folder: Path, configuration: Configuration) -> None:
    """Raises unless the new folder loads as the same networks; warns of other settings that have no key in it."""
    report = check(folder)
    if not report.ok:
        raise ConfigurationError(
            f"this model cannot be written in that layout, as the result would not load:\n{report}"
        )
    lost = sorted(_differences(configuration.to_json(), read(folder).to_json(), ""))
    networks = [path for path in lost if path.startswith(_NETWORK_SETTINGS) and path not in _HOW_NOT_WHAT]
    if networks:
        raise ConfigurationError(
            f"the published configuration.json has no key for {', '.join(networks)}, and without them the result would "
            "be another network; keep the safetensors layout"
        )
    if lost:
        warnings.warn(
            "the published configuration.json has no key for these settings, which return to their defaults: "
            + ", ".join(lost),
            ConfigurationWarning,
            stacklevel=3,
        )


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield path


def _write_published(casting: Casting, layout: Any, path: Path, name: str) -> None:
    """The published file: the ST-UNet's and the autoencoder's tensors in `state_dict`, the encoder's at the top."""
    tensors = {
        layout.to_published(ours): layout.to_published_shape(ours, casting.tensor(ours)) for ours in casting.names()
    }
    with path.open("xb") as file:
        torch.save(tensors if name == "encoder" else {"state_dict": tensors}, file)
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.write("\n")


def _check_destination(src: Path, dst: Path) -> None:
    if os.path.lexists(dst) and (dst.is_symlink() or not dst.is_dir() or any(dst.iterdir())):
        raise OutputError(f"{dst}: is there already; give a folder that does not exist or is empty")
    if dst.resolve().is_relative_to(src.resolve()):
        raise OutputError(f"{dst}: lies inside {src}, which is only read; give another place")
    if not dst.absolute().parent.is_dir():
        raise OutputError(f"{dst}: the folder {dst.absolute().parent} does not exist")


def _check_space(dst: Path, castings: dict[str, Casting]) -> None:
    needed = _SPARE_BYTES + sum(
        casting.checkpoint[published].numel * casting.dtype_of(ours).itemsize
        for casting in castings.values()
        for ours, published in casting.comparison.pairs.items()
    )
    free = shutil.disk_usage(dst.absolute().parent).free
    if free < needed:
        raise OutputError(
            f"{dst}: {needed / 2**30:.2f} GiB are needed, {free / 2**30:.2f} GiB are free; make room there"
        )


@contextlib.contextmanager
def _unfinished(dst: Path) -> Iterator[Path]:
    """A new folder beside `dst` that takes its place when the block ends well, and is removed otherwise."""
    folder = dst.absolute().with_name(f".{dst.name}.{uuid.uuid4().hex}.partial")
    try:
        folder.mkdir()
        yield folder
        os.replace(folder, dst)
    except OSError as error:
        raise OutputError(f"{dst}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
