"""Evaluations that go on a card: each is of the model that is published or of its base, and says so by its hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

from opengrit.core.errors import RunError
from opengrit.core.types import Record
from opengrit.evaluation.measured import measured
from opengrit.models.identity import identity_of
from opengrit.publishing.card import Figures
from opengrit.publishing.facts import judge_in_words
from opengrit.runs.folder import RunDir
from opengrit.runs.origin import ModelOrigin, read_origin
from opengrit.runs.recipe_comparison import kind_of


def figures_of(evaluations: Sequence[Path], *, model: str, run: RunDir) -> list[Figures]:
    """The figures of evaluation runs, by data set, this model's before its base's.

    `model` names the weights that are published, `run` the training that made them. Raises RunError for a folder that is no
    evaluation, or one of another model: a card's figures are of what it describes.
    """
    this, trained = identity_of(model), read_origin(run.path)
    base = None if trained is None else trained.model
    found = [one for path in evaluations for one in _figures(RunDir.open(path), this=this, base=base)]
    return sorted(found, key=lambda one: one.who != THIS)


THIS, BASE = "this model", "its base"


def _figures(evaluation: RunDir, *, this: ModelOrigin, base: ModelOrigin | None) -> list[Figures]:
    if kind_of(evaluation.recipe) != "evaluate":
        raise RunError(
            f"a card's figures come from evaluations, {evaluation.path} is not one; name folders of opengrit eval"
        )
    origin = read_origin(evaluation.path)
    asked = None if origin is None else origin.model
    if asked is None:
        raise RunError(
            f"a card's figures need a known model, {evaluation.path} did not note its model; evaluate again with this "
            "version"
        )
    who = _who(asked, this=this, base=base)
    if who is None:
        raise RunError(
            f"a card's figures must be of this model or its base, {evaluation.path} asked {asked}, and this is {this}; "
            "evaluate this one with opengrit eval, or leave that one out"
        )
    recipe = yaml.safe_load(evaluation.recipe)["evaluate"]
    by_data: dict[str, list[Record]] = defaultdict(list)
    for record in evaluation.records():
        by_data[record.example.dataset].append(record)
    return [_row(who, data, records, recipe) for data, records in sorted(by_data.items())]


def _row(who: str, data: str, records: list[Record], recipe: dict) -> Figures:
    found = measured(records, data=data)
    limit = recipe.get("limit")
    asked = f"the first {limit}" if limit else f"all {found.num_questions}"
    each = recipe["eval"]["samples"]
    samples = "" if each == 1 else f", {each} samples each"
    return Figures(who, f"{asked} questions{samples}", judge_in_words(recipe["judge"]), found)


def _who(asked: ModelOrigin, *, this: ModelOrigin, base: ModelOrigin | None) -> str | None:
    if asked.sha256 is not None and asked.sha256 == this.sha256:
        return THIS
    if base is not None and asked.kind == base.kind and not asked.is_another(base):
        return BASE
    return None
