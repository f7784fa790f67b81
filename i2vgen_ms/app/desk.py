"""Desk: who asked for what, what came of it, and the files of it, one session a browser.

Given a running service and how its models were loaded. Pages are known by a name, another
one at each loading. It does not know what a page looks like. Any thread may call.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from i2vgen_ms import demo
from i2vgen_ms.app.knobs import for_clip
from i2vgen_ms.app.place import private_folder
from i2vgen_ms.app.recipe import Origin, Recipe
from i2vgen_ms.app.sessions import Made, Running, Seat, Session, Sessions
from i2vgen_ms.errors import ArgumentError, BusyError, GoneError, UnknownJobError
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.service import Request, Service, Status
from i2vgen_ms.service.job import FIRST, SECOND
from i2vgen_ms.service.store import Store

SESSIONS = 64
KEEP = 12  # videos of one session
TICK = 1.0
LEFT_SECONDS = 10.0  # for a page to be loaded again, before what it waits for is cancelled


class Desk:
    """Sessions over a service.

    Args:
        service: does the work. first, second: where its models come from.
        folder: below which files are kept; None takes this user's own in the system's temporary one.
    Raises: OutputError where no files can be kept.
    """

    def __init__(self, service: Service, first: Origin, second: Origin | None, folder: Path | None = None) -> None:
        self.service, self.first, self.second = service, first, second
        self.show_folders = False  # those of models and adapters, in recipes
        self._store = Store(folder or private_folder())
        self.samples = []
        for one in demo.samples():
            path = self._store.path(one.path.name)
            shutil.copyfile(one.path, path)
            self.samples.append(replace(one, path=path))
        self._contents = {one.path.read_bytes(): one.name for one in self.samples}
        self._sessions = Sessions()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="i2vgen-ms desk", daemon=True)
        self._keeper.start()

    def _told(self, origin: Origin) -> Origin:
        return origin if self.show_folders else origin.without_folders()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._store.folder

    def open(self, page: str, key: object = None) -> str:
        """A page begins. `key`: what its browser kept of an earlier one; the key of its session, to be kept."""
        with self._lock:
            session = self._sessions.open(page, key, time.monotonic())
            session.seat(page)
            self._make_room(session)
            return session.key

    def session(self, page: str) -> Session:
        """The session of a page; a new one where there is none."""
        with self._lock:
            session = self._sessions.of(page, time.monotonic())
            self._make_room(session)
            return session

    def seat(self, page: str) -> Seat:
        """What a page looks at."""
        with self._lock:
            return self.session(page).seat(page)

    def known(self, page: str) -> Seat:
        """The same, if the page is still there; otherwise a seat that nobody keeps, for it must not be opened again."""
        with self._lock:
            return self._sessions.seat(page) or Seat()

    def running(self, page: str) -> str | None:
        """The job that is being done for the page's session, or waits, or has ended while no page was there."""
        running = self.session(page).running
        return None if running is None else running.key

    def last(self, page: str) -> Made | None:
        """The newest video of the session, which the page looks at from now on."""
        made = self.listed(page)
        self.seat(page).shown = made[-1] if made else None
        return self.seat(page).shown

    def listed(self, page: str) -> list[Made]:
        """The session's videos, as the page lists them from now on."""
        with self._lock:
            seat = self.seat(page)
            seat.listed = [made for made in self.session(page).made if made.path.is_file()]
            return list(seat.listed)

    def make(self, page: str, picture: bytes, name: str, seed: int, given: Mapping[str, Any]) -> str:
        """Asks for a video of a picture, and gives the job's id. Raises: BusyError, and as Service.submit."""
        recipe = Recipe(
            task=FIRST,
            origin=self._told(self.first),
            source=name,
            sample=self._contents.get(bytes(picture)),
            output=f"stage1-{seed}.mp4",
            seed=seed,
            arguments=dict(given),
        )
        request = Request(kind=FIRST, source=picture, seed=seed, preview=True, first=recipe.arguments)
        return self._submit(page, request, recipe, None)

    def refine(self, page: str, text: str, seed: int, given: Mapping[str, Any]) -> str:
        """Asks for the second stage's video of the one that is shown. Raises: as `make`; ArgumentError without one."""
        shown = self.seat(page).shown
        if shown is None or self.second is None:
            raise ArgumentError("there is no video to refine yet: make one from a picture first")
        base = shown.base or shown
        if not base.path.is_file():
            raise GoneError("the first stage's video was kept for a while, and is removed: make it again")
        recipe = Recipe(
            task=SECOND,
            origin=self._told(self.second),
            source=base.recipe.output,
            output=f"stage2-{seed}.mp4",
            seed=seed,
            text=text,
            arguments=for_clip(self.service.models.second, base.frames, given),
            before=base.recipe,
        )
        request = Request(
            kind=SECOND, source=base.path.read_bytes(), text=text, seed=seed, preview=True, second=recipe.arguments
        )
        return self._submit(page, request, recipe, base)

    def _submit(self, page: str, request: Request, recipe: Recipe, base: Made | None) -> str:
        with self._lock:
            session = self.session(page)
            if len(self._sessions) > SESSIONS:
                raise BusyError("there is no room for one more: everybody's videos are still being made; wait for one")
            if self._busy(session):
                raise BusyError("your video before this one is still being made; wait for it, or cancel it")
            session.seat(page)
            job = self.service.submit(request).id
            session.running = Running(job, recipe, base)
            return job

    def cancel(self, page: str) -> None:
        """Stops what the page's session asked for, if anything is being made."""
        self._stop(self.session(page))

    def finish(self, page: str, status: Status) -> Made | None:
        """Takes in a job of the page's session that has ended; the video, if there is one.

        Several pages may wait for one job: the first takes it in, and all look at it.
        """
        session = self.session(page)
        with session.taking:
            made = next((one for one in session.made if one.key == status.id), None) or self._take(session, status)
        if made is not None:
            self.known(page).shown = made
        return made

    def _take(self, session: Session, status: Status) -> Made | None:
        with self._lock:
            running = session.running
            if running is None or running.key != status.id:
                return None
            session.running = None
        if status.state != "done":
            return None
        folder = self._store.path(status.id)
        folder.mkdir()
        path = Path(shutil.copyfile(self.service.result(status.id), folder / running.recipe.output))
        self.service.cancel(status.id)  # it is finished: its own file is not needed any more
        info = read_clip(path, max_frames=None)
        made = Made(
            key=status.id,
            path=path,
            recipe=running.recipe,
            base=running.base,
            frames=info.count,
            width=info.width,
            height=info.height,
            seconds=status.seconds,
            ended=time.monotonic(),
            warnings=status.warnings,
        )
        with self._lock:
            session.made.append(made)
            for old in session.made[:-KEEP]:
                self._remove(session, old)
        return made

    def show(self, page: str, place: int) -> Made | None:
        """Looks at one of the videos that the page lists; None if it is not there any more."""
        with self._lock:
            seat = self.seat(page)
            made = seat.listed[place] if 0 <= place < len(seat.listed) else None
            seat.shown = made if made is not None and made.path.is_file() else None
            return seat.shown

    def leave(self, page: str) -> None:
        """The page was closed, or is being loaded again, when nobody else waits for what it asked for."""
        with self._lock:
            self._sessions.leave(page, time.monotonic())

    def close(self) -> None:
        """Removes all files."""
        self._over.set()
        self._keeper.join(5)
        self._store.close()

    def tidy(self, now: float) -> None:
        """Cancels what nobody waits for any more; removes old videos, and sessions that nobody has touched for
        long, has open, or waits in."""
        keep = self.service.settings.keep_seconds
        with self._lock:
            for session in self._sessions:
                if session.left is not None and now - session.left > LEFT_SECONDS and session.running is not None:
                    self._stop(session)
                    session.running = None
                for made in [made for made in session.made if now - made.ended > keep]:
                    self._remove(session, made)
                if now - session.touched > keep and not session.open and not self._busy(session):
                    self._forget(session)

    def _make_room(self, newest: Session) -> None:
        """Forgets sessions that are too many, but none whose video is being made: then there is one too many."""
        while len(self._sessions) > SESSIONS:
            least = self._sessions.least(lambda one: one is newest or self._busy(one))
            if least is None:
                return
            self._forget(least)

    def _busy(self, session: Session) -> bool:
        """Whether something is being made for it, or waits."""
        try:
            return session.running is not None and not self.service.status(session.running.key).finished
        except UnknownJobError:  # it ended long ago
            return False

    def _stop(self, session: Session) -> None:
        if session.running is not None:
            with contextlib.suppress(UnknownJobError):
                self.service.cancel(session.running.key)

    def _forget(self, session: Session) -> None:
        self._stop(session)
        for made in list(session.made):
            self._remove(session, made)
        self._sessions.forget(session)

    def _remove(self, session: Session, made: Made) -> None:
        session.made.remove(made)
        # A video that others refine is out of the list, but they are still compared with it.
        for one in (made, made.base):
            if one is not None and one not in session.made and all(other.base is not one for other in session.made):
                shutil.rmtree(one.path.parent, ignore_errors=True)

    def _keep(self) -> None:
        while not self._over.wait(TICK):
            self.tidy(time.monotonic())
