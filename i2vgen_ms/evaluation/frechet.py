"""The Frechet distance between two sets of features, each taken as a Gaussian (Dowson and Landau 1982).

Given features `n d` of any network; it does not know which. Heusel et al. 2017 made it the measure of how far generated
pictures are from real ones as a whole; Unterthiner et al. 2018 of videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from i2vgen_ms.errors import ArgumentError, NonFiniteError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gaussian:
    """Mean `d` and covariance `d d` of features."""

    mean: Array
    covariance: Array


def gaussian(features: Any) -> Gaussian:
    """Of features `n d`, an array or a CPU tensor; n at least 2. With n below d the distance is biased upwards."""
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ArgumentError(f"features are `n d` with n of at least 2, not of the shape {values.shape}")
    if not np.isfinite(values).all():
        raise NonFiniteError("the features hold NaN or infinity; is the video finite?")
    return Gaussian(values.mean(0), np.atleast_2d(np.cov(values, rowvar=False)))


def distance(one: Gaussian, other: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), at least 0.

    The trace of the root of C1 C2 is that of the symmetric C1^(1/2) C2 C1^(1/2), whose eigenvalues are real also where
    the covariances are singular, which a general matrix root gets wrong.
    """
    if one.mean.shape != other.mean.shape:
        raise ArgumentError(f"features of {len(one.mean)} and of {len(other.mean)} dimensions cannot be compared")
    values, vectors = scipy.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ other.covariance @ root
    cross = np.sqrt(scipy.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    spread = np.trace(one.covariance) + np.trace(other.covariance) - 2 * cross
    return float(max(((one.mean - other.mean) ** 2).sum() + spread, 0.0))


def frechet_distance(features: Any, others: Any) -> float:
    """The distance of two sets of features, `n d` and `m d`."""
    return distance(gaussian(features), gaussian(others))
