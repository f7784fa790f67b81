"""Whole runs on the smallest models: that they learn, end, tell what they do, and leave a model behind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from i2vgen_ms.config import reader
from i2vgen_ms.errors import ConfigurationError, OutputError
from i2vgen_ms.pipelines import load
from i2vgen_ms.training import Trainer
from i2vgen_ms.training.data.batch import Plan
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.weights.check import check
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.training import small


def run(settings, **given) -> Path:
    return Trainer(settings, device="cpu", progress=False, **given).train()


class OneClip(WorldSource):
    """The same clips in every batch, so that a run has something to learn by heart."""

    def __init__(self) -> None:
        super().__init__(seed=0, split="train")
        self.asked: list[Plan] = []

    def plan(self, number, count, spec) -> Plan:
        self.asked.append(Plan(number, tuple(range(count)), spec))
        return self.asked[-1]


@pytest.fixture
def one_clip() -> OneClip:
    return OneClip()


QUICK = {"optimiser.learning_rate": 0.01, "optimiser.weight_decay": 0.0, "ema": 0.0, "length.steps": 24}


@pytest.mark.parametrize("task", ["image-to-video", "video-to-video"])
def test_the_st_unet_learns_a_clip_by_heart(first, second, tmp_path, one_clip, task: str) -> None:
    model = first if task == "image-to-video" else second
    settings = small.settings(
        f"small-{task}", model, tmp_path / "run", **QUICK, weights={**MODEL, "st_unet": "random"}, batch__clips=8
    )
    run(settings, source=one_clip)
    losses = [entry["loss"] for entry in small.log(tmp_path / "run")]
    assert len(losses) == 24
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:3])


MODEL = {"encoder": "model", "st_unet": "model", "autoencoder": "model"}
RANDOM = dict.fromkeys(MODEL, "random")


def test_the_autoencoder_learns_and_its_latents_get_unit_size(first, tmp_path, one_clip) -> None:
    settings = small.settings("small-autoencoder", first, tmp_path / "run", **QUICK, weights=RANDOM)
    made = run(settings, source=one_clip)
    log = small.log(tmp_path / "run")
    assert log[-1]["absolute"] < 0.7 * log[0]["absolute"]
    assert log[-1]["loss"] == pytest.approx(
        log[-1]["absolute"] + log[-1]["squared"] + 0.5 * log[-1]["edges"] + 1e-4 * log[-1]["kl"], rel=1e-4
    )
    configuration = reader.read(made)
    trainer = Trainer(
        small.settings("small-autoencoder", made, tmp_path / "again", weights=MODEL), device="cpu", source=one_clip
    )
    latents = trainer.evaluate()["latents"]
    assert configuration.autoencoder.options["scale_factor"] != 1.0
    assert latents * configuration.autoencoder.options["scale_factor"] == pytest.approx(1.0, rel=0.35)
    assert sorted(path.name for path in made.iterdir()) == ["autoencoder.safetensors", "configuration.json"]


def test_the_encoders_find_their_partners(first, second, tmp_path, one_clip) -> None:
    settings = small.settings(
        "small-encoders",
        first,
        tmp_path / "run",
        **{**QUICK, "length.steps": 60, "optimiser.learning_rate": 0.003},
        weights=RANDOM,
        text_model=str(second),
        batch={"clips": 8, "pictures": 8, "accumulation": 1},
        validation={"times": 1, "clips": 8, "steps": None},
    )
    made = run(settings, source=one_clip)
    (found,) = small.log(tmp_path / "run", "validation")
    assert found["text found"] >= 0.75
    assert found["picture found"] >= 0.75
    for task, model in (("image-to-video", first), ("video-to-video", second)):
        assert reader.read(made / task).encoder == reader.read(model).encoder
        network = open_checkpoint(made / task / "encoder.safetensors")
        assert network.keys() == open_checkpoint(model / "encoder.safetensors").keys()


def test_an_encoder_from_a_folder_that_holds_one_is_refused(first, second, tmp_path) -> None:
    settings = small.settings(
        "small-encoders", first, tmp_path / "run", text_model=str(second), weights={**RANDOM, "encoder": str(first)}
    )
    with pytest.raises(ConfigurationError, match=r"weights\.encoder: one folder holds no two encoders"):
        Trainer(settings, device="cpu")
    settings = small.settings("small-encoders", second, tmp_path / "run", text_model=str(second), weights=RANDOM)
    with pytest.raises(ConfigurationError, match="model: the task of the model is 'video-to-video'"):
        Trainer(settings, device="cpu")


def test_what_is_made_loads_as_a_pipeline_with_the_average_of_the_weights(second, tmp_path) -> None:
    settings = small.settings(
        "small-video-to-video", second, tmp_path / "run", ema=0.5, **{"optimiser.learning_rate": 0.1}, export="float16"
    )
    trainer = Trainer(settings, device="cpu", progress=False)
    made = trainer.train()
    assert check(made).ok, str(check(made))
    saved = open_checkpoint(made / "st_unet.safetensors")
    own = dict(trainer.task.network.named_parameters())
    for name, tensor in trainer.average.values.items():
        assert torch.equal(saved[name].load(), tensor.half())
    assert not torch.equal(saved["head.weight"].load(), own["head.weight"].detach().half())
    pipe = load(made, device="cpu")
    clip = np.zeros((4, 8, 16, 3), np.uint8)
    result = pipe(clip, output_type="frames", fps=8, progress=False)
    assert result.frames.shape == (4, 16, 32, 3)


@pytest.mark.parametrize("extra", [False, True])
def test_a_first_stage_works_as_a_pipeline_too(tmp_path, extra: bool) -> None:
    model = small.folder(tmp_path / "model", "image-to-video", extra=extra)
    made = run(small.settings("small-image-to-video", model, tmp_path / "run"))
    result = load(made, device="cpu")(np.zeros((16, 32, 3), np.uint8), output_type="frames", progress=False)
    assert result.frames.shape == (4, 16, 32, 3)


def test_pictures_take_their_turn_and_skip_the_temporal_path(first, tmp_path, one_clip) -> None:
    clips = {"frames": [2, 3], "fps": [4, 8], "sizes": [[32, 16], [16, 16]], "pictures_every": 4}
    batch = {"clips": 2, "pictures": 5, "accumulation": 2}
    settings = small.settings(
        "small-image-to-video", first, tmp_path / "run", clips=clips, batch=batch, length={"steps": 8, "minutes": None}
    )
    trainer = Trainer(settings, device="cpu", progress=False, source=one_clip)
    seen = []
    call = trainer.task.network.forward

    def spy(x, t, **conditions):
        seen.append((tuple(x.shape), conditions["skip_temporal"]))
        return call(x, t, **conditions)

    trainer.task.network.forward = spy
    trainer.train()
    assert [len(shape_and_skip[0]) for shape_and_skip in seen] == [5] * 16
    for number, (shape, skip) in enumerate(seen):
        still = number // 2 in (3, 7)
        assert skip == still
        assert (shape[0], shape[2] == 1) == ((5, True) if still else (2, False))
    plans = one_clip.asked[:16]
    assert [plan.number for plan in plans] == [0, 1, 2, 3, 4, 5, 0, 1, 6, 7, 8, 9, 10, 11, 2, 3]
    videos = [plan.spec for plan in plans if not plan.spec.still]
    assert {spec.frames for spec in videos} == {2, 3}
    assert {spec.fps for spec in videos} == {4, 8}
    assert {(spec.width, spec.height) for spec in videos} == {(32, 16), (16, 16)}
    assert all(plans[i].spec == plans[i + 1].spec for i in range(0, 16, 2)), "batches of a step are alike"


def test_the_rate_follows_the_schedule_and_the_phases(first, tmp_path) -> None:
    settings = small.settings(
        "small-image-to-video",
        first,
        tmp_path / "run",
        length={"steps": 8, "minutes": None},
        rate={"schedule": "constant", "warm_up": 0.25, "final": 0.0},
        phases=[{"share": 0.5, "rate": 1.0, "data": None}, {"share": 0.5, "rate": 0.1, "data": OTHER}],
        **{"optimiser.learning_rate": 0.001},
    )
    run(settings)
    rates = [entry["rate"] for entry in small.log(tmp_path / "run")]
    expected = [1e-5, 1e-3, 1e-3, 1e-3, 1e-6, 1e-4, 1e-4, 1e-4]
    assert rates == pytest.approx(expected)


OTHER = {
    "kind": "world",
    "seed": 9,
    "split": "train",
    "scenes": None,
    "shapes": ["heart"],
    "pairs": 0.0,
    "cameras": 0.0,
    "pool": None,
    "workers": 0,
}


def test_a_run_by_the_clock_ends_by_itself_and_its_rate_follows_the_time(first, tmp_path, monkeypatch) -> None:
    """Each step takes 0.05 s of a clock that goes with the steps."""
    begun, one_step = [], Trainer._one_step
    monkeypatch.setattr(Trainer, "_one_step", lambda self, *given: begun.append(0.05) or one_step(self, *given))
    monkeypatch.setattr("i2vgen_ms.training.rate.Clock.seconds", lambda self: sum(begun))
    settings = small.settings(
        "small-image-to-video",
        first,
        tmp_path / "run",
        length={"steps": None, "minutes": 1.5 / 60},
        rate={"schedule": "cosine", "warm_up": 0.0, "final": 0.0},
        ema=0.0,
    )
    made = run(settings)
    log = small.log(tmp_path / "run")
    assert len(log) == 30
    assert log[-1]["minutes"] == pytest.approx(1.5 / 60)
    for step, entry in enumerate(log):  # the rate of a step is that of the time when it began
        expected = settings.optimiser.learning_rate * 0.5 * (1 + math.cos(math.pi * step / 30))
        assert entry["rate"] == pytest.approx(expected)
    assert check(made).ok


def test_validations_write_numbers_and_videos(second, tmp_path) -> None:
    settings = small.settings(
        "small-video-to-video",
        second,
        tmp_path / "run",
        length={"steps": 4, "minutes": None},
        validation={"times": 2, "clips": 3, "steps": 1},
    )
    run(settings)
    found = small.log(tmp_path / "run", "validation")
    assert [entry["step"] for entry in found] == [2, 4]
    assert found[0].keys() == {"kind", "step", "loss", "psnr", "psnr first frame", "psnr given"}
    assert found[0]["psnr given"] == found[1]["psnr given"], "the same clips, spoilt in the same way"
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step-000002-given-made-truth.mp4", "step-000004-given-made-truth.mp4"]
    with av.open(str(tmp_path / "run" / "samples" / names[0])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (3 * (32 + 8), 3 * (16 + 8))
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_tensorboard_and_the_bar_when_they_are_wanted(first, tmp_path, capfd) -> None:
    settings = small.settings("small-image-to-video", first, tmp_path / "run", log={"every": 2, "tensorboard": True})
    Trainer(settings, device="cpu", progress=True).train()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("train/loss")]
    assert logged == pytest.approx([entry["loss"] for entry in small.log(tmp_path / "run")])
    assert "step 4" in capfd.readouterr().err


def test_what_was_made_is_replaced_whole(first, tmp_path) -> None:
    output = tmp_path / "run"
    run(small.settings("small-image-to-video", first, output))
    before = {path.name: path.read_bytes() for path in (output / "model").iterdir()}
    (output / "model" / "note").write_text("of the first run")
    run(small.settings("small-image-to-video", first, output, seed=2))
    after = {path.name: path.read_bytes() for path in (output / "model").iterdir()}
    assert after.keys() == before.keys()
    assert after["st_unet.safetensors"] != before["st_unet.safetensors"]
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_a_folder_that_holds_a_run_is_not_overwritten(first, tmp_path) -> None:
    settings = small.settings("small-image-to-video", first, tmp_path / "run", state={"every": 2})
    run(settings)
    with pytest.raises(OutputError, match="holds a run already"):
        Trainer(settings, device="cpu")


def test_settings_that_the_model_has_no_use_for_are_refused(first, second, tmp_path) -> None:
    degrading = small.settings("small-video-to-video", second, tmp_path).to_json()["objective"]["degrading"]
    wrong = small.settings("small-image-to-video", first, tmp_path, objective__degrading=degrading)
    with pytest.raises(ConfigurationError, match="only video-to-video starts from a clip"):
        Trainer(wrong, device="cpu")


def test_the_settings_of_a_run_are_written_down(first, tmp_path) -> None:
    settings = small.settings("small-image-to-video", first, tmp_path / "run")
    run(settings)
    assert type(settings).from_json(json.loads((tmp_path / "run" / "settings.json").read_text())) == settings
