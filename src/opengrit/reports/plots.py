"""Plots as inline SVG: lines over steps, and values with their intervals. Readable in colour and in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

# Okabe and Ito's palette in the order that keeps neighbours apart; CSS replaces "ink" by the text's colour.
_STROKES = ("var(--blue, #0072B2)", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "var(--ink, #000)")
_DASHES = ("", "7 4", "2 3", "10 3 2 3", "5 2", "1 4", "12 4")
_MARKERS = ("circle", "square", "triangle", "diamond", "cross", "circle", "square")
_WIDTH, _HEIGHT = 460, 262
_LEFT, _TOP, _BOTTOM = 54, 12, 42
_LABEL_LINE = 14  # pixels between direct labels
_SMOOTH_FROM = 40  # points from which a trailing mean is drawn over the raw line
_MARKED_POINTS = 8  # markers on a line, about


@dataclass(frozen=True, slots=True)
class Series:
    """A named line: (step, value) in rising order of step; a value of None is a gap, not a zero.

    `label` is the shorter name that stands at the line's end; the name itself where there is none.
    """

    name: str
    points: tuple[tuple[float, float | None], ...]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A named value with the ends of its interval; None where it is not measured."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class _Axes:
    """Maps steps and values to the drawing's units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    right: float

    def x(self, step: float) -> float:
        return _LEFT + (step - self.x_low) / (self.x_high - self.x_low) * (self.right - _LEFT)

    def y(self, value: float) -> float:
        floor = _HEIGHT - _BOTTOM
        return floor - (value - self.y_low) / (self.y_high - self.y_low) * (floor - _TOP)


