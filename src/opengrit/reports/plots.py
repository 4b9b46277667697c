"""Plots as inline SVG: lines over steps, and values with their intervals. Readable in colour and in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from opengrit.evaluation.metrics import Estimate

_WIDTH, _HEIGHT = 460, 262
_LEFT, _TOP, _BOTTOM = 54, 12, 42
_FLOOR = _HEIGHT - _BOTTOM
_LABEL_LINE = 14  # pixels between direct labels
_SMOOTH_FROM = 40  # points from which a trailing mean is drawn over the raw line
_MARKED_POINTS = 8  # markers on a line, about

Points = Sequence[tuple[float, float | None]]


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
    """A named value with the ends of its interval; None where it is not measured.

    Rows of one `series` (0, 1, ...) look alike: a run has its colour in every plot of a page. None is a control, which is grey.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    series: int | None = 0

    @classmethod
    def of(cls, name: str, found: Estimate | None, *, series: int | None = 0) -> Interval:
        """An estimate by name; None is not measured."""
        if found is None:
            return cls(name, None, series=series)
        return cls(name, found.value, found.low, found.high, series)


@dataclass(frozen=True, slots=True)
class Dot:
    """A named point of a scatter; dots of one `series` (0, 1, ...) look alike."""

    name: str
    x: float
    y: float
    series: int = 0


@dataclass(frozen=True, slots=True)
class _Style:
    """How a series looks, so that it is told apart without colour too."""

    stroke: str
    dash: str
    marker: str


# Okabe and Ito's palette in the order that keeps neighbours apart; CSS replaces "ink" by the text's colour.
_STYLES = (
    _Style("var(--blue, #0072B2)", "", "circle"),
    _Style("#D55E00", "7 4", "square"),
    _Style("#009E73", "2 3", "triangle"),
    _Style("#CC79A7", "10 3 2 3", "diamond"),
    _Style("#E69F00", "5 2", "cross"),
    _Style("#56B4E9", "1 4", "circle"),
    _Style("var(--ink, #000)", "12 4", "square"),
)
_CONTROL = _Style("var(--soft, #5c6670)", "3 3", "diamond")


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
        return _FLOOR - (value - self.y_low) / (self.y_high - self.y_low) * (_FLOOR - _TOP)


