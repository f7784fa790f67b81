"""Ids: cached ones and ours need no hub, what is not here fails within seconds, other tasks are left alone."""

from __future__ import annotations

import json
import shutil
import socket
import time

import pytest

from i2vgen_ms import activation, hub, plugin
from i2vgen_ms.errors import HubError
from i2vgen_ms.hub import cache
from tests.plugin.conftest import MODEL, REVISION
from tests.plugin.loopback_hub import LoopbackHub


@pytest.fixture
def down(monkeypatch, tmp_path):
    """An empty cache, and a hub at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))


def fill(origin, revision=REVISION):
    shutil.copytree(origin, cache.snapshot_folder(MODEL, revision))


def test_a_cached_id_without_a_hub(modelscope, origin, down):
    fill(origin)
    start = time.monotonic()
    pipe = modelscope.pipeline(task="image-to-video", model=MODEL, model_revision=REVISION, device="cpu")
    assert time.monotonic() - start < 2
    assert type(pipe) is plugin.ImageToVideoPipeline
    model = modelscope.Model.from_pretrained(MODEL, revision=REVISION, device="cpu")
    assert (type(model), model.name) == (plugin.ImageToVideo, MODEL)


def test_the_default_model_of_the_task(modelscope, origin, down):
    fill(origin, "master")
    assert modelscope.pipeline("image-to-video", device="cpu").model.model_dir.endswith("snapshots/master")
    pipe = modelscope.pipeline(pipeline_name="image-to-video-task-pipeline", device="cpu")
    assert type(pipe) is plugin.ImageToVideoPipeline


def test_a_cached_id_makes_no_request(modelscope, origin, down, monkeypatch):
    fill(origin)
    with LoopbackHub({(MODEL, REVISION): origin}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        modelscope.pipeline("image-to-video", MODEL, model_revision=REVISION, device="cpu")
        modelscope.Model.from_pretrained(MODEL, REVISION, device="cpu")
        assert server.log == []


def test_a_bundled_id(modelscope, origin, down, monkeypatch):
    monkeypatch.setattr(cache, "bundled", lambda: {"i2vgen-ms/small": origin})
    monkeypatch.setattr(hub, "bundled", cache.bundled)
    pipe = modelscope.pipeline("image-to-video", "i2vgen-ms/small", device="cpu")
    assert pipe.model.model_dir == str(origin)


def test_not_cached_and_no_hub(modelscope, origin, down):
    fill(origin, "v1.0.0")
    start = time.monotonic()
    with pytest.raises(HubError, match=r"cannot be reached.*damo/Image-to-Video \(v1\.0\.0\)"):
        modelscope.pipeline("image-to-video", MODEL, model_revision=REVISION)
    assert time.monotonic() - start < 5


def test_local_files_only(modelscope, down, monkeypatch):
    with LoopbackHub({}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        with pytest.raises(HubError, match="local_files_only forbids"):
            modelscope.pipeline("image-to-video", MODEL, local_files_only=True)
        with pytest.raises(HubError, match="local_files_only forbids"):
            modelscope.Model.from_pretrained(MODEL, local_files_only=True)
        monkeypatch.setenv("I2VGEN_MS_OFFLINE", "1")
        with pytest.raises(HubError, match="I2VGEN_MS_OFFLINE forbids"):
            modelscope.pipeline("image-to-video", "somebody/model")
        assert server.log == []


def test_unwanted_files_are_not_downloaded(modelscope, origin, down, monkeypatch, tmp_path):
    served = shutil.copytree(origin, tmp_path / "served")
    (served / "example.mp4").write_bytes(b"large")
    (served / "README.md").write_text("read me")
    with LoopbackHub({(MODEL, REVISION): served}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        pipe = modelscope.pipeline(
            "image-to-video", MODEL, model_revision=REVISION, ignore_file_pattern=["*.mp4"], device="cpu"
        )
    names = {path.name for path in cache.snapshot_folder(MODEL, REVISION).iterdir()}
    assert names == {path.name for path in served.iterdir()} - {"example.mp4"}
    assert pipe.model.model_dir == str(cache.snapshot_folder(MODEL, REVISION))


def test_other_tasks_are_modelscopes(modelscope, tmp_path):
    """They reach the published function with the arguments as given, and its errors."""
    with pytest.raises(ValueError, match="task or pipeline_name is required"):
        modelscope.pipeline()
    with pytest.raises(TypeError, match="multiple values"):
        modelscope.pipeline("image-to-video", task="image-to-video")
    folder = tmp_path / "other"
    folder.mkdir()
    values = {"framework": "pytorch", "task": "nli", "model": {"type": "x"}, "pipeline": {"type": "no-such-pipeline"}}
    (folder / "configuration.json").write_text(json.dumps(values))
    with pytest.raises(KeyError, match="no-such-pipeline is not in the pipelines registry"):
        modelscope.pipeline("nli", str(folder))
    with pytest.raises(AttributeError, match="ModelForTextClassification"):  # its own guess for that task
        modelscope.Model.from_pretrained(str(folder))


def test_somebody_elses_pipeline_of_our_task(modelscope, down, monkeypatch, tmp_path):
    """A model of another kind goes back to modelscope's function, with exactly what was asked."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    values = {"framework": "pytorch", "task": "image-to-video", "model": {"type": "x"}, "pipeline": {"type": "theirs"}}
    (folder / "configuration.json").write_text(json.dumps(values))
    with LoopbackHub({("somebody/model", "master"): folder}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        asked = {}

        def published(task=None, model=None, device=None, **kwargs):
            asked.update(task=task, model=model, device=device, **kwargs)

        monkeypatch.setitem(activation._published, "pipeline", published)
        modelscope.pipeline("image-to-video", "somebody/model", x=1)
    assert asked == {"task": "image-to-video", "model": "somebody/model", "device": None, "x": 1}
