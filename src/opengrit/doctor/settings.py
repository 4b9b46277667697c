"""The doctor on the recipe: settings that are possible and waste a run."""

from __future__ import annotations

import math
from collections.abc import Iterator

from opengrit.core.errors import RecipeError
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding
from opengrit.grounding.prompts import asked_for, strategy_named
from opengrit.judges.settings import own_judge
from opengrit.recipes.own_files import own_files
from opengrit.recipes.training_recipe import Recipe
from opengrit.rewards.overlap import OVERLAP_REWARDS

_AREA = Area.RECIPE

# GRIT trains 2 to 3 billion parameters at 2e-6 (section 4.2), our demo 1.9 million at 1e-4 (docs/tiny-models.md): between
# the two a rate grows about as the root of the model shrinks. Adapters take some ten times more (LoRA Without Regret).
_RATE, _SIZE = 2e-6, 3e9
_LORA_FACTOR = 10.0
_FAR, _ABSURD, _IDLE = 10.0, 100.0, 0.001  # times the usual rate

_COLD, _COOL = 0.1, 0.5  # temperatures at which samples hardly differ, and may differ too little
_LONG_RUN = 100  # steps one would not like to lose
_SHORTEST_REPLY = 40  # tokens of thought, one box, rethinking and answer; tiny models take 30


def examine_settings(context: Context) -> Iterator[Finding]:
    """The recipe by itself, and against the model's size."""
    recipe = context.recipe
    yield from _own_code(context)
    wrong = [*_rate(context), *_sampling(context), *_prompt(context), *_saving(recipe)]
    yield from wrong
    if not wrong:
        train = recipe.train
        yield _AREA.ok(
            "settings",
            f"{train.max_steps} steps of {train.questions_per_step} questions x {train.num_generations} completions, "
            f"learning rate {train.learning_rate:g}, temperature {train.temperature:g}: nothing unusual",
        )


def _own_code(context: Context) -> Iterator[Finding]:
    """Names the files that a run would execute, and executes them: what they define is checked."""
    try:
        files = own_files(context.recipe)
        if files:
            listed = ", ".join(f"{file.path} (SHA-256 {file.sha256[:12]})" for file in files)
            yield _AREA.ok(
                "own code", f"this recipe uses your own files, and runs the Python in them: {listed}"
            )
        context.strategy = strategy_named(context.recipe.strategy)
        if context.recipe.judge.kind == "own":
            own_judge(context.recipe.judge)
        context.rubric = context.recipe.rubric()
    except RecipeError as error:
        yield _AREA.error("own code", error)


def usual_rate(num_parameters: int, *, lora: bool) -> float:
    """A learning rate that is usual for GRPO on a model of that many parameters; a rule of thumb, within a factor of 3."""
    rate = _RATE * math.sqrt(_SIZE / num_parameters)
    return rate * _LORA_FACTOR if lora else rate


def _rate(context: Context) -> Iterator[Finding]:
    if context.facts is None:
        return
    recipe, size = context.recipe, context.facts.parameters()
    usual = usual_rate(size, lora=recipe.lora is not None)
    rate = recipe.train.learning_rate
    found = f"train.learning_rate is {rate:g}, usual for {_in_words(size)} parameters is about {usual:.0e}"
    found += " with adapters" if recipe.lora is not None else ""
    if rate > _FAR * usual or rate < _IDLE * usual:
        yield _AREA.graded(
            "learning rate",
            found,
            f"try {usual:.0e}",
            fails=rate > _ABSURD * usual,
            warns=True,
            why="the model would collapse",
            why_warn="the model may collapse" if rate > usual else "nothing would change",
        )


def _in_words(number: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:,}"


def _sampling(context: Context) -> Iterator[Finding]:
    recipe = context.recipe
    temperature = recipe.train.temperature
    if temperature < _COLD or recipe.train.top_k == 1:
        setting = f"train.temperature {temperature:g}" if temperature < _COLD else "train.top_k 1"
        yield _AREA.fail(
            "temperature",
            f"with {setting} the completions of a group are the same, and equal rewards teach nothing",
            "set train.temperature near 1 and train.top_k: 0",
        )
    elif temperature < _COOL:
        yield _AREA.warn(
            "temperature",
            f"with train.temperature {temperature:g} the completions of a group differ little",
            "set it near 1 (GRIT: 0.9), unless the share of flat groups below is small",
        )
    length = recipe.train.max_completion_length
    in_format = context.rubric is not None and asked_for(context.strategy, system=recipe.system).boxes
    if in_format and length < _SHORTEST_REPLY:
        yield _AREA.fail(
            "completion length",
            f"train.max_completion_length is {length}, but a reply in the format takes at least {_SHORTEST_REPLY} "
            "tokens: most would be truncated, and truncated completions teach nothing",
            "raise it (GRIT: 1000)",
        )


def _prompt(context: Context) -> Iterator[Finding]:
    if context.rubric is None:
        return
    recipe = context.recipe
    asks_for_tags = {
        "tag_pairs",
        "tag_walk",
        "answer_tag",
        "points_before_rethinking",
        "box_count",
        "grounding_iou",
        *(reward.__name__ for reward in OVERLAP_REWARDS),
    }
    earned = {name for name, weight in context.rubric.weights.items() if weight > 0}
    if recipe.strategy == "direct" and earned & asks_for_tags:
        yield _AREA.warn(
            "strategy",
            f"strategy direct asks for no tags and no boxes, but {', '.join(sorted(earned & asks_for_tags))} reward them",
            "set strategy: grounded, or rewards: answer_only",
        )


def _saving(recipe: Recipe) -> Iterator[Finding]:
    train = recipe.train
    if train.max_steps < _LONG_RUN:
        return
    if train.save_steps is None or train.save_steps > train.max_steps:
        yield _AREA.warn(
            "checkpoints",
            f"no checkpoint is written in {train.max_steps} steps (train.save_steps "
            f"{'null' if train.save_steps is None else train.save_steps}): a crash would lose them all",
            "set train.save_steps: 50",
        )