def line_plot(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> Markup:
    """A figure with axes, one line a series, direct labels and, from two series on, a legend.

    From 40 points on the raw line is pale and its trailing mean over a twentieth of the points is drawn over
    it; the axis says so. At most 7 series are told apart. Without any value the figure says so in words.
    """
    measured = [s for s in series if any(_finite(y) for _, y in s.points)]
    if not measured:
        return Markup(
            '<figure class="plot"><figcaption>{}</figcaption><p class="why">&ndash; not measured</p></figure>'
        ).format(title)
    wide = max(len(s.label or s.name) for s in measured) if len(measured) > 1 else 0
    axes = _axes(measured, right=_WIDTH - (14 + min(wide, 15) * 6.6 if wide else 14))
    window = _window(measured)
    parts = [_grid(axes, x_label + (f" (bold: mean of {window})" if window > 1 else ""), y_label)]
    parts += [_line(s, i, axes) for i, s in enumerate(measured)]
    if len(measured) > 1:
        parts.append(_end_labels(measured, axes))
    spoken = f"{title}: " + "; ".join(_spoken(s) for s in measured)
    return Markup(
        '<figure class="plot"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}</figure>'
    ).format(title, _WIDTH, _HEIGHT, spoken, Markup("").join(parts), _legend(measured))


def interval_plot(
    rows: Sequence[Interval], *, title: str, x_label: str, low: float = 0.0, high: float = 1.0
) -> Markup:
    """A figure with one row a value: a mark at the value, a bar over its interval, its figure beside it."""
    left, right, step = 8.0, float(_WIDTH - 62), 40
    height = step * len(rows) + 42
    low = min([low, *(r.low for r in rows if r.low is not None)])
    high = max([high, *(r.high for r in rows if r.high is not None)])

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = []
    for tick in ticks(low, high):
        parts.append(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="6" y2="{1}"/>').format(_n(x(tick)), height - 34)
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                _n(x(tick)), height - 19, figure(tick)
            )
        )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _n((left + right) / 2), height - 4, x_label
        )
    )
    for i, row in enumerate(rows):
        y = 30 + step * i
        parts.append(
            Markup('<text class="name" x="{}" y="{}">{}</text>').format(
                _n(left), y - 10, _short(row.name, 52)
            )
        )
        if row.value is None:
            parts.append(Markup('<text x="{}" y="{}">&#8211; not measured</text>').format(_n(left), y + 7))
            continue
        colour = _STROKES[i % len(_STROKES)]
        if row.low is not None and row.high is not None:
            parts.append(
                Markup(
                    '<path d="M{0} {2}H{1}M{0} {3}v10M{1} {3}v10" stroke="{4}" stroke-width="2.5" fill="none"/>'
                ).format(_n(x(row.low)), _n(x(row.high)), y + 3, y - 2, colour)
            )
        parts.append(_marker(_MARKERS[i % len(_MARKERS)], x(row.value), y + 3, colour, 5.5))
        parts.append(
            Markup('<text class="value" x="{}" y="{}">{}</text>').format(
                _n(right + 12), y + 8, f"{row.value:.2f}"
            )
        )
    spoken = "; ".join(f"{r.name} " + ("not measured" if r.value is None else f"{r.value:.2f}") for r in rows)
    return Markup(
        '<figure class="plot"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {}">{}</svg></figure>'
    ).format(title, _WIDTH, height, title, spoken, Markup("").join(parts))


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers from `low` to `high` (1, 2 or 5 times a power of ten apart); low < high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def figure(value: float) -> str:
    """A number as an axis writes it: at most four significant figures, thousands as k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def trailing_mean(
    points: Sequence[tuple[float, float | None]], window: int
) -> tuple[tuple[float, float | None], ...]:
    """Each value replaced by the mean of the last `window` points that have one; None stays None."""
    smooth: list[tuple[float, float | None]] = []
    for i, (step, value) in enumerate(points):
        past = [y for _, y in points[max(0, i + 1 - window) : i + 1] if y is not None and math.isfinite(y)]
        smooth.append((step, sum(past) / len(past) if _finite(value) else None))
    return tuple(smooth)


def _axes(series: Sequence[Series], *, right: float) -> _Axes:
    steps = [x for s in series for x, y in s.points if _finite(y)]
    values = [y for s in series for _, y in s.points if y is not None and math.isfinite(y)]
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:  # shares and rewards in [0, 1] are comparable between plots on one scale
        low, high = 0.0, 1.0
    elif 0 <= low < high / 2:
        low = 0.0
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    marks = ticks(low, high)
    if high > marks[-1] + 1e-12:
        high = marks[-1] + (marks[1] - marks[0])
    if low < marks[0] - 1e-12:
        low = marks[0] - (marks[1] - marks[0])
    x_low, x_high = min(steps), max(steps)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    return _Axes(x_low, x_high, low, high, right)


def _grid(axes: _Axes, x_label: str, y_label: str) -> Markup:
    floor, parts = _HEIGHT - _BOTTOM, []
    for value in ticks(axes.y_low, axes.y_high):
        y = axes.y(value)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                _LEFT, _n(axes.right), y=_n(y)
            )
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 6, _n(y + 4), figure(value)
            )
        )
    steps = [t for t in ticks(axes.x_low, axes.x_high) if axes.x_high - axes.x_low < 1 or t == int(t)]
    for step in steps:
        x = _n(axes.x(step))
        parts.append(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x, floor, floor + 4)
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x, floor + 17, figure(step))
        )
    middle = _n((_LEFT + axes.right) / 2)
    parts.append(
        Markup('<line class="base" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
            _LEFT, _n(axes.right), y=floor
        )
    )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            middle, _HEIGHT - 6, x_label
        )
    )
    height = (_TOP + floor) / 2
    parts.append(
        Markup(
            '<text class="axis" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>'
        ).format(_n(height), y_label)
    )
    return Markup("").join(parts)


def _line(series: Series, index: int, axes: _Axes) -> Markup:
    colour, dash = _STROKES[index % len(_STROKES)], _DASHES[index % len(_DASHES)]
    window = _window([series])
    bold = trailing_mean(series.points, window) if window > 1 else series.points
    parts = []
    if window > 1:
        parts.append(
            Markup('<path class="raw" d="{}" stroke="{}"/>').format(_path(series.points, axes), colour)
        )
    parts.append(
        Markup('<path class="line" d="{}" stroke="{}" stroke-dasharray="{}"/>').format(
            _path(bold, axes), colour, dash
        )
    )
    seen = [(x, y) for x, y in bold if y is not None and math.isfinite(y)]
    every = max(1, round(len(seen) / _MARKED_POINTS))
    for x, y in seen[::-1][::every]:
        parts.append(_marker(_MARKERS[index % len(_MARKERS)], axes.x(x), axes.y(y), colour, 3.4))
    return Markup("").join(parts)


def _path(points: Sequence[tuple[float, float | None]], axes: _Axes) -> str:
    """The path's commands; the pen is lifted over a gap."""
    commands, down = [], False
    for x, y in points:
        if y is None or not math.isfinite(y):
            down = False
            continue
        commands.append(f"{'L' if down else 'M'}{_n(axes.x(x))} {_n(axes.y(y))}")
        down = True
    return "".join(commands)


