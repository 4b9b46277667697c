"""The page in a real browser: bring a picture, ask, watch the text grow, find what it points at, take it away."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from accessible import barriers, windows
from browser import PATIENCE_SECONDS, chromium, served
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from opengrit.core.boxes import Size
from opengrit.core.images import Limits, open_any
from opengrit.core.types import Completion, Finish
from opengrit.data.stickers.sets import asked
from opengrit.data.stickers.world import draw
from opengrit.grounding.frames import Frame, Unit
from opengrit.grounding.parsing import parse
from opengrit.inference.answer import Answer, read_answer
from opengrit.inference.grounder import Grounder
from opengrit.reports.live import LiveReply, Progress, answer_html
from opengrit.runs.folder import RunDir
from opengrit.runs.origin import Origin, write_origin
from opengrit.sampling import Sampled
from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.engine import Ask, Busy, Load, TooLate
from opengrit.serving.examples import run_examples, sticker_examples
from opengrit.serving.local import LocalEngine
from opengrit.serving.page import PageSettings, mount_page
from opengrit.serving.page_backend import short_names
from opengrit.serving.session_store import SessionStore, plain_name, prepare

expect.set_options(timeout=PATIENCE_SECONDS * 1000)

SEEN = Size(112, 112)
SIZE = Size(560, 560)  # five times what the model sees
THOUGHT = '<think> I see [{"bbox_2d": [10, 20, 50, 60], "label": "dog"},'
MORE = '\n{"bbox_2d": [70, 30, 100, 90], "label": "cat"}] </think>'
END = " <rethink> Two animals. </rethink> <answer> 2 </answer>"
# 10, 20, 50, 60 of 112 pixels are 50, 100, 250, 300 of 560; the second box likewise.
BOXES = ((50, 100, 250, 300), (350, 150, 500, 450))
HOSTILE = """<script>window.harm=1</script><img src=x onerror="window.harm=2">${window.harm=3}{{harm}}'"&<b>bold</b>"""
WIDE, PHONE = (1280, 860), (390, 844)


# -- a small real engine -------------------------------------------------------------------------------------------


@dataclass
class Script:
    """What an engine says, piece by piece; each piece waits for its gate, `failure` ends it in place of an answer."""

    pieces: tuple[str, ...] = (THOUGHT, MORE, END)
    failure: Exception | None = None
    gated: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    gates: list[asyncio.Event] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gates = [asyncio.Event() for _ in range(len(self.pieces) + 1)]
        if not self.gated:
            for gate in self.gates:
                gate.set()

    def open_gate(self, number: int) -> None:
        """Lets the piece of that number through (the last gate is the answer's)."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.gates[number].set)


class ScriptedEngine:
    """Says what its script says, about any picture, as a model that sees 112 x 112 pixels of it."""

    frame = "qwen2_5_vl"

    def __init__(self, name: str) -> None:
        self.name = name
        self.script = Script()
        self.asks: list[Ask] = []

    def seen_size(self, picture_size: Size) -> Size:
        return SEEN

    def load(self) -> Load:
        return Load(queued=0, live=0)

    async def start(self) -> None: ...

    async def close(self, grace_seconds: float = 0.0) -> None: ...

    async def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        script = self.script
        self.asks.append(ask)
        script.loop = asyncio.get_running_loop()
        script.began.set()
        try:
            for piece, gate in zip(script.pieces, script.gates, strict=False):
                await gate.wait()
                yield piece
            await script.gates[-1].wait()
            if script.failure:
                raise script.failure
            said = Completion("".join(script.pieces), (1, 2, 3), Finish.STOP)
            yield read_answer(
                Sampled(said, (1,), SEEN),
                question=ask.question,
                picture_size=Size(*ask.image.size),
                strategy=ask.strategy,
                frame_name=self.frame,
                seconds=1.25,
                model=self.name,
            )
        finally:
            script.closed.set()


def sticker_picture() -> bytes:
    """A sticker scene, scaled up to 560 x 560 pixels, as PNG."""
    scene = next(q.scene for q in asked("dev") if q.scene.size == SEEN)
    out = io.BytesIO()
    draw(scene).resize((SIZE.width, SIZE.height), Image.Resampling.NEAREST).save(out, format="PNG")
    return out.getvalue()


PICTURE = sticker_picture()
UPLOAD = {"name": "two animals.png", "mimeType": "image/png", "buffer": PICTURE}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine("fake")


@pytest.fixture(scope="module")
def address(engine: ScriptedEngine) -> Iterator[str]:
    with served(build_app({"fake": engine}, ServeSettings())) as (url, _):
        yield url


@pytest.fixture(autouse=True)
def fresh_script(engine: ScriptedEngine) -> None:
    engine.script = Script()
    engine.asks.clear()


@contextmanager
def visit(
    browser: Browser, url: str, *, size: tuple[int, int] = WIDE, expected: str = "", **options: Any
) -> Iterator[Page]:
    """The page, ready to be used. At the end: no error in its console but `expected`, no request to another host."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("filechooser", lambda _: None)  # from here on no dialog opens, and a test may wait for one
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((url, "blob:", "data:")) else wrong.append(r.url))
    try:
        page.goto(url)
        page.wait_for_selector("body.og-started")
        yield page
        assert [w for w in wrong if not expected or expected not in w] == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
            "wider than its window"
        )
    finally:
        context.close()


