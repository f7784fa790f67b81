"""Rows about steps, noise, and settings that nothing reads."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.diffusion.samplers.heun import Heun
from i2vgen_ms.diffusion.schedule import scales, start_scale
from i2vgen_ms.diffusion.spacing import trailing
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines import ImageToVideo, VideoToVideo, load
from i2vgen_ms.tensors import attention
from tests.defects.conftest import Job
from tests.diffusion.cases import Network, conditions, latents, published_stage_2, run, silence, stage_2
from tests.oracle import published, relative_error

CALL: dict[str, Any] = {"steps": 2, "output_type": "pt", "progress": False}


@contextmanager
def calls_of(pipe: ImageToVideo | VideoToVideo) -> Iterator[list[tuple[torch.Tensor, float]]]:
    """States and timesteps that the network is given meanwhile; guidance branches are batched, so one a call of it."""
    seen: list[tuple[torch.Tensor, float]] = []
    hook = pipe.networks.st_unet.register_forward_pre_hook(
        lambda module, args: seen.append((args[0][:1].clone(), float(args[1][0])))
    )
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def timesteps_of(pipe: ImageToVideo | VideoToVideo) -> Iterator[list[float]]:
    """The timesteps alone."""
    seen: list[float] = []
    with calls_of(pipe) as calls:
        yield seen
    seen += [t for _, t in calls]


def noised() -> torch.Tensor:
    """Latents for the small stages' two frames of 32x16."""
    return torch.randn(1, 4, 2, 2, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("places", [30_000, 70_000])
def test_b11_temporal_attention_of_more_places_than_a_chunk(places: int) -> None:
    """B11: 30000 rows are one chunk, above the published limit of 16384, because they are divided by whole numbers."""
    q, k, v = (torch.randn(1, 3, places, 1, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    got = attention.over_frames(attention.sdpa, q, k, v)
    ends = slice(None, None, places - 1)
    expected = attention.over_frames(attention.math, q[:, :, ends], k[:, :, ends], v[:, :, ends])
    assert got.shape == q.shape
    assert relative_error(got[:, :, ends], expected) <= 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the limit is one of CUDA's launches")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.float32, 1e-5)])
def test_b12_temporal_attention_of_more_than_65535_places(dtype: torch.dtype, bound: float) -> None:
    """B12: above about 1024x512 the published temporal attention has more rows than one launch takes."""
    q, k, v = (torch.randn(2, 4, 70_000, 2, 64, device="cuda", dtype=dtype) for _ in range(3))
    got = attention.over_frames(attention.sdpa, q, k, v)[:, :, -5:]
    expected = attention.over_frames(attention.math, q[:, :, -5:], k[:, :, -5:], v[:, :, -5:])
    assert relative_error(got.cpu(), expected.cpu()) <= bound


def test_b20_each_call_has_its_seed_and_no_generator_of_the_process_is_touched(job: Job) -> None:
    """B20: the seed is set once, for the whole process: a second call differs, and a second model seeds the first.

    B21: and the second stage draws the seed of its Brownian path from Python's generator.
    """
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    call = {**CALL, "steps": 3}
    first = job.pipe(job.source, seed=5, **call).tensor
    other = load(job.folder, device="cpu")
    assert torch.equal(job.pipe(job.source, seed=5, **call).tensor, first)
    assert torch.equal(other(job.source, seed=5, **call).tensor, first)
    assert not torch.equal(job.pipe(job.source, seed=6, **call).tensor, first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # type: ignore[index]
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "euler_a", {"type": "ddim", "eta": 1.0}])
def test_b21_the_seed_of_a_call_reaches_the_noise_that_samplers_add(job: Job, sampler: Any) -> None:
    """B21: the seed never reaches the published Brownian path. Nothing else is random here: the latents are given."""
    first_stage = job.pipe.configuration.task == "image-to-video"
    call = {**CALL, "steps": 4, "sampler": sampler, ("latents" if first_stage else "noised_latents"): noised()}
    first = job.pipe(job.source, seed=1, **call).tensor
    torch.manual_seed(12)
    assert torch.equal(job.pipe(job.source, seed=1, **call).tensor, first)
    assert relative_error(job.pipe(job.source, seed=2, **call).tensor, first) > 1e-3


def test_b21_the_path_has_a_seed_of_its_own_if_asked(second: VideoToVideo, clip: np.ndarray) -> None:
    """B21: with `brownian_seed` the call's seed decides everything but the path, and the path stays."""
    call = {**CALL, "steps": 4, "noised_latents": noised()}
    first = second(clip, seed=1, brownian_seed=3, **call).tensor
    assert torch.equal(second(clip, seed=2, brownian_seed=3, **call).tensor, first)
    assert relative_error(second(clip, seed=1, brownian_seed=4, **call).tensor, first) > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_b22_the_start_is_published_by_default_and_true_with_its_option() -> None:
    """B22: the published start is 0.97236 of what it should be; for normal data the true end is known exactly."""
    schedule, spread = stage_2(), 0.7
    sigmas = trailing(schedule, 200, first_timestep=599)
    noised = torch.randn(2, 4, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        a, s = scales(float(sigma))
        return x * (a * spread**2 / (a**2 * spread**2 + s**2))

    a, s = scales(sigmas[0])
    true = noised * spread / math.hypot(a * spread, s)
    ends = {
        mode: run(Heun(), denoise, noised * start_scale(schedule, 599, mode), sigmas, silence)[-1].x
        for mode in ("published", "exact")
    }
    solver = published("video_to_video.utils.solvers_sdedit").sample_heun
    theirs = solver(noised, denoise, torch.tensor(sigmas, dtype=torch.float64), show_progress=False)
    assert relative_error(ends["published"], theirs) <= 1e-9
    assert relative_error(ends["exact"], true) < 1e-3
    assert relative_error(ends["published"], true) == pytest.approx(1 - 0.97236, abs=1e-3)


@pytest.mark.parametrize(
    ("given", "factor"), [({}, 0.97236), ({"start_scale": "published"}, 0.97236), ({"start_scale": "exact"}, 1.0)]
)
def test_b22_the_second_stage_starts_as_published_unless_told_otherwise(
    second: VideoToVideo, clip: np.ndarray, given: dict[str, Any], factor: float
) -> None:
    """B22: what the network sees first is the noised clip times sigma_vp(599), or as it is."""
    with calls_of(second) as calls:
        second(clip, noised_latents=noised(), **CALL, **given)
    x, t = calls[0]
    assert t == 599
    assert relative_error(x, factor * noised()) <= 1e-5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"steps": 4}, [751, 501, 251, 1]),
        ({"steps": 7}, [858, 715, 572, 429, 286, 143, 1]),
        ({"steps": 4, "spacing": "trailing"}, [999, 749, 499, 249]),
        ({"steps": 4, "spacing": "linspace"}, [999, 666, 333, 0]),
    ],
)
def test_b23_exactly_the_asked_steps_on_the_published_grid_or_a_chosen_one(
    pipe: ImageToVideo, picture: np.ndarray, given: dict[str, Any], expected: list[float]
) -> None:
    """B23: the published grid begins short of 999 and, for 7, has 8 steps. The grid is kept, the number is exact."""
    with timesteps_of(pipe) as seen:
        pipe(picture, **{**CALL, **given})
    assert seen == expected


