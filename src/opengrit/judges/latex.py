"""LaTeX in plain characters: fractions, roots, powers, signs, and the wrappers around an answer."""

from __future__ import annotations

import re

_FRACTION = re.compile(r"\\[dt]?frac\s*+\{([^{}]*+)\}\s*+\{([^{}]*+)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*+(\d)\s*+(\d)")
_ROOT = re.compile(r"(?:\\sqrt|\u221a)\s*+\{([^{}]*+)\}")
_COMMANDS = {
    r"\times": "*", r"\cdot": "*", r"\div": "/", r"\pi": "\u03c0", r"\leq": "\u2264", r"\geq": "\u2265", r"\le": "\u2264", r"\ge": "\u2265",
    r"\neq": "\u2260", r"\pm": "\u00b1", r"\left": "", r"\right": "", r"\,": "", r"\;": "", r"\!": "", r"\ ": " ", r"\infty": "\u221e",
    r"\degree": "\u00b0", r"\circ": "\u00b0", r"\angle": "\u2220", r"\approx": "~", r"\lt": "<", r"\gt": ">", r"\sqrt": "\u221a",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?:[A-Za-z]++|[,;! ])")
_POWER = re.compile(r"\^\s*+\{([^{}]*+)\}")
_SIMPLE = re.compile(r"\s*+[\w.\u03c0]*+\s*+")
_WRAPPER = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|mbox|emph)\s?\{([^{}]*+)\}"
)
_NESTED = 6  # \boxed{\text{\textbf{B}}} has three


def unlatex(text: str) -> str:
    """The text with LaTeX's fractions, roots, powers and signs in plain characters."""
    if "\\" not in text and "\u221a" not in text and "^{" not in text:
        return text
    text = _SHORT_FRACTION.sub(r"\1/\2", text)
    for _ in range(_NESTED):
        text, fractions = _FRACTION.subn(lambda found: f"{_grouped(found[1])}/{_grouped(found[2])}", text)
        text, roots = _ROOT.subn(lambda found: f"\u221a{_grouped(found[1])}", text)
        text, powers = _POWER.subn(lambda found: f"^{_grouped(found[1])}", text)
        text, wrappers = _WRAPPER.subn(r" \1 ", text)
        if not fractions + roots + powers + wrappers:
            break
    return _COMMAND.sub(lambda found: _COMMANDS.get(found.group(), found.group()), text)


def _grouped(part: str) -> str:
    return part.strip() if _SIMPLE.fullmatch(part) else f"({part.strip()})"
