"""Write docs/recipe-keys.md, every key of every kind of recipe, from the fields themselves: `python scripts/recipe_keys.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from opengrit.experiments.recipe import TableRecipe
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.training_recipe import Recipe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipe-keys.md"
KINDS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Training", "`opengrit train`, `opengrit doctor`", Recipe),
    ("Supervised fine-tuning", "`opengrit sft`", SftRecipe),
    ("Table", "`opengrit table`", TableRecipe),
    (
        "Evaluation",
        "what `opengrit eval` is asked by options; it writes them into its folder in this form",
        EvalRecipe,
    ),
)
_SOURCE = re.compile(r" \(([^()]*\b(?:GRIT|TRL|transformers|peft|our choice|usual|facts)\b[^()]*)\)$")
_UNITS = (
    (r"_pixels$", "pixels"),
    (r"_tiles$", "tiles"),
    (r"_steps$", "steps"),
    (r"_length$|max_tokens$", "tokens"),
    (r"_seconds$", "seconds"),
    (r"^tokens_per_minute$", "tokens a minute"),
    (r"^requests_per_minute$", "requests a minute"),
    (r"^questions_per_step$", "questions"),
    (r"^rows_per_step$", "rows"),
    (r"^(num_generations|samples)$", "completions"),
    (r"_share$|_utilization$|^top_p$|^dropout$", "share of 1"),
)
HEAD = """# Every key of a recipe

Written by `scripts/recipe_keys.py` from the fields themselves; edit those. An unknown key is an error, and so is a value that is not
possible. `--set train.seed=2` sets one key, `data.train.0.images` counts a list's items from 0. How recipes are found and changed is in
[recipes.md](recipes.md).

*Default* "-" is a key that has to be there. *Source* says where a default is from: GRIT is the paper, its released script where the
paper is silent.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One key as the page shows it."""

    key: str
    meaning: str
    value: str
    unit: str
    default: str
    source: str

    def line(self) -> str:
        cells = (f"`{self.key}`", self.meaning, self.value, self.unit, self.default, self.source)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    shown: dict[type[BaseModel], str] = {}
    for title, who, kind in KINDS:
        rows = list(rows_of(kind, shown, title=title.lower()))
        table = [
            "| key | meaning | value | unit | default | source |",
            "|---|---|---|---|---|---|",
            *(row.line() for row in rows),
        ]
        parts.append(f"## {title}\n\nFor {who}.\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def rows_of(
    kind: type[BaseModel], shown: dict[type[BaseModel], str], *, title: str, path: str = ""
) -> Iterator[Row]:
    """The rows of a section and of those in it. What another kind of recipe has shown in whole is named, not repeated."""
    shown[kind] = f"`{path.rstrip('.')}` of {title}"
    repeated = {name for base in kind.__mro__[1:] if base in shown for name in base.model_fields}
    for name, field in kind.model_fields.items():
        if name in repeated:
            continue
        section = section_in(field.annotation)
        many = "" if section is None else many_of(field.annotation)
        yield row(
            path + name + many.removesuffix(".NAME"), field, shown.get(section) if section else None, section
        )
        if section is not None and section not in shown:
            yield from rows_of(section, shown, title=title, path=f"{path}{name}{many}.")


def row(key: str, field: FieldInfo, before: str | None, section: type[BaseModel] | None) -> Row:
    """The row of a field; `before` says where the keys of its section were shown already."""
    assert field.description, key
    found = _SOURCE.search(field.description)
    meaning = field.description[: found.start()] if found else field.description
    if before is not None:
        meaning += f"; keys as in {before}"
    elif section is not None:
        base = next(
            (
                b
                for b in section.__mro__[1:]
                if b is not BaseModel and "name" in getattr(b, "model_fields", {})
            ),
            None,
        )
        meaning += f"; keys of {base.__name__.lower()} too" if base else ""
    last = key.rsplit(".", 1)[-1]
    unit = next((unit for pattern, unit in _UNITS if re.search(pattern, last)), "")
    return Row(
        key,
        meaning,
        value_of(field.annotation, field.metadata),
        unit,
        default_of(field),
        found[1] if found else "",
    )


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "-"
    value = field.default
    if isinstance(value, BaseModel):
        return "as its keys"
    if isinstance(value, tuple):
        value = [item.value if isinstance(item, Enum) else item for item in value]
    assert value is not PydanticUndefined
    written = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    return f"`{written}`"


def value_of(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """What may stand there, in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [
            part for item in args[1:] for part in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        return value_of(args[0], inner)
    if origin in (Union, UnionType):
        return " or ".join(
            dict.fromkeys("null" if arg is type(None) else value_of(arg, metadata) for arg in args)
        )
    if origin is Literal:
        return ", ".join(f"`{arg}`" for arg in args)
    if origin is tuple:
        return f"list of: {value_of(args[0])}"
    if origin is dict:
        return f"mapping of names to: {value_of(args[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{item.value}`" for item in annotation)
    words = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", Any: "any value"}[
        annotation
    ]
    return f"{words} {' and '.join(bounds(metadata))}".strip()


def bounds(metadata: list[Any] | tuple[Any, ...]) -> list[str]:
    written = []
    for item in metadata:
        for kind, sign, name in ((Ge, ">=", "ge"), (Gt, ">", "gt"), (Le, "<=", "le"), (Lt, "<", "lt")):
            if isinstance(item, kind):
                written.append(f"{sign} {getattr(item, name)}")
    return written


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds, inside lists, alternatives and annotations too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := section_in(arg)) is not None), None)


def many_of(annotation: Any) -> str:
    """What stands behind a key whose value holds several sections: in a list, or by names of the user's own."""
    if holds(annotation, tuple):
        return "[]"
    return ".NAME" if holds(annotation, dict) else ""


def holds(annotation: Any, kind: type) -> bool:
    return get_origin(annotation) is kind or any(holds(arg, kind) for arg in get_args(annotation))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
