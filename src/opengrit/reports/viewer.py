"""The viewer: a picture beside the reply about it, each pointing lighting its box.

`viewer_html` returns a fragment for any page; the page brings the style and the script in once. Without the
script everything is shown, one example under the other; so it is in print. An answer while it is written is shown by
`live.py`, with the same parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from opengrit.core.boxes import Box, Size, union_iou
from opengrit.core.palette import COLOURS
from opengrit.core.types import Example, Finish, Pointing, Record, Tag, Transcript, Unjudged
from opengrit.grounding.prompts import Strategy
from opengrit.reports.highlighted_spans import SpanKind, split_spans
from opengrit.reports.outcomes import Outcome, is_right
from opengrit.reports.pictures import NoPicture, OpenPicture, Picture
from opengrit.reports.selected_examples import AnsweredExample, Change, Reply, change, last_outcome

_BADGE = 0.055  # the side of a number's badge as a share of the picture's width, where it is laid out
_OPENING = (Tag.THINK_OPEN, Tag.RETHINK_OPEN, Tag.ANSWER_OPEN)


@dataclass(frozen=True, slots=True)
class Viewer:
    """The viewer's fragment and what its page must hold once: the content of a style and of a script element."""

    html: Markup
    css: str
    js: str


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A pointing as drawn. x, y, width and height are picture pixels; badge_x and badge_y shares of the picture."""

    id: str
    number: int
    text_id: str
    name: str
    colour: str
    ink: str
    x: float
    y: float
    width: float
    height: float
    badge_x: float
    badge_y: float

    @property
    def area(self) -> float:
        """Square pixels; smaller boxes are drawn over larger ones so that each can be reached."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class ShownSpan:
    """A span of text ready for the template: its kind, and the box or the reason that goes with it."""

    kind: str
    text: str
    box: ShownBox | None
    reason: str
    starts_line: bool


@dataclass(frozen=True, slots=True)
class ShownReply:
    """A reply ready for the template. `verdict` is right, wrong or unjudged."""

    id: str
    reply: Reply
    verdict: str
    verdict_text: str
    facts: tuple[tuple[str, str], ...]
    spans: tuple[ShownSpan, ...]
    boxes: tuple[ShownBox, ...]
    truths: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An example ready for the template; `groups` are the filters that keep it."""

    id: str
    number: int
    example: Example
    picture: Picture | NoPicture
    change: str
    outcome: str
    symbols: str
    groups: tuple[str, ...]
    replies: tuple[ShownReply, ...]


def viewer_html(
    records: Sequence[Record], *, open_picture: OpenPicture, prefix: str = "viewer", run: str = ""
) -> Viewer:
    """A viewer of these records, one example each, in the order given.

    `prefix` begins every id in the fragment: two viewers on a page need two. `run` names who answered.
    """
    examples = [AnsweredExample(record.example, (Reply.of(run, record),)) for record in records]
    return examples_html(examples, open_picture=open_picture, prefix=prefix)


def examples_html(
    examples: Sequence[AnsweredExample], *, open_picture: OpenPicture, prefix: str = "viewer"
) -> Viewer:
    """A viewer of examples, the replies of each side by side. `prefix` as in `viewer_html`."""
    shown = [
        _show_example(answered, open_picture(answered.example), number=i + 1, id=f"{prefix}-e{i}")
        for i, answered in enumerate(examples)
    ]
    counts = {group: sum(group in e.groups for e in shown) for group in ("all", "right", "wrong", "changed")}
    html = render(
        "viewer.html.j2",
        prefix=prefix,
        examples=shown,
        counts=counts,
        outcomes=[outcome.value for outcome in Outcome if any(e.outcome == outcome.value for e in shown)],
        compared=any(len(e.replies) > 1 for e in shown),
        truths=any(t.truths for e in shown for t in e.replies),
    )
    return Viewer(Markup(html), css=asset("viewer.css"), js=asset("viewer.js"))


def render(template: str, **values: object) -> str:
    """A template of this package, filled in. Every value is escaped unless it is already `Markup`."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("opengrit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def asset(name: str) -> str:
    """The text of a style or script file of this package."""
    return files("opengrit.reports").joinpath(name).read_text(encoding="utf-8")


def _show_example(
    answered: AnsweredExample, picture: Picture | NoPicture, *, number: int, id: str
) -> ShownExample:
    kind, last = change(answered), is_right(answered.replies[-1].record)
    groups = ["all"]
    if last is not None:
        groups.append("right" if last else "wrong")
    if kind in (Change.FIXED, Change.BROKEN):
        groups.append("changed")
    return ShownExample(
        id=id,
        number=number,
        example=answered.example,
        picture=picture,
        change=kind.value,
        outcome=last_outcome(answered).value,
        symbols="".join(_symbol(is_right(reply.record)) for reply in answered.replies),
        groups=tuple(groups),
        replies=tuple(_show_reply(reply, id=f"{id}-t{i}") for i, reply in enumerate(answered.replies)),
    )


def _symbol(right: bool | None) -> str:
    """A tick, a cross, or a dash where there is no verdict."""
    return "-" if right is None else "\u2713" if right else "\u2717"


