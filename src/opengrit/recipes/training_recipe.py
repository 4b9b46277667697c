"""The recipe of a training: one YAML file says everything a run does, and a wrong key is an error before anything loads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BeforeValidator, Field, model_validator

from opengrit.core.recipe_section import RecipeSection
from opengrit.judges.settings import JudgeSection, judge_section
from opengrit.recipes.asking import AskingAgain, Eval, Strategy, problems_of_asking
from opengrit.recipes.data_section import Data
from opengrit.recipes.model_section import Lora, Model
from opengrit.recipes.objective import Advantage
from opengrit.recipes.train_section import Train
from opengrit.recipes.yaml import named, parse, read_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.rewards.settings import Rewards, rubric_of, weights_of

_CALLED = "a recipe"  # what messages about keys call this kind


class Recipe(RecipeSection):
    """Everything a run does. The output folder is not in it: the same recipe gives the same run anywhere."""

    model: Annotated[Model, BeforeValidator(named)] = Field(
        description="the model to train; a bare string is its name"
    )
    data: Data = Field(description="data sets for training and evaluation")
    strategy: Strategy = Field(
        default="grounded",
        description="prompt: a name, file.txt or file.py:name (GRIT figure 7: grounded)",
    )
    system: str | None = Field(
        default=None, description="system message; null: the model's own default (GRIT: none)"
    )
    rewards: Rewards = Field(
        default="paper",
        description="a named set, or weights by the reward's name or file.py:name (paper: GRIT section 3.2)",
    )
    advantage: Advantage = Field(
        default=Advantage(), description="how the rewards of a group become advantages"
    )
    asking_again: AskingAgain | None = Field(
        default=None,
        description="the second questions of the rewards kept and hidden; null: none",
    )
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = Field(
        default=JudgeSection(),
        description=(
            "what decides whether an answer is right; a bare name is its kind (rule: needs no network)"
        ),
    )
    train: Train = Field(default=Train(), description="how it learns")
    lora: Lora | None = Field(
        default=None, description="adapters; null: all weights are trained (released GRIT script)"
    )
    freeze_vision: bool = Field(
        default=False, description="freeze the vision tower (released GRIT script: trained)"
    )
    eval: Eval = Field(default=Eval(), description="how it is measured")

    @model_validator(mode="after")
    def _can_learn(self) -> Recipe:
        if self.model.quantization is not None and self.lora is None:
            raise ValueError(
                f"weights in 4 bits cannot be trained, model.quantization is {self.model.quantization} and lora is "
                "null; add lora: {}"
            )
        if self.train.keep_best is not None and not self.data.eval:
            raise ValueError(
                f"keep_best needs evaluation data, train.keep_best is {self.train.keep_best} and data.eval is empty; "
                "name a data set, or set keep_best: null"
            )
        named = {} if isinstance(self.rewards, str) else dict(weights_of(self.rewards))
        if problems := [*self.advantage.problems(self.train), *problems_of_asking(self.asking_again, named)]:
            raise ValueError("; and ".join(problems))
        return self

    def rubric(self) -> Rubric:
        """The rewards and their weights; what is your own is executed, and checked against its keywords. Raises RecipeError."""
        return rubric_of(self.rewards)

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """The SHA-256 of the resolved recipe, hexadecimal: equal for recipes that do the same."""
        return hashlib.sha256(self.resolved_yaml().encode("utf-8")).hexdigest()


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file or of a packaged name, changed by overrides such as "train.seed=3" (the value is YAML too).

    Raises:
        RecipeError: the file is not readable YAML, an override is not key=value, or the result is not a possible
            recipe; every wrong key and value is listed, with its line and, for a misspelt key, the one meant.
    """
    return read_recipe(Recipe, path, overrides, called=_CALLED)


def parse_recipe(text: str, overrides: Sequence[str] = (), *, place: str = "recipe") -> Recipe:
    """The recipe in a YAML text; `place` is what messages call it. Raises RecipeError as `load_recipe` does."""
    return parse(Recipe, text, overrides, place=place, called=_CALLED)
