"""What is copied: commands that our own parser reads as what was done, and a script that calls with it."""

from __future__ import annotations

import argparse
import ast
import shlex
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms import demo
from i2vgen_ms.app.knobs import arguments, for_clip, knobs
from i2vgen_ms.app.recipe import Origin, Recipe, command, script
from i2vgen_ms.cli.main import add_commands
from i2vgen_ms.service import RequestLimits
from i2vgen_ms.service.job import FIRST, SECOND
from tests.service.stages import FakeStage

TEXT = '--a boat\'s "mast"; $(touch x) `y` \\ 星'


def recipe(*, hub: bool = False, sample: str | None = "growing", source: str = "growing.png") -> Recipe:
    one, two = FakeStage("image-to-video"), FakeStage("video-to-video")
    first = arguments(knobs(one, RequestLimits()), {knob.name: knob.value for knob in knobs(one, RequestLimits())})
    second = arguments(knobs(two, RequestLimits()), {"steps": 3.0, "strength": 0.30000000000000004, "memory": "low"})
    loading = {"device": "cpu", "dtype": None, "lora": None, "compile": True if hub else None}
    base = Recipe(
        task=FIRST,
        origin=Origin(model="a/b", revision="v1", loading=loading)
        if hub
        else Origin(model=demo.FIRST, loading=loading),
        source=source,
        sample=sample,
        output="stage1-7.mp4",
        seed=7,
        arguments={**first, "sampler": "heun"},
    )
    origin = Origin(model=demo.SECOND, loading=loading)
    arguments2 = for_clip(two, two.configuration.output.num_frames + 1, second)
    return Recipe(
        task=SECOND,
        origin=origin,
        source=base.output,
        output="stage2-9.mp4",
        seed=9,
        text=TEXT,
        arguments=arguments2,
        before=base,
    )


def parsed(line: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_commands(parser)
    program, *words = shlex.split(line)
    assert program == "i2vgen-ms"
    return vars(parser.parse_args(words))


@pytest.mark.parametrize(("hub", "source"), [(False, "growing.png"), (True, "-o my $(pic).png")])
def test_the_commands_name_every_value(hub: bool, source: str) -> None:
    made = recipe(hub=hub, sample=None if hub else "growing", source=source)
    *fetch, one, two = command(made).splitlines()
    assert made.before is not None
    assert [len(fetch), hub] in ([1, False], [0, True])
    first, second = parsed(one), parsed(two)
    assert {"width", "height", "num_frames", "fps", "steps", "spacing", "guidance_scale"} <= set(made.before.arguments)
    for found, done in ((first, made.before), (second, made)):
        for name, value in {**done.arguments, "seed": done.seed, "device": "cpu", "output": done.output}.items():
            assert (name, found[name]) == (name, value)
    assert (first["pictures"], first["model"]) == (
        (["./-o my $(pic).png"], "a/b") if hub else (["growing.png"], demo.FIRST)
    )
    assert (first["revision"], first["compile"]) == (("v1", True) if hub else (None, None))
    assert (second["clips"], second["text"], second["strength"], second["long_clips"]) == (
        [made.before.output],
        TEXT,
        0.3,
        "window",
    )


@pytest.mark.parametrize("hub", [False, True])
def test_the_script_calls_with_every_value(hub: bool) -> None:
    made = recipe(hub=hub, sample=None if hub else "growing")
    calls = [node for node in ast.walk(ast.parse(script(made))) if isinstance(node, ast.Call)]
    given = {
        call.func.id: {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in ("first", "second", "resolve")
    }
    assert made.before is not None
    assert given["first"] == {**made.before.arguments, "seed": 7, "output": "stage1-7.mp4"}
    assert given["second"] == {**made.arguments, "seed": 9, "text": TEXT, "output": "stage2-9.mp4"}
    assert given.get("resolve") == ({"revision": "v1"} if hub else None)


def test_strangers_are_told_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "adapter.safetensors").touch()
    loading = {"device": "cpu", "lora": str(tmp_path / "adapter.safetensors"), "lora_scale": 0.5, "dtype": None}
    for model, told in ((str(tmp_path / "model"), "model"), ("a/b", "a/b")):
        origin = Origin(model=model, loading=loading).without_folders()
        assert (origin.model, origin.given) == (
            told,
            {"device": "cpu", "lora": "adapter.safetensors", "lora_scale": 0.5},
        )
    assert Origin(model="a/b", loading={"lora": None}).without_folders() == Origin(model="a/b", loading={"lora": None})


def test_the_bundled_picture_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, option, code = shlex.split(command(recipe()).splitlines()[0])
    assert (program, option) == ("python", "-c")
    exec(compile(code, "copied", "exec"), {})
    assert (tmp_path / "growing.png").read_bytes() == demo.sample("growing").path.read_bytes()


@pytest.mark.parametrize("task", [FIRST, SECOND])
def test_the_knobs_stand_where_the_configuration_does(task: str) -> None:
    stage = FakeStage(task)
    known = knobs(stage, RequestLimits())
    values = {knob.name: knob.value for knob in known}
    stage.configuration = stage.settings(**arguments(known, values))
    assert knobs(stage, RequestLimits()) == known, "calling with them changes nothing"
    assert all(knob.low <= knob.value <= knob.high for knob in known if not knob.choices)
    assert all(knob.value in [value for _, value in knob.choices] for knob in known if knob.choices)


def test_a_part_with_options_of_its_own_is_left_to_the_configuration() -> None:
    stage = FakeStage()
    stage.configuration = stage.configuration.replace("diffusion.sampler", {"type": "ddim", "eta": 0.5})
    known = knobs(stage, RequestLimits())
    assert "sampler" not in arguments(known, {"sampler": "ddim"})
    assert arguments(known, {"sampler": "heun", "steps": None}) == {"sampler": "heun"}
