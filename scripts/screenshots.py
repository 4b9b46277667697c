"""Takes the pictures of README and site from the product itself: pages, a report, reward curves, and two animations.

    python scripts/screenshots.py

It trains and measures the demo into --runs (a few minutes on two cores), keeps what is there already, and writes all
pictures into docs/images. It needs Chromium and the extras `serve` and `dev`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "scripts")]

from browser import chromium, served  # noqa: E402

from animations import SteppedEngine, answer_frames, record_terminal, terminal_frames, write_animation  # noqa: E402
from opengrit.inference.grounder import Grounder  # noqa: E402
from opengrit.serving.app import ServeSettings, build_app  # noqa: E402
from opengrit.serving.engine import Engine  # noqa: E402
from opengrit.serving.examples import PageExample, sticker_examples  # noqa: E402
from opengrit.serving.local import LocalEngine  # noqa: E402

MAX_BYTES = 150_000
BASE = "tiny-qwen2.5-vl"
TRAINING = "opengrit train demo --out runs/demo"
WIDE, REPORT, PHONE = (1280, 990), (1280, 1180), (390, 844)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "pictures", help="folder of the demo")
    parser.add_argument(
        "--example",
        type=int,
        help="which of the page's examples is asked, from 1 (default: the most telling one)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    make_runs(chosen.runs)
    trained = str(chosen.runs / "train")
    chosen.example = chosen.example or telling_example(trained)
    with chromium() as browser:
        take_report(browser, chosen.runs / "report.html", chosen.out)
        take_page(browser, {"before training": BASE, "after training": trained}, chosen)
        take_phone(browser, {"after training": trained}, chosen)
        animate_answer(browser, trained, chosen)
        frames = terminal_frames(browser, chosen.runs / "terminal", command=TRAINING)
        write_animation(list(frames), chosen.out / "training.webp", lossless=True)


# -- what the pictures show ----------------------------------------------------------------------------------------------


def make_runs(runs: Path) -> None:
    """Whatever is missing of what `make demo` makes; the training's terminal is recorded."""
    sets = ["--data", "stickers/count", "--data", "stickers/spatial", "--max-new-tokens", "160"]
    commands = {
        "plain": ["eval", "--model", BASE, *sets, "--strategy", "direct"],
        "before": ["eval", "--model", BASE, *sets],
        "train": ["train", "demo", "--set", f"model={BASE}"],
        "after": ["eval", "--model", str(runs / "train"), *sets],
    }
    runs.mkdir(parents=True, exist_ok=True)
    for name, command in commands.items():
        if (runs / name).exists():
            continue
        whole = [sys.executable, "-m", "opengrit", *command, "--out", str(runs / name)]
        if name == "train":
            record_terminal(whole, runs / "terminal")
        else:
            subprocess.run(whole, check=True)
    named = [str(runs / name) for name in commands]
    whole = [sys.executable, "-m", "opengrit", "report", *named, "--out", str(runs / "report.html")]
    (runs / "report.html").unlink(missing_ok=True)
    subprocess.run(whole, check=True)


def telling_example(trained: str) -> int:
    """The number, from 1, of the example that shows most of what training adds: the two models' answers differ, and the
    trained one points at the most things.
    """
    before, after = Grounder.load(BASE), Grounder.load(trained)

    def telling(example: PageExample) -> tuple[bool, int]:
        plain, pointing = (model.ask(example.content, example.question) for model in (before, after))
        return plain.answer != pointing.answer, len(pointing.boxes)

    examples = sticker_examples().examples
    return 1 + max(range(len(examples)), key=lambda number: telling(examples[number]))


def engines(models: Mapping[str, str]) -> dict[str, Engine]:
    """An engine for each model, by the name that the page shows."""
    return {name: LocalEngine(Grounder.load(model), name=name) for name, model in models.items()}


# -- still pictures ------------------------------------------------------------------------------------------------------


def take_page(browser: Browser, models: Mapping[str, str], chosen: argparse.Namespace) -> None:
    """The page on a wide window, light: two models side by side."""
    with served(build_app(engines(models), ServeSettings())) as (url, _):
        page = window(browser, size=WIDE, scheme="light")
        ask(page, url, example=chosen.example)
        shoot(page, chosen.out / "page-wide.png")


def take_phone(browser: Browser, models: Mapping[str, str], chosen: argparse.Namespace) -> None:
    """The page on a phone, dark: one model."""
    with served(build_app(engines(models), ServeSettings())) as (url, _):
        page = window(browser, size=PHONE, scheme="dark")
        ask(page, url, example=chosen.example)
        page.locator(".og-answer").evaluate("e => scrollBy(0, e.getBoundingClientRect().top)")
        shoot(page, chosen.out / "page-phone.png")


def ask(page: Page, url: str, *, example: int) -> None:
    """Asks an example and lights its first box."""
    page.goto(url)
    page.wait_for_selector("body.og-started")
    page.locator("[data-example]").nth(example - 1).click()
    page.wait_for_selector('.og-answer[data-progress="done"]')
    page.wait_for_selector("body:not(.og-running)")
    page.locator(".og-reply").last.locator(".og-point").first.hover()


def take_report(browser: Browser, report: Path, out: Path) -> None:
    """The report's beginning, wide and light and on a phone in the dark, and the reward curves in it."""
    for name, size, scheme in (("report-wide", REPORT, "light"), ("report-phone", PHONE, "dark")):
        page = window(browser, size=size, scheme=scheme)
        page.goto(report.as_uri())
        if name == "report-wide":
            page.locator("#training .plots").first.evaluate("plots => { plots.style.padding = '16px'; }")
            page.locator("#training .plots").first.screenshot(path=out / "curves.png")
            shrink(out / "curves.png")
            page.evaluate("scrollTo(0, 0)")
        shoot(page, out / f"{name}.png")


def window(browser: Browser, *, size: tuple[int, int], scheme: str) -> Page:
    """A page in a window of that size, in light or dark colours, without movement."""
    return browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )


def shoot(page: Page, path: Path) -> None:
    """Writes what the window shows, and closes it."""
    page.screenshot(path=path, animations="disabled")
    page.close()
    shrink(path)


def shrink(path: Path) -> None:
    """Writes the picture with 256 colours where it is larger than a page wants to load."""
    with Image.open(path) as taken:
        picture = taken.convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        picture.quantize(256, method=Image.Quantize.FASTOCTREE, kmeans=3).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


# -- an animation --------------------------------------------------------------------------------------------------------


def animate_answer(browser: Browser, model: str, chosen: argparse.Namespace) -> None:
    """The trained model's answer to an example, piece by piece as the model writes it."""
    engine = SteppedEngine(LocalEngine(Grounder.load(model), name="tiny-qwen2.5-vl, trained"))
    with served(build_app({engine.name: engine}, ServeSettings())) as (url, loop):
        page = window(browser, size=(1280, 800), scheme="light")
        page.goto(url)
        frames = answer_frames(
            page, lambda: loop.call_soon_threadsafe(engine.let_one_through), example=chosen.example
        )
        write_animation(list(frames), chosen.out / "answer.webp", lossless=False)
        page.close()


if __name__ == "__main__":
    main()