def _marker(shape: str, x: float, y: float, colour: str, r: float) -> Markup:
    paths = {
        "circle": f"M{_n(x - r)} {_n(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0",
        "square": f"M{_n(x - r)} {_n(y - r)}h{2 * r}v{2 * r}h{-2 * r}z",
        "triangle": f"M{_n(x)} {_n(y - r * 1.2)}l{r * 1.2} {r * 2.1}h{-r * 2.4}z",
        "diamond": f"M{_n(x)} {_n(y - r * 1.3)}l{r * 1.3} {r * 1.3}l{-r * 1.3} {r * 1.3}l{-r * 1.3} {-r * 1.3}z",
        "cross": f"M{_n(x - r)} {_n(y - r)}l{2 * r} {2 * r}m{-2 * r} 0l{2 * r} {-2 * r}",
    }
    return Markup('<path d="{}" fill="{}" stroke="{}" stroke-width="{}"/>').format(
        paths[shape], "none" if shape == "cross" else colour, colour, 2 if shape == "cross" else 0
    )


def _end_labels(series: Sequence[Series], axes: _Axes) -> Markup:
    """The names at the right ends of the lines, moved apart where lines end close together."""
    ends = sorted((_last(s, axes) + 4, s.label or s.name) for s in series)
    heights = [height for height, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LABEL_LINE)
    ceiling = float(_HEIGHT - _BOTTOM + 4)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - _LABEL_LINE
    return Markup("").join(
        Markup('<text class="end" x="{}" y="{}">{}</text>').format(
            _n(axes.right + 9), _n(y), _short(name, 15)
        )
        for y, (_, name) in zip(heights, ends, strict=True)
    )


def _last(series: Series, axes: _Axes) -> float:
    """The height at which a line ends as drawn."""
    drawn = trailing_mean(series.points, _window([series]))
    return axes.y(next(y for _, y in reversed(drawn) if y is not None and math.isfinite(y)))


def _legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup("")
    items = []
    for i, s in enumerate(series):
        colour, dash = _STROKES[i % len(_STROKES)], _DASHES[i % len(_DASHES)]
        swatch = Markup(
            '<svg viewBox="0 0 34 12" width="34" height="12" aria-hidden="true"><path d="M1 6H33" class="line" stroke="{}" stroke-dasharray="{}"/>{}</svg>'
        )
        items.append(
            Markup("<li>{}{}</li>").format(
                swatch.format(colour, dash, _marker(_MARKERS[i % len(_MARKERS)], 17, 6, colour, 3.4)), s.name
            )
        )
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _window(series: Sequence[Series]) -> int:
    longest = max(len(s.points) for s in series)
    return round(longest / 20) if longest >= _SMOOTH_FROM else 1


def _spoken(series: Series) -> str:
    values = [y for _, y in series.points if y is not None and math.isfinite(y)]
    return f"{series.name} from {values[0]:.3g} to {values[-1]:.3g}"


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 2] + ".."


def _n(value: float) -> str:
    """A coordinate with one decimal."""
    return f"{value:.1f}"


@dataclass(frozen=True, slots=True)
class Dot:
    """A named point of a scatter; dots of one `series` (0, 1, ...) look alike."""

    name: str
    x: float
    y: float
    series: int = 0


