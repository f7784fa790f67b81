"""Desk: who asked for what, what came of it, and the files of it, one session a page that is open.

Given a running service and how its models were loaded. It does not know what a page looks like. Any thread may call.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from i2vgen_ms import demo
from i2vgen_ms.app.knobs import for_clip
from i2vgen_ms.app.recipe import FIRST, SECOND, Origin, Recipe
from i2vgen_ms.errors import ArgumentError, BusyError, GoneError
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.service import Request, Service, Status
from i2vgen_ms.service.job import Failure
from i2vgen_ms.service.store import Store

SESSIONS = 64
KEEP = 12  # videos of one session
TICK = 30.0


@dataclass(frozen=True, kw_only=True)
class Made:
    """A video: its file, how it was made, how many frames it has; `base`: the first stage's video that it refines;
    `warnings`: what its maker was warned about."""

    key: str
    path: Path
    recipe: Recipe
    frames: int
    width: int
    height: int
    seconds: float
    base: Made | None = None
    warnings: tuple[Failure, ...] = ()


@dataclass
class _Running:
    key: str
    recipe: Recipe
    base: Made | None


@dataclass
class Session:
    """What one open page has: its videos, the oldest first, the one that is looked at, and what is being made."""

    made: list[Made] = field(default_factory=list)
    shown: Made | None = None
    running: _Running | None = None
    touched: float = 0.0


class Desk:
    """Sessions over a service.

    Args:
        service: does the work. first, second: where its models come from.
        folder: below which files are kept; None takes a folder of the system's temporary one.
    """

    def __init__(self, service: Service, first: Origin, second: Origin | None, folder: Path | None = None) -> None:
        self.service, self.first, self.second = service, first, second
        root = folder or Path(tempfile.gettempdir()) / "i2vgen-ms-app"
        self._store = Store(root)
        self.samples = []
        for one in demo.samples():
            path = self._store.path(one.path.name)
            shutil.copyfile(one.path, path)
            self.samples.append(replace(one, path=path))
        self._contents = {one.path.read_bytes(): one.name for one in self.samples}
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="i2vgen-ms desk", daemon=True)
        self._keeper.start()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._store.folder

    def session(self, key: str) -> Session:
        """The session of a page; a new one where there is none."""
        with self._lock:
            if key not in self._sessions:
                while len(self._sessions) >= SESSIONS:
                    self._forget(next(iter(self._sessions)))
                self._sessions[key] = Session()
            self._sessions.move_to_end(key)
            self._sessions[key].touched = time.monotonic()
            return self._sessions[key]

    def make(self, key: str, picture: bytes, name: str, seed: int, given: Mapping[str, Any]) -> str:
        """Asks for a video of a picture, and gives the job's id. Raises: BusyError, and as Service.submit."""
        recipe = Recipe(
            task=FIRST,
            origin=self.first,
            source=name,
            sample=self._contents.get(bytes(picture)),
            output=f"stage1-{seed}.mp4",
            seed=seed,
            arguments=dict(given),
        )
        request = Request(kind=FIRST, source=picture, seed=seed, preview=True, first=recipe.arguments)
        return self._submit(key, request, recipe, None)

    def refine(self, key: str, text: str, seed: int, given: Mapping[str, Any]) -> str:
        """Asks for the second stage's video of the one that is shown. Raises: as `make`; ArgumentError without one."""
        shown = self.session(key).shown
        if shown is None or self.second is None:
            raise ArgumentError("there is no video to refine yet: make one from a picture first")
        base = shown.base or shown
        if not base.path.is_file():
            raise GoneError("the first stage's video was kept for a while, and is removed: make it again")
        recipe = Recipe(
            task=SECOND,
            origin=self.second,
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
        return self._submit(key, request, recipe, base)

    def _submit(self, key: str, request: Request, recipe: Recipe, base: Made | None) -> str:
        session = self.session(key)
        with self._lock:
            running = session.running
            if running is not None and not self.service.status(running.key).finished:
                raise BusyError("this page's video is still being made; wait for it, or cancel it")
            job = self.service.submit(request).id
            session.running = _Running(job, recipe, base)
            return job

    def cancel(self, key: str) -> None:
        """Stops what the page asked for, if anything is being made."""
        running = self.session(key).running
        if running is not None:
            self.service.cancel(running.key)

    def finish(self, key: str, status: Status) -> Made | None:
        """Takes in a job of the page that has ended; the video, if there is one."""
        session = self.session(key)
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
        size = {"frames": info.count, "width": info.width, "height": info.height}
        made = Made(
            key=status.id,
            path=path,
            recipe=running.recipe,
            base=running.base,
            seconds=status.seconds,
            **size,
            warnings=status.warnings,
        )
        with self._lock:
            session.made.append(made)
            session.shown = made
            for old in session.made[:-KEEP]:
                self._remove(session, old)
        return made

    def show(self, key: str, place: int) -> Made | None:
        """Looks at one of the page's videos again."""
        session = self.session(key)
        with self._lock:
            session.shown = session.made[place] if 0 <= place < len(session.made) else None
            return session.shown

    def leave(self, key: str) -> None:
        """The page was closed: nobody waits for what is being made. Its files go when they are old."""
        with self._lock:
            if key in self._sessions:
                self.cancel(key)

    def close(self) -> None:
        """Removes all files."""
        self._over.set()
        self._keeper.join(5)
        self._store.close()

    def tidy(self, now: float) -> None:
        """Forgets sessions that nobody has touched for as long as results are kept."""
        with self._lock:
            for key, session in list(self._sessions.items()):
                if now - session.touched > self.service.settings.keep_seconds:
                    self._forget(key)

    def _forget(self, key: str) -> None:
        session = self._sessions[key]
        if session.running is not None:
            self.service.cancel(session.running.key)
        for made in list(session.made):
            self._remove(session, made)
        del self._sessions[key]

    def _remove(self, session: Session, made: Made) -> None:
        session.made.remove(made)
        # A video that others refine is out of the list, but they are still compared with it.
        for one in (made, made.base):
            if one is not None and one not in session.made and all(other.base is not one for other in session.made):
                shutil.rmtree(one.path.parent, ignore_errors=True)

    def _keep(self) -> None:
        while not self._over.wait(TICK):
            self.tidy(time.monotonic())
