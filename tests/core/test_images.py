"""Opening pictures: what comes out, and what is refused before it can hurt."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError, ImageError
from opengrit.core.images import Limits, confined, open_any, open_picture, picture_size

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def png_with_header(path: Path, width: int, height: int) -> Path:
    """A PNG file of a hundred bytes whose header announces any size it likes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def two_pixels(mode: str = "RGB") -> Image.Image:
    """2 x 1: red on the left, blue on the right."""
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    return image.convert(mode)


def test_an_ordinary_picture_comes_back_as_rgb_with_its_pixels(tmp_path: Path) -> None:
    two_pixels().save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    assert (picture.mode, picture.size) == ("RGB", (2, 1))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied_and_the_size_read_from_the_header_agrees(
    tmp_path: Path, suffix: str
) -> None:
    # Orientation 6: the stored left column is the top row of the upright picture.
    stored = Image.new("RGB", (32, 16), RED)
    stored.paste(BLUE, (16, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif)
    picture = open_picture(path)
    assert picture.size == (16, 32)
    assert picture_size(path) == Size(16, 32)
    red, _, blue = picture.getpixel((8, 4))  # type: ignore[misc]
    assert red > 200 > 50 > blue
    red, _, blue = picture.getpixel((8, 28))  # type: ignore[misc]
    assert blue > 200 > 50 > red


def test_a_broken_exif_block_is_ignored_as_viewers_do(tmp_path: Path) -> None:
    two_pixels().save(tmp_path / "a.jpg", exif=b"Exif\0\0this is not a TIFF header")
    assert open_picture(tmp_path / "a.jpg").size == (2, 1)
    assert picture_size(tmp_path / "a.jpg") == Size(2, 1)


def test_a_header_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    path = png_with_header(tmp_path / "bomb.png", 50_000, 50_000)
    for read in (open_picture, picture_size):
        with pytest.raises(ImageError, match="pixels"):
            read(path)


def test_a_header_just_over_our_limit_is_refused_with_its_size(tmp_path: Path) -> None:
    path = png_with_header(tmp_path / "large.png", 11, 10)
    with pytest.raises(ImageError, match="11 x 10 = 110"):
        open_picture(path, limits=Limits(max_pixels=109))
    assert picture_size(path, limits=Limits(max_pixels=110)) == Size(11, 10)


def test_a_file_over_the_byte_limit_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 11)
    with pytest.raises(ImageError, match="at most 10 bytes, this one has 11"):
        open_picture(tmp_path / "a.png", limits=Limits(max_bytes=10))


def test_pillows_own_limit_stays_what_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    two_pixels().save(tmp_path / "a.png")
    open_picture(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == before == 89_478_485


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_truncated_file_is_an_image_error(tmp_path: Path, suffix: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    path = tmp_path / f"a.{suffix}"
    noise.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's TIFF reader warns before it raises
        with pytest.raises(ImageError):
            open_picture(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=["empty", "text", "svg", "eps"],
)
def test_what_is_no_raster_picture_is_refused_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="convert it to PNG or JPEG"):
        open_picture(tmp_path / "a.png")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is none"):
        open_picture(tmp_path / "nothing.png")
    with pytest.raises(ImageError, match="folder or a device"):
        open_picture(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="folder or a device"):
            open_picture(tmp_path / "pipe.png")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_an_animation_is_refused_and_a_single_frame_is_not(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / f"two.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="save the frame you want as PNG"):
        open_picture(tmp_path / f"two.{suffix}")
    frames[0].save(tmp_path / f"one.{suffix}")
    assert open_picture(tmp_path / f"one.{suffix}").size == (8, 8)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32896, 65535)):  # 32896 = 128 * 257
        image.putpixel((x, 0), value)
    image.save(tmp_path / "grey.png")
    picture = open_picture(tmp_path / "grey.png")
    assert [picture.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), WHITE]


def test_transparent_pixels_lie_on_white_in_every_mode_that_has_them(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (2, 1), (0, 255, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 255, 255))
    rgba.save(tmp_path / "rgba.png")
    Image.new("LA", (2, 1), (0, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    Image.new("RGB", (2, 1), RED).save(tmp_path / "key.png", transparency=RED)
    corners = {
        name: open_picture(tmp_path / f"{name}.png").getpixel((0, 0)) for name in ("rgba", "la", "p", "key")
    }
    assert corners == dict.fromkeys(corners, WHITE)
    assert open_picture(tmp_path / "rgba.png").getpixel((1, 0)) == BLUE
    assert open_picture(tmp_path / "p.png").getpixel((1, 0)) == BLUE


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("RGB", (4, 4), WHITE).convert(mode).save(path)
    picture = open_picture(path)
    assert (picture.mode, picture.getpixel((1, 1))) == ("RGB", WHITE)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.new("F", (2, 2), 0.5).save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match="floating point"):
        open_picture(tmp_path / "a.tiff")


# -- pictures from anywhere ---------------------------------------------------------------------------------------


def test_a_picture_from_anywhere_is_the_picture_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    two_pixels().save(path)
    in_memory = Image.open(path)
    for form in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), in_memory):
        picture = open_any(form)
        assert (picture.mode, picture.tobytes()) == ("RGB", open_picture(path).tobytes())
    array = np.array([[RED, BLUE]], dtype=np.uint8)
    assert open_any(array).tobytes() == open_picture(path).tobytes()