def test_b23_more_steps_than_timesteps_say_so(pipe: ImageToVideo, picture: np.ndarray) -> None:
    """B23: above 1000 the published loop says that a step must not be zero."""
    with pytest.raises(ArgumentError, match=r"steps=1001.*trailing"):
        pipe(picture, **{**CALL, "steps": 1001})


@pytest.mark.filterwarnings("ignore")
def test_b26_every_sampler_takes_one_step_and_the_default_is_one_that_exists(
    second: VideoToVideo, clip: np.ndarray
) -> None:
    """B26: the published default 'euler_a' is in no table, and dpmpp_2m_sde with one step uses what it never set."""
    with pytest.raises(KeyError, match="euler_a"):
        published_stage_2().sample(latents(), Network(), conditions()[0])
    one = {"solver": "dpmpp_2m_sde", "steps": 1, "discard_penultimate_step": False}
    with pytest.raises(UnboundLocalError):
        published_stage_2().sample(latents(), Network(), conditions()[0], t_max=599, discretization="trailing", **one)
    for sampler in (None, "euler_a", "dpmpp_2m_sde", "heun"):
        with timesteps_of(second) as seen:
            result = second(clip, **{**CALL, "steps": 1}, sampler=sampler)
        assert seen == [599], sampler
        assert torch.isfinite(result.tensor).all()


@pytest.mark.parametrize(("strength", "first"), [(None, 599), (0.6, 599), (0.25, 249), (1.0, 999)])
def test_b36_the_start_is_said_and_not_drawn(
    second: VideoToVideo, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch, strength: float | None, first: int
) -> None:
    """B36: the timestep 599 is drawn from a range of one, which takes a number from everybody's generator."""
    monkeypatch.setattr(torch, "randint", refuse_global(torch.randint))
    with timesteps_of(second) as seen:
        second(clip, strength=strength, **{**CALL, "steps": 1})
    assert seen == [first]


def refuse_global(draw: Any) -> Any:
    """A drawing function that is not to be called without a generator of the call's own."""

    def checked(*given: Any, generator: torch.Generator | None = None, **named: Any) -> Any:
        assert generator is not None
        return draw(*given, generator=generator, **named)

    return checked


# A grid of the first stage with levels between timesteps; the second stage's own has such levels.
BETWEEN = {"image-to-video": {"spacing": "karras", "sampler": "euler"}, "video-to-video": {}}


@pytest.mark.parametrize("rounding", [None, "published", "exact"])
def test_b39_the_network_sees_whole_timesteps_unless_told_otherwise(job: Job, rounding: str | None) -> None:
    """B39: between timesteps the published network is shown the nearest whole one; `timestep_rounding` mends it."""
    assert job.pipe.configuration.diffusion.timestep_rounding == "published"
    given = BETWEEN[job.pipe.configuration.task]
    with timesteps_of(job.pipe) as seen:
        job.pipe(job.source, **{**CALL, "steps": 6, "timestep_rounding": rounding, **given})
    assert len(seen) == 6
    assert all(t == round(t) for t in seen) == (rounding != "exact")
    if not given:
        exact = [599 - step * 600 / 7 for step in range(6)]
        assert seen == pytest.approx(exact if rounding == "exact" else [round(t) for t in exact], abs=1e-3)


