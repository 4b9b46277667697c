"""What an evaluation does: its recipe, and the options of `opengrit eval` that fill it in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from opengrit.core.errors import RecipeError, RunError, first_line
from opengrit.core.plugins import is_function, looks_own
from opengrit.core.recipe_section import RecipeSection
from opengrit.judges.settings import JudgeSection, judge_section
from opengrit.recipes.asking import Eval, Strategy
from opengrit.recipes.data_section import Source
from opengrit.recipes.earlier import kept_or_now
from opengrit.recipes.model_section import Model
from opengrit.recipes.yaml import data_source, key_path, read_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.rewards.settings import Rewards, rubric_of


class Served(RecipeSection):
    """A model behind an OpenAI-compatible endpoint; `model.name` is its name there."""

    url: str = Field(description="base address, for example http://127.0.0.1:8000/v1")
    frame: str | None = Field(
        description=(
            "coordinates the model writes: a model type (qwen2_5_vl), or pixels, thousand or unit; the server does not "
            "say"
        )
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        description=("environment variable that holds the key; the key itself is stored nowhere"),
    )


class EvalRecipe(RecipeSection):
    """Everything an evaluation does; saved with it, and what a resumed evaluation is compared with."""

    model: Model = Field(description="the model to evaluate (--model and the options with it)")
    data: tuple[Source, ...] = Field(description="evaluation data sets (--data, --images)")
    strategy: Strategy = Field(default="grounded", description="prompt (--strategy)")
    system: str | None = Field(
        default=None, description="system message; null: the model's own default (--system)"
    )
    eval: Eval = Field(default=Eval(), description="how it is measured")
    limit: int | None = Field(
        default=None, description="number of rows to ask of each set, from the first; null: all (--limit)"
    )
    seed: int = Field(default=0, description="seed of the sampling (--seed)")
    blind: bool = Field(
        default=False,
        description=("show a grey picture each time: what the model answers without looking (--blind)"),
    )
    endpoint: Served | None = Field(
        default=None,
        description="an OpenAI-compatible server that runs the model; null: it runs here (--endpoint)",
    )
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = Field(
        default=JudgeSection(), description="what decides whether an answer is right (--judge)"
    )
    rewards: Rewards = Field(default="paper", description="rewards to measure (--rewards)")

    def rubric(self) -> Rubric:
        """The rewards that answers are scored with; what is your own is executed. Raises RecipeError."""
        return rubric_of(self.rewards)

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; without what earlier versions did not have, where it is not asked for."""
        left_out = {"endpoint"} if self.endpoint is None else set()
        left_out |= {"rewards"} if self.rewards == "paper" else set()
        left_out |= {"system"} if self.system is None else set()
        left_out |= set() if self.blind else {"blind"}
        written = self.model_dump(mode="json", exclude=left_out)
        return yaml.safe_dump({"evaluate": written}, sort_keys=False)

    def text_for(self, kept: str | None) -> str:
        """The resolved YAML for the folder of an evaluation: that kept in it where an earlier version wrote the same in fewer keys."""
        now = self.resolved_yaml()
        return now if kept is None else kept_or_now(kept, now, resolve=_resolved_again)


def _resolved_again(text: str) -> str:
    return EvalRecipe.model_validate(yaml.safe_load(text)["evaluate"]).resolved_yaml()


def recipe_of_options(
    model: str,
    data: Sequence[str],
    *,
    images: Sequence[Path] = (),
    endpoint: str | None = None,
    strategy: str = "grounded",
    system: str | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 1000,
    batch_size: int = 32,
    limit: int | None = None,
    frame: str | None = None,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
    max_tiles: int | None = None,
    seed: int = 0,
    blind: bool = False,
    judge: str | None = None,
    judge_url: str | None = None,
    judge_model: str | None = None,
    rewards: str = "paper",
) -> EvalRecipe:
    """The recipe of the options of `opengrit eval`. Raises RecipeError for what they ask and no evaluation can do."""
    sizes = {"min_pixels": min_pixels, "max_pixels": max_pixels, "max_tiles": max_tiles}
    return _recipe_of_sections(
        model={"name": model, "frame": frame if endpoint is None else None, **sizes},
        data=_sources_of(data, images),
        endpoint=None if endpoint is None else {"url": endpoint, "frame": frame},
        strategy=strategy,
        system=system,
        eval={
            "max_completion_length": max_new_tokens,
            "batch_size": batch_size,
            "samples": samples,
            "temperature": temperature,
        },
        limit=limit,
        seed=seed,
        blind=blind,
        judge=judge_of(judge, url=judge_url, model=judge_model),
        rewards=_rewards_of(rewards),
    )


