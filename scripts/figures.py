"""The drawn figures of the pages under Understand, from the product's own data: `python scripts/figures.py` writes docs/figures/*.svg.

A row of the packaged stickers, completions of it read by the parser, paid by the paper's rewards, and boxes written by the frames. Each
figure brings its own ground and follows the reader's light or dark scheme, so it can be read on a page of either.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image

from opengrit.core.boxes import Box, Size
from opengrit.core.types import Completion, Example, Transcript
from opengrit.data.stickers import sets
from opengrit.data.stickers.world import draw
from opengrit.grounding.frames import UNIT_BY_MODEL_TYPE, Frame, Unit
from opengrit.grounding.parsing import parse
from opengrit.grounding.targets import target_text
from opengrit.judges.rule import RuleJudge
from opengrit.rewards import Attempt
from opengrit.rewards.rubric import Rubric

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures"
ROW = 4  # of stickers/train20: "How many balls are there?", 2
WIDTH = 880
_STYLE = """
.ground{fill:#fff;stroke:#d9dee3}text{fill:#1d2329}.soft{fill:#5c6670}.raised{fill:#f2f4f6;stroke:#d9dee3}.line{stroke:#8a949e;fill:none}
.box{fill:none;stroke-width:2.5}.c0{stroke:#0b5c8f}.c1{stroke:#a63c00}.named0{fill:#0b5c8f}.named1{fill:#a63c00}.drawn{stroke:#0b5c8f}
.picture{fill:#cfe0ee;stroke:#0b5c8f}.prompt{fill:#e2e6ea;stroke:#8a949e}.completion{fill:#f6dfcd;stroke:#a63c00}.good{fill:#00694c}.bad{fill:#a63c00}
.mono{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px}.head{font-weight:600}.small{font-size:12.5px}
@media(prefers-color-scheme:dark){.ground{fill:#14181c;stroke:#343c44}text{fill:#e4e8eb}.soft{fill:#9aa5af}.raised{fill:#1f262d;stroke:#343c44}
.named0{fill:#7cc4f2}.named1{fill:#ff9a5c}.drawn{stroke:#7cc4f2}.picture{fill:#1c3a4f;stroke:#7cc4f2}
.prompt{fill:#2c343c;stroke:#9aa5af}.completion{fill:#4d3018;stroke:#ff9a5c}.good{fill:#4cc79d}.bad{fill:#ff9a5c}}
"""


@dataclass
class Drawing:
    """An SVG of `WIDTH` units, written element by element."""

    title: str
    description: str
    height: int
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, text: str, *, css: str = "", end: bool = False, middle: bool = False
    ) -> None:
        anchor = ' text-anchor="end"' if end else ' text-anchor="middle"' if middle else ""
        self.raw_text(x, y, escape(text, quote=False), css=css, anchor=anchor)

    def raw_text(self, x: float, y: float, inner: str, *, css: str = "", anchor: str = "") -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{css}"{anchor} xml:space="preserve">{inner}</text>'
        )

    def rect(self, x: float, y: float, width: float, height: float, css: str, *, round: float = 0) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}" class="{css}"/>'
        )

    def line(self, *points: tuple[float, float], css: str = "line") -> None:
        joined = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polyline points="{joined}" class="{css}"/>')

    def picture(self, x: float, y: float, scale: float, picture: Image.Image) -> None:
        stream = io.BytesIO()
        picture.quantize(64).save(stream, "PNG", optimize=True)
        data = base64.b64encode(stream.getvalue()).decode()
        width, height = (side * scale for side in picture.size)
        self.parts.append(
            f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" href="data:image/png;base64,{data}"/>'
        )

    def boxes(self, x: float, y: float, shown: Size, boxes: Sequence[Box]) -> None:
        for number, box in enumerate(boxes):
            left, top = x + box.left * shown.width, y + box.top * shown.height
            width, height = (box.right - box.left) * shown.width, (box.bottom - box.top) * shown.height
            self.rect(left, top, width, height, f"box c{number % 2}")

    def written(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-labelledby="title description" font-family="system-ui,sans-serif" font-size="14">'
        )
        names = f'<title id="title">{escape(self.title)}</title><desc id="description">{escape(self.description)}</desc>'
        ground = (
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1}" rx="8" class="ground"/>'
        )
        return "\n".join([head + names, f"<style>{_STYLE.strip()}</style>", ground, *self.parts, "</svg>\n"])


# -- the row and completions of it ---------------------------------------------------------------------------------------


def row() -> tuple[Example, Image.Image]:
    question = sets.asked("train20")[ROW]
    size = question.scene.size
    boxes = tuple(placed.box(size) for placed in question.pointed)
    example = Example(
        "train20:4",
        question.question,
        question.answer,
        "balls.png",
        "stickers",
        size,
        boxes,
        key_words=question.key_words,
    )
    return example, draw(question.scene)


def completions(example: Example, frame: Frame) -> dict[str, str]:
    """Four completions of a group, by what is to be seen in them: as the format asks, and with one fault each."""
    whole = target_text(example, strategy="grounded", frame=frame)
    first, second = (f'{{"bbox_2d": {list(frame.from_box(box))}, "label": "balls"}}' for box in example.boxes)
    assert f"{first}, {second}" in whole
    return {
        "points at both, rethinks, right": whole,
        "one box is missing, answers by it": whole.replace(f", {second}", "")
        .replace("are 2 balls", "is 1 ball")
        .replace(">2<", ">1<"),
        "does not rethink, right": f"<think>{first}, {second}</think><answer>2</answer>",
        "no box at all, right": "<think>I count.</think><rethink>There are 2 balls.</rethink><answer>2</answer>",
    }


def attempt(example: Example, text: str, frame: Frame) -> Attempt:
    transcript = parse(text, frame)
    verdict = RuleJudge().judge(example.question, expected=example.answer, given=transcript.answer or "")
    return Attempt(example, Completion(text), transcript, verdict)


# -- the figures -----------------------------------------------------------------------------------------------------


def rollout() -> Drawing:
    """One completion: the picture with the boxes it writes, its three parts, and what each reward of the paper pays."""
    example, picture = row()
    frame = Frame.for_model_type("qwen2_5_vl", seen_size=example.picture_size)
    text = next(iter(completions(example, frame).values()))
    tried = attempt(example, text, frame)
    drawing = Drawing(
        "A grounded answer and what it earns",
        "A picture with two balls in numbered boxes. Beside it the completion: the thought holds both boxes, the rethinking says that "
        "there are 2 balls, the answer is 2. Below, what each of the paper's five rewards pays for it.",
        372,
    )
    shown = Size(picture.width * 2, picture.height * 2)
    drawing.text(24, 34, example.question, css="head")
    drawing.picture(24, 50, 2, picture)
    drawing.boxes(24, 50, shown, tried.transcript.boxes)
    _transcript(drawing, 334, 74, text)
    drawing.text(24, 304, "What the paper's rewards pay (weight x value)", css="head")
    rubric = Rubric.named("paper")
    score = rubric.score(tried)
    x = 24.0
    for name, weight in rubric.weights.items():
        width = 8.2 * len(name) + 22
        drawing.rect(x, 316, width, 42, "raised", round=6)
        drawing.text(x + width / 2, 333, name, css="mono", middle=True)
        drawing.text(
            x + width / 2, 350, f"{weight:g} x {score.parts[name]:.2g}", css="soft small", middle=True
        )
        x += width + 8
    drawing.text(x + 6, 342, f"= {score.total:.2f}", css="head")
    return drawing


def _transcript(drawing: Drawing, x: float, y: float, text: str) -> None:
    """The completion, a part a line, its coordinates in the colours of the boxes, and behind it what each part is for."""
    for mark in ("<think>", "}, ", "</think>", "</rethink>"):
        text = text.replace(mark, f"{mark}\n")
    lines = text.replace("}</think>", "}\n</think>").splitlines()
    told = {"<think>": "reasons, and points", "<rethink>": "rethinks, given the boxes", "<answer>": "answers"}
    number = 0
    for place, line in enumerate(lines):
        head, bracket, rest = line.partition("[")
        inner = escape(line, quote=False)
        if bracket:
            numbers, close, tail = rest.partition("]")
            coloured = f'<tspan class="named{number % 2}" font-weight="600">[{numbers}{close}</tspan>'
            inner = f"  {escape(head, quote=False)}{coloured}{escape(tail, quote=False)}"
            number += 1
        drawing.raw_text(x, y + 25 * place, inner, css="mono")
        for tag, meaning in told.items():
            if line.startswith(tag):
                drawing.text(WIDTH - 24, y + 25 * place, meaning, css="soft small", end=True)


def step() -> Drawing:
    """A group of four completions: what each is paid, and its advantage over the group."""
    example, picture = row()
    frame = Frame.for_model_type("qwen2_5_vl", seen_size=example.picture_size)
    rubric = Rubric.named("paper")
    tried = {name: attempt(example, text, frame) for name, text in completions(example, frame).items()}
    scores = rubric.score_all(list(tried.values()))
    totals = [score.total or 0.0 for score in scores]
    mean, spread = statistics.mean(totals), statistics.stdev(totals)
    drawing = Drawing(
        "A group of four completions, compared",
        "Four completions of one question with their boxes on the picture. Columns show what each reward pays, the total and the advantage: "
        "the total minus the group's mean, over its standard deviation. The completion that points, rethinks and is right gains most.",
        100 + 92 * len(tried),
    )
    columns = dict(zip((*rubric.weights, "total"), range(420, 760, 62), strict=False))
    drawing.text(24, 30, example.question, css="head")
    drawing.text(24, 50, "A group of four completions", css="soft small")
    for name, x in columns.items():
        for height, word in enumerate(_two_lines(name)):
            drawing.text(
                x, 34 + 16 * height, word, css="small head" if name == "total" else "small soft", end=True
            )
    drawing.text(810, 34, "advantage", css="small head", middle=True)
    for place, ((name, one), score, total) in enumerate(zip(tried.items(), scores, totals, strict=True)):
        y = 66 + 92 * place
        drawing.line((16, y), (WIDTH - 16, y))
        drawing.picture(24, y + 8, 0.68, picture)
        drawing.boxes(
            24, y + 8, Size(round(picture.width * 0.68), round(picture.height * 0.68)), one.transcript.boxes
        )
        drawing.text(136, y + 40, name)
        drawing.text(136, y + 62, _end_of(one.transcript), css="mono soft")
        for part, x in columns.items():
            value = total if part == "total" else rubric.weights[part] * (score.parts[part] or 0.0)
            drawing.text(x, y + 50, f"{value:.2f}", css="head" if part == "total" else "", end=True)
        advantage = (total - mean) / spread
        drawing.rect(
            810 + min(0.0, 26 * advantage),
            y + 34,
            abs(26 * advantage),
            22,
            "good" if advantage > 0 else "bad",
        )
        drawing.line((810, y + 26), (810, y + 64))
        drawing.text(810, y + 80, f"{advantage:+.1f}", css="small", middle=True)
    drawing.text(
        24,
        drawing.height - 14,
        "Rewards are shown times their weight. Advantage: total minus the group's mean, over its standard deviation.",
        css="soft small",
    )
    return drawing


def _two_lines(name: str) -> Sequence[str]:
    words = name.split("_")
    return ("points", "first") if name.startswith("points") else words


def _end_of(transcript: Transcript) -> str:
    num_boxes = len(transcript.boxes)
    return f"{num_boxes} box{'' if num_boxes == 1 else 'es'} ... <answer>{transcript.answer}</answer>"


def seen_by_qwen(size: Size, *, max_pixels: int = 200_704, side: int = 28) -> Size:
    """The size at which Qwen2.5-VL's processor shows a picture that is larger than the bound: whole tiles, within it."""
    shrink = (size.width * size.height / max_pixels) ** 0.5
    return Size(*(int(length / shrink / side) * side for length in (size.width, size.height)))


def frames() -> Drawing:
    """One thing in one picture, and the numbers that each family writes for it."""
    size, box = Size(1280, 960), Box(0.5, 0.5, 0.75, 0.75)
    seen = seen_by_qwen(size)
    thousand = ", ".join(
        NAMES[kind] for kind, unit in UNIT_BY_MODEL_TYPE.items() if unit is Unit.THOUSAND and kind in NAMES
    )
    panels = [
        ("Your picture", f"pixels of {size.width} x {size.height}", Size(240, 180), Frame("pixels", size, Unit.PIXELS)),
        ("Qwen2.5-VL: pixels", f"of what it sees: {seen.width} x {seen.height}", Size(round(seen.width * 0.1875), round(seen.height * 0.1875)), Frame.for_model_type("qwen2_5_vl", seen_size=seen)),
        (thousand, "0 to 1000 each way", Size(150, 150), Frame.for_model_type("internvl", seen_size=seen)),
        ("Inside OpenGRIT", "the unit square", Size(150, 150), Frame("unit", seen, Unit.UNIT)),
    ]  # fmt: skip
    drawing = Drawing(
        "The same box in four frames",
        f"A thing in the lower right quarter of a picture of 1280 x 960. Qwen2.5-VL writes pixels of the picture resized to {seen.width} x "
        f"{seen.height}; {thousand} write 0 to 1000; OpenGRIT keeps fractions of width and height.",
        300,
    )
    for (name, unit, shown, frame), x in zip(panels, (24, 284, 462, 688), strict=True):
        drawing.text(x, 34, name, css="head small")
        drawing.text(x, 52, unit, css="soft small")
        drawing.rect(x, 66, shown.width, shown.height, "raised")
        left, top = x + box.left * shown.width, 66 + box.top * shown.height
        wide, high = (box.right - box.left) * shown.width, (box.bottom - box.top) * shown.height
        drawing.parts.append(
            f'<ellipse cx="{left + wide / 2:g}" cy="{top + high / 2:g}" rx="{wide / 2:g}" ry="{high / 2:g}" class="completion"/>'
        )
        drawing.rect(left, top, wide, high, "box drawn")
        drawing.text(x, 272, _numbers(frame.from_box(box)), css="mono named0")
    return drawing


NAMES = {"qwen2_vl": "Qwen2-VL", "qwen3_vl": "Qwen3-VL", "internvl": "InternVL"}


def _numbers(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"


def prefix() -> Drawing:
    """Three completions of one prompt: as three rows, as one row, and who attends to whom in that row."""
    drawing = Drawing(
        "Prefix sharing",
        "Above, three rows that each repeat picture and prompt before their completion. Below, one row with picture and prompt once and the "
        "three completions behind them. At the right the attention of that row: each completion sees picture, prompt and itself, and no other.",
        330,
    )
    widths = {"picture": 120, "prompt": 76, "completion": 92}
    drawing.text(24, 34, "Plain: picture and prompt are read for each completion", css="head")
    for number in range(3):
        x = 24.0
        for kind, width in widths.items():
            drawing.rect(x, 48 + 34 * number, width, 26, kind)
            drawing.text(
                x + width / 2,
                66 + 34 * number,
                f"{kind} {number + 1}" if kind == "completion" else kind,
                css="small",
                middle=True,
            )
            x += width
    drawing.text(24, 196, "Shared: once for the group", css="head")
    x = 24.0
    for kind, label in (
        ("picture", "picture"),
        ("prompt", "prompt"),
        *(("completion", f"completion {n}") for n in (1, 2, 3)),
    ):
        drawing.rect(x, 210, widths[kind], 26, kind)
        drawing.text(x + widths[kind] / 2, 228, label, css="small", middle=True)
        x += widths[kind]
    drawing.text(
        24, 276, "Positions of each completion follow the prompt's last one, as if", css="soft small"
    )
    drawing.text(24, 294, "it stood alone, so its log-probabilities are the same.", css="soft small")
    _attention(drawing, 632, 60, 19)
    return drawing


def _attention(drawing: Drawing, x: float, y: float, side: float) -> None:
    """The row's attention: a filled cell where the token of the line sees the token of the column."""
    kinds = (
        ["picture"] * 4 + ["prompt"] * 2 + [f"completion {number}" for number in (1, 2, 3) for _ in range(2)]
    )
    drawing.text(x, y - 26, "Who sees whom, shared", css="head")
    for line, seer in enumerate(kinds):
        for column, seen in enumerate(kinds):
            visible = column <= line and (seen == seer or not seen.startswith("completion"))
            drawing.rect(
                x + side * column,
                y + side * line,
                side - 2,
                side - 2,
                seen.split()[0] if visible else "raised",
            )
    for label in dict.fromkeys(kinds):
        lines = [place for place, kind in enumerate(kinds) if kind == label]
        drawing.text(x - 8, y + side * (sum(lines) / len(lines) + 0.7), label, css="soft small", end=True)


FIGURES: dict[str, Callable[[], Drawing]] = {
    "rollout": rollout,
    "step": step,
    "frames": frames,
    "prefix": prefix,
}


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name, figure in FIGURES.items():
        (OUT / f"{name}.svg").write_text(figure().written(), encoding="utf-8")


if __name__ == "__main__":
    main()
