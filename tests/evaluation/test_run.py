"""Whole evaluations: of an oracle, of random weights, of an untrained network; from Python and as a command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from i2vgen_ms import random_model
from i2vgen_ms.cli.main import main
from i2vgen_ms.config import reader
from i2vgen_ms.errors import ArgumentError, CheckpointError
from i2vgen_ms.evaluation import run
from i2vgen_ms.evaluation.classifier import Classifier
from i2vgen_ms.evaluation.report import METRICS
from i2vgen_ms.evaluation.run import evaluate, measured
from i2vgen_ms.evaluation.samples import from_world
from i2vgen_ms.evaluation.untrained import write_untrained
from i2vgen_ms.pipelines import load
from i2vgen_ms.world import STANDARD, draw, render
from i2vgen_ms.world.measure import place_error

SIZES = {"max_frames": 3, "latent_hei": 4, "latent_wid": 8}
CONFIGURATION = reader.shipped("image-to-video")
for _path, _value in (("width", 96), ("height", 48), ("num_frames", 9)):
    CONFIGURATION = CONFIGURATION.replace(f"output.{_path}", _value)


@pytest.fixture(autouse=True)
def classifier(trained: tuple[Classifier, Any], monkeypatch: pytest.MonkeyPatch) -> Classifier:
    monkeypatch.setattr(run, "load_classifier", lambda device: trained[0])
    return trained[0]


def test_the_truth_is_perfect_and_a_frozen_video_moves_nowhere(classifier: Classifier) -> None:
    samples = from_world(CONFIGURATION, 10, seed=2)
    perfect = measured(samples.truth, samples, classifier)
    assert set(perfect) == set(METRICS)
    best = {"psnr": 100, "ssim": 1, "perceptual_distance": 0, "direction_accuracy": 1, "motion_accuracy": 1}
    best |= {"temporal_error": 0, "sharpness": 1, "frechet_distance": 0, "first_frame_psnr": 100}
    for name, value in best.items():
        assert perfect[name] == pytest.approx(value, abs=1e-5), name
    assert perfect["place_error"] < 0.06
    assert perfect["flicker"] < 0.002
    frozen = measured(samples.without, samples, classifier)
    assert frozen["direction_accuracy"] == 0
    assert frozen["motion_accuracy"] <= 0.1
    assert frozen["first_frame_psnr"] == 100
    assert frozen["flicker"] == 0
    for name in ("psnr", "ssim"):
        assert frozen[name] < perfect[name]
    for name in ("perceptual_distance", "temporal_error", "place_error", "frechet_distance"):
        assert frozen[name] > perfect[name] + 0.002


def test_means_are_over_all_clips_and_things(classifier: Classifier) -> None:
    samples = from_world(CONFIGURATION, 9, seed=3)
    worse = samples.truth.clone()
    worse[8] = worse[8, :1]
    values = measured(worse, samples, None)
    assert "frechet_distance" not in values
    single = replace(samples, truth=samples.truth[8:], pictures=samples.pictures[8:], scenes=samples.scenes[8:])  # type: ignore[index]
    last = measured(worse[8:], single, None)
    assert values["psnr"] == pytest.approx((8 * 100 + last["psnr"]) / 9, rel=1e-4)
    assert values["motion_accuracy"] == pytest.approx(8 / 9)
    things = [len([1 for thing in scene.things if thing.direction]) for scene in samples.scenes]  # type: ignore[union-attr]
    assert things[8] > 0
    assert values["direction_accuracy"] == pytest.approx(sum(things[:8]) / sum(things))
    assert values["place_error"] == pytest.approx(place_error(worse, samples.scenes or []))


def test_where_nothing_glides_directions_have_no_number() -> None:
    scene = draw(1, 1, variety=replace(STANDARD, motions={"grow": 1.0}, cameras=0.0))
    samples = from_world(CONFIGURATION, 1)
    samples = replace(samples, scenes=[scene], truth=render([scene], frames=9, width=96, height=48))
    values = measured(samples.truth, replace(samples, pictures=None), None)
    assert math.isnan(values["direction_accuracy"])
    assert math.isnan(values["place_error"])
    assert values["motion_accuracy"] == 1
    assert "first_frame_psnr" not in values


class Oracle:
    """A pipeline that knows the answers."""

    def __init__(self, task: str, truth: torch.Tensor | None = None) -> None:
        self.configuration: Any = reader.shipped(task).replace("batch_size", 2)
        for name, value in (("width", 96), ("height", 48), ("num_frames", 9)):
            self.configuration = self.configuration.replace(f"output.{name}", value)
        self.device, self.folder, self.truth = torch.device("cpu"), Path("oracle"), truth
        self.calls: list[tuple[int, dict[str, Any]]] = []
        self.done = 0

    def __call__(self, inputs: list[Any], **call: Any) -> list[Any]:
        self.calls.append((len(inputs), call))
        if self.truth is None:
            self.truth = from_world(self.configuration, 5, seed=2).truth
        videos = self.truth[self.done : self.done + len(inputs)]
        self.done += len(inputs)
        return [SimpleNamespace(tensor=video.movedim(-1, 0) * 1.0) for video in videos]


def test_an_oracle_is_found_perfect(tmp_path: Path) -> None:
    pipe = Oracle("image-to-video")
    report = evaluate(pipe, clips=5, world_seed=2, sheet=tmp_path / "sheet.png", steps=7, progress=False)
    assert list(report.columns) == ["model", "first frame"]
    assert report.columns["model"]["psnr"] == pytest.approx(100)
    assert report.columns["model"]["motion_accuracy"] == 1
    assert report.columns["first frame"]["motion_accuracy"] < 0.5
    assert pipe.calls == [(count, {"steps": 7, "progress": False, "output_type": "pt"}) for count in (2, 2, 1)]
    assert (report.model, report.task, report.clips, report.notes) == ("oracle", "image-to-video", 5, ())
    assert report.settings["steps"] == 7
    assert report.settings["data"] == "world"
    assert (report.settings["width"], report.settings["height"], report.settings["num_frames"]) == (96, 48, 9)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (6 * 98, 5 * 3 * 50)


def test_the_second_stage_is_compared_with_bicubic_enlargement() -> None:
    pipe = Oracle("video-to-video")
    pipe.configuration = pipe.configuration.replace("output.fps", "source")
    report = evaluate(pipe, clips=2, world_seed=2)
    assert list(report.columns) == ["model", "bicubic"]
    assert pipe.calls[0][1] == {"fps": 8, "output_type": "pt"}
    assert "first_frame_psnr" not in report.columns["model"]
    assert report.columns["bicubic"]["psnr"] < 40
    assert report.columns["bicubic"]["sharpness"] < 0.6
    assert report.columns["bicubic"]["motion_accuracy"] == 1


def test_what_cannot_be_measured_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at least two clips" in evaluate(Oracle("image-to-video"), clips=1, world_seed=2).notes[0]

    def missing(device: Any) -> None:
        raise CheckpointError("it was never trained")

    monkeypatch.setattr(run, "load_classifier", missing)
    report = evaluate(Oracle("image-to-video"), clips=2, world_seed=2)
    assert report.notes == ("no Frechet distance: it was never trained",)
    assert "frechet_distance" not in report.columns["model"]


def test_arguments_are_checked_before_anything_is_rendered() -> None:
    pipe = Oracle("image-to-video")
    with pytest.raises(ArgumentError, match="did you mean 'steps'"):
        evaluate(pipe, clips=10**6, step=7)
    assert not pipe.calls


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model.make_random_model(tmp_path_factory.mktemp("model"), SIZES)


def test_the_untrained_model_differs_in_its_st_unet_alone(folder: Path, tmp_path: Path) -> None:
    pipe = load(folder, device="cpu")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    other = load(write_untrained(tmp_path, pipe.configuration, folder, seed=1), device="cpu")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    for name in ("encoder", "autoencoder"):
        pairs = zip(
            getattr(pipe.networks, name).state_dict().values(),
            getattr(other.networks, name).state_dict().values(),
            strict=True,
        )
        assert all(torch.equal(one, two) for one, two in pairs)
    ours, theirs = (one.networks.st_unet.state_dict() for one in (pipe, other))
    assert list(ours) == list(theirs)
    differ = [name for name, tensor in ours.items() if tensor.ndim > 1 and not torch.equal(tensor, theirs[name])]
    assert len(differ) == sum(tensor.ndim > 1 for tensor in ours.values())
    lines = {name.rpartition(".")[2]: set() for name, tensor in theirs.items() if tensor.ndim == 1}
    for name, tensor in theirs.items():
        if tensor.ndim == 1:
            lines[name.rpartition(".")[2]] |= set(tensor.tolist())
    assert lines == {"weight": {1.0}, "bias": {0.0}}


def command(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_command_for_the_first_stage(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[dict[str, Any]] = []
    monkeypatch.setattr(run, "load_pipeline", lambda place, **given: loaded.append(given) or load(place, **given))
    files = ("--out", tmp_path / "eval.json", "--sheet", tmp_path / "sheet.png")
    words = ("--clips", 2, "--baseline", "--steps", 1, "--num-frames", 2, "--no-progress", "--device", "cpu")
    words += ("--dtype", "float32")
    assert command("evaluate", folder, *words, *files) == 0
    assert [given["dtype"] for given in loaded] == ["float32"], "the untrained model is loaded as the other"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{folder}: image-to-video, 2 clips, ")
    assert lines[1].split() == ["better", "model", "first", "frame", "untrained"]
    assert [line.split("  ")[0] for line in lines[2:-1]] == [metric.label for metric in METRICS.values()]
    assert lines[-1] == f"numbers: {tmp_path / 'eval.json'}"
    written = json.loads((tmp_path / "eval.json").read_text())
    assert set(written["columns"]) == {"model", "first frame", "untrained"}
    assert written["columns"]["model"] != written["columns"]["untrained"]
    assert (written["settings"]["num_frames"], written["settings"]["steps"]) == (2, 1)
    assert (tmp_path / "sheet.png").is_file()


def test_the_command_for_the_second_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = random_model.make_random_model(tmp_path / "model", {"max_frames": 2}, task="video-to-video")
    size = ("--width", 64, "--height", 32, "--num-frames", 2)
    assert command("evaluate", model, "--clips", 2, "--steps", 1, *size, "--no-progress", "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["better", "model", "bicubic"]
    assert any(line.startswith("sharpness") for line in lines)


def test_the_command_on_files_of_ones_own(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    assert command("evaluate", folder, "--pairs", pairs) == 2
    assert "no videos in" in capsys.readouterr().err
    for name in "ab":
        samples = from_world(CONFIGURATION, 1, seed=ord(name))
        samples.inputs[0].save(pairs / f"{name}.png")
        turned = [samples.inputs[0].rotate(9 * number) for number in range(1, 6)]
        samples.inputs[0].save(pairs / f"{name}.gif", save_all=True, append_images=turned, duration=100)
    words = ("--pairs", pairs, "--steps", 1, "--num-frames", 2, "--no-progress", "--device", "cpu")
    assert command("evaluate", folder, *words) == 0
    out = capsys.readouterr().out
    assert "direction of the motion" not in out
    assert "2 clips" in out
