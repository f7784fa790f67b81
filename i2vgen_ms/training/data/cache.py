"""Latents of clips on disk, so that files are decoded and encoded once: one safetensors file a clip.

Given a folder and what tells one autoencoder from another. A file is named by everything its latents depend on: the
clip's file (path, size, time of change), its part, size and rate, and the autoencoder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from i2vgen_ms.errors import CheckpointError, OutputError
from i2vgen_ms.training.data.batch import Spec
from i2vgen_ms.training.data.listing import Item
from i2vgen_ms.weights import safetensors_files
from i2vgen_ms.weights.checkpoint import open_checkpoint

NAMES = ("mean", "logvar", "first")
Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stored:
    """Latents of clips: mean and logarithm of the variance `b f h w c`, and first frames, uint8 `b h w c`."""

    mean: Tensor
    logvar: Tensor
    first: Tensor

    def to(self, device: torch.device) -> Stored:
        return Stored(*(getattr(self, name).to(device, non_blocking=True) for name in NAMES))

    def pin_memory(self) -> Stored:
        return Stored(*(getattr(self, name).pin_memory() for name in NAMES))


class LatentCache:
    """The cache in one folder, for one autoencoder."""

    def __init__(self, folder: str | os.PathLike[str], autoencoder: str) -> None:
        self._folder, self._autoencoder = Path(folder), autoencoder

    def path(self, item: Item, spec: Spec) -> Path:
        """The file of a clip, which need not be there."""
        try:
            stat = os.stat(item.entry.path)
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = (0, 0)
        what = [os.path.abspath(item.entry.path), *state, item.entry.start, item.end, self._autoencoder]
        what += [spec.frames, spec.width, spec.height, spec.fps]
        return self._folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:40]}.safetensors"

    def load(self, items: Sequence[Item], spec: Spec) -> Stored | None:
        """The stored latents of the clips, or None if any is missing or damaged."""
        found = []
        for item in items:
            try:
                found.append([open_checkpoint(self.path(item, spec))[name].load() for name in NAMES])
            except (CheckpointError, KeyError):
                return None
        return Stored(*(torch.stack(column) for column in zip(*found, strict=True)))

    def store(self, item: Item, spec: Spec, pixels: Tensor, encode: Encode) -> None:
        """Encodes one clip, uint8 `f h w c`, and writes it; a file that is there already is left as it is.

        encode: uint8 `1 f h w c` to mean and logarithm of the variance, `1 f h w c`.
        Raises: OutputError when the folder cannot be written to.
        """
        path = self.path(item, spec)
        if path.exists():
            return
        mean, logvar = (moment[0].float().cpu() for moment in encode(pixels[None]))
        tensors = dict(zip(NAMES, (mean, logvar, pixels[0]), strict=True))
        unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            entries = [(name, tuple(t.shape), t.dtype, lambda t=t: t) for name, t in tensors.items()]
            safetensors_files.write(unfinished, entries, {"clip": item.entry.path})  # type: ignore[arg-type]
            os.replace(unfinished, path)
        except OSError as error:
            raise OutputError(f"data.cache: {path}: cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()
