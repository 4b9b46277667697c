"""Pictures: open them safely and upright, confine their paths, and read their size from the header alone."""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image, features

from opengrit.core.boxes import Size
from opengrit.core.errors import DataError, ImageError
from opengrit.core.escaping import encodable, shortened

if TYPE_CHECKING:
    import numpy as np

    # What a person has a picture in: a file's path, a file's content, a picture in memory.
    AnyPicture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


# Raster formats only. Pillow can open more, some through outside programs (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM") + (("AVIF",) if features.check("avif") else ())


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest picture we decode: bytes in the file, and as its header announces them pixels (width x height) and shape.

    `formats` are those of `FORMATS` that are opened at all.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 80_000_000  # below the 89,478,485 at which Pillow itself begins to complain
    max_aspect: float = math.inf  # the longer side over the shorter
    formats: tuple[str, ...] = FORMATS


DEFAULT_LIMITS = Limits()

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
    header, before a pixel is decoded. An animation or a multi-page file is refused, because nothing says which
    of its frames the question is about.

    Raises:
        ImageError: the file is missing, too large, damaged, animated or not a raster picture.
    """
    with _open_header(Path(path), limits) as image:
        return _upright_rgb(image, str(path))


def open_any(image: AnyPicture, *, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The picture in a file, in the bytes of a file, or in memory, as `open_picture` gives it.

    A picture of Pillow's is turned as its EXIF orientation asks and is itself left as it is. An array is H x W (grey),
    H x W x 3 (RGB) or H x W x 4 (RGB and opacity) of uint8; other numbers are refused, since nothing says whether they
    reach to 1 or to 255. A text is always a file's path: nothing is fetched.

    Raises:
        ImageError: what `open_picture` refuses, an array of another shape or type, or no picture at all.
    """
    if isinstance(image, Image.Image):
        return _open_pillow(image, limits)
    if isinstance(image, bytes | bytearray | memoryview):
        return _open_bytes(bytes(image), limits)
    if isinstance(image, str | os.PathLike):
        return open_picture(Path(image), limits=limits)
    import numpy as np

    if isinstance(image, np.ndarray):
        return _open_array(image, limits)
    raise ImageError(
        "a picture is a file's path, its bytes, a Pillow picture or a numpy array, got "
        f"{type(image).__module__}.{type(image).__qualname__}; convert it to one of these"
    )


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
    shown = repr(shortened(path, 200))
    rule = f"an image needs a relative path inside its folder {root}"
    if not path.strip() or "\0" in path or not encodable(path):
        raise DataError(f"{rule}, got {shown}; give the file's name")
    flavours = (PurePosixPath(path), PureWindowsPath(path))
    if any(p.is_absolute() or p.drive or p.root for p in flavours):
        raise DataError(f"{rule}, got the absolute path {shown}; shorten it to the part below that folder")
    if any(".." in p.parts for p in flavours):
        raise DataError(f'{rule}, got {shown} with ".."; move the file below that folder')
    inside = Path(root) / path
    try:
        resolved, resolved_root = inside.resolve(), Path(root).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        reason = error.strerror if isinstance(error, OSError) and error.strerror else shortened(str(error))
        raise DataError(
            f"{rule}, got {shown}, which cannot be followed ({reason}); rename the file"
        ) from error
    if resolved == resolved_root or not resolved.is_relative_to(resolved_root):
        raise DataError(
            f"{rule}, got {shown}, which leads outside; copy the file there instead of linking it"
        )
    return inside


