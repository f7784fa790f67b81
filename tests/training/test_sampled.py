"""A validation samples from where the pipeline does, under the same conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from i2vgen_ms.media.frames import to_pixels, to_uint8
from i2vgen_ms.pipelines import load
from i2vgen_ms.training import Trainer
from i2vgen_ms.training.data.batch import Batch, Spec
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.training.randomness import derive
from tests.training import small

CPU = torch.device("cpu")
CHANGES: dict[str, dict[str, Any]] = {
    "image-to-video": {"diffusion__offset_noise": 0.3},
    "video-to-video": {
        "diffusion__offset_noise": 0.3,
        "start__scale": "published",
        "start__posterior": "mode",
        "prompt__suffix": ", very sharp",
        "prompt__negative": "blurry and dark",
    },
}


class Asked(Exception):
    """What a sampler was given."""

    def __init__(self, x: torch.Tensor, first: int | None, positive: Any, negative: Any) -> None:
        super().__init__()
        self.x, self.first, self.positive, self.negative = x, first, positive, negative


def stop(network: Any, diffusion: Any, x: torch.Tensor, *, positive: Any, negative: Any, **given: Any) -> None:
    raise Asked(x, given.get("first_timestep"), positive, negative)


@pytest.mark.parametrize("task", CHANGES)
def test_a_validation_asks_what_the_pipeline_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    model = small.folder(tmp_path / "model", task, **CHANGES[task])
    objective = {"objective.posterior": "mode"} | ({"objective.degrading": None} if task == "video-to-video" else {})
    trainer = Trainer(small.settings(f"small-{task}", model, tmp_path / "run", **objective), device="cpu")
    source = WorldSource(seed=0, split="test")
    made = source.finish(source.prepare(source.plan(0, 2, Spec(small.FRAMES, small.WIDTH, small.HEIGHT, 8))), CPU)
    levels = to_uint8(made.pixels)
    pixels = to_pixels(torch.from_numpy(levels))
    batch = Batch(pixels=pixels, first=pixels[:, 0], captions=made.captions, fps=made.fps)
    monkeypatch.setattr("i2vgen_ms.training.sampled.sample", stop)
    monkeypatch.setattr(f"i2vgen_ms.pipelines.{task.replace('-', '_')}.sample", stop)
    with pytest.raises(Asked) as validation, trainer.task.evaluation(None):
        trainer.task.validate(batch, 5)
    pipe = load(model, device="cpu")
    for index, clip in enumerate(levels):
        given: Any = {"video_path": clip, "text": batch.captions[index]}
        if task == "image-to-video":
            given = Image.fromarray(clip[0])
        with pytest.raises(Asked) as call:
            pipe(given, seed=derive(5, index), fps=8, output_type="frames", progress=False)
        ours, theirs = validation.value, call.value
        assert ours.first == theirs.first
        torch.testing.assert_close(ours.x[index : index + 1], theirs.x, rtol=0, atol=1e-4)
        for mine, its in ((ours.positive, theirs.positive), (ours.negative, theirs.negative)):
            assert mine.keys() == its.keys()
            for name, value in mine.items():
                close = 0.1 if name == "image" else 1e-3  # which is resampled with Pillow there
                torch.testing.assert_close(value[index : index + 1], its[name].to(value), rtol=0, atol=close)


def test_clips_that_are_there_are_not_decoded_again(second: Path, tmp_path: Path) -> None:
    task: Any = Trainer(small.settings("small-video-to-video", second, tmp_path), device="cpu").task
    source, calls = WorldSource(seed=0, split="test"), []
    batch = source.finish(source.prepare(source.plan(0, 1, Spec(2, small.WIDTH, small.HEIGHT, 8))), CPU)
    decode = task._networks.autoencoder.decode_all
    task._through_the_autoencoder = lambda pixels: pixels
    task._networks.autoencoder.decode_all = lambda latents: calls.append(1) or decode(latents)
    with task.evaluation(None):
        assert torch.equal(task.validate(batch, 0).columns["truth"], batch.pixels)
    assert len(calls) == 1, "what was made"