def bring(page: Page) -> None:
    page.locator("#og-file").set_input_files(UPLOAD)  # type: ignore[arg-type]
    expect(page.locator("#og-result .og-frame img")).to_be_visible()


def ask(page: Page, question: str = "How many animals are there?") -> None:
    page.locator("#og-question textarea").fill(question)
    page.locator("#og-ask").click()


def finished(page: Page, progress: str = "done") -> Locator:
    answer = page.locator(f'.og-answer[data-progress="{progress}"]')
    expect(answer).to_be_visible()
    expect(page.locator("body:not(.og-running)")).to_be_attached()
    return answer


MEASURE = """() => {
  const edges = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const lit = document.querySelector("rect.og-box.lit");
  return [edges(lit.closest(".og-frame").querySelector("img")), edges(lit)];
}"""


def assert_lit(page: Page, number: int) -> None:
    """Exactly this box is lit, where the picture shows these pixels, to two pixels of the window."""
    expect(page.locator("rect.og-box.lit")).to_have_count(1)
    expect(page.locator(".og-badge.lit")).to_have_text(str(number))
    (left, top, right, bottom), lit = page.evaluate(MEASURE)  # at one moment: the page may be scrolling
    across, down = (right - left) / SIZE.width, (bottom - top) / SIZE.height
    a, b, c, d = BOXES[number - 1]
    wanted = (left + a * across, top + b * down, left + c * across, top + d * down)
    assert tuple(lit) == pytest.approx(wanted, abs=2)


def download(page: Page, act: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        act()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def assert_drawn(content: bytes) -> None:
    """The PNG is as large as the picture that was brought, and each box has its colour on its edges."""
    with Image.open(io.BytesIO(content)) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (SIZE.width, SIZE.height))
        rgb = drawn.convert("RGB")
    for (left, top, right, bottom), colour in zip(
        BOXES, ((0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)), strict=True
    ):
        across, down = (left + right) // 2, (top + bottom) // 2
        for x, y in ((left, down), (right, down), (across, bottom)):
            assert rgb.getpixel((x, y)) == colour


