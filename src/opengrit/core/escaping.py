"""Text from a model or a file made plain: nothing in it steers the terminal it is printed on."""

from __future__ import annotations

import unicodedata


def harmless(text: str) -> str:
    """The text with every control character but line ends and tabs replaced, so that it cannot steer the terminal.

    So is a lone surrogate, which no terminal can be sent. The text keeps its length, so that offsets hold.
    """
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text
    )


def join_surrogates(text: str) -> str:
    """The text with every two surrogates that make a character replaced by that character.

    A server that streams JSON may cut a character in two. In JSON the surrogates side by side are the character, so a
    record of them would read back as another one. A lone surrogate stays.
    """
    if text.isascii() or not any("\ud800" <= c <= "\udbff" for c in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def without_surrogates(text: str) -> str:
    """The text with its surrogates joined, and the replacement sign for each lone one: it can be sent as UTF-8."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in join_surrogates(text))


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: one with a lone surrogate cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shortened(text: str, longest: int = 80) -> str:
    """The text, cut to so many characters with "..." at its end where it has more."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
