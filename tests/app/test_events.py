"""The handlers of the page over stages that do nothing, called as gradio calls them: gradio changes the environment of
its process, so that they have one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser  # nothing of a browser in it, but importing gradio takes as long
ROOT = Path(__file__).resolve().parents[2]
HANDLERS = """
import asyncio, inspect, json, os, signal, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
import gradio as gr
from i2vgen_ms import demo
from i2vgen_ms.app import events
from i2vgen_ms.app.desk import Desk
from i2vgen_ms.app.knobs import knobs
from i2vgen_ms.app.layout import Layout
from i2vgen_ms.app.recipe import Origin
from i2vgen_ms.app.words import words_of
from i2vgen_ms.service import Models, Service, ServiceSettings
from tests.app.conftest import VideoStage
from tests.service.stages import asked

events.POLL = 0.01
folder = Path(sys.argv[1])
models = Models(first=VideoStage(pause=0.05), second=VideoStage("video-to-video"), also=("memory",))
settings = ServiceSettings(folder=folder / "service", preview_seconds=0.12, preview_share=1.0)
service = Service([models], settings)
desk = Desk(service, Origin(model="a/b"), Origin(model="c/d"), folder=folder / "desk")
one, two = knobs(models.first, settings.limits), knobs(models.second, settings.limits)
with gr.Blocks():
    on = Layout(desk, words_of("en"), one, two)
handlers = events.Events(desk, on, one, two)
request = gr.Request(username=None, session_hash="page", headers={"accept-language": "zh"}, query_params={})
names = {part: name for name, part in vars(on).items() if getattr(part, "_id", None) is not None}


def plain(parts):
    found = {names[part]: value for part, value in parts.items() if part in names}
    return {name: value["value"] if isinstance(value, dict) and "value" in value else value
            for name, value in found.items()}


def call(name, *given):
    made = getattr(handlers, name)(*given)
    if not inspect.isasyncgen(made):
        return [plain(made)]

    async def all_of_it():
        return [plain(parts) async for parts in made]

    return asyncio.run(all_of_it())


def said(steps):
    return [parts["live"] for parts in steps if "live" in parts][-1]


def values(known, **changed):
    return [changed.get(knob.name, knob.value) for knob in known]


def at(index):
    return SimpleNamespace(index=index)


picture = folder / "picture.png"
picture.write_bytes(demo.sample().path.read_bytes())
answer = {}
call("_begin", request, None)
answer["without"] = said(call("_make", request, "zh", None, 1, True, *values(one)))
answer["gone"] = said(call("_make", request, "zh", str(folder / "gone.png"), 1, True, *values(one)))
answer["choose"] = said(call("_choose", at(99), request))
answer["speak"] = said(call("_speak", "en", request))
answer["look"] = said(call("_look", "en", at("x"), request))
steps = call("_make", request, "en", str(picture), 1, True, *values(one, steps=12, num_frames=3))
answer["done"] = said(steps)
answer["previews"] = [parts["preview"] for parts in steps if "preview" in parts]
answer["ticks"] = sum("live" in parts for parts in steps)
call("_refine", request, "en", "", 1, *values(two))
answer["compare"] = said(call("_compare", "x", request))
changed = call("_speak", "zh", request)[0]
answer["chinese"] = {name: str(changed[name]) for name in ("live", "settings", "gallery")}
call("_look", "zh", at(0), request)
answer["chinese done"] = said(call("_speak", "zh", request))
desk.cancel = desk.open = None
answer["cancel"] = said(call("_cancel", request))
answer["begin"] = said(call("_begin", request, None))
desk.session("page").made[0].path.write_bytes(b"damaged")
answer["damaged"] = said(call("_look", "en", at(0), request))


async def switched():  # while a video is made
    live = []
    made = handlers._make(request, "en", str(picture), 1, True, *values(one, steps=6, num_frames=3))
    async for parts in made:
        if on.live in parts:
            live.append(parts[on.live])
        if len(live) == 2:
            handlers._speak("zh", request)
    return live


desk.session("page").made.clear()
answer["switched"] = asyncio.run(switched())

from i2vgen_ms.app import server
from i2vgen_ms.service import ending as ends

ends.LINGER = 0.3
over = threading.Event()
for case, grace, signals in (("waits", 20, 0), ("grace", 0.2, 0), ("second", 20, 1)):
    ending = Service([models], ServiceSettings(folder=folder / "ending"))
    job = ending.submit(asked(first={"steps": 12})).id
    while ending.status(job).state != "running":
        time.sleep(0.01)
    begun = time.monotonic()
    if signals:
        over.set()
    ends.finish(ending, grace, over)
    answer[f"ending {case}"] = [ending.status(job).state, time.monotonic() - begun]
    ending.close()
ending, seen = Service([models], ServiceSettings(folder=folder / "ending")), []
job = ending.submit(asked(first={"steps": 12})).id
while ending.status(job).state != "running":
    time.sleep(0.01)
server.options = lambda *_: {}
launched = SimpleNamespace(
    service=ending,
    launch=lambda **_: (None, "http://here", None),
    close=lambda **_: seen.append(ending.status(job).state),
    end=ending.close,
)
server.launch(launched, "here", 1, grace=20, say=lambda _: os.kill(os.getpid(), signal.SIGTERM))
answer["closed"] = seen
service.close()
desk.close()
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the card said, and what else was changed, by the name of the case."""
    folder = tmp_path_factory.mktemp("events")
    environment = os.environ | {"TMPDIR": str(folder), "GRADIO_TEMP_DIR": str(folder / "gradio")}
    command = [sys.executable, "-c", HANDLERS, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_whatever_is_raised_ends_in_words(answers: dict[str, Any]) -> None:
    for case in ("choose", "cancel", "begin"):
        assert "出错了" in answers[case], case
    for case in ("look", "compare"):
        assert "Something went wrong here" in answers[case], case
    assert "This is no picture that can be read" in answers["damaged"]
    assert not any("/tmp" in str(answers[case]) for case in answers)


def test_a_picture_that_is_not_there_any_more_is_none(answers: dict[str, Any]) -> None:
    assert "还没有图片" in answers["without"]
    assert "还没有图片" in answers["gone"]
    assert "was kept for a while, and is removed; choose it again" in answers["gone"]


def test_what_is_seen_changes_its_language(answers: dict[str, Any]) -> None:
    assert "Something went wrong here" in answers["speak"], "it was Chinese before"
    assert "Stage 1 is done" in answers["done"]
    assert "种子" in answers["chinese"]["settings"]
    assert "第一阶段" in answers["chinese"]["gallery"]
    assert "第一阶段" in answers["chinese done"]
    assert "Stage 1" in answers["switched"][1]
    assert all("Stage" not in said for said in answers["switched"][3:])


def test_a_preview_is_sent_once(answers: dict[str, Any]) -> None:
    previews = [preview for preview in answers["previews"] if preview]
    assert 3 <= len(previews) == len(set(previews)) < answers["ticks"] - 2
    assert "i2v-empty" in previews[0]
    assert all("i2v-moving" in preview for preview in previews[1:])
    assert answers["previews"][-1] == "", "it goes when the video is there"


def test_a_running_video_has_its_time_to_end_and_to_be_fetched(answers: dict[str, Any]) -> None:
    assert answers["ending waits"][0] == "done"
    assert 0.6 + 0.3 <= answers["ending waits"][1] < 15
    assert answers["closed"] == ["done"], "pages can ask until then"
    for case in ("grace", "second"):
        state, seconds = answers[f"ending {case}"]
        assert (state, seconds < 0.6) == ("running", True)
