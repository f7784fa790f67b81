"""What a request may ask for, knob by knob; and that the real pipelines are called as they want to be."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms import demo, errors, random_model
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.pipelines import load
from i2vgen_ms.service import Models, Request, RequestLimits, Service, ServiceSettings
from i2vgen_ms.service.failure import type_of, without_folders
from i2vgen_ms.service.pace import Pace, Rates
from tests import second_stage
from tests.service.conftest import until
from tests.service.stages import FakeStage, asked, both

LIMITS = RequestLimits(
    steps=20, frames=16, width=128, height=128, video_pixels=16 * 96 * 96, guidance_scale=20, text=20,
    picture_bytes=10, video_bytes=20,
)  # fmt: skip

SMALL = {"steps": 2, "num_frames": 4, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def stages() -> Models:
    return both()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"first": {"steps": 21}}, "first: steps is 21, and this server does at most 20"),
        ({"first": {**SMALL, "num_frames": 17}}, "frames is 17, and this server does at most 16"),
        ({"first": {**SMALL, "width": 129}}, "width is 129"),
        ({"first": {**SMALL, "height": 129}}, "height is 129"),
        ({"first": {**SMALL, "width": 128, "height": 128, "num_frames": 16}}, "width x height x frames is 262144"),
        ({"first": {**SMALL, "guidance_scale": -21.0}}, "guidance_scale is 21"),
        ({"first": {**SMALL, "batch_size": 2}}, "batch_size is 2"),
        ({"first": {"steps": -1}}, "steps=-1"),
        ({"first": {"stepz": 1}}, "first: no argument 'stepz'; did you mean 'steps'"),
        ({"first": {"latents": 1}}, "first: no argument 'latents'"),
        ({"first": {"output_type": "pt"}}, "first: no argument 'output_type'"),
        ({"first": {"memory": "fast"}}, "first: no argument 'memory'"),
        ({"first": [1]}, "first: the arguments of a stage are an object"),
        ({"second": {"steps": 1}}, "second: 'image-to-video' has no such stage"),
        ({"text": "x" * 21}, "text has 21 characters; at most 20"),
        ({"text": 3}, "text must be a string, not 3"),
        ({"seed": -1}, "seed=-1"),
        ({"kind": "vidoe"}, "kind: 'vidoe' is unknown"),
        ({"kind": "video-to-video", "first": {}, "second": {"fit": "keep"}}, "fit='keep' is not offered"),
        ({"kind": "video-to-video", "first": {}, "second": {"negative_prompt": "x" * 21}}, "negative_prompt has 21"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_is_beyond_a_limit_is_refused(stages: Models, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ArgumentError) as caught:
        stages.check(asked(**{"first": SMALL} | changes), LIMITS)
    assert words in str(caught.value)
    beyond = "at most" in str(caught.value)
    assert type_of(caught.value) == ("limit" if beyond else "argument")


def test_the_size_of_what_is_sent(stages: Models) -> None:
    stages.check(asked(source=b"x" * 10, first=SMALL), LIMITS)
    with pytest.raises(errors.MediaLimitError, match="the picture has 11 bytes; at most 10"):
        stages.check(asked(source=b"x" * 11), LIMITS)
    clip = {"kind": "video-to-video", "first": {}, "second": {"steps": 2, "width": 64, "height": 64}}
    stages.check(asked(source=b"x" * 20, **clip), LIMITS)
    with pytest.raises(errors.MediaLimitError, match="the video has 21 bytes"):
        stages.check(asked(source=b"x" * 21, **clip), LIMITS)
    with pytest.raises(errors.UnreadableMediaError, match="the picture is empty"):
        stages.check(asked(source=b""), LIMITS)


def test_limits_hold_for_what_the_model_says_too(stages: Models) -> None:
    steps = stages.first.configuration.diffusion.steps
    stages.check(asked(first={}), RequestLimits(steps=steps))
    with pytest.raises(errors.LimitError, match=f"steps is {steps}"):
        stages.check(asked(first={}), RequestLimits(steps=steps - 1))


def test_a_long_clip_in_windows_is_counted_as_the_longest_one(stages: Models) -> None:
    size = {"width": 96, "height": 96, "max_frames": 8, "steps": 2}
    request = asked(kind="video-to-video", first={}, second={**size, "long_clips": "window", "overlap": 4})
    sampling, decoding = stages.check(request, LIMITS)
    assert sampling[1] == 2 * 3 * 8 * 96 * 96, "three windows of eight frames in each of two steps"
    assert decoding[1] == 16 * 96 * 96
    with pytest.raises(errors.LimitError, match="width x height x frames is 147456, and this server does at most"):
        stages.check(request, RequestLimits(frames=16, video_pixels=16 * 96 * 96 - 1))


@pytest.mark.parametrize(
    "given", [{"long_clips": "window", "overlap": 5}, {"window": 5}, {"window": True}, {"window": 5, "overlap": 1}]
)
def test_windows_that_overlap_by_more_than_a_half_are_refused(stages: Models, given: dict[str, Any]) -> None:
    size = {"width": 64, "height": 64, "max_frames": 8, "steps": 2}
    with pytest.raises(errors.LimitError, match=r"second: overlap is [58], and this server does at most 4"):
        stages.check(asked(kind="video-to-video", first={}, second={**size, **given}), LIMITS)
    stages.check(asked(kind="video-to-video", first={}, second={**size, "window": 4}), LIMITS)
    stages.check(asked(kind="video-to-video", first={}, second={**size, "overlap": 5, "window": False}), LIMITS)
    with pytest.raises(errors.ArgumentError, match="overlap='wide'"):
        stages.check(asked(kind="video-to-video", first={}, second={**size, "window": "wide"}), LIMITS)


def test_one_model_does_its_kind_alone() -> None:
    assert both().kinds == ("image-to-video", "video-to-video", "animate")
    one = Models(first=FakeStage())
    assert one.kinds == ("image-to-video",)
    with pytest.raises(errors.ArgumentError, match="no model for 'animate' is loaded here, only for image-to-video"):
        one.check(asked(kind="animate"), RequestLimits())
    with pytest.raises(errors.ArgumentError, match="needs a model"):
        Models()


def test_every_limit_reaches_the_readers() -> None:
    media = LIMITS.media()
    assert (media.urls, media.paths) == ("none", False)
    assert (media.max_bytes, media.max_video_bytes, media.max_frames) == (10, 20, 16)
    documented = RequestLimits.__doc__ or ""
    assert all(f"`{field.name}`" in documented for field in fields(RequestLimits))
    documented = ServiceSettings.__doc__ or ""
    assert all(f"`{field.name}`" in documented for field in fields(ServiceSettings) if field.name != "limits")


def test_the_real_pipelines(tmp_path: Path) -> None:
    first = random_model.make_random_model(tmp_path / "first", {"max_frames": 2, "latent_hei": 4, "latent_wid": 8})
    second = second_stage.make(tmp_path / "second", max_frames=2)
    limits = RequestLimits()
    stages = {"first": load(first, limits=limits.media()), "second": load(second, limits=limits.media())}
    picture, small = demo.sample().path.read_bytes(), {"steps": 1, "width": 64, "height": 48}
    with Service([Models(**stages)], ServiceSettings(folder=tmp_path / "results", preview_side=32)) as service:
        both_stages = Request(
            kind="animate", source=picture, text="a boat", seed=3, preview=True, first={"steps": 2}, second=small
        )
        key = service.submit(both_stages).id
        seen = set()
        while not (status := service.status(key)).finished:
            if status.preview is not None:
                seen.add((status.preview.part, status.preview.frames.shape))
            time.sleep(0.005)
        assert (status.state, status.seed, status.failure) == ("done", 3, None)
        assert ("image-to-video", (2, 16, 32, 3)) in seen
        clip = service.result(key).read_bytes()
        read = read_clip(clip, max_frames=9)
        assert (read.count, read.width, read.height) == (2, 64, 48)
        refined = service.submit(Request(kind="video-to-video", source=clip, second={**small, "window": 1})).id
        assert until(service, refined, "done", "failed").failure is None
        for source in (b"no picture", str(demo.sample().path), "http://127.0.0.1/x.png"):  # the pipeline refuses these
            failed = until(service, service.submit(asked(source=source)).id, "failed")
            assert failed.failure.type in ("unreadable_media", "media_limit"), failed
            assert str(demo.sample().path.parent) not in failed.failure.message


def test_time_left_is_learnt() -> None:
    rates = Rates()
    one = Pace(rates, [("sampling", 10.0), ("decoding", 5.0)], 0.0)
    assert (one.left(0.0), one.progress(0.0)) == (None, 0.0)
    one.advance("sampling", 0.5, 20.0)
    assert (one.left(20.0), one.progress(20.0)) == (20.0, 0.5)
    one.advance("sampling", 1.0, 40.0)
    one.advance("decoding", 0.5, 45.0)
    assert one.left(45.0) == 5.0  # the phase began when the one before it was last heard of
    one.finish(50.0)
    two = Pace(rates, [("sampling", 10.0), ("decoding", 10.0)], 100.0)
    left = two.left(100.0)
    assert left is not None
    assert left > 40.0  # as long as the last one for sampling, more for decoding
    two.advance("nothing known", 0.5, 101.0)
    two.advance("sampling", 0.25, 105.0)
    assert two.left(105.0) is not None
    steady = two.progress(105.0)
    two.advance("sampling", 0.26, 150.0)  # a pause
    assert two.progress(150.0) >= steady


def test_folders_stay_hidden() -> None:
    words = f"cannot read {Path.home()}/models/a.pth, nor '/srv/models/x y': see 3/4"
    assert without_folders(words, ["/srv/models"]) == "cannot read ..., nor '... y': see 3/4"
