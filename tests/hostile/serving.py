"""A server in a process of its own, and what is asked of it: real sockets, one connection a request.

`python -m tests.hostile.serving '{...}'` serves stages that do nothing but take their time; a JSON object says how.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FAKE = ("-m", "tests.hostile.serving")
PATIENCE = 90  # seconds for what takes one, on a machine that does much else


@dataclass(slots=True)
class Answer:
    """Status, headers in lower case, the JSON of the body (or its bytes), and how long it took to come."""

    status: int
    headers: dict[str, str]
    body: Any
    seconds: float


@dataclass(slots=True)
class Running:
    """A server that runs: its process and its port."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    slowest: float = 0.0  # of what `watched` asked
    asked: int = 0
    failures: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request over a connection of its own; a dict becomes JSON."""
        given = dict(headers or {})
        if isinstance(body, dict):
            body, given["Content-Type"] = json.dumps(body).encode(), "application/json"
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            response = connection.getresponse()
            content = response.read()
            kind = response.headers.get("content-type", "")
            parsed = json.loads(content) if kind == "application/json" else content
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, parsed, time.monotonic() - begun)

    def post(self, data: bytes = b"picture", **values: Any) -> Answer:
        """Submits a job; `steps` is put where it belongs."""
        steps = values.pop("steps", 2)
        return self.ask("POST", "/v1/jobs", {"data": b64encode(data).decode(), "arguments": {"steps": steps}, **values})

    def until(self, key: str, *states: str) -> dict[str, Any]:
        """The status, as soon as the job is in one of the states."""
        end = time.monotonic() + PATIENCE
        while (status := self.ask("GET", f"/v1/jobs/{key}").body)["state"] not in states:
            assert time.monotonic() < end, status
            time.sleep(0.02)
        found: dict[str, Any] = status
        return found

    def memory(self, name: str = "VmRSS") -> float:
        """MiB of resident memory (VmHWM: the most there ever were)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1024

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Asks for /health all the time meanwhile: `slowest` is the longest that an answer took."""
        over = threading.Event()
        self.slowest, self.asked = 0.0, 0

        def watch() -> None:
            while not over.is_set():
                try:
                    answer = self.ask("GET", "/health")
                    self.slowest, self.asked = max(self.slowest, answer.seconds), self.asked + 1
                    if answer.status != 200:
                        self.failures.append(f"health: {answer.status} {answer.body}")
                except OSError as error:
                    self.failures.append(f"health: {error!r}")
                over.wait(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def end(self, sign: int = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; the exit status."""
        self.process.send_signal(sign)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def server(log: Path, *words: object, environment: dict[str, str] | None = None) -> Iterator[Running]:
    """Runs Python with these words, which print the address first; whatever happens, the process is gone afterwards."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *(str(word) for word in words)],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), log.read_text()
        running = Running(process, int(address.rpartition(":")[2]), log)
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(ConnectionError):
                running.ask("GET", "/health")
                break
            assert time.monotonic() < end
            time.sleep(0.05)
        yield running
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def fake(log: Path, folder: Path, **settings: Any) -> Any:
    """A server over stages that only take time: `pause` seconds a step; see `main`."""
    return server(log, *FAKE, json.dumps({"folder": str(folder), **settings}))


def main(words: str) -> None:
    """Serves as the object says: pause, grace, and what ServiceSettings and HttpSettings have."""
    from i2vgen_ms.serve import server as serving
    from i2vgen_ms.serve.settings import HttpSettings
    from i2vgen_ms.service import Models, Service, ServiceSettings
    from i2vgen_ms.service.listening import bind
    from tests.service.stages import FakeStage

    given = json.loads(words)
    stage = FakeStage(pause=given.pop("pause", 0.0))

    class Fragile(FakeStage):
        """Ends its thread when the seed says so."""

        def __call__(self, source: Any, *, seed: int | None = None, **other: Any) -> Any:
            if seed == 666:
                raise SystemExit("told to end")
            return super().__call__(source, seed=seed, **other)

    stage.__class__ = Fragile
    grace = given.pop("grace", 5.0)
    web = {name: given.pop(name) for name in ("uploads", "upload_seconds", "header_seconds") if name in given}
    bound = bind("127.0.0.1", 0)
    service = Service([Models(first=stage)], ServiceSettings(**given))
    print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)  # noqa: T201 - what `server` reads
    serving.run(service, bound, HttpSettings(**web), grace=grace)


if __name__ == "__main__":
    main(sys.argv[1])
