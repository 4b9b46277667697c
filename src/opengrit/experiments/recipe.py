"""What a table measures: models, data sets, ways and seeds, and how the ways that learn are trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from opengrit.core.recipe_section import Count, RecipeSection, not_bool
from opengrit.experiments.ways import REWARDS, AnyWay, OwnWay, Way
from opengrit.judges.settings import JudgeSection, judge_section
from opengrit.recipes.asking import AskingAgain, Eval, Strategy
from opengrit.recipes.data_section import Data, Source
from opengrit.recipes.earlier import kept_or_now
from opengrit.recipes.evaluation_recipe import EvalRecipe, Served
from opengrit.recipes.model_section import Lora, Model
from opengrit.recipes.objective import Advantage
from opengrit.recipes.sft_recipe import SftRecipe, SftTrain
from opengrit.recipes.train_section import Train
from opengrit.recipes.training_recipe import Recipe
from opengrit.recipes.yaml import data_source, named, parse, read_recipe
from opengrit.rewards.settings import Rewards

Seed = Annotated[int, BeforeValidator(not_bool), Field(ge=0, lt=2**32)]


class TableModel(Model):
    """A model of the table: in memory, or behind an endpoint, which can only be asked."""

    label: str | None = Field(
        default=None, min_length=1, description="the model's name in the table; null: its own name"
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


class TableObjective(RecipeSection):
    """A way of the table's own: GRPO as grit, but for what is written here."""

    rewards: Rewards = Field(default="paper", description="a named set, or weights by the reward's name")
    train_data: tuple[Annotated[Source, BeforeValidator(data_source)], ...] | None = Field(
        default=None, description="training data sets; null: the table's train_data"
    )
    advantage: Advantage = Field(
        default=Advantage(), description="how the rewards of a group become advantages"
    )
    asking_again: AskingAgain | None = Field(
        default=None, description="the second questions of the rewards kept and hidden; null: none"
    )
    train: dict[str, Any] = Field(
        default={}, description="keys of the table's train section that differ here, such as beta: 0.04"
    )