def _show_reply(reply: Reply, *, id: str) -> ShownReply:
    record, size = reply.record, reply.record.example.picture_size
    boxes = show_boxes(record.transcript.pointings, size, id=id)
    right = is_right(record)
    verdict = "unjudged" if right is None else "right" if right else "wrong"
    text = verdict
    if isinstance(record.verdict, Unjudged) and record.failure is None:
        text = f"not judged: {record.verdict.reason}"
    return ShownReply(
        id=id,
        reply=reply,
        verdict=verdict,
        verdict_text=f"{_symbol(right)} {text}",
        facts=_facts(record),
        spans=show_spans(record.transcript, boxes),
        boxes=boxes,
        truths=tuple(_rectangle(box, size) for box in record.example.boxes),
    )


def _facts(record: Record) -> tuple[tuple[str, str], ...]:
    """Name and value of what was measured on one rollout; nothing unmeasured is among them."""
    transcript, example = record.transcript, record.example
    plain = record.strategy == Strategy.DIRECT and not transcript.boxes  # it was not asked to point
    facts = [] if plain else [("boxes named", str(len(transcript.pointings)))]
    if transcript.rejected:
        facts.append(("rejected", str(len(transcript.rejected))))
    if example.boxes and record.failure is None and not plain:
        facts.append(("overlap (IoU)", f"{union_iou(transcript.boxes, example.boxes):.2f}"))
    if record.completion.finish is Finish.LENGTH:
        facts.append(("ended", "truncated at the token limit"))
    if record.score.total is not None:
        facts.append(("reward", f"{record.score.total:.2f}"))
    facts.extend((name, f"{part:.2f}") for name, part in record.score.parts.items() if part is not None)
    if record.score.missing is not None:
        facts.append(("no reward", record.score.missing))
    return tuple(facts)


def _rectangle(box: Box, size: Size) -> tuple[float, float, float, float]:
    """x, y, width, height in picture pixels, to a hundredth."""
    x, y = box.left * size.width, box.top * size.height
    width, height = (box.right - box.left) * size.width, (box.bottom - box.top) * size.height
    return round(x, 2), round(y, 2), round(width, 2), round(height, 2)


def show_boxes(pointings: Sequence[Pointing], size: Size, *, id: str) -> tuple[ShownBox, ...]:
    """The pointings in order of writing, numbered from 1, in pixels of a picture of `size`; `id` begins their ids."""
    shown, badges = [], _Badges(size)
    for i, pointing in enumerate(pointings):
        x, y, width, height = _rectangle(pointing.box, size)
        colour, ink = COLOURS[i % len(COLOURS)]
        badge = badges.place(pointing.box)
        edges = ", ".join(str(round(n)) for n in (x, y, x + width, y + height))
        label = f", {pointing.label}" if pointing.label else ""
        shown.append(
            ShownBox(
                id=f"{id}-box{i}",
                number=i + 1,
                text_id=f"{id}-say{i}",
                name=f"Box {i + 1}{label}: {edges} in picture pixels",
                colour=colour,
                ink=ink,
                x=x,
                y=y,
                width=width,
                height=height,
                badge_x=badge[0],
                badge_y=badge[1],
            )
        )
    return tuple(shown)


class _Badges:
    """Gives each box's number a place of its own, as shares of the picture: a free corner inside the box, else along
    its edges. Where all of these are taken, badges overlap.
    """

    def __init__(self, size: Size) -> None:
        self._wide, self._high = _BADGE, _BADGE * size.width / size.height
        # Badges by the cell of one badge's size that their corner lies in: two that overlap lie in neighbouring cells.
        self._taken: dict[tuple[int, int], tuple[float, float]] = {}

    def place(self, box: Box) -> tuple[float, float]:
        """The place of a box's badge, which is taken from then on."""
        wide, high = self._wide, self._high
        right, bottom = max(box.right - wide, box.left), max(box.bottom - high, box.top)
        corners = [(box.left, box.top), (right, box.top), (right, bottom), (box.left, bottom)]
        along = [(box.left + wide * step, box.top) for step in range(1, 12)]
        below = [(box.left, box.top + high * step) for step in range(1, 12)]
        for x, y in corners + along + below:
            x, y = min(x, 1 - wide), min(y, max(0.0, 1 - high))
            if self._is_free(x, y):
                found = round(x, 4), round(y, 4)
                self._taken[self._cell(*found)] = found
                return found
        return round(min(box.left, 1 - wide), 4), round(min(box.top, max(0.0, 1 - high)), 4)

    def _is_free(self, x: float, y: float) -> bool:
        column, row = self._cell(x, y)
        near = (self._taken.get((column + i, row + j)) for i in (-1, 0, 1) for j in (-1, 0, 1))
        return all(abs(x - one[0]) >= self._wide or abs(y - one[1]) >= self._high for one in near if one)

    def _cell(self, x: float, y: float) -> tuple[int, int]:
        return int(x / self._wide), int(y / self._high)


def show_spans(transcript: Transcript, boxes: Sequence[ShownBox]) -> tuple[ShownSpan, ...]:
    """The text in spans; `boxes` are those of the transcript's pointings, in order."""
    shown, before = list[ShownSpan](), "\n"
    for span in split_spans(transcript):
        box = boxes[span.index] if span.kind is SpanKind.POINTING else None
        reason = transcript.rejected[span.index].reason.value if span.kind is SpanKind.REJECTED else ""
        opens = span.kind is SpanKind.TAG and transcript.tags[span.index].tag in _OPENING
        starts_line = opens and not before.rstrip(" ").endswith("\n")
        shown.append(ShownSpan(span.kind.value, span.text, box, reason, starts_line))
        before = span.text or before
    return tuple(shown)
