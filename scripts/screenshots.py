"""Takes the pictures of the page that stand in the README.

One is wide and light and has the model before and after training side by side, one is a phone's, dark, with the trained
model alone.

    opengrit train demo --out runs/demo
    python scripts/screenshots.py --model runs/demo

It needs Chromium and the extras `serve` and `dev`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from browser import chromium, served  # noqa: E402

from opengrit.inference.grounder import Grounder  # noqa: E402
from opengrit.serving.app import ServeSettings, build_app  # noqa: E402
from opengrit.serving.local import LocalEngine  # noqa: E402

MAX_BYTES = 150_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", default="tiny-qwen2.5-vl", help="the model before training")
    parser.add_argument("--model", required=True, help="run folder of the trained model")
    parser.add_argument("--example", type=int, default=1, help="which example is asked, from 1")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    models = {"before training": chosen.before, "after training": chosen.model}
    wide, phone = chosen.out / "page-wide.png", chosen.out / "page-phone.png"
    with chromium() as browser:
        with served(build_app(engines(models), ServeSettings())) as (url, _):
            take(browser, url, wide, size=(1280, 990), scheme="light", example=chosen.example)
        del models["before training"]
        with served(build_app(engines(models), ServeSettings())) as (url, _):
            take(browser, url, phone, size=(390, 844), scheme="dark", example=chosen.example)


def engines(models: dict[str, str]) -> dict[str, LocalEngine]:
    """An engine for each model, by the name that the page shows."""
    return {name: LocalEngine(Grounder.load(model), name=name) for name, model in models.items()}


def take(browser: Browser, url: str, path: Path, *, size: tuple[int, int], scheme: str, example: int) -> None:
    """Asks an example, lights its first box, and writes what the window shows."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("body.og-started")
    page.locator("[data-example]").nth(example - 1).click()
    page.wait_for_selector('.og-answer[data-progress="done"]')
    page.wait_for_selector("body:not(.og-running)")
    page.locator(".og-answer").evaluate(
        "e => scrollTo(0, innerWidth < 860 ? scrollY + e.getBoundingClientRect().top : 0)"
    )
    page.locator(".og-reply").last.locator(".og-point").first.hover()
    page.screenshot(path=path, animations="disabled")
    context.close()
    shrink(path)


def shrink(path: Path) -> None:
    """Writes the picture with 256 colours where it is larger than a page wants to load."""
    with Image.open(path) as taken:
        picture = taken.convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        picture.quantize(256, method=Image.Quantize.FASTOCTREE, kmeans=3).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
