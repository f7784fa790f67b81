"""L. A hub that is down, slow, wrong or hostile, and caches that are not what they seem."""

from __future__ import annotations

import _thread
import contextlib
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2vgen_ms import hub
from i2vgen_ms.errors import CorruptCheckpointError, HubError
from i2vgen_ms.hub import cache as hub_cache
from i2vgen_ms.hub import transfer
from i2vgen_ms.pipelines import load
from i2vgen_ms.weights import verified
from tests.hostile.helpers import tree
from tests.hostile.privileges import read_only
from tests.plugin.loopback_hub import LoopbackHub

pytestmark = [pytest.mark.hostile, pytest.mark.group("L")]

MODEL, REVISION = "damo/Image-to-Video", "v1.1.0"
ST_UNET = "small_random.pth"


class Hub(LoopbackHub):
    """A hub that misbehaves in one way."""

    misbehaviour = ""

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        is_file = "FilePath=" in request.path and request.command == "GET"
        if self.misbehaviour == "silent":
            time.sleep(0.8)
            request.close_connection = True
        elif self.misbehaviour == "loop":
            self._redirect(request, request.path)
        elif self.misbehaviour == "elsewhere" and is_file and "&again" not in request.path:
            self._redirect(request, request.path + "&again=1")
        elif self.misbehaviour == "slow" and is_file:
            self._endless(request, b"x", pause=0.2, count=25)
        elif self.misbehaviour == "endless" and is_file:
            self._endless(request, bytes(1 << 20), pause=0, count=300)
        elif self.misbehaviour == "huge list" and request.path.partition("?")[0].endswith("/repo/files"):
            files = [{"Path": f"f{n}", "Name": "f", "Type": "blob", "Size": 10**15, "Sha256": None} for n in range(9)]
            self._json(request, {"Code": 200, "Success": True, "Data": {"Files": files}}, body)
        else:
            super()._answer(request, body=body)

    def _redirect(self, request: BaseHTTPRequestHandler, to: str) -> None:
        self.log.append(f"redirect {request.path}")
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    @staticmethod
    def _endless(request: BaseHTTPRequestHandler, piece: bytes, *, pause: float, count: int) -> None:
        """An answer without a length that goes on and on."""
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        for _ in range(count):
            request.wfile.write(piece)
            time.sleep(pause)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and an empty memory of checked files; the client's pauses are short."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "models"))
    monkeypatch.setenv("I2VGEN_MS_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.0)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 2)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_MAX_DELAY_SECONDS", 0.1)
    return tmp_path


