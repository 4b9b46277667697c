"""Text from a model or a file made plain: nothing in it steers the terminal it is printed on."""

from __future__ import annotations

import unicodedata


def harmless(text: str) -> str:
    """The text with every control character but line ends and tabs replaced, so that it cannot steer the terminal.

    So is half a character, which no terminal can be sent. It keeps its length, so that offsets hold.
    """
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text
    )


def with_halves_joined(text: str) -> str:
    """The text with every two halves of a character that stand together made that character.

    A server that streams JSON may cut a character in two. JSON cannot tell the halves side by side from the character,
    so a record of them would read back as another one. A half by itself stays.
    """
    if text.isascii() or not any("\ud800" <= c <= "\udbff" for c in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def of_whole_characters(text: str) -> str:
    """The text with its halves joined, and the replacement sign for each half by itself: it can be sent as UTF-8."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in with_halves_joined(text))
