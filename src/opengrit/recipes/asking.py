"""How a model is asked: the prompt, how an evaluation asks, and the second questions of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from opengrit.core.errors import RecipeError
from opengrit.core.plugins import AnyReference, looks_own
from opengrit.core.recipe_section import Count, NotNegative, RecipeSection, Share
from opengrit.grounding.own_prompts import check_form

_StrategyName = Literal["direct", "grounded", "grounded-icl", "sft"]


def _prompt_form(value: str) -> str:
    try:
        check_form(value)
    except RecipeError as error:
        raise ValueError(str(error)) from error
    return value


# Which alternative a value means is decided by its shape, so that one mistake gives one message.
Strategy = Annotated[
    Annotated[_StrategyName, Tag("[named]")]
    | Annotated[AnyReference, AfterValidator(_prompt_form), Tag("[own]")],
    Discriminator(lambda value: "[own]" if looks_own(value) else "[named]"),
]


class Eval(RecipeSection):
    """How it is measured."""

    strategy: Strategy | None = Field(default=None, description="prompt; null: the recipe's strategy")
    max_completion_length: Count = Field(
        default=1000, description="most tokens of one completion (released GRIT script)"
    )
    batch_size: Count = Field(
        default=16,
        description="questions asked together, of an endpoint too (our choice; no effect on greedy answers)",
    )
    samples: Count = Field(default=1, description="completions of each question (GRIT: one)")
    temperature: NotNegative = Field(
        default=0.0, description="sampling temperature; 0: greedy (GRIT: greedy in effect)"
    )

    @model_validator(mode="after")
    def _possible(self) -> Eval:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples is 1 if temperature is 0 (all samples would be equal), got {self.samples}; raise temperature "
                "or set samples: 1"
            )
        return self


class AskingAgain(RecipeSection):
    """The second questions of each rollout: with its boxes in grey, and with all but its boxes in grey."""

    strategy: Strategy = Field(default="direct", description="prompt of the second questions (our choice)")
    max_completion_length: Count = Field(
        default=8,
        description="most tokens of a second answer; a truncated one earns nothing (our choice)",
    )
    max_covered: Annotated[Share, Field(gt=0)] = Field(
        default=0.5,
        description=(
            "largest share of the picture that a rollout's boxes may cover; above it no second question is asked and "
            "nothing is earned (our choice)"
        ),
    )


def problems_of_asking(section: AskingAgain | None, weights: Mapping[str, float]) -> Iterator[str]:
    """What of the second questions and of the rewards that need them does not go together; each with its remedy."""
    kept, hidden = weights.get("kept"), weights.get("hidden")
    if section is None and (kept is not None or hidden is not None):
        yield "the rewards kept and hidden need second answers, asking_again is null; add asking_again: {}"
    if section is not None and kept is None and hidden is None:
        yield (
            "asking again is for the rewards kept and hidden, rewards names neither; name both, such as kept: 0.5 and hidden: 0.5, "
            "or set asking_again: null"
        )
    if (kept or 0.0) > 0.0 and (hidden or 0.0) <= 0.0:
        yield (
            f"kept alone favours the largest boxes that max_covered allows, rewards.kept is {kept:g} and hidden earns "
            f"nothing; set hidden: {kept:g} too"
        )
