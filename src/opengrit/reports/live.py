"""One question's replies as a fragment for a page, while they are written and after: the viewer's live side.

The page around it brings the viewer's style and script, and swaps the fragment as the text grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from markupsafe import Markup

from opengrit.core.boxes import Size
from opengrit.core.types import Finish, Rejection, Transcript
from opengrit.reports.viewer import ShownBox, ShownSpan, render, show_boxes, show_spans


class Progress(Enum):
    """How far an answer is."""

    WAITING = "waiting"  # the picture is there, nothing has been asked
    WRITING = "writing"
    DONE = "done"
    STOPPED = "stopped"  # the person who asked did not want more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LiveReply:
    """What one model has written so far.

    `placed` is False as long as nobody knows the size of the picture that the model sees: its boxes are then marked in
    the text and not yet on the picture. `problem` says why it FAILED. `downloads` are links with their names.
    """

    model: str
    progress: Progress
    transcript: Transcript
    placed: bool = True
    problem: str = ""
    seconds: float | None = None
    completion_tokens: int | None = None
    downloads: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ShownLiveReply:
    """A reply ready for the template."""

    id: str
    reply: LiveReply
    progress: str
    note: str
    spans: tuple[ShownSpan, ...]
    boxes: tuple[ShownBox, ...]
    drawn: tuple[ShownBox, ...]
    facts: tuple[tuple[str, str], ...]


def answer_html(
    question: str, replies: Sequence[LiveReply], *, src: str, size: Size, id: str, note: str = ""
) -> Markup:
    """The fragment: the question, and for each model the picture at `src` with its boxes beside its text.

    `size` is the picture's in pixels (boxes are named in them), `id` begins every id in the fragment, `note` is what the
    reader should know of the models. Everything is escaped.
    """
    shown = [_show(reply, size, id=f"{id}-t{i}") for i, reply in enumerate(replies)]
    progress = _together(replies)
    return Markup(
        render(
            "answer.html.j2",
            id=id,
            question=question,
            src=src,
            size=size,
            replies=shown,
            progress=progress,
            note=note,
        )
    )


def _together(replies: Sequence[LiveReply]) -> str:
    """The progress of the least far one; where all have ended, of the first that is done."""
    found = [reply.progress for reply in replies]
    order = (Progress.WAITING, Progress.WRITING, Progress.DONE, Progress.STOPPED, Progress.FAILED)
    return next(progress.value for progress in order if progress in found)


def _show(reply: LiveReply, size: Size, *, id: str) -> ShownLiveReply:
    transcript = reply.transcript
    if reply.progress is Progress.WRITING:
        # without coordinates whose end is still to be written
        kept = tuple(r for r in transcript.rejected if r.reason is not Rejection.UNFINISHED)
        transcript = replace(transcript, rejected=kept)
    boxes = show_boxes(transcript.pointings, size, id=id)
    if not reply.placed:
        boxes = tuple(replace(box, name=f"Box {box.number}, its place follows") for box in boxes)
    return ShownLiveReply(
        id=id,
        reply=reply,
        progress=reply.progress.value,
        note=_note(reply, len(boxes)),
        spans=show_spans(transcript, boxes),
        boxes=boxes,
        drawn=boxes if reply.placed else (),
        facts=_facts(reply),
    )


def _note(reply: LiveReply, num_boxes: int) -> str:
    """How far the answer is, in words."""
    boxes = f"{num_boxes} box" if num_boxes == 1 else f"{num_boxes} boxes"
    match reply.progress:
        case Progress.WAITING:
            return ""
        case Progress.WRITING:
            return f"Writing, {boxes} so far" if num_boxes else "Writing"
        case Progress.STOPPED:
            return f"Stopped, {boxes}"
        case Progress.FAILED:
            return "No answer"
        case Progress.DONE:
            return boxes


def _facts(reply: LiveReply) -> tuple[tuple[str, str], ...]:
    facts = []
    if reply.progress is Progress.DONE and reply.transcript.finish is Finish.LENGTH:
        facts.append(("ended", "cut off at the longest answer allowed"))
    if reply.seconds is not None:
        facts.append(("time", f"{reply.seconds:.1f} s"))
    if reply.completion_tokens:
        facts.append(("tokens", str(reply.completion_tokens)))
    return tuple(facts)
