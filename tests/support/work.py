"""Work counted and not timed: bytecodes of Python code, and steps of regular expressions, which Python code does not see.

The steps are those of a plain backtracking matcher, as Python's own is one: it tries what a pattern allows, in the pattern's
order, and takes back what does not fit. Each test of one character or one position is a step.
"""

from __future__ import annotations

import ast
import gc
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import FrameType, ModuleType
from typing import Any

METHODS = {"match", "fullmatch", "search", "findall", "finditer", "sub", "split"}
Goes = Callable[[int], bool]


def bytecodes(run: Callable[[], Any]) -> int:
    """How many bytecodes a call executes, in all Python code that it reaches."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    re.purge()  # every call compiles what it needs: else one does whenever other tests have filled the cache
    gc.disable()  # or what other tests left behind is finalized, and counted, in the middle of the call
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def grows_linearly(cost: Callable[[int], int], n: int, *, slack: float = 1.35) -> bool:
    """Whether the second doubling of n costs about twice what the first one did; quadratic work costs four times that.

    What looks worse is counted once more: what is made at its first use is then there, and quadratic work stays quadratic.
    """

    def is_linear() -> bool:
        once, twice, four_times = cost(n), cost(2 * n), cost(4 * n)
        return four_times - twice <= 2 * slack * max(twice - once, 0) + 50

    return is_linear() or is_linear()


def patterns_in(module: ModuleType) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every use of a regular expression in a module's code: the method it is used with, and the pattern."""
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    for call in ast.walk(tree):
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in METHODS
        ):
            continue
        held = ast.unparse(call.func.value)
        if held == "re" and call.args:
            written = ast.unparse(call.args[0])
            try:
                yield call.func.attr, re.compile(eval(written, vars(module)))
            except NameError:  # a loop variable: `for marker in (..., ...)`
                continue
        elif isinstance(vars(module).get(held), re.Pattern):
            yield call.func.attr, vars(module)[held]


