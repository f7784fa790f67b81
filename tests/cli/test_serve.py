"""`i2vgen-ms serve`: what it hands on, and what it says before anything is loaded."""

from __future__ import annotations

import argparse
import importlib.util
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2vgen_ms import pipelines
from i2vgen_ms.cli import app, main, much
from i2vgen_ms.serve import server
from tests.service.stages import FakeStage


def run(*words: object) -> int:
    return main.main(["serve", *(str(word) for word in words)])


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the server was run with, instead of running it."""
    calls: list[Any] = []

    def load(folder: Path, **given: Any) -> FakeStage:
        second = "second" in folder.name or "video-to-video" in folder.name
        stage = FakeStage("video-to-video" if second else "image-to-video")
        stage.device = SimpleNamespace(__str__=lambda: given["device"])
        calls.append((folder.name, given))
        return stage

    def run_server(service: Any, bound: socket.socket, settings: Any, *, grace: float) -> None:
        socket.create_connection(
            ("127.0.0.1", bound.getsockname()[1]), 5
        ).close()  # the address was said: one can connect
        calls.append((service.kinds, service.settings, settings, grace))
        bound.close()
        service.close()

    monkeypatch.setattr(pipelines, "load", load)
    monkeypatch.setattr(server, "run", run_server)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return calls


def test_what_is_asked_for_is_handed_on(served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("correct-horse-battery\n")
    models = ("--first", tmp_path / "first", "--second", tmp_path / "second", "--device", "cuda:0,cuda:1")
    more = ("--token-file", tmp_path / "token", "--queue", 3, "--grace", 7, "--limit", "steps=20", "--port", 0)
    assert run(*models, *more, "--folder", tmp_path, "--memory", "low", "--limit", "guidance_scale=7.5") == 0
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert [(name, given["device"]) for name, given in served[:-1]] == [
        ("first", "cuda:0"), ("second", "cuda:0"), ("first", "cuda:1"), ("second", "cuda:1"),
    ]  # fmt: skip
    assert {(given["memory"], given["limits"].urls, given["limits"].paths) for _, given in served[:-1]} == {
        ("low", "none", False)
    }
    kinds, settings, http, grace = served[-1]
    assert kinds == ("image-to-video", "video-to-video", "animate")
    assert (settings.queue, settings.limits.steps, settings.limits.guidance_scale, grace) == (3, 20, 7.5, 7.0)
    assert isinstance(settings.limits.steps, int)
    assert http.token == "correct-horse-battery"
    assert http.hosts is not None
    assert "localhost" in http.hosts


def test_without_a_model_the_bundled_ones_are_served(
    served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--port", 0, "--folder", tmp_path) == 0
    assert [name for name, _ in served[:-1]] == ["small-image-to-video", "small-video-to-video"]
    said = capsys.readouterr()
    assert "--first damo/Image-to-Video --second damo/Video-to-Video" in said.err
    assert said.out.startswith("http://127.0.0.1:")
    assert run("--port", 0, "--folder", tmp_path, "--second", tmp_path / "second") == 0
    assert served[-1][0] == ("video-to-video",)
    assert "bundled" not in capsys.readouterr().err


def test_other_machines_are_warned_about(served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--first", tmp_path / "first", "--port", 0, "--folder", tmp_path)
    assert run(*words, "--host", "0.0.0.0") == 0
    assert "anybody who reaches this address may use it" in capsys.readouterr().err
    assert served[-1][2].hosts is None
    assert run(*words, "--host", "0.0.0.0", "--host-name", "video.example") == 0
    assert served[-1][2].hosts == ("video.example",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "stepz=3"), "there is no limit 'stepz'; did you mean 'steps'"),
        (("--limit", "frames=2.9"), "--limit: frames is a whole number, not 2.9"),
        (("--limit", "steps=0"), "RequestLimits.steps must be positive, not 0"),
        (("--queue", "0"), "ServiceSettings.queue must be positive"),
        (("--token-file", "nowhere"), "--token-file: 'nowhere' cannot be read"),
        (("--token-file", "short"), "at least 16 characters"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
        (("--port", "70000"), "cannot listen on 127.0.0.1, port 70000"),
        (("--first", "second"), "--first: this is a model of video-to-video"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    served: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("abc")
    assert run("--first", "first", "--port", 0, "--folder", tmp_path, *words) == 2
    assert said in capsys.readouterr().err
    assert len(served) == (said.startswith("--first"))  # nothing was loaded but what was looked at


def test_the_port_that_is_taken(served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert run("--first", tmp_path / "first", "--port", other.getsockname()[1]) == 2
    assert "Address already in use" in capsys.readouterr().err
    assert served == []


def test_a_model_that_cannot_be_loaded_is_said_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--first", tmp_path, "--port", 0, "--folder", tmp_path / "results") == 1
    assert "configuration.json: not found" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("words", ["steps=inf", "steps=nan", "guidance_scale=1e999", "steps"])
def test_a_limit_is_a_number(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "app"):
        with pytest.raises(SystemExit, match="2"):
            main.main([command, "--limit", words])
        assert f"{words!r} is not NAME=NUMBER, such as steps=50" in capsys.readouterr().err


def test_the_page_has_the_same_settings() -> None:
    parser = argparse.ArgumentParser()
    app.arguments(parser)
    words = "--queue 3 --wait-seconds 7200 --keep-seconds 60 --keep-results 5 --folder x --limit steps=200"
    settings = much.settings(parser.parse_args([*words.split(), "--limit", "frames=9"]), preview_frames=2)
    assert (settings.queue, settings.wait_seconds, settings.keep_seconds, settings.keep_results) == (3, 7200, 60, 5)
    assert (settings.folder, settings.preview_frames) == ("x", 2)
    assert (settings.limits.steps, settings.limits.frames) == (200, 9)


def test_the_models_have_the_names_of_the_other_commands(served: list[Any], tmp_path: Path) -> None:
    words = ("--first-model", tmp_path / "first", "--second-model", tmp_path / "second", "--port", 0)
    assert run(*words, "--folder", tmp_path) == 0
    assert [name for name, _ in served[:-1]] == ["first", "second"]


def test_without_the_extra_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert run() == 1
    assert capsys.readouterr().err == "i2vgen-ms: the service needs uvicorn: pip install 'i2vgen_ms[serve]'\n"
