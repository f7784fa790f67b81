"""The Frechet distance against its closed forms and scipy's matrix root."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from i2vgen_ms.errors import ArgumentError, NonFiniteError
from i2vgen_ms.evaluation.frechet import Gaussian, distance, frechet_distance, gaussian

RANDOM = np.random.default_rng(5)


def covariance(size: int) -> np.ndarray:
    half = RANDOM.normal(size=(size, size))
    return half @ half.T


def test_gaussians_of_one_dimension() -> None:
    one, other = Gaussian(np.array([1.0]), np.array([[4.0]])), Gaussian(np.array([3.0]), np.array([[0.25]]))
    assert distance(one, other) == pytest.approx((1 - 3) ** 2 + (2 - 0.5) ** 2)


def test_covariances_that_commute_have_a_closed_form() -> None:
    turn = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0]
    first, second = RANDOM.uniform(0, 3, 6), RANDOM.uniform(0, 3, 6)
    one, other = (
        Gaussian(mean, turn * values @ turn.T) for mean, values in ((np.zeros(6), first), (np.ones(6), second))
    )
    assert distance(one, other) == pytest.approx(6 + ((first**0.5 - second**0.5) ** 2).sum())


def test_any_covariances_agree_with_scipys_matrix_root() -> None:
    a, b, shift = covariance(8), covariance(8), RANDOM.normal(size=8)
    wanted = shift @ shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert distance(Gaussian(shift, a), Gaussian(np.zeros(8), b)) == pytest.approx(wanted)
    assert distance(Gaussian(np.zeros(8), b), Gaussian(shift, a)) == pytest.approx(wanted)


def test_samples_come_near_the_distance_of_their_gaussians() -> None:
    a, b = np.diag([1.0, 2.0, 0.5]), covariance(3)
    first = RANDOM.multivariate_normal([0, 0, 0], a, size=40_000)
    second = RANDOM.multivariate_normal([1, 0, -1], b, size=40_000)
    wanted = distance(Gaussian(np.zeros(3), a), Gaussian(np.array([1.0, 0, -1]), b))
    assert frechet_distance(first, torch.from_numpy(second)) == pytest.approx(wanted, rel=0.05)


def test_a_set_has_no_distance_from_itself_also_with_fewer_samples_than_dimensions() -> None:
    few = RANDOM.normal(size=(5, 64))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert np.isfinite(frechet_distance(few, RANDOM.normal(size=(7, 64))))
    flat, high = (Gaussian(np.zeros(2), np.diag(values)) for values in ([1.0, 0.0], [0.0, 1.0]))
    assert distance(flat, high) == pytest.approx(2)
    flat = np.ones((4, 3))
    assert frechet_distance(flat, flat + 2) == pytest.approx(12)


def test_the_covariance_is_the_unbiased_one() -> None:
    values = RANDOM.normal(size=(9, 2))
    fitted = gaussian(values)
    centred = values - values.mean(0)
    np.testing.assert_allclose(fitted.covariance, centred.T @ centred / 8)
    single = gaussian(values[:, :1]).covariance
    assert single.shape == (1, 1)
    np.testing.assert_allclose(single, fitted.covariance[:1, :1])


@pytest.mark.parametrize("shape", [(1, 3), (3,), (0, 3)])
def test_too_few_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="at least 2"):
        gaussian(np.zeros(shape))


def test_features_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ArgumentError, match="3 and of 4 dimensions"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(NonFiniteError):
        gaussian(np.full((3, 2), np.nan))