class Matcher:
    """A pattern, matched step by step. `steps` counts up."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.tree = parser.parse(pattern.pattern, pattern.flags)
        self.flags = pattern.flags
        self.steps = 0
        self.text = ""
        self.groups: dict[int, tuple[int, int]] = {}

    def used(self, method: str, text: str) -> list[tuple[int, int]]:
        """The spans that `method` of a pattern finds in a text; the first one for match, fullmatch and search."""
        self.text, self.groups = text, {}
        if method in ("match", "fullmatch"):
            found = self._at(0, whole=method == "fullmatch")
            return [] if found is None else [(0, found)]
        spans, start, after = list[tuple[int, int]](), 0, -1
        while start <= len(text):
            found = self._at(start, not_empty_at=after)
            if found is None:
                start += 1
                continue
            spans.append((start, found))
            if method == "search":
                break
            after = start = found
        return spans

    def _at(self, start: int, *, whole: bool = False, not_empty_at: int = -1) -> int | None:
        end: list[int] = []

        def ends(at: int) -> bool:
            if (whole and at != len(self.text)) or at == start == not_empty_at:
                return False
            end.append(at)
            return True

        self.groups = {}
        return end[0] if self._all(self.tree.data, 0, start, self.flags, ends) else None

    def _all(self, items: list[Any], index: int, at: int, flags: int, goes: Goes) -> bool:
        if index == len(items):
            return goes(at)
        return self._one(items[index], at, flags, lambda end: self._all(items, index + 1, end, flags, goes))

    def _one(self, item: Any, at: int, flags: int, goes: Goes) -> bool:
        kind, given = item
        if kind in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            return self._takes(item, at, flags) and goes(at + 1)
        if kind is op.AT:
            return self._stands(given, at, flags) and goes(at)
        if kind is op.BRANCH:
            return any(self._all(branch.data, 0, at, flags, goes) for branch in given[1])
        if kind is op.SUBPATTERN:
            return self._group(given, at, flags, goes)
        if kind is op.GROUPREF:
            first, last = self.groups[given]
            self.steps += last - first + 1
            same = self.text[first:last].lower() == self.text[at : at + last - first].lower()
            return same and goes(at + last - first)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            holds = self._looks(given, at, flags)
            return holds is (kind is op.ASSERT) and goes(at)
        if kind is op.ATOMIC_GROUP:
            end = self._end_of(given.data, at, flags)
            return end is not None and goes(end)
        assert kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT), kind
        return self._repeat(kind, given, at, flags, goes)

    def _group(self, given: Any, at: int, flags: int, goes: Goes) -> bool:
        group, more, less, inside = given
        before = self.groups.get(group)

        def closed(end: int) -> bool:
            if group is not None:
                self.groups[group] = (at, end)
            return goes(end)

        if self._all(inside.data, 0, at, (flags | more) & ~less, closed):
            return True
        if before is not None:
            self.groups[group] = before
        return False

    def _end_of(self, items: list[Any], at: int, flags: int) -> int | None:
        end: list[int] = []
        return end[0] if self._all(items, 0, at, flags, lambda e: bool(end.append(e)) or True) else None

    def _looks(self, given: Any, at: int, flags: int) -> bool:
        direction, inside = given
        if direction > 0:
            return self._end_of(inside.data, at, flags) is not None
        width = inside.getwidth()[0]
        if at < width:
            return False
        return self._all(inside.data, 0, at - width, flags, lambda end: end == at)

    def _repeat(self, kind: Any, given: Any, at: int, flags: int, goes: Goes) -> bool:
        least, most, inside = given
        if kind is op.POSSESSIVE_REPEAT:
            count = 0
            while count < most and (end := self._end_of(inside.data, at, flags)) is not None:
                count += 1
                if end == at:
                    break
                at = end
            return count >= least and goes(at)
        single = len(inside.data) == 1 and inside.data[0][0] in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
        if single and kind is op.MAX_REPEAT:
            count = 0
            while count < most and self._takes(inside.data[0], at + count, flags):
                count += 1
            for taken in range(count, least - 1, -1):
                self.steps += 1
                if goes(at + taken):
                    return True
            return False

        def again(done: int, begun: int) -> bool:
            def more() -> bool:
                step: Goes = lambda end: (end > begun or done < least) and again(done + 1, end)  # noqa: E731
                return done < most and self._all(inside.data, 0, begun, flags, step)

            def enough() -> bool:
                return done >= least and goes(begun)

            return (more() or enough()) if kind is op.MAX_REPEAT else (enough() or more())

        return again(0, at)

    def _takes(self, item: Any, at: int, flags: int) -> bool:
        self.steps += 1
        if at >= len(self.text):
            return False
        letter, (kind, given) = self.text[at], item
        if kind is op.ANY:
            return letter != "\n" or bool(flags & re.DOTALL)
        forms = {letter, letter.lower(), letter.upper()} if flags & re.IGNORECASE else {letter}
        if kind is op.LITERAL:
            return any(form == chr(given) for form in forms)
        if kind is op.NOT_LITERAL:
            return all(form != chr(given) for form in forms)
        negated = given[0][0] is op.NEGATE
        return negated is not any(_in(form, part, flags) for form in forms for part in given[negated:])

    def _stands(self, where: Any, at: int, flags: int) -> bool:
        self.steps += 1
        end = len(self.text)
        if where in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            lines = where is op.AT_BEGINNING and flags & re.MULTILINE
            return at == 0 or bool(lines and self.text[at - 1] == "\n")
        if where in (op.AT_END, op.AT_END_STRING):
            if where is op.AT_END_STRING:
                return at == end
            lines = flags & re.MULTILINE and at < end and self.text[at] == "\n"
            return at == end or (at == end - 1 and self.text[at] == "\n") or bool(lines)
        inner = [
            0 <= i < end and _in(self.text[i], (op.CATEGORY, op.CATEGORY_WORD), flags) for i in (at - 1, at)
        ]
        return (inner[0] != inner[1]) is (where is op.AT_BOUNDARY)


def _in(letter: str, part: Any, flags: int) -> bool:
    kind, given = part
    if kind is op.LITERAL:
        return letter == chr(given)
    if kind is op.RANGE:
        return given[0] <= ord(letter) <= given[1]
    narrow = bool(flags & re.ASCII) and not letter.isascii()
    found = {
        "DIGIT": letter.isdecimal() and not narrow,
        "SPACE": letter.isspace() and not narrow,
        "WORD": (letter.isalnum() or letter == "_") and not narrow,
    }
    *_, negated, name = (
        ("", *str(given).split("_")[1:]) if "_NOT_" in str(given) else ("", "", str(given).split("_")[1])
    )
    return found[name] is (negated != "NOT")