# -- by mouse, by keys, by touch -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_a_picture_is_brought_asked_about_and_its_answer_watched_found_and_taken_away(
    browser: Browser, address: str, engine: ScriptedEngine, size: tuple[int, int], scheme: Any
) -> None:
    script = engine.script = Script(gated=True)
    with visit(browser, address, size=size, color_scheme=scheme) as page:
        bring(page)
        ask(page)
        assert script.began.wait(PATIENCE_SECONDS)
        text, rects = page.locator("#og-result .og-text"), page.locator("rect.og-box")
        lengths = []
        for gate, said, boxes in ((0, "dog", 1), (1, "</think>", 2), (2, "</answer>", 2)):
            script.open_gate(gate)
            expect(text).to_contain_text(said)
            expect(rects).to_have_count(boxes)
            expect(page.locator("body.og-running")).to_be_attached()
            lengths.append(len(text.inner_text()))
        assert lengths[0] < lengths[1] < lengths[2]
        script.open_gate(3)
        finished(page)
        expect(page.locator(".og-final strong")).to_have_text("2")
        for number in (1, 2):
            page.locator(".og-point").nth(number - 1).hover()
            assert_lit(page, number)
        page.mouse.move(1, 1)
        expect(page.locator(".lit")).to_have_count(0)
        page.locator("rect.og-box").last.hover()
        expect(page.locator(".og-point.lit")).to_have_count(1)
        name, content = download(page, page.get_by_role("link", name="Picture (PNG)").click)
        assert name == "two-animals-boxes.png"
        assert_drawn(content)
        name, content = download(page, page.get_by_role("link", name="Answer (JSON)").click)
        said = json.loads(content)
        assert name == "two-animals-answer.json"
        assert (said["answer"], said["picture_size"]) == ("2", [560, 560])
        assert [box["pixels"] for box in said["boxes"]] == [list(box) for box in BOXES]


@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_everything_can_be_done_with_the_keyboard_alone(
    browser: Browser, address: str, engine: ScriptedEngine, size: tuple[int, int]
) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"the focus on {selector} is not visible"
                return
        pytest.fail(f"the Tab key does not lead to {selector}")

    with visit(browser, address, size=size) as page:
        tab_to("#og-choose")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(UPLOAD)  # type: ignore[arg-type]
        expect(page.locator("#og-question textarea")).to_be_focused()
        page.keyboard.type("How many?")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("Count well.")
        page.keyboard.press("Enter")
        finished(page)
        assert engine.asks[0].question == "How many?\nCount well."
        tab_to(".og-point")
        assert_lit(page, 1)
        page.keyboard.press("ArrowRight")
        assert_lit(page, 2)
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.locator('.og-point[aria-pressed="true"]')).to_have_count(1)
        assert_lit(page, 2)
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Escape")
        expect(page.locator('.og-point[aria-pressed="true"]')).to_have_count(0)
        tab_to(".og-downloads a")
        _, content = download(page, lambda: page.keyboard.press("Enter"))
        assert_drawn(content)
        page.locator("#og-theme").focus()
        page.keyboard.press("Control+Enter")  # asks from anywhere
        expect(page.locator("#og-history button")).to_have_count(2)


@pytest.mark.slow
def test_a_touch_on_the_text_lights_the_box_and_a_touch_on_the_box_lights_the_text(
    browser: Browser, address: str
) -> None:
    with visit(browser, address, size=PHONE, has_touch=True, is_mobile=True) as page:
        bring(page)
        ask(page)
        finished(page)
        page.locator(".og-point").first.tap()
        assert_lit(page, 1)
        page.locator(".og-point").first.tap()
        page.locator("#og-history button").focus()
        expect(page.locator(".lit")).to_have_count(0)
        page.locator("rect.og-box").first.tap()
        expect(page.locator(".og-point.lit")).to_have_count(1)


@pytest.mark.slow
def test_focus_and_lit_boxes_stay_where_they_are_while_the_text_grows(
    browser: Browser, address: str, engine: ScriptedEngine
) -> None:
    script = engine.script = Script(gated=True)
    with visit(browser, address) as page:
        bring(page)
        ask(page)
        assert script.began.wait(PATIENCE_SECONDS)
        script.open_gate(0)
        point = page.locator(".og-point").first
        point.focus()
        picture = page.locator("#og-result .og-frame img").element_handle()
        for gate in (1, 2, 3):
            script.open_gate(gate)
        finished(page)
        expect(point).to_be_focused()
        assert_lit(page, 1)
        assert picture.evaluate("e => e.isConnected")
        expect(page.locator("#og-announcer")).to_contain_text("Answer 2. 2 boxes")