# Another value for every setting that the published configuration stores.
OTHER: dict[str, Any] = {
    "diffusion.schedule.timesteps": 900,
    "diffusion.prediction": "eps",
    "diffusion.sampler.type": "heun",
    "diffusion.sampler.eta": 0.5,
    "diffusion.steps": 3,
    "diffusion.guidance.scale": 4.0,
    "diffusion.guidance.rescale": 0.5,
    "diffusion.timestep_rounding": "exact",
    "diffusion.offset_noise": 0.3,
    "output.width": 48,
    "output.height": 24,
    "output.num_frames": 3,
    "seed": 7,
}
BETAS = {"timesteps": 1000, "first_beta": 0.00085, "last_beta": 0.012}
OTHER_OF = {
    "image-to-video": OTHER
    | {
        "diffusion.schedule.type": {"type": "linear", **BETAS},
        "diffusion.schedule.first_beta": 0.002,
        "diffusion.schedule.last_beta": 0.02,
        "diffusion.schedule.zero_terminal_snr": True,
        "diffusion.spacing.type": "trailing",
        "input.crop": "pad",
        "input.crop_size": 64,
        "output.fps": 12,
    },
    "video-to-video": OTHER
    | {
        "diffusion.schedule.type": {"type": "linear_sd", **BETAS},
        "diffusion.schedule.logsnr_min": -10.0,
        "diffusion.schedule.logsnr_max": 12.0,
        "diffusion.schedule.scale_min": 1.0,
        "diffusion.schedule.scale_max": 2.0,
        "diffusion.schedule.zero_terminal_snr": False,
        "diffusion.spacing.type": "leading",
        "diffusion.sampler.s_noise": 0.5,
        "input.fit": "pad",
        "input.long_clips": "window",
        "input.overlap": 1,
        "start.strength": 0.3,
        "start.scale": "exact",
        "start.posterior": "mode",
        "prompt.suffix": "",
        "prompt.negative": "dull",
    },
}
SAME_NUMBERS = {
    "diffusion.guidance.type": "there is one",
    "diffusion.guidance.branches": "two ways to compute the same",
    "output.writer": "of the file, not of the frames",
    "batch_size": "groups the inputs of a list",
    "memory": "where the tensors are, on CUDA",
    "on_oom": "what follows running out of memory",
    "cuda_graphs": "how the network's kernels are launched, on CUDA",
    "compile": "the same network, by another compiler",
}
SAME_NUMBERS_OF: dict[str, dict[str, str]] = {
    "image-to-video": SAME_NUMBERS | {"input.first_frame": "goes with the network's input; see test_first_frame.py"},
    "video-to-video": SAME_NUMBERS
    | {
        "output.fps": "of the file, not of the frames",
        "input.reader": "of the clip's file",
        "solver_modes": "what a folder's solver_mode chooses from",
    },
}
# What makes a setting count, where the plain call does not: levels between timesteps; frames beyond num_frames.
BASE: dict[tuple[str, str], dict[str, Any]] = {
    ("image-to-video", "diffusion.timestep_rounding"): {"diffusion.spacing": "karras", "diffusion.steps": 3},
    ("video-to-video", "diffusion.timestep_rounding"): {"diffusion.steps": 6},
    ("video-to-video", "input.overlap"): {"input.long_clips": "window", "output.num_frames": 3},
}
SECTIONS = (
    *("diffusion", "input", "output", "seed", "batch_size", "memory", "on_oom", "cuda_graphs", "compile"),
    *("start", "prompt", "solver_modes"),
)


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and key not in ("writer", "reader", "solver_modes"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.filterwarnings("ignore:.*left out.*")
def test_c3_no_setting_is_stored_and_never_read(job: Job) -> None:
    """C3: the published configuration names a schedule, clamping and more that no code looks at."""
    pipe = load(job.folder, device="cpu")
    task = pipe.configuration.task
    source = job.source if task == "image-to-video" else np.concatenate([job.source, 255 - job.source])
    values = {name: value for name, value in pipe.configuration.to_json().items() if name in SECTIONS}
    assert set(leaves(values)) == {*OTHER_OF[task], *SAME_NUMBERS_OF[task]}
    plain = pipe.configuration.replace("diffusion.steps", 2)
    unread = []
    for path, other in OTHER_OF[task].items():
        base = plain
        for changed, value in BASE.get((task, path), {}).items():
            base = base.replace(changed, value)
        results = []
        for pipe.configuration in (base, base.replace(path.removesuffix(".type"), other)):
            results.append(pipe(source, output_type="pt", progress=False).tensor)
        if results[0].shape == results[1].shape and torch.equal(*results):
            unread.append(path)
    assert unread == []
