"""Completions no model should write, by the thousand, and everything we do with one: `python tests/support/fuzz.py --count N --seed S`.

A completion is made by a grammar (tags, boxes in every notation, labels, numbers, planted markup) or by cutting bytes of a
written one. Each goes through parsing, rewards, the rule judge, its record and back, the viewer and the terminal; chunks of
them through the metrics and the report. Completion i of seed S is the same on every machine.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from fixtures_path import shared_rows
from rich.console import Console

from opengrit.core.boxes import Box, Size
from opengrit.core.escaping import harmless
from opengrit.core.records import from_line, to_line
from opengrit.core.types import Completion, Example, Finish, Record, Unjudged
from opengrit.evaluation.rollout import EvaluationProtocol, read
from opengrit.inference.answer import Answer, read_answer
from opengrit.inference.terminal import TextStream, print_boxes_and_answer
from opengrit.judges import RuleJudge
from opengrit.reports import NoPicture, RunKind, RunView, build_report, print_summary, viewer_html
from opengrit.rewards.rubric import REWARDS, SETS, SPECS, Rubric
from opengrit.sampling import Sampled, Unsampled

# What steers a page, a terminal, rich or a template where it is not made harmless.
MARKERS = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "<svg/onload=alert(1)>",
    "</style>", "</script>", "</title>", "<!--", "-->", "--!>", "]]>", "<![CDATA[", "<?xml", "&", "&lt;b&gt;", "&#60;", "<", ">",
    "\\u003c/script>", "javascript:alert(1)", "{{ 7 * 7 }}", "{% raw %}", "${7}", "\u2028", "\u2029", "\x00", "\x85", "\ufeff",
    "\ud800", "\udfff", "\ud83d", "\u202e", "\u2066", "\u200b", "\x1b[31m", "\x9b2J", "\x1b]0;title\x07", "\x1b]8;;file:///x\x1b\\",
    "\x08", "\r", "\r\n", "\x7f", "[bold red]", "[/]", "[link=file:///x]", "\\[", "=cmd()", "../../x", "\U000e0041", "\ufffe",
)  # fmt: skip
TAGS = tuple(f"<{slash}{name}>" for name in ("think", "rethink", "answer") for slash in ("", "/"))
ODD_TAGS = (
    "<THINK>", "<Answer>", "< think >", "<think", "think>", "</ answer>", "<answer/>", "<think><think>", "<rethink ", "<|think|>",
    "<box>", "</box>", "<ref>", "</ref>", "<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|det|>",
    "<|/det|>", "<pred>", "</pred>", "<bbox>", "</bbox>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<img>", "<IMG_CONTEXT>",
)  # fmt: skip
WORDS = [
    "dog",
    "dogs",
    "cat",
    "a",
    "the",
    "red",
    "hot",
    "is",
    "are",
    "there",
    "no",
    "not",
    "yes",
    "none",
    "two",
    "three",
    "twenty-one",
    "hundred",
    "left",
    "right",
    "of",
    "above",
    "answer",
    "answer:",
    "or",
    "and",
    "so,",
    "therefore",
    "first",
    "1.",
    "2)",
    "box",
    "boxes",
    "bbox",
    "point",
    "coordinates",
    "at",
    "in",
    "picture",
    "nothing",
    "maybe",
    "both",
    "either",
    "(A)",
    "B.",
    "option",
    "C",
]
ANSWERS = (
    "2", "two", "Two dogs.", "Yes", "No.", "yes/no", "yes or no", "No, there are 2", "3 or 4", "[1, 2, 3, 4]", "[2, 3]", "(B)", "B. a cat",
    "more than 3", "~5", "5+", "1,000", "1e3", "\\boxed{2}", "**2**", "0.5", ".5", "-2", "\u0662", "\u00bd", "", " ", "the answer is 2",
    "none", "no dogs", "9" * 30, "0" * 30, "1." + "0" * 40, "red", "the red dog", "left", "\u2460", "\ufdfa",
)  # fmt: skip
NUMBERS = (
    "0", "1", "00", "-1", "-0", "+5", "0.0", ".5", "5.", "1.5", "-0.001", "1e3", "1E-9", "1e999", "nan", "NaN", "inf", "-inf", "Infinity",
    "0x10", "1_000", "1,000", "\u0661\u0662", "\uff11\uff12", "\u00b2", "1/2", "50%", "99999999999999999999", "1e-320", "4.9e-324", "None",
    "12px", "30 px", '"44"', '"7%"', "1e1", "2.5E+1", "\u0969", "\u221210",
)  # fmt: skip
WRITTEN = (
    '<think>There are two dogs: {"bbox_2d": [12, 40, 44, 71], "label": "dog"}, {"bbox_2d": [70, 8, 99, 39], "label": "dog"}.</think>\n'
    "<rethink>Both are dogs.</rethink>\n<answer>2</answer>",
    '<think>\n```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "red cup"}, {"point_2d": [3, 4]}]\n```\n</think><rethink>so one</rethink><answer>1',
    "<think>1. (200, 168, 248, 202)\n2. (169, 159, 214, 186)\n</think><rethink>ok</rethink><answer>\n2\n",
    "<think><ref>the dog</ref><box>[[100, 200, 300, 400], [1, 2, 3, 4]]</box></think><rethink></rethink><answer>Yes</answer>",
    'I see <|object_ref_start|>a cat<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|>. "x1": 1, "y1": 2, "x2": 3, "y2": 4',
    '{"thought": "the box is: 10, 20, 30, 40", "bbox": [0.1, 0.2, 0.3, 0.4], "answer": "no"}',
)  # fmt: skip
DATASETS = (
    "vsr",
    "tallyqa",
    "stickers/count",
    "mme_count",
    "ovd",
    "mathvista_mini",
    "<b>data</b>",
    "[red]\x1b[2Jset",
)
QUESTIONS = (
    "How many dogs are there?", "Is the dog left of the cat?", "What is below the cup?", "Which? (A) dog (B) cat", "Which?\nA. 1\nB. 2",
    "Where is the dog?", "Is it <b>red</b> or \x1b[31mgreen?",
)  # fmt: skip
SIZES = (Size(112, 112), Size(1, 1), Size(640, 480), Size(3, 4000), Size(1000, 1000))
FRAMES = ("qwen2_5_vl", "internvl", "qwen2_vl", "pixels", "thousand", "unit")
STRATEGIES = ("grounded", "direct", "grounded-icl", "sft")
LONGEST = 8_000  # characters of a loop or of what is mutated: two thousand tokens of a model
RUBRICS = (*tuple(Rubric.named(name) for name in SETS), Rubric.from_weights(dict.fromkeys(REWARDS, 0.7)))


# The grammar.


def number(draw: random.Random) -> str:
    """A coordinate: mostly one that a model would write."""
    kind = draw.random()
    if kind < 0.6:
        return str(draw.randrange(1200))
    if kind < 0.75:
        return f"{draw.uniform(-2, 2):.{draw.randrange(9)}f}"
    if kind < 0.76:
        return "-" * draw.randrange(2) + draw.choice("0123456789\u0667") * draw.randrange(20, 6000)
    return draw.choice(NUMBERS)


def box(draw: random.Random) -> str:
    """Numbers in one of the notations of a box, often of the right count and order."""
    if draw.random() < 0.6:
        scale = draw.choice((1, 112, 640, 1000))
        x, y = sorted(draw.uniform(0, scale) for _ in "ab"), sorted(draw.uniform(0, scale) for _ in "ab")
        n = [f"{v:.{3 if scale == 1 else 0}f}" for v in (x[0], y[0], x[1], y[1])]
    else:
        n = [number(draw) for _ in range(draw.choice((4, 4, 4, 0, 1, 2, 3, 5, 6, 8)))]
    comma = draw.choice((", ", ",", " ", " , ", "\n", "; ", "\uff0c", "\u3001", ",\n  "))
    row, name = comma.join(n), label(draw)
    quoted = json.dumps(name) if draw.random() < 0.5 else f'"{name}"'
    return draw.choice(
        (
            f"({row})", f"[{row}]", f"[[{row}]]", f"{{{row}}}", row, f"[{row}", f"{row}]", f"[{row})", f"<box>{row}</box>", f"<box>[[{row}]]</box>",
            f'{{"bbox_2d": [{row}], "label": {quoted}}}', f'{{"label": {quoted}, "bbox_2d": [{row}]}}', f'```json\n[{{"bbox_2d": [{row}], "label": {quoted}}}]\n```',
            f"{{'bbox': [{row}], 'label': '{name}'}}", f'"bbox_2d": [{row}]', f"{name}[[{row}]]", f"bbox: {row}", f'data-bbox="{row}"', f"[{quoted}, {row}]",
            f"({comma.join(n[:2])}),({comma.join(n[2:])})", f"<|box_start|>({comma.join(n[:2])}),({comma.join(n[2:])})<|box_end|>",
            ", ".join(f'"{corner}": {v}' for corner, v in zip(("x1", "y1", "x2", "y2"), n, strict=False)),
            " ".join(f"{corner}={v}" for corner, v in zip(("xmin", "ymin", "xmax", "ymax"), n, strict=False)),
            f'{{"bbox_2d": [{row}, "label": {quoted}}}', f"{{{quoted}: [{row}]}}", f'{{"bbox_2d": "[{row}]", "label": {quoted}}}', f"\uff08{row}\uff09",
            f'{{"top_left": [{comma.join(n[:2])}], "bottom_right": [{comma.join(n[2:])}], "label": {quoted}}}', f"top left: ({comma.join(n[:2])}), bottom right: ({comma.join(n[2:])})",
            f'{{"points": [{row}]}}', f"<ref>{name}</ref><box>({row})</box>", f"<|ref|>{name}<|/ref|><|det|>[[{row}]]<|/det|>",
        )
    )  # fmt: skip


def label(draw: random.Random) -> str:
    """A name beside a box: a word or two, or something planted."""
    if draw.random() < 0.25:
        return "".join(draw.choices(MARKERS, k=draw.randrange(1, 3)))
    return " ".join(draw.choices(WORDS, k=draw.randrange(4)))


def piece(draw: random.Random) -> str:
    """A stretch of a completion that is no tag of ours."""
    kind = draw.random()
    if kind < 0.35:
        return box(draw)
    if kind < 0.6:
        return " ".join(draw.choices(WORDS, k=draw.randrange(1, 12)))
    if kind < 0.8:
        return draw.choice(MARKERS)
    if kind < 0.87:
        return draw.choice(ODD_TAGS)
    if kind < 0.95:
        return draw.choice(ANSWERS)
    return draw.choice("[](){}<>\"'`*\\,;:=-.\n\t |/") * draw.choice((1, 2, 3, 50))


def pieces(draw: random.Random, most: int) -> str:
    """Some pieces, with white space or nothing between them."""
    return draw.choice(("", " ", "\n")).join(piece(draw) for _ in range(draw.randrange(most + 1)))


def grammatical(draw: random.Random) -> str:
    """The format, with parts left out, repeated, swapped, nested and in capitals."""
    kind = draw.random()
    if kind < 0.5:
        parts = [
            f"<think>{pieces(draw, 5)}</think>",
            f"<rethink>{pieces(draw, 3)}</rethink>",
            f"<answer>{draw.choice((draw.choice(ANSWERS[:6]), draw.choice(ANSWERS), pieces(draw, 2)))}",
        ]
        parts += ["</answer>"] * draw.randrange(2)
        for _ in range(draw.choice((0, 0, 0, 1, 2))):
            place = draw.randrange(len(parts))
            parts = draw.choice(
                (
                    parts[:place] + parts[place + 1 :],
                    [*parts, parts[place]],
                    parts[::-1],
                    [p.upper() for p in parts],
                )
            )
            parts = parts or [""]
        return draw.choice(("", "\n", " ")).join(parts)
    if kind < 0.9:
        return "".join(draw.choice((draw.choice(TAGS), piece(draw))) for _ in range(draw.randrange(12)))
    return pieces(draw, 12)


def looped(draw: random.Random) -> str:
    """What a model writes when it has lost itself: one piece again and again."""
    return ((piece(draw) or "x") * draw.choice((8, 40, 300)))[:LONGEST]


def mutated(draw: random.Random, written: Sequence[str]) -> str:
    """A written completion with bytes flipped, cut out, doubled, or taken from another one."""
    data = bytearray(draw.choice(written).encode("utf-8", "surrogatepass"))
    for _ in range(draw.choice((1, 2, 4, 16))):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in "ab")
        match draw.randrange(5):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = data[at:end]
            case 2:
                data[at:at] = draw.choice(MARKERS).encode("utf-8", "surrogatepass")
            case 3:
                other = draw.choice(written).encode("utf-8", "surrogatepass")
                data[at:] = other[draw.randrange(len(other) + 1) :]
            case _:
                if at < len(data):
                    data[at] ^= 1 << draw.randrange(8)
        del data[LONGEST:]
    return data.decode("utf-8", draw.choice(("replace", "surrogateescape", "ignore")))


def written_completions() -> list[str]:
    """What is mutated: our own list, and the shared transcripts of real models where they are there."""
    return [*WRITTEN, *(row["output"] for row in shared_rows("transcripts.jsonl"))]


@dataclass(frozen=True, slots=True)
class Case:
    """A completion with the question it answers and the way it is read."""

    example: Example
    sampled: Sampled | Unsampled
    protocol: EvaluationProtocol


def case(seed: int, i: int, written: Sequence[str]) -> Case:
    """Completion i of a seed, and everything around it."""
    draw = random.Random(f"{seed}/{i}")
    kind = draw.random()
    text = grammatical(draw) if kind < 0.65 else mutated(draw, written) if kind < 0.98 else looped(draw)
    planted = draw.choice(MARKERS) if draw.random() < 0.3 else ""
    truths = []
    for _ in range(draw.choice((0, 0, 1, 2, 5))):
        left, right = sorted(draw.sample(range(101), 2))
        top, bottom = sorted(draw.sample(range(101), 2))
        truths.append(Box(left / 100, top / 100, right / 100, bottom / 100))
    example = Example(
        id=f"{i}{planted}",
        question=draw.choice(QUESTIONS) + planted,
        answer=draw.choice(ANSWERS[: draw.choice((6, len(ANSWERS)))])
        + (planted if draw.random() < 0.2 else ""),
        image=f"{i}{planted}.png",
        dataset=draw.choice(DATASETS),
        picture_size=draw.choice(SIZES),
        boxes=tuple(truths),
        key_words=(planted,) if planted else (),
        split=planted or None,
    )
    if draw.random() < 0.2:
        text = text.partition("<answer>")[0] + f"<answer>{example.answer}</answer>"
    finish = draw.choice((Finish.STOP, Finish.STOP, Finish.EOS, Finish.UNKNOWN, Finish.LENGTH))
    ids = (
        tuple(draw.choices(range(draw.choice((3, 200_000))), k=min(len(text) // 3, 900)))
        if draw.random() < 0.9
        else ()
    )
    sampled: Sampled | Unsampled = Sampled(Completion(text, ids, finish), (), draw.choice(SIZES))
    if draw.random() < 0.01:
        sampled = Unsampled(f"the picture {planted} cannot be read")
    protocol = EvaluationProtocol(
        draw.choice(STRATEGIES), draw.choice(FRAMES), RuleJudge(), RUBRICS[i % len(RUBRICS)]
    )
    return Case(example, sampled, protocol)


# What must hold.


@dataclass(slots=True)
class Tally:
    """How much was looked at, so that a run that looked at nothing is seen."""

    counts: Counter[str] = field(default_factory=Counter)

    def of(self, record: Record) -> None:
        """Count a record."""
        transcript = record.transcript
        self.counts["completions"] += 1
        self.counts["characters"] += len(transcript.text)
        self.counts["boxes"] += len(transcript.pointings)
        self.counts["rejected"] += len(transcript.rejected)
        self.counts["labels"] += sum(p.label is not None for p in transcript.pointings)
        self.counts["with an answer"] += transcript.answer is not None
        self.counts["judged"] += not isinstance(record.verdict, Unjudged)
        self.counts["right"] += not isinstance(record.verdict, Unjudged) and record.verdict.correct
        self.counts["with a total"] += record.score.total is not None
        self.counts["failed"] += record.failure is not None


def check_score(record: Record) -> None:
    """Each part of the score lies in its reward's stated range, and the total is a finite number or absent."""
    for name, part in record.score.parts.items():
        assert part is None or SPECS[name].low <= part <= SPECS[name].high, (name, part)
    assert record.score.total is None or math.isfinite(record.score.total)
    assert (record.score.total is None) == (record.score.missing is not None)


