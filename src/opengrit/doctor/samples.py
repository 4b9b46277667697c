"""The doctor on samples of the base: what they would earn, whether groups differ, stops, and whose frame the boxes fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from opengrit.core.boxes import union_iou
from opengrit.core.errors import JudgeError, RewardError
from opengrit.core.types import Example, Finish, Record, Rejection
from opengrit.doctor.context import Context
from opengrit.doctor.findings import Area, Finding
from opengrit.doctor.model import unit_of
from opengrit.evaluation.metrics import Quantity, follows_format, num_boxes, right
from opengrit.evaluation.metrics.estimates import Estimate, mean_of
from opengrit.evaluation.metrics.quantities import is_complete
from opengrit.evaluation.rollout import EvaluationProtocol, judged, roll_out
from opengrit.grounding.frames import Frame, Unit
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import asked_for
from opengrit.judges import RuleJudge
from opengrit.judges.settings import own_judge
from opengrit.rewards.protocol import Requirement
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import SamplingSettings

_AREA = Area.SAMPLES
_STOP = ("</answer>",)  # as in training
_CUT, _MOSTLY_CUT = 0.1, 0.5  # of the samples
_FLAT, _ALL_FLAT = 0.6, 0.95  # of the groups
_NOTHING = 1e-6
_BAD_IOU, _GOOD_IOU = 0.05, 0.15
_MOSTLY_ANOTHER_UNIT = 0.5  # of the boxes
_FAR_BETTER = 3.0  # times the IoU under the recipe's frame


def examine_samples(context: Context) -> Iterator[Finding]:
    """A dry run: a few questions, several completions each, scored and not learned from."""
    if context.loaded is None or not context.examples:
        yield _AREA.skipped(
            "samples", context.why_without_model if context.examples else "no row can be used"
        )
        return
    if context.rubric is None:
        yield _AREA.skipped("samples", "your own code cannot be used: see above")
        return
    try:
        context.groups = _sample(context, context.rubric.of_first_answers())
    except (RewardError, JudgeError) as error:
        yield _AREA.error("judge" if isinstance(error, JudgeError) else "reward", error)
        return
    records = [record for group in context.groups for record in group]
    measured = [record for record in records if record.failure is None]
    if not measured:
        yield _AREA.fail("samples", f"no completion could be sampled: {records[0].failure}", "see above")
        return
    yield _stops(context, measured)
    yield from _format(context, measured)
    yield from _reward(context, measured)
    yield _groups(context)
    yield from _units(context, measured)
    yield from _frames(context, measured)


def _sample(context: Context, rubric: Rubric) -> list[list[Record]]:
    """Completions sampled and scored as in training, but for a judge that costs: the rule stands in for it, and it is
    asked once, below.
    """
    assert context.loaded is not None
    recipe, train = context.recipe, context.recipe.train
    judge = own_judge(recipe.judge) if recipe.judge.kind == "own" else RuleJudge()
    protocol = EvaluationProtocol(context.strategy, context.loaded.frame, judge, rubric, recipe.system)
    settings = SamplingSettings(
        temperature=train.temperature,
        top_p=train.top_p,
        top_k=train.top_k,
        max_new_tokens=train.max_completion_length,
        seed=train.seed,
        stop=_STOP,
    )
    groups = roll_out(
        context.sampler_of(context.loaded),
        spread(context.examples, context.num_questions),
        protocol=protocol,
        samples_per_question=context.num_samples,
        settings=settings,
    )
    return [judged(group, protocol=protocol) for group in groups]


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most so many examples, evenly spaced."""
    if len(examples) <= most:
        return list(examples)
    return [examples[i * len(examples) // most] for i in range(most)]


def _stops(context: Context, records: Sequence[Record]) -> Finding:
    ends = Counter(record.completion.finish for record in records)
    n, cut = len(records), ends[Finish.LENGTH]
    limit = context.recipe.train.max_completion_length
    found = (
        f"of {n} samples {ends[Finish.STOP]} stop at </answer>, {ends[Finish.EOS]} at the model's own end, and {cut} are "
        f"cut off at {limit} tokens"
    )
    remedy = (
        "raise train.max_completion_length; if they continue after their answer, the base does not know the format: "
        "fine-tune first (opengrit sft)"
    )
    why = "truncated completions teach nothing"
    return _AREA.graded("stop", found, remedy, fails=cut > _MOSTLY_CUT * n, warns=cut > _CUT * n, why=why)


def _format(context: Context, records: Sequence[Record]) -> Iterator[Finding]:
    if not asked_for(context.strategy, system=context.recipe.system).boxes:
        return
    formed, boxes = _mean(records, follows_format), _mean(records, num_boxes)
    if formed is None or boxes is None:
        return
    found = f"{formed:.0%} of the samples are in full format, with {boxes:.1f} boxes each"
    if boxes == 0.0:
        yield _AREA.warn(
            "format",
            f"{found}: boxes that are never written are never rewarded",
            "ask with strategy grounded-icl, fine-tune first (opengrit sft), or choose a base model that can detect "
            "objects",
        )
    elif formed == 0.0:
        yield _AREA.warn(
            "format",
            f"{found}: the full format must occur by chance before it can be learned",
            "ask with strategy grounded-icl, or sample more (train.num_generations)",
        )
    else:
        yield _AREA.ok("format", found)


def _reward(context: Context, records: Sequence[Record]) -> Iterator[Finding]:
    totals = [record.score.total for record in records if record.score.total is not None]
    if not totals:
        yield _AREA.fail(
            "reward",
            f"none of {len(records)} samples has a reward ({records[0].score.missing})",
            "see the lines above",
        )
        return
    assert context.rubric is not None
    weights = context.rubric.of_first_answers().weights
    parts = {name: _part(records, name) for name in weights}
    listed = ", ".join(f"{name} {value:.2f}" for name, value in parts.items() if value is not None)
    mean = math.fsum(totals) / len(totals)
    found = f"the {len(totals)} samples earn {mean:.2f} on average, {min(totals):.2f} to {max(totals):.2f} ({listed})"
    if context.recipe.judge.kind not in ("rule", "own"):
        found += "; judged by rule here"
    if max(map(abs, totals)) < _NOTHING:
        yield _AREA.fail(
            "reward",
            f"{found}: if all earn 0, nothing is learned",
            "check that the judge can accept answers in the form the prompt asks for (strategy, judge), and reward "
            "what the base sometimes does (tag_walk, bleu1)",
        )
        return
    yield _AREA.ok("reward", found)
    yield from _answers(context, records)
    idle = [name for name, value in parts.items() if value == 0.0 and weights[name]]
    if idle:
        yield _AREA.warn(
            "reward parts",
            f"no sample earns anything from {', '.join(idle)}",
            "it counts as soon as some completion earns it; if none can, remove it from rewards:",
        )


def _answers(context: Context, records: Sequence[Record]) -> Iterator[Finding]:
    """Whether any answer is right where right answers are rewarded; judged by rule here, whoever judges in training."""
    assert context.rubric is not None
    specs = [context.rubric.reward(name).spec for name, weight in context.rubric.weights.items() if weight]
    rewarded = any(Requirement.VERDICT in spec.needs for spec in specs)
    opinions = [value for record in records if (value := right(record)) is not None]
    if not rewarded or not opinions or any(opinions):
        return
    by_rule = context.recipe.judge.kind in ("rule", "own")
    yield _AREA.graded(
        "answers of the base",
        f"none of {len(opinions)} judged samples is right",
        "choose a base that knows such pictures, or ask what it can sometimes answer (strategy, easier rows); look at "
        "some answers first (opengrit ask)",
        fails=by_rule,
        warns=True,
        why="answers that are never right teach nothing but the format",
        why_warn="the rule judged them here; the recipe's judge may accept more of them",
    )


def _groups(context: Context) -> Finding:
    size = context.recipe.train.num_generations
    groups = [[record.score.total for record in group] for group in context.groups]
    chance = mean_of([flat_chance(group, size=size) for group in groups if len(group) >= size])
    found = f"in about {_percent(chance)} of groups of {size} all completions would earn the same, and teach nothing"
    if chance.value is None or chance.value < _FLAT:
        return _AREA.ok("flat groups", found)
    records = [record for group in context.groups for record in group]
    best = min(_mean(records, right) or 0.0, _mean(records, follows_format) or 0.0) >= 0.9
    cause, remedy = (
        ("nearly all answers are right already: there is nothing left to learn", "train on harder rows")
        if best
        else (
            "samples hardly differ",
            "raise train.temperature or num_generations, or add a reward that comes in steps (tag_walk, bleu1)",
        )
    )
    return _AREA.graded(
        "flat groups", f"{found}; {cause}", remedy, fails=chance.value >= _ALL_FLAT, warns=True
    )


def flat_chance(totals: Sequence[float | None], *, size: int) -> float:
    """The share of all groups of `size` of these samples whose measured totals are all equal, exactly counted.

    None is a sample without a total: it is left out of its group, and a group of nothing else is flat. The share is an
    unbiased estimate (a U-statistic, Hoeffding 1948) of the chance of a flat group for this question.
    """
    if len(totals) < size:
        raise ValueError(f"a group of {size} is taken from at least as many samples, got {len(totals)}")
    missing = sum(total is None for total in totals)
    values = Counter(round(total, 5) for total in totals if total is not None)
    empty = math.comb(missing, size)  # counted with each value, and once by itself
    flat = sum(math.comb(n + missing, size) - empty for n in values.values()) + empty
    return flat / math.comb(len(totals), size)


def _percent(share: Estimate) -> str:
    if share.value is None:
        return "an unknown share"
    if share.low is None or share.low == share.high:  # an interval without width says nothing
        return f"{share.value:.0%} (of {share.n} question{'s' if share.n > 1 else ''})"
    return f"{share.value:.0%} (95 % interval {share.low:.0%} to {share.high:.0%}, {share.n} questions)"


def _units(context: Context, records: Sequence[Record]) -> Iterator[Finding]:
    """How many of the boxes are written in another unit than the frame's."""
    assert context.loaded is not None
    written = sum(len(r.transcript.pointings) + len(r.transcript.rejected) for r in records)
    another = sum(one.reason is Rejection.ANOTHER_UNIT for r in records for one in r.transcript.rejected)
    if not another:
        return
    found = (
        f"{another} of the {written} boxes in {len(records)} samples are not in the unit of the frame "
        f"{context.loaded.frame}"
    )
    yield _AREA.graded(
        "unit of the boxes",
        found,
        "if this model writes fractions of the picture, set model.frame: unit; otherwise teach it the frame (opengrit "
        "sft)",
        fails=another > _MOSTLY_ANOTHER_UNIT * written,
        warns=True,
        why="fractions, per cent, or pixels; they are rejected, and earn nothing",
    )


def _frames(context: Context, records: Sequence[Record]) -> Iterator[Finding]:
    """The boxes of rows whose boxes are known, read in the recipe's frame and in the others."""
    assert context.loaded is not None
    pointed = [r for r in records if is_complete(r) and r.example.boxes and _points(r)]
    if not pointed:
        yield _AREA.skipped(
            "boxes", "no sample has a box in a row with known boxes: the frame cannot be checked"
        )
        return
    chosen = context.loaded.frame
    ious = iou_by_unit(pointed)
    own, others = ious[unit_of(chosen)], {unit: v for unit, v in ious.items() if unit != unit_of(chosen)}
    best = max(others, key=lambda unit: others[unit])
    found = (
        f"read in the frame {chosen} ({unit_of(chosen)}) the boxes of {len(pointed)} samples have an IoU of {own:.2f} with "
        f"the true ones; " + ", ".join(f"in {unit} {value:.2f}" for unit, value in others.items())
    )
    remedy = f"if this model writes {best}, set model.frame: {best}; look at some boxes first (opengrit ask --draw)"
    if own < _BAD_IOU and others[best] >= _GOOD_IOU:
        yield _AREA.fail("frame of the samples", f"{found}: the boxes are read in the wrong frame", remedy)
    elif others[best] >= _GOOD_IOU and others[best] > _FAR_BETTER * own:
        yield _AREA.warn("frame of the samples", f"{found}: another frame fits far better", remedy)
    elif own < _BAD_IOU:
        yield _AREA.warn(
            "frame of the samples",
            f"{found}: they fit in no frame",
            "the base does not find objects in these pictures; check that the rows' boxes are right, and try larger "
            "pictures (model.min_pixels)",
        )
    else:
        yield _AREA.ok("frame of the samples", found)


def iou_by_unit(records: Sequence[Record]) -> Mapping[str, float]:
    """The mean grounding IoU of records with true boxes, read as pixels, thousandths and in the unit square."""
    return {
        unit.value: math.fsum(_iou_in(record, unit) for record in records) / len(records) for unit in Unit
    }


def _iou_in(record: Record, unit: Unit) -> float:
    frame = Frame.named(unit.value, record.seen_size)
    return union_iou(parse(record.completion.text, frame).boxes, record.example.boxes)


def _points(record: Record) -> bool:
    return bool(record.transcript.pointings or record.transcript.rejected)


def _mean(records: Sequence[Record], quantity: Quantity) -> float | None:
    values = [value for record in records if (value := quantity(record)) is not None]
    return math.fsum(values) / len(values) if values else None


def _part(records: Sequence[Record], name: str) -> float | None:
    return _mean(records, lambda record: record.score.parts.get(name))
