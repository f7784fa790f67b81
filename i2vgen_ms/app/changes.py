"""Changes: what the parts of the page become when there is a video, a list of them, or something to say.

Given a desk and a layout. It does not know what happened before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from i2vgen_ms.app import recipe, show
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.layout import Layout
from i2vgen_ms.app.sessions import Made
from i2vgen_ms.app.words import LANGUAGES, Words, words_of
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.service.failure import failure_of
from i2vgen_ms.service.job import Failure

logger = logging.getLogger("i2vgen_ms")


class NoPicture(Exception):
    """The button was pressed without a picture, or with one that is not here any more."""


class Changes:
    """What parts of `layout` become, as gradio takes it: a value for each part that changes."""

    def __init__(self, desk: Desk, layout: Layout) -> None:
        self._desk, self._on = desk, layout

    def words(self, page: str, language: str | None = None) -> Words:
        """The words of a page, which speaks `language` from now on if there is such a one."""
        seat = self._desk.known(page) if language is None else self._desk.seat(page)
        if language in LANGUAGES:
            seat.language = language
        return words_of(seat.language or self._on.words.language)

    def parts(self) -> list[Any]:
        """All that `video`, `listed` and `said` change."""
        on = self._on
        shown = [on.video1, on.video2, on.stage2, on.compare, on.frame, on.download, on.again, on.command, on.script]
        return [on.live, on.preview, *shown, on.gallery_group, on.gallery, on.settings]

    def said(self, page: str, say: Callable[[Words], str]) -> dict[Any, Any]:
        """The card says something, in whatever language the page speaks from now on; there is no preview any more."""
        return {self._on.live: self.saying(page, say), self._on.preview: gr.update(value="", visible=False)}

    def saying(self, page: str, say: Callable[[Words], str]) -> str:
        """What the card says."""
        self._desk.known(page).said = say
        return say(self.words(page))

    def failed(self, page: str, error: Exception) -> dict[Any, Any]:
        """The card says what went wrong."""
        failure = self._failure(error)
        return self.said(page, lambda words: show.failed(words, failure))

    def spoken(self, page: str) -> dict[Any, Any]:
        """Everything that is seen, in the language of the page."""
        words, seat = self.words(page), self._desk.known(page)
        changes = self._on.texts(words) | {self._on.live: (seat.said or show.idle)(words)}
        if seat.shown is not None:
            changes |= {self._on.settings: show.settings(words, seat.shown)}
        return changes | (self.listed(page) if seat.listed else {})

    def listed(self, page: str) -> dict[Any, Any]:
        """The gallery as it is now; what is too old is not in it any more."""
        words = self.words(page)
        items = [(_thumbnail(each), _caption(words, each)) for each in self._desk.listed(page)]
        return {
            self._on.gallery_group: gr.update(visible=bool(items)),
            self._on.gallery: gr.update(value=items, selected_index=None),
        }

    def video(self, page: str, made: Made) -> dict[Any, Any]:
        """A video with all that belongs to it."""
        on = self._on
        one, two = (made, None) if made.base is None else (made.base, made)
        pair = pair_of(made, made.frames // 2)
        changes = self.said(page, lambda words: show.done(words, made)) | self.listed(page)
        return changes | {
            on.video1: gr.update(value=str(one.path) if one.path.is_file() else None, visible=True),
            on.video2: gr.update(value=None if two is None else str(two.path), visible=two is not None),
            on.stage2: gr.update(visible=self._desk.second is not None),
            on.compare: gr.update(value=pair, visible=pair is not None),
            on.frame: gr.update(value=made.frames // 2 + 1, maximum=max(2, made.frames), visible=pair is not None),
            on.download: gr.update(value=str(made.path), visible=True),
            on.again: gr.update(visible=True),
            on.command: recipe.command(made.recipe),
            on.script: recipe.script(made.recipe),
            on.settings: show.settings(self.words(page), made),
        }

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, NoPicture):
            return Failure("no_picture", str(error))
        failure = failure_of(error, [self._desk.folder, *self._desk.service.models.folders()])
        if failure.type == "internal":
            logger.error("the page could not do what it was asked for", exc_info=error)
        return failure


def pair_of(made: Made, place: int) -> tuple[Image.Image, Image.Image] | None:
    """A frame of the first stage's video, enlarged, and the same one of the second's; None where there is only one."""
    if made.base is None:
        return None
    with contextlib.suppress(OSError):
        small, large = (_frame(one.path, place) for one in (made.base, made))
        return small.resize(large.size, Image.Resampling.BICUBIC), large
    return None


def _frame(path: Path, place: int) -> Image.Image:
    frames = read_clip(path, max_frames=max(1, place + 1)).frames
    return Image.fromarray(np.asarray(frames[-1]))


def _thumbnail(made: Made) -> Image.Image:
    image = _frame(made.path, made.frames // 2)
    image.thumbnail((320, 320))
    return image


def _caption(words: Words, made: Made) -> str:
    return words("caption.first" if made.base is None else "caption.second", seed=made.recipe.seed)
