"""Pictures: open them safely and upright, confine their paths, and read their size from the header alone."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image, features

from opengrit.boxes import Size
from opengrit.errors import DataError, ImageError


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest picture we decode: bytes in the file, and pixels (width x height) announced by its header."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 80_000_000  # below the 89,478,485 at which Pillow itself begins to complain


DEFAULT_LIMITS = Limits()

# Raster formats only. Pillow can open more, some through outside programs (EPS runs Ghostscript).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM") + (
    ("AVIF",) if features.check("avif") else ()
)

# What Pillow's readers raise on damaged files, by its own list of readers and our experience of them.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def open_picture(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The picture in a file: RGB, 8 bits a channel, turned upright as its EXIF orientation asks.

    Transparent pixels are laid on white; 16-bit grey keeps its upper 8 bits. The limits are checked on the
    header, before a pixel is decoded. An animation or a multi-page file is refused, because nobody said which
    of its frames the question is about.

    Raises:
        ImageError: the file is missing, too large, damaged, animated or not a raster picture.
    """
    image = _open_header(Path(path), limits)
    with image:
        orientation = _orientation(image)
        try:
            image.load()
            rgb = _to_rgb(image, Path(path))
        except _DAMAGE as error:
            raise ImageError(
                f"a picture must decode completely, this one is damaged ({error}): {path}; "
                "copy it again from where it came from"
            ) from error
    transpose = _UPRIGHT.get(orientation)
    return rgb if transpose is None else rgb.transpose(transpose)


def picture_size(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> Size:
    """The width and height `open_picture` would give, read from the header alone (no pixel is decoded).

    Raises:
        ImageError: the header cannot be read or announces more than the limits allow.
    """
    with _open_header(Path(path), limits) as image:
        width, height = image.size
        return Size(height, width) if _orientation(image) in _SIDEWAYS else Size(width, height)


def confined(path: str, root: str | Path) -> Path:
    """`root` joined with a relative path that stays inside `root`, symbolic links followed.

    Raises:
        DataError: the path is empty, absolute, climbs with "..", holds a NUL, or leads out through a link.
    """
    rule = f"an image is named by a relative path inside its folder {root}"
    if not path.strip() or "\0" in path or not encodable(path):
        raise DataError(f"{rule}, got {path!r}; give the file's name")
    flavours = (PurePosixPath(path), PureWindowsPath(path))
    if any(p.is_absolute() or p.drive or p.root for p in flavours):
        raise DataError(f"{rule}, got the absolute path {path!r}; shorten it to the part below that folder")
    if any(".." in p.parts for p in flavours):
        raise DataError(f'{rule}, got {path!r} with ".."; move the file below that folder')
    inside = Path(root) / path
    try:
        resolved, resolved_root = inside.resolve(), Path(root).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        raise DataError(
            f"{rule}, got {path!r}, which cannot be followed ({error}); rename the file"
        ) from error
    if resolved == resolved_root or not resolved.is_relative_to(resolved_root):
        raise DataError(
            f"{rule}, got {path!r}, which leads outside; copy the file there instead of linking it"
        )
    return inside


def _open_header(path: Path, limits: Limits) -> Image.Image:
    """The file opened and identified, nothing decoded, every limit checked."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(
            f"a picture must be a file that exists, there is none at {path}; check the name"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"a picture must be a file, {path} is a folder or a device; name the file in it")
    if status.st_size > limits.max_bytes:
        raise ImageError(
            f"a picture's file has at most {limits.max_bytes} bytes, this one has {status.st_size}: {path}; "
            "save it smaller"
        )
    try:
        image = Image.open(path, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"a picture has at most {limits.max_pixels} pixels, this header announces far more ({error}): {path}; "
            "scale the picture down"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"a picture is a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file, this is none of them: {path}; "
            "convert it to PNG or JPEG"
        ) from error
    except _DAMAGE as error:
        raise ImageError(
            f"a picture must open, this one does not ({error}): {path}; save it again"
        ) from error
    try:
        _check_header(image, path, limits)
    except ImageError:
        image.close()
        raise
    return image


def _check_header(image: Image.Image, path: Path, limits: Limits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"a picture has at least 1 x 1 pixel, got {width} x {height}: {path}; save it again")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"a picture has at most {limits.max_pixels} pixels, got {width} x {height} = {width * height}: {path}; "
            "scale the picture down"
        )
    if (
        image.format == "MPO"
    ):  # a camera's JPEG with a preview or a depth map behind it: the first frame is the photo
        return
    try:
        animated = bool(getattr(image, "is_animated", False))
    except _DAMAGE as error:
        raise ImageError(
            f"a picture must open, this one does not ({error}): {path}; save it again"
        ) from error
    if animated:
        raise ImageError(
            f"a picture has one frame, this {image.format} has several: {path}; save the frame you mean as PNG"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or the EXIF block is broken (as image viewers do)."""
    # Asking a PNG for EXIF it has not announced makes Pillow decode the whole picture.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I"):
        return _grey16_to_rgb(image, path)
    if image.mode == "F":
        raise ImageError(
            f"a picture holds whole numbers a channel, this one holds floating point: {path}; save it as 8-bit PNG"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _grey16_to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """A 16-bit grey picture with its 0-65535 brought to 0-255 (Pillow's own conversion clips at 255)."""
    grey = image.convert("I")
    extrema = grey.getextrema()
    if extrema[0] < 0 or extrema[1] > 65535:  # type: ignore[operator]
        raise ImageError(f"a grey picture has 8 or 16 bits, this one has more: {path}; save it as 8-bit PNG")
    return grey.point(lambda value: value * (1 / 257) + 0.5).convert("L").convert("RGB")


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: half a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
