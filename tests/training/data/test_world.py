"""The procedural world as data: which scenes a batch shows, and what is held out."""

from __future__ import annotations

import pytest
import torch

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training import assembly
from i2vgen_ms.training.data.batch import Batch, Spec
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.training.settings import read
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import draw

CPU, SPEC = torch.device("cpu"), Spec(3, 32, 16, 4)


def batch(source: WorldSource, number: int, count: int = 2) -> Batch:
    return source.finish(source.prepare(source.plan(number, count, SPEC)), CPU)


def test_a_batch_is_the_worlds_scenes_of_its_numbers() -> None:
    made = batch(WorldSource(seed=5, split="x"), 3)
    scenes = [draw(5, index, split="x", aspect=2.0) for index in (6, 7)]
    assert torch.equal(made.pixels, render(scenes, frames=3, width=32, height=16, fps=4))
    assert made.captions == tuple(scene.caption for scene in scenes)
    assert made.fps.tolist() == [4.0, 4.0]
    assert torch.equal(made.first, made.pixels[:, 0])


def test_a_few_scenes_come_over_and_over() -> None:
    source = WorldSource(seed=5, split="x", scenes=3)
    assert [source.plan(number, 2, SPEC).indices for number in range(3)] == [(0, 1), (2, 0), (1, 2)]


def test_shapes_and_shares_are_chosen() -> None:
    hearts = WorldSource(seed=1, split="x", shapes=["heart"], pairs=1.0, cameras=0.0)
    captions = batch(hearts, 0, 8).captions
    assert all(caption.count("heart") == 2 and "camera" not in caption for caption in captions)
    assert not any("heart" in caption for caption in batch(WorldSource(seed=1, split="x"), 0, 16).captions)
    with pytest.raises(ConfigurationError, match=r"data: there is no shape 'hart'.*did you mean 'heart'"):
        WorldSource(seed=1, split="x", shapes=["hart"])


def test_validation_shows_other_scenes_unless_they_are_few() -> None:
    settings = read("small-image-to-video").replace("data.pool", None)
    task: assembly.Task = None  # type: ignore[assignment]  # only files ask for it
    sources = assembly.sources(settings, settings.data, task)
    assert batch(sources.train, 0).captions != batch(sources.held_out, 0).captions
    assert (sources.train.workers, sources.held_out.workers) == (10, 0)
    few = settings.replace("data.scenes", 2).data
    sources = assembly.sources(settings, few, task)
    assert batch(sources.train, 0).captions == batch(sources.held_out, 0).captions