def check_line(record: Record) -> None:
    """The record's line is one line of ASCII and reads back as the same record."""
    line = to_line(record)
    assert line.isascii()
    assert "\n" not in line
    assert from_line(line) == record


_VALUE = re.compile(r'="[^"]*"')
_ELEMENT = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[a-zA-Z-]+(?:=_)?)*\s*/?>")


def skeleton(html: str) -> list[str]:
    """The elements of a fragment in order, each with its attributes' names. Raises AssertionError for a stray "<"."""
    found = _ELEMENT.findall(_VALUE.sub("=_", html))
    assert html.count("<") == len(found), "a < that opens no element of ours"
    return [
        one for one in found if one != "<br>"
    ]  # a line end before an opening tag, where the text has none


def plain(record: Record) -> Record:
    """The record with every text from outside made of x: what it says of boxes, sections and lengths stays."""
    t, e = record.transcript, record.example
    words = lambda text: None if text is None else "x" * len(text)  # noqa: E731
    transcript = replace(
        t,
        text="x" * len(t.text),
        answer=words(t.answer),
        pointings=tuple(replace(p, label=words(p.label)) for p in t.pointings),
        rejected=tuple(replace(r, text="x" * len(r.text)) for r in t.rejected),
    )
    example = replace(e, id="x", question="x" * len(e.question), answer="x" * len(e.answer), dataset="x")
    return replace(record, transcript=transcript, example=example)


