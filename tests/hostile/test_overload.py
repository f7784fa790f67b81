"""More than a server can do, from clients that do not behave: it refuses at once, stays well, and loses nothing."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from i2vgen_ms import demo
from tests.hostile.serving import Answer, Running, fake, server

pytestmark = [pytest.mark.hostile, pytest.mark.group("K")]

CROWD = 100
FLAT_MIB = 150


@pytest.fixture(scope="module")
def busy(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The command itself with a real model, so that the processors are really at work."""
    place = tmp_path_factory.mktemp("serve")
    words = ("--first", folder, "--device", "cpu", "--port", 0, "--folder", place / "results")
    with server(place / "log", "-m", "i2vgen_ms", "serve", *words) as running:
        picture = demo.sample().path.read_bytes()
        running.until(running.post(picture).body["id"], "done")  # warm
        yield running
        assert running.end() == 0
        assert [path.name for path in (place / "results").iterdir()] == [".i2vgen-ms-service-lock"]
        assert "Traceback" not in (place / "log").read_text()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that several cases share."""
    place = tmp_path_factory.mktemp("plain")
    with fake(place / "log", place / "results", header_seconds=1.0) as running:
        yield running


@pytest.fixture
def faked(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`faked(pause=0.1, queue=2)`: a server whose jobs only take time."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(fake(tmp_path / "log", tmp_path / "results", **settings))


def crowd(running: Running, count: int, ask: Callable[[int], Answer]) -> list[Answer]:
    """What `count` clients get that ask at the same moment; every one gets something."""
    answers: list[Answer] = []
    start = threading.Barrier(count)

    def one(index: int) -> None:
        start.wait()
        answers.append(ask(index))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == count, f"{count - len(answers)} clients were lost or hang"
    return answers


@pytest.mark.bounds(seconds=240)
def test_a_hundred_at_once(busy: Running, capfd: pytest.CaptureFixture[str]) -> None:
    picture = demo.sample().path.read_bytes()
    lines, after = [], []
    for round_number in range(3):
        before = busy.memory()
        with busy.watched():
            answers = crowd(busy, CROWD, lambda index: busy.post(picture, steps=20, seed=index))
            taken = [answer for answer in answers if answer.status == 202]
            refused = [answer for answer in answers if answer.status == 503]
            done = [busy.until(answer.body["id"], "done", "failed") for answer in taken]
        after.append(busy.memory())
        slowest = max(answer.seconds for answer in answers)
        lines.append(
            f"round {round_number}: {CROWD} posts, {len(taken)} taken, {len(refused)} refused, slowest answer "
            f"{slowest:.2f} s; /health asked {busy.asked} times, slowest {busy.slowest:.3f} s; "
            f"resident {before:.0f} -> {after[-1]:.0f} MiB"
        )
        assert len(taken) + len(refused) == CROWD, Counter(answer.status for answer in answers)
        assert 8 <= len(taken) <= 8 + 4  # as many as there is room for, and those that were begun meanwhile
        assert all(1 <= int(answer.headers["retry-after"]) <= 600 for answer in refused)
        assert all(answer.body["error"]["type"] == "busy" for answer in refused)
        assert {status["state"] for status in done} == {"done"}
        assert {status["seed"] for status in done} <= set(range(CROWD))
        assert len({status["seed"] for status in done}) == len(done)
        assert slowest < 10
        assert busy.slowest < 1, lines
        assert not busy.failures
    with capfd.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201 - the numbers are what this is for
    assert after[-1] - after[0] < FLAT_MIB


@pytest.mark.bounds(seconds=120)
def test_a_hundred_large_bodies_take_no_memory(faked: Callable[..., Running]) -> None:
    running = faked(pause=0.05, queue=2)
    keys = [running.post(steps=100).body["id"] for _ in range(3)]
    before = running.memory()
    large = json.dumps({"data": "A" * (16 << 20)}).encode()
    with running.watched():
        answers = crowd(
            running, 30, lambda _: running.ask("POST", "/v1/jobs", large, {"Content-Type": "application/json"})
        )
    assert Counter(answer.status for answer in answers) == {503: 30}
    assert running.memory("VmHWM") - before < FLAT_MIB
    assert running.slowest < 1
    for key in keys:
        running.ask("DELETE", f"/v1/jobs/{key}")


def test_bodies_that_come_in_at_once_are_bounded(faked: Callable[..., Running]) -> None:
    running = faked(uploads=2)
    before = running.memory()
    large = json.dumps({"data": "A" * (16 << 20), "kind": "audio"}).encode()
    answers = crowd(running, 20, lambda _: running.ask("POST", "/v1/jobs", large, {"Content-Type": "application/json"}))
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {400, 503}
    assert statuses[400] >= 1
    assert running.memory("VmHWM") - before < 2 * 5 * 16 + FLAT_MIB


def value_of(size: int) -> bytes:
    return json.dumps({"data": "cGlj", "arguments": {"sampler": "x" * size}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[' + b"[]," * (14 << 20) + b"[]]}",
        b'{"data":{' + b",".join(b'"%d":1' % n for n in range(3 << 20)) + b"}}",
        b'{"' + b"x" * (42 << 20) + b'":1}',
        b'{"data":"cGlj","kind":"' + b"x" * (42 << 20) + b'"}',
        b'{"data":"cGlj","arguments":{"' + b"x" * (42 << 20) + b'":1}}',
        value_of(5 << 20),
    ],
    ids=["lists", "names", "name", "kind", "argument", "value"],
)
def test_one_body_takes_neither_time_nor_memory(faked: Callable[..., Running], body: bytes) -> None:
    running = faked()
    running.post()
    before = running.memory()
    with running.watched():
        answers = [running.ask("POST", "/v1/jobs", body, {"Content-Type": "application/json"}) for _ in range(2)]
    assert {answer.status for answer in answers} == {400}
    assert max(len(answer.body["error"]["message"]) for answer in answers) <= 1000
    assert max(answer.seconds for answer in answers) < 2
    assert running.memory("VmHWM") - before < 5 * 45 + FLAT_MIB
    assert running.slowest < 1
    assert not running.failures


def test_a_full_queue_answers_within_a_tenth_of_a_second(faked: Callable[..., Running]) -> None:
    running = faked(pause=0.05, queue=8)
    keys = [running.post(steps=100).body["id"] for _ in range(9)]
    assert running.until(keys[0], "running")
    answers = [running.post() for _ in range(20)]
    assert {answer.status for answer in answers} == {503}
    assert median(answer.seconds for answer in answers) < 0.1
    assert [running.ask("GET", f"/v1/jobs/{key}").body["waiting"] for key in keys] == [None, *range(8)]
    assert running.ask("DELETE", f"/v1/jobs/{keys[1]}").body["state"] == "cancelled"
    assert running.post().status == 202  # there is room again, at once


def raw(running: Running, head: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Sends a head and pieces over a plain socket; what comes back until the server closes, or its answer is whole."""
    received = b""
    with closing(socket.create_connection(("127.0.0.1", running.port), timeout=30)) as connection:
        connection.sendall(head.encode())
        try:
            for piece in pieces:
                time.sleep(pause)
                connection.sendall(piece)
        except ConnectionError:
            pass  # it has heard enough
        try:
            while piece := connection.recv(65536):
                received += piece
                start, _, body = received.partition(b"\r\n\r\n")
                length = [line for line in start.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                if length and len(body) >= int(length[0].split(b":")[1]):
                    break
        except ConnectionError:
            pass
    return received


HEAD = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_gigabyte_is_refused_before_it_is_read(faked: Callable[..., Running]) -> None:
    running = faked()
    before, begun = running.memory(), time.monotonic()
    announced = raw(running, f"{HEAD}Content-Length: {1 << 30}\r\n\r\n")
    assert announced.startswith(b"HTTP/1.1 413 ")
    assert b'"too_large"' in announced
    assert time.monotonic() - begun < 2
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with running.watched():
        streamed = raw(running, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 1024)
    # Who sends on without listening is cut off, and may then not see the answer.
    assert streamed == b"" or streamed.startswith(b"HTTP/1.1 413 ")
    assert running.slowest < 1
    assert running.memory("VmHWM") - before < FLAT_MIB
    assert running.until(running.post().body["id"], "done")


def test_clients_that_never_finish_are_let_go(faked: Callable[..., Running]) -> None:
    running = faked(header_seconds=1.0, upload_seconds=1.5, uploads=2)
    before = running.descriptors()
    begun = time.monotonic()
    assert raw(running, "GET /health HT", *[b"T"] * 30, pause=0.1) == b""  # a head, letter by letter
    assert time.monotonic() - begun < 5
    slow: list[bytes] = []
    head = f"{HEAD}Content-Length: 1000\r\n\r\n"
    threads = [
        threading.Thread(target=lambda: slow.append(raw(running, head, *[b" "] * 30, pause=0.1))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    refused = running.post()  # both places are taken by the slow ones
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    for thread in threads:
        thread.join()
    assert [answer.split(b" ")[1] for answer in slow] == [b"408", b"408"]
    assert running.until(running.post().body["id"], "done")
    end = time.monotonic() + 10
    while running.descriptors() > before:
        assert time.monotonic() < end, "connections stay open"
        time.sleep(0.1)


def test_two_hundred_silent_connections_stop_nobody(faked: Callable[..., Running]) -> None:
    running = faked(header_seconds=2.0)
    silent = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(200)]
    try:
        with running.watched():
            assert running.until(running.post().body["id"], "done")
            time.sleep(2.5)
        assert running.slowest < 1
        assert not running.failures
        for connection in silent:
            connection.settimeout(5)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""  # let go
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    "sent",
    [
        "\x00\x01\x02\x03\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /" + "x" * 100_000 + " HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n" + "".join(f"X-{n}: {'y' * 1000}\r\n" for n in range(200)) + "\r\n",
        f"{HEAD}Content-Length: -1\r\n\r\n",
        f"{HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        f"{HEAD}Content-Length: 99999999999999999999999999\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=["bytes", "version", "path", "headers", "negative", "two-lengths", "length", "chunk"],
)
def test_what_is_no_request(plain: Running, sent: str) -> None:
    answer = raw(plain, sent)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"413", b"404"), answer
    assert plain.ask("GET", "/health").status == 200
    assert "Traceback" not in plain.log.read_text()


def test_cancelling_under_load(faked: Callable[..., Running]) -> None:
    running = faked(pause=0.05)
    keys = [running.post(steps=100).body["id"] for _ in range(9)]
    running.until(keys[0], "running")
    begun = time.monotonic()
    answers = crowd(running, 36, lambda index: running.ask("DELETE", f"/v1/jobs/{keys[index % 9]}"))
    assert {answer.status for answer in answers} == {202}
    assert {running.until(key, "cancelled", "done")["state"] for key in keys} == {"cancelled"}
    assert time.monotonic() - begun < 5
    assert running.until(running.post().body["id"], "done")


def test_who_waits_too_long_is_told_and_who_runs_is_not_disturbed(faked: Callable[..., Running]) -> None:
    running = faked(pause=0.05, wait_seconds=1.0)
    first, waiting = (running.post(steps=60).body["id"] for _ in range(2))
    failed = running.until(waiting, "failed")
    assert failed["error"]["type"] == "wait"
    assert running.ask("GET", f"/v1/jobs/{waiting}/result").status == 410
    assert running.until(first, "done", "failed", "cancelled")["state"] == "done"


def test_a_worker_that_is_killed_is_replaced(faked: Callable[..., Running]) -> None:
    running = faked()
    killed = running.until(running.post(seed=666).body["id"], "failed")
    assert killed["error"] == {"type": "internal", "message": "the server could not do this; its log says why"}
    end = time.monotonic() + 5
    while running.ask("GET", "/health").status != 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert running.until(running.post().body["id"], "done")


def test_a_server_that_is_killed_leaves_nothing_to_the_next_one(faked: Callable[..., Running], tmp_path: Path) -> None:
    running = faked(pause=0.05)
    running.until(running.post(steps=1).body["id"], "done")
    running.until(running.post(steps=100).body["id"], "running")
    (left,) = (tmp_path / "results").glob("i2vgen-ms-service-*")
    assert len(list(left.glob("*.mp4"))) == 1
    begun = time.monotonic()
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(ConnectionError):
        running.ask("GET", "/health")
    assert time.monotonic() - begun < 5
    following = faked()
    assert not left.exists()
    assert following.until(following.post().body["id"], "done")


def test_disconnecting(faked: Callable[..., Running]) -> None:
    running = faked(pause=0.02, uploads=2)
    before = running.descriptors()
    for _ in range(10):  # in the midst of the body
        with closing(socket.create_connection(("127.0.0.1", running.port))) as connection:
            connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\n{{".encode())
    for _ in range(10):  # after it, without listening
        with closing(socket.create_connection(("127.0.0.1", running.port))) as connection:
            connection.sendall(b"GET /v1/jobs/none HTTP/1.1\r\nHost: localhost\r\n\r\n")
    end = time.monotonic() + 5
    while (sent := running.post(steps=10)).status == 503:  # until it is seen that they are gone
        assert time.monotonic() < end
    key = sent.body["id"]  # the job of a client that went away goes on
    assert running.until(key, "done")["result"]["bytes"] > 0
    for _ in range(10):  # in the midst of the result
        with closing(socket.create_connection(("127.0.0.1", running.port))) as connection:
            connection.sendall(f"GET /v1/jobs/{key}/result HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connection.recv(1)
    end = time.monotonic() + 10
    while running.descriptors() > before:
        assert time.monotonic() < end, "sockets or files stay open"
        time.sleep(0.1)
    assert "Traceback" not in running.log.read_text()


def test_ending_lets_the_running_job_end(faked: Callable[..., Running], tmp_path: Path) -> None:
    running = faked(pause=0.05, grace=20.0)
    key, waiting = (running.post(steps=40).body["id"] for _ in range(2))
    running.until(key, "running")
    running.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 5
    while (refused := running.post()).status != 503:
        assert time.monotonic() < end
    assert "the service is ending" in refused.body["error"]["message"]
    assert running.ask("GET", "/health").body["status"] == "ending"
    assert running.ask("GET", f"/v1/jobs/{waiting}").body["state"] == "cancelled"
    assert running.until(key, "done", "cancelled", "failed")["state"] == "done"
    assert running.ask("GET", f"/v1/jobs/{key}/result").status == 200
    assert running.process.wait(15) == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == [".i2vgen-ms-service-lock"]


@pytest.mark.parametrize("signals", [1, 2])
def test_ending_does_not_take_for_ever(faked: Callable[..., Running], tmp_path: Path, signals: int) -> None:
    running: Any = faked(pause=0.05, grace=1.0 if signals == 1 else 60.0)
    running.until(running.post(steps=100).body["id"], "running")
    begun = time.monotonic()
    for _ in range(signals):
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    assert running.process.wait(30) == 0
    assert time.monotonic() - begun < 20  # a busy machine takes its time to end a process of this size
    assert [path.name for path in (tmp_path / "results").iterdir()] == [".i2vgen-ms-service-lock"]
