"""The small video classifier: what it is asked, that training teaches it, that files keep it, what its features see."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from i2vgen_ms.errors import ArgumentError, CheckpointError, ConfigurationError, OutputError
from i2vgen_ms.evaluation import classifier as module
from i2vgen_ms.evaluation.classifier import CLASSES, Classifier, Settings, features, load, read_settings, save
from i2vgen_ms.evaluation.classifier_training import answers, batches, train
from i2vgen_ms.evaluation.frechet import frechet_distance
from i2vgen_ms.world import draw, render

CPU = torch.device("cpu")
Trained = tuple[Classifier, dict[str, Any]]


def test_answers_are_what_is_done_and_what_is_shown() -> None:
    scene = draw(1, 0)
    spin = replace(scene, things=(replace(scene.things[0], motion="spin", turn=-1),), camera="zoom in")
    shown = replace(scene, things=(replace(scene.things[0], shape="heart", colour="pink"),))
    glide = replace(scene, things=(replace(scene.things[0], motion="glide", heading=6),), camera="still")
    said = answers([shown, shown], [spin, glide], CPU)
    words = [{name: CLASSES[name][int(places[row])] for name, places in said.items()} for row in range(2)]
    same = {"shape": "heart", "colour": "pink"}
    assert words == [
        {"motion": "counter-clockwise", "camera": "zoom in", **same},
        {"motion": "glide up", "camera": "still", **same},
    ]


def batch(settings: Settings, mismatched: float, split: str = "train") -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    numbers = settings.training.model_copy(update={"mismatched": mismatched})
    return next(batches(numbers, split, CPU))


def test_marks_say_nothing_where_motions_are_mismatched(settings: Settings) -> None:
    own, swapped = batch(settings, 0.0), batch(settings, 1.0)
    for question in ("motion", "camera"):
        assert torch.equal(own[1][question], swapped[1][question])
    for question in ("shape", "colour"):
        assert torch.equal(own[1][question].roll(-1), swapped[1][question])
    assert not torch.equal(own[0], swapped[0])
    half = batch(settings, 0.5)[0]
    alike = sum(torch.equal(one, other) for one, other in zip(half, own[0], strict=True))
    assert 2 <= alike <= 6
    assert not torch.equal(batch(settings, 0.0, "held-out")[0], own[0])


def test_batches_go_on(settings: Settings) -> None:
    first, second = islice(batches(settings.training, "train", CPU), 2)
    assert first[0].shape == second[0].shape == (8, 4, 64, 128, 3)
    assert not torch.equal(first[0], second[0])


def test_features_of_a_video_do_not_depend_on_the_batch_or_the_size(trained: Trained) -> None:
    classifier, _ = trained
    scenes = [draw(41, index) for index in range(5)]
    video = render(scenes, frames=6)
    found = features(classifier, video, batch=2)
    assert found.shape == (5, 16)
    torch.testing.assert_close(found[3:4], features(classifier, video[3:4]), rtol=1e-4, atol=1e-4)
    large = features(classifier, render(scenes, frames=6, width=256, height=128))
    away = (large - found).norm(dim=1)
    assert (away < 0.3 * torch.cdist(found, found).max()).all()
    assert features(classifier, video[:1, :2]).shape == (1, 16)


def test_a_followed_place_is_where_the_activation_is(settings: Settings) -> None:
    network = Classifier(numbers=settings.network)
    with torch.no_grad():
        network.to_places.weight.zero_()
        network.to_places.weight[1, 0] = 1.0
    x = torch.zeros(1, 24, 3, 5, 9)
    x[0, 0, :, 4, 2] = 20.0  # the last row, a quarter of the way from left to right
    x[0, 0, 2, 4, 2], x[0, 0, 2, 0, 8] = 0.0, 20.0  # and at the last moment the upper right corner
    places = network._places(x).view(2, 4, 3)
    torch.testing.assert_close(places[:, 1], torch.tensor([[-0.5, -0.5, 1.0], [1.0, 1.0, -1.0]]))
    torch.testing.assert_close(places[:, 0], torch.zeros(2, 3))


def test_training_learns_and_is_the_same_each_time(settings: Settings, trained: Trained) -> None:
    state = torch.random.get_rng_state()
    short, measured = train(settings, device="cpu", steps=3)
    again, _ = train(settings, device="cpu", steps=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in short.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert measured["steps"] == 3
    assert measured["clips"] == 24
    chance = sum(math.log(len(classes)) for classes in CLASSES.values())
    after = trained[1]
    assert after["loss"] < chance - 0.8 < measured["loss"]
    assert after["camera"] > 0.5
    assert not any(parameter.requires_grad for parameter in trained[0].parameters())


def test_training_ends_when_its_time_is_up(settings: Settings) -> None:
    _, measured = train(settings, device="cpu", seconds=0.5)
    assert 0.5 <= measured["seconds"] < 3
    assert measured["steps"] > 0
    with pytest.raises(ArgumentError, match="never end"):
        train(settings, device="cpu")


def test_a_file_keeps_the_classifier(settings: Settings, trained: Trained, tmp_path: Path) -> None:
    classifier, measured = trained
    path = save(classifier, settings, tmp_path / "new", measured)
    assert sorted(file.name for file in path.parent.iterdir()) == ["classifier.json", "classifier.safetensors"]
    loaded = load(path.parent)
    video = render([draw(42, 0), draw(42, 1)], frames=4)
    torch.testing.assert_close(features(loaded, video), features(classifier, video), rtol=0.02, atol=0.02)
    assert read_settings(path.parent) == settings
    before = path.read_bytes()
    assert save(classifier, settings, path.parent, measured).read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_left_clean(
    settings: Settings, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(module.os, "replace", fail)
    with pytest.raises(OutputError, match="the disk is gone"):
        save(trained[0], settings, tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_the_shipped_settings_make_a_file_of_less_than_two_mib() -> None:
    with torch.device("meta"):
        network = Classifier(numbers=read_settings().network)
    assert 2 * sum(parameter.numel() for parameter in network.parameters()) < 2 * 2**20 - 10_000


def test_what_cannot_be_loaded_says_what_to_do(settings: Settings, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        load(tmp_path)
    path = save(trained[0], settings, tmp_path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"train it: python -m i2vgen_ms\.evaluation\.classifier --out"):
        load(tmp_path)
    values = settings.model_dump()
    values["training"]["batches"] = 3
    (tmp_path / "classifier.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=r"training\.batches: unknown key; did you mean 'batch'"):
        load(tmp_path)


def test_the_command_trains_and_writes(
    settings: Settings, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(trained[0], settings, tmp_path / "settings", {})
    words = ["--out", str(tmp_path / "new"), "--settings", str(tmp_path / "settings"), "--seconds", "0.2"]
    assert module.main([*words, "--device", "cpu"]) == 0
    measured, path = capsys.readouterr().out.splitlines()
    assert set(json.loads(measured)) == {"steps", "seconds", "clips", "loss", *CLASSES}
    assert load(Path(path).parent).numbers == settings.network


@pytest.mark.parametrize("shape", [(1, 1, 16, 32, 3), (2, 16, 32, 3), (1, 4, 3, 16, 32)])
def test_what_is_no_video_is_refused(trained: Trained, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="at least two frames"):
        trained[0].features(torch.zeros(shape))


def test_the_frechet_distance_sees_what_is_missing(trained: Trained) -> None:
    one, other = ([draw(seed, index) for index in range(40)] for seed in (43, 44))
    empty = [replace(scene, things=()) for scene in other]
    faded = [replace(scene, things=tuple(replace(thing, colour="blue") for thing in scene.things)) for scene in other]
    true, again, without, blue = (
        features(trained[0], render(scenes, frames=4, fps=4, width=64, height=32))
        for scenes in (one, other, empty, faded)
    )
    near = frechet_distance(true, again)
    assert 2 * near < frechet_distance(true, without)
    assert 1.2 * near < frechet_distance(true, blue)
