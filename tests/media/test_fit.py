"""The published way of fitting bit for bit, the other ones by what is seen, and all of them frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from i2vgen_ms.errors import ArgumentError
from i2vgen_ms.media.fit import MODES, Placement, fit_chunks, fit_clip, fitted_size
from i2vgen_ms.media.frames import to_pixels, to_uint8
from tests.media.writers.samples import moving
from tests.oracle import published


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def as_published(frames: np.ndarray, height: int, width: int) -> torch.Tensor:
    """What the published second stage makes of pictures, as `f h w c`."""
    transforms = published("video_to_video.utils.transforms")
    half = [0.5, 0.5, 0.5]
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=half, std=half)])
    pixels = steps([Image.fromarray(frame) for frame in frames])
    return F.interpolate(pixels, size=(height, width), mode="bilinear").permute(0, 2, 3, 1)


def test_all_levels_are_normalised_as_published():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pixels = to_pixels(levels)
    assert torch.equal(pixels, as_published(levels, 16, 16))
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert np.array_equal(to_uint8(pixels), levels)


def test_normalising_leaves_its_input_alone():
    for frames in (moving(), torch.from_numpy(moving()), torch.zeros(1, 2, 2, 3, dtype=torch.float16)):
        before = frames.copy() if isinstance(frames, np.ndarray) else frames.clone()
        assert to_pixels(frames).dtype is torch.float32
        assert (frames == before).all()
    with pytest.raises(ArgumentError, match="int64"):
        to_pixels(np.zeros(3, np.int64))


@pytest.mark.parametrize("source", [(256, 448), (31, 47), (720, 406), (90, 160), (1, 1), (300, 500)])
@pytest.mark.parametrize("size", [(144, 256), (90, 160), (33, 17)])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_squash_is_bit_equal_to_the_published_way(source, size, chunk):
    frames = noise(3, *source)
    before = frames.copy()
    expected = as_published(frames, *size)
    for given_ in (frames, torch.from_numpy(frames), to_pixels(frames)):
        pixels, placement = fit_clip(given_, "squash", width=size[1], height=size[0], chunk=chunk)
        assert torch.equal(pixels, expected)
        assert placement == Placement(0, 0, size[1], size[0])
    assert np.array_equal(frames, before)


def test_squash_is_bit_equal_at_full_size():
    frames = noise(1, 256, 448)
    assert torch.equal(fit_clip(frames, "squash", width=1280, height=720)[0], as_published(frames, 720, 1280))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", [(30, 40), (40, 30), (31, 47), (5, 100)])
def test_chunks_do_not_matter(mode, source):
    frames = noise(5, *source)
    whole, placement = fit_clip(frames, mode, width=64, height=36, chunk=5)
    width, height = fitted_size(mode, source[1], source[0], 64, 36)
    assert whole.shape == (5, height, width, 3)
    assert whole.dtype is torch.float32
    assert whole.min() >= -1 - 1e-6
    assert whole.max() <= 1 + 1e-6
    for chunk in (1, 2):
        pixels, again = fit_clip(frames, mode, width=64, height=36, chunk=chunk)
        assert torch.equal(pixels, whole)
        assert again == placement
        parts = list(fit_chunks(frames, mode, width=64, height=36, chunk=chunk))
        assert [len(part) for part in parts] == ([1] * 5 if chunk == 1 else [2, 2, 1])
        assert torch.equal(torch.cat(parts), whole)


def test_chunks_are_made_when_they_are_asked_for():
    class Counting:
        shape = (4, 3, 4, 3)
        taken = 0

        def __getitem__(self, key):
            Counting.taken += 1
            return moving(4, 3, 4)[key]

    chunks = fit_chunks(Counting(), "squash", width=8, height=6)
    assert Counting.taken == 0
    next(chunks)
    assert Counting.taken == 1


def test_crop_shows_the_centre_in_its_own_aspect():
    # columns of 10: only those inside the middle square may be seen
    frames = np.repeat(np.arange(30, dtype=np.uint8) * 8, 10)[None, None, :, None] * np.ones((2, 100, 1, 3), np.uint8)
    pixels, placement = fit_clip(frames.astype(np.uint8), "crop", width=50, height=50)
    assert placement == Placement(0, 0, 50, 50)
    shown = to_uint8(pixels)[0, 25, :, 0]
    assert (shown[0], shown[-1]) == (80, 152)
    assert (np.diff(shown.astype(int)) >= 0).all()
    tall, _ = fit_clip(frames.transpose(0, 2, 1, 3).astype(np.uint8), "crop", width=50, height=50)
    assert np.array_equal(to_uint8(tall)[0, :, 25, 0], shown)


@pytest.mark.parametrize(
    ("source", "size", "expected"),
    [
        ((100, 100), (160, 90), Placement(35, 0, 90, 90)),
        ((50, 200), (160, 90), Placement(0, 25, 160, 40)),
        ((90, 160), (160, 90), Placement(0, 0, 160, 90)),
        ((1, 5000), (160, 90), Placement(0, 44, 160, 1)),
        ((101, 33), (21, 20), Placement(7, 0, 7, 20)),
    ],
)
def test_pad_shows_everything_between_black_bars(source, size, expected):
    frames = np.full((1, *source, 3), 200, np.uint8)
    pixels, placement = fit_clip(frames, "pad", width=size[0], height=size[1])
    assert placement == expected
    seen = np.zeros((size[1], size[0], 3), np.uint8)
    seen[expected.top : expected.top + expected.height, expected.left : expected.left + expected.width] = 200
    assert np.array_equal(to_uint8(pixels)[0], seen)
    assert set(pixels.unique().tolist()) <= {-1.0, float(to_pixels(np.array([200], np.uint8)))} | set(
        pixels[pixels > 0].tolist()
    )


def test_making_smaller_is_antialiased_but_for_the_published_way():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    for mode in MODES:
        pixels, _ = fit_clip(stripes, mode, width=12, height=12)
        assert (pixels.std() > 0.3) == (mode == "squash")


def test_equal_sizes_change_nothing():
    frames = noise(2, 36, 64)
    for mode in MODES:
        assert torch.equal(fit_clip(frames, mode, width=64, height=36)[0], to_pixels(frames))


@pytest.mark.parametrize(
    ("source", "bounds", "expected"),
    [
        ((448, 256), (1280, 720), (1260, 720)),
        ((1280, 720), (1280, 720), (1280, 720)),
        ((576, 1024), (1280, 720), (406, 720)),
        ((1024, 1024), (1280, 720), (720, 720)),
        ((1920, 800), (1280, 720), (1280, 534)),
        ((333, 251), (1281, 721), (956, 720)),
        ((5000, 1), (1280, 720), (1280, 2)),
        ((1, 1), (1, 1), (2, 2)),
    ],
)
def test_kept_aspects(source, bounds, expected):
    assert fitted_size("keep", *source, *bounds) == expected
    for mode in ("squash", "crop", "pad"):
        assert fitted_size(mode, *source, *bounds) == bounds


@settings(max_examples=300, deadline=None)
@given(*[st.integers(2, 4000)] * 4)
def test_keep_is_even_inside_its_bounds_near_the_aspect_and_settled(wide, high, width, height):
    kept = fitted_size("keep", wide, high, width, height)
    assert kept[0] % 2 == kept[1] % 2 == 0
    assert 2 <= kept[0] <= width
    assert 2 <= kept[1] <= height
    assert kept[0] == width // 2 * 2 or kept[1] == height // 2 * 2  # the largest
    exact = (kept[1] * wide / high, kept[0] * high / wide)
    assert abs(kept[0] - exact[0]) < 2 or abs(kept[1] - exact[1]) < 2
    assert fitted_size("keep", wide, high, *kept) == kept


WRONG = [
    ((1, 4, 4, 3), "squish", 8, 8, "fit='squish' is unknown; did you mean 'squash'"),
    ((1, 4, 4, 3), None, 8, 8, "fit=None is unknown"),
    ((1, 4, 4, 3), "crop", 0, 8, "width must be at least 1, not 0"),
    ((1, 4, 4, 3), "crop", 8, -1, "height must be at least 1, not -1"),
    ((1, 0, 4, 3), "pad", 8, 8, "source height"),
    ((0, 4, 4, 3), "pad", 8, 8, "no frames"),
    ((4, 4, 3), "pad", 8, 8, "shape"),
    ((1, 3, 4, 4), "pad", 8, 8, "shape"),
]


@pytest.mark.parametrize(("shape", "mode", "width", "height", "message"), WRONG)
def test_what_cannot_be_fitted_is_refused(shape, mode, width, height, message):
    with pytest.raises(ArgumentError, match=message):
        fit_clip(np.zeros(shape, np.uint8), mode, width=width, height=height)


def test_a_chunk_has_at_least_one_frame():
    with pytest.raises(ArgumentError, match="chunk"):
        fit_clip(moving(), "squash", width=8, height=8, chunk=0)
