"""Numbers as they are written: figures, words, fractions and scales ("two dozen", "4 million"), with their units."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from opengrit.judges.wording import Token, plain, tokens

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
UNITS = {word: value for value, word in enumerate(_SMALL.split())}
TENS = {
    word: 10 * value
    for value, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12, "score": 20, "gross": 144, "pair": 2, "lakh": 10**5, "crore": 10**7,
}  # fmt: skip
SCALES = {**_SCALES, **{f"{word}s": value for word, value in _SCALES.items() if word != "gross"}}
PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    name + ending: value
    for value, name in enumerate(
        ["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], start=3
    )
    for ending in ("", "s")
}
_UNIT_NAMES = {
    "%": "% percent percentage pct",
    "\u00b0": "\u00b0 degree degrees deg",
    "$": "$ dollar dollars usd buck bucks",
    "\u20ac": "\u20ac euro euros eur",
    "\u00a3": "\u00a3 pound-sterling gbp",
    "\u00a5": "\u00a5 yen yuan rmb cny jpy \u5143",
    "cent": "\u00a2 cent cents",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres \u5398\u7c73",
    "dm": "dm decimeter decimeters",
    "m": "m meter meters metre metres \u7c73",
    "km": "km kilometer kilometers kilometre kilometres \u5343\u7c73",
    "in": "inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "mg": "mg milligram milligrams",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms kilo kilos",
    "t": "t ton tons tonne tonnes",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "l": "l liter liters litre litres",
    "ms": "ms millisecond milliseconds",
    "s": "s sec second seconds secs",
    "min": "min minute minutes mins",
    "h": "h hr hour hours hrs",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "k": "k", "rad": "rad radian radians", "hz": "hz hertz", "w": "w watt watts", "v": "v volt volts",
    "px": "px pixel pixels", "mph": "mph", "kmh": "kmh kph", "n": "n newton newtons", "j": "j joule joules",
    "am": "am", "pm": "pm", "bc": "bc bce", "nm": "nm", "bn": "bn", "mb": "mb", "gb": "gb", "c": "celsius", "f": "fahrenheit",
}  # fmt: skip
UNIT = {spelling: name for name, spellings in _UNIT_NAMES.items() for spelling in spellings.split()}
_SHORT = frozenset(
    ["k", "in", "m", "g", "t", "l", "s", "n", "j", "w", "v", "c", "f", "h", "mi", "min", "day"]
)
_CURRENCIES = "$\u20ac\u00a3\u00a5"
_CODES = frozenset(["usd", "eur", "gbp", "rmb", "cny", "jpy"])
_AREAS = {"square": "^2", "sq": "^2", "cubic": "^3"}
_COUNTERS = frozenset(["个", "只", "条", "匹", "人", "名", "辆", "头", "张"])
_LARGEST = 10**30
_NOT_BEFORE_FIGURES = frozenset(
    [
        "+",
        "*",
        "/",
        "^",
        "<",
        ">",
        "~",
        "-",
        "√",
        "\\",
        "_",
        "#",
        "≤",
        "≥",
        "≠",
        "±",
        "minus",
        "negative",
        "point",
    ]
)


class Quantity(NamedTuple):
    """A number with its unit, "" where it has none, and the token after it."""

    value: Fraction
    unit: str
    end: int


def quantity_at(parts: Sequence[Token], start: int) -> Quantity | None:
    """The quantity that begins at a token, as long as it goes; None where none does or where it is not one number."""
    index, sign = start, 1
    currency = ""
    while index < len(parts) and (parts[index].text in "+-" or parts[index].text in ("minus", "negative")):
        if index - start >= 1 or (parts[index].is_word and index + 1 >= len(parts)):
            return None
        sign = 1 if parts[index].text == "+" else -1
        index += 1
    if index < len(parts) and (parts[index].text in _CURRENCIES or parts[index].text in _CODES):
        currency = UNIT[parts[index].text]
        index += 1
    if index >= len(parts) or (parts[index].glued and parts[index].is_number and parts[index - 1].is_word):
        return None
    read = _figures(parts, index) if parts[index].is_number else _spoken(parts, index)
    if read is None:
        return None
    value, index = read
    value, index = _scaled(parts, index, value)
    unit, index = _unit(parts, index)
    if currency and unit and unit != currency:
        return None
    if _is_continued(parts, index) or abs(value) > _LARGEST:
        return None
    return Quantity(sign * value, currency or unit, index)


def quantities(parts: Sequence[Token]) -> list[tuple[int, Quantity]]:
    """The numbers of an answer, with where each begins; a cluster that is not one number has the value of none."""
    found, index = list[tuple[int, Quantity]](), 0
    while index < len(parts):
        quantity = quantity_at(parts, index) if _may_begin(parts, index) else None
        if quantity is None:
            index += 1
            continue
        found.append((index, quantity))
        index = quantity.end
    return found


def _may_begin(parts: Sequence[Token], index: int) -> bool:
    if index == 0:
        return True
    before = parts[index - 1]
    if before.text in _NOT_BEFORE_FIGURES:
        return False
    here = parts[index]
    return not (
        before.text in ".,:"
        and before.glued
        and here.start == before.end
        and here.is_number
        and index > 1
        and parts[index - 2].is_number
    )


def read_quantity(text: str) -> Quantity | None:
    """The quantity that a whole text is, or None: "2", "two dozen", "1/2", "145 degrees", "$5"."""
    parts = [token for token in tokens(plain(text).strip()) if token.text != "\n"]
    while parts and parts[-1].text == ".":
        parts.pop()
    found = quantity_at(parts, 0) if parts else None
    return found if found is not None and found.end == len(parts) else None


def _figures(parts: Sequence[Token], index: int) -> tuple[Fraction, int] | None:
    value = _number(parts[index])
    if value is None:
        return None
    after = index + 1
    if _is_fraction(parts, after):
        bottom = _number(parts[after + 1])
        if not bottom or value.denominator != 1 or bottom.denominator != 1:
            return None
        return value / bottom, after + 2
    # 1 1/2
    if (
        after + 2 < len(parts)
        and parts[after].text.isdigit()
        and not parts[after].glued
        and _is_fraction(parts, after + 1)
        and value.denominator == 1
    ):
        top, bottom = _number(parts[after]), _number(parts[after + 2])
        if top is not None and bottom and 0 < top < bottom:
            return value + top / bottom, after + 3
    return value, after


def _number(token: Token) -> Fraction | None:
    if len(token.text) > 60 or not token.is_number:
        return None
    try:
        return Fraction(token.text if token.text[0] != "." else f"0{token.text}")
    except ValueError:  # a digit of a script that int() does not read
        return None


def _is_fraction(parts: Sequence[Token], slash: int) -> bool:
    return (
        slash + 1 < len(parts)
        and parts[slash].text == "/"
        and parts[slash + 1].text.isdigit()
        and not (slash + 2 < len(parts) and parts[slash + 2].text in "/^")
    )


def _spoken(parts: Sequence[Token], start: int) -> tuple[Fraction, int] | None:
    """A number in words: units, tens, hundreds with "and", decimals after "point", halves and quarters."""
    index, total, group, said = start, 0, 0, False
    text = parts[index].text
    if (
        text in ("a", "an")
        and index + 1 < len(parts)
        and (parts[index + 1].text in _SCALES or parts[index + 1].text in PARTS)
    ):
        if parts[index + 1].text in PARTS:
            return _fraction_of(parts, index + 1, 1)
        group, said, index = 1, True, index + 1
    elif text in ("half", "quarter"):
        return _fraction_of(parts, index, 1)
    last = 10**15  # each part of a number in words is smaller than the one before
    while index < len(parts):
        word = parts[index].text
        if word == "and" and said and index + 1 < len(parts) and last >= 100:
            following = parts[index + 1].text
            if following in UNITS or following in TENS:
                index += 1
                continue
            break
        if word in UNITS and UNITS[word] < last and last not in range(1, 20):
            if last == 20 and UNITS[word] > 9:
                return None
            group, last = group + UNITS[word], max(UNITS[word], 1)
        elif word in TENS and last >= 100:
            group, last = group + TENS[word], 20
        elif word == "hundred" and said and 0 < group < 100:
            group, last = group * 100, 100
        elif word in ("thousand", "million", "billion", "trillion") and said and group:
            if total and SCALES[word] >= total:
                return None
            total, group, last = total + group * SCALES[word], 0, 1000
        else:
            break
        said, index = True, index + 1
    if not said and text == "single" and start and parts[start - 1].text in ("a", "one"):
        return Fraction(1), start + 1
    if not said:
        return None
    value = Fraction(total + group)
    if index < len(parts) and parts[index].text == "point":
        return _decimals(parts, index + 1, value)
    if index < len(parts) and parts[index].text in PARTS and parts[index].text != "seconds":
        return _fraction_of(parts, index, int(value))
    if [token.text for token in parts[index : index + 2]] == ["and", "a"] and index + 2 < len(parts):
        part = PARTS.get(parts[index + 2].text)
        if part is not None:
            return value + Fraction(1, part), index + 3
    return value, index


def _decimals(parts: Sequence[Token], index: int, value: Fraction) -> tuple[Fraction, int] | None:
    start = index
    while index < len(parts) and index - start < 20 and UNITS.get(parts[index].text, 10) < 10:
        index += 1
        value += Fraction(UNITS[parts[index - 1].text], 10 ** (index - start))
    return None if index == start else (value, index)


def _fraction_of(parts: Sequence[Token], index: int, count: int) -> tuple[Fraction, int] | None:
    value = Fraction(count, PARTS[parts[index].text])
    following = [token.text for token in parts[index + 1 : index + 3]]
    if following[:1] == ["a"] and following[1:] == ["dozen"]:
        return value * 12, index + 3
    if following[:1] == ["dozen"]:
        return value * 12, index + 2
    if following[:1] == ["of"] or following[:1] == ["a"] or following[:1] == ["an"]:
        return None  # half of what
    return value, index + 1


def _scaled(parts: Sequence[Token], index: int, value: Fraction) -> tuple[Fraction, int]:
    """The value times the scale words that follow: 4 million, two dozen, 3 pairs."""
    steps = 0
    while index < len(parts) and parts[index].text in SCALES and steps < 3 and not parts[index].glued:
        value, index, steps = value * SCALES[parts[index].text], index + 1, steps + 1
    return value, index


def _unit(parts: Sequence[Token], index: int) -> tuple[str, int]:
    if index >= len(parts):
        return "", index
    text = parts[index].text
    if text == "per" and index + 1 < len(parts) and parts[index + 1].text == "cent":
        return "%", index + 2
    if text in _COUNTERS:
        return "", index + 1
    power = ""
    if text in _AREAS and index + 1 < len(parts) and parts[index + 1].text in UNIT:
        power, index = _AREAS[text], index + 1
        text = parts[index].text
    unit = UNIT.get(text)
    if unit is None or (
        parts[index].is_word and unit in _SHORT and text == unit and not _is_short(parts, index)
    ):
        return "", index
    index += 1
    if unit == "\u00b0" and index < len(parts) and parts[index].text in ("c", "f", "celsius", "fahrenheit"):
        return parts[index].text[0], index + 1
    if (
        index < len(parts)
        and parts[index].text == "^"
        and index + 1 < len(parts)
        and parts[index + 1].text in "23"
    ):
        return unit + "^" + parts[index + 1].text, index + 2
    if (
        index < len(parts)
        and parts[index].glued
        and parts[index].text in ("2", "3")
        and unit in ("mm", "cm", "m", "km", "ft")
    ):
        return unit + "^" + parts[index].text, index + 1
    if index + 1 < len(parts) and (parts[index].text == "/" or parts[index].text == "per"):
        below = UNIT.get(parts[index + 1].text)
        if below is not None:
            return f"{unit}{power}/{below}", index + 2
    return unit + power, index


def _is_short(parts: Sequence[Token], index: int) -> bool:
    """Whether a short word such as "m" or "in" is meant as a unit: "5m", "5 m"; not "2 in the picture"."""
    return parts[index].text not in ("in", "min", "mi") or index + 1 >= len(parts) or parts[index + 1].is_mark


_CONTINUES = frozenset("+-*/^=<>~%\u00b0\u2264\u2265\u221a\\_#@|&'\ufffd" + _CURRENCIES)


def _is_continued(parts: Sequence[Token], index: int) -> bool:
    """Whether a number goes on into something else: 10:30, 2-3, 4^2, 2nd, x1, 2,5."""
    if index >= len(parts):
        return False
    here = parts[index]
    if here.text in _CONTINUES:
        return True
    if here.glued and not here.is_mark:
        return True
    following = parts[index + 1] if index + 1 < len(parts) else None
    return (
        here.text in ":.,!?;"
        and here.glued
        and following is not None
        and following.is_number
        and following.start == here.end
    )
