"""Sticker world: scenes composed of emoji sprites with exact boxes, drawn the same on every machine."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from PIL import Image

from opengrit.core.boxes import Box, Size

KINDS = ("dog", "cat", "car", "cup", "apple", "ball", "book", "flower", "hat", "fish", "star", "tree")
PLURALS = {kind: kind + "s" for kind in KINDS} | {"fish": "fish"}
SEEN_STYLES = ("noto", "twemoji")
UNSEEN_STYLE = "fluent"

# Weights say how often a canvas is sampled; sides are multiples of 28 so that Qwen's resize leaves them alone.
CANVASES = (
    (Size(112, 112), 8),
    (Size(140, 112), 3),
    (Size(112, 140), 3),
    (Size(140, 140), 2),
    (Size(168, 112), 1),
    (Size(112, 168), 1),
)
MAX_OBJECTS = 7
OPAQUE = 16  # alpha above which a pixel belongs to the object
MAX_COVERED = 0.08  # share of the smaller object another one may hide


@dataclass(frozen=True, slots=True)
class Placed:
    """One sprite on the canvas; edges are whole pixels, right and bottom exclusive."""

    kind: str
    style: str
    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the sprite's box in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def box(self, size: Size) -> Box:
        """The exact tight box in the unit square of a picture of `size`."""
        return Box(
            self.left / size.width, self.top / size.height, self.right / size.width, self.bottom / size.height
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn: a canvas, its background and the sprites on it, back to front."""

    size: Size
    objects: tuple[Placed, ...]
    background: tuple[tuple[int, int, int], tuple[int, int, int], int]  # two colours and a texture's number

    def of_kind(self, kind: str) -> tuple[Placed, ...]:
        """The objects of one kind, from left to right."""
        return tuple(sorted((o for o in self.objects if o.kind == kind), key=lambda o: (o.left, o.top)))

    def fingerprint(self) -> str:
        """A hash of everything that is drawn; two scenes with the same one are the same picture."""
        return hashlib.sha256(repr((self.size, self.objects, self.background)).encode()).hexdigest()


def seeded(*names: object) -> random.Random:
    """A generator that depends on the names alone, the same on every machine and Python."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def compose(
    rng: random.Random, kinds: list[str], styles: tuple[str, ...], canvas: Size | None = None
) -> Scene | None:
    """A scene with one sprite for each of `kinds`, or None when they do not fit without hiding each other."""
    size = canvas or sample_canvas(rng)
    low, high = (28, 46) if len(kinds) <= 3 else (24, 38) if len(kinds) <= 5 else (22, 32)
    placed: list[Placed] = []
    for kind in kinds:
        style = styles[rng.randrange(len(styles))]
        spot = _find_spot(rng, (kind, style), placed, size=size, longest=(low, high))
        if spot is None:
            return None
        placed.append(spot)
    rng.shuffle(placed)
    return Scene(size, tuple(placed), _background(rng))


def sample_canvas(rng: random.Random) -> Size:
    """A canvas size, sampled by its weight in CANVASES."""
    return rng.choices([c for c, _ in CANVASES], weights=[w for _, w in CANVASES])[0]


def _find_spot(
    rng: random.Random, what: tuple[str, str], placed: list[Placed], *, size: Size, longest: tuple[int, int]
) -> Placed | None:
    kind, style = what
    for _ in range(40):
        side = rng.randint(*longest)
        mirrored = rng.random() < 0.5
        width, height = sprite(kind, style, side, mirrored).size
        left, top = rng.randint(0, size.width - width), rng.randint(0, size.height - height)
        spot = Placed(kind, style, left, top, left + width, top + height, mirrored)
        if all(_covered(spot, other) <= MAX_COVERED for other in placed):
            return spot
    return None


def _covered(a: Placed, b: Placed) -> float:
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a.right - a.left) * (a.bottom - a.top), (b.right - b.left) * (b.bottom - b.top))
    return width * height / smaller


def _background(rng: random.Random) -> tuple[tuple[int, int, int], tuple[int, int, int], int]:
    def pastel() -> tuple[int, int, int]:
        return rng.randint(150, 250), rng.randint(150, 250), rng.randint(150, 250)

    return pastel(), pastel(), rng.randrange(6)


@lru_cache(maxsize=4096)
def sprite(kind: str, style: str, side: int, mirrored: bool) -> Image.Image:
    """The sprite scaled to `side` pixels on its longer side, cropped tightly to its opaque pixels (RGBA)."""
    path = resources.files("opengrit.data.stickers") / "sprites" / style / f"{kind}.png"
    with path.open("rb") as file:
        image = Image.open(file).convert("RGBA")
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = side / max(image.size)
    target = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # BILINEAR needs only sums and products, so its result does not depend on the machine's maths library.
    image = image.resize(target, Image.Resampling.BILINEAR)
    opaque = image.getchannel("A").point(lambda alpha: 255 if alpha > OPAQUE else 0)
    return image.crop(opaque.getbbox())


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of `scene.size`."""
    picture = _draw_background(scene)
    for placed in scene.objects:
        side = _side(placed)
        image = sprite(placed.kind, placed.style, side, placed.mirrored)
        picture.paste(image, (placed.left, placed.top), image)
    return picture


def _side(placed: Placed) -> int:
    # The crop after scaling can take a pixel off, so the side that gives this very box is searched for.
    wanted = (placed.right - placed.left, placed.bottom - placed.top)
    for side in range(max(wanted), max(wanted) + 4):
        if sprite(placed.kind, placed.style, side, placed.mirrored).size == wanted:
            return side
    raise ValueError(f"no scale of {placed.style}/{placed.kind} gives {wanted[0]} x {wanted[1]} pixels")


def _draw_background(scene: Scene) -> Image.Image:
    (r1, g1, b1), (r2, g2, b2), texture = scene.background
    width, height = scene.size.width, scene.size.height
    ramp = Image.linear_gradient("L")
    if texture % 2:
        ramp = ramp.transpose(Image.Transpose.ROTATE_90)
    ramp = ramp.resize((width, height), Image.Resampling.BILINEAR)
    first, second = (
        Image.new("RGB", (width, height), (r1, g1, b1)),
        Image.new("RGB", (width, height), (r2, g2, b2)),
    )
    picture = Image.composite(second, first, ramp)
    if texture >= 2:
        _draw_texture(picture, texture, (r1 - 18, g1 - 18, b1 - 18))
    return picture


def _draw_texture(picture: Image.Image, texture: int, colour: tuple[int, int, int]) -> None:
    width, height = picture.size
    step = 9 + texture
    for y in range(0, height, 1 if texture in (3, 5) else step):
        for x in range(y % step if texture == 5 else 0, width, step if texture in (3, 5, 4) else 1):
            picture.putpixel((x, y), colour)