# -- ways to bring a picture, and to see answers again ---------------------------------------------------------------


SEND = """([bytes, kind]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "sent.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_can_be_pasted_and_dropped(browser: Browser, address: str, kind: str) -> None:
    with visit(browser, address) as page:
        page.evaluate(SEND, [list(PICTURE), kind])
        expect(page.locator("#og-choose-name")).to_have_text("sent.png")
        expect(page.locator("#og-result .og-frame img")).to_be_visible()


@pytest.mark.slow
def test_an_example_is_asked_with_one_click_and_what_was_asked_is_shown_again(
    browser: Browser, address: str, engine: ScriptedEngine
) -> None:
    with visit(browser, address) as page:
        examples = page.locator("[data-example]")
        expect(examples).to_have_count(6)
        first = examples.nth(0).inner_text()
        examples.nth(0).click()
        expect(page.locator("#og-history button")).to_have_count(1)
        engine.script = Script(pieces=("<think> nothing </think><answer> none </answer>",))
        examples.nth(1).click()
        expect(page.locator("#og-history button")).to_have_count(2)
        finished(page)
        assert engine.asks[0].image == open_any(sticker_examples().examples[0].content)
        expect(page.locator(".og-final strong")).to_have_text("none")
        page.locator("#og-history button").nth(1).click()
        expect(page.locator(".og-asked")).to_have_text(first)
        expect(page.locator(".og-final strong")).to_have_text("2")
        expect(page.locator('#og-history [aria-current="true"]')).to_contain_text(first)


@pytest.mark.slow
def test_two_models_are_compared_side_by_side_and_one_that_fails_does_not_hold_up_the_other(
    browser: Browser,
) -> None:
    long = "before-training-under-a-name-that-takes-more-than-one-line-of-its-column"
    before, after = ScriptedEngine(f"owner/{long}"), ScriptedEngine("after")
    before.script = Script(failure=TooLate(3))
    with (
        served(build_app({before.name: before, "after": after}, ServeSettings())) as (url, _),
        visit(browser, url) as page,
    ):
        bring(page)
        ask(page)
        finished(page)
        one, two = (
            page.locator(f'.og-reply[aria-label="{long}"]'),
            page.locator('.og-reply[aria-label="after"]'),
        )
        expect(one.get_by_role("alert")).to_contain_text("within 3 s")
        expect(two.locator(".og-final strong")).to_have_text("2")
        left, right = one.bounding_box(), two.bounding_box()
        assert left is not None
        assert right is not None
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] <= right["x"]
        names, pictures = (
            [reply.locator(part).bounding_box() for reply in (one, two)]
            for part in (".og-run", ".og-picture")
        )
        assert names[0]["height"] > names[1]["height"]  # type: ignore[index]
        assert pictures[0]["y"] == pictures[1]["y"]  # type: ignore[index]
        two.locator(".og-point").first.hover()
        expect(one.locator("rect.lit")).to_have_count(0)
        expect(two.locator("rect.lit")).to_have_count(1)
        page.get_by_role("checkbox", name=long).uncheck()
        ask(page, "Only one?")
        expect(page.locator(".og-asked")).to_have_text("Only one?")
        finished(page)
        expect(page.locator(".og-reply")).to_have_count(1)
        assert (len(before.asks), len(after.asks)) == (1, 2)


@pytest.mark.slow
def test_a_model_that_knows_stickers_only_says_so_of_other_pictures_and_how_another_is_served(
    browser: Browser,
) -> None:
    engine = ScriptedEngine("toy")
    app = build_app({"toy": engine}, ServeSettings(only_stickers=frozenset(["toy"])))
    with served(app) as (url, _), visit(browser, url) as page:
        note = page.get_by_role("note")
        bring(page)
        expect(note).to_contain_text("toy knows emoji stickers only")
        ask(page)
        finished(page)
        expect(note).to_contain_text("toy knows emoji stickers only")
        note.get_by_role("link", name="Serve a model of your own").click()
        expect(page.locator("#og-own pre").first).to_be_visible()
        expect(page.locator("#og-own summary")).to_be_focused()
        page.locator("[data-example]").first.click()
        finished(page)
        expect(note).to_have_count(0)


@pytest.mark.slow
def test_nothing_on_the_page_is_a_serious_barrier(browser: Browser) -> None:
    engines = {name: ScriptedEngine(name) for name in ("toy", "other")}
    with served(build_app(engines, ServeSettings(only_stickers=frozenset(["toy"])))) as (url, _):
        for page in windows(browser):
            page.set_default_timeout(PATIENCE_SECONDS * 1000)
            page.goto(url)
            page.wait_for_selector("body.og-started")
            assert barriers(page) == []
            bring(page)
            ask(page)
            finished(page)
            page.get_by_role("link", name="Serve a model of your own").click()
            page.locator(".og-point").first.click()
            assert barriers(page) == []


# -- stopping, and what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_stop_ends_the_work_and_keeps_what_is_written(
    browser: Browser, address: str, engine: ScriptedEngine
) -> None:
    script = engine.script = Script(gated=True)
    with visit(browser, address) as page:
        bring(page)
        ask(page)
        assert script.began.wait(PATIENCE_SECONDS)
        script.open_gate(0)
        expect(page.locator("#og-result .og-text")).to_contain_text("dog")
        page.locator("#og-stop").click()
        finished(page, "stopped")
        assert script.closed.wait(PATIENCE_SECONDS)
        expect(page.locator("#og-result .og-text")).to_contain_text("dog")
        expect(page.locator(".og-note")).to_have_text("Stopped, 1 box")
        engine.script = Script()
        ask(page)
        finished(page)


@pytest.mark.slow
def test_a_page_that_is_closed_leaves_no_work_behind(
    browser: Browser, address: str, engine: ScriptedEngine
) -> None:
    script = engine.script = Script(gated=True)
    with visit(browser, address) as page:
        bring(page)
        ask(page)
        assert script.began.wait(PATIENCE_SECONDS)
    assert script.closed.wait(PATIENCE_SECONDS)


@pytest.mark.slow
def test_what_goes_wrong_is_said_plainly(browser: Browser, address: str, engine: ScriptedEngine) -> None:
    with visit(browser, address, expected="status of 400") as page:
        status = page.locator("#og-status")
        ask(page)
        expect(status).to_contain_text("Choose a picture first")
        page.locator("#og-file").set_input_files(
            {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
        )
        expect(status).to_contain_text("this is not")
        bring(page)
        expect(status).to_have_text("")
        ask(page, "   ")
        expect(status).to_have_text("Write a question first.")
        for failure, said in (
            (Busy(7), "Try again in 7 seconds."),
            (TooLate(3), "within 3 s"),
            (ZeroDivisionError("<b>inside</b>"), "Something went wrong on the server"),
        ):
            engine.script = Script(pieces=(), failure=failure)
            ask(page)
            expect(page.get_by_role("alert")).to_contain_text(said)
            finished(page, "failed")
        assert "inside" not in page.inner_text("body")


@pytest.mark.slow
def test_a_server_that_goes_away_is_said_so_and_what_is_written_stays(browser: Browser) -> None:
    engine = ScriptedEngine("fake")
    script = engine.script = Script(gated=True)
    context = browser.new_context()
    page = context.new_page()
    with served(build_app({"fake": engine}, ServeSettings())) as (url, _):
        page.goto(url)
        page.wait_for_selector("body.og-started")
        bring(page)
        ask(page)
        assert script.began.wait(PATIENCE_SECONDS)
        script.open_gate(0)
        expect(page.locator(".og-point")).to_have_count(1)
    expect(page.locator("body:not(.og-running)")).to_be_attached()
    expect(page.locator(".og-point")).to_have_count(1)
    ask(page)
    expect(page.locator("#og-status")).to_contain_text("The server cannot be reached")
    context.close()


@pytest.mark.slow
def test_markup_in_questions_texts_labels_and_file_names_stays_text(
    browser: Browser, address: str, engine: ScriptedEngine
) -> None:
    label = json.dumps(HOSTILE)
    text = f'<think> {HOSTILE} {{"bbox_2d": [10, 20, 50, 60], "label": {label}}} </think><answer>{HOSTILE}</answer>'
    engine.script = Script(pieces=tuple(text[i : i + 9] for i in range(0, len(text), 9)))
    with visit(browser, address) as page:
        page.locator("#og-file").set_input_files(
            {"name": f"{HOSTILE.replace('/', '')}.png", "mimeType": "image/png", "buffer": PICTURE}
        )
        expect(page.locator("#og-result .og-frame img")).to_be_visible()
        ask(page, HOSTILE)
        finished(page)
        expect(page.locator(".og-asked")).to_have_text(HOSTILE)
        expect(page.locator(".og-final strong")).to_have_text(HOSTILE)
        expect(page.locator("#og-history button")).to_contain_text(HOSTILE)
        assert page.evaluate("window.harm === undefined")
        assert page.locator("#og-layout b, #og-layout script, #og-layout img[src='x']").count() == 0
        name, _ = download(page, page.get_by_role("link", name="Picture (PNG)").click)
        assert name.endswith("-boxes.png")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@pytest.mark.slow
def test_the_page_is_light_or_dark_as_the_visitor_likes_and_its_switch_turns_it_over(
    browser: Browser, address: str
) -> None:
    def is_dark(selector: str) -> bool:
        colour = page.eval_on_selector(selector, "e => getComputedStyle(e).color")
        return sum(int(n) for n in colour[4:-1].split(",")) > 384  # the ink is light

    for scheme, dark in (("light", False), ("dark", True)):
        with visit(browser, address, color_scheme=scheme) as page:
            bring(page)
            ask(page)
            finished(page)
            for turned in (dark, not dark):
                expect(page.locator("#og-theme")).to_have_attribute("aria-pressed", str(turned).lower())
                for part in (
                    ".og-header h1",
                    ".og-text",
                    "#og-question textarea",
                    ".og-cards button",
                    ".og-asked h2",
                ):
                    assert is_dark(part) is turned, part
                page.locator("#og-theme").click()


@pytest.mark.slow
def test_the_packaged_model_answers_on_the_page_what_it_answers_in_python(browser: Browser) -> None:
    grounder = Grounder.load("tiny-qwen2.5-vl")
    example = sticker_examples().examples[0]
    said = grounder.ask(example.content, example.question)
    engine = LocalEngine(grounder)
    app = build_app({engine.name: engine}, ServeSettings())
    with served(app) as (url, _), visit(browser, url) as page:
        page.locator("[data-example]").first.click()
        answer = finished(page)
        expect(answer.locator(".og-run")).to_have_text(engine.name)
        _, content = download(page, page.get_by_role("link", name="Answer (JSON)").click)
        assert json.loads(content)["transcript"] == said.text
        expect(page.locator(".og-point")).to_have_count(len(said.boxes))


# -- without a browser -----------------------------------------------------------------------------------------------


def test_pictures_over_the_limits_are_refused_and_unknown_names_are_not_there() -> None:
    settings = PageSettings(limits=Limits(max_bytes=300_000, max_pixels=SIZE.width * SIZE.height))
    with (
        served(mount_page(FastAPI(), {"fake": ScriptedEngine("fake")}, settings=settings)) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client,
    ):
        good = client.post("/page/pictures", params={"name": "../../etc/passwd.png"}, content=PICTURE)
        assert good.status_code == 200
        assert client.get(good.json()["src"]).headers["content-type"] == "image/png"
        large = client.post("/page/pictures", content=bytes(300_001))
        assert (large.status_code, "at most" in large.json()["error"]) == (413, True)
        wide = io.BytesIO()
        Image.new("L", (SIZE.width * SIZE.height + 1, 1)).save(wide, format="PNG")
        for content in (
            b"",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            wide.getvalue(),
            PICTURE[:2000],
        ):
            refused = client.post("/page/pictures", content=content)
            assert refused.status_code == 400
            assert refused.json()["error"].endswith(".")
        for path in ("/page/pictures/unknown", "/page/answers/unknown.png", "/page/answers/unknown.json"):
            assert client.get(path).status_code == 404


def test_gradio_takes_no_file_serves_no_file_and_fetches_nothing_for_a_caller() -> None:
    fetched: list[str] = []
    elsewhere = FastAPI()

    @elsewhere.get("/{path:path}")
    def note(path: str) -> str:
        fetched.append(path)
        return "here"

    with (
        served(elsewhere) as (other, _),
        served(mount_page(FastAPI(), {"fake": ScriptedEngine("fake")})) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client,
    ):
        assert client.post("/gradio_api/upload", files={"files": PICTURE}).status_code == 404
        for path in (f"proxy={other}/a", f"file={other}/b", "file=/etc/passwd", "info", "runs", "call/ask"):
            assert client.get(f"/gradio_api/{path}").status_code == 404
        file = {"path": f"{other}/c", "url": f"{other}/c", "meta": {"_type": "gradio.FileData"}}
        for data in ([file, "q", ["fake"]], ["p", "q", [file]], file):
            body = {"data": data, "fn_index": 0, "session_hash": "s"}
            assert client.post("/gradio_api/queue/join", json=body).status_code == 404
        for asked in (
            {"picture": file},
            {"question": [file]},
            {"models": [file]},
            {"id": 1},
            [file],
            file["url"],
        ):
            assert client.post("/page/questions", json=asked).status_code in (200, 400)
        assert client.post("/page/questions", content=b"[" * 60_000).status_code == 400
        assert client.post("/page/questions", content=bytes(100_000)).status_code == 413
        assert fetched == []


def test_the_session_store_drops_the_oldest_and_keeps_examples() -> None:
    picture = prepare(PICTURE, name="a.png")
    store = SessionStore(max_bytes=int(2.5 * picture.num_bytes))
    example = store.add_example(prepare(PICTURE))
    first, second, third = (store.add_picture(prepare(PICTURE)) for _ in range(3))
    assert store.picture(first) is None
    assert None not in (store.picture(second), store.picture(third), store.picture(example))
    assert store.num_bytes == 2 * picture.num_bytes


def test_a_picture_is_counted_once_however_many_answers_it_has() -> None:
    picture, store = prepare(PICTURE), SessionStore()
    store.add_picture(picture)
    said = Sampled(Completion("<answer>1</answer>"), (), SEEN)
    answer = read_answer(
        said, question="q", picture_size=SIZE, strategy="grounded", frame_name="pixels", seconds=1, model="m"
    )
    for _ in range(5):
        store.add_answer(answer, picture)
    assert store.num_bytes < picture.num_bytes + 5 * 3000


def test_a_name_for_a_download_holds_nothing_but_letters_digits_and_dashes() -> None:
    assert plain_name("C:\\photos\\two dogs.v2.png") == "two-dogs-v2"
    assert plain_name("../../../etc/passwd") == "passwd"
    assert plain_name('"\r\nSet-Cookie: a=b') == "Set-Cookie-a-b"
    assert plain_name("\u732b.png") == plain_name("") == "picture"


def test_a_hub_id_is_shown_without_its_owner_unless_two_would_be_called_the_same() -> None:
    assert short_names(["Qwen/Qwen2.5-VL-3B", "demo"]) == {
        "Qwen/Qwen2.5-VL-3B": "Qwen2.5-VL-3B",
        "demo": "demo",
    }
    assert short_names(["a/grit", "b/grit"]) == {"a/grit": "a/grit", "b/grit": "b/grit"}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run's folder as training leaves it, without weights; its working folder and its pictures are beside it."""
    for name, colours in (("train", ("red", "green")), ("test", ("blue", "teal", "navy"))):
        rows = []
        for colour in colours:
            Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
            rows += [
                {"question": f"Is it {colour}?{mark}", "answer": "yes", "image": f"{colour}.png"}
                | {"width": 40, "height": 30, "dataset": "mine"}
                for mark in ("", " Is it?")
            ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = "data:\n  train: [{file: train.jsonl, images: .}]\n  eval: [stickers/count, {file: test.jsonl, images: .}]\n"
    run = RunDir.create(tmp_path / "runs" / "mine", recipe=recipe)
    write_origin(run.path, Origin(str(tmp_path), None))
    (run.path / "final").mkdir()
    return run.path


def test_the_examples_are_those_of_the_run_that_is_served(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits()
    for place in (trained, trained / "final"):
        found = run_examples(str(place), name="mine", limits=limits)
        assert found is not None
        assert found.source == "From this run's own data, which mine was not trained on."
        assert [e.content for e in found.examples] == [
            (tmp_path / f"{colour}.png").read_bytes() for colour in ("blue", "teal", "navy")
        ]
    (tmp_path / "teal.png").write_bytes(b"damaged")
    again = run_examples(str(trained), name="mine", limits=limits)
    assert again is not None
    assert [e.name for e in again.examples] == ["blue", "navy"]
    assert "teal.png" in caplog.text
    (tmp_path / "test.jsonl").unlink()
    learned = run_examples(str(trained), name="mine", limits=limits)
    assert learned is not None
    assert (learned.source, [e.name for e in learned.examples]) == (
        "From this run's own data, which mine was trained on.",
        ["red", "green"],
    )
    (tmp_path / "train.jsonl").unlink()
    assert run_examples(str(trained), name="mine", limits=limits) is None
    assert run_examples("tiny-qwen2.5-vl", name="tiny-qwen2.5-vl", limits=limits) is None


def test_the_page_offers_the_examples_it_is_given(trained: Path) -> None:
    examples = run_examples(str(trained), name="mine", limits=Limits())
    app = build_app({"mine": ScriptedEngine("mine")}, ServeSettings(examples=examples))
    with served(app) as (url, _), httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        page = client.get("/").text
        assert "which mine was not trained on" in page
        assert page.count("data-example=") == 3
        assert client.get("/page/pictures/example-2").status_code == 200


# -- an answer that is still being written ---------------------------------------------------------------------------


def fragment(text: str, *, placed: bool = True, progress: Progress = Progress.WRITING) -> str:
    said = parse(text, Frame("pixels", SEEN, Unit.PIXELS))
    return answer_html(
        "How many?", [LiveReply("m", progress, said, placed=placed)], src="p.png", size=SIZE, id="a"
    )


def test_coordinates_that_are_still_being_written_are_not_called_wrong() -> None:
    half = '<think> a dog {"bbox_2d": [10, 20,'
    assert "not a box" not in fragment(half)
    assert "not a box: unfinished" in fragment(half, progress=Progress.DONE)


def test_a_box_whose_place_is_not_known_yet_is_marked_in_the_text_and_not_on_the_picture() -> None:
    unknown, known = fragment(THOUGHT, placed=False), fragment(THOUGHT)
    assert (unknown.count('class="og-point"'), unknown.count('class="og-box"')) == (1, 0)
    assert (known.count('class="og-point"'), known.count('class="og-box"')) == (1, 1)
    assert 'x="50.0" y="100.0" width="200.0" height="200.0"' in known
