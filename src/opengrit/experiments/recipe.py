"""What a table measures: models, data sets, ways and seeds, and how the ways that learn are trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from opengrit.core.recipe_section import RecipeSection, not_bool
from opengrit.judges.settings import JudgeSection, judge_section
from opengrit.recipes.asking import Eval, Strategy
from opengrit.recipes.evaluation_recipe import EvalRecipe, Served
from opengrit.recipes.sft_recipe import SftRecipe, SftTrain
from opengrit.recipes.training_recipe import (
    Count,
    Data,
    Lora,
    Model,
    Recipe,
    Source,
    Train,
)
from opengrit.recipes.yaml import data_source, named, read_recipe
from opengrit.rewards.settings import RewardSet


class Way(StrEnum):
    """A way of getting grounded answers out of a model."""

    DIRECT = "direct"  # the question and nothing else
    GROUNDED = "grounded"  # GRIT's instruction, the model as it is (the paper's zero-shot chain of thought)
    GROUNDED_ICL = "grounded-icl"  # the same with one worked example
    SFT = "sft"  # few-shot supervised fine-tuning on the training rows
    GRPO_ANSWER = "grpo-answer"  # plain GRPO on the training rows, rewarded for the answer alone
    GRIT = "grit"  # GRPO with the paper's rewards

    @property
    def learns(self) -> bool:
        """Whether weights are trained."""
        return self in (Way.SFT, Way.GRPO_ANSWER, Way.GRIT)


_REWARDS: dict[Way, RewardSet] = {Way.GRPO_ANSWER: "answer_only", Way.GRIT: "paper"}
Seed = Annotated[int, BeforeValidator(not_bool), Field(ge=0, lt=2**32)]


class TableModel(Model):
    """A model of the table: in memory, or behind an endpoint, which can only be asked."""

    label: str | None = Field(
        default=None, min_length=1, description="its name in the table; null: the model's own name"
    )
    endpoint: Served | None = Field(
        default=None, description="an OpenAI-compatible server that runs it; null: it runs here"
    )

    @property
    def title(self) -> str:
        """What the table calls it."""
        return self.label or self.name

    def plain(self) -> Model:
        """The model without what only a table says of it."""
        return Model(**self.model_dump(exclude={"label", "endpoint"}))


class TableRecipe(RecipeSection):
    """Everything a table does. Each way runs with each model and seed, and is evaluated on every data set."""

    models: tuple[Annotated[TableModel, BeforeValidator(named)], ...] = Field(
        description="models compared, each by itself; a bare string is a name"
    )
    data: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        description="data sets measured on, each a part of the table"
    )
    train_data: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        default=(), description="data sets that sft, grpo-answer and grit learn from, taken together"
    )
    ways: tuple[Way, ...] = Field(default=tuple(Way), description="ways compared (default: all six)")
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2),
        description="a training and its sampling each; where nothing is trained or sampled there is one run",
    )
    strategy: Strategy = Field(
        default="grounded", description="prompt that grpo-answer and grit learn and are asked with"
    )
    sft_strategy: Literal["grounded", "sft"] = Field(
        default="grounded", description="prompt that sft learns and is asked with, and its targets' form"
    )
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = Field(
        default=JudgeSection(),
        description="who says whether an answer is right, in training and in the table (rule: needs no network)",
    )
    train: Train = Field(default=Train(), description="how grpo-answer and grit learn; seeds gives the seed")
    sft: SftTrain = Field(default=SftTrain(), description="how sft learns; seeds gives the seed")
    lora: Lora | None = Field(default=None, description="adapters; null: all weights are trained")
    freeze_vision: bool = Field(default=False, description="keep the vision tower as it is")
    eval: Eval = Field(default=Eval(), description="how it is measured; ways gives the prompt")
    limit: Count | None = Field(
        default=None, description="ask only the first rows of each data set; null: all"
    )

    @field_validator("models", "data", "ways", "seeds")
    @classmethod
    def _some_and_each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("at least one is named, none is; add one")
        names = [_name_of(item) for item in value]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"each is named once, {name} is named twice; leave one out")
        return value

    @field_validator("train", "sft")
    @classmethod
    def _seeds_are_listed(cls, value: Train | SftTrain) -> Train | SftTrain:
        if "seed" in value.model_fields_set:
            raise ValueError(f"seeds lists the seeds, seed is {value.seed} here; leave it out")
        return value

    @model_validator(mode="after")
    def _possible(self) -> TableRecipe:
        if self.eval.strategy is not None:
            raise ValueError(
                f"ways names the prompts, eval.strategy is {self.eval.strategy} too; leave it out"
            )
        learning = [way.value for way in self.ways if way.learns]
        if learning and not self.train_data:
            raise ValueError(
                f"{', '.join(learning)} learn from rows, train_data names none; write stickers/train20, for example"
            )
        served = [model.title for model in self.models if model.endpoint is not None]
        if learning and served:
            raise ValueError(
                f"{', '.join(learning)} train weights, {served[0]} is behind an endpoint; leave them out of ways, or "
                "give that model a table of its own"
            )
        folders = [folder_name(model.title) for model in self.models]
        for i, folder in enumerate(folders):
            if folder in folders[:i]:
                raise ValueError(
                    f"models have folders of their own, two would be {folder}; give one of them another label"
                )
        return self

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        written = self.model_dump(mode="json", exclude={"train": {"seed"}, "sft": {"seed"}})
        return yaml.safe_dump(written, sort_keys=False, allow_unicode=True)

    @property
    def is_greedy(self) -> bool:
        """Whether answers are the most likely ones, so that asking again gives the same."""
        return self.eval.temperature == 0

    def seeds_of(self, way: Way) -> tuple[int, ...]:
        """The seeds a way runs with: one where nothing is trained and answers are greedy."""
        return self.seeds if way.learns or not self.is_greedy else self.seeds[:1]

    def runs(self, model: TableModel) -> Iterator[TableRun]:
        """The runs of a model in the order they are made: what only asks comes first."""
        for way in sorted(self.ways, key=list(Way).index):
            for seed in self.seeds_of(way):
                yield TableRun(model, way, seed)

    # -- what the runs do -------------------------------------------------------------------------------------------

    def grpo(self, run: TableRun) -> Recipe:
        """The training of a run that learns by reinforcement."""
        return Recipe(
            model=run.model.plain(),
            data=Data(train=self.train_data),
            strategy=self.strategy,
            rewards=_REWARDS[run.way],
            judge=self.judge,
            train=self.train.model_copy(update={"seed": run.seed}),
            lora=self.lora,
            freeze_vision=self.freeze_vision,
            eval=self.eval,
        )

    def fine_tuning(self, run: TableRun) -> SftRecipe:
        """The training of a run that learns from targets."""
        return SftRecipe(
            model=run.model.plain(),
            data=Data(train=self.train_data),
            strategy=self.sft_strategy,
            sft=self.sft.model_copy(update={"seed": run.seed}),
            lora=self.lora,
            freeze_vision=self.freeze_vision,
        )

    def evaluation(self, run: TableRun, *, trained: Path | None) -> EvalRecipe:
        """The evaluation of a run on every data set; `trained` is the folder of its training."""
        model = run.model.plain()
        if trained is not None:
            model = model.model_copy(update={"name": str(trained)})
        return EvalRecipe(
            model=model,
            data=self.data,
            strategy=self.prompt_of(run.way),
            judge=self.judge,
            eval=self.eval,
            limit=self.limit,
            seed=run.seed,
            endpoint=run.model.endpoint,
        )

    def prompt_of(self, way: Way) -> Strategy:
        """The prompt a way is asked with."""
        match way:
            case Way.DIRECT:
                return "direct"
            case Way.GROUNDED:
                return "grounded"
            case Way.GROUNDED_ICL:
                return "grounded-icl"
            case Way.SFT:
                return self.sft_strategy
            case Way.GRPO_ANSWER | Way.GRIT:
                return self.strategy


@dataclass(frozen=True, slots=True)
class TableRun:
    """One model, one way, one seed: a training where the way learns, and an evaluation."""

    model: TableModel
    way: Way
    seed: int

    @property
    def folder(self) -> Path:
        """Its folder inside the table's."""
        return Path("runs") / folder_name(self.model.title) / self.way / f"seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.model.title}, {self.way}, seed {self.seed}"


def folder_name(title: str) -> str:
    """A model's title as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "model"


def _name_of(item: Any) -> str:
    match item:
        case TableModel():
            return item.title
        case Source():
            return item.spec
        case _:
            return str(item)


def load_table_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TableRecipe:
    """The recipe in a YAML file, changed by overrides such as "seeds=[0]". Raises RecipeError as `load_recipe` does."""
    return read_recipe(TableRecipe, path, overrides)
