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
