"""Files as a source: clips cut out of videos at a wanted rate and size, and pictures; decoded by worker processes.

Given a list of files and what batches look like. A file that turns out to be damaged is reported with the batch and
another one stands in for it, always the same one, so that a run can be repeated.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2vgen_ms.errors import ConfigurationError, MediaError, UnreadableMediaError
from i2vgen_ms.media.fit import fit_clip
from i2vgen_ms.media.frames import to_pixels, to_uint8
from i2vgen_ms.media.picture import read_picture
from i2vgen_ms.training.data.batch import Batch, Plan, Spec, rates
from i2vgen_ms.training.data.buckets import Buckets, Size, nearest_size
from i2vgen_ms.training.data.cache import LatentCache, Stored
from i2vgen_ms.training.data.cut import cut
from i2vgen_ms.training.data.listing import LOCAL, Item, entries, look
from i2vgen_ms.training.randomness import derive

_MOST_DAMAGED = 16  # files in a row, after which the list is not worth more tries


@dataclass(frozen=True)
class Decoded:
    """A batch on the CPU: pixels uint8 `b f h w c`, or what was stored of the clips' latents."""

    pixels: Tensor | None
    stored: Stored | None
    captions: tuple[str, ...]
    spec: Spec
    skipped: tuple[tuple[str, str], ...]

    def pin_memory(self) -> Decoded:
        """What the loader calls, so that copies to the device need not wait."""
        return replace(
            self,
            pixels=None if self.pixels is None else self.pixels.pin_memory(),
            stored=None if self.stored is None else self.stored.pin_memory(),
        )