def _recipe_of_sections(**sections: Any) -> EvalRecipe:
    try:
        return EvalRecipe.model_validate(sections)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(key_path(problem["loc"]))
        rule = problem["msg"][0].lower() + problem["msg"][1:]
        said = f"{place}: {rule}, got {problem['input']!r}"
        if problem["type"] == "value_error":
            said = str(problem["ctx"]["error"])
        raise RecipeError(f"{said}; see opengrit eval --help") from error


class _JudgeFile(RecipeSection):
    """A file with a `judge:` section and nothing else."""

    judge: Annotated[JudgeSection, BeforeValidator(judge_section)]


class _RewardsFile(RecipeSection):
    """A file with a `rewards:` section and nothing else."""

    rewards: Rewards


def _rewards_of(rewards: str) -> Any:
    """The rewards of --rewards, for EvalRecipe: a named set, a function of your own, or a YAML file with the section
    `rewards:` of a recipe. Raises RecipeError.
    """
    if rewards.endswith((".yaml", ".yml")):
        return read_recipe(_RewardsFile, rewards).rewards
    return {rewards: 1.0} if looks_own(rewards) else rewards


def judge_of(judge: str | None, *, url: str | None = None, model: str | None = None) -> Any:
    """The judge of --judge, --judge-url and --judge-model, for EvalRecipe: "rule", a function of your own, a YAML file with
    the section `judge:` of a recipe, or a model behind an endpoint. Raises RecipeError.
    """
    if url is not None or model is not None:
        if judge is not None:
            raise RecipeError(
                f"the judge is named once, got --judge {judge} together with --judge-url or --judge-model; leave one out"
            )
        if url is None or model is None:
            raise RecipeError(
                f"--judge-url and --judge-model go together, got only {model or url}; give both"
            )
        return {"kind": "endpoint", "url": url, "model": model}
    if judge is None or judge == "rule":
        return "rule"
    if is_function(judge):
        return judge
    if not judge.endswith((".yaml", ".yml")):
        raise RecipeError(
            "--judge is rule, a function of your own (my_judge.py:judge) or a YAML file with a judge: section, got "
            f"{judge!r}; for a served model write --judge-url and --judge-model"
        )
    return read_recipe(_JudgeFile, judge).judge


def _sources_of(data: Sequence[str], images: Sequence[Path]) -> tuple[Source, ...]:
    """The data sets of --data and --images: a folder once for all files, or once for each file in their order.

    A data set is a name, a file, a folder or a pattern of files, "hub:owner/name:split", or a source as a recipe has it
    ("{file: sheet.csv, columns: {picture: photo}}"). Raises RecipeError or RunError.
    """
    values = [_data_set(spec) for spec in data]
    files = [value for value in values if "name" not in value and value.get("images") is None]
    if images and not files:
        raise RunError(
            f"--images is the picture folder of data files, got {images[0]} without a file; leave --images out"
        )
    if len(images) not in (0, 1, len(files)):
        raise RunError(
            f"--images is given once for all files or once for each, got {len(images)} for {len(files)} files; "
            "repeat it in the files' order"
        )
    folders = list(images) * len(files) if len(images) == 1 else list(images)
    for value, folder in zip(files, folders, strict=False):
        value["images"] = str(folder)
    return tuple(_source(spec, value) for spec, value in zip(data, values, strict=True))


def _data_set(spec: str) -> dict[str, Any]:
    if not spec.startswith("{"):
        return {"file": spec} if os.path.isdir(spec) else dict(data_source(spec))
    try:
        value = yaml.safe_load(spec)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--data in braces is a data set as a recipe writes it, got {spec!r} ({first_line(error)}); write '{{file: "
            "sheet.csv, columns: {picture: photo}}', for example"
        ) from error
    return dict(value)


def _source(spec: str, value: dict[str, Any]) -> Source:
    try:
        return Source.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(key_path(problem["loc"]))
        rule = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"].lower()
        raise RecipeError(
            f"--data {spec}: {f'{place}: ' if place else ''}{rule}; a data set has the keys {', '.join(Source.model_fields)}"
        ) from error
