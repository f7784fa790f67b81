"""Rows about the picture that goes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from i2vgen_ms.pipelines import ImageToVideo

CALL: dict[str, Any] = {"steps": 1, "output_type": "frames", "progress": False}


def test_b16_by_default_only_the_centre_square_is_seen_and_options_show_more(
    pipe: ImageToVideo, picture: np.ndarray
) -> None:
    """B16: what lies beside the centre square does not matter, as published; `crop` lets the network see it."""
    changed = picture.copy()
    changed[:, 22:34] = 255 - changed[:, 22:34]  # left of the square, within the video's aspect of 2:1
    same = {
        crop: np.array_equal(pipe(picture, crop=crop, **CALL).frames, pipe(changed, crop=crop, **CALL).frames)
        for crop in (None, "centre-square", "fill", "pad")
    }
    assert same == {None: True, "centre-square": True, "fill": False, "pad": False}


@pytest.mark.parametrize(
    ("given", "shape"),
    [({}, (16, 32)), ({"width": 48}, (16, 48)), ({"height": 40}, (40, 32)), ({"width": 24, "height": 48}, (48, 24))],
)
def test_b16_c9_width_and_height_are_asked_for_each_on_its_own(
    pipe: ImageToVideo, picture: np.ndarray, given: dict[str, int], shape: tuple[int, int]
) -> None:
    """B16: the published size is one, whatever goes in. C9: a sibling looks for the height where it means the width."""
    assert pipe(picture, **given, **CALL).frames.shape == (2, *shape, 3)
