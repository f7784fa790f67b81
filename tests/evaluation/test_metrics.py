"""The metrics against other implementations, closed forms, and what they are meant to notice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.evaluation import metrics
from i2vgen_ms.world import draw, render

TRUTH = render([draw(31, index) for index in range(3)], frames=4, width=64, height=32)
NOISE = torch.randn(TRUTH.shape, generator=torch.Generator().manual_seed(1))
NOISY = (TRUTH + 0.2 * NOISE).clamp(-1, 1)
LUMA = np.array([0.299, 0.587, 0.114])


def unit(video: Tensor) -> np.ndarray:
    return (video.double().numpy() + 1) / 2


def blur(video: Tensor) -> Tensor:
    return (
        F.avg_pool2d(video.flatten(0, 1).movedim(-1, 1), 5, 1, 2, count_include_pad=False)
        .movedim(1, -1)
        .unflatten(0, video.shape[:2])
    )


def constant(value: float, frames: int = 1) -> Tensor:
    return torch.full((1, frames, 32, 32, 3), value * 2 - 1)


def test_psnr_is_the_error_in_decibels() -> None:
    assert metrics.psnr(constant(0.5), constant(0.4)).item() == pytest.approx(20, abs=1e-4)
    assert metrics.psnr(constant(1.0), constant(0.0)).item() == pytest.approx(0, abs=1e-4)
    assert metrics.psnr(TRUTH, TRUTH).tolist() == [metrics.IDENTICAL_DB] * 3
    wanted = [-10 * np.log10(((a - b) ** 2).mean()) for a, b in zip(unit(NOISY), unit(TRUTH), strict=True)]
    assert metrics.psnr(NOISY, TRUTH).tolist() == pytest.approx(wanted, abs=1e-4)


def test_psnr_sees_no_more_than_a_file_can_hold() -> None:
    assert metrics.psnr(constant(1.4), constant(1.0)).item() == metrics.IDENTICAL_DB


def test_the_first_frame_is_compared_with_the_picture() -> None:
    worse = TRUTH.clone()
    worse[:, 1:] = 0
    assert metrics.first_frame_psnr(worse, TRUTH[:, 0]).tolist() == [metrics.IDENTICAL_DB] * 3
    assert (metrics.first_frame_psnr(NOISY, TRUTH[:, 0]) < 25).all()


def test_ssim_equals_that_of_a_gaussian_filter_of_scipy() -> None:
    def reference(x: np.ndarray, y: np.ndarray) -> float:
        def smooth(plane: np.ndarray) -> np.ndarray:
            return scipy.ndimage.gaussian_filter(plane, 1.5, truncate=3.5)[5:-5, 5:-5]

        mx, my = smooth(x), smooth(y)
        vx, vy, vxy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
        c1, c2 = 1e-4, 9e-4
        return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())

    for video in (NOISY, blur(TRUTH)):
        wanted = [
            np.mean([reference(x, y) for x, y in zip(a @ LUMA, b @ LUMA, strict=True)])
            for a, b in zip(unit(video), unit(TRUTH), strict=True)
        ]
        assert metrics.ssim(video, TRUTH).tolist() == pytest.approx(wanted, abs=2e-5)
    assert metrics.ssim(TRUTH, TRUTH).tolist() == pytest.approx([1] * 3, abs=1e-6)


def test_ssim_of_constants_is_its_first_term() -> None:
    wanted = (2 * 0.05 * 0.02 + 1e-4) / (0.05**2 + 0.02**2 + 1e-4)
    assert metrics.ssim(constant(0.05), constant(0.02)).item() == pytest.approx(wanted, abs=1e-3)


def test_the_perceptual_distance_equals_one_written_with_scipy() -> None:
    kernel = np.array([[1, 0, -1]] * 3) / 3

    def deviation(x: np.ndarray, y: np.ndarray) -> float:
        gx, gy = (
            np.hypot(
                scipy.ndimage.correlate(z, kernel, mode="nearest"), scipy.ndimage.correlate(z, kernel.T, mode="nearest")
            )
            for z in (x, y)
        )
        constant = 170 / 255**2
        return float(((2 * gx * gy + constant) / (gx**2 + gy**2 + constant)).var())

    def reference(x: np.ndarray, y: np.ndarray) -> float:
        total = 0.0
        for weight in (0.096, 0.596, 0.289, 0.019):
            total += weight * deviation(x, y)
            x, y = (z.reshape(z.shape[0] // 2, 2, z.shape[1] // 2, 2).mean((1, 3)) for z in (x, y))
        return total**0.5

    a, b = unit(NOISY), unit(TRUTH)
    wanted = [
        np.mean([reference(a[n, f, :, :, c], b[n, f, :, :, c]) for f in range(4) for c in range(3)]) for n in range(3)
    ]
    assert metrics.perceptual_distance(NOISY, TRUTH).tolist() == pytest.approx(wanted, rel=1e-4)
    assert metrics.perceptual_distance(TRUTH, TRUTH).tolist() == [0] * 3


@pytest.mark.parametrize("damage", [blur, lambda video: video.roll(4, dims=3), lambda video: NOISY])
def test_damage_is_seen_by_every_distance(damage: Callable[[Tensor], Tensor]) -> None:
    video = damage(TRUTH)
    assert (metrics.psnr(video, TRUTH) < 32).all()
    assert (metrics.ssim(video, TRUTH) < 0.97).all()
    assert (metrics.perceptual_distance(video, TRUTH) > 0.05).all()


def test_temporal_error_is_about_changes_alone() -> None:
    assert metrics.temporal_error(TRUTH * 0.5 + 0.1, TRUTH * 0.5).tolist() == pytest.approx([0] * 3, abs=1e-7)
    frozen = TRUTH[:, :1].expand_as(TRUTH)
    changes = np.abs(np.diff(unit(TRUTH), axis=1)).mean((1, 2, 3, 4))
    assert metrics.temporal_error(frozen, TRUTH).tolist() == pytest.approx(changes, abs=1e-6)


def test_flicker_counts_where_the_truth_stands_still() -> None:
    truth = constant(0.5, frames=3).clone()
    truth[:, 1, :16] = 1.0  # the upper half moves
    video = truth.clone()
    video[:, 1, 16:] += 0.2  # 0.1 of the range, in the lower half, there and back
    assert metrics.flicker(video, truth).item() == pytest.approx(0.1, abs=1e-6)
    assert metrics.flicker(truth, truth).item() == 0
    video = truth.clone()
    video[:, :, :16] = 0
    assert metrics.flicker(video, truth).item() == 0
    truth = constant(0.5, frames=3).clone()
    truth[:, 1, ..., 0] += 0.2  # one colour is enough to move
    video = truth.clone()
    video[:, 1, ..., 1] += 0.2
    assert metrics.flicker(video, truth).item() == 0
    flashing = torch.cat([constant(0.2), constant(0.8)], dim=1)
    assert metrics.flicker(flashing.flip(1), flashing).item() == 0  # nothing stands still


def test_sharpness_is_a_ratio() -> None:
    assert metrics.sharpness(TRUTH, TRUTH).tolist() == pytest.approx([1] * 3)
    assert metrics.sharpness(TRUTH * 0.5, TRUTH).tolist() == pytest.approx([0.25] * 3, rel=1e-4)
    assert (metrics.sharpness(blur(TRUTH), TRUTH) < 0.3).all()
    assert (metrics.sharpness(NOISY, TRUTH) > 1.2).all()
    assert metrics.sharpness(constant(0.1), constant(0.2)).isfinite().all()


EVERY = (
    metrics.psnr, metrics.ssim, metrics.perceptual_distance, metrics.temporal_error, metrics.flicker, metrics.sharpness
)  # fmt: skip


@pytest.mark.parametrize("metric", EVERY)
def test_each_video_of_a_batch_counts_for_itself(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    both = metric(NOISY, TRUTH)
    assert both.shape == (3,)
    for index in range(3):
        assert metric(NOISY[index : index + 1], TRUTH[index : index + 1]).item() == pytest.approx(
            both[index].item(), rel=1e-5
        )


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("shape", [(3, 4, 32, 63, 3), (4, 32, 64, 3), (0, 4, 32, 64, 3)])
def test_videos_of_two_shapes_are_refused(metric: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="of one shape"):
        metric(torch.zeros(shape), TRUTH if len(shape) == 5 and shape[0] else torch.zeros(shape))


def test_what_is_too_small_or_too_short_is_refused() -> None:
    with pytest.raises(ArgumentError, match="11x11"):
        metrics.ssim(TRUTH[:, :, :10], TRUTH[:, :, :10])
    with pytest.raises(ArgumentError, match="24x24"):
        metrics.perceptual_distance(TRUTH[:, :, :20], TRUTH[:, :, :20])
    with pytest.raises(ArgumentError, match="two frames"):
        metrics.temporal_error(TRUTH[:, :1], TRUTH[:, :1])