def _open_header(path: Path, limits: Limits) -> Image.Image:
    """The file opened and identified, nothing decoded, every limit checked."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(
            f"a picture must be an existing file, there is none at {path}; check the name"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"a picture must be a file, {path} is a folder or a device; name the file in it")
    _check_bytes(status.st_size, str(path), limits)
    return _identified(path, str(path), limits)


def _identified(source: Path | io.BytesIO, path: str, limits: Limits) -> Image.Image:
    """The picture in a file or in its bytes, identified, its header checked; `path` names it in messages."""
    try:
        image = Image.open(source, formats=limits.formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"a picture has at most {limits.max_pixels} pixels, this header announces far more ({error}): {path}; "
            "scale the picture down"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"a picture is a {_listed(limits.formats)} file, this is not: {path}; convert it to PNG or JPEG"
        ) from error
    except _DAMAGE as error:
        raise _damaged(error, path) from error
    try:
        _check_header(image, path, limits)
    except ImageError:
        image.close()
        raise
    return image


def _listed(formats: tuple[str, ...]) -> str:
    return " or ".join(part for part in (", ".join(formats[:-1]), formats[-1]) if part)


def _check_header(image: Image.Image, path: str, limits: Limits) -> None:
    _check_size(image.size, path, limits)
    if image.format == "MPO":  # a camera's JPEG with a preview or a depth map: the first frame is the photo
        return
    try:
        animated = bool(getattr(image, "is_animated", False))
    except _DAMAGE as error:
        raise _damaged(error, path) from error
    if animated:
        raise ImageError(
            f"a picture must have one frame, this {image.format} has several: {path}; save the frame you want as PNG"
        )


def _damaged(error: Exception, path: str) -> ImageError:
    return ImageError(f"a picture must open, this one does not ({error}): {path}; save it again")


def _check_bytes(count: int, path: str, limits: Limits) -> None:
    if count > limits.max_bytes:
        raise ImageError(
            f"a picture's file has at most {limits.max_bytes} bytes, this one has {count}: {path}; save it smaller"
        )


def _check_size(size: tuple[int, int], path: str, limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"a picture has at least 1 x 1 pixel, got {width} x {height}: {path}; save it again")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"a picture has at most {limits.max_pixels} pixels, got {width} x {height} = {width * height}: {path}; "
            "scale the picture down"
        )
    if max(size) > limits.max_aspect * min(size):
        raise ImageError(
            f"a picture's longer side is at most {limits.max_aspect:g} times its shorter, got {width} x {height}: "
            f"{path}; crop it"
        )


def _upright_rgb(image: Image.Image, path: str) -> Image.Image:
    orientation = _orientation(image)
    try:
        image.load()
        rgb = _to_rgb(image, path)
    except _DAMAGE as error:
        raise ImageError(
            f"a picture must decode completely, this one is damaged ({error}): {path}; copy it again from its source"
        ) from error
    transpose = _UPRIGHT.get(orientation)
    return rgb if transpose is None else rgb.transpose(transpose)


def _open_bytes(content: bytes, limits: Limits) -> Image.Image:
    name = f"the {len(content)} bytes given"
    _check_bytes(len(content), name, limits)
    with _identified(io.BytesIO(content), name, limits) as image:
        return _upright_rgb(image, name)


def _open_pillow(image: Image.Image, limits: Limits) -> Image.Image:
    name = f"a Pillow picture of mode {image.mode}"
    _check_header(image, name, limits)
    return _upright_rgb(image, name)


def _open_array(array: np.ndarray[Any, Any], limits: Limits) -> Image.Image:
    name = f"an array of {array.dtype} and shape {array.shape}"
    if array.dtype != "uint8":
        raise ImageError(
            f"an array's pixels are uint8, 0 to 255, got {name}; for numbers up to 1 give "
            "(array * 255).round().astype('uint8')"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(
            f"an array is height x width, or height x width x 3 or 4 channels, got {name}; move the channels to the end "
            "with array.transpose(1, 2, 0)"
        )
    _check_size((array.shape[1], array.shape[0]), name, limits)
    return _upright_rgb(Image.fromarray(array), name)


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


def _to_rgb(image: Image.Image, path: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _grey16_to_rgb(image, path)
    if image.mode == "F":
        raise ImageError(
            f"a picture has integer channels, this one has floating point: {path}; save it as 8-bit PNG"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _grey16_to_rgb(image: Image.Image, path: str) -> Image.Image:
    """A 16-bit grey picture with its 0-65535 brought to 0-255 (Pillow's own conversion clips at 255)."""
    grey = image.convert("I")
    extrema = grey.getextrema()
    if extrema[0] < 0 or extrema[1] > 65535:  # type: ignore[operator]
        raise ImageError(f"a grey picture has 8 or 16 bits, this one has more: {path}; save it as 8-bit PNG")
    return grey.point(lambda value: value * (1 / 257) + 0.5).convert("L").convert("RGB")