def line_plot(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> Markup:
    """A figure with axes, one line a series, direct labels and, from two series on, a legend.

    From 40 points on the raw line is pale and its trailing mean over a twentieth of the points is drawn over
    it; the axis says so. At most 7 series are told apart. Without any value the figure says so in words.
    """
    measured = [s for s in series if _finite(s.points)]
    if not measured:
        return _empty_figure(title)
    wide = max(len(s.label or s.name) for s in measured) if len(measured) > 1 else 0
    axes = _axes(measured, right=_WIDTH - 14.0 - min(wide, 15) * 6.6)
    window = _window(measured)
    parts = [_grid(axes, x_label + (f" (bold: mean of {window})" if window > 1 else ""), y_label)]
    parts += [_line(s, _style(i), axes) for i, s in enumerate(measured)]
    legend = ""
    if len(measured) > 1:
        parts.append(_end_labels(measured, axes))
        legend = _legend([(s.name, _swatch(_style(i), marked=True)) for i, s in enumerate(measured)])
    description = "; ".join(_describe(s) for s in measured)
    return _figure(title, _HEIGHT, description, parts, legend)


def interval_plot(
    rows: Sequence[Interval], *, title: str, x_label: str, low: float = 0.0, high: float = 1.0
) -> Markup:
    """A figure with one row a value: a marker at the value, a bar over its interval, its figure beside it."""
    left, right, step = 8.0, float(_WIDTH - 62), 40
    height = step * len(rows) + 42
    low = min([low, *(r.low for r in rows if r.low is not None)])
    high = max([high, *(r.high for r in rows if r.high is not None)])

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = []
    for tick in ticks(low, high):
        parts.append(_tag("line", class_="grid", x1=x(tick), x2=x(tick), y1=6, y2=height - 34))
        parts.append(_tag("text", _tick_label(tick), x=x(tick), y=height - 19, text_anchor="middle"))
    parts.append(
        _tag("text", x_label, class_="axis", x=(left + right) / 2, y=height - 4, text_anchor="middle")
    )
    for i, row in enumerate(rows):
        y, style = 30 + step * i, _CONTROL if row.series is None else _style(row.series)
        parts.append(_tag("text", _short(row.name, 52), class_="name", x=left, y=y - 10))
        if row.value is None:
            parts.append(_tag("text", "- not measured", x=left, y=y + 7))
            continue
        if row.low is not None and row.high is not None:
            start, end = _n(x(row.low)), _n(x(row.high))
            bar = f"M{start} {y + 3}H{end}M{start} {y - 2}v10M{end} {y - 2}v10"
            parts.append(_tag("path", d=bar, stroke=style.stroke, stroke_width=2.5, fill="none"))
        parts.append(_marker(style, x(row.value), y + 3, 5.5))
        parts.append(_tag("text", f"{row.value:.2f}", class_="value", x=right + 12, y=y + 8))
    description = "; ".join(
        f"{r.name} " + ("not measured" if r.value is None else f"{r.value:.2f}") for r in rows
    )
    return _figure(title, height, description, parts)


def histogram(
    values: Sequence[float],
    lines: Sequence[tuple[str, float]],
    *,
    title: str,
    x_label: str,
    bins: int = 20,
    series: int = 0,
) -> Markup:
    """A figure of how many values, all in [0, 1], fall in each of `bins` equal parts, with named upright lines.

    Bars and the first line, their mean, have the colour of `series`; the other lines are controls. The last part holds 1 itself. Without any value the figure says so in words.
    """
    if not values:
        return _empty_figure(title)
    counts = [0] * bins
    for value in values:
        counts[min(int(value * bins), bins - 1)] += 1
    axes = _Axes(0.0, 1.0, *_round_outward(0.0, float(max(counts))), _WIDTH - 14.0)
    parts = [_grid(axes, x_label, "answers", fractions=True)]
    for i, count in enumerate(counts):
        left, right, top = axes.x(i / bins) + 0.7, axes.x((i + 1) / bins) - 0.7, axes.y(count)
        parts.append(
            _tag(
                "rect",
                class_="bar",
                fill=_style(series).stroke,
                x=left,
                y=top,
                width=right - left,
                height=_FLOOR - top,
            )
        )
    items = []
    for i, (name, value) in enumerate(lines):
        style = _Style((_style(series) if i == 0 else _CONTROL).stroke, _style(i).dash, "")
        upright = f"M{_n(axes.x(value))} {_TOP}V{_FLOOR}"
        parts.append(_tag("path", class_="line", d=upright, stroke=style.stroke, stroke_dasharray=style.dash))
        items.append((f"{name} {value:.2f}", _swatch(style)))
    description = f"{len(values)} answers, {counts[0]} below {1 / bins:g}; " + "; ".join(
        name for name, _ in items
    )
    return _figure(title, _HEIGHT, description, parts, _legend(items))


def scatter(
    dots: Sequence[Dot], *, title: str, x_label: str, y_label: str, names: Sequence[str] = ()
) -> Markup:
    """A figure with a marker a dot on axes that hold them all; `names` are those of the series, for the legend."""
    if not dots:
        return Markup("")
    axes = _Axes(*_padded([d.x for d in dots]), *_padded([d.y for d in dots]), right=_WIDTH - 14.0)
    parts = [_grid(axes, x_label, y_label)]
    for dot in dots:
        name = _tag("title", f"{dot.name}: {dot.x:.3f}, {dot.y:.3f}")
        parts.append(_tag("g", name + _marker(_style(dot.series), axes.x(dot.x), axes.y(dot.y), 5.0)))
    legend = _legend([(name, _marker(_style(i), 7, 6, 4.4)) for i, name in enumerate(names)], width=14)
    description = "; ".join(f"{d.name} {d.x:.2f}, {d.y:.2f}" for d in dots)
    return _figure(title, _HEIGHT, description, parts, legend)


# -- numbers -----------------------------------------------------------------------------------------------------------


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers from `low` to `high` (1, 2 or 5 times a power of ten apart); low < high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def trailing_mean(points: Points, window: int) -> tuple[tuple[float, float | None], ...]:
    """Each value replaced by the mean of the last `window` points that have one; None stays None."""
    smooth: list[tuple[float, float | None]] = []
    for i, point in enumerate(points):
        past = [y for _, y in _finite(points[max(0, i + 1 - window) : i + 1])]
        smooth.append((point[0], sum(past) / len(past) if _finite([point]) else None))
    return tuple(smooth)


def _finite(points: Points) -> list[tuple[float, float]]:
    """The points that have a value."""
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def _axes(series: Sequence[Series], *, right: float) -> _Axes:
    points = [point for s in series for point in _finite(s.points)]
    steps, values = [x for x, _ in points], [y for _, y in points]
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:  # shares and rewards in [0, 1] are comparable between plots on one scale
        low, high = 0.0, 1.0
    elif 0 <= low < high / 2:
        low = 0.0
    return _Axes(
        *_with_width(min(steps), max(steps), least=0.0),
        *_round_outward(*_with_width(low, high, least=1e-9)),
        right,
    )


def _with_width(low: float, high: float, *, least: float) -> tuple[float, float]:
    """Ends of an axis that lie apart."""
    return (low, high) if high - low > least else (low - 0.5, high + 0.5)


def _round_outward(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis moved out to the next tick where they lie beyond the last one."""
    marked = ticks(low, high)
    step = marked[1] - marked[0]
    return (
        marked[0] - step if low < marked[0] - 1e-12 else low,
        marked[-1] + step if high > marked[-1] + 1e-12 else high,
    )


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis in [0, 1] that leave room around the values."""
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), 0.02)
    return max(0.0, low - room), min(1.0, high + room)


