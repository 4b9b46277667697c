"""Prompts of your own: a function of the question, or a text file with `{question}` in it."""

from __future__ import annotations

from collections.abc import Callable

from opengrit.core.errors import RecipeError, first_line
from opengrit.core.escaping import shortened
from opengrit.core.plugins import (
    RAISED,
    OwnFunction,
    Reference,
    find,
    is_asynchronous,
    is_function,
    is_text_file,
    load,
)

QUESTION = "{question}"
_TRIAL = "How many dogs are there?"


class OwnPrompt(Reference):
    """A reference to a prompt, read: its text like any other strategy's name, and what makes a user's turn of a question.

    `trial` is the turn of a trial question, from which is read what the prompt asks for.
    """

    turn_of: Callable[[str], str]
    trial: str

    @classmethod
    def read(cls, reference: Reference) -> OwnPrompt:
        """The prompt that a reference names; a function is executed, and asked once. Raises RecipeError."""
        check_form(reference)
        made = cls(str(reference), folder=reference.folder)
        made.turn_of = _filled(reference) if is_text_file(reference) else _called(load(reference))
        made.trial = made.turn_of(_TRIAL)
        return made


def check_form(reference: str) -> None:
    """Raise RecipeError unless a text names a function or a text file."""
    if not is_function(reference) and not is_text_file(reference):
        raise RecipeError(
            f"a prompt of your own is my_file.py:my_function or a .txt file with {QUESTION} in it, got {str(reference)!r}; "
            "write it in one of the two forms"
        )


def _filled(reference: Reference) -> Callable[[str], str]:
    file = find(reference)
    if QUESTION not in file.text:
        raise RecipeError(
            f"a prompt's text holds {QUESTION}, where the question goes, {file.path} does not; write it there"
        )
    return lambda question: file.text.replace(QUESTION, question)


def _called(function: OwnFunction) -> Callable[[str], str]:
    if is_asynchronous(function.call):
        raise RecipeError(
            f"a prompt is made by a function that is not asynchronous, {function.file.reference} is; write it without async "
            f"({function.place})"
        )

    def turn_of(question: str) -> str:
        try:
            text = function.call(question)
        except RAISED as error:  # code of others raises what it likes
            raise RecipeError(
                f"a prompt is made of every question, {function.file.reference} raised {type(error).__name__} "
                f"({first_line(error)}) for {shortened(question)!r}; fix {function.raised_at(error)}"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise RecipeError(
                f"a prompt is a text, {function.file.reference} returned {shortened(repr(text))} for {shortened(question)!r}; "
                f"fix {function.place}"
            )
        return text

    return turn_of
