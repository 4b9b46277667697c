"""From a model's name and data sets to a run folder of records: what `opengrit eval` does."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opengrit.core.collector import paused_collector
from opengrit.core.errors import DataError, RecipeError, RunError
from opengrit.core.escaping import harmless
from opengrit.core.types import Example, Record, Unjudged
from opengrit.data import load_examples, require_readable
from opengrit.data.fingerprint import fingerprint
from opengrit.evaluation.blind import BlindSampler
from opengrit.evaluation.continuing import (
    ASKED,
    check_answered,
    check_data,
    check_model,
    check_own_code,
    with_rows_of_now,
)
from opengrit.evaluation.evaluator import agreement_with_rule, evaluate
from opengrit.evaluation.rollout import EvaluationProtocol, awaits_verdict, case_of, record_id
from opengrit.grounding.prompts import strategy_named
from opengrit.judges import BatchJudge, Case
from opengrit.judges.agreement import Agreement
from opengrit.judges.answers import is_box_answer
from opengrit.judges.breaker import Breaker
from opengrit.judges.cache import CachedJudge
from opengrit.judges.settings import open_judge
from opengrit.models.sticker_models import tell_what_it_knows
from opengrit.recipes.evaluation_recipe import EvalRecipe, Served
from opengrit.recipes.model_section import Model
from opengrit.recipes.own_files import own_files
from opengrit.runs.data_file import write_data
from opengrit.runs.folder import RECIPE, RunDir
from opengrit.runs.origin import ModelKind, ModelOrigin, Origin, data_origin, write_origin
from opengrit.runs.own_code import keep_own_code
from opengrit.sampling import Asked, Sampled, Sampler, SamplingSettings, Unsampled

if TYPE_CHECKING:
    from opengrit.sampling.endpoint import EndpointSampler

_log = logging.getLogger(__name__)


def run_evaluation(
    recipe: EvalRecipe,
    out: str | Path,
    *,
    num_processes: int = 1,
    judge_again: bool = False,
    quiet: bool = False,
) -> tuple[RunDir, list[Record]]:
    """The run folder and its records; an unfinished evaluation in `out` resumes where it stopped.

    Data is read and its pictures are opened before the model loads, and nothing is written before it has loaded.
    `num_processes` models answer at once, each in a process of its own; the records do not depend on how many.
    `judge_again` judges the answers that are there once more, by the annotation of the rows as it is now.
    Raises DataError, ModelError, RecipeError, and RunError where `out` holds another run, or answers to other rows or
    pictures than those of now (but for their annotation with `judge_again`), or a process died.
    """
    rubric, own = recipe.rubric(), own_files(recipe)
    strategy = strategy_named(recipe.strategy)
    examples = _examples(recipe)
    if num_processes < 1 or (num_processes > 1 and recipe.endpoint is not None):
        raise RecipeError(
            f"--num-processes is at least 1, and exactly 1 with --endpoint, got {num_processes}; leave it out"
        )
    model = model_origin(recipe)
    started = os.path.isfile(Path(out) / RECIPE)
    text = recipe.text_for(RunDir.open(out).recipe if started else None)
    RunDir.check(out, recipe=text, resume=started)
    data = {ASKED: fingerprint(examples)}
    known: list[Record] = []
    if started:
        check_own_code(Path(out), own)
        check_model(Path(out), model)
        check_data(Path(out), data, judge_again=judge_again)
        known = list(RunDir.open(out).records())
        check_answered(Path(out), known, examples, samples=recipe.eval.samples, judge_again=judge_again)
    elif judge_again:
        raise RunError(f"--judge-again needs an existing evaluation, {out} holds none; leave it out")
    frame = _frame_where_all_is_answered(known, examples, samples=recipe.eval.samples)
    with (
        nullcontext(OpenModel([NoModel()], frame)) if frame else open_model(recipe, num_processes) as asked,
        open_judge(recipe.judge, breaker=Breaker()) as judge,
    ):
        model = model_origin(recipe)  # of a hub id, the revision is known by now
        if started:
            check_model(Path(out), model)
        run = RunDir.create(out, recipe=text, resume=started, seeds={"sampling": recipe.seed})
        write_data(run.path, data)
        origins = tuple(
            data_origin(ASKED, source.spec, source.images, table=source.table) for source in recipe.data
        )
        write_origin(run.path, Origin(os.getcwd(), model, origins, keep_own_code(run.path, own)))
        if isinstance(judge, CachedJudge):
            _log_estimate(
                judge, _cases_to_judge(known, examples, samples=recipe.eval.samples, all_again=judge_again)
            )
        if recipe.endpoint is None and not frame:
            tell_what_it_knows(recipe.model.name, examples)
        first, *more = map(BlindSampler, asked.samplers) if recipe.blind else asked.samplers
        records = evaluate(
            first,
            examples,
            protocol=EvaluationProtocol(strategy, asked.frame, judge, rubric, recipe.system),
            settings=SamplingSettings(
                temperature=recipe.eval.temperature,
                max_new_tokens=recipe.eval.max_completion_length,
                seed=recipe.seed,
            ),
            run=run,
            samples_per_question=recipe.eval.samples,
            questions_per_batch=recipe.eval.batch_size,
            more_samplers=more,
            judge_again=judge_again,
            quiet=quiet,
        )
        tell_cost(judge)
    return run, records


def _frame_where_all_is_answered(
    known: Sequence[Record], examples: Sequence[Example], *, samples: int
) -> str | None:
    """The frame of the answers where no question is left to ask, so that no model is loaded; None where one is."""
    frames = {record.id: record.frame for record in known if record.failure is None}
    wanted = [record_id(example, sample=i) for example in examples for i in range(samples)]
    return frames[wanted[0]] if all(name in frames for name in wanted) else None


class NoModel:
    """Stands for a model where nothing is asked of it."""

    def sample(self, questions: Sequence[Asked], **_: object) -> list[list[Sampled | Unsampled]]:
        raise AssertionError(f"nothing is left to ask, {questions[0].id} is asked")


def model_origin(recipe: EvalRecipe) -> ModelOrigin:
    """The model that a recipe names. Raises ModelError where its name stands for nothing."""
    if recipe.endpoint is not None:
        return ModelOrigin(recipe.model.name, ModelKind.ENDPOINT)
    from opengrit.models.identity import identity_of

    return identity_of(recipe.model.name)


def judging_lines(recipe: EvalRecipe, records: Sequence[Record]) -> list[str]:
    """What is reported about the judging when an evaluation ends; nothing where the rule judged."""
    if recipe.judge.kind == "rule":
        return []
    lines = [_agreement_line(agreement_with_rule(records))]
    waiting = [record.verdict for record in records if awaits_verdict(record)]
    if waiting:
        reasons = Counter(verdict.reason for verdict in waiting if isinstance(verdict, Unjudged))
        most = harmless(" ".join(reasons.most_common(1)[0][0].split()))  # a judge's server may have worded it
        lines.append(
            f"unjudged: {len(waiting)} answers; the same command judges them again without asking the model; most "
            f"frequent reason: {most}"
        )
    return lines


def _agreement_line(found: Agreement) -> str:
    if found.share is None:
        return "agreement of rule and judge: no answer was judged by both"
    kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
    return (
        f"agreement of rule and judge: {100 * found.share:.1f} % of {found.n} answers, Cohen's kappa {kappa}; "
        f"right for the rule alone {found.only_first}, for the judge alone {found.only_second}"
    )


def _cases_to_judge(
    records: Sequence[Record], examples: Sequence[Example], *, samples: int, all_again: bool
) -> list[Case]:
    """The most that a judge is going to be asked: a right answer to each question that is still to be asked, and each
    answer that nobody has judged (`all_again`: each answer). The number at its end keeps equal ones apart, as the answers may differ.
    """
    known = {record.id: record for record in records}
    found = []
    for number, (example, sample) in enumerate((e, i) for e in examples for i in range(samples)):
        record = known.get(record_id(example, sample=sample))
        if record is not None and record.failure is None:
            case = case_of(with_rows_of_now(record, example))
            found += [case] if case is not None and (all_again or awaits_verdict(record)) else []
        elif not is_box_answer(example.answer):
            given = f"{example.answer} {number}"
            also = example.also_accepted
            found.append(Case(example.question, expected=example.answer, given=given, also_accepted=also))
    return found


def _log_estimate(judge: CachedJudge, cases: Sequence[Case]) -> None:
    due = judge.estimate(cases)
    _log.info(
        "judge: at most about %d requests with %d tokens%s",
        due.requests,
        due.prompt_tokens + due.completion_tokens,
        _priced(due.cost),
    )


def tell_cost(judge: BatchJudge) -> None:
    """Logs what judging by a model came to; nothing for the others, which cost nothing."""
    if not isinstance(judge, CachedJudge):
        return
    counts = judge.counts
    _log.info(
        "judge: %d answers asked about, %d known before, %d unjudged%s",
        counts.asked,
        counts.known,
        counts.unjudged - counts.fell_back,
        _priced(judge.cost),
    )


def _priced(cost: float | None) -> str:
    return "" if cost is None else f", cost {cost:.4f} (in the currency of the prices)"


@dataclass(frozen=True, slots=True)
class OpenModel:
    """The samplers of the model that is asked, at least one, and the frame it writes in."""

    samplers: Sequence[Sampler]
    frame: str


@contextmanager
def open_model(recipe: EvalRecipe, num_processes: int) -> Iterator[OpenModel]:
    if recipe.endpoint is not None:
        at_once = recipe.eval.batch_size * recipe.eval.samples
        sampler = _served_sampler(recipe.endpoint, recipe.model, concurrency=at_once)
        try:
            yield OpenModel([sampler], sampler.frame)
        finally:
            sampler.close()
        return
    if num_processes > 1:
        from opengrit.evaluation.processes import open_samplers

        with open_samplers(recipe.model.model_dump(mode="json"), count=num_processes) as samplers:
            yield OpenModel(samplers, samplers[0].frame)
        return
    with paused_collector():
        from opengrit.models.loading import load_for_inference
        from opengrit.sampling.transformers_engine import TransformersSampler

    loaded = load_for_inference(recipe.model)
    yield OpenModel([TransformersSampler(loaded, vision_is_fixed=True)], loaded.frame)


def _served_sampler(endpoint: Served, model: Model, *, concurrency: int) -> EndpointSampler:
    from opengrit.sampling.endpoint import EndpointSampler

    if model.max_tiles is not None:
        raise RecipeError(
            f"with an endpoint, max_tiles is set on the server, got {model.max_tiles} for {endpoint.url}; leave it out"
        )
    return EndpointSampler.connect(
        endpoint.url,
        model=model.name,
        frame=endpoint.frame,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        api_key_env=endpoint.api_key_env,
        concurrency=concurrency,
    )


def _examples(recipe: EvalRecipe) -> list[Example]:
    loaded = [load_examples(source.spec, source.images, table=source.table) for source in recipe.data]
    examples = [example for group in loaded for example in group[: recipe.limit]]
    if not examples:
        raise DataError(
            "an evaluation asks at least one question, the data sets hold none; name other files with --data"
        )
    require_readable(examples)
    return examples
