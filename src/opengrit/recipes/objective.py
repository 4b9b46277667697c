"""The objective of a training: what of TRL's loss is chosen, how rewards become advantages, and choices that mean nothing together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from opengrit.core.recipe_section import Count, NotNegative, Positive, RecipeSection

_SUMMED = ("bnpo", "dr_grpo", "dapo", "cispo")  # add up tokens of all completions
_UNCLIPPED = ("sapo", "vespo")  # weigh the ratio smoothly in place of a clip range


class Objective(RecipeSection):
    """What is maximised. Names and meanings are those of TRL's GRPOConfig."""

    num_iterations: Count = Field(
        default=1, description="optimizer steps made from one generation (TRL's default)"
    )
    beta: NotNegative = Field(
        default=0.01, description="weight of the KL term; 0: no reference model (released GRIT script)"
    )
    use_bias_correction_kl: bool = Field(
        default=False,
        description="weigh the KL term by the policy ratio (false: the KL term of the GRIT paper)",
    )
    epsilon: Positive = Field(
        default=0.2, description="clip range of the policy ratio (TRL's default; GRIT does not state it)"
    )
    epsilon_high: Positive | None = Field(
        default=None,
        description=(
            "upper clip range (DAPO: 0.28); for cispo the largest ratio (ScaleRL: 5); null: as epsilon"
        ),
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        default="token",
        description=(
            "a policy ratio for each token, or one for each completion (GSPO, with loss_type grpo) (TRL's default)"
        ),
    )
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = Field(
        default="grpo",
        description=(
            "how token losses are weighted and averaged (GRIT: plain GRPO, the mean over each completion)"
        ),
    )
    mask_truncated_completions: bool = Field(
        default=False,
        description=(
            "leave truncated completions out of the averages too; they teach nothing either way (TRL's default)"
        ),
    )
    top_entropy_quantile: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of tokens to learn from, those of highest entropy; 1: all (arXiv 2506.01939: 0.2)",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="whose standard deviation rewards are divided by (GRIT: the group's)",
    )

    def problems(self) -> Iterator[str]:
        """Pairs that TRL warns of, and choices that would change nothing or mean nothing; each with its remedy."""
        yield from self._problems_of_level()
        yield from self._problems_of_clipping()

    def _problems_of_level(self) -> Iterator[str]:
        loss, level = self.loss_type, self.importance_sampling_level
        if level == "sequence" and loss in _SUMMED:
            yield (
                f"a ratio for each completion is averaged over completions, loss_type {loss} adds up tokens, so long "
                "completions would weigh more; set loss_type: grpo (GSPO)"
            )
        if level == "sequence" and loss == "vespo":
            yield "vespo makes a ratio for each completion itself, importance_sampling_level is sequence; set it to token"
        if level == "token" and loss == "luspo":
            yield "luspo scales a ratio for each completion, importance_sampling_level is token; set it to sequence"
        if level == "sequence" and loss in ("grpo", "sapo") and self.num_iterations == 1:
            yield (
                "every ratio is 1 in the only step of a generation, so importance_sampling_level sequence changes "
                "nothing with num_iterations 1; set num_iterations: 2, or importance_sampling_level: token"
            )
        if level == "sequence" and self.top_entropy_quantile < 1:
            yield (
                f"top_entropy_quantile {self.top_entropy_quantile:g} picks single tokens, but importance_sampling_level "
                "sequence learns from whole completions; set top_entropy_quantile: 1"
            )

    def _problems_of_clipping(self) -> Iterator[str]:
        loss, high = self.loss_type, self.epsilon_high
        if loss == "cispo" and (high is None or high < 1):
            yield (
                f"for cispo epsilon_high is the largest ratio, at least 1, got {'null' if high is None else f'{high:g}'}; "
                "set epsilon_high: 5"
            )
        if high is not None and loss in _UNCLIPPED:
            yield f"{loss} clips nothing, epsilon_high is {high:g}; set epsilon_high: null"
        elif high is not None and loss != "cispo" and self.num_iterations == 1:
            yield (
                f"every ratio is 1 in the only step of a generation, so epsilon_high {high:g} clips nothing with "
                "num_iterations 1; set num_iterations: 2, or epsilon_high: null"
            )


class ObjectCredit(RecipeSection):
    """Credit for single boxes: completions of a group that found the same objects are compared object by object."""

    weight: Positive = Field(
        default=1.0, description="weight of a box's own advantage, added on its tokens (POLIA: 1)"
    )
    min_iou: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="least IoU at which a box matches one of the row's boxes (our choice)"
    )


class Advantage(RecipeSection):
    """How the rewards of a group become advantages of its completions, and of their tokens."""

    combine: Literal["sum_then_normalize", "normalize_then_sum"] = Field(
        default="sum_then_normalize",
        description="standardise the sum of the rewards (GRIT), or each reward over its group before they are summed (GDPO; TRL's multi_objective_aggregation)",
    )
    objects: ObjectCredit | None = Field(
        default=None,
        description="credit for single boxes against the row's own (POLIA); null: a completion's tokens share one advantage",
    )

    def problems(self, objective: Objective) -> Iterator[str]:
        """What of this section would change nothing or be wrong with the objective; each with its remedy."""
        if self.combine == "normalize_then_sum" and objective.scale_rewards != "group":
            yield (
                "normalize_then_sum divides each reward by its group's standard deviation, train.scale_rewards is "
                f"{objective.scale_rewards}; set train.scale_rewards: group, or advantage.combine: sum_then_normalize"
            )
        if self.objects is not None and objective.loss_type == "vespo":
            yield (
                "vespo weights a completion by the sign of its single advantage, advantage.objects gives its tokens "
                "several; set train.loss_type: grpo, or advantage.objects: null"
            )
        if self.objects is not None and objective.top_entropy_quantile < 1:
            yield (
                "advantage.objects teaches the tokens of boxes, train.top_entropy_quantile "
                f"{objective.top_entropy_quantile:g} leaves out tokens as certain as those; set "
                "train.top_entropy_quantile: 1, or advantage.objects: null"
            )