@pytest.fixture
def server(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub({(MODEL, REVISION): folder}) as running:
        for name, value in running.environment(place / "models").items():
            if name != "MODELSCOPE_HOME":
                monkeypatch.setenv(name, value)
        yield running


def complete(folder: Path, origin: Path) -> bool:
    """Whether both folders hold the same files, and nothing else."""
    names = {path.name for path in folder.iterdir()}
    return names == {path.name for path in origin.iterdir()} and all(
        (folder / name).read_bytes() == (origin / name).read_bytes() for name in names
    )


def refused(words: str) -> HubError:
    """The error of a download, which says `words`; nothing that looks complete is left."""
    with pytest.raises(HubError, match=words) as caught:
        hub.download(MODEL, REVISION)
    assert hub.find(MODEL, REVISION) is None
    assert MODEL in str(caught.value)
    return caught.value


def test_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
    start = time.monotonic()
    refused(r"cannot be reached \(Connection refused\).*check the network connection")
    assert time.monotonic() - start < 5
    assert tree(place) == set()


@pytest.mark.parametrize("name", ["damo/Nothing", MODEL])
def test_not_found(server: Hub, name: str) -> None:
    with pytest.raises(HubError, match=f"{name} at revision 'v9': the hub has no such model, revision or file"):
        hub.download(name, "v9")


def test_two_server_errors_pass(server: Hub, folder: Path) -> None:
    server.failures = 2
    assert complete(hub.download(MODEL, REVISION), folder)


def test_server_errors_without_end(server: Hub) -> None:
    server.failures = 10**6
    refused("it answers with HTTP 500")


def test_silence(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.2)
    server.misbehaviour = "silent"
    refused(r"cannot be reached \(no answer in time\)")


def test_a_body_that_ends_early_is_completed(server: Hub, folder: Path) -> None:
    server.cut_after = 2000
    assert complete(hub.download(MODEL, REVISION), folder)
    assert any("FilePath" in line for line in server.log)


@pytest.mark.parametrize("size", [17, 10**6])
def test_a_size_that_the_file_does_not_have(server: Hub, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    entry = Hub._entry
    monkeypatch.setattr(server, "_entry", lambda *given: {**entry(server, *given), "Size": size})
    refused("a file is not what the hub's list says.*nothing of it was kept.*ask the model's owner")
    assert not list(hub_cache.snapshot_folder(MODEL, REVISION).rglob("*.*"))


def test_a_sum_that_the_file_does_not_have(server: Hub) -> None:
    server.wrong_sum = True
    refused("a file is not what the hub's list says.*nothing of it was kept")
    assert not list(hub_cache.snapshot_folder(MODEL, REVISION).rglob("*.*"))


@pytest.mark.parametrize("name", ["../escaped", "../../../../escaped", "/tmp/escaped", "a/../../escaped", "a\\..\\b"])
def test_names_that_leave_the_folder(server: Hub, place: Path, name: str) -> None:
    server.extra_files = [{"Path": name, "Name": "x", "Type": "blob", "Size": 1, "Sha256": None}]
    before = tree(place)
    refused("which could leave the model's folder; refused")
    assert tree(place) == before


def test_a_list_of_impossible_size(server: Hub, place: Path) -> None:
    server.misbehaviour = "huge list"
    refused(r"needs 9000000\.00 GB more, and the disk of .* GB free; free some space or point MODELSCOPE_CACHE")


def test_a_redirect_is_followed(server: Hub, folder: Path) -> None:
    server.misbehaviour = "elsewhere"
    assert complete(hub.download(MODEL, REVISION), folder)
    assert any(line.startswith("redirect") for line in server.log)


def test_redirects_without_end(server: Hub) -> None:
    server.misbehaviour = "loop"
    refused("redirects")
    assert len(server.log) < 200


def test_slow(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_LOW_SPEED_WINDOW_SECONDS", 1)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    server.misbehaviour = "slow"
    refused("run it again, it goes on where it stopped")


def test_a_body_without_end(server: Hub, place: Path) -> None:
    server.misbehaviour = "endless"
    refused("a file is not what the hub's list says")
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) < 2**20


def _fetch(environment: dict[str, str], results: Any) -> None:
    os.environ.update(environment)
    results.put(str(hub.download(MODEL, REVISION)))


def test_two_processes(server: Hub, folder: Path, place: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    environment = {**server.environment(place / "models"), "I2VGEN_MS_CACHE": str(place / "ours")}
    processes = [context.Process(target=_fetch, args=(environment, results)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(50)
        assert process.exitcode == 0
        process.close()
    assert {results.get(), results.get()} == {str(hub_cache.snapshot_folder(MODEL, REVISION))}
    results.close()
    assert complete(hub_cache.snapshot_folder(MODEL, REVISION), folder)
    listed = json.loads((place / "ours/verified.json").read_text())["listed"]
    assert {Path(path).name for path in listed} == {path.name for path in folder.iterdir()}


def test_an_old_cache_of_another_revision_is_not_used(server: Hub, folder: Path, place: Path) -> None:
    old = place / "models/hub/models" / MODEL
    shutil.copytree(folder, old)
    (old / ".mv").write_text("Revision:v1.0.0,CreatedAt:1700000000")
    found = hub.resolve(MODEL, REVISION)
    assert found == hub_cache.snapshot_folder(MODEL, REVISION)
    assert complete(found, folder)


def test_an_old_cache_of_unknown_revision_is_used_without_a_hub_and_says_so(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, place / "models" / MODEL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
    with pytest.warns(hub.HubWarning, match="which may be another revision"):
        hub.resolve(MODEL, REVISION)


def test_files_of_another_revision_in_this_ones_place(server: Hub, folder: Path) -> None:
    found = hub.download(MODEL, REVISION)
    (found / ST_UNET).unlink()
    data = bytearray((folder / ST_UNET).read_bytes())
    data[-100] ^= 1  # in the archive's directory: the tensors and their checksums are whole
    (found / ST_UNET).write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match=r"but the hub listed .* download it again, or copy the model"):
        load(hub.resolve(MODEL, REVISION), device="cpu")
    hub.download(MODEL, REVISION)
    load(hub.resolve(MODEL, REVISION), device="cpu")


def test_a_sum_is_compared_once_a_file_and_then_remembered(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the next download nor the first load reads a file again to hash it."""
    found = hub.download(MODEL, REVISION)
    read: list[Any] = []
    server.log.clear()
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.sha256", _noting(read))
        patch.setattr(verified, "_digest", lambda checkpoint: read.append(checkpoint.path))
        hub.download(MODEL, REVISION)
        load(hub.resolve(MODEL, REVISION), device="cpu")
    assert read == []
    assert not [line for line in server.log if "FilePath=" in line]
    os.utime(found / ST_UNET)  # a file that was touched is hashed once more
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.sha256", _noting(read))
        hub.download(MODEL, REVISION)
    assert sum(read) == (folder / ST_UNET).stat().st_size


def _noting(read: list[Any]) -> Any:
    """hashlib.sha256, noting the lengths of what is more than a few lines."""
    original = hashlib.sha256

    def sha256(*given: Any, **named: Any) -> Any:
        digest = original(*given, **named)
        return SimpleNamespace(
            update=lambda data: (read.append(len(data)) if len(data) > 5000 else None, digest.update(data)),
            hexdigest=digest.hexdigest,
            digest=digest.digest,
        )

    return sha256


@pytest.mark.parametrize("how", ["variable", "argument"])
def test_offline(server: Hub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "variable":
        monkeypatch.setenv("I2VGEN_MS_OFFLINE", "1")
    start = time.monotonic()
    with pytest.raises(HubError, match=r"forbids to ask the hub.*In the cache"):
        hub.resolve(MODEL, REVISION, local_files_only=how == "argument")
    assert time.monotonic() - start < 2
    assert server.log == []


@pytest.mark.parametrize("how", ["read-only", "a file"])
def test_a_cache_that_cannot_be_written(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    target = place / "models"
    if how == "a file":
        target.write_text("in the way")
    else:
        target.mkdir()
    with read_only(target) if how == "read-only" else contextlib.nullcontext():
        refused(r"cannot be written \(.*point MODELSCOPE_CACHE to a folder that can be written")
    assert tree(place) <= {"models", "ours"}


def test_a_disk_that_is_seen_to_be_full(server: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    refused("GB free; free some space or point MODELSCOPE_CACHE")
    assert tree(place) == set()


def test_a_disk_that_becomes_full(server: Hub, folder: Path) -> None:
    """The system refuses to let files grow beyond a size, as a full disk would; afterwards the download goes on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        refused("File too large|cannot be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert complete(hub.download(MODEL, REVISION), folder)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_and_on_it_goes(server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second file is cut in the middle; what is here is kept, and nothing that is here is asked for again."""
    files = sorted((path for path in folder.iterdir()), key=lambda path: path.name != "configuration.json")
    taken = {"count": 0}
    send = Hub._send

    def interrupt(request: Any, status: int, content: bytes, body: bool, *rest: Any, **named: Any) -> None:
        if "FilePath=" in request.path and request.command == "GET":
            taken["count"] += 1
            if taken["count"] == 3:
                threading.Timer(0.05, _thread.interrupt_main).start()
                time.sleep(0.3)
        send(server, request, status, content, body, *rest, **named)

    monkeypatch.setattr(server, "_send", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hub.download(MODEL, REVISION)
    assert hub.find(MODEL, REVISION) is None
    server.log.clear()
    taken["count"] = 10
    assert complete(hub.download(MODEL, REVISION), folder)
    asked = [line for line in server.log if "FilePath=" in line]
    assert not any(files[0].name in line for line in asked), "what was complete is not asked for again"


def test_a_partial_file_is_completed_from_where_it_ends(server: Hub, folder: Path) -> None:
    found = hub_cache.snapshot_folder(MODEL, REVISION)
    found.mkdir(parents=True)
    whole = (folder / ST_UNET).read_bytes()
    (found / f"{ST_UNET}.incomplete").write_bytes(whole[: len(whole) // 2])
    sent: list[int] = []
    send = server._send

    def count(request: Any, status: int, content: bytes, *rest: Any, **named: Any) -> None:
        if ST_UNET in request.path:
            sent.append(len(content))
        send(request, status, content, *rest, **named)

    server._send = count  # type: ignore[method-assign]
    assert complete(hub.download(MODEL, REVISION), folder)
    assert sum(sent) <= len(whole) // 2 + 1


def test_a_partial_file_that_is_something_else(server: Hub, folder: Path) -> None:
    found = hub_cache.snapshot_folder(MODEL, REVISION)
    found.mkdir(parents=True)
    (found / f"{ST_UNET}.incomplete").write_bytes(b"something else" * 100)
    assert complete(hub.download(MODEL, REVISION), folder)
