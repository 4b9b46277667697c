"""The page in a real browser: five rows with boxes by keyboard alone and by touch, killed in between, continued, trained on."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_random
from accessible import barriers, windows
from browser import PATIENCE_SECONDS, chromium
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, expect
from typer.testing import CliRunner

from opengrit.cli.app import app

expect.set_options(timeout=PATIENCE_SECONDS * 1000)

WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
# What a browser's console says of a server that was killed: refused, or cut while it answered or was idle.
SERVER_GONE = re.compile(
    r"net::ERR_(CONNECTION_(REFUSED|RESET|CLOSED|ABORTED)|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)\b"
)
QUESTIONS = (
    ("How many cars are there?", "1"),
    ("Is the car red?", "Yes"),
    ("Is the car on the right?", "no"),
    ("What is beside the car?", "a tree"),
    ("How many trees are there?", "1"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures that are 400 x 300 upright; the second is stored sideways."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(5):
        Image.new("RGB", (400, 300), (40 * number, 120, 90)).save(folder / f"{number}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 400), "navy").save(folder / "1.jpg", exif=exif)
    (folder / "1.png").unlink()
    return folder


@dataclass
class Annotating:
    """The command in a process, on a port that stays the same when it is started again."""

    photos: Path
    out: Path
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> str:
        """Starts it; what it says when it is ready."""
        arguments = ["annotate", self.photos, "--out", self.out, "--port", self.port, "--no-browser"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "opengrit", *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self, how: signal.Signals) -> str:
        """Ends it; what else it has said."""
        assert self.process is not None
        self.process.send_signal(how)
        said, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return said

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]


@contextmanager
def annotating(photos: Path, out: Path) -> Iterator[Annotating]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one = Annotating(photos, out, free.getsockname()[1])
    assert f"5 pictures of {photos} at {one.url}" in one.start()
    try:
        yield one
    finally:
        if one.process is not None and one.process.poll() is None:
            one.end(signal.SIGKILL)


@contextmanager
def page_of(browser: Browser, url: str, **how: Any) -> Iterator[Page]:
    """The page, ready; fails on an error in its console, but for a server that was killed."""
    context = browser.new_context(**how)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.goto(url)
    expect(page.locator("body[data-ready]")).to_be_attached()
    yield page
    context.close()
    assert [e for e in errors if not SERVER_GONE.search(e)] == []


def saved(page: Page, good: int) -> None:
    expect(page.locator("#status")).to_have_text(f"Saved: {good} of 20 good rows.")
    expect(page.locator("#goal-text")).to_have_text(f"{good} of 20 good rows in mine.jsonl")


def make_rows(
    page: Page, annotated: Annotating, enter: Callable[[int], None], save: Callable[[], None]
) -> None:
    """Five rows. The server is killed before the third is saved, and the page reloaded while the fourth is written."""
    for number in range(5):
        expect(page.locator("#pick")).to_have_value(str(number))
        expect(page.locator("#shown")).to_have_attribute("src", f"pictures/{number}")
        if number == 2:
            annotated.end(signal.SIGKILL)
            with annotated.out.open("ab") as stream:
                stream.write(b'{"question": "cut off in the mid')
        enter(number)
        if number == 2:
            save()
            expect(page.locator("#status")).to_contain_text("The server does not answer")
            expect(page.locator("#question")).to_have_value(QUESTIONS[2][0])
            assert "2 rows from before" in annotated.start()
        if number == 3:
            page.reload()
            expect(page.locator("#status")).to_have_text("What you had not saved is here again.")
            expect(page.locator(".box")).to_have_count(1)
            expect(page.locator("#answer")).to_have_value(QUESTIONS[3][1])
        save()
        saved(page, number + 1)
    assert "5 rows in" in annotated.end(signal.SIGINT)


def train_a_step(annotated: Annotating, folder: Path) -> None:
    """One step of GRPO with a random model of the real class learns from every row."""
    tiny_random.save(tiny_random.talkative(tiny_random.qwen()), folder / "base")
    changes = {
        "model": str(folder / "base"), "data.train": f"[{{file: {annotated.out}, images: {annotated.photos}}}]",
        "data.eval": "[]", "strategy": "direct", "rewards": "{tag_walk: 1.0, repetition: 0.25}",
        "train.max_steps": 1, "train.num_generations": 2, "train.questions_per_step": 5,
        "train.per_device_train_batch_size": 10, "train.max_completion_length": 8, "train.save_steps": "null",
    }  # fmt: skip
    options = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, ["train", "demo", "--out", str(folder / "run"), "--quiet", *options])
    assert result.exit_code == 0, result.output
    records = (folder / "run" / "records.jsonl").read_text(encoding="utf-8")
    assert all(question in records for question, _ in QUESTIONS)
    checked = CliRunner().invoke(
        app, ["data", "check", str(annotated.out), "--images", str(annotated.photos)]
    )
    assert checked.exit_code == 0, checked.output


def check_rows(annotated: Annotating, box_is: Callable[[list[int]], bool]) -> None:
    rows = annotated.rows()
    assert [(row["question"], str(row["answer"])) for row in rows] == list(QUESTIONS)
    assert [row["image"] for row in rows] == ["0.png", "1.jpg", "2.png", "3.png", "4.png"]
    assert {(row["width"], row["height"], row["dataset"]) for row in rows} == {(400, 300, "mine")}
    assert all(len(row["bboxs"]) == 1 and box_is(row["bboxs"][0]) for row in rows), rows


def test_five_rows_by_keyboard_alone(browser, photos, tmp_path):
    with annotating(photos, tmp_path / "mine.jsonl") as annotated:
        with page_of(browser, annotated.url, viewport=WIDE) as page:

            def enter(number: int) -> None:
                question, answer = QUESTIONS[number]
                expect(page.locator("#question")).to_be_focused()
                page.keyboard.type(question)
                page.keyboard.press("Enter")
                expect(page.locator("#answer")).to_be_focused()
                page.keyboard.type(answer)
                page.keyboard.press("Shift+Tab")
                page.keyboard.press("Shift+Tab")
                expect(page.locator("#add-box")).to_be_focused()
                page.keyboard.press("Enter")
                expect(page.locator(".box")).to_be_focused()
                for key in ("ArrowRight", "Shift+ArrowDown", "Control+ArrowLeft"):
                    page.keyboard.press(key)
                page.keyboard.press("Shift+Tab")  # the picture's walk is before its boxes
                page.keyboard.press("Tab")
                expect(page.locator(".box")).to_be_focused()

            make_rows(page, annotated, enter, lambda: page.keyboard.press("Control+Enter"))
        # A quarter of 400 x 300 in the middle, [150, 113, 250, 188]; 8 to the right, 6 taller, 1 back.
        check_rows(annotated, lambda box: box == [157, 113, 257, 194])
        train_a_step(annotated, tmp_path)


def drag(touch: CDPSession, *points: tuple[float, float]) -> None:
    """One finger from point to point."""
    for kind, (x, y) in zip(("touchStart", *["touchMove"] * (len(points) - 1)), points, strict=True):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def on_stage(page: Page, x: float, y: float) -> tuple[float, float]:
    frame = page.locator("#stage").bounding_box()
    assert frame is not None
    return frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]


def test_five_rows_by_touch(browser, photos, tmp_path):
    with annotating(photos, tmp_path / "mine.jsonl") as annotated:
        with page_of(browser, annotated.url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
            touch = page.context.new_cdp_session(page)

            def enter(number: int) -> None:
                question, answer = QUESTIONS[number]
                page.locator("#add-box").tap()
                expect(page.locator("#box-hint")).to_have_text("Drag on the picture, or tap it.")
                start, *rest = (on_stage(page, x, x) for x in (0.2, 0.3, 0.4, 0.5))
                drag(touch, start, *rest)
                expect(page.locator(".box")).to_have_count(1)
                # The lower right corner goes on to 0.6, 0.7.
                drag(touch, on_stage(page, 0.5, 0.5), on_stage(page, 0.55, 0.6), on_stage(page, 0.6, 0.7))
                for field, text in (("#question", question), ("#answer", answer)):
                    page.locator(field).tap()
                    expect(page.locator(field)).to_be_focused()
                    page.keyboard.type(text)

            make_rows(page, annotated, enter, lambda: page.locator("#save").tap())
        ideal = (80, 60, 240, 210)
        check_rows(annotated, lambda box: all(abs(a - b) <= 4 for a, b in zip(box, ideal, strict=True)))
        train_a_step(annotated, tmp_path)


def test_a_finger_scrolls_a_tap_puts_a_box_and_twenty_good_rows_are_said(browser, photos, tmp_path):
    rows = [
        {"question": f"How many {thing} are there?", "answer": n, "image": image, "width": 400, "height": 300}
        for n, image in enumerate(("0.png", "1.jpg", "2.png", "3.png", "4.png"))
        for thing in ("cars", "dogs", "cups", "trees")
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (
        annotating(photos, tmp_path / "mine.jsonl") as annotated,
        page_of(browser, annotated.url, viewport=PHONE, has_touch=True, is_mobile=True) as page,
    ):
        expect(page.locator("#shown")).to_have_attribute("src", "pictures/0")
        expect(page.locator("#done")).to_contain_text("20 good rows are there: enough for GRIT to train on.")
        expect(page.locator("#done code")).to_have_count(2)
        touch = page.context.new_cdp_session(page)
        before = on_stage(page, 0, 0)[1]
        drag(touch, *[on_stage(page, 0.5, 0.9 - 0.2 * step) for step in range(5)])
        expect(page.locator(".box")).to_have_count(0)
        assert on_stage(page, 0, 0)[1] < before
        page.locator("#add-box").tap()
        page.locator("#stage").tap()
        expect(page.locator(".box")).to_have_attribute(
            "aria-label", re.compile(r"Box 1: 1[45]\d, 11\d, 2[45]\d, 1[89]\d")
        )
        page.locator("#number-of-boxes").tap()
        expect(page.locator("#answer")).to_have_value("1")


def test_everything_fits_and_nothing_is_a_serious_barrier(browser, photos, tmp_path):
    rows = [
        {"question": q, "answer": "a b c d e f g", "image": f"{n}.png", "width": 400, "height": 300}
        for n, (q, _) in enumerate(QUESTIONS)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with annotating(photos, tmp_path / "mine.jsonl") as annotated:
        for page in windows(browser):
            page.goto(annotated.url)
            expect(page.locator("body[data-ready]")).to_be_attached()
            page.locator("#pick").select_option("0")
            page.locator("#all-part summary").click()
            expect(page.locator("#here .problem")).to_contain_text("a sentence")
            page.locator("#add-box").press("Enter")
            expect(page.locator(".box")).to_be_focused()
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert barriers(page) == []
