"""Animated pictures of what the product does: frames of a browser's page, written as WebP with a still beside it."""

from __future__ import annotations

import asyncio
import html
import io
import os
import pty
import re
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, TimeoutError
from rich.console import Console
from rich.text import Text

from opengrit.core.boxes import Size
from opengrit.inference.answer import Answer
from opengrit.serving.engine import Ask, Load
from opengrit.serving.local import LocalEngine

MAX_BYTES = 400_000
COLUMNS, LINES = 84, 30  # of the terminal that is recorded
_PIECE_MS = 3_000  # how long a piece may take until the next one is asked for
_LIVE = re.compile(r"\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")  # what rich writes before it draws a live table anew
_ENDS = "\x1b[?25h"  # the cursor is back: what follows is printed below the table
_STEP = re.compile(r"step (\d+) of \d+")
_TERMINAL = """<body style="margin: 0; background: #14181c; color: #e4e8eb"><pre style="margin: 0; padding: 18px 22px;
  font: 14px/1.3 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"><span style="color: #7cc4f2">$</span> {command}

{screen}</pre></body>"""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of an animation and how long it is shown, in milliseconds."""

    picture: Image.Image
    milliseconds: int


def frame_of(png: bytes, milliseconds: int) -> Frame:
    """The frame that a browser's screenshot makes."""
    with Image.open(io.BytesIO(png)) as taken:
        return Frame(taken.convert("RGB"), milliseconds)


def write_animation(frames: Sequence[Frame], path: Path, *, lossless: bool) -> None:
    """Writes the frames as animated WebP, as sharp as fits into MAX_BYTES, and the last one beside it as a still.

    Text in few colours is smallest where nothing is lost.
    """
    size = max(one.picture.width for one in frames), max(one.picture.height for one in frames)
    pictures, times = [laid_out(one.picture, size) for one in frames], [one.milliseconds for one in frames]
    for quality in (90, 75, 55):  # where nothing is lost it is the effort
        pictures[0].save(
            path,
            save_all=True,
            append_images=pictures[1:],
            duration=times,
            loop=0,
            method=4,
            lossless=lossless,
            quality=quality,
        )
        if path.stat().st_size <= MAX_BYTES:
            break
    else:
        raise SystemExit(f"an animation has at most {MAX_BYTES} bytes, {path} has {path.stat().st_size}")
    still = path.with_name(f"{path.stem}-still.webp")
    pictures[-1].save(still, quality=85, method=6)
    print(f"{path}: {path.stat().st_size} bytes, {len(frames)} frames; {still}: {still.stat().st_size} bytes")


def laid_out(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at the top left of a ground of that size, which has the colour of its corner."""
    ground = Image.new("RGB", size, picture.getpixel((0, 0)))
    ground.paste(picture)
    return ground


# -- an answer that is being written -----------------------------------------------------------------------------------


class SteppedEngine:
    """An engine whose pieces of text come out one by one, when the script asks for them: a tiny model is too fast to watch."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._turns = asyncio.Semaphore(0)
        self.name, self.frame = engine.name, engine.frame

    def seen_size(self, picture_size: Size) -> Size | None:
        return self._engine.seen_size(picture_size)

    def load(self) -> Load:
        return self._engine.load()

    async def start(self) -> None:
        await self._engine.start()

    async def close(self, grace_seconds: float = 0.0) -> None:
        await self._engine.close(grace_seconds)

    async def stream(self, ask: Ask) -> AsyncGenerator[str | Answer]:
        async with aclosing(self._engine.stream(ask)) as pieces:
            async for piece in pieces:
                await self._turns.acquire()
                yield piece

    def let_one_through(self) -> None:
        """Lets the next piece out; called in the server's event loop."""
        self._turns.release()


def answer_frames(page: Page, step: Callable[[], object], *, example: int) -> Iterator[Frame]:
    """An example is asked, its answer is written step by step, and then each box is lit together with its words."""
    page.wait_for_selector("body.og-started")
    page.locator("[data-example]").nth(example - 1).click()
    page.wait_for_selector(".og-answer[data-progress=writing]")
    shown = page.locator("#og-result")
    yield frame_of(shown.screenshot(), 900)
    length = 0
    while page.locator(".og-answer[data-progress=writing]").count():
        step()
        step()  # two pieces a frame
        with suppress(TimeoutError):  # a piece of no visible text
            page.wait_for_function(
                "length => document.querySelector('.og-text').textContent.length > length"
                " || document.querySelector('.og-answer').dataset.progress === 'done'",
                arg=length,
                timeout=_PIECE_MS,
            )
        length = len(page.locator(".og-text").text_content() or "")
        yield frame_of(shown.screenshot(), 160)
    page.wait_for_selector("body:not(.og-running)")
    page.mouse.move(1, 1)
    yield frame_of(shown.screenshot(), 1200)
    for point in page.locator(".og-point").all():
        point.hover()
        yield frame_of(shown.screenshot(), 900)
    page.mouse.move(1, 1)
    yield frame_of(shown.screenshot(), 1500)


# -- a terminal --------------------------------------------------------------------------------------------------------


def record_terminal(command: Sequence[str], path: Path) -> None:
    """Runs the command in a terminal of its own and writes into a file all that it prints there. Ends where it fails."""
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    with subprocess.Popen(command, stdout=its, stderr=its, stdin=its, env=environment) as process:
        os.close(its)
        said = bytearray()
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {said.decode(errors='replace')[-2000:]}")
    path.write_bytes(said)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how a terminal says that nobody writes any more
        return b""


def live_tables(said: str) -> list[str]:
    """The tables that a training drew over each other on a terminal, with their colours: the last one of each step."""
    found = {}
    # A terminal ends its lines with both; rich takes what is before a carriage return for written over.
    for drawn in _LIVE.split(said.replace("\r\n", "\n")):
        title = _STEP.search(drawn)
        if title is not None:
            start = drawn.rfind("\n", 0, title.start()) + 1  # without the log's lines above the table
            found[int(title[1])] = drawn[start:].split(_ENDS)[0].rstrip()
    return [found[step] for step in sorted(found)]


def terminal_frames(browser: Browser, recording: Path, *, command: str) -> Iterator[Frame]:
    """The live table of a recorded training, step by step."""
    tables = live_tables(recording.read_bytes().decode("utf-8", "replace"))
    page = browser.new_page(viewport={"width": 100, "height": 100})
    page.set_content(_terminal(tables[-1], command))
    size = page.locator("pre").evaluate(
        "pre => { pre.style.display = 'inline-block'; const box = pre.getBoundingClientRect(); return [box.width, box.height]; }"
    )
    page.set_viewport_size({"width": int(size[0]) + 1, "height": int(size[1]) + 1})
    for number, table in enumerate(tables):
        page.set_content(_terminal(table, command))
        last = number == len(tables) - 1
        yield frame_of(page.screenshot(), 4000 if last else 180)
    page.close()


def _terminal(ansi: str, command: str) -> str:
    """A page that shows a terminal's text in its colours."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(ansi))
    screen = console.export_html(inline_styles=True, code_format="{code}")
    return _TERMINAL.format(command=html.escape(command), screen=screen)