def test_a_pillow_picture_is_turned_upright_and_left_as_it_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    two_pixels().save(tmp_path / "a.png", exif=exif)
    given = Image.open(tmp_path / "a.png")
    picture = open_any(given)
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [BLUE, RED]
    assert [given.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE]
    picture.putpixel((0, 0), GREEN)
    assert given.getpixel((1, 0)) == BLUE
    turned = open_any((tmp_path / "a.png").read_bytes())
    assert [turned.getpixel((x, 0)) for x in (0, 1)] == [BLUE, RED]


def test_arrays_are_grey_or_coloured_and_their_opacity_lies_on_white() -> None:
    grey = open_any(np.array([[0, 128, 255]], dtype=np.uint8))
    assert (grey.size, grey.getpixel((1, 0))) == ((3, 1), (128, 128, 128))
    clear = open_any(np.array([[(0, 255, 0, 0), (0, 0, 255, 255)]], dtype=np.uint8))
    assert [clear.getpixel((x, 0)) for x in (0, 1)] == [WHITE, BLUE]


def test_an_array_seen_backwards_is_taken_as_it_is_seen() -> None:
    mirrored = np.array([[RED, BLUE]], dtype=np.uint8)[:, ::-1]
    assert open_any(mirrored).getpixel((0, 0)) == BLUE


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4, 3)), "uint8, 0 to 255, got an array of float64"),
        (np.zeros((4, 4), dtype=bool), "uint8"),
        (np.zeros((4, 4, 3), dtype=np.uint16), "uint8"),
        (np.zeros((3, 4, 4), dtype=np.uint8).repeat(2, 2), "move the channels to the end"),
        (np.zeros((4, 4, 1), dtype=np.uint8), "3 or 4 channels"),
        (np.zeros(4, dtype=np.uint8), "height x width"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "at least 1 x 1"),
        (b"", "the 0 bytes given"),
        (b"<svg/>", "convert it to PNG or JPEG"),
        (Image.new("F", (2, 2)), "floating point"),
        (Image.new("RGB", (0, 2)), "at least 1 x 1"),
        ("https://example.org/a.png", "there is none at https:/"),
        (None, "a file's path, its bytes, a Pillow picture or a numpy array, got builtins.NoneType"),
        ([[0]], "got builtins.list"),
    ],
)
def test_what_is_no_picture_is_an_image_error_that_says_why(image: object, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        open_any(image)  # type: ignore[arg-type]


def test_the_limits_hold_for_pictures_from_anywhere(tmp_path: Path) -> None:
    bomb = png_with_header(tmp_path / "bomb.png", 50_000, 50_000).read_bytes()
    with pytest.raises(ImageError, match="pixels"):
        open_any(bomb)
    with pytest.raises(ImageError, match="at most 10 bytes"):
        open_any(bomb, limits=Limits(max_bytes=10))
    small = Limits(max_pixels=5)
    for image in (Image.new("RGB", (3, 2)), np.zeros((2, 3), dtype=np.uint8)):
        with pytest.raises(ImageError, match="3 x 2 = 6"):
            open_any(image, limits=small)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_in_memory_is_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    path = tmp_path / f"two.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for image in (path.read_bytes(), Image.open(path)):
        with pytest.raises(ImageError, match="save the frame you want"):
            open_any(image)


def test_a_torn_picture_in_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 80).save(path)
    torn = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(torn)
    for image in (torn, Image.open(path)):
        with pytest.raises(ImageError, match="damaged"):
            open_any(image)


def test_a_path_inside_the_folder_is_joined_to_it(tmp_path: Path) -> None:
    assert confined("VG_100K/1.jpg", tmp_path) == tmp_path / "VG_100K" / "1.jpg"
    assert confined("a..b.jpg", tmp_path) == tmp_path / "a..b.jpg"


@pytest.mark.parametrize(
    "path",
    [
        "",
        " ",
        ".",
        "../a.png",
        "x/../../a.png",
        "/etc/passwd",
        "C:\\a.png",
        "C:a.png",
        "..\\a.png",
        "a\0.png",
        "\ud800",
    ],
)
def test_path_tricks_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="relative path inside its folder"):
        confined(path, tmp_path)


def test_a_link_out_of_the_folder_is_refused_and_a_link_within_is_not(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    (root / "real.png").write_bytes(b"")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "in.png").symlink_to(root / "real.png")
    (root / "up").symlink_to(tmp_path)
    for path in ("out.png", "up/secret.png"):
        with pytest.raises(DataError, match="leads outside"):
            confined(path, root)
    assert confined("in.png", root) == root / "in.png"


def test_the_image_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert confined("a.png", tmp_path / "linked") == tmp_path / "linked" / "a.png"
