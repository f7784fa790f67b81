"""Pictures of every accepted kind become the same uint8 RGB array; everything else is refused with a reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from i2vgen_ms.errors import ArgumentError, MediaError, MediaLimitError, NonFiniteError, UnreadableMediaError
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.media.picture import read_picture


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    array = np.random.default_rng(0).integers(0, 256, (18, 26, 3), dtype=np.uint8)
    array.setflags(write=False)  # whoever changes it fails
    return array


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file written by hand: kinds that Pillow reads but does not write, and headers that lie."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def test_every_source_gives_the_same_pixels(rgb, tmp_path):
    data = encoded(Image.fromarray(rgb))
    path = tmp_path / "ein bild %d.jpg"  # the name's end means nothing
    path.write_bytes(data)
    sources = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), Image.fromarray(rgb)]
    sources += [rgb[:, :, ::-1], np.dstack([rgb[:, :, ::-1], np.full(rgb.shape[:2], 255, np.uint8)])]  # BGR, BGRA
    tensor = torch.from_numpy(rgb.copy())
    sources += [tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1)[None], tensor.permute(2, 0, 1) / 255]
    sources += [(tensor.permute(2, 0, 1) / 255).requires_grad_(), (tensor / 255).double()]
    for source in sources:
        result = read_picture(source)
        assert result.dtype == np.uint8
        assert np.array_equal(result, rgb), type(source)
        result[:] = 0  # its own memory
        assert np.array_equal(read_picture(source), rgb), type(source)
    with open(path, "rb") as file:
        file.seek(5)
        assert np.array_equal(read_picture(file), rgb)
        assert file.tell() == 5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("GIF", {}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_accepted_formats(kind, options):
    array = np.zeros((16, 24, 3), np.uint8)
    array[:, :12] = (200, 40, 90)
    result = read_picture(encoded(Image.fromarray(array), kind, **options))
    assert np.abs(result.astype(int) - array).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(rgb, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(rgb), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    plain = Image.fromarray(rgb)
    plain.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(plain))
    assert (orientation < 5) == (expected.shape == rgb.shape)
    assert np.array_equal(read_picture(data), expected)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(read_picture(image), expected)


def test_damaged_exif_beside_sound_pixels_is_ignored(rgb):
    data = encoded(Image.fromarray(rgb), exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.array_equal(read_picture(data), rgb)


def test_transparency_is_composited_on_white():
    layer = np.zeros((3, 3, 4), np.uint8)
    layer[..., 0] = 200
    layer[0, :, 3], layer[1, :, 3], layer[2, :, 3] = 0, 255, 128
    expected = np.zeros((3, 3, 3), int)
    expected[0], expected[1] = 255, (200, 0, 0)
    expected[2] = np.rint(np.array([200, 0, 0]) * (128 / 255) + 255 * (127 / 255))
    for source in (encoded(Image.fromarray(layer)), Image.fromarray(layer), layer[:, :, [2, 1, 0, 3]]):
        assert np.abs(read_picture(source).astype(int) - expected).max() <= 1
    half = np.array([[[100, 0], [100, 255]]], np.uint8)
    assert read_picture(encoded(Image.fromarray(half, "LA"))).tolist() == [[[255] * 3, [100] * 3]]


def test_palettes_with_a_transparent_entry(rgb):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert read_picture(encoded(image)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert read_picture(encoded(image, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]
    assert read_picture(encoded(image, "GIF", transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]


def test_a_transparent_colour_of_rgb_and_grey_pictures():
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert read_picture(encoded(colour, transparency=(1, 2, 3))).tolist() == [[[255] * 3, [4, 5, 6]]]
    deep = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 257, 514), (b"tRNS", struct.pack(">H", 257)))
    assert read_picture(deep).tolist() == [[[255] * 3, [2] * 3]]


def test_sixteen_bits_are_scaled_by_257():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(levels / 257).astype(np.uint8)
    for source in (encoded(Image.fromarray(levels)), encoded(Image.fromarray(levels), "TIFF"), levels):
        assert np.array_equal(read_picture(source), np.dstack([expected] * 3))
    swapped = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 0, 32896))
    assert read_picture(swapped).tolist() == [[[0, 128, 255], [255, 0, 128]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 1.0], [0, 64, 255]),
        ([0.0, 64.0, 255.0], [0, 64, 255]),
        ([0.0, 16448.0, 65535.0], [0, 64, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 5e8, 1e9], [0, 128, 255]),
    ],
)
def test_float_pictures_are_scaled_by_their_range(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    assert read_picture(encoded(image, "TIFF"))[0, :, 0].tolist() == expected
    assert read_picture(image)[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 64, 255], [0, 64, 255]), ([0, 257, 65535], [0, 1, 255]), ([-4, 0, 4], [0, 128, 255]), ([0, 0, 0], [0, 0, 0])],
)
def test_32_bit_pictures_are_scaled_by_their_range(values, expected):
    image = Image.fromarray(np.array([values], np.int32))
    assert read_picture(encoded(image, "TIFF"))[0, :, 2].tolist() == expected


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_every_mode_of_pillow(mode):
    image = Image.new(mode, (5, 4))
    before = image.copy()
    assert read_picture(image).shape == (4, 5, 3)
    assert image == before


def test_cmyk(rgb):
    ink = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    result = read_picture(encoded(ink, "JPEG", quality=95))
    assert np.abs(result.astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(read_picture(data).astype(int) - (255, 0, 0)).max() <= 3
    if kind == "GIF":
        with Image.open(io.BytesIO(data)) as image:
            image.seek(2)
            assert np.abs(read_picture(image).astype(int) - (0, 0, 255)).max() <= 3  # whoever chose a frame gets it
            assert image.tell() == 2


# published: preprocessors/image.py indexes a grey array as if it were BGR, and fails
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
def test_grey_arrays(shape):
    grey = np.arange(12, dtype=np.uint8).reshape(shape)
    assert np.array_equal(read_picture(grey), np.dstack([grey.reshape(3, 4)] * 3))
    assert np.array_equal(read_picture(torch.from_numpy(grey.reshape(3, 4))), np.dstack([grey.reshape(3, 4)] * 3))
    assert np.array_equal(read_picture(torch.from_numpy(grey.reshape(1, 3, 4))), np.dstack([grey.reshape(3, 4)] * 3))


def test_arrays_are_bgr_as_published(rgb):
    from modelscope.preprocessors.image import LoadImage

    assert np.array_equal(read_picture(rgb), np.array(LoadImage.convert_to_img(rgb)))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[True, False]]), [255, 0]),
        (np.array([[0, 200]], np.int64), [0, 200]),
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 99.6]], np.float32), [0, 100]),
    ],
)
def test_other_types_of_arrays(array, expected):
    assert read_picture(array)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((2, 2, 2), np.uint8), r"\(2, 2, 2\)"),
        (np.zeros(4, np.uint8), r"not \(4,\)"),
        (np.zeros((1, 2, 2, 3), np.uint8), r"not \(1, 2, 2, 3\)"),
        (np.array([["a"]]), "numbers"),
        (np.array([[1 + 2j]]), "numbers"),
        (np.array([[-1, 5]]), "-1..5"),
        (np.array([[0.0, 256.0]]), "256"),
        (torch.zeros(2, 2, 2), r"not \(2, 2, 2\)"),
        (torch.zeros(2, 3, 4, 4), r"not \(2, 3, 4, 4\)"),
        (torch.full((3, 4, 4), -1.0), r"\(x \+ 1\) / 2"),
        (torch.full((3, 4, 4), 200.0), "x.byte"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (5, "int"),
        (None, "NoneType"),
        (io.StringIO("text"), "binary"),
    ],
)
def test_wrong_arguments_are_named(source, words):
    with pytest.raises(ArgumentError, match=words):
        read_picture(source)


@pytest.mark.parametrize(
    "source",
    [
        np.array([[0.0, np.nan]]),
        torch.tensor([[0.0, float("inf")]]),
        Image.fromarray(np.array([[0.0, np.nan]], np.float32)),
        encoded(Image.fromarray(np.array([[0.0, np.inf]], np.float32)), "TIFF"),
    ],
)
def test_non_finite_pictures_are_refused(source):
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        read_picture(source)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"<!DOCTYPE html><html>404</html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"SIMPLE  =                    T" + b" " * 3000,
        encoded(Image.new("RGB", (4, 4)), "PPM"),
        encoded(Image.new("RGB", (4, 4)), "EPS"),
        encoded(Image.new("RGB", (4, 4)), "TGA"),
        encoded(Image.new("RGB", (4, 4)), "ICO"),
        png(0, 5, 8, 2, b""),
        png(5, 5, 8, 2, b"\0"),
    ],
)
def test_other_files_are_refused(data):
    with pytest.raises(UnreadableMediaError):
        read_picture(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_truncated_files_are_refused_and_pillow_keeps_its_settings(rgb, kind):
    data = encoded(Image.fromarray(np.tile(rgb, (8, 8, 1))), kind)
    settings_before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    for share in (0.02, 0.3, 0.7):
        with pytest.raises(UnreadableMediaError):
            read_picture(data[: int(len(data) * share)])
    assert settings_before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    assert settings_before[0] is False


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]), st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_gives_a_picture_or_a_clear_error(kind, position, change):
    data = bytearray(encoded(Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)), kind))
    data[position % len(data)] ^= change
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = read_picture(bytes(data), limits=Limits(max_pixels=1_000_000))
        except (MediaError, NonFiniteError):
            return
    assert result.ndim == 3
    assert result.dtype == np.uint8


@pytest.mark.parametrize("side", [9000, 20000])
def test_pixels_are_counted_before_decoding(side, monkeypatch):
    data = png(side, side, 8, 2, b"\0")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MediaLimitError, match="pixels"):
            read_picture(data)


def test_limits_apply_to_every_kind_of_source(rgb):
    tight = Limits(max_pixels=100)
    for source in (rgb, Image.fromarray(rgb), torch.from_numpy(rgb.copy()), encoded(Image.fromarray(rgb))):
        with pytest.raises(MediaLimitError, match="26x18"):
            read_picture(source, limits=tight)
    with pytest.raises(MediaLimitError, match="bytes"):
        read_picture(encoded(Image.fromarray(rgb)), limits=Limits(max_bytes=100))


def test_a_text_bomb_beside_the_pixels_is_no_picture():
    text = PngInfo()
    text.add_text("Comment", "x" * 70_000_000, zip=True)
    with pytest.raises(MediaError):
        read_picture(encoded(Image.new("RGB", (2, 2)), pnginfo=text))
