"""The files beside docs/results.md, read; and their figures in words and in tables of Markdown."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.data.fingerprint import fingerprint
from opengrit.evaluation.metrics import Estimate
from opengrit.experiments.sentences import ascii_minus
from opengrit.reports.tables import Unit, signed, written

ALL_SETS, MADE_WITH, POOLED = "all sets", "made-with", "pooled"
NOTHING = Estimate(None, 0, None, None)
SHARE, OVERLAP = Unit.SHARE, Unit.OVERLAP
UNITS = {
    "grounding_iou": OVERLAP,
    "box_f1": OVERLAP,
    "whole_picture_iou": OVERLAP,
    "random_boxes_iou": OVERLAP,
}


@dataclass(frozen=True, slots=True)
class Raw:
    """The file of a table and a model: its figures by data set, way, seed and quantity, and what they were made with."""

    table: str
    model: str
    made: dict[str, str]
    rows: dict[tuple[str, str, str, str], Estimate]
    asked: dict[str, tuple[int, str]]  # of each data set, how many rows and their hash

    @property
    def asks_rows_of_now(self) -> bool:
        """Whether each data set has the rows today that were asked."""
        return bool(self.asked) and all(
            rows_hash(load_examples(name)[:count]) == found for name, (count, found) in self.asked.items()
        )

    @property
    def name(self) -> str:
        """The model, in a word."""
        return SHORT.get(self.model, self.model)

    @property
    def sets(self) -> list[str]:
        """Its data sets; the one of all together is the last."""
        return list(dict.fromkeys(data for data, *_ in self.rows))

    @property
    def whole(self) -> str:
        """All its data sets together, or its only one."""
        return ALL_SETS if ALL_SETS in self.sets else self.sets[0]

    def of(self, data: str, way: str, quantity: str, seed: str = POOLED) -> Estimate:
        return self.rows.get((data, way, seed, quantity), NOTHING)

    def minus(self, data: str, way: str, quantity: str) -> Estimate:
        """grit minus the way, paired by question."""
        return self.of(data, f"grit-minus-{way}", quantity)

    def seeds(self, data: str, way: str, quantity: str) -> tuple[float, ...]:
        return tuple(one.value for one in self.by_seed(data, way, quantity).values() if one.value is not None)

    def by_seed(self, data: str, way: str, quantity: str) -> dict[str, Estimate]:
        keys = [
            key for key in self.rows if (key[0], key[1], key[3]) == (data, way, quantity) and key[2] != POOLED
        ]
        return {key[2]: self.rows[key] for key in keys if self.rows[key].value is not None}


def read(path: Path) -> Raw:
    """The file of a table and a model."""
    made: dict[str, str] = {}
    rows: dict[tuple[str, str, str, str], Estimate] = {}
    asked: dict[str, tuple[int, str]] = {}
    model = ""
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        model = row["model"]
        if row["way"] == MADE_WITH and row["data"]:
            asked[row["data"]] = int(row["n"]), row["value"]
            continue
        if row["way"] == MADE_WITH:
            made[row["quantity"]] = row["value"]
            continue
        value, low, high = (float(row[name]) if row[name] else None for name in ("value", "low", "high"))
        rows[row["data"], row["way"], row["seed"], row["quantity"]] = Estimate(
            value, int(row["n"] or 0), low, high
        )
    return Raw(path.stem.removesuffix(f"-{model}"), model, made, rows, asked)


def rows_hash(rows: Sequence[Example]) -> str:
    """A hash of what rows ask and of their annotation; their pictures are not opened."""
    digests = fingerprint(rows, picture_of=lambda _: None).digests
    return hashlib.sha256((digests.asked + digests.annotation).encode()).hexdigest()[:16]


# -- numbers in words --------------------------------------------------------------------------------------------------


def unit_of(quantity: str) -> Unit:
    return UNITS.get(quantity, SHARE)


def shown(found: Estimate, unit: Unit) -> str:
    """A value with its interval; a dash where it was not measured."""
    if found.value is None:
        return "-"
    if found.low is None or found.high is None:
        return written(found.value, unit)
    return f"{written(found.value, unit)} [{written(found.low, unit)},{written(found.high, unit)}]"


def difference(found: Estimate, unit: Unit) -> str:
    """A difference with its interval, in bold where that does not hold 0."""
    if found.value is None or found.low is None or found.high is None:
        return "-"
    text = ascii_minus(f"{signed(found.value, unit)} [{signed(found.low, unit)},{signed(found.high, unit)}]")
    return f"**{text}**" if found.clear_of_zero else text


def negative(found: Estimate) -> Estimate:
    """The same difference taken the other way round."""
    value, low, high = (
        None if number is None else -number for number in (found.value, found.low, found.high)
    )
    return Estimate(value, found.n, high, low)


def verdict(subject: str, other: str, found: Sequence[tuple[str, Estimate]], unit: Unit) -> str:
    """Where the subject is above the other, below it, and where no difference is shown; by whether intervals hold 0."""
    known = [(place, one) for place, one in found if one.low is not None]
    if not known:
        return f"{subject} against {other}: not measured yet."
    groups = {
        "above": [(p, e) for p, e in known if e.above_zero],
        "below": [(p, e) for p, e in known if e.below_zero],
        "not told apart": [(p, e) for p, e in known if not e.clear_of_zero],
    }
    said = [
        f"{name} on {', '.join(f'{p} ({ascii_minus(signed(e.value or 0, unit))})' for p, e in _model_once(members))}"
        for name, members in groups.items()
        if members
    ]
    return f"{subject} against {other}: {'; '.join(said)}."


def _model_once(places: Sequence[tuple[str, Estimate]]) -> list[tuple[str, Estimate]]:
    """Without the model, a place's first word, where the place before it has the same."""
    models = ["", *(place.split(" ")[0] for place, _ in places)]
    return [
        (place.removeprefix(f"{before} "), one) for before, (place, one) in zip(models, places, strict=False)
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; nothing where there are no rows."""
    if not rows:
        return []
    return [
        "",
        f"|{'|'.join(heads)}|",
        "|---" * len(heads) + "|",
        *(f"|{'|'.join(row)}|" for row in rows),
        "",
    ]


SHORT = {"tiny-qwen2.5-vl": "Qwen", "tiny-internvl3": "InternVL"}


def short(data: str) -> str:
    return data.removeprefix("stickers/")


@dataclass(frozen=True, slots=True)
class Files:
    """Every file that was measured with the weights of now."""

    raws: tuple[Raw, ...]

    def of(self, *names: str) -> list[Raw]:
        """Those of some tables, in this order."""
        return [raw for name in names for raw in self.raws if raw.table == name]

    def places(self, *names: str, together: bool = False) -> list[tuple[Raw, str, str]]:
        """File, data set and what to call the two, of some tables; `together`: all sets of a table as one."""
        found = []
        for raw in self.of(*names):
            star = "*" if raw.table == "compose" else ""
            for data in [raw.whole] if together else [d for d in raw.sets if d != ALL_SETS]:
                found.append((raw, data, f"{raw.name} {short(data)}{star}"))
        return found
