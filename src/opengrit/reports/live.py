"""One question's answers as a fragment for a page, while they are written and after: the viewer's live side.

The page around it brings the viewer's style and script, and swaps the fragment as the text grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from markupsafe import Markup

from opengrit.core.boxes import Size
from opengrit.core.types import Finish, Rejection, Transcript
from opengrit.reports.viewer import ShownBox, ShownPiece, show_boxes, show_pieces, templates


class Progress(Enum):
    """How far an answer is."""

    WAITING = "waiting"  # the picture is there, nothing has been asked
    WRITING = "writing"
    DONE = "done"
    STOPPED = "stopped"  # the person who asked did not want more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Saying:
    """What one model has said so far.

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
class ShownSaying:
    """A saying ready for the template."""

    id: str
    model: str
    progress: str
    note: str
    problem: str
    answer: str | None
    pieces: tuple[ShownPiece, ...]
    boxes: tuple[ShownBox, ...]
    drawn: tuple[ShownBox, ...]
    facts: tuple[tuple[str, str], ...]
    downloads: tuple[tuple[str, str], ...]


def answer_html(question: str, sayings: Sequence[Saying], *, src: str, size: Size, id: str) -> Markup:
    """The fragment: the question, and for each model the picture at `src` with its boxes beside its text.

    `size` is the picture's in pixels (boxes are named in them), `id` begins every id in the fragment. Everything else
    is escaped.
    """
    shown = [_show(saying, size, id=f"{id}-t{i}") for i, saying in enumerate(sayings)]
    return Markup(
        templates()
        .get_template("answer.html.j2")
        .render(id=id, question=question, src=src, size=size, takes=shown, progress=_together(sayings))
    )


def _together(sayings: Sequence[Saying]) -> str:
    """The progress of the least far one; where all have ended, of the first that is done."""
    found = [saying.progress for saying in sayings]
    order = (Progress.WAITING, Progress.WRITING, Progress.DONE, Progress.STOPPED, Progress.FAILED)
    return next(progress.value for progress in order if progress in found)


def _show(saying: Saying, size: Size, *, id: str) -> ShownSaying:
    transcript = saying.transcript
    if saying.progress is Progress.WRITING:
        transcript = _without_unfinished(transcript)
    boxes = show_boxes(transcript.pointings, size, id=id)
    if not saying.placed:
        boxes = tuple(_unplaced(box) for box in boxes)
    return ShownSaying(
        id=id,
        model=saying.model,
        progress=saying.progress.value,
        note=_note(saying, len(boxes)),
        problem=saying.problem,
        answer=transcript.answer,
        pieces=show_pieces(transcript, boxes),
        boxes=boxes,
        drawn=boxes if saying.placed else (),
        facts=_facts(saying),
        downloads=saying.downloads,
    )


def _without_unfinished(transcript: Transcript) -> Transcript:
    """The transcript without coordinates whose end is still to be written."""
    kept = tuple(r for r in transcript.rejected if r.reason is not Rejection.UNFINISHED)
    return replace(transcript, rejected=kept)


def _unplaced(box: ShownBox) -> ShownBox:
    return replace(box, name=f"Box {box.number}, its place follows")


def _note(saying: Saying, num_boxes: int) -> str:
    """How far the answer is, in words."""
    boxes = f"{num_boxes} box" if num_boxes == 1 else f"{num_boxes} boxes"
    match saying.progress:
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


def _facts(saying: Saying) -> tuple[tuple[str, str], ...]:
    facts = []
    if saying.progress is Progress.DONE and saying.transcript.finish is Finish.LENGTH:
        facts.append(("ended", "cut off at the longest answer allowed"))
    if saying.seconds is not None:
        facts.append(("time", f"{saying.seconds:.1f} s"))
    if saying.completion_tokens:
        facts.append(("tokens", str(saying.completion_tokens)))
    return tuple(facts)
