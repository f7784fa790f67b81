"""Rows about steps, noise, and settings that nothing reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.diffusion.samplers.heun import Heun
from i2vgen_ms.diffusion.schedule import scales, start_scale
from i2vgen_ms.diffusion.spacing import trailing
from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.pipelines import ImageToVideo, load
from i2vgen_ms.tensors import attention
from tests.diffusion.cases import run, silence, stage_2
from tests.oracle import published, relative_error

CALL: dict[str, Any] = {"steps": 2, "output_type": "pt", "progress": False}


@contextmanager
def timesteps_of(pipe: ImageToVideo) -> Iterator[list[float]]:
    """The timesteps that the network is given meanwhile; guidance branches are batched, so one a network call."""
    seen: list[float] = []
    hook = pipe.networks.st_unet.register_forward_pre_hook(lambda module, args: seen.append(float(args[1][0])))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the limit is one of CUDA's launches")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.float32, 1e-5)])
def test_b12_temporal_attention_of_more_than_65535_places(dtype: torch.dtype, bound: float) -> None:
    """B12: above about 1024x512 the published temporal attention has more rows than one launch takes."""
    q, k, v = (torch.randn(2, 4, 70_000, 2, 64, device="cuda", dtype=dtype) for _ in range(3))
    got = attention.over_frames(attention.sdpa, q, k, v)[:, :, -5:]
    expected = attention.over_frames(attention.math, q[:, :, -5:], k[:, :, -5:], v[:, :, -5:])
    assert relative_error(got.cpu(), expected.cpu()) <= bound


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "euler_a", {"type": "ddim", "eta": 1.0}])
def test_b21_the_seed_of_a_call_reaches_the_noise_that_samplers_add(
    pipe: ImageToVideo, picture: np.ndarray, sampler: Any
) -> None:
    """B21: the seed never reaches the published Brownian path. Nothing else is random here: the latents are given."""
    latents = torch.randn(1, 4, 2, 2, 4, generator=torch.Generator().manual_seed(1))
    call = {**CALL, "steps": 4, "sampler": sampler, "latents": latents}
    first = pipe(picture, seed=1, **call).tensor
    torch.manual_seed(12)
    assert torch.equal(pipe(picture, seed=1, **call).tensor, first)
    assert relative_error(pipe(picture, seed=2, **call).tensor, first) > 1e-3


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


@pytest.mark.parametrize("rounding", ["published", "exact"])
def test_b39_the_network_sees_whole_timesteps_unless_told_otherwise(
    folder: Path, picture: np.ndarray, rounding: str
) -> None:
    """B39: between timesteps the published network is shown the nearest whole one; `timestep_rounding` mends it."""
    pipe = load(folder, device="cpu")
    assert pipe.configuration.diffusion.timestep_rounding == "published"
    pipe.configuration = pipe.configuration.replace("diffusion.timestep_rounding", rounding)
    with timesteps_of(pipe) as seen:
        pipe(picture, **{**CALL, "steps": 5, "spacing": "karras", "sampler": "euler"})
    assert len(seen) == 5
    assert all(t == round(t) for t in seen) == (rounding == "published")


# Another value for every setting that the published configuration stores, and what makes it count.
OTHER: dict[str, Any] = {
    "diffusion.schedule.type": "linear",
    "diffusion.schedule.timesteps": 900,
    "diffusion.schedule.first_beta": 0.002,
    "diffusion.schedule.last_beta": 0.02,
    "diffusion.schedule.zero_terminal_snr": True,
    "diffusion.prediction": "eps",
    "diffusion.spacing.type": "trailing",
    "diffusion.sampler.type": "heun",
    "diffusion.sampler.eta": 0.5,
    "diffusion.steps": 3,
    "diffusion.guidance.scale": 4.0,
    "diffusion.guidance.rescale": 0.5,
    "diffusion.timestep_rounding": "exact",
    "diffusion.offset_noise": 0.3,
    "input.crop": "pad",
    "input.crop_size": 64,
    "output.width": 48,
    "output.height": 24,
    "output.num_frames": 3,
    "output.fps": 12,
    "seed": 7,
}
SAME_NUMBERS = {
    "diffusion.guidance.type": "there is one",
    "diffusion.guidance.branches": "two ways to compute the same",
    "output.writer": "of the file, not of the frames",
    "batch_size": "groups the inputs of a list",
}


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and key != "writer":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_c3_no_setting_is_stored_and_never_read(folder: Path, picture: np.ndarray) -> None:
    """C3: the published configuration names a schedule, clamping and more that no code looks at."""
    pipe = load(folder, device="cpu")
    sections = ("diffusion", "input", "output", "seed", "batch_size")
    values = {name: value for name, value in pipe.configuration.to_json().items() if name in sections}
    assert set(leaves(values)) == {*OTHER, *SAME_NUMBERS}
    plain = pipe.configuration.replace("diffusion.steps", 2)
    between = plain.replace("diffusion.spacing", "karras").replace("diffusion.steps", 3)  # levels between timesteps
    unread = []
    for path, other in OTHER.items():
        base = between if path == "diffusion.timestep_rounding" else plain
        part = path.removesuffix(".type") if path in ("diffusion.spacing.type", "diffusion.sampler.type") else path
        results = []
        for pipe.configuration in (base, base.replace(part, other)):
            results.append(pipe(picture, output_type="pt", progress=False).tensor)
        if results[0].shape == results[1].shape and torch.equal(*results):
            unread.append(path)
    assert unread == []
