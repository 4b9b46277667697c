"""Detokenizing while a completion is sampled: stop strings, and pieces of text that add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"  # what a tokenizer decodes from part of a character's bytes


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of token ids, special tokens included, spaces left as they are."""
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def token_texts(tokenizer: Any) -> list[str]:
    """The text of each token of the vocabulary alone, by its id."""
    return list(tokenizer.batch_decode([[i] for i in range(len(tokenizer))]))


def cut_at_stop(text: str, stops: Sequence[str]) -> str | None:
    """The text up to the end of its first stop string; None where it holds none."""
    ends = [text.index(s) + len(s) for s in stops if s in text]
    return text[: min(ends)] if ends else None


class StopFinder:
    """Finds at which token a stop string is complete, decoding only where the newest token can complete one."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], *, texts: Sequence[str] | None = None) -> None:
        """`texts` are the tokenizer's `token_texts`, where they are known already."""
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._ends = tuple({s[i:] for s in stops for i in range(1, len(s))})
        # A token holds one byte of a stop, or more.
        self._reach = max((len(s.encode()) for s in stops), default=0) + 1
        if texts is None:
            texts = token_texts(tokenizer) if stops else []
        self._completers = frozenset(i for i, text in enumerate(texts) if self._text_may_complete(text))

    def may_complete(self, token: int) -> bool:
        """False where a completion whose newest token this is cannot just have completed a stop string."""
        return token in self._completers

    def _text_may_complete(self, text: str) -> bool:
        # Some tokenizers drop a leading space when they decode one token alone, or add one.
        readings = (text, text.lstrip(), f" {text}")
        return any(reading.startswith(self._ends) for reading in readings) or any(
            any(s in reading for reading in readings)
            or (not s[-1].isascii() and _INCOMPLETE in text)  # the last bytes of the stop's last character
            for s in self._stops
        )

    def completes(self, ids: Sequence[int]) -> bool:
        """True if a stop string ends within the last token."""
        tail = self._tokenizer.decode(ids[-self._reach :])
        return any(s in tail for s in self._stops)

    def cut(self, text: str) -> str:
        """The text up to the end of its first stop string."""
        cut = cut_at_stop(text, self._stops)
        return text if cut is None else cut


class IncrementalDetokenizer:
    """The text of a completion in pieces, as its tokens are sampled; joined, the pieces are the completion's text.

    A character whose bytes are spread over tokens is held back until it is whole. For tokenizers that decode bytes
    one after the other, as those of every family here do.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # tokens emitted before, for context, and pending ones
        self._emitted = 0  # how many of the window's tokens are emitted
        self._characters = 0  # emitted so far, in all

    def add(self, token: int) -> str:
        """The text that is certain now and was not emitted before, possibly none."""
        self._window.append(token)
        text = decode(self._tokenizer, self._window)
        if text.endswith(_INCOMPLETE):
            return ""
        before = decode(self._tokenizer, self._window[: self._emitted])
        self._window = self._window[self._emitted :]
        self._emitted = len(self._window)
        self._characters += len(text) - len(before)
        return text[len(before) :]

    def rest(self, text: str) -> str:
        """What is not emitted yet of the completion's whole text."""
        return text[self._characters :]


def token_spans(tokenizer: Any, ids: Sequence[int], text: str) -> tuple[list[int], list[int]]:
    """First character of each token in the text, and the first one after it; tokens beyond the text's end hold none of it.

    A token that holds some of the bytes of a character holds that character. `text` is what the ids decode to, or the
    beginning of it. For tokenizers that decode bytes one after the other, as those of every family here do.
    """
    starts: list[int] = []
    ends: list[int] = []
    pieces = IncrementalDetokenizer(tokenizer)
    at = 0
    for token in ids:
        piece = pieces.add(token)
        starts.append(min(at, len(text)))
        at += len(piece)
        ends.append(min(at, len(text)) if piece else min(at + 1, len(text)))  # part of the next character
    return starts, ends