def check_viewer(records: Sequence[Record]) -> None:
    """The viewer of the records has the elements of the same viewer without their texts, and no other."""
    why = NoPicture('no picture: "><script>alert(1)</script>')
    html = viewer_html(records, open_picture=lambda _: why, run="<i>run</i>").html
    twin = viewer_html([plain(r) for r in records], open_picture=lambda _: NoPicture("x"), run="x").html
    assert skeleton(html) == skeleton(twin)


class Page(HTMLParser):
    """A page as a browser takes it in: its elements, its scripts, and all that is text in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.comments: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def check_page(records: Sequence[Record], name: str) -> None:
    """The report over the records has as many elements as over the same records without their texts."""
    half = len(records) // 2
    facts = (("model", name), (name, "<script>alert(1)</script>"))
    runs = [
        RunView(f"{name} {i}", RunKind.EVALUATION, tuple(part), (), facts)
        for i, part in enumerate((records[:half], records[half:]))
    ]
    page = Page(build_report(runs, open_picture=lambda _: NoPicture(name)))
    assert page.comments == []
    assert len(page.scripts) == 3, "the answers' data, the viewer's script and the page's"
    assert page.elements["title"] == page.elements["style"] == 1
    assert page.elements["img"] == 0
    assert not [a for a in page.attributes if a.startswith("on")]
    rows = json.loads(page.scripts[0])["rows"]
    told = {(r.example.dataset, r.example.id) for r in records}
    assert {(row["d"], row["i"]) for row in rows} == told


def is_harmless(text: str) -> bool:
    """Whether no character of a text steers a terminal."""
    return all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text)


def answer_of(one: Case) -> Answer | None:
    """The answer as `ask` has it; None where there is no completion."""
    if isinstance(one.sampled, Unsampled):
        return None
    example = one.example
    return read_answer(
        one.sampled, question=example.question, picture_size=example.picture_size, strategy=one.protocol.strategy,
        frame_name=one.protocol.frame, seconds=0.0, model="m",
    )  # fmt: skip


def check_terminal(one: Case, record: Record) -> None:
    """What `ask` prints of an answer steers no terminal, is not read as rich's markup, and can be written in UTF-8."""
    answer = answer_of(one)
    if answer is None:
        return
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n")
    console = Console(file=out, width=200, color_system=None)
    from opengrit.grounding.frames import frame_for

    stream = TextStream(console, frame_for(one.protocol.frame, answer.seen_size))
    for start in range(0, len(answer.text), 97):
        stream.write(answer.text[start : start + 97])
    stream.end(answer.transcript)
    out.flush()
    printed = out.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]
    assert printed == harmless(answer.text).expandtabs(8) + "\n" or "\t" in answer.text
    print_boxes_and_answer(console, answer)
    out.flush()
    assert is_harmless(out.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]


