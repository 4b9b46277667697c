"""Hostile pictures, made from a seed: every open format, header fields at their extremes, cut short, and repeated parts."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_EXTREMES = {
    1: (0, 1, 0x7F, 0x80, 0xFF),
    2: (0, 1, 0x7FFF, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
}
_HEADER_BYTES = {"PNG": 33, "JPEG": 700, "WEBP": 34, "BMP": 54, "GIF": 60, "TIFF": 250}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture's file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def repeated_scans(side: int, times: int) -> bytes:
    """A progressive JPEG whose scans are written again and again; each costs a pass over every pixel, and few bytes."""
    jpeg = saved(Image.new("RGB", (side, side), "red"), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * times + jpeg[-2:]


def commented_ppm(comments: int) -> bytes:
    """A plain PPM whose pixels are hidden among comments."""
    return b"P3\n64 64\n255\n" + b"# a comment of some length\n" * comments + b"1 2 3 " * 64 * 64


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG's chunk."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def hostile_pictures(count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """At least `count` of them, each with a name; the same seed gives the same ones."""
    source = random.Random(seed)
    sample = Image.effect_noise((96, 64), 60).convert("RGB")
    good = {kind: saved(sample, kind) for kind in FORMATS}
    pictures = list(_repeated(good, sample))
    pictures += [
        (f"{kind} cut at {n}/8", file[: len(file) * n // 8])
        for kind, file in good.items()
        for n in range(1, 8)
    ]
    while len(pictures) < count:
        kind = FORMATS[len(pictures) % len(FORMATS)]
        pictures.append(_with_extreme_fields(kind, good[kind], source))
    return pictures


def _with_extreme_fields(kind: str, file: bytes, source: random.Random) -> tuple[str, bytes]:
    changed, places = bytearray(file), []
    for _ in range(source.randint(1, 3)):
        width = source.choice((1, 2, 4))
        place = source.randrange(2, min(len(file), _HEADER_BYTES[kind]) - width)
        value, order = source.choice(_EXTREMES[width]), source.choice(("big", "little"))
        changed[place : place + width] = value.to_bytes(width, order)
        places.append(f"{place}={value:#x}")
    if kind == "PNG":  # or its checksum would be all that is wrong
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    return f"{kind} with {', '.join(places)}", bytes(changed)


def _repeated(good: dict[str, bytes], sample: Image.Image) -> Iterator[tuple[str, bytes]]:
    for side, times in ((64, 50), (64, 5000), (1500, 60), (1900, 400)):
        yield f"JPEG of {side} x {side} with {times} more scans", repeated_scans(side, times)
    jpeg = good["JPEG"]
    yield "JPEG of 20,000 comments", jpeg[:2] + b"\xff\xfe\x00\x10hostile comment"[:18] * 20_000 + jpeg[2:]
    yield "JPEG of fill bytes", jpeg[:2] + b"\xff" * 500_000 + jpeg[2:]
    yield "JPEG that has 5,000 restart marks", jpeg[:-2] + b"\xff\xd0" * 5000 + jpeg[-2:]
    png = good["PNG"]
    text = chunk(b"tEXt", b"key\0value")
    yield "PNG of 20,000 texts", png[:33] + text * 20_000 + png[33:]
    yield "PNG of empty data chunks", png[:33] + chunk(b"IDAT", b"") * 20_000 + png[33:]
    yield (
        "PNG whose text unpacks to 60 MB",
        png[:33] + chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(60_000_000))) + png[33:],
    )
    yield (
        "PNG whose profile unpacks to 60 MB",
        png[:33] + chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(60_000_000))) + png[33:],
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1999, 1999, 16, 6, 0, 0, 1))
    yield (
        "PNG of zeros",
        png[:8] + header + chunk(b"IDAT", zlib.compress(bytes(40_000_000))) + chunk(b"IEND", b""),
    )
    gif = good["GIF"]
    start = 13 + 3 * 256
    yield "GIF of 20,000 comments", gif[:start] + b"\x21\xfe\x05hello\x00" * 20_000 + gif[start:]
    yield (
        "GIF of one comment in 200,000 blocks",
        gif[:start] + b"\x21\xfe" + b"\x01a" * 200_000 + b"\x00" + gif[start:],
    )
    yield "GIF of 3,000 frames", gif[:-1] + gif[start:-1] * 40 + gif[-1:]
    webp = good["WEBP"]
    yield "WebP of 20,000 chunks", webp + b"junk\x02\x00\x00\x00ab" * 20_000
    yield (
        "WebP in a lossless picture of one colour",
        saved(Image.new("RGB", (1999, 1999)), "WEBP", lossless=True),
    )
    bmp = good["BMP"]
    yield "BMP of run-length codes", bmp[:30] + struct.pack("<I", 1) + bmp[34:] + b"\x00\x02\xff\xff" * 50_000
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        picture = sample.convert("1") if kind == "group4" else sample
        tiff = saved(picture, "TIFF", compression=kind)
        yield f"TIFF {kind}", tiff
        yield f"TIFF {kind}, its directory pointing to itself", _looped(tiff)
    yield "TIFF of 20,000 strips", saved(Image.new("L", (2, 20_000)), "TIFF", strip_size=2)
    yield "TIFF of 60 pages", saved(sample, "TIFF", save_all=True, append_images=[sample] * 59)
    yield "PPM of comments", commented_ppm(20_000)
    yield "a JPEG named GIF", b"GIF89a" + jpeg


def _looped(tiff: bytes) -> bytes:
    """The file, with each directory's "next" pointing to the first directory."""
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack(order + "I", tiff[4:8])
    (entries,) = struct.unpack(order + "H", tiff[first : first + 2])
    end = first + 2 + 12 * entries
    return tiff[:end] + struct.pack(order + "I", first) + tiff[end + 4 :]