def _window(series: Sequence[Series]) -> int:
    longest = max(len(s.points) for s in series)
    return round(longest / 20) if longest >= _SMOOTH_FROM else 1


def _smoothed(series: Series) -> Points:
    """The points of the bold line."""
    return trailing_mean(series.points, _window([series]))


# -- parts of a figure -------------------------------------------------------------------------------------------------


def _tag(name: str, content: str | None = None, **attributes: object) -> Markup:
    """An element with these attributes: `text_anchor` is text-anchor, `class_` class, a float has one decimal."""
    written = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), _n(value) if isinstance(value, float) else value
        )
        for key, value in attributes.items()
    )
    if content is None:
        return Markup("<{}{}/>").format(name, written)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, content)


def _figure(title: str, height: int, description: str, parts: Sequence[Markup], legend: str = "") -> Markup:
    drawing = _tag(
        "svg",
        Markup("").join(parts),
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        aria_label=f"{title}: {description}",
    )
    return _tag("figure", _tag("figcaption", title) + drawing + legend, class_="plot")


def _empty_figure(title: str) -> Markup:
    why = _tag("p", "- not measured", class_="why")
    return _tag("figure", _tag("figcaption", title) + why, class_="plot")


def _grid(axes: _Axes, x_label: str, y_label: str, *, fractions: bool = False) -> Markup:
    """Axes with their ticks; steps have whole ones alone, unless the x axis is of `fractions`."""
    parts = []
    for value in ticks(axes.y_low, axes.y_high):
        y = axes.y(value)
        parts.append(_tag("line", class_="grid", x1=_LEFT, x2=axes.right, y1=y, y2=y))
        parts.append(_tag("text", _tick_label(value), x=_LEFT - 6, y=y + 4, text_anchor="end"))
    for step in ticks(axes.x_low, axes.x_high):
        if fractions or axes.x_high - axes.x_low < 1 or step == int(step):
            x = axes.x(step)
            parts.append(_tag("line", class_="grid", x1=x, x2=x, y1=_FLOOR, y2=_FLOOR + 4))
            parts.append(_tag("text", _tick_label(step), x=x, y=_FLOOR + 17, text_anchor="middle"))
    parts.append(_tag("line", class_="base", x1=_LEFT, x2=axes.right, y1=_FLOOR, y2=_FLOOR))
    middle = (_LEFT + axes.right) / 2
    parts.append(_tag("text", x_label, class_="axis", x=middle, y=_HEIGHT - 6, text_anchor="middle"))
    turned = f"translate(11 {_n((_TOP + _FLOOR) / 2)}) rotate(-90)"
    parts.append(_tag("text", y_label, class_="axis", transform=turned, text_anchor="middle"))
    return Markup("").join(parts)


