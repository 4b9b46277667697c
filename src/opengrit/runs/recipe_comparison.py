"""Two resolved recipes compared: whether they are the same, what differs, and what kind of run each is of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from opengrit.core.messages import first_few

# Sections that tell kinds of runs apart. A table's recipe has train: and sft: as well, so its own stands before them.
_KINDS = ("evaluate", "probe", "ways", "train", "sft")
_LISTED = 8  # differences that an error lists


def recipe_hash(recipe: str) -> str:
    """The SHA-256 of a resolved recipe's YAML, in hexadecimal."""
    return hashlib.sha256(recipe.encode("utf-8")).hexdigest()


def recipe_changes(then: str, now: str) -> list[str]:
    """Keys of two resolved recipes that differ, as "train.seed: 1 then, 2 now": those that both have, then those that one of them lacks."""
    old, new = _flat(yaml.safe_load(then)), _flat(yaml.safe_load(now))
    both = [key for key in new if key in old]
    keys = [*both, *(key for key in new if key not in old), *(key for key in old if key not in new)]
    return [
        f"{key}: {_shown(old, key)} then, {_shown(new, key)} now"
        for key in keys
        if _shown(old, key) != _shown(new, key)
    ]


def listed(changes: Sequence[str]) -> str:
    """Differences for an error's one sentence: the first few, and how many more there are."""
    return first_few(changes, most=_LISTED, between="; ")


def kind_of(recipe: str) -> str | None:
    """What a resolved recipe is of, by the section that only its kind has; None where it has none of them."""
    try:
        sections = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return None  # a file of somebody's own
    if not isinstance(sections, dict):
        return None
    return next((kind for kind in _KINDS if kind in sections), None)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))  # data sets, each by its keys
    if not isinstance(value, dict) or not value:
        return {place: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{place}.{key}" if place else str(key))
    return found


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key], ensure_ascii=False, default=str) if key in flat else "not there"
