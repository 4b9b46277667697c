"""Small trainers on tiny random models, as several tests need them."""

from __future__ import annotations

import tiny_random
import torch
from trl import GRPOConfig

from opengrit.core.types import Unjudged
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.training.trainer import GritTrainer

FAMILIES = [tiny_random.qwen, tiny_random.internvl]
RUBRIC = Rubric.from_weights({"tag_walk": 1.0, "answer_tag": 0.5, "repetition": 0.25})


class NoJudge:
    """A judge that is down."""

    def judge(self, question, *, expected, given):
        return Unjudged("out of order")

    def judge_many(self, cases, *, deadline_seconds=None):
        return [Unjudged("out of order") for _ in cases]


def config(folder, **changes):
    settings = {
        "output_dir": str(folder / "unused"), "use_cpu": True, "bf16": False, "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2, "num_generations": 4, "max_completion_length": 10, "max_steps": 2,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False,
        "learning_rate": 1e-2, "beta": 0.0, "loss_type": "grpo", "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return GRPOConfig(**{**settings, **changes})


def trainer(
    folder,
    *,
    family=tiny_random.qwen,
    rows=4,
    judge=None,
    rubric=RUBRIC,
    run=None,
    loaded=None,
    extra=None,
    **changes,
):
    (folder / "pictures").mkdir(exist_ok=True)
    loaded = loaded or tiny_random.talkative(family())
    return GritTrainer(
        loaded,
        tiny_random.examples(folder / "pictures", rows),
        args=config(folder, **changes),
        protocol=EvaluationProtocol("direct", loaded.frame, judge or RuleJudge(), rubric),
        run=run,
        **(extra or {}),
    )


def new_run(folder, name="run"):
    return RunDir.create(folder / name, recipe="a: 1\n")


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