def _line(series: Series, style: _Style, axes: _Axes) -> Markup:
    parts, bold = [], _smoothed(series)
    if _window([series]) > 1:
        parts.append(_tag("path", class_="raw", d=_path(series.points, axes), stroke=style.stroke))
    parts.append(
        _tag("path", class_="line", d=_path(bold, axes), stroke=style.stroke, stroke_dasharray=style.dash)
    )
    measured = _finite(bold)
    every = max(1, round(len(measured) / _MARKED_POINTS))
    parts += [_marker(style, axes.x(x), axes.y(y), 3.4) for x, y in measured[::-1][::every]]
    return Markup("").join(parts)


def _path(points: Points, axes: _Axes) -> str:
    """The path's commands; the pen is lifted over a gap."""
    commands, down = [], False
    for x, y in points:
        if y is None or not math.isfinite(y):
            down = False
            continue
        commands.append(f"{'L' if down else 'M'}{_n(axes.x(x))} {_n(axes.y(y))}")
        down = True
    return "".join(commands)


def _marker(style: _Style, x: float, y: float, r: float) -> Markup:
    paths = {
        "circle": f"M{_n(x - r)} {_n(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0",
        "square": f"M{_n(x - r)} {_n(y - r)}h{2 * r}v{2 * r}h{-2 * r}z",
        "triangle": f"M{_n(x)} {_n(y - r * 1.2)}l{r * 1.2} {r * 2.1}h{-r * 2.4}z",
        "diamond": f"M{_n(x)} {_n(y - r * 1.3)}l{r * 1.3} {r * 1.3}l{-r * 1.3} {r * 1.3}l{-r * 1.3} {-r * 1.3}z",
        "cross": f"M{_n(x - r)} {_n(y - r)}l{2 * r} {2 * r}m{-2 * r} 0l{2 * r} {-2 * r}",
    }
    fill, width = ("none", 2) if style.marker == "cross" else (style.stroke, 0)
    return _tag("path", d=paths[style.marker], fill=fill, stroke=style.stroke, stroke_width=width)


def _end_labels(series: Sequence[Series], axes: _Axes) -> Markup:
    """The names at the right ends of the lines, moved apart where lines end close together."""
    ends = sorted((axes.y(_finite(_smoothed(s))[-1][1]) + 4, s.label or s.name) for s in series)
    heights = [height for height, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LABEL_LINE)
    ceiling = float(_FLOOR + 4)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - _LABEL_LINE
    return Markup("").join(
        _tag("text", _short(name, 15), class_="end", x=axes.right + 9, y=y)
        for y, (_, name) in zip(heights, ends, strict=True)
    )


def _legend(items: Sequence[tuple[str, Markup]], *, width: int = 34) -> Markup:
    """A list of names, each behind its drawing of 12 units in height."""
    lines = []
    for name, drawing in items:
        box = f"0 0 {width} 12"
        lines.append(
            _tag("li", _tag("svg", drawing, viewBox=box, width=width, height=12, aria_hidden="true") + name)
        )
    return _tag("ul", Markup("").join(lines), class_="legend")


def _swatch(style: _Style, *, marked: bool = False) -> Markup:
    """A piece of a line for the legend."""
    line = _tag("path", d="M1 6H33", class_="line", stroke=style.stroke, stroke_dasharray=style.dash)
    return line + (_marker(style, 17, 6, 3.4) if marked else "")


def _style(index: int) -> _Style:
    return _STYLES[index % len(_STYLES)]


def _describe(series: Series) -> str:
    values = [y for _, y in _finite(series.points)]
    return f"{series.name} from {values[0]:.3g} to {values[-1]:.3g}"


def _tick_label(value: float) -> str:
    """A number as an axis writes it: at most four significant figures, thousands as k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.4g}"


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 2] + ".."


def _n(value: float) -> str:
    """A coordinate with one decimal."""
    return f"{value:.1f}"
