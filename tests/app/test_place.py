"""Where the page's files are, and who may send how much there."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from i2vgen_ms.app import gate
from i2vgen_ms.app.gate import Gate
from i2vgen_ms.app.place import Cache, private_folder
from i2vgen_ms.errors import OutputError


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_each_user_has_a_folder_that_no_other_sees(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = private_folder()
    assert folder == temporary / f"i2vgen-ms-app-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert private_folder().stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (temporary / "i2vgen-ms-app-12345").mkdir()  # not by that one
    with pytest.raises(OutputError, match=r"i2vgen-ms-app-12345' is somebody else's; set TMPDIR"):
        private_folder()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_used(temporary: Path, kind: str) -> None:
    place, other = temporary / f"i2vgen-ms-app-{os.getuid()}", temporary / "other"
    other.mkdir(mode=0o755)
    place.touch() if kind == "file" else place.symlink_to(other)
    with pytest.raises(OutputError, match="set TMPDIR"):
        private_folder()
    assert other.stat().st_mode & 0o777 == 0o755


def test_the_cache_is_there_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "/elsewhere"):
        monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
        if before is not None:
            monkeypatch.setenv("GRADIO_TEMP_DIR", before)
        cache = Cache(tmp_path / str(before).strip("/"))
        assert os.environ["GRADIO_TEMP_DIR"] == str(cache.folder)
        (cache.folder / "a").mkdir()
        (cache.folder / "a" / "b").write_bytes(b"four")
        (cache.folder / "c").write_bytes(b"six...")
        assert cache.bytes == 10
        cache.close()
        assert os.environ.get("GRADIO_TEMP_DIR") == before


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`await ask('POST', path, content=...)` of an application behind the gate, which answers with what it got."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/elsewhere")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got = 0
        while True:
            message = await receive()
            got += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(got).encode()})

    guarded = Gate(app, Cache(tmp_path / "cache"), 100)

    async def send(method: str, path: str, **given: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as client:
            return await client.request(method, path, **given)

    return send


def test_what_is_sent_is_bounded(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*words: Any, **given: Any) -> tuple[int, str]:
        response = asyncio.run(ask(*words, **given))
        return response.status_code, response.text

    assert answer("POST", "/gradio_api/upload", content=b"x" * 100) == (200, "100")
    status, text = answer("POST", "/gradio_api/upload?upload_id=1", content=b"x" * 101)
    assert (status, text.partition(".")[0]) == (413, "This is too large")
    status, text = answer("POST", "/gradio_api/upload/", content=b"x" * 101, headers={"Accept-Language": "zh-CN"})
    assert (status, text.partition(".")[0]) == (413, "文件太大")
    monkeypatch.setattr(gate, "EVENT_BYTES", 10)
    assert answer("POST", "/gradio_api/queue/join", content=b"x" * 10) == (200, "10")
    assert answer("POST", "/gradio_api/queue/join", content=b"x" * 11)[0] == 413

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    assert answer("POST", "/gradio_api/upload", content=pieces())[0] == 411
    assert answer("GET", "/gradio_api/deep_link?session_hash=x")[0] == 404
    assert answer("POST", "/gradio_api/process_recording", content=b"x")[0] == 404


def test_uploads_wait_for_room(ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "CACHE_BYTES", 10)
    (tmp_path / "cache" / "file").write_bytes(b"x" * 11)
    full = asyncio.run(ask("POST", "/gradio_api/upload", content=b"x"))
    assert (full.status_code, full.headers["retry-after"]) == (503, "10")
    assert "Too much is being sent" in full.text
    (tmp_path / "cache" / "file").write_bytes(b"x" * 10)
    assert asyncio.run(ask("POST", "/gradio_api/upload", content=b"x")).status_code == 200


def test_uploads_at_one_moment_are_few_and_do_not_last(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "UPLOADS", 1)
    monkeypatch.setattr(gate, "UPLOAD_SECONDS", 0.3)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(5)

    async def both() -> list[int]:
        one = asyncio.create_task(ask("POST", "/gradio_api/upload", content=slow(), headers={"Content-Length": "9"}))
        await asyncio.sleep(0.1)
        second = await ask("POST", "/gradio_api/upload", content=b"x")
        first = await one
        third = await ask("POST", "/gradio_api/upload", content=b"x")
        return [answer.status_code for answer in (first, second, third)]

    assert asyncio.run(both()) == [408, 503, 200]