class FileSource:
    """Clips of files.

    Args:
        items: the files that can be read. sizes: (width, height) of batches. seed: of their order and of the cuts.
        workers: processes that decode. cache: of latents; with it the beginning of each clip is taken.
        at_random: whether a clip is cut from anywhere in its file; otherwise it is its beginning.
        role: what the files are for, in the words of errors.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        sizes: Sequence[Size],
        seed: int,
        workers: int,
        cache: LatentCache | None = None,
        at_random: bool = True,
        role: str = "",
    ) -> None:
        self.items, self.workers, self.cache = list(items), workers, cache
        self._role = role
        self._sizes, self._seed, self._at_random = list(sizes), seed, at_random and cache is None
        self._buckets: dict[tuple[int, int, bool], Buckets] = {}
        self._members: dict[tuple[int, int, Size], list[int]] = {}
        self._damaged: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process needs; batches are planned in the trainer's."""
        return {**vars(self), "_buckets": {}, "_members": {}}

    def plan(self, number: int, count: int, spec: Spec) -> Plan:
        """Raises: ConfigurationError when no file holds that many frames."""
        size, indices = self._bucket(spec).batch(number, count)
        return Plan(number, indices, replace(spec, width=size[0], height=size[1]))

    def expect(self, specs: Sequence[Spec]) -> None:
        """Raises: ConfigurationError when no file holds a clip of one of these kinds."""
        for spec in specs:
            self._bucket(spec)

    def prepare(self, plan: Plan) -> Decoded:
        if self.cache is not None:
            stored = self.cache.load([self.items[index] for index in plan.indices], plan.spec)
            if stored is not None:
                return Decoded(None, stored, self._captions(plan.indices), plan.spec, ())
        clips, used, skipped = [], [], []
        for place, index in enumerate(plan.indices):
            pixels, taken, lost = self._readable(index, plan, place)
            clips.append(torch.from_numpy(pixels))
            used.append(taken)
            skipped += lost
        return Decoded(torch.stack(clips), None, self._captions(used), plan.spec, tuple(skipped))

    def finish(self, prepared: Decoded, device: torch.device) -> Batch:
        batch = partial(
            Batch,
            captions=prepared.captions,
            fps=rates(prepared.spec, len(prepared.captions), device),
            still=prepared.spec.still,
            skipped=prepared.skipped,
        )
        if prepared.stored is not None:
            stored = prepared.stored.to(device)
            return batch(pixels=None, first=to_pixels(stored.first), moments=(stored.mean, stored.logvar))
        assert prepared.pixels is not None
        pixels = to_pixels(prepared.pixels.to(device, non_blocking=True))
        return batch(pixels=pixels, first=pixels[:, 0])

    def pixels(self, index: int, spec: Spec, start: float | None = None) -> np.ndarray:
        """One clip, uint8 `f h w c`, from `start` seconds of its file on (None: the beginning of its part).

        Raises: MediaError for a file that is damaged or not there.
        """
        item = self.items[index]
        if not item.is_video:
            frames = read_picture(item.entry.path, limits=LOCAL)[None]
        else:
            frames = cut(item, spec, item.entry.start if start is None else start)
        return to_uint8(fit_clip(frames, "crop", width=spec.width, height=spec.height)[0])

    def specs(self, spec: Spec) -> list[tuple[int, Spec]]:
        """Every file that holds such a clip, with the size of its batch."""
        return [(index, replace(spec, width=size[0], height=size[1])) for index, size in self._places(spec).items()]

    def _captions(self, indices: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.items[index].entry.caption for index in indices)

    def _readable(self, index: int, plan: Plan, place: int) -> tuple[np.ndarray, int, list[tuple[str, str]]]:
        """A clip, its number, and the damaged files that it stands in for."""
        skipped: list[tuple[str, str]] = []
        for candidate in self._stand_ins(index, plan.spec):
            if candidate not in self._damaged:
                try:
                    return self.pixels(candidate, plan.spec, self._start(candidate, plan, place)), candidate, skipped
                except MediaError as error:
                    self._damaged[candidate] = str(error)
                    skipped.append((self.items[candidate].entry.path, str(error)))
        tried = list(self._stand_ins(index, plan.spec))
        raise UnreadableMediaError(
            f"{len(tried)} files in a row cannot be read, the last of them "
            f"{self.items[tried[-1]].entry.path!r}: {self._damaged[tried[-1]]}"
        )

    def _stand_ins(self, index: int, spec: Spec) -> Iterator[int]:
        """The file itself, and those after it in batches of its size; all files are gone through only for these."""
        yield index
        key = (spec.frames, spec.fps, (spec.width, spec.height))
        if key not in self._members:
            self._members[key] = [other for other, size in self._places(spec).items() if size == key[2]]
        members = self._members[key]
        begin = members.index(index)
        for step in range(1, min(_MOST_DAMAGED, len(members))):
            yield members[(begin + step) % len(members)]

    def _start(self, index: int, plan: Plan, place: int) -> float:
        item = self.items[index]
        spare = item.end - item.entry.start - (plan.spec.frames - 1) / plan.spec.fps
        if not self._at_random or spare <= 0:
            return item.entry.start
        return item.entry.start + spare * random.Random(derive(self._seed, "cut", plan.number, place)).random()

    def _places(self, spec: Spec) -> dict[int, Size]:
        """The size of the batches of every file that holds such a clip; pictures hold single frames."""
        return {
            index: nearest_size(item.width, item.height, self._sizes)
            for index, item in enumerate(self.items)
            if item.holds(spec.frames, spec.fps)
        }

    def _bucket(self, spec: Spec) -> Buckets:
        key = (spec.frames, spec.fps, spec.still)
        if key not in self._buckets:
            places = self._places(spec)
            if not places:
                what = "picture or video" if spec.still else f"video of {spec.frames} frames at {spec.fps} a second"
                raise ConfigurationError(
                    f"data: none of the {len(self.items)} files{self._role} is a {what}; ask for fewer frames (clips), "
                    "or let another number of files be held out (data.held_out)"
                )
            self._buckets[key] = Buckets(places, self._seed)
        return self._buckets[key]


def open_files(
    path: Path,
    *,
    sizes: Sequence[Size],
    seed: int,
    workers: int,
    held_out: int,
    cache: LatentCache | None = None,
) -> tuple[FileSource, FileSource, list[tuple[str, str]]]:
    """The files to train on, those kept for validation, and (path, reason) of those that cannot be read.

    held_out: how many are kept, with all parts of them, videos before pictures; they are chosen by a hash of their
        names, so that a longer list keeps most of them.
    Raises: ConfigurationError when nothing is left to train on.
    """
    items, skipped = look(entries(path))
    files: dict[str, list[Item]] = {}  # a list may hold several parts of one video
    for item in items:
        files.setdefault(os.path.abspath(item.entry.path), []).append(item)
    order = sorted(files, key=lambda file: (not files[file][0].is_video, derive(0, Path(file).name)))
    kept, trained = ([item for file in some for item in files[file]] for some in (order[:held_out], order[held_out:]))
    if not trained:
        reasons = f", {len(skipped)} of them unreadable ({skipped[0][1]})" if skipped else ""
        raise ConfigurationError(
            f"data: {path}: {len(items) + len(skipped)} files{reasons}, and {held_out} held out leave none to train on"
        )
    make = partial(FileSource, sizes=sizes, seed=seed, workers=workers)
    validated = make(kept or trained, at_random=False, role=" held out" if kept else "")
    return make(trained, cache=cache, role=" to train on" if kept else ""), validated, skipped
