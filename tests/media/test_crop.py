"""The crop that the image encoder sees: the published pixels where those had no black line, and never a black line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media import crop
from i2vgen_ms.media.crop import crop_picture, resize_for_encoder
from tests.oracle import published

SIZES = [(w, h) for w in (1, 5, 59, 60, 61, 90, 127, 128, 200, 333) for h in (1, 7, 60, 71, 100, 129, 256)]
LARGE = [(1280, 720), (1920, 1080), (640, 480), (896, 896), (448, 448), (1344, 448), (500, 375), (447, 600)]


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def has_line(width: int, height: int, size: int) -> bool:
    scale = min(width / size, height / size)
    return round(width // scale) < size or round(height // scale) < size


def published_crop(image: np.ndarray, size: int) -> np.ndarray:
    transforms = published("image_to_video.utils.transforms")
    return np.array(transforms.CenterCropWide(size=(size, size))(Image.fromarray(image)))


@pytest.mark.parametrize(("size", "sizes"), [(60, SIZES), (448, LARGE)])
def test_centre_square_equals_the_published_one_where_that_has_no_line(size, sizes):
    compared = 0
    for width, height in sizes:
        if not has_line(width, height, size):
            image = picture(width, height)
            ours = crop_picture(image, "centre-square", size=size, width=448, height=256)
            assert np.array_equal(ours, published_crop(image, size)), (width, height)
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize(("size", "sizes"), [(60, SIZES), (448, LARGE)])
def test_centre_square_never_has_a_black_line(size, sizes):
    mended = 0
    for width, height in sizes:
        white = np.full((height, width, 3), 255, np.uint8)
        assert (crop_picture(white, "centre-square", size=size, width=448, height=256) == 255).all(), (width, height)
        mended += bool((published_crop(white, size) == 0).any())
        assert bool((published_crop(white, size) == 0).any()) == has_line(width, height, size)
    assert mended >= 1


def test_the_encoder_sees_the_published_pixels():
    transforms = published("image_to_video.utils.transforms")
    image = picture(960, 540)
    assert not has_line(960, 540, 448)
    theirs = transforms.Resize(224)(transforms.CenterCropWide(size=(448, 448))(Image.fromarray(image)))
    ours = resize_for_encoder(crop_picture(image, "centre-square", size=448, width=448, height=256), 224)
    assert np.array_equal(ours, np.array(theirs))


def test_a_sliver_takes_no_room_and_is_the_same_picture(monkeypatch):
    image = np.repeat(np.arange(5000, dtype=np.uint32) // 20, 3).reshape(1, 5000, 3).astype(np.uint8)
    square = crop_picture(image, "centre-square", size=448, width=448, height=256)  # 1 Gpx in the published way
    assert square.shape == (448, 448, 3)
    assert set(np.unique(square)) <= {124, 125}
    wide = picture(400, 31)
    whole = crop_picture(wide, "centre-square", size=64, width=448, height=256)
    monkeypatch.setattr(crop, "_WHOLE_RESIZE_PIXELS", 0)
    monkeypatch.setattr(crop.Image.Image, "crop", None)  # the other way, proven to be taken
    part = crop_picture(wide, "centre-square", size=64, width=448, height=256)
    assert np.abs(part.astype(int) - whole).mean() < 8


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((720, 1280), (720, 1260)),
        ((1000, 400), (229, 400)),
        ((256, 448), (256, 448)),
        ((1, 900), (1, 2)),
        ((9, 1), (1, 1)),
    ],
)
def test_fill_cuts_to_the_videos_aspect_around_the_centre(shape, expected):
    image = picture(shape[1], shape[0])
    cut = crop_picture(image, "fill", size=448, width=448, height=256)
    assert cut.shape[:2] == expected
    top, left = (shape[0] - expected[0]) // 2, (shape[1] - expected[1]) // 2
    assert np.array_equal(cut, image[top : top + expected[0], left : left + expected[1]])


@pytest.mark.parametrize("shape", [(300, 600), (600, 300), (50, 50), (1, 5000)])
def test_pad_shows_the_whole_picture_on_black(shape):
    image = np.full((*shape, 3), 255, np.uint8)
    square = crop_picture(image, "pad", size=100, width=448, height=256)
    assert square.shape == (100, 100, 3)
    high, wide = (max(1, round(side * 100 / max(shape))) for side in shape)
    assert (square == 255).all(axis=2).sum() == high * wide
    top, left = (100 - high) // 2, (100 - wide) // 2
    assert (square[top : top + high, left : left + wide] == 255).all()


@pytest.mark.parametrize("mode", crop.MODES)
def test_input_is_untouched_and_any_strides_work(mode):
    image = picture(90, 70)
    before = image.copy()
    turned = crop_picture(image[::-1, ::-1], mode, size=32, width=16, height=9)
    assert np.array_equal(image, before)
    assert np.array_equal(
        turned, crop_picture(np.ascontiguousarray(image[::-1, ::-1]), mode, size=32, width=16, height=9)
    )
    turned[:] = 0
    assert np.array_equal(image, before)


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match="did you mean 'centre-square'"):
        crop_picture(picture(4, 4), "center-square", size=8, width=8, height=8)
    with pytest.raises(ArgumentError, match="height must be at least 1, not 0"):
        crop_picture(picture(4, 4), "fill", size=8, width=8, height=0)
