"""The pipeline and model classes as ModelScope's users reach them, in this process."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2vgen_ms import plugin
from i2vgen_ms.errors import ArgumentError, ConfigurationError, I2VGenError
from i2vgen_ms.pipelines import load

torch.set_num_threads(1)
FAST = {"steps": 2, "progress": False}


@pytest.fixture(scope="module")
def own(modelscope, origin):
    """A pipeline that the tests may change."""
    return modelscope.pipeline("image-to-video", str(origin), device="cpu")


def test_a_file(pipe, picture, modelscope, tmp_path, logged):
    result = pipe(picture, output_video=str(tmp_path / "out.mp4"), **FAST)
    assert result == {modelscope.VIDEO: str(tmp_path / "out.mp4"), "seed": 666}
    assert (tmp_path / "out.mp4").read_bytes()[4:8] == b"ftyp"
    assert logged == []


def test_bytes_without_a_file(pipe, picture, modelscope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pipe(picture, **FAST)[modelscope.VIDEO][4:8] == b"ftyp"
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_are_the_cores(pipe, picture, modelscope, origin):
    result = pipe(picture, output_type="pt", seed=5, **FAST)
    expected = load(origin, device="cpu")(picture, output_type="pt", seed=5, **FAST)
    assert torch.equal(result[modelscope.VIDEO], expected.tensor)
    assert result["seed"] == 5


def test_arrays_and_a_file(pipe, picture, modelscope, tmp_path):
    result = pipe(picture, output_video=tmp_path / "out.gif", output_type="frames", **FAST)
    assert result[modelscope.VIDEO].shape == (2, 64, 64, 3)
    assert result[modelscope.VIDEO].dtype == np.uint8
    assert result["path"] == str(tmp_path / "out.gif")
    with Image.open(result["path"]) as image:
        assert image.n_frames == 2


def test_a_list_gives_one_file_each(pipe, picture, modelscope, tmp_path):
    other = Image.new("RGB", (300, 200), "red")
    results = pipe([picture, other], output_video=str(tmp_path / "o.mp4"), **FAST)
    assert [result[modelscope.VIDEO] for result in results] == [str(tmp_path / f"o_{i}.mp4") for i in (0, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o_0.mp4", "o_1.mp4"]


def test_a_batch_is_one_run_of_the_network_and_gives_the_same(pipe, picture, modelscope, monkeypatch):
    other = Image.new("RGB", (300, 200), "red")
    single = [pipe(one, output_type="pt", **FAST)[modelscope.VIDEO] for one in (picture, other)]
    sizes = []
    network = pipe.model.clip_encoder
    hook = network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    batched = pipe([picture, other], batch_size=2, output_type="pt", **FAST)
    hook.remove()
    assert sizes == [2]
    for result, alone in zip(batched, single, strict=True):
        assert torch.allclose(result[modelscope.VIDEO], alone, atol=1e-4)


def test_the_batch_size_of_the_configuration(modelscope, origin, picture):
    """It groups lists; a single picture, and a list that does not fill a batch, are no problem."""
    pipe = modelscope.pipeline("image-to-video", str(origin), device="cpu", **FAST)
    single = pipe(picture, output_type="pt")[modelscope.VIDEO]
    pipe.model.cfg.batch_size = 2
    assert torch.equal(pipe(picture, output_type="pt")[modelscope.VIDEO], single)
    results = pipe([picture] * 3, output_type="pt")
    assert len(results) == 3
    assert all(torch.allclose(result[modelscope.VIDEO], single, atol=1e-4) for result in results)


def test_through_the_functions_of_modelscopes_server(pipe, picture, modelscope):
    from modelscope.utils.input_output import call_pipeline_with_json, get_pipeline_information_by_pipeline
    from modelscope.utils.input_output import pipeline_output_to_service_base64_output as as_json

    schema = get_pipeline_information_by_pipeline(pipe).schema
    assert list(schema["input"]["properties"]) == ["image"]
    assert list(schema["output"]["properties"]) == ["output_video"]
    body = {"input": {"image": base64.b64encode(Path(picture).read_bytes()).decode()}, "parameters": {"steps": 1}}
    result = call_pipeline_with_json({"task_name": pipe.group_key}, pipe, body)
    assert base64.b64decode(as_json(pipe.group_key, result)["output_video"])[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("name", "near"), [("step", "steps"), ("ouput_video", "output_video"), ("max_frames", "num_frames"), ("text", "")]
)
def test_unknown_arguments_of_a_call(pipe, picture, name, near):
    with pytest.raises(ArgumentError, match=f"unknown argument '{name}'.*{near}"):
        pipe(picture, **{name: 1})


@pytest.mark.parametrize("name", ["sed", "compile_options", "auto_collate", "preprocesor"])
def test_unknown_arguments_of_pipeline(modelscope, origin, name):
    with pytest.raises(ArgumentError, match=f"unknown argument '{name}'"):
        modelscope.pipeline("image-to-video", str(origin), device="cpu", **{name: 1})


def test_compile_is_not_silently_ignored(modelscope, origin):
    with pytest.raises(ArgumentError, match=r"compile=True .*not 'low'"):
        modelscope.pipeline("image-to-video", str(origin), device="cpu", compile=True, memory="low")
    with pytest.raises(ArgumentError, match="compile is True or False, not 'max'"):
        modelscope.pipeline("image-to-video", str(origin), device="cpu", compile="max")


def test_arguments_of_pipeline_hold_for_every_call(modelscope, origin, picture):
    pipe = modelscope.pipeline("image-to-video", str(origin), device="cpu", seed=3, steps=1, progress=False)
    assert pipe.model.cfg.seed == 3
    assert pipe(picture)["seed"] == 3
    assert pipe(picture, seed=4)["seed"] == 4
    assert pipe(picture)["seed"] == 3


@pytest.mark.parametrize("value", [None, 3, {"image": "x"}, object()])
def test_what_is_no_picture(pipe, value):
    with pytest.raises(ArgumentError, match="a picture is expected"):
        pipe(value)


def test_positional_extras(pipe, picture):
    with pytest.raises(ArgumentError, match="list"):
        pipe(picture, picture)


def test_the_model_alone(pipe, picture, modelscope):
    network = pipe.model.clip_encoder
    with Image.open(picture) as opened:
        image = np.array(opened.convert("RGB").resize((network.image_size,) * 2))
    frames = network.preprocess(image)
    video = pipe.model({"vit_frame": torch.cat([frames, frames])}, steps=2)
    assert video.shape == (2, 3, 2, 64, 64)
    assert video.dtype == torch.float32
    assert video.device.type == "cpu"
    assert torch.allclose(video[0], video[1], atol=1e-5)
    assert torch.allclose(video[:1], pipe.model({"vit_frame": frames}, seed=666, steps=2), atol=1e-4)
    assert not torch.allclose(video[:1], pipe.model({"vit_frame": frames}, seed=1, steps=2), atol=1e-2)
    for wrong in ({}, {"vit_frame": image}, frames):
        with pytest.raises(ArgumentError, match="vit_frame"):
            pipe.model(wrong)


def test_parts_of_the_model(pipe):
    for part in (pipe.model.generator, pipe.model.autoencoder, pipe.model.clip_encoder):
        assert sum(parameter.numel() for parameter in part.parameters()) > 0
    assert pipe.model.diffusion.timesteps == 1000
    with pytest.raises(ArgumentError, match="stay where they were loaded"):
        pipe.model.half()


def test_settings_under_the_published_names(own):
    cfg = own.model.cfg
    values = {name: cfg[name] for name in ("max_frames", "latent_hei", "latent_wid", "target_fps", "guide_scale")}
    assert values == {"max_frames": 2, "latent_hei": 8, "latent_wid": 8, "target_fps": 8, "guide_scale": 3.0}
    values = {name: cfg[name] for name in ("ddim_timesteps", "ddim_eta", "seed", "batch_size", "noise_strength")}
    assert values == {"ddim_timesteps": 50, "ddim_eta": 0.0, "seed": 666, "batch_size": 1, "noise_strength": 0.1}
    assert (cfg.num_timesteps, cfg.mean_type, cfg.scale_factor, cfg.vit_resolution) == (1000, "v", 0.18215, [224, 224])
    assert "guide_scale=3.0" in repr(cfg)
    assert not hasattr(cfg, "guide_scal")
    with pytest.raises(KeyError, match="guide_scale"):
        cfg["guide_scal"]


def test_a_write_applies_at_the_next_call_of_that_model_only(own, pipe, picture, modelscope):
    cfg = own.model.cfg
    cfg.max_frames, cfg.latent_wid, cfg.ddim_timesteps, cfg["seed"] = 3, 16, np.int64(1), 7
    cfg.noise_strength = 0.0
    result = own(picture, output_type="frames", progress=False)
    assert result[modelscope.VIDEO].shape == (3, 64, 128, 3)
    assert result["seed"] == 7
    assert (pipe.model.cfg.max_frames, pipe.model.cfg.seed, pipe.model.cfg.noise_strength) == (2, 666, 0.1)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_frame", 3, "did you mean 'max_frames'"),
        ("max_frames", 0, "max_frames = 0"),
        ("max_frames", "many", "max_frames = 'many'"),
        ("latent_hei", None, "latent_hei"),
        ("seed", -1, "seed = -1"),
        ("vit_mean", [0, 0, 0], "settled when the model is loaded"),
    ],
)
def test_wrong_settings(own, name, value, words):
    before = own.model.core.configuration
    with pytest.raises(ArgumentError, match=words):
        setattr(own.model.cfg, name, value)
    assert own.model.core.configuration == before


def test_a_setting_that_the_chosen_sampler_lacks(modelscope, origin):
    pipe = modelscope.pipeline("image-to-video", str(origin), device="cpu", sampler="euler")
    assert not hasattr(pipe.model.cfg, "ddim_eta")
    assert "ddim_eta" not in list(pipe.model.cfg)


def test_a_model_object(modelscope, origin, picture):
    model = modelscope.Model.from_pretrained(str(origin), device="cpu", seed=9)
    assert type(model) is plugin.ImageToVideo
    pipe = modelscope.pipeline("image-to-video", model=model, **FAST)
    assert pipe.model is model
    assert pipe(picture)["seed"] == 9
    pipe = modelscope.pipeline("image-to-video", model=[model], seed=1, **FAST)
    assert (pipe(picture)["seed"], pipe(picture, seed=2)["seed"]) == (1, 2)
    assert model.cfg.seed == 9


def test_a_subclass_of_the_model(modelscope, origin):
    class Mine(plugin.ImageToVideo):
        pass

    assert type(Mine.from_pretrained(str(origin), device="cpu")) is Mine


def test_several_models(modelscope, origin):
    with pytest.raises(ArgumentError, match="one model"):
        modelscope.pipeline("image-to-video", model=[str(origin), str(origin)])


def test_the_classes_alone(origin, picture, logged):
    pipe = plugin.ImageToVideoPipeline(model=str(origin), device="cpu")
    assert pipe.preprocess(picture) == {"picture": picture}
    assert pipe(picture, **FAST)["seed"] == 666
    assert logged == []


def test_through_the_registry(modelscope, origin):
    """ModelScope re-raises constructor errors as `type(error)(text)`: ours survive that."""
    from modelscope.pipelines.builder import PIPELINES, build_pipeline
    from modelscope.utils.config import ConfigDict

    kind = {"type": "image-to-video-task-pipeline", "model": str(origin), "device": "cpu"}
    assert type(build_pipeline(ConfigDict(kind), "image-to-video")) is plugin.ImageToVideoPipeline
    with pytest.raises(ArgumentError, match="ImageToVideoPipeline: unknown argument 'sed'; did you mean 'seed'"):
        build_pipeline(ConfigDict({**kind, "sed": 3}), "image-to-video")
    assert PIPELINES.get("image-to-video-task-pipeline", "image-to-video") is plugin.ImageToVideoPipeline


def test_stages_can_be_changed(modelscope, origin, picture):
    seen = []
    pipe = modelscope.pipeline("image-to-video", str(origin), device="cpu", preprocessor=lambda p: seen.append(p) or p)
    pipe(picture, **FAST)
    assert seen == [picture]

    class Empty(plugin.ImageToVideoPipeline):
        def postprocess(self, inputs, **parameters):
            return {}

    with pytest.raises(I2VGenError, match="the result lacks output_video"):
        Empty(str(origin), device="cpu")(picture, **FAST)


@pytest.mark.parametrize("device", ["cuda:0", "gpu"])
def test_without_cuda_a_gpu_becomes_the_cpu_with_one_warning(modelscope, origin, device):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.warns(plugin.DeviceWarning) as caught:
        pipe = modelscope.pipeline("image-to-video", str(origin), device=device)
    assert len(caught) == 1
    assert "running on the CPU" in str(caught[0].message)
    assert pipe.device.type == pipe.model.device.type == "cpu"


def test_no_device_and_no_warning(modelscope, origin):
    modelscope.pipeline("image-to-video", str(origin))  # a warning would be an error here
    modelscope.Model.from_pretrained(str(origin))


@pytest.mark.parametrize("device", ["xpu:0", "tpu", "", "cpu:0:0"])
def test_devices_that_are_none(modelscope, origin, device):
    with pytest.raises(I2VGenError, match="device"):
        modelscope.pipeline("image-to-video", str(origin), device=device)


def test_the_device_of_a_model_object(modelscope, pipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ArgumentError, match="the model is on cpu"):
        modelscope.pipeline("image-to-video", model=pipe.model, device="cuda:0")


def test_a_call_leaves_the_process_as_it_was(modelscope, origin, picture, monkeypatch):
    def refuse(device):
        raise AssertionError("the current device was changed")

    monkeypatch.setattr(torch.cuda, "set_device", refuse)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), dict(os.environ))
    deterministic, threads = torch.backends.cudnn.deterministic, torch.get_num_threads()
    pipe = modelscope.pipeline("image-to-video", str(origin), device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    first = pipe(picture, **FAST)
    after = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(), dict(os.environ))
    assert before == after
    assert (deterministic, threads) == (torch.backends.cudnn.deterministic, torch.get_num_threads())
    assert pipe(picture, **FAST) == first


def test_threads_share_a_pipeline(pipe, picture, modelscope):
    expected = [pipe(picture, seed=seed, **FAST) for seed in (1, 2)]
    results = {}

    def work(seed):
        results[seed] = pipe(picture, seed=seed, **FAST)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[1], results[2]] == expected


def test_code_in_a_models_folder_is_never_run(modelscope, origin, tmp_path):
    folder = shutil.copytree(origin, tmp_path / "model")
    marker = tmp_path / "marker"
    (folder / "ms_wrapper.py").write_text(f"open({str(marker)!r}, 'w')")
    values = json.loads((folder / "configuration.json").read_text())
    (folder / "configuration.json").write_text(json.dumps({**values, "allow_remote": True, "plugins": ["evil-plugin"]}))
    with pytest.warns(UserWarning, match="plugins, allow_remote"):
        modelscope.pipeline("image-to-video", str(folder), device="cpu", trust_remote_code=True)
    with pytest.warns(UserWarning, match="plugins, allow_remote"):
        modelscope.Model.from_pretrained(str(folder), device="cpu", trust_remote_code=True)
    assert not marker.exists()


def test_a_folder_of_another_task(modelscope, origin, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    values = {"task": "video-to-video", "pipeline": {"type": "video-to-video-pipeline"}}
    (folder / "configuration.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match="holds a model of the task 'video-to-video'"):
        modelscope.pipeline("image-to-video", str(folder))


def test_config_file_is_not_silently_ignored(modelscope, origin):
    with pytest.raises(ArgumentError, match="config_file"):
        modelscope.pipeline("image-to-video", str(origin), config_file=str(Path(origin) / "configuration.json"))
