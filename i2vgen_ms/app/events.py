"""Events: what happens on the page. Every handler ends in words, whatever is raised.

Given a desk, the layout and the knobs. Videos are made by the service's workers; a handler only looks how they stand,
over and over, and so takes no thread while it waits.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from i2vgen_ms.app import show
from i2vgen_ms.app.changes import Changes, NoPicture, pair_of
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.knobs import Knob, arguments
from i2vgen_ms.app.layout import MEMORY, Layout
from i2vgen_ms.app.words import chosen
from i2vgen_ms.service import Status

POLL = 0.2  # seconds between two looks at a job
SEEDS = 2**31  # as many as everything that carries them can hold
Parts = dict[Any, Any]


def in_words(handler: Any) -> Any:
    """A handler of Events whose exceptions are said by the page's card, which is among what it changes."""

    def failed(self: Events, given: Sequence[Any], error: Exception) -> Parts:
        page = next(_page(one) for one in given if isinstance(one, gr.Request))
        return self.changes.failed(page, error)

    @functools.wraps(handler)
    def once(self: Events, *given: Any) -> Any:
        try:
            return handler(self, *given)
        except Exception as error:
            return failed(self, given, error)

    @functools.wraps(handler)
    async def over_and_over(self: Events, *given: Any) -> AsyncIterator[Parts]:
        try:
            async for parts in handler(self, *given):
                yield parts
        except Exception as error:
            yield failed(self, given, error)

    return over_and_over if inspect.isasyncgenfunction(handler) else once


def _page(request: gr.Request) -> str:
    return str(request.session_hash)