def histogram(
    values: Sequence[float], lines: Sequence[tuple[str, float]], *, title: str, x_label: str, bins: int = 20
) -> Markup:
    """A figure of how many values, all in [0, 1], fall in each of `bins` equal parts, with named upright lines.

    The last part holds 1 itself. Without any value the figure says so in words.
    """
    if not values:
        return Markup(
            '<figure class="plot"><figcaption>{}</figcaption><p class="why">&ndash; not measured</p></figure>'
        ).format(title)
    counts = [0] * bins
    for value in values:
        counts[min(int(value * bins), bins - 1)] += 1
    axes = _Axes(0.0, 1.0, 0.0, _round_above(max(counts)), _WIDTH - 14)
    floor, parts = _HEIGHT - _BOTTOM, [_grid(axes, x_label, "answers")]
    for i, count in enumerate(counts):
        left, right = axes.x(i / bins) + 0.7, axes.x((i + 1) / bins) - 0.7
        parts.append(
            Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>').format(
                _n(left), _n(axes.y(count)), _n(right - left), _n(floor - axes.y(count))
            )
        )
    for i, (_, value) in enumerate(lines):
        colour, dash = _STROKES[(i + 1) % len(_STROKES)], _DASHES[i % len(_DASHES)]
        parts.append(
            Markup('<path class="line" d="M{} {}V{}" stroke="{}" stroke-dasharray="{}"/>').format(
                _n(axes.x(value)), _TOP, floor, colour, dash
            )
        )
    items = [
        Markup(
            '<li><svg viewBox="0 0 34 12" width="34" height="12" aria-hidden="true"><path d="M1 6H33" class="line" '
            'stroke="{}" stroke-dasharray="{}"/></svg>{} {}</li>'
        ).format(_STROKES[(i + 1) % len(_STROKES)], _DASHES[i % len(_DASHES)], name, f"{value:.2f}")
        for i, (name, value) in enumerate(lines)
    ]
    spoken = f"{title}: {len(values)} answers, {counts[0]} below {1 / bins:g}; " + "; ".join(
        f"{name} {value:.2f}" for name, value in lines
    )
    return Markup(
        '<figure class="plot"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg><ul class="legend">{}</ul></figure>'
    ).format(title, _WIDTH, _HEIGHT, spoken, Markup("").join(parts), Markup("").join(items))


def scatter(
    dots: Sequence[Dot], *, title: str, x_label: str, y_label: str, names: Sequence[str] = ()
) -> Markup:
    """A figure with a mark a dot on axes that hold them all; `names` are those of the series, for the legend."""
    if not dots:
        return Markup("")
    axes = _Axes(*_span([d.x for d in dots]), *_span([d.y for d in dots]), right=_WIDTH - 14)
    parts = [_grid(axes, x_label, y_label)]
    for dot in dots:
        place = axes.x(dot.x), axes.y(dot.y)
        mark = _marker(
            _MARKERS[dot.series % len(_MARKERS)], *place, _STROKES[dot.series % len(_STROKES)], 5.0
        )
        parts.append(
            Markup("<g><title>{}: {:.3f}, {:.3f}</title>{}</g>").format(dot.name, dot.x, dot.y, mark)
        )
    items = [
        Markup(
            '<li><svg viewBox="0 0 14 12" width="14" height="12" aria-hidden="true">{}</svg>{}</li>'
        ).format(_marker(_MARKERS[i % len(_MARKERS)], 7, 6, _STROKES[i % len(_STROKES)], 4.4), name)
        for i, name in enumerate(names)
    ]
    spoken = "; ".join(f"{d.name} {d.x:.2f}, {d.y:.2f}" for d in dots)
    return Markup(
        '<figure class="plot"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {}">{}</svg><ul class="legend">{}</ul></figure>'
    ).format(title, _WIDTH, _HEIGHT, title, spoken, Markup("").join(parts), Markup("").join(items))


def _round_above(count: int) -> float:
    """The end of a count's axis."""
    marks = ticks(0.0, float(max(count, 1)))
    return marks[-1] if marks[-1] >= count else marks[-1] + marks[1] - marks[0]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis in [0, 1] that leave room around the values."""
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), 0.02)
    return max(0.0, low - room), min(1.0, high + room)
