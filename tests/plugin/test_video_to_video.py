"""Video-to-video, and both stages together, as ModelScope's users reach them."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms import plugin, random_model
from i2vgen_ms.errors import ArgumentError, ConfigurationError, I2VGenError
from i2vgen_ms.hub import cache
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.pipelines import load
from tests.plugin.conftest import MODEL, REVISION
from tests.plugin.loopback_hub import LoopbackHub

torch.set_num_threads(1)
SECOND = "damo/Video-to-Video"
FAST: dict[str, Any] = {"steps": 1, "progress": False}
CHAIN: dict[str, Any] = {"first": {"steps": 1}, "second": {"steps": 1}, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model of the second stage, as a hub holds it."""
    sizes = {"max_frames": 3, "latent_hei": 6, "latent_wid": 8}
    return random_model.make_random_model(tmp_path_factory.mktemp("second") / "origin", sizes, task="video-to-video")


@pytest.fixture(scope="module")
def pipe2(modelscope, folder):
    return modelscope.pipeline(task="video-to-video", model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def clip(pipe, picture, modelscope, tmp_path_factory) -> str:
    target = str(tmp_path_factory.mktemp("clip") / "i2v.mp4")
    return pipe(picture, output_video=target, **FAST)[modelscope.VIDEO]


def test_the_documented_call(pipe2, clip, modelscope, tmp_path, logged):
    target = str(tmp_path / "o.mp4")
    for given in ({"video_path": clip, "text": "a boat"}, {"video_path": clip}):
        assert pipe2(given, output_video=target, **FAST) == {modelscope.VIDEO: target, "seed": 666}
        video = read_clip(target, max_frames=9)
        assert (video.width, video.height, video.count, video.fps) == (64, 48, 2, 8)
    assert logged == []


def test_every_kind_of_clip_and_lists(pipe2, clip, modelscope, tmp_path):
    frames = read_clip(clip, max_frames=9).frames
    tensor = torch.from_numpy(frames).permute(3, 0, 1, 2)
    expected = pipe2(clip, text="a boat", output_type="frames", **FAST)[modelscope.VIDEO]
    kinds = [clip, Path(clip), Path(clip).read_bytes(), frames, tensor, {"video_path": frames, "text": "a boat"}]
    results = pipe2(kinds, text="a boat", output_video=str(tmp_path / "o.mp4"), output_type="frames", **FAST)
    for index, result in enumerate(results):
        assert np.array_equal(result[modelscope.VIDEO], expected), index
        assert result["path"] == str(tmp_path / f"o_{index}.mp4")
    other = pipe2({"video_path": clip, "text": "a horse"}, text="a boat", output_type="frames", **FAST)
    assert not np.array_equal(other[modelscope.VIDEO], expected)


def test_the_numbers_are_the_cores(pipe2, clip, modelscope, folder):
    result = pipe2(clip, output_type="pt", seed=5, **FAST)
    assert torch.equal(
        result[modelscope.VIDEO], load(folder, device="cpu")(clip, output_type="pt", seed=5, **FAST).tensor
    )


@pytest.mark.parametrize("value", [None, 3, object()])
def test_what_is_no_clip(pipe2, value):
    with pytest.raises(ArgumentError, match="a clip is expected"):
        pipe2(value)


@pytest.mark.parametrize(("name", "near"), [("num_frame", "max_frames"), ("strenght", "strength"), ("crop", "")])
def test_unknown_arguments(pipe2, clip, modelscope, folder, name, near):
    with pytest.raises(ArgumentError, match=f"unknown argument '{name}'.*{near}"):
        pipe2(clip, **{name: 1})
    with pytest.raises(ArgumentError, match=f"unknown argument '{name}'"):
        modelscope.pipeline("video-to-video", str(folder), device="cpu", **{name: 1})


def test_the_model_alone(pipe2, modelscope, clip):
    data = torch.from_numpy(read_clip(clip, max_frames=9).frames).permute(0, 3, 1, 2) / 127.5 - 1
    video = pipe2.model({"video_data": data, "text": "a boat"}, **FAST)
    assert (video.shape, video.dtype, video.device.type) == ((1, 3, 2, 48, 64), torch.float32, "cpu")
    clip_first = data.permute(1, 0, 2, 3)
    assert torch.equal(video[0], pipe2(clip_first, text="a boat", output_type="pt", **FAST)[modelscope.VIDEO])
    assert torch.equal(video, pipe2.model({"video_data": data, "y": "a boat"}, **FAST))
    assert not torch.equal(video, pipe2.model({"video_data": data}, **FAST))
    with pytest.raises(ArgumentError, match="give 'text'"):
        pipe2.model({"video_data": data, "y": torch.zeros(1, 77, 1024)})
    for wrong in ({}, {"video_data": data[0]}, {"video_data": clip_first}, data):
        with pytest.raises(ArgumentError, match="video_data"):
            pipe2.model(wrong)


def test_settings_under_the_published_names(modelscope, folder, pipe2, clip):
    pipe = modelscope.pipeline("video-to-video", str(folder), device="cpu")
    cfg = pipe.model.cfg
    names = ("max_frames", "latent_hei", "latent_wid", "target_fps", "seed", "solver_mode")
    assert [cfg[name] for name in names] == [3, 6, 8, 8, 666, "fast"]
    assert cfg.positive_prompt.startswith(", cinematic")
    assert cfg.negative_prompt.startswith("worst quality")
    cfg.max_frames, cfg.latent_wid, cfg.positive_prompt, cfg.seed, cfg.target_fps = 1, 4, "", 3, 5
    cfg.solver_mode = "slow"
    assert (cfg.solver_mode, pipe.model.core.configuration.diffusion.steps) == ("other", 50)
    assert "solver_mode='other'" in repr(cfg)
    cfg.solver_mode = "fast"
    with pytest.warns(UserWarning, match="left out: 1 frame after frame 1"):
        result = pipe(clip, output_type="frames", **FAST)
    assert (result[modelscope.VIDEO].shape, result["seed"]) == ((1, 48, 32, 3), 3)
    assert cfg.solver_mode == "fast"
    assert pipe2.model.cfg.max_frames == 3
    with pytest.raises(ArgumentError, match="did you mean 'solver_mode'"):
        cfg.solver_mod = "fast"
    assert not hasattr(cfg, "vit_mean")


def test_from_pretrained_and_a_model_object(modelscope, folder, clip):
    model = modelscope.Model.from_pretrained(str(folder), device="cpu", seed=9, text="a boat")
    assert type(model) is plugin.VideoToVideo
    pipe = modelscope.pipeline("video-to-video", model=model, **FAST)
    assert type(pipe) is plugin.VideoToVideoPipeline
    assert pipe(clip)["seed"] == 9


def test_folders_of_the_other_task(modelscope, folder, origin):
    with pytest.raises(ConfigurationError, match="the task 'image-to-video', not 'video-to-video'"):
        modelscope.pipeline("video-to-video", str(origin))
    with pytest.raises(ConfigurationError, match="the task 'image-to-video', not 'video-to-video'"):
        modelscope.pipeline("image-to-video", str(origin), refine=str(origin), device="cpu")
    with pytest.raises(ConfigurationError, match="the task 'video-to-video', not 'image-to-video'"):
        plugin.ImageToVideoPipeline(str(folder), device="cpu")


def test_through_the_functions_of_modelscopes_server(pipe2, clip):
    from modelscope.utils.input_output import call_pipeline_with_json, get_pipeline_information_by_pipeline
    from modelscope.utils.input_output import pipeline_output_to_service_base64_output as as_json

    schema = get_pipeline_information_by_pipeline(pipe2).schema
    assert list(schema["input"]["properties"]) == ["video_path", "text"]
    body = {
        "input": {"video_path": base64.b64encode(Path(clip).read_bytes()).decode(), "text": "a boat"},
        "parameters": {"steps": 1},
    }
    result = call_pipeline_with_json({"task_name": pipe2.group_key}, pipe2, body)
    assert base64.b64decode(as_json(pipe2.group_key, result)["output_video"])[4:8] == b"ftyp"


def test_compile_is_not_silently_ignored(modelscope, folder):
    with pytest.raises(ArgumentError, match=r"compile=True .*not 'balanced'"):
        modelscope.pipeline("video-to-video", str(folder), device="cpu", compile=True, memory="balanced")


@pytest.mark.parametrize("device", ["cuda:0", "gpu"])
def test_without_cuda_a_gpu_becomes_the_cpu_with_one_warning(modelscope, folder, device):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(plugin.DeviceWarning, match="running on the CPU") as caught:
        pipe = modelscope.pipeline("video-to-video", str(folder), device=device)
    assert len(caught) == 1
    assert pipe.device.type == pipe.model.device.type == "cpu"


def test_a_call_leaves_the_process_as_it_was(modelscope, folder, clip, monkeypatch):
    def refuse(device):
        raise AssertionError("the current device was changed")

    def state():
        generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
        return *generators, dict(os.environ), torch.backends.cudnn.deterministic, torch.get_num_threads()

    monkeypatch.setattr(torch.cuda, "set_device", refuse)
    before = state()
    pipe = modelscope.pipeline("video-to-video", str(folder), device="cpu")
    first = pipe({"video_path": clip, "text": "a boat"}, steps=2, progress=False)
    assert state() == before
    assert pipe({"video_path": clip, "text": "a boat"}, steps=2, progress=False) == first


def test_code_in_a_models_folder_is_never_run(modelscope, folder, tmp_path):
    """Also in a parent folder whose name made ModelScope trust it."""
    place = shutil.copytree(folder, tmp_path / "damo" / "Video-to-Video")
    marker = tmp_path / "marker"
    (place / "ms_wrapper.py").write_text(f"open({str(marker)!r}, 'w')")
    values = json.loads((place / "configuration.json").read_text())
    (place / "configuration.json").write_text(json.dumps({**values, "allow_remote": True, "plugins": ["evil-plugin"]}))
    with pytest.warns(UserWarning, match="plugins, allow_remote"):
        modelscope.pipeline("video-to-video", str(place), device="cpu", trust_remote_code=True)
    assert not marker.exists()


def test_the_default_model_of_the_task(modelscope, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    shutil.copytree(folder, cache.snapshot_folder(SECOND, "master"))
    for asked in ({"task": "video-to-video"}, {"pipeline_name": "video-to-video-pipeline"}):
        pipe = modelscope.pipeline(device="cpu", local_files_only=True, **asked)
        assert type(pipe) is plugin.VideoToVideoPipeline
        assert pipe.model.model_dir == str(cache.snapshot_folder(SECOND, "master"))


def test_a_result_that_lacks_the_video(folder, clip):
    class Empty(plugin.VideoToVideoPipeline):
        def postprocess(self, inputs, **parameters):
            return {}

    with pytest.raises(I2VGenError, match="the result lacks output_video"):
        Empty(str(folder), device="cpu")(clip, **FAST)


def test_the_model_cards_second_script(modelscope, origin, folder, picture, tmp_path, monkeypatch):
    """Both stages through files, from a hub; then from its cache alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    outputs = []
    with LoopbackHub({(MODEL, REVISION): origin, (SECOND, REVISION): folder}) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        for _ in range(2):
            pipe1 = modelscope.pipeline(
                task="image-to-video", model="damo/Image-to-Video", model_revision="v1.1.0", device="cpu"
            )
            pipe2 = modelscope.pipeline(
                task="video-to-video", model="damo/Video-to-Video", model_revision="v1.1.0", device="cpu"
            )
            pipe1.model.cfg.ddim_timesteps = 1
            output_video_path = pipe1(picture, output_video="./i2v_output.mp4")[modelscope.VIDEO]
            p_input = {"video_path": output_video_path}
            new_output_video_path = pipe2(p_input, output_video="./v2v_output.mp4", steps=1)[modelscope.VIDEO]
            assert new_output_video_path == "./v2v_output.mp4"
            outputs.append(Path(new_output_video_path).read_bytes())
            asked = len(server.log)
            server.models.clear()
    assert outputs[0] == outputs[1]
    assert len(server.log) == asked
    video = read_clip("./v2v_output.mp4", max_frames=9)
    assert (video.width, video.height, video.count) == (64, 48, 2)


def test_refine_is_both_stages_without_a_file_between(modelscope, origin, folder, picture, pipe, pipe2, tmp_path):
    both = modelscope.pipeline(task="image-to-video", model=str(origin), refine=str(folder), device="cpu")
    assert type(both) is plugin.ImageToVideoPipeline
    small = pipe(picture, output_type="pt", seed=2, **FAST)[modelscope.VIDEO]
    expected = pipe2(small, text="a boat", output_type="pt", seed=2, **FAST)[modelscope.VIDEO]
    kept, target = str(tmp_path / "small.mp4"), str(tmp_path / "o.mp4")
    result = both(picture, text="a boat", seed=2, output_type="pt", keep_first=kept, output_video=target, **CHAIN)
    assert torch.equal(result[modelscope.VIDEO], expected)
    assert (result["seed"], result["path"]) == (2, target)
    clips = [read_clip(file, max_frames=9) for file in (kept, target)]
    assert [(clip.width, clip.height) for clip in clips] == [(64, 64), (64, 48)]
    assert len(both([picture, picture], **CHAIN)) == 2
    with pytest.raises(ArgumentError, match="unknown argument 'steps'"):
        both(picture, steps=1)


def test_refine_with_built_stages_keeps_what_they_were_given(modelscope, pipe, folder, picture):
    model = modelscope.Model.from_pretrained(str(folder), device="cpu", text="a boat", steps=1)
    second = modelscope.pipeline("video-to-video", model=model, seed=5)
    both = modelscope.pipeline("image-to-video", model=pipe.model, refine=second, **FAST, seed=3, output_type="pt")
    small = pipe(picture, output_type="pt", seed=3, **FAST)[modelscope.VIDEO]
    expected = second(small, output_type="pt", progress=False)[modelscope.VIDEO]
    result = both(picture)
    assert torch.equal(result[modelscope.VIDEO], expected)
    assert result["seed"] == 5
    again = modelscope.pipeline("image-to-video", model=pipe.model, refine=model, **FAST)
    changed = again(picture, seed=3, text="a horse", output_type="pt", second={"seed": 5})
    assert not torch.equal(changed[modelscope.VIDEO], expected)
    same = again(picture, seed=3, output_type="pt", second={"seed": 5})
    assert torch.equal(same[modelscope.VIDEO], expected)


def test_refine_by_id(modelscope, origin, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    shutil.copytree(folder, cache.snapshot_folder(SECOND, REVISION))
    both = modelscope.pipeline(
        "image-to-video", str(origin), refine=SECOND, refine_revision=REVISION, local_files_only=True, device="cpu"
    )
    assert os.fspath(both.work.second.folder) == str(cache.snapshot_folder(SECOND, REVISION))


def test_where_refine_works(modelscope, origin, folder, pipe, pipe2, monkeypatch):
    with pytest.raises(ArgumentError, match="refine is a model's id"):
        modelscope.pipeline("image-to-video", model=pipe.model, refine=3)
    with pytest.raises(ArgumentError, match="refine is not given"):
        modelscope.pipeline("image-to-video", str(origin), device="cpu", refine_device="cpu")
    placed: list[Any] = []

    class Keeps(plugin.VideoToVideo):
        def __init__(self, folder: Any, *, device: Any, **_: Any) -> None:
            placed.append(device)
            self.__dict__.update(core=pipe2.model.core, defaults={})

        core = property(lambda self: self.__dict__["core"])
        defaults = property(lambda self: self.__dict__["defaults"])

    monkeypatch.setattr("i2vgen_ms.plugin.image_to_video.VideoToVideo", Keeps)
    for given in ({}, {"refine_device": "cuda:1"}):
        modelscope.pipeline("image-to-video", model=pipe.model, refine=str(folder), **given)
    assert placed == ["cpu", "cuda:1"]
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ArgumentError, match="the model of refine is on cpu, not on cuda:1"):
        modelscope.pipeline("image-to-video", model=pipe.model, refine=pipe2, refine_device="cuda:1")
