"""The image-to-video pipeline as its callers see it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import torch

from i2vgen_ms import catalogue
from i2vgen_ms.errors import ArgumentError, Cancelled, NonFiniteError, OutputError
from i2vgen_ms.pipelines import Progress, load

QUICK = {"steps": 2, "output_type": "frames", "progress": False}


def frames(pipe, picture, **given):
    return pipe(picture, **QUICK | given).frames


def test_a_file_is_written_and_its_path_returned_as_given(pipe, picture, tmp_path) -> None:
    target = str(tmp_path / "a video; touch PWNED.mp4")
    result = pipe(picture, output=target, steps=2, seed=7, progress=False)
    assert (result.path, result.seed, result.video) == (target, 7, None)
    with av.open(target) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (64, 32, 8)
        assert sum(1 for _ in container.decode(video=0)) == 3
        assert "seed=7" in container.metadata["comment"]
    assert [path.name for path in tmp_path.iterdir()] == ["a video; touch PWNED.mp4"]


def test_without_output_the_bytes_of_an_mp4_are_returned(pipe, picture) -> None:
    result = pipe(picture, steps=1, progress=False)
    assert result.path is None
    assert result.video[4:8] == b"ftyp"


def test_frames_and_tensors(pipe, picture) -> None:
    result = pipe(picture, **QUICK)
    assert result.frames.shape == (3, 32, 64, 3)
    assert result.frames.dtype == np.uint8
    tensor = pipe(picture, **QUICK | {"output_type": "pt"}).tensor
    assert tensor.shape == (3, 3, 32, 64)
    assert tensor.dtype == torch.float32
    expected = ((tensor.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 3, 0).numpy().astype(int)
    assert np.abs(result.frames.astype(int) - expected).max() <= 1


def test_the_seed_decides_and_nothing_else_does(pipe, picture) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = frames(pipe, picture, seed=5)
    torch.rand(3)
    assert np.array_equal(frames(pipe, picture, seed=5), first)
    assert not np.array_equal(frames(pipe, picture, seed=6), first)
    assert np.array_equal(frames(pipe, picture), frames(pipe, picture, seed=666))
    torch.set_rng_state(states[0])
    frames(pipe, picture, sampler="euler_a")
    frames(pipe, picture, sampler="dpmpp_2m_sde", steps=3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_the_picture_matters(pipe, picture) -> None:
    assert not np.array_equal(frames(pipe, picture), frames(pipe, 255 - picture))


@pytest.mark.parametrize("sampler", sorted(catalogue.names("samplers")))
@pytest.mark.parametrize("spacing", sorted(catalogue.names("spacings")))
def test_every_sampler_takes_every_spacing(pipe, picture, sampler, spacing) -> None:
    seen: list[Progress] = []
    frames(pipe, picture, sampler=sampler, spacing=spacing, steps=3, num_frames=1, progress=seen.append)
    assert [event.step for event in seen if event.stage == "sampling"] == [1, 2, 3]
    assert all(torch.isfinite(event.latents).all() for event in seen if event.latents is not None)


@pytest.mark.parametrize(("width", "height", "count"), [(64, 32, 1), (71, 33, 2), (50, 90, 5), (8, 8, 2), (120, 24, 1)])
def test_any_size_and_number_of_frames(pipe, picture, tmp_path, width, height, count) -> None:
    target = tmp_path / "video.mp4"
    result = pipe(picture, output=target, **QUICK | {"width": width, "height": height, "num_frames": count})
    assert result.frames.shape == (count, height, width, 3)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        # H.264 with yuv420p has even sides only; the writer repeats the last row or column of odd ones.
        assert (stream.width, stream.height) == (width + width % 2, height + height % 2)


def test_sizes_are_padded_and_cropped_not_rescaled(pipe, picture) -> None:
    """The frames of 60x30 are the upper left of those of 64x32: the same latents, cropped after decoding."""
    whole = frames(pipe, picture)
    assert np.array_equal(frames(pipe, picture, width=60, height=30), whole[:, :30, :60])


def test_lists_give_one_file_each(pipe, picture, tmp_path) -> None:
    pictures = [picture, 255 - picture, picture[:, ::-1]]
    results = pipe(pictures, output=str(tmp_path / "o.mp4"), **QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o_0.mp4", "o_1.mp4", "o_2.mp4"]
    assert [result.path for result in results] == [str(tmp_path / f"o_{index}.mp4") for index in range(3)]
    for one, result in zip(pictures, results, strict=True):
        assert np.array_equal(frames(pipe, one), result.frames)


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "dpmpp_2m_sde"])
def test_a_batch_equals_its_items(pipe, picture, sampler) -> None:
    pictures = [picture, 255 - picture, picture[:, ::-1]]
    call = {"steps": 3, "output_type": "pt", "progress": False, "sampler": sampler}
    together = pipe(pictures, batch_size=2, **call)
    for one, result in zip(pictures, together, strict=True):
        alone = pipe(one, **call).tensor
        assert (alone - result.tensor).norm() / alone.norm() < 1e-5


def test_latents_are_used_as_they_are(pipe, picture) -> None:
    latents = torch.randn(1, 4, 3, 4, 8, generator=torch.Generator().manual_seed(1))
    kept = latents.clone()
    first = frames(pipe, picture, latents=latents, seed=1)
    assert np.array_equal(first, frames(pipe, picture, latents=latents, seed=2))
    assert torch.equal(latents, kept)
    with pytest.raises(ArgumentError, match=r"need 1 4 3 4 8"):
        frames(pipe, picture, latents=latents[:, :, :2])
    with pytest.raises(ArgumentError, match="b c f h w"):
        frames(pipe, picture, latents=np.zeros((1, 4, 3, 4, 8)))


def test_progress_may_cancel_and_then_nothing_is_written(pipe, picture, tmp_path) -> None:
    target = tmp_path / "video.mp4"
    target.write_bytes(b"precious")
    for stage in "sampling", "decoding":
        with pytest.raises(Cancelled, match=stage):
            pipe(picture, output=target, steps=2, progress=lambda event, stage=stage: event.stage != stage)
        assert target.read_bytes() == b"precious"
        assert list(tmp_path.iterdir()) == [target]


def test_places_that_cannot_be_written_are_found_out_before_the_work(pipe, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pipe, "_latents", lambda *_: pytest.fail("the work began"))
    for target in tmp_path / "missing" / "video.mp4", tmp_path / "video.xyz":
        with pytest.raises(OutputError):
            pipe(picture, output=target, progress=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"step": 3}, "unknown argument 'step'; did you mean 'steps'"),
        ({"steps": 0}, "steps=0"),
        ({"steps": "many"}, "steps='many'"),
        ({"sampler": "hune"}, "did you mean 'heun'"),
        ({"sampler": {"type": "ddim", "etta": 1}}, "did you mean 'eta'"),
        ({"spacing": 3}, "spacing=3"),
        ({"guidance_scale": "high"}, "guidance_scale='high'"),
        ({"num_frames": -1}, "num_frames=-1"),
        ({"width": 0}, "width=0"),
        ({"crop": "centre"}, "crop='centre'"),
        ({"output_type": "gif"}, "output_type='gif'"),
        ({"progress": 3}, "progress must be"),
        ({"dtype": "float8"}, "dtype 'float8'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, "seed="),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_arguments_are_named(pipe, picture, given, words) -> None:
    with pytest.raises(ArgumentError) as error:
        pipe(picture, **{"progress": False} | given)
    assert words in str(error.value)


def test_numbers_of_numpy_and_torch_are_numbers(pipe, picture) -> None:
    plain = frames(pipe, picture, seed=3, steps=1)
    assert np.array_equal(frames(pipe, picture, seed=np.int64(3), steps=torch.tensor(1)), plain)


def test_crop_decides_what_the_encoder_sees(pipe, picture) -> None:
    made = {crop: frames(pipe, picture, crop=crop, steps=1) for crop in ("centre-square", "fill", "pad")}
    assert not np.array_equal(made["centre-square"], made["fill"])
    assert not np.array_equal(made["centre-square"], made["pad"])


def test_guidance_branches_agree(pipe, picture) -> None:
    call = {**QUICK, "output_type": "pt"}
    batched, sequential = (pipe(picture, guidance_branches=kind, **call).tensor for kind in ("batched", "sequential"))
    assert (batched - sequential).norm() / batched.norm() < 1e-5
    assert not torch.equal(batched, pipe(picture, guidance_scale=1.0, **call).tensor)


def test_another_dtype_for_one_call(pipe, picture) -> None:
    call = {**QUICK, "output_type": "pt", "steps": 1}
    exact = pipe(picture, **call).tensor
    rough = pipe(picture, dtype={"st_unet": "bfloat16"}, **call).tensor
    assert 1e-5 < (rough - exact).norm() / exact.norm() < 0.1
    assert torch.equal(pipe(picture, **call).tensor, exact)


def test_not_a_number_is_an_error_and_no_file(pipe, picture, tmp_path) -> None:
    latents = torch.full((1, 4, 3, 4, 8), float("nan"))
    with pytest.raises(NonFiniteError, match="NaN"):
        pipe(picture, output=tmp_path / "video.mp4", latents=latents, steps=2, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_threads_share_a_pipeline(pipe, picture) -> None:
    serial = [frames(pipe, picture, seed=seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        parallel = list(pool.map(lambda seed: frames(pipe, picture, seed=seed), range(3)))
    assert all(np.array_equal(one, other) for one, other in zip(serial, parallel, strict=True))


def test_a_cached_copy_of_the_weights_gives_the_same_video(folder, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("I2VGEN_MS_CACHE", str(tmp_path))
    first, again = (load(folder, device="cpu", dtype={"st_unet": "bfloat16"}, cache=True) for _ in range(2))
    assert [path.suffix for path in (tmp_path / "converted").iterdir()] == [".safetensors"]
    assert np.array_equal(frames(first, picture), frames(again, picture))
