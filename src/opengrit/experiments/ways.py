"""The ways of getting grounded answers out of a model that a table compares."""

from __future__ import annotations

from enum import StrEnum

from opengrit.rewards.settings import RewardSet


class Way(StrEnum):
    """A way of getting grounded answers out of a model, or a control beside them."""

    DIRECT = "direct"  # the question and nothing else
    GROUNDED = "grounded"  # GRIT's instruction, the model as it is (the paper's zero-shot chain of thought)
    GROUNDED_ICL = "grounded-icl"  # the same with one worked example
    SFT = "sft"  # few-shot supervised fine-tuning on the training rows
    GRPO_ANSWER = "grpo-answer"  # plain GRPO on the training rows, rewarded for the answer alone
    GRPO_RANDOM = "grpo-random"  # GRPO rewarded at random: what training does whatever it rewards
    GRIT = "grit"  # GRPO with the paper's rewards
    DIRECT_AFTER = "direct-after"  # what grit trained, asked plainly: what writing boxes costs or brings
    BLIND = "blind"  # what grit trained, asked about grey pictures: what it knows without looking

    @property
    def learns(self) -> bool:
        """Whether weights are trained."""
        return self in (Way.SFT, Way.GRPO_ANSWER, Way.GRPO_RANDOM, Way.GRIT)

    @property
    def is_after_grit(self) -> bool:
        """Whether it asks the model that grit trained with the same seed."""
        return self in (Way.DIRECT_AFTER, Way.BLIND)


REWARDS: dict[Way, RewardSet] = {
    Way.GRPO_ANSWER: "answer_only",
    Way.GRPO_RANDOM: "random",
    Way.GRIT: "paper",
}


class OwnWay(str):
    """An objective of the table's own, by its name: GRPO with rewards, rows or keys that differ from grit's."""

    learns = True
    is_after_grit = False

    @property
    def value(self) -> str:
        """The name, as a `Way` has it."""
        return str(self)


AnyWay = Way | OwnWay
