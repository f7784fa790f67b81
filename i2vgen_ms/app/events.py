"""Events: what happens on the page. Every handler ends in words, whatever is raised.

Given a desk, the layout and the knobs. Videos are made by the service's workers; a handler only looks how they stand,
over and over, and so takes no thread while it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from i2vgen_ms.app import recipe, show
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.knobs import Knob, arguments
from i2vgen_ms.app.layout import MEMORY, Layout
from i2vgen_ms.app.sessions import Made
from i2vgen_ms.app.words import Words, chosen, words_of
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.service.failure import failure_of
from i2vgen_ms.service.job import Failure

logger = logging.getLogger("i2vgen_ms")
POLL = 0.2  # seconds between two looks at a job
SEEDS = 2**31  # as many as everything that carries them can hold
Changes = dict[Any, Any]


class Events:
    """The handlers, bound to the parts of a layout by `bind`."""

    def __init__(self, desk: Desk, layout: Layout, first: Sequence[Knob], second: Sequence[Knob] | None) -> None:
        self._desk, self._on = desk, layout
        self._first, self._second = first, second or ()

    def bind(self, page: gr.Blocks) -> None:
        """Says which handler follows what."""
        on = self._on
        at_once: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        first = [on.language, on.picture, on.seed, on.keep, *on.first.values(), on.memory]
        second = [on.language, on.text, on.seed, *on.second.values(), on.memory]
        working = [on.live, on.cancel, on.make, on.refine, on.seed, *self._result_parts()]
        begun = dict.fromkeys([on.browser, on.language, *on.spoken, on.text, *working])
        page.load(self._begin, [on.browser], list(begun), **at_once)
        page.unload(self._leave)
        on.language.input(self._speak, [on.language], on.spoken, **at_once)
        on.samples.select(self._choose, [], [on.picture, on.text], **at_once)
        on.dice.click(lambda: (secrets.randbelow(SEEDS), True), [], [on.seed, on.keep], **at_once)
        # In the browser: the button may be pressed before a server could answer.
        on.seed.input(None, [], [on.keep], js="() => true", **at_once)
        on.make.click(self._make, first, working, **at_once)
        on.refine.click(self._refine, second, working, **at_once)
        on.cancel.click(self._cancel, [], [on.cancel], **at_once)
        on.frame.release(self._compare, [on.frame], [on.compare], **at_once)
        on.gallery.select(self._look, [on.language], [on.live, *self._result_parts()], **at_once)

    def _result_parts(self) -> list[Any]:
        on = self._on
        shown = [on.video1, on.video2, on.stage2, on.compare, on.frame, on.download, on.again, on.command, on.script]
        return [*shown, on.gallery_group, on.gallery, on.settings]

    async def _begin(self, request: gr.Request, kept: Any) -> AsyncIterator[Changes]:
        """The page as it is new, then with what its browser's session has: videos, and one that is being made."""
        page, desk = str(request.session_hash), self._desk
        language = chosen(
            dict(request.query_params).get("lang"),
            dict(request.headers).get("accept-language"),
            self._on.words.language,
        )
        words = words_of(language)
        changes = self._on.texts(words)
        changes[self._on.language] = gr.update(value=language, label=words("language"))
        changes[self._on.seed] = gr.update(value=secrets.randbelow(SEEDS), label=words("seed"), info=words("seed.info"))
        yield changes | {self._on.live: show.idle(words), self._on.browser: desk.open(page, kept)}
        last, job = await asyncio.to_thread(desk.last, page), desk.running(page)
        if last is not None:
            text = {} if last.recipe.text is None else {self._on.text: last.recipe.text}
            yield text | await asyncio.to_thread(self._shown, words, page, last)
        if job is not None:
            async for changes in self._work(words, page, lambda: job):
                yield changes

    def _speak(self, language: str) -> Changes:
        return self._on.texts(words_of(language))

    def _choose(self, event: gr.SelectData) -> Changes:
        one = self._desk.samples[int(event.index)]
        return {self._on.picture: str(one.path), self._on.text: one.text}

    async def _make(
        self, request: gr.Request, language: str, picture: str | None, seed: float | None, keep: bool, *values: Any
    ) -> AsyncIterator[Changes]:
        words, page = words_of(language), str(request.session_hash)
        number = int(seed) if keep and seed is not None else secrets.randbelow(SEEDS)

        def submit() -> str:
            given = arguments(self._first, self._values(self._on.first, values))
            if picture is None:
                raise _NoPicture
            return self._desk.make(page, Path(picture).read_bytes(), Path(picture).name, number, given)

        async for changes in self._work(words, page, submit):
            yield {self._on.seed: number, **changes}

    async def _refine(
        self, request: gr.Request, language: str, text: str, seed: float | None, *values: Any
    ) -> AsyncIterator[Changes]:
        words, page = words_of(language), str(request.session_hash)
        number = secrets.randbelow(SEEDS) if seed is None else int(seed)

        def submit() -> str:
            given = arguments(self._second, self._values(self._on.second, values))
            return self._desk.refine(page, text or "", number, given)

        async for changes in self._work(words, page, submit):
            yield {self._on.seed: number, **changes}

    @staticmethod
    def _values(parts: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip((*parts, MEMORY), values, strict=True))

    async def _work(self, words: Words, page: str, submit: Callable[[], str]) -> AsyncIterator[Changes]:
        """What the page shows from the moment that something is asked for."""
        on, desk = self._on, self._desk
        try:
            job = await asyncio.to_thread(submit)
            yield {on.cancel: gr.update(visible=True, interactive=True), **self._busy(True)}
            number, picture, said = 0, "", ""
            while not (status := desk.service.status(job)).finished:
                look = status.preview
                if look is not None and look.number != number:
                    number, picture = look.number, await asyncio.to_thread(show.picture_of, look)
                now = show.working(words, status, look, picture)
                if now != said:
                    yield {on.live: now}
                    said = now
                await asyncio.sleep(POLL)
            made = await asyncio.to_thread(desk.finish, page, status)
            if made is not None:
                changes = await asyncio.to_thread(self._shown, words, page, made)
            elif status.failure is not None:
                changes = {on.live: show.failed(words, status.failure)}
            else:
                changes = {on.live: show.cancelled(words)}
        except Exception as error:
            changes = {on.live: show.failed(words, self._failure(error))}
        yield changes | {on.cancel: gr.update(visible=False)} | self._busy(False)

    def _busy(self, busy: bool) -> Changes:
        return {self._on.make: gr.update(interactive=not busy), self._on.refine: gr.update(interactive=not busy)}

    def _cancel(self, request: gr.Request) -> Any:
        self._desk.cancel(str(request.session_hash))
        return gr.update(interactive=False)

    def _leave(self, request: gr.Request) -> None:
        self._desk.leave(str(request.session_hash))

    def _look(self, language: str, event: gr.SelectData, request: gr.Request) -> Changes:
        words, page = words_of(language), str(request.session_hash)
        made = self._desk.show(page, int(event.index))
        return self._listed(words, page) if made is None else self._shown(words, page, made)

    def _compare(self, frame: float, request: gr.Request) -> Any:
        shown = self._desk.seat(str(request.session_hash)).shown
        pair = None if shown is None else _pair(shown, int(frame) - 1)
        return gr.update() if pair is None else pair

    def _listed(self, words: Words, page: str) -> Changes:
        """The gallery as it is now; what is too old is not in it any more."""
        made = self._desk.listed(page)
        items = [(_thumbnail(each), self._caption(words, each)) for each in made]
        on = self._on
        return {
            on.gallery_group: gr.update(visible=bool(items)),
            on.gallery: gr.update(value=items, selected_index=None),
        }

    def _shown(self, words: Words, page: str, made: Made) -> Changes:
        """A video with all that belongs to it."""
        on = self._on
        one, two = (made, None) if made.base is None else (made.base, made)
        pair = _pair(made, made.frames // 2)
        return self._listed(words, page) | {
            on.live: show.done(words, made),
            on.video1: gr.update(value=str(one.path) if one.path.is_file() else None, visible=True),
            on.video2: gr.update(value=None if two is None else str(two.path), visible=two is not None),
            on.stage2: gr.update(visible=self._desk.second is not None),
            on.compare: gr.update(value=pair, visible=pair is not None),
            on.frame: gr.update(value=made.frames // 2 + 1, maximum=max(2, made.frames), visible=pair is not None),
            on.download: gr.update(value=str(made.path), visible=True),
            on.again: gr.update(visible=True),
            on.command: recipe.command(made.recipe),
            on.script: recipe.script(made.recipe),
            on.settings: show.settings(words, made),
        }

    @staticmethod
    def _caption(words: Words, made: Made) -> str:
        return words("caption.first" if made.base is None else "caption.second", seed=made.recipe.seed)

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, _NoPicture):
            return Failure("no_picture", "")
        failure = failure_of(error, [self._desk.folder, *self._desk.service.models.folders()])
        if failure.type == "internal":
            logger.error("the page could not do what it was asked for", exc_info=error)
        return failure


class _NoPicture(Exception):
    """The button was pressed too early."""


def _pair(made: Made, place: int) -> tuple[Image.Image, Image.Image] | None:
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
