"""Corners of a box that a text names: "x1", "left", "xmin", "top_left", and what they say of its four edges."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Left, top, right and bottom are the slots 0 to 3.
_EDGES = {
    name: slot
    for slot, names in enumerate(
        (
            "x1 xmin minx left xleft leftx x0 startx xstart topleftx lefttopx upperleftx tlx",
            "y1 ymin miny top ytop topy y0 starty ystart toplefty lefttopy upperlefty tly",
            "x2 xmax maxx right xright rightx endx xend bottomrightx rightbottomx lowerrightx brx",
            "y2 ymax maxy bottom ybottom bottomy endy yend bottomrighty rightbottomy lowerrighty bry",
        )
    )
    for name in names.split()
}
_POINTS = {
    name: slots
    for slots, names in (
        ((0, 1), "topleft lefttop upperleft leftupper tl lt"),
        ((2, 3), "bottomright rightbottom lowerright rightlower br rb"),
        ((2, 1), "topright righttop upperright rightupper tr rt"),
        ((0, 3), "bottomleft leftbottom lowerleft leftlower bl lb"),
    )
    for name in names.split()
}
_SIZES = {
    name: side
    for side, names in {
        "x": "x x1 xmin left cx xcenter centerx", "y": "y y1 ymin top cy ycenter centery", "w": "w width", "h": "h height",
    }.items()
    for name in names.split()
}  # fmt: skip
_BESIDE = frozenset(
    {"upper", "lower", "corner", "and", "to", "the", "at"}
)  # words between named corners that end nothing
_NO_LETTER = re.compile(r"[^a-z0-9]+")
_SUFFIX = re.compile(r"(?:corner|point|coords?|coordinates?)\Z")
LONGEST_NAME = 40  # characters
PHRASE_REACH = 40  # characters before a separator in which the corner's name is looked for
_PHRASE = re.compile(
    r"((?:top|bottom|upper|lower)[ _-]?(?:left|right)(?:[ _-](?:corner|point|coordinates))?)(?:[ ]at)?\s?\Z",
    re.IGNORECASE,
)
_ANOTHER_CORNER = re.compile(
    r"[\[({][^\[\](){}]{3,60}+[\])}][^\[\](){}\n]{0,60}?(?:top|bottom|upper|lower)[ _-]?(?:left|right)\b",
    re.IGNORECASE,
)


def corner_point(name: str) -> tuple[int, int] | None:
    """The slots of x and y of a corner: "top_left" has (0, 1), "bottomRight" (2, 3); None for another name."""
    return _POINTS.get(_SUFFIX.sub("", _bare(name)))


def edge(name: str) -> int | None:
    """The slot of an edge: 0 for "x1", "xmin" or "left", and so on; None for another name."""
    return _EDGES.get(_bare(name))


def side(name: str) -> str | None:
    """What a number of a box by its place and size is: "x", "y", "w" or "h"; None for another name."""
    return _SIZES.get(_bare(name))


def goes_between(word: str) -> bool:
    """Whether a word may be written between two named corners."""
    return edge(word) is not None or corner_point(word) is not None or word.lower() in _BESIDE


def phrase_before(text: str, end: int) -> str | None:
    """The corner that the words before `end` name, for example "top left corner"; None where they name none."""
    found = _PHRASE.search(text, max(0, end - PHRASE_REACH), end)
    return None if found is None else found[1]


def another_follows(text: str, start: int) -> bool:
    """Whether the point in brackets at `start` is followed by the name of another corner."""
    return _ANOTHER_CORNER.match(text, start) is not None


def _bare(name: str) -> str:
    return _NO_LETTER.sub("", name.lower()) if len(name) <= LONGEST_NAME else ""


@dataclass(slots=True)
class Corners:
    """Edges read so far, by slot, with the span of the text that holds them."""

    start: int
    end: int
    edges: dict[int, float] = field(default_factory=dict)
    unit: str = ""
    has_point: bool = False  # a whole corner was named, or a box token opened, so that a box was meant
    from_zero: bool = False  # x0, y0 and then x1, y1

    def slot(self, name: str) -> int | None:
        """The slot of an edge's name beside those read before: after x0 or y0, x1 and y1 are right and bottom."""
        found = edge(name)
        if found is not None and self.from_zero and name.lower() in ("x1", "y1", "x_1", "y_1"):
            return found + 2
        return found

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """Left, top, right and bottom; None where one is still missing."""
        return tuple(self.edges[slot] for slot in range(4)) if len(self.edges) == 4 else None

    @property
    def is_meant(self) -> bool:
        """Whether what is there can only be a part of a box."""
        return self.has_point or len(self.edges) == 3
