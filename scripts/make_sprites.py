"""Make the sprites of the sticker world from three published emoji sets.

The pictures come from these npm packages, installed beforehand into one folder:

    npm install @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 \\
        @lobehub/fluent-emoji-3d@1.1.0 @resvg/resvg-js@2.6.2

Run ``python scripts/make_sprites.py FOLDER``, where FOLDER holds ``node_modules``. Node and Pillow with
WebP support are required. The same package and Pillow versions give the same files.

Each picture is drawn large (512 px for the SVG sets, as published for the 3D set), cropped to the pixels
whose alpha is above 16, and shrunk with premultiplied alpha until its longest side is 64 px.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
from pathlib import Path

from PIL import Image

CODE_POINTS = {
    "apple": "1f34e",
    "ball": "26bd",
    "bird": "1f426",
    "book": "1f4d5",
    "bus": "1f68c",
    "car": "1f697",
    "cat": "1f431",
    "cup": "2615",
    "dog": "1f436",
    "fish": "1f420",
    "flower": "1f33b",
    "hat": "1f3a9",
    "house": "1f3e0",
    "key": "1f511",
    "star": "2b50",
    "tree": "1f333",
}
VERSIONS = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/twemoji": "1.2.5",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "@resvg/resvg-js": "2.6.2",
}
SVG_SETS = {"noto": "@iconify-json/noto", "twemoji": "@iconify-json/twemoji"}
FLUENT = "@lobehub/fluent-emoji-3d"

DRAWN_SIDE = 512  # pixels, the side an SVG is drawn at
SPRITE_SIDE = 64  # pixels, the longest side of a finished sprite
FAINTEST_ALPHA = 16  # of 255; pixels at or below it are outside the shape

SPRITES = Path(__file__).parents[1] / "src" / "opengrit" / "data" / "stickers" / "sprites"

DRAW_SVG = """
const { Resvg } = require("@resvg/resvg-js");
const svg = require("fs").readFileSync(0, "utf8");
const fitTo = { mode: "width", value: Number(process.argv[1]) };
process.stdout.write(new Resvg(svg, { fitTo }).render().asPng());
"""


def check_versions(modules: Path) -> None:
    """Raise ValueError where an installed package is not the version this script names."""
    for package, wanted in VERSIONS.items():
        found = json.loads((modules / package / "package.json").read_text(encoding="utf-8"))["version"]
        if found != wanted:
            raise ValueError(
                f"a sprite source must be the named version: {package} is {found} in {modules}; "
                f"install {package}@{wanted}"
            )


def draw_svg(svg: str, folder: Path) -> Image.Image:
    """Return the SVG drawn at DRAWN_SIDE px wide, by the resvg package installed in the folder."""
    command = ["node", "-e", DRAW_SVG, str(DRAWN_SIDE)]
    png = subprocess.run(command, input=svg.encode(), cwd=folder, stdout=subprocess.PIPE, check=True).stdout
    return Image.open(io.BytesIO(png)).convert("RGBA")


def svg_from_set(package: Path, code_point: str) -> str:
    """Return one icon of an Iconify set as a whole SVG document."""
    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    name = json.loads((package / "chars.json").read_text(encoding="utf-8"))[code_point]
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
    )


def crop_to_shape(picture: Image.Image) -> Image.Image:
    """Return the smallest rectangle that holds every pixel with alpha above FAINTEST_ALPHA."""
    shape = picture.getchannel("A").point(lambda alpha: 255 if alpha > FAINTEST_ALPHA else 0)
    return picture.crop(shape.getbbox())


def shrink(picture: Image.Image, longest: int) -> Image.Image:
    """Return the picture with the given longest side in pixels; colours are weighted by alpha."""
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def make_sprite(picture: Image.Image) -> Image.Image:
    """Return a tight sprite whose longest side is SPRITE_SIDE.

    Shrinking fades thin tips below the alpha threshold, so the target grows by single pixels until the
    cropped result has the full side.
    """
    cropped = crop_to_shape(picture)
    for longest in range(SPRITE_SIDE, 2 * SPRITE_SIDE):
        sprite = crop_to_shape(shrink(cropped, longest))
        if max(sprite.size) == SPRITE_SIDE:
            return sprite
    raise ValueError(f"a sprite must have a side of {SPRITE_SIDE} px: a {picture.size} picture gives none")


def save(sprite: Image.Image, path: Path) -> None:
    """Write the sprite as an optimised PNG; colours under full transparency are blanked first."""
    clear = Image.new("RGBA", sprite.size, (0, 0, 0, 0))
    seen = sprite.getchannel("A").point(lambda alpha: 255 if alpha else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.composite(sprite, clear, seen).save(path, optimize=True)


def main() -> None:
    """Read the folder from the command line and write every sprite."""
    parser = argparse.ArgumentParser(description="Make the sprites of the sticker world.")
    parser.add_argument("folder", type=Path, help="the folder that holds node_modules")
    folder: Path = parser.parse_args().folder.resolve()
    modules = folder / "node_modules"
    check_versions(modules)
    for kind, code_point in CODE_POINTS.items():
        for style, package in SVG_SETS.items():
            drawn = draw_svg(svg_from_set(modules / package, code_point), folder)
            save(make_sprite(drawn), SPRITES / style / f"{kind}.png")
        with Image.open(modules / FLUENT / "assets" / f"{code_point}.webp") as published:
            save(make_sprite(published.convert("RGBA")), SPRITES / "fluent" / f"{kind}.png")


if __name__ == "__main__":
    main()
