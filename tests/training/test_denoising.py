"""What the ST-UNet is told in training, beside what the pipelines tell it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.media.crop import crop_picture, resize_for_encoder
from i2vgen_ms.media.frames import to_pixels, to_uint8
from i2vgen_ms.pipelines.conditions import first_frame_input
from i2vgen_ms.training import Trainer, networks
from i2vgen_ms.training.data.batch import Batch, Spec
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.training.pictures import encoder_pictures
from i2vgen_ms.training.randomness import Draws
from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import draw
from tests.training import small

CPU = torch.device("cpu")


def batch(count: int = 4, frames: int = 3, width: int = small.WIDTH, height: int = small.HEIGHT) -> Batch:
    source = WorldSource(seed=0, split="test")
    return source.finish(source.prepare(source.plan(0, count, Spec(frames, width, height, 8))), CPU)


class Spy:
    """A network that writes down what it is asked, and answers nothing."""

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **conditions) -> torch.Tensor:
        self.x, self.t, self.conditions = x, t, conditions
        return torch.zeros_like(x)


def asked(
    model: Path, name: str = "small-image-to-video", seed: int = 0, made: Batch | None = None, **objective
) -> Spy:
    """What a task asks of its network for a batch, under changed values of its objective."""
    changes = {f"objective.{key}": value for key, value in objective.items()}
    settings = small.settings(name, model, Path("unused"), **changes)
    spy, task = Spy(), Trainer(settings, device="cpu").task
    spy.task = task
    spy.loss, _ = task.loss(spy, made or batch(), Draws.at(CPU, seed, "test"))
    return spy


@pytest.mark.parametrize("crop", ["fill", "centre-square", "pad"])
@pytest.mark.parametrize(("width", "height"), [(32, 16), (128, 64), (40, 64)])
def test_the_encoder_sees_what_the_pipeline_shows_it(crop: str, width: int, height: int) -> None:
    changes = {"input__crop": crop, "input__crop_size": min(width, height)}
    configuration = small.configuration("image-to-video", **changes)
    encoder = networks.fresh(configuration, "encoder", 0)
    first = render([draw(0, 1, aspect=width / height)], frames=1, width=width, height=height)[:, 0]
    ours = encoder_pictures(first, encoder, configuration)
    image = to_uint8(first[0])
    size = max(width, height) if crop == "pad" else configuration.input.crop_size
    cut = crop_picture(image, crop, size=size, width=width, height=height)
    theirs = encoder.preprocess(resize_for_encoder(cut, encoder.image_size))
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().mean()) < 0.02
    assert float((ours - theirs.flip(-1)).abs().mean()) > 0.1


def test_without_dropout_the_conditions_are_the_pictures_and_the_rate(first) -> None:
    made = batch()
    spy = asked(first, made=made, condition_dropout=0.0)
    parts = spy.task._networks
    vectors = parts.encoder(encoder_pictures(made.first, parts.encoder, spy.task._configuration))
    torch.testing.assert_close(spy.conditions["image"], vectors)
    assert spy.conditions["fps"].tolist() == [8.0] * 4
    latents = parts.autoencoder.encode(made.first[:, None]).mode()[:, 0].permute(0, 3, 1, 2)
    torch.testing.assert_close(spy.conditions["extra"], first_frame_input(latents, 3, "latents"))
    assert spy.conditions["skip_temporal"] is False


def test_dropout_puts_nothing_in_the_place_of_a_condition(first, second) -> None:
    kept = asked(first, condition_dropout=0.0).conditions
    gone = asked(first, condition_dropout=1.0, extra_dropout=0.0).conditions
    assert not gone["image"].any()
    assert torch.equal(gone["extra"], kept["extra"]), "which is the same in both branches of the guidance"
    assert not asked(first, extra_dropout=1.0).conditions["extra"].any()
    words = asked(second, "small-video-to-video", condition_dropout=1.0)
    nothing = words.task._networks.encoder([""])
    torch.testing.assert_close(words.conditions["text"], nothing.expand_as(words.conditions["text"]))


def test_dropout_falls_on_its_share_of_the_examples(first) -> None:
    made = batch(64, 1, 16, 8)
    images = asked(first, made=made, condition_dropout=0.25).conditions["image"]
    dropped = int((images.flatten(1) == 0).all(1).sum())
    assert 6 <= dropped <= 28


def test_latents_are_the_posteriors_mode_or_a_sample(first) -> None:
    modes = [asked(first, seed=seed, posterior="mode", offset_noise=0.0) for seed in (0, 0, 1)]
    samples = asked(first, posterior="sample", offset_noise=0.0)
    assert torch.equal(modes[0].x, modes[1].x)
    assert not torch.equal(modes[0].x, modes[2].x)
    assert not torch.equal(modes[0].x, samples.x)


def test_the_second_stage_is_told_the_caption_and_asked_below_its_start(second) -> None:
    made = batch(16, 1)
    spy = asked(second, "small-video-to-video", made=made, condition_dropout=0.0)
    torch.testing.assert_close(spy.conditions["text"], spy.task._networks.encoder(list(made.captions)))
    assert spy.conditions.keys() == {"text", "skip_temporal"}
    strength = spy.task._configuration.start.strength
    assert strength * 1000 - 1 - 1000 / 16 < float(spy.t.max()) <= strength * 1000 - 1
    assert float(asked(second, "small-video-to-video", made=made, start=0.1).t.max()) <= 99


def test_spoilt_clips_are_shown_in_their_shares(second) -> None:
    made = batch(64, 1)
    spoiling = small.settings("small-video-to-video", second, Path("x")).to_json()["objective"]["degrading"]

    def states(full: float, between: float, **changes) -> torch.Tensor:
        wanted = spoiling | {"full": full, "between": between, "noise": [0.1, 0.1]} | changes
        return asked(second, "small-video-to-video", made=made, degrading=wanted, condition_dropout=0.0).x

    clean, all_spoilt, mixed = states(0.0, 0.0), states(1.0, 0.0), states(0.5, 0.25)
    distance = ((mixed - clean) / (all_spoilt - clean)).flatten(1).median(dim=1).values
    assert 20 <= int((distance > 0.999).sum()) <= 44
    assert 6 <= int((distance < 1e-3).sum()) <= 28
    assert int(((distance > 1e-3) & (distance < 0.999)).sum()) >= 6
    odd = states(1.0, 0.0, factors=[3.0], autoencoded=1.0)  # sides that the autoencoder cannot halve are padded
    assert torch.isfinite(odd).all()
    assert not torch.equal(odd, all_spoilt)


def test_clips_that_are_kept_as_latents_cannot_be_spoilt(second, tmp_path) -> None:
    data = small.settings("small-video-to-video", second, tmp_path).to_json()["data"] | {"pool": 4}
    phases = [{"share": 0.5, "rate": 1.0, "data": None}, {"share": 0.5, "rate": 1.0, "data": data}]
    with pytest.raises(ConfigurationError, match=r"settings: phases\.1\.data\.pool: clips are spoilt as pixels"):
        Trainer(small.settings("small-video-to-video", second, tmp_path, phases=phases), device="cpu")
    made = replace(batch(), pixels=None, moments=(torch.zeros(4, 3, 2, 4, 4),) * 2)
    with pytest.raises(ConfigurationError, match=r"objective\.degrading spoils pixels, and .* gave latents"):
        asked(second, "small-video-to-video", made=made)


def test_the_loss_of_a_network_that_says_nothing_is_the_size_of_the_answer(first) -> None:
    spy = asked(first, offset_noise=0.0)
    assert 0.2 < float(spy.loss) < 2.0


def test_an_extra_input_that_is_not_known_is_refused(first, tmp_path) -> None:
    settings = small.settings("small-image-to-video", first, tmp_path)
    task = Trainer(settings, device="cpu").task
    task._networks.st_unet.extra_channels = 3
    with pytest.raises(ConfigurationError, match="extra_channels is 3; what is known here"):
        type(task)(settings, task._configuration, task._networks, CPU)


def test_cached_moments_give_the_same_question_as_the_pixels(first) -> None:
    made = batch()
    levels = torch.from_numpy(np.asarray(to_uint8(made.pixels)))
    pixels = to_pixels(levels)
    plain = Batch(pixels=pixels, first=pixels[:, 0], captions=made.captions, fps=made.fps)
    spy = asked(first, made=plain)
    moments = spy.task.moments(levels)
    kept = Batch(pixels=None, first=pixels[:, 0], captions=made.captions, fps=made.fps, moments=moments)
    again = asked(first, made=kept)
    torch.testing.assert_close(again.x, spy.x)
    torch.testing.assert_close(again.conditions["extra"], spy.conditions["extra"])
