"""The rewards section of a recipe, and the rubric that it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from opengrit.core.errors import RecipeError
from opengrit.core.plugins import AnyReference, Reference, is_function, looks_own
from opengrit.core.recipe_section import RecipeSection, not_bool
from opengrit.rewards.gates import Gate
from opengrit.rewards.own import own_reward
from opengrit.rewards.protocol import NamedReward
from opengrit.rewards.rubric import REWARDS, Rubric, check_weights, unknown_reward

RewardSet = Literal["paper", "released", "answer_only", "random"]
Weight = Annotated[float, BeforeValidator(not_bool), Field(allow_inf_nan=False)]


def _gates(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _each_once(gates: tuple[Gate, ...] | None) -> tuple[Gate, ...] | None:
    if gates is not None and (not gates or len(set(gates)) < len(gates)):
        raise ValueError(
            "where names at least one gate, each once; name them, such as [right, format], or write null"
        )
    return gates


class RewardSettings(RecipeSection):
    """A reward's weight and its gates, and beside them the keywords that a reward of your own takes."""

    model_config = ConfigDict(extra="allow")

    weight: Weight = Field(description="factor of the reward in the total; 0: only reported")
    where: Annotated[tuple[Gate, ...] | None, BeforeValidator(_gates), AfterValidator(_each_once)] = Field(
        default=None,
        description=(
            "one gate or a list: pay only if the answer is right, the full format holds, the answer is short (under "
            "300 characters), or all listed conditions hold, otherwise 0; null: always"
        ),
    )

    @property
    def keywords(self) -> dict[str, Any]:
        """What the function is called with, beside the attempt."""
        return dict(self.model_extra or {})


def _weighed(rewards: dict[str, float | RewardSettings]) -> dict[str, float | RewardSettings]:
    """Raises ValueError, for pydantic, for a name that is no reward's, and for weights that cannot be added up. Runs nothing."""
    for name, setting in rewards.items():
        if name not in REWARDS and not is_function(name):
            raise ValueError(unknown_reward(name))
        if name in REWARDS and isinstance(setting, RewardSettings) and setting.keywords:
            raise ValueError(
                f"{name} takes no keywords but weight and where, got {', '.join(setting.keywords)}; leave them out, or name a reward of your own"
            )
    try:
        check_weights(dict(weights_of(rewards)))
    except RecipeError as error:
        raise ValueError(str(error)) from error
    if not any(weight for _, weight in weights_of(rewards)):
        raise ValueError(
            "at least one reward needs a weight other than 0, none has; set one, such as correct: 1.0"
        )
    return rewards


# Which alternative a value means is decided by its shape, so that one mistake gives one message.
_Setting = Annotated[
    Annotated[Weight, Tag("[weight]")] | Annotated[RewardSettings, Tag("[settings]")],
    Discriminator(lambda value: "[settings]" if isinstance(value, dict | RewardSettings) else "[weight]"),
]
Rewards = Annotated[
    Annotated[RewardSet, Tag("[named]")]
    | Annotated[dict[AnyReference, _Setting], AfterValidator(_weighed), Tag("[weights]")],
    Discriminator(lambda value: "[weights]" if isinstance(value, dict) else "[named]"),
]


def weights_of(rewards: Mapping[str, float | RewardSettings]) -> Iterator[tuple[str, float]]:
    """Each reward as the recipe names it, with its weight."""
    for name, setting in rewards.items():
        yield name, setting.weight if isinstance(setting, RewardSettings) else setting


def rubric_of(rewards: RewardSet | Mapping[str, float | RewardSettings]) -> Rubric:
    """The rubric of a recipe's section; files of your own that it names are executed now.

    Raises RecipeError where one of them cannot be used, and where two rewards have one name.
    """
    if isinstance(rewards, str):
        return Rubric.named(rewards)
    weights: dict[str, float] = {}
    own: dict[str, NamedReward] = {}
    gates: dict[str, tuple[Gate, ...]] = {}
    for name, weight in weights_of(rewards):
        short, setting = name, rewards[name]
        if looks_own(name):
            reference = name if isinstance(name, Reference) else Reference(name)
            short = reference.name
            if short in REWARDS or short in weights:
                raise RecipeError(
                    f"rewards are reported by function name, {name} has the name of another reward; rename the function"
                )
            own[short] = own_reward(
                reference, setting.keywords if isinstance(setting, RewardSettings) else {}
            )
        weights[short] = weight
        if isinstance(setting, RewardSettings) and setting.where is not None:
            gates[short] = setting.where
    return Rubric(weights, own, gates)