class TableRecipe(RecipeSection):
    """Everything a table does. Each way runs with each model and seed, and is evaluated on every data set."""

    models: tuple[Annotated[TableModel, BeforeValidator(named)], ...] = Field(
        description="models to compare, each separately; a bare string is a name"
    )
    data: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        description="evaluation data sets, each a part of the table"
    )
    train_data: tuple[Annotated[Source, BeforeValidator(data_source)], ...] = Field(
        default=(), description="training data sets of sft, grpo-answer and grit, taken together"
    )
    ways: tuple[Way, ...] = Field(default=tuple(Way), description="ways to compare (default: all)")
    objectives: dict[str, TableObjective] = Field(
        default={}, description="more ways, under your own names: GRPO with other rewards, rows or settings"
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0, 1, 2),
        description="a run for each seed; ways that neither train nor sample have one run",
    )
    strategy: Strategy = Field(
        default="grounded", description="prompt of grpo-answer and grit, in training and evaluation"
    )
    sft_strategy: Literal["grounded", "sft"] = Field(
        default="grounded", description="prompt of sft, in training and evaluation, and form of its targets"
    )
    judge: Annotated[JudgeSection, BeforeValidator(judge_section)] = Field(
        default=JudgeSection(),
        description=(
            "what decides whether an answer is right, in training and in the table (rule: needs no network)"
        ),
    )
    train: Train = Field(
        default=Train(), description=("training settings of grpo-answer and grit; seeds gives the seed")
    )
    sft: SftTrain = Field(default=SftTrain(), description="training settings of sft; seeds gives the seed")
    lora: Lora | None = Field(default=None, description="adapters; null: all weights are trained")
    freeze_vision: bool = Field(default=False, description="freeze the vision tower")
    eval: Eval = Field(default=Eval(), description="evaluation settings; ways gives the prompt")
    probe: bool = Field(
        default=False,
        description="ask each way that points again with boxes grey, as opengrit probe does: necessity and sufficiency",
    )
    limit: Count | None = Field(
        default=None, description="number of rows to ask of each data set, from the first; null: all"
    )

    @field_validator("models", "data", "ways", "seeds")
    @classmethod
    def _some_and_each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("needs at least one entry, has none; add one")
        names = [_name_of(item) for item in value]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"each entry may occur once, {name} occurs twice; leave one out")
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
        if self.objectives and not self.train_data:
            raise ValueError(
                f"{', '.join(self.objectives)} learn from rows, train_data names none; write stickers/train20, for example"
            )
        self._check_own_ways()
        learning = [way.value for way in self.all_ways if way.learns]
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
                    f"each model needs its own folder, two would be {folder}; give one of them another label"
                )
        return self

    def _check_own_ways(self) -> None:
        after = [way.value for way in self.ways if way.is_after_grit]
        if after and Way.GRIT not in self.ways:
            raise ValueError(
                f"{', '.join(after)} ask the model that grit trains, ways leaves grit out; add grit, or leave them out"
            )
        for name, own in self.objectives.items():
            if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) is None or name in set(Way):
                raise ValueError(
                    f"an objective needs a new name of lower-case letters, digits, points and hyphens, got {name!r}; "
                    "rename it"
                )
            if "seed" in own.train:
                raise ValueError(f"seeds lists the seeds, objectives.{name}.train has one too; leave it out")
            try:
                self.grpo(TableRun(self.models[0], OwnWay(name), self.seeds[0]))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in ("objectives", name, "train", *first["loc"]))
                raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error

    @property
    def all_ways(self) -> tuple[AnyWay, ...]:
        """The ways in the order they are made and shown: what only asks first, the table's own ones behind grit's."""
        shipped = sorted(self.ways, key=list(Way).index)
        return (*shipped, *map(OwnWay, self.objectives))

    def _train_of(self, way: AnyWay) -> Train:
        """How a way learns, but for the seed. Raises ValueError where an objective has keys that train has not."""
        own = self.objectives[way].train if isinstance(way, OwnWay) else {}
        return Train.model_validate({**self.train.model_dump(exclude={"seed"}), **own}) if own else self.train

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; loading it gives an equal recipe."""
        left_out: dict[str, Any] = {"train": {"seed"}, "sft": {"seed"}}
        left_out |= {} if self.objectives else {"objectives": True}
        written = self.model_dump(mode="json", exclude=left_out)
        return yaml.safe_dump(written, sort_keys=False, allow_unicode=True)

    def text_for(self, kept: str) -> str:
        """The resolved YAML for the folder of a table: that kept in it where an earlier version wrote the same in fewer keys."""
        now = self.resolved_yaml()
        return kept_or_now(kept, now, resolve=lambda text: parse(TableRecipe, text).resolved_yaml())

    @property
    def is_greedy(self) -> bool:
        """Whether answers are the most likely ones, so that asking again gives the same."""
        return self.eval.temperature == 0

    def seeds_of(self, way: AnyWay) -> tuple[int, ...]:
        """The seeds a way runs with: one where nothing is trained and answers are greedy."""
        trained = way.learns or way.is_after_grit
        return self.seeds if trained or not self.is_greedy else self.seeds[:1]

    def runs(self, model: TableModel) -> Iterator[TableRun]:
        """The runs of a model in the order they are made: all ways with the first seed, then all with the next.

        What only asks comes first, and grit before the others that learn: they are compared with it.
        """
        ways = sorted(self.all_ways, key=lambda way: way.learns and way is not Way.GRIT)
        for seed in self.seeds:
            for way in ways:
                if seed in self.seeds_of(way):
                    yield TableRun(model, way, seed)

    # -- what the runs do -------------------------------------------------------------------------------------------

    def grpo(self, run: TableRun) -> Recipe:
        """The training of a run that learns by reinforcement."""
        own = self.objectives[run.way] if isinstance(run.way, OwnWay) else TableObjective()
        return Recipe(
            model=run.model.plain(),
            data=Data(train=self.train_data if own.train_data is None else own.train_data),
            strategy=self.strategy,
            rewards=own.rewards if isinstance(run.way, OwnWay) else REWARDS[run.way],
            advantage=own.advantage,
            asking_again=own.asking_again,
            judge=self.judge,
            train=self._train_of(run.way).model_copy(update={"seed": run.seed}),
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
            blind=run.way is Way.BLIND,
            endpoint=run.model.endpoint,
        )

    def is_probed(self, way: AnyWay) -> bool:
        """Whether its answers are asked again with boxes grey: those of ways that are asked to point, and see."""
        return self.probe and self.prompt_of(way) != "direct" and way is not Way.BLIND

    def prompt_of(self, way: AnyWay) -> Strategy:
        """The prompt a way is asked with."""
        match way:
            case Way.DIRECT | Way.DIRECT_AFTER:
                return "direct"
            case Way.GROUNDED:
                return "grounded"
            case Way.GROUNDED_ICL:
                return "grounded-icl"
            case Way.SFT:
                return self.sft_strategy
            case _:
                return self.strategy


@dataclass(frozen=True, slots=True)
class TableRun:
    """One model, one way, one seed: a training where the way learns, and an evaluation."""

    model: TableModel
    way: AnyWay
    seed: int

    @property
    def folder(self) -> Path:
        """Its folder inside the table's."""
        return Path("runs") / folder_name(self.model.title) / self.way / f"seed-{self.seed}"

    @property
    def trained_by(self) -> TableRun | None:
        """The run whose training it asks: its own, grit's of the same seed, or none."""
        if self.way.is_after_grit:
            return TableRun(self.model, Way.GRIT, self.seed)
        return self if self.way.learns else None

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
