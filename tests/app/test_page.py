"""The page is built over stages that do nothing, in a process of its own: gradio changes the environment."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from i2vgen_ms.app import build
from i2vgen_ms.cli import main

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import json, os, sys
from i2vgen_ms.app.page import of_service
from i2vgen_ms.app.recipe import Origin
from i2vgen_ms.app.server import options
from i2vgen_ms.app import layout
from i2vgen_ms.service import Service, ServiceSettings
from tests.service.stages import both
from pathlib import Path
from types import SimpleNamespace

folder = Path(sys.argv[1])
service = Service([both()], ServiceSettings(folder=folder / "service"))
page = of_service(service, Origin(model="a/b"), Origin(model="c/d"), language="zh", folder=folder / "desk")
config = page.config
told, shown = {}, []
for chosen in (None, True, False):
    page.show_folders = page.desk.show_folders = chosen
    for host in ("127.0.0.1", "0.0.0.0"):
        told[host] = options(page, host, 0)
        shown.append(page.desk.show_folders)
around = {host: [one.cls.__name__ for one in each["app_kwargs"]["middleware"]] for host, each in told.items()}
parts = [one["props"] for one in config["components"]]
cache = SimpleNamespace(GRADIO_CACHE=str(folder / "cache"))
files = [str(folder / "cache" / "a.png"), "/etc/passwd", "http://127.0.0.1/x.png", str(folder / "cache/../../x")]
answer = {
    "written": [path.name for path in Path(layout.__file__).parent.glob("*.pyi")],
    "visibility": sorted({str(one["api_visibility"]) for one in config["dependencies"]}),
    "limits": sorted({str(one.concurrency_limit) for one in page.fns.values()}),
    "queue": page._queue.max_size,
    "analytics": page.analytics_enabled,
    "clean": page.delete_cache,
    "labels": [str(part.get("label")) for part in parts],
    "sampler": [part["choices"] for part in parts if part.get("elem_id") == "first-sampler"],
    "around": around,
    "told": {key: value for key, value in told["127.0.0.1"].items() if isinstance(value, (bool, int, str, list))},
    "uploads": [layout.uploaded(cache, SimpleNamespace(path=file)) for file in files],
    "stylesheets": told["127.0.0.1"]["theme"]._stylesheets,
}
cached = [os.environ["GRADIO_TEMP_DIR"], page.cache.folder.parent == page.desk.folder]
samples = len(list(page.cache.folder.rglob("*.png")))
page.end()
after = os.environ.get("GRADIO_TEMP_DIR")
left = [str(path) for path in folder.glob("*/*") if path.name != ".i2vgen-ms-service-lock"]
answer |= {"shown": shown, "left": left, "cached": cached, "samples": samples, "after": after}
print(json.dumps(answer))
"""


@pytest.mark.browser  # nothing of a browser in it, but importing gradio takes as long
def test_the_page_is_built_and_closed_to_what_it_need_not_do(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert page["visibility"] == ["private"]
    assert (page["queue"], page["limits"], page["analytics"]) == (64, ["None", "default"], False)
    assert page["clean"] == [600, 3600]
    assert {"随机种子", "第一阶段", "采样器"} <= set(page["labels"])
    assert [value for _, value in page["sampler"][0]][:2] == ["ddim", "euler"]
    assert page["around"] == {"127.0.0.1": ["TrustedHostMiddleware", "Headers", "Gate"], "0.0.0.0": ["Headers", "Gate"]}
    wanted = {"share": False, "allowed_paths": [], "show_error": True, "max_file_size": 64 * 2**20, "mcp_server": False}
    assert {name: page["told"][name] for name in wanted} == wanted
    assert page["uploads"] == [str(tmp_path / "cache" / "a.png"), None, None, None]
    assert page["stylesheets"] == [], "fonts would come from another host"
    assert page["shown"] == [True, False, True, True, False, False]
    assert page["cached"][1]
    assert page["cached"][0].startswith(str(tmp_path / "desk"))
    assert page["after"] is None
    assert page["samples"] >= 4, "gradio keeps its copies there"
    assert page["left"] == page["written"] == []


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gradio" else find(name, *more)
    )
    with pytest.raises(Exception, match=r"needs gradio: pip install 'i2vgen_ms\[app\]'"):
        build()
    assert main.main(["app"]) == 1
    assert "pip install 'i2vgen_ms[app]'" in capsys.readouterr().err
