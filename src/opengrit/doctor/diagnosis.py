"""`opengrit doctor`: looks at a recipe, its data, its model and the machine before a run, and says what would waste it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from opengrit.core.errors import OpenGritError
from opengrit.doctor.context import Context, Environment
from opengrit.doctor.data import examine_data
from opengrit.doctor.environment import examine_environment
from opengrit.doctor.findings import Area, Finding, would_be_wasted
from opengrit.doctor.judging import examine_judge
from opengrit.doctor.model import examine_model, facts_of
from opengrit.doctor.prompts import examine_prompts
from opengrit.doctor.resources import examine_disk, examine_memory, examine_processes
from opengrit.doctor.samples import examine_samples
from opengrit.doctor.settings import examine_settings
from opengrit.recipes.model_section import Model
from opengrit.recipes.training_recipe import Recipe
from opengrit.sampling import Sampler

if TYPE_CHECKING:
    from opengrit.models.families import Loaded

_SECTIONS: dict[Area, Callable[[Context], Iterator[Finding]]] = {
    Area.ENVIRONMENT: examine_environment,
    Area.RECIPE: examine_settings,
    Area.DATA: examine_data,
    Area.MODEL: examine_model,
    Area.PROMPTS: examine_prompts,
    Area.SAMPLES: examine_samples,
    Area.JUDGE: examine_judge,
    Area.MEMORY: examine_memory,
    Area.DISK: examine_disk,
    Area.PROCESSES: examine_processes,
}
QUESTIONS, SAMPLES = 8, 8


def _load(model: Model) -> Loaded:
    from opengrit.models.loading import load_for_inference

    return load_for_inference(model)


def _sampler_of(loaded: Loaded) -> Sampler:
    from opengrit.sampling.transformers_engine import TransformersSampler

    return TransformersSampler(loaded, vision_is_fixed=True)


def diagnose(
    recipe: Recipe,
    *,
    environment: Environment | None = None,
    out: Path | None = None,
    quick: bool = False,
    num_questions: int = QUESTIONS,
    load: Callable[[Model], Loaded] = _load,
    sampler_of: Callable[[Loaded], Sampler] = _sampler_of,
    on_area: Callable[[Area], None] = lambda area: None,
) -> Iterator[Finding]:
    """Every finding, as it is made; `on_area` is called with each area before it is looked at.

    Nothing is written, downloaded or trained. `quick` leaves out what needs the model. A dry run samples completions of
    `num_questions` questions: eight of each, or as many as a group has where that is more.
    """
    context = Context(
        recipe=recipe,
        environment=environment or Environment.current(),
        out=out,
        quick=quick,
        num_questions=num_questions,
        num_samples=max(SAMPLES, recipe.train.num_generations),
        load=load,
        sampler_of=sampler_of,
        facts=facts_of(recipe.model.name),
    )
    for area, section in _SECTIONS.items():
        on_area(area)
        for finding in section(context):
            context.findings.append(finding)
            yield finding
    yield from _training_checks(context)


def _training_checks(context: Context) -> Iterator[Finding]:
    """What `opengrit train` itself would refuse and nothing above has found; left out where something failed already."""
    if context.quick or not context.environment.is_current or would_be_wasted(context.findings):
        return
    from opengrit.training.settings import grpo_config
    from opengrit.training.trainable_weights import check_model

    try:
        check_model(context.recipe.model, context.recipe.lora)
        with tempfile.TemporaryDirectory() as scratch:
            grpo_config(context.recipe.train, scratch)
    except OpenGritError as error:
        yield Area.PROCESSES.error("opengrit train", error)
