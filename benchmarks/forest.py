"""A plot of means with their intervals and seeds, in groups, as an SVG file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import escape

from opengrit.evaluation.metrics import Estimate
from opengrit.reports.plots import ticks

WIDTH, LEFT, RIGHT, LINE, GAP, HEAD = 900, 230, 24, 17, 16, 62
INK, PALE = "#333", "#ddd"


@dataclass(frozen=True, slots=True)
class Mark:
    """A mean of one series, its interval, and the means of its seeds."""

    series: str
    found: Estimate
    seeds: tuple[float, ...]


def forest(
    title: str,
    groups: Sequence[tuple[str, Sequence[Mark]]],
    colours: Mapping[str, str],
    *,
    low: float,
    high: float,
) -> str:
    """The SVG text: a group a row of lines, a line a series in its colour; small dots are seeds. The axis is from low to high."""

    def x(value: float) -> float:
        return LEFT + (min(max(value, low), high) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    shown = [(name, [mark for mark in marks if mark.found.value is not None]) for name, marks in groups]
    shown = [(name, marks) for name, marks in shown if marks]
    height = HEAD + sum(GAP + LINE * len(marks) for _, marks in shown) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="12" fill="{INK}" role="img"><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="20" font-size="14" font-weight="600">{escape(title)}</text>',
        *_legend(
            [name for name in colours if any(m.series == name for _, marks in shown for m in marks)], colours
        ),
    ]
    for tick in ticks(low, high):
        parts.append(f'<path d="M{x(tick):.1f} {HEAD - 6}V{height - 24}" stroke="{PALE}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    y = float(HEAD)
    for name, marks in shown:
        y += GAP
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + LINE * (len(marks) - 1) / 2 + 4:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        for mark in marks:
            parts += _mark(mark, colours[mark.series], y, x)
            y += LINE
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(names: Sequence[str], colours: Mapping[str, str]) -> list[str]:
    parts, left = [], 10.0
    for name in names:
        parts.append(f'<circle cx="{left + 5}" cy="40" r="5" fill="{colours[name]}"/>')
        parts.append(f'<text x="{left + 15}" y="44">{escape(name)}</text>')
        left += 34 + 6.6 * len(name)
    return parts


def _mark(mark: Mark, colour: str, y: float, x: Callable[[float], float]) -> list[str]:
    found = mark.found
    assert found.value is not None
    parts = []
    if found.low is not None and found.high is not None:
        parts.append(
            f'<path d="M{x(found.low):.1f} {y:.1f}H{x(found.high):.1f}" stroke="{colour}" stroke-width="2"/>'
        )
    seeds = mark.seeds if len(mark.seeds) > 1 else ()
    parts += [f'<circle cx="{x(one):.1f}" cy="{y - 4.5:.1f}" r="1.8" fill="{colour}"/>' for one in seeds]
    words = escape(f"{mark.series}: {found.value:.3g}")
    parts.append(
        f'<circle cx="{x(found.value):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"><title>{words}</title></circle>'
    )
    return parts
