"""An answer in the terminal: the text while it is written, each pointing in its colour, then the boxes and the answer."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image
from rich.console import Console
from rich.text import Text

from opengrit.core.drawing import colour_of
from opengrit.core.errors import ModelError
from opengrit.core.escaping import harmless
from opengrit.core.types import Transcript
from opengrit.grounding.frames import Frame, frame_for
from opengrit.grounding.parsing import parse
from opengrit.inference.answer import Answer
from opengrit.inference.grounder import Grounder

_CLOSER = {"[": "]", "(": ")", "{": "}", "<": ">"}
_HELD_BACK = 200  # characters; coordinates are shorter


class TextStream:
    """Prints a text while it is written. What may begin coordinates is held back until they are complete."""

    def __init__(self, console: Console, frame: Frame) -> None:
        """`frame` says which coordinates are boxes of the picture; only those are coloured."""
        self._console = console
        self._frame = frame
        self._text = ""
        self._shown = 0

    def write(self, piece: str) -> None:
        """Show the next piece of the text, as far as it is final."""
        self._text += piece
        end = self._final_end()
        if end > self._shown:
            self._show(parse(self._text, self._frame), end)

    def end(self, transcript: Transcript) -> None:
        """Show the rest, and a line end."""
        self._text = transcript.text
        self._show(transcript, len(self._text))
        self._console.print()

    def _final_end(self) -> int:
        """The place up to which the text is shown: where the innermost object or bracket still open begins."""
        open_at: list[int] = []
        for place in range(max(self._shown, len(self._text) - _HELD_BACK), len(self._text)):
            letter = self._text[place]
            if letter in _CLOSER:
                open_at.append(place)
            elif open_at and letter == _CLOSER[self._text[open_at[-1]]]:
                open_at.pop()
        # Coordinates in an object count once the object is closed; in a list, once they are closed themselves.
        objects = [place for place in open_at if self._text[place] == "{"]
        return (objects or open_at or [len(self._text)])[-1]

    def _show(self, transcript: Transcript, end: int) -> None:
        shown = Text(harmless(transcript.text))
        for number, pointing in enumerate(transcript.pointings, start=1):
            shown.stylize(style_of(number), pointing.start, pointing.end)
        self._console.print(shown[self._shown : end], end="", soft_wrap=True)
        self._shown = end


def stream_text(
    console: Console, grounder: Grounder, picture: Image.Image, pieces: Iterator[str | Answer]
) -> Answer:
    """Print the text (while it is written, where the console is a terminal) and return the answer."""
    stream: TextStream | None = None
    for piece in pieces:
        if isinstance(piece, Answer):
            stream = stream or TextStream(console, frame_for(grounder.frame, piece.seen_size))
            stream.end(piece.transcript)
            return piece
        if console.is_terminal:
            stream = stream or TextStream(console, frame_for(grounder.frame, grounder.seen_size(picture)))
            stream.write(piece)
    raise ModelError("a stream ends with its answer, this one ended without one; please report it")


def style_of(number: int) -> str:
    """The style of a pointing by number: its colour as background, readable on a dark and on a light terminal."""
    background, ink = colour_of(number)
    return f"underline {ink if len(ink) == 7 else '#' + ink[1] * 6} on {background}"


def print_boxes_and_answer(console: Console, answer: Answer) -> None:
    """Print the boxes in picture pixels by number, what only looked like a box, and the answer."""
    console.print()
    for box in answer.boxes:
        edges = ", ".join(f"{n:.0f}" for n in box.pixels)
        line = Text(f" {box.number} ", style=style_of(box.number).removeprefix("underline "))
        line.append(
            f" {harmless(box.label or 'box')} ({edges}) px, in the {box.section.value}",
            style="default on default",
        )
        console.print(line, soft_wrap=True)
    for rejected in answer.transcript.rejected:
        console.print(
            Text(f"not a box: {harmless(rejected.text)} ({rejected.reason.value})", style="dim"),
            soft_wrap=True,
        )
    said = answer.answer if answer.answer is not None else "(none)"
    console.print(Text(f"answer: {harmless(said)}", style="bold"), soft_wrap=True)
