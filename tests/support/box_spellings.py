"""Every way to write a box that we know, and the ways to damage it: notation by number by brackets by label by line ends."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# A notation takes four written numbers and a label, as JSON, and says whether the label is in what it writes.
Notation = Callable[[list[str], str], str]

OBJECTS: dict[str, Notation] = {
    "object": lambda n, label: f'{{"bbox_2d": [{", ".join(n)}], "label": {label}}}',
    "label first": lambda n, label: f'{{"label": {label}, "bbox_2d": [{", ".join(n)}]}}',
    "list of objects": lambda n, label: (
        f'```json\n[\n  {{"bbox_2d": [{", ".join(n)}], "label": {label}}}\n]\n```'
    ),
    "two points": lambda n, label: (
        f'{{"bbox_2d": [[{", ".join(n[:2])}], [{", ".join(n[2:])}]], "label": {label}}}'
    ),
    "two round points": lambda n, label: f'{{"box": [({n[0]}, {n[1]}), ({n[2]}, {n[3]})], "label": {label}}}',
    "edges": lambda n, label: f'{{"x1": {n[0]}, "y1": {n[1]}, "x2": {n[2]}, "y2": {n[3]}, "label": {label}}}',
    "edges from zero": lambda n, label: (
        f'{{"x0": {n[0]}, "y0": {n[1]}, "x1": {n[2]}, "y1": {n[3]}, "label": {label}}}'
    ),
    "edges in a box": lambda n, label: (
        f'{{"label": {label}, "bbox": {{"xmin": {n[0]}, "ymin": {n[1]}, "xmax": {n[2]}, "ymax": {n[3]}}}}}'
    ),
    "edges by axis": lambda n, label: (
        f'{{"left": {n[0]}, "right": {n[2]}, "top": {n[1]}, "bottom": {n[3]}, "label": {label}}}'
    ),
    "corners": lambda n, label: (
        f'{{"top_left": [{", ".join(n[:2])}], "bottom_right": [{", ".join(n[2:])}], "label": {label}}}'
    ),
    "corners with axes": lambda n, label: (
        f'{{"topLeft": {{"x": {n[0]}, "y": {n[1]}}}, "bottomRight": {{"x": {n[2]}, "y": {n[3]}}}, "label": {label}}}'
    ),
    "four corners": lambda n, label: (
        f'{{"label": {label}, "top_left": [{n[0]}, {n[1]}], "top_right": [{n[2]}, {n[1]}], '
        f'"bottom_right": [{n[2]}, {n[3]}], "bottom_left": [{n[0]}, {n[3]}]}}'
    ),
    "label in the list": lambda n, label: f"[{', '.join(n)}, {label}]",
    "label as key": lambda n, label: f"{{{label}: [{', '.join(n)}]}}",
    "label as key of a list": lambda n, label: f"{{{label}: [[{', '.join(n)}]]}}",
    "label as key of a box": lambda n, label: f'{{{label}: {{"bbox_2d": [{", ".join(n)}]}}}}',
}
WITHOUT_LABEL: dict[str, Notation] = {
    "round": lambda n, label: f"A dog ({', '.join(n)}) sits.",
    "square": lambda n, label: f"A dog [{', '.join(n)}] sits.",
    "curly": lambda n, label: f"{{{', '.join(n)}}}",
    "points": lambda n, label: f"({n[0]}, {n[1]}), ({n[2]}, {n[3]})",
    "named in two brackets": lambda n, label: f"(x1: {n[0]}, y1: {n[1]}), (x2: {n[2]}, y2: {n[3]})",
    "corners by name": lambda n, label: f"top-left: ({n[0]}, {n[1]}), bottom-right: ({n[2]}, {n[3]})",
    "corners in words": lambda n, label: (
        f"Top left corner: ({n[0]}, {n[1]}), bottom right corner: ({n[2]}, {n[3]})"
    ),
    "corners in a sentence": lambda n, label: (
        f"from the top-left corner ({n[0]}, {n[1]}) to the bottom-right corner at ({n[2]}, {n[3]})"
    ),
    "points on two lines": lambda n, label: f"({n[0]}, {n[1]})\n({n[2]}, {n[3]})",
    "key alone": lambda n, label: f'"bbox_2d": [{", ".join(n)}]',
    "points after a key": lambda n, label: f'"bbox_2d": [{n[0]}, {n[1]}], [{n[2]}, {n[3]}]',
    "box token": lambda n, label: f"<box>[[{', '.join(n)}]]</box>",
    "point token": lambda n, label: f"<|box_start|>({n[0]}, {n[1]}), ({n[2]}, {n[3]})<|box_end|>",
}
UNQUOTED: dict[str, Notation] = {  # where a number in quotes would be another notation
    "bare token": lambda n, label: f"<box>{', '.join(n)}</box>",
    "in a string": lambda n, label: f'{{"bbox_2d": "{", ".join(n)}", "label": {label}}}',
    "corners in strings": lambda n, label: (
        f'{{"top_left": "{n[0]}, {n[1]}", "bottom_right": "({n[2]}, {n[3]})", "label": {label}}}'
    ),
    "list in a string": lambda n, label: f'{{"bbox_2d": "[{", ".join(n)}]", "label": {label}}}',
    "named in a string": lambda n, label: f'{{"box": "x1={n[0]}, y1={n[1]}, x2={n[2]}, y2={n[3]}"}}',
    "in words": lambda n, label: f"The bounding box is: {', '.join(n)}.",
}
LABELLED = OBJECTS.keys() | {"in a string", "list in a string", "corners in strings"}

NUMBERS: dict[str, Callable[[int], str]] = {
    "whole": str,
    "decimal": lambda n: f"{n}.0",
    "exponent": lambda n: f"{n / 10:g}e1",
    "capital exponent": lambda n: f"{n / 10:.1f}E+1",
    "plus": lambda n: f"+{n}",
    "pixels": lambda n: f"{n}px",
    "pixels apart": lambda n: f"{n} px",
    "full width": lambda n: "".join(chr(0xFF10 + int(c)) for c in str(n)),
    "arabic": lambda n: "".join(chr(0x0660 + int(c)) for c in str(n)),
    "quoted": lambda n: f'"{n}"',
    "quoted with a unit": lambda n: f'"{n}px"',
}
PER_CENT: dict[str, Callable[[int], str]] = {
    "per cent": lambda n: f"{n / 10:g}%",
    "full width per cent": lambda n: f"{n}\uff05",
    "quoted per cent": lambda n: f'"{n} %"',
}
LABELS = (
    "dog", "dogs (3)", "dog [left]", "screen showing [12, 30, 45, 59]", 'the "big" dog', "\u72d7\uff08\u5de6\uff09", "sign: {EXIT}", "a, b", "the dog's bowl",
    "back\\slash", "boxes at (1, 2), (3, 4)", "C:\\new\\u0041", "x1: 5, y1: 6", "100% wool", "}", "],", '", "', "<b>&amp;</b>", "<|box_start|>(1,2),(3,4)", "\U0001f415",
    "\uff02EXIT\uff02, (5, 6)", "\u201cbig\u201d [1, 2, 3, 4]",
)  # fmt: skip
WIDTHS: dict[str, dict[str, str]] = {
    "ascii": {},
    "full width": {"(": "\uff08", ")": "\uff09", "[": "\uff3b", "]": "\uff3d", ",": "\uff0c", ":": "\uff1a"},
    "ideographic comma": {", ": "\u3001"},
    "lenticular": {"[": "\u3010", "]": "\u3011"},
    "semicolon": {", ": "; "},
}
LINES: dict[str, dict[str, str]] = {
    "one line": {},
    "a line each": {", ": ",\n  "},
    "open and close": {"[": "[\n", "]": "\n]"},
    "windows": {", ": ",\r\n"},
    "no space": {", ": ",", ": ": ":"},
}


@dataclass(frozen=True, slots=True)
class Spelling:
    """A text that writes `boxes`, each left, top, right, bottom as numbers, and the label of each (None: not looked at)."""

    text: str
    boxes: tuple[tuple[int, int, int, int], ...]
    label: str | None
    name: str


def _dressed(text: str, *dresses: dict[str, str]) -> str:
    """The text with its marks replaced, what is in JSON strings with an escape or a bracket kept by a stand-in."""
    for dress in dresses:
        for mark, other in dress.items():
            text = text.replace(mark, other)
    return text


def _written(notation: Notation, numbers: list[str], label: str, *dresses: dict[str, str]) -> str:
    """The text of a notation; the label is put in last, so that no dress changes it."""
    return _dressed(notation(numbers, "\x01"), *dresses).replace("\x01", label)


def clean(draw: random.Random, count: int) -> Iterator[Spelling]:
    """Spellings of whole boxes: every pair of notation and number, with the rest drawn, and so on until `count`."""
    pairs = [(n, k) for n in OBJECTS | WITHOUT_LABEL for k in NUMBERS]
    pairs += [(n, k) for n in UNQUOTED for k in NUMBERS if "quoted" not in k]
    notations = OBJECTS | WITHOUT_LABEL | UNQUOTED
    for name, kind in itertools.islice(itertools.cycle(pairs), count):
        box = (
            draw.randrange(0, 400),
            draw.randrange(0, 300),
            draw.randrange(401, 999),
            draw.randrange(301, 799),
        )
        label, width, lines = draw.choice(LABELS), draw.choice(list(WIDTHS)), draw.choice(list(LINES))
        if name in ("in words", "in a string", "list in a string", "named in a string", "corners in strings"):
            lines = "one line"
        if name in ("points", "corners by name", "corners in words", "bare token") and width == "semicolon":
            width = "ascii"
        text = _written(
            notations[name],
            [NUMBERS[kind](n) for n in box],
            json.dumps(label, ensure_ascii=draw.random() < 0.5),
            WIDTHS[width],
            LINES[lines],
        )
        yield Spelling(text, (box,), label if name in LABELLED else None, f"{name}/{kind}/{width}/{lines}")


def per_cent(draw: random.Random, count: int) -> Iterator[Spelling]:
    """The same in per cent: none is a box of a frame, and none vanishes."""
    pairs = [(n, k) for n in OBJECTS | WITHOUT_LABEL for k in PER_CENT]
    pairs += [(n, k) for n in UNQUOTED for k in PER_CENT if "quoted" not in k]
    notations = OBJECTS | WITHOUT_LABEL | UNQUOTED
    for name, kind in itertools.islice(itertools.cycle(pairs), count):
        box = (draw.randrange(0, 40), draw.randrange(0, 40), draw.randrange(41, 99), draw.randrange(41, 99))
        numbers = [PER_CENT[kind](n) for n in box]
        text = _written(notations[name], numbers, json.dumps(draw.choice(LABELS)))
        yield Spelling(text, (box,), None, f"{name}/{kind}")


def _damaged_list(numbers: list[str], damage: str, at: int) -> str:
    match damage:
        case "missing bracket":
            return f"[{', '.join(numbers)}"
        case "trailing comma":
            return f"[{', '.join(numbers)},]"
        case "double comma":
            return "[" + ", ".join(numbers[:at]) + ",, " + ", ".join(numbers[at:]) + "]"
        case "wrong bracket":
            return f"[{', '.join(numbers)})"
        case "extra number":
            return f"[{', '.join([*numbers, '7'])}]"
        case "missing number":
            return f"[{', '.join(numbers[:at] + numbers[at + 1 :])}]"
        case "no number":
            return f"[{', '.join([*numbers[:at], 'None', *numbers[at + 1 :]])}]"
        case "question mark":
            return f"[{', '.join([*numbers[:at], '?', *numbers[at + 1 :]])}]"
        case "another unit":
            return f"[{', '.join(n + 'cm' for n in numbers)}]"
        case "a fraction":
            return f"[{', '.join([*numbers[:at], '1/2', *numbers[at + 1 :]])}]"
        case "a word":
            return f"[{', '.join(numbers)} or so]"
        case "width and height":
            return '{{"x": {}, "y": {}, "width": {}, "height": {}}}'.format(*numbers)
        case "place and size":
            return '{{"left": {}, "top": {}, "width": {}, "height": {}}}'.format(*numbers)
        case "three edges":
            return '{{"x1": {}, "y1": {}, "x2": {}}}'.format(*numbers[:3])
        case "one corner":
            return '{{"top_left": [{}, {}]}}'.format(*numbers[:2])
        case "three points":
            return f"[[{', '.join(numbers[:2])}], [{', '.join(numbers[2:])}], [7, 8]]"
        case "hexadecimal":
            return f"[{', '.join([*numbers[:at], '0x10', *numbers[at + 1 :]])}]"
    raise ValueError(damage)


DAMAGES = (
    "missing bracket", "trailing comma", "double comma", "wrong bracket", "extra number", "missing number", "no number", "question mark",
    "another unit", "a fraction", "a word", "width and height", "place and size", "three edges", "one corner", "three points", "hexadecimal",
)  # fmt: skip


def damaged(draw: random.Random, count: int) -> Iterator[Spelling]:
    """Several boxes in a row, each under a box key, of which some are damaged: each is one box or one rejection."""
    for _ in range(count):
        parts, boxes, names = [], [], []
        for _ in range(draw.randrange(1, 4)):
            box = (
                draw.randrange(0, 400),
                draw.randrange(0, 300),
                draw.randrange(401, 999),
                draw.randrange(301, 799),
            )
            damage = draw.choice(DAMAGES)
            kind = draw.choice(("whole", "decimal", "exponent", "full width"))
            numbers = _damaged_list([NUMBERS[kind](n) for n in box], damage, draw.randrange(1, 4))
            label = json.dumps(draw.choice(LABELS))
            parts.append(f'{{"bbox_2d": {numbers}, "label": {label}}}')
            boxes.append(box)
            names.append(damage)
        text = "[" + draw.choice((", ", ",\n", "\n")).join(parts) + "]"
        yield Spelling(text, tuple(boxes), None, "/".join(names))
