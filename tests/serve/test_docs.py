"""docs/service.md: its examples are run against a server on a socket, its tables are compared with the code."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from i2vgen_ms import demo, pipelines
from i2vgen_ms.cli import serve
from i2vgen_ms.serve import server
from i2vgen_ms.service import Models, RequestLimits, Service, ServiceSettings
from i2vgen_ms.service.listening import bind
from tests.serve.conftest import Client
from tests.service.stages import VIDEO, FakeStage

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def address(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real server in a thread, in a folder with a picture; `animate` is done by the first stage alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.sample().path, tmp_path / "picture.jpg")
    monkeypatch.setattr("i2vgen_ms.service.models.Animation", lambda first, _: _Both(first))
    started: list[server.Server] = []
    monkeypatch.setattr(server.Server, "__init__", _noting(server.Server.__init__, started))
    bound = bind("127.0.0.1", 0)
    service = Service([models], ServiceSettings(folder=tmp_path / "results"))
    thread = threading.Thread(target=server.run, args=(service, bound), kwargs={"log_level": "error"})
    port = bound.getsockname()[1]
    thread.start()
    while not (started and started[0].started):
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    models.first.go.set()
    started[0].handle_exit(15, None)
    thread.join(20)
    assert not thread.is_alive()


class _Both:
    def __init__(self, first: FakeStage) -> None:
        self._first = first

    def __call__(self, source, *, output, text, first, second, seed=None):  # type: ignore[no-untyped-def]
        return self._first(source, output=output, text=text, seed=seed, **first)


def _noting(call, started):  # type: ignore[no-untyped-def]
    def noting(self, *given):  # type: ignore[no-untyped-def]
        started.append(self)
        call(self, *given)

    return noting


def test_the_python_example(address: str, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = PYTHON[0].replace(ADDRESS, address).replace("time.sleep(0.5)", "time.sleep(0.01)")
    exec(compile(code, "docs/service.md", "exec"), {})
    assert (tmp_path / "video.mp4").read_bytes() == VIDEO
    assert capsys.readouterr().out.splitlines()[-1].startswith("done decoding 1 of 1")
    assert models.first.given[0]["text"] == "a boat at sea"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_examples(address: str, models: Models, tmp_path: Path) -> None:
    post, status, result, delete = SHELL[2].strip().replace(ADDRESS, address).splitlines()

    def run(command: str, key: str = "") -> str:
        done = subprocess.run(["sh", "-c", f"ID={key}; {command}"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    key = re.findall(r'"id":"([^"]+)"', run(post))[0]
    while '"state":"done"' not in (text := run(status, key)):
        assert '"state":"failed"' not in text
    run(result, key)
    assert (tmp_path / "video.mp4").read_bytes() == VIDEO
    assert '"result":null' in run(delete, key)
    assert models.first.given[0]["steps"] == 30


def test_the_example_without_http(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.jpg").write_bytes(b"picture")
    monkeypatch.setattr("i2vgen_ms.load", lambda folder, device: models.first, raising=False)
    monkeypatch.setattr(pipelines, "load", lambda folder, device: models.first)
    exec(compile(PYTHON[1].replace('open("picture.jpg", "rb").read()', 'b"picture"'), "docs/service.md", "exec"), {})
    assert capsys.readouterr().out == f"{len(VIDEO)}\n"


def rows(table: int) -> dict[str, str]:
    """First and second cell of each row of a table, by its place in the text."""
    found = re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE)[table]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines()[2:]]
    return {row[0].strip("`"): row[1] for row in cells}


def test_the_tables_are_true(client: Client) -> None:
    described = client.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    assert set(rows(0)) == routes | {"GET /docs"}
    assert {name: float(value) for name, value in rows(2).items()} == {
        field.name: float(field.default)
        for field in fields(RequestLimits)  # type: ignore[arg-type]
    }
    parser = argparse.ArgumentParser()
    serve.arguments(parser)
    helps = {option: action.help or "" for action in parser._actions for option in action.option_strings}
    settings = {field.name: field.default for field in fields(ServiceSettings)} | {"grace": parser.get_default("grace")}
    for option, default in rows(3).items():
        assert float(default) == settings[option.removeprefix("--").replace("-", "_")]
        assert f"({default})" in helps[option]
    others = {"--model_id", "--revision", "--help"}  # of other commands
    for option in set(re.findall(r"(?<!-)--[a-z]\w[\w-]*", TEXT)) - others:
        assert option in helps, option