def check_summary(records: Sequence[Record]) -> None:
    """The tables that `eval` prints steer no terminal."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n")
    print_summary(
        {"a\x1b[2J": records, "[red]b": records[: len(records) // 2]},
        Console(file=out, width=200, color_system=None),
    )
    out.flush()
    assert is_harmless(out.buffer.getvalue().decode("utf-8"))  # type: ignore[attr-defined]


def drive(
    count: int,
    seed: int,
    *,
    chunk: int = 2500,
    terminal_every: int = 10,
    told: Callable[[int], Any] = lambda done: None,
) -> Tally:
    """Put `count` completions through everything; what was looked at. Raises where something does not hold."""
    tally, written = Tally(), written_completions()
    for start in range(0, count, chunk):
        records: list[Record] = []
        for i in range(start, min(start + chunk, count)):
            one = case(seed, i, written)
            try:
                record = read(one.example, one.sampled, protocol=one.protocol, sample=0)
                check_score(record)
                check_line(record)
                if i % terminal_every == 0:
                    check_terminal(one, record)
            except Exception as error:
                error.add_note(f"completion {i} of seed {seed}")
                raise
            tally.of(record)
            records.append(record)
        for at in range(0, len(records), 50):
            try:
                check_viewer(records[at : at + 50])
            except Exception as error:
                error.add_note(f"among completions {start + at} to {start + at + 49} of seed {seed}")
                raise
        check_summary(records[:100])
        check_page(records, f"fuzz <{start}>")
        told(start + len(records))
    return tally


def main() -> None:
    """The command: drives so many completions and says what was looked at."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--count", type=int, default=20_000)
    asked.add_argument("--seed", type=int, default=0)
    wanted = asked.parse_args()
    begun = time.monotonic()
    tally = drive(
        wanted.count, wanted.seed, told=lambda done: print(f"{done} of {wanted.count}", file=sys.stderr)
    )
    print(
        f"seed {wanted.seed}: nothing failed in {time.monotonic() - begun:.0f} s;",
        ", ".join(f"{n} {name}" for name, n in tally.counts.items()),
    )


if __name__ == "__main__":
    main()
