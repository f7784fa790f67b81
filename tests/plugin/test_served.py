"""`modelscope server` with our pipelines: its own routes, called as its clients do; what strangers may not name."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.plugin.served import SERVER, check_served

ARGUMENTS = SimpleNamespace(model_id="damo/Image-to-Video", revision="v1.1.0", external_engine_for_llm=True)


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    """Pipelines that follow are not served."""
    yield
    for name in [name for name in sys.modules if name.startswith("modelscope.server")]:
        del sys.modules[name]


@pytest.fixture
def call(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`call(body)`: what ModelScope's server answers, with our pipeline as its start leaves it."""
    from modelscope.server.api_server import get_app
    from modelscope.utils.input_output import get_task_schemas

    if not hasattr(FastAPI, "add_event_handler"):  # starlette 1 dropped what ModelScope's start is hung on
        monkeypatch.setattr(FastAPI, "add_event_handler", lambda self, when, handler: None, raising=False)
    app = get_app(ARGUMENTS)
    app.state.pipeline = pipe
    app.state.pipeline_info = {"task_name": pipe.group_key, "schema": get_task_schemas(pipe.group_key)}
    assert SERVER in sys.modules

    def post(body: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.post("/call", json=body)

        return asyncio.run(send())

    return post


def test_a_picture_in_base64_becomes_a_video_in_base64(call: Any, picture: str) -> None:
    data = base64.b64encode(Path(picture).read_bytes()).decode()
    answer = call({"input": {"image": data}, "parameters": {"steps": 1, "seed": 4}})
    assert answer.status_code == 200
    assert answer.json()["seed"] == 4
    assert base64.b64decode(answer.json()["output_video"])[4:12] == b"ftypisom"


def test_nothing_of_the_machine_can_be_named(call: Any, picture: str, tmp_path: Path) -> None:
    data = base64.b64encode(Path(picture).read_bytes()).decode()
    target = tmp_path / "written.mp4"
    with pytest.raises(ArgumentError, match="output_video names a file, which is not taken over HTTP"):
        call({"input": {"image": data}, "parameters": {"output_video": str(target)}})
    assert not target.exists()
    for named in (picture, "http://127.0.0.1:9/x.png", "oss://bucket/x.png"):
        for source in ({"image": named}, named):
            with pytest.raises(ArgumentError, match="names of files and addresses are not taken over HTTP"):
                call({"input": source, "parameters": {"steps": 1}})


def test_clips_too_and_only_when_served(monkeypatch: pytest.MonkeyPatch) -> None:
    check_served({"video_path": "clip.mp4"}, {"output_video": "x.mp4"})
    monkeypatch.setitem(sys.modules, SERVER, SimpleNamespace())
    check_served({"video_path": b"bytes", "text": "a boat"}, {"steps": 1, "output_video": None})
    for source, call in (
        ({"video_path": "clip.mp4"}, {}),
        ([Path("clip.mp4")], {}),
        ({"video_path": b"bytes"}, {"keep_first": "x.mp4"}),
    ):
        with pytest.raises(ArgumentError, match="not taken over HTTP"):
            check_served(source, call)


def test_with_starlette_1_modelscopes_server_does_not_start_for_any_model() -> None:
    """docs/service.md says so; when this fails, ModelScope has mended it, and the docs may say that."""
    from modelscope.server.api_server import get_app

    if hasattr(FastAPI, "add_event_handler"):
        assert get_app(ARGUMENTS) is not None
    else:
        with pytest.raises(AttributeError, match="add_event_handler"):
            get_app(ARGUMENTS)
