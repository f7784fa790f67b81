"""Sessions: which browser has which videos, and which page of it looks at which.

A session has a key that cannot be guessed, which the browser keeps; so a page that is loaded again finds its videos.
Given keys and names of pages; it knows neither files nor services. Whoever holds the desk's lock may call.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from i2vgen_ms.app.recipe import Recipe
from i2vgen_ms.app.words import Words
from i2vgen_ms.service.job import Failure

PAGES = 512  # that are remembered; those that are open always
SEATS = 16  # of one session


@dataclass(frozen=True, kw_only=True)
class Made:
    """A video: its file, how it was made, how many frames it has; `base`: the first stage's video that it refines;
    `warnings`: what its maker was warned about; `ended`: when it was done, by time.monotonic."""

    key: str
    path: Path
    recipe: Recipe
    frames: int
    width: int
    height: int
    seconds: float
    ended: float
    base: Made | None = None
    warnings: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Running:
    """What is being made: the job, and what the video will have been made from."""

    key: str
    recipe: Recipe
    base: Made | None


@dataclass
class Seat:
    """One page: the video that it looks at, those that its gallery lists, the language that it speaks, and what its
    card says in the words that it is given."""

    shown: Made | None = None
    listed: list[Made] = field(default_factory=list)
    language: str | None = None
    said: Callable[[Words], str] | None = None


@dataclass(eq=False)
class Session:
    """What one browser has: its videos, the oldest first, what is being made, and its pages, by their names.

    `open`: the pages that are. `left`: since when none is. `taking`: held while a finished job is taken in.
    """

    key: str
    touched: float
    made: list[Made] = field(default_factory=list)
    running: Running | None = None
    seats: dict[str, Seat] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    left: float | None = None
    taking: threading.Lock = field(default_factory=threading.Lock)

    def seat(self, page: str) -> Seat:
        """The seat of a page, which is open."""
        self.open.add(page)
        self.left = None
        seat = self.seats.setdefault(page, Seat())
        while len(self.seats) > SEATS:
            oldest = next(iter(self.seats))
            self.open.discard(oldest)
            del self.seats[oldest]
        return seat


class Sessions:
    """All sessions, those that were touched longest ago first."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._pages: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def open(self, page: str, key: object, now: float) -> Session:
        """A page begins: in the session of the key that its browser kept, or in a new one if there is none (any more).

        A key that was not given out by us is never taken over.
        """
        known = key if isinstance(key, str) and key in self._sessions else secrets.token_urlsafe(18)
        self._pages[page] = known
        return self.of(page, now)

    def of(self, page: str, now: float) -> Session:
        """The session of a page; a new one, under the same key, where it is forgotten."""
        key = self._pages.setdefault(page, secrets.token_urlsafe(18))
        self._pages.move_to_end(page)
        session = self._sessions.setdefault(key, Session(key, now))
        if len(self._pages) > PAGES:
            closed = (one for one, other in self._pages.items() if one != page and not self._is_open(one, other))
            self._pages.pop(next(closed, ""), None)
        self._sessions.move_to_end(key)
        session.touched = now
        return session

    def seat(self, page: str) -> Seat | None:
        """The seat of a page that is open; it is not touched by being asked for."""
        session = self._sessions.get(self._pages.get(page, ""))
        return None if session is None else session.seats.get(page)

    def leave(self, page: str, now: float) -> None:
        """A page was closed, or is being loaded again."""
        session = self._sessions.get(self._pages.get(page, ""))
        if session is not None and page in session.open:
            session.open.discard(page)
            session.seats.pop(page, None)
            if not session.open:
                session.left = now

    def least(self, spared: Callable[[Session], bool]) -> Session | None:
        """Who loses least by being forgotten, of those that are not spared: one without a video; else one without an
        open page; of several the one that was touched longest ago."""
        found = (session for session in self if not spared(session))
        return min(found, key=lambda one: (bool(one.made or one.running), bool(one.open)), default=None)

    def _is_open(self, page: str, key: str) -> bool:
        session = self._sessions.get(key)
        return session is not None and page in session.open

    def forget(self, session: Session) -> None:
        """Drops a session."""
        self._sessions.pop(session.key, None)