class Events:
    """The handlers, bound to the parts of a layout by `bind`."""

    def __init__(self, desk: Desk, layout: Layout, first: Sequence[Knob], second: Sequence[Knob] | None) -> None:
        self._desk, self._on = desk, layout
        self._first, self._second = first, second or ()
        self.changes = Changes(desk, layout)

    def bind(self, page: gr.Blocks) -> None:
        """Says which handler follows what."""
        on = self._on
        at_once: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        first = [on.language, on.picture, on.seed, on.keep, *on.first.values(), on.memory]
        second = [on.language, on.text, on.seed, *on.second.values(), on.memory]
        card = [on.live, on.preview]
        working = [on.cancel, on.make, on.refine, on.seed, on.picture, *self.changes.parts()]
        spoken = [*on.spoken, *card, on.gallery_group, on.gallery, on.settings]
        begun = dict.fromkeys([on.browser, on.language, *on.spoken, on.text, *working])
        page.load(self._begin, [on.browser], list(begun), **at_once)
        page.unload(self._leave)
        on.language.input(self._speak, [on.language], list(dict.fromkeys(spoken)), **at_once)
        on.samples.select(self._choose, [], [on.picture, on.text, *card], **at_once)
        on.dice.click(lambda: (secrets.randbelow(SEEDS), True), [], [on.seed, on.keep], **at_once)
        # In the browser: the button may be pressed before a server could answer.
        on.seed.input(None, [], [on.keep], js="() => true", **at_once)
        on.make.click(self._make, first, working, **at_once)
        on.refine.click(self._refine, second, working, **at_once)
        on.cancel.click(self._cancel, [], [on.cancel, *card], **at_once)
        on.frame.release(self._compare, [on.frame], [on.compare, *card], **at_once)
        on.gallery.select(self._look, [on.language], self.changes.parts(), **at_once)

    @in_words
    async def _begin(self, request: gr.Request, kept: Any) -> AsyncIterator[Parts]:
        """The page as it is new, then with what its browser's session has: videos, and one that is being made."""
        page, desk, on = _page(request), self._desk, self._on
        language = chosen(
            dict(request.query_params).get("lang"), dict(request.headers).get("accept-language"), on.words.language
        )
        key = desk.open(page, kept)
        words = self.changes.words(page, language)
        changes = on.texts(words)
        changes[on.language] = gr.update(value=language, label=words("language"))
        changes[on.seed] = gr.update(value=secrets.randbelow(SEEDS), label=words("seed"), info=words("seed.info"))
        yield changes | {on.browser: key} | self.changes.said(page, show.idle)
        last, job = await asyncio.to_thread(desk.last, page), desk.running(page)
        if last is not None:
            text = {} if last.recipe.text is None else {on.text: last.recipe.text}
            yield text | await asyncio.to_thread(self.changes.video, page, last)
        if job is not None:
            async for changes in self._work(page, lambda: job):
                yield changes

    @in_words
    def _speak(self, language: str, request: gr.Request) -> Parts:
        page = _page(request)
        self.changes.words(page, language)
        return self.changes.spoken(page)

    @in_words
    def _choose(self, event: gr.SelectData, request: gr.Request) -> Parts:
        one = self._desk.samples[int(event.index)]
        return {self._on.picture: str(one.path), self._on.text: one.text}

    @in_words
    async def _make(
        self, request: gr.Request, language: str, picture: str | None, seed: float | None, keep: bool, *values: Any
    ) -> AsyncIterator[Parts]:
        page = _page(request)
        self.changes.words(page, language)
        number = int(seed) if keep and seed is not None else secrets.randbelow(SEEDS)

        def submit() -> str:
            given = arguments(self._first, self._values(self._on.first, values))
            if picture is None:
                raise NoPicture
            try:
                content = Path(picture).read_bytes()
            except OSError:
                raise NoPicture("the picture was kept for a while, and is removed; choose it again") from None
            return self._desk.make(page, content, Path(picture).name, number, given)

        async for changes in self._work(page, submit):
            yield {self._on.seed: number, **changes}

    @in_words
    async def _refine(
        self, request: gr.Request, language: str, text: str, seed: float | None, *values: Any
    ) -> AsyncIterator[Parts]:
        page = _page(request)
        self.changes.words(page, language)
        number = secrets.randbelow(SEEDS) if seed is None else int(seed)

        def submit() -> str:
            given = arguments(self._second, self._values(self._on.second, values))
            return self._desk.refine(page, text or "", number, given)

        async for changes in self._work(page, submit):
            yield {self._on.seed: number, **changes}

    @staticmethod
    def _values(parts: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip((*parts, MEMORY), values, strict=True))

    async def _work(self, page: str, submit: Callable[[], str]) -> AsyncIterator[Parts]:
        """What the page shows from the moment that something is asked for."""
        on, desk = self._on, self._desk
        try:
            job = await asyncio.to_thread(submit)
            yield {on.cancel: gr.update(visible=True, interactive=True), **self._busy(True)}
            seen = ""
            drawn: tuple[int, str] | None = None
            while not (status := desk.service.status(job)).finished:
                changes: Parts = {}
                now = self.changes.saying(page, functools.partial(show.working, status=status))
                if now != seen:
                    changes[on.live] = seen = now
                # The preview is large: it is sent once.
                words, look = self.changes.words(page), status.preview
                looks = (0, words.language) if look is None else (look.number, "")
                if looks != drawn:
                    inside = show.waiting(words) if look is None else await asyncio.to_thread(show.picture_of, look)
                    changes[on.preview] = gr.update(value=show.preview(inside, looks[0]), visible=True)
                    drawn = looks
                if changes:
                    yield changes
                await asyncio.sleep(POLL)
            changes = await asyncio.to_thread(self._ended, page, status)
        except Exception as error:
            changes = self.changes.failed(page, error)
        yield changes | {on.cancel: gr.update(visible=False)} | self._busy(False)

    def _ended(self, page: str, status: Status) -> Parts:
        made, failure = self._desk.finish(page, status), status.failure
        if made is not None:
            return self.changes.video(page, made)
        if failure is None:
            return self.changes.said(page, show.cancelled)
        # What no browser can draw would stay there as a broken picture.
        spoilt = {self._on.picture: None} if failure.type == "unreadable_media" else {}
        return spoilt | self.changes.said(page, lambda words: show.failed(words, failure))

    def _busy(self, busy: bool) -> Parts:
        return {self._on.make: gr.update(interactive=not busy), self._on.refine: gr.update(interactive=not busy)}

    @in_words
    def _cancel(self, request: gr.Request) -> Parts:
        self._desk.cancel(_page(request))
        return {self._on.cancel: gr.update(interactive=False)}

    def _leave(self, request: gr.Request) -> None:
        self._desk.leave(_page(request))

    @in_words
    def _look(self, language: str, event: gr.SelectData, request: gr.Request) -> Parts:
        page = _page(request)
        made = self._desk.show(page, int(event.index))
        self.changes.words(page, language)
        return self.changes.listed(page) if made is None else self.changes.video(page, made)

    @in_words
    def _compare(self, frame: float, request: gr.Request) -> Parts:
        shown = self._desk.seat(_page(request)).shown
        pair = None if shown is None else pair_of(shown, int(frame) - 1)
        return {} if pair is None else {self._on.compare: pair}
