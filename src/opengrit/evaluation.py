"""From a model's name and data sets to a run folder of records: what `opengrit eval` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from opengrit.config import Eval, Model, Source, Strategy
from opengrit.data import load_examples, require_readable
from opengrit.errors import DataError, RecipeError, RunError
from opengrit.evaluate import evaluate
from opengrit.judge import RuleJudge
from opengrit.rewards import Rubric
from opengrit.rollout import Exam
from opengrit.rundir import RECIPE, RunDir
from opengrit.samplers import Sampler, SamplingSettings
from opengrit.types import Example, Record


class Served(BaseModel):
    """A model behind an OpenAI-compatible endpoint; `model.name` is its name there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    frame: str | None  # a model type (qwen2_5_vl), or pixels, thousand or unit; an endpoint does not tell
    api_key_env: str = "OPENAI_API_KEY"  # the name of a variable; the key itself stands nowhere


class EvalRecipe(BaseModel):
    """Everything an evaluation does; saved with it, and what a continued evaluation is compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Model
    data: tuple[Source, ...]
    strategy: Strategy = "grounded"
    eval: Eval = Eval()
    limit: int | None = None
    seed: int = 0
    endpoint: Served | None = None

    def resolved_yaml(self) -> str:
        """The recipe with every default written out; without an endpoint where it has none."""
        left_out = {"endpoint"} if self.endpoint is None else set()
        written = self.model_dump(mode="json", exclude=left_out)
        return yaml.safe_dump({"evaluate": written}, sort_keys=False)


def run_evaluation(
    recipe: EvalRecipe, out: str | Path, *, quiet: bool = False
) -> tuple[RunDir, list[Record]]:
    """The run folder and its records; an evaluation that stands half done in `out` goes on where it stopped.

    Data is read and its pictures are opened before the model loads, and nothing is written before it has loaded.
    Raises DataError, ModelError, and RunError where `out` holds another run.
    """
    examples = _examples(recipe)
    if recipe.endpoint is None:
        from opengrit.models import resolve

        resolve(recipe.model.name)
    started = os.path.isfile(Path(out) / RECIPE)
    RunDir.check(out, recipe=recipe.resolved_yaml(), resume=started)
    asked = _in_memory(recipe) if recipe.endpoint is None else _behind(recipe.endpoint, recipe.model)
    run = RunDir.create(out, recipe=recipe.resolved_yaml(), resume=started, seeds={"sampling": recipe.seed})
    try:
        records = evaluate(
            asked.sampler,
            examples,
            exam=Exam(recipe.strategy, asked.frame, RuleJudge(), Rubric.named("paper")),
            settings=SamplingSettings(
                temperature=recipe.eval.temperature,
                max_new_tokens=recipe.eval.max_completion_length,
                seed=recipe.seed,
            ),
            run=run,
            samples_per_question=recipe.eval.samples,
            questions_per_batch=recipe.eval.batch_size,
            quiet=quiet,
        )
    finally:
        asked.close()
    return run, records


@dataclass(frozen=True, slots=True)
class _Asked:
    """What answers the questions, and the frame it writes in."""

    sampler: Sampler
    frame: str
    close: Callable[[], None] = lambda: None


def _in_memory(recipe: EvalRecipe) -> _Asked:
    from opengrit.models import load
    from opengrit.samplers.transformers import TransformersSampler

    loaded = load(**recipe.model.model_dump())
    return _Asked(TransformersSampler(loaded, vision_is_fixed=True), loaded.frame)


def _behind(endpoint: Served, model: Model) -> _Asked:
    from opengrit.samplers.endpoint import EndpointSampler

    if model.max_tiles is not None:
        raise RecipeError(
            f"max_tiles is set where the model is served, got {model.max_tiles} for {endpoint.url}; leave it out"
        )
    sampler = EndpointSampler.connect(
        endpoint.url,
        model=model.name,
        frame=endpoint.frame,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        api_key_env=endpoint.api_key_env,
    )
    return _Asked(sampler, sampler.frame, sampler.close)


def _examples(recipe: EvalRecipe) -> list[Example]:
    loaded = [load_examples(source.spec, source.images) for source in recipe.data]
    examples = [example for group in loaded for example in group[: recipe.limit]]
    if not examples:
        raise DataError(
            "an evaluation asks at least one question, the data sets hold none; name other files with --data"
        )
    require_readable(examples)
    return examples


def sources_of(data: Sequence[str], images: Sequence[Path]) -> tuple[Source, ...]:
    """The data sets of --data and --images: a folder once for all files, or once for each file in their order."""
    files = [spec for spec in data if spec.endswith(".jsonl")]
    if images and not files:
        raise RunError(
            f"--images is the picture folder of .jsonl files, none is named beside {images[0]}; leave --images out"
        )
    if len(images) not in (0, 1, len(files)):
        raise RunError(
            f"--images is given once for all files or once for each, got {len(images)} for {len(files)} files; "
            "repeat it in the files' order"
        )
    folders = list(images) * len(files) if len(images) == 1 else list(images)
    folder_of = dict(zip(files, folders, strict=False)) if folders else {}
    return tuple(
        Source(file=spec, images=str(folder_of[spec]) if spec in folder_of else None)
        if spec in files
        else Source(name=spec)
        for spec in data
    )
