"""Does the evidence matter? Each answer asked again with what it pointed at greyed out, with all else, with chance boxes.

A probe greys part of a picture and asks the same question again, with the same prompt, sampler and settings:

* `occlude` greys what the model pointed at: an answer that rests on it changes.
* `keep` greys everything else: an answer that rests on it stays.
* `shuffle` greys boxes of the same sizes at random places: the control of `occlude`, for any grey disturbs a model.

What a model pointed at are all boxes its transcript names, in every section, together.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import chain

from PIL import Image, ImageDraw

from opengrit.core.boxes import Box, Size, moved_at_random
from opengrit.core.errors import ImageError, RunError
from opengrit.core.images import open_picture
from opengrit.core.progress import progress_bar
from opengrit.core.types import Example, Finish, Record
from opengrit.evaluation.continuing import with_rows_of_now
from opengrit.evaluation.metrics import BOOTSTRAP_SEED, Estimate, estimate, raw_score
from opengrit.evaluation.metrics.estimates import key_of, seeded_generator
from opengrit.evaluation.rollout import EvaluationProtocol, ask, judged, judged_again, transcribed
from opengrit.judges.answers import is_box_answer, normalise, same_answer
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked, Sampled, Sampler, SamplingSettings, Unsampled

# The same in every picture: a colour taken from the picture would give away what it hides. Half of each channel is near
# the mean that processors take off, so a model sees it as almost nothing.
GREY = (128, 128, 128)
ASKED = "asked"  # what the answers that are probed are called among their probes
SHOWN_EXAMPLES = 4  # most faithful ones, and as many least faithful ones


class Probe(Enum):
    """What is greyed out."""

    OCCLUDE = "occlude"  # what the model pointed at
    KEEP = "keep"  # everything else
    SHUFFLE = "shuffle"  # boxes of the same sizes at random places


class Unprobed(Enum):
    """Why an answer is not probed."""

    FAILED = "the rollout failed"
    TRUNCATED = "truncated"
    NO_ANSWER = "without an answer"
    BOX_ANSWER = "the expected answer is a box, which cannot be compared as text"
    NO_BOXES = "without boxes"


class Lost(Enum):
    """Why a probe's reply cannot be compared with its answer."""

    FAILED = "failed"
    TRUNCATED = "truncated"
    NO_ANSWER = "without an answer"
    NOT_ASKED = "not asked"


# The questions.


def why_unprobed(record: Record) -> Unprobed | None:
    """Why a record cannot be probed; None where it can."""
    if record.failure is not None:
        return Unprobed.FAILED
    if record.completion.finish is Finish.LENGTH:
        return Unprobed.TRUNCATED
    if is_box_answer(record.example.answer):
        return Unprobed.BOX_ANSWER
    if not _answer(record):
        return Unprobed.NO_ANSWER
    return None if record.transcript.boxes else Unprobed.NO_BOXES


def hidden_boxes(record: Record, probe: Probe, *, seed: int) -> tuple[Box, ...]:
    """The boxes of a probe: greyed by `occlude` and `shuffle`, spared by `keep`. Those named twice count once.

    Boxes of `shuffle` cover as many whole pixels as the model's own do. Their places depend on the seed, the data set,
    the example and the sample, and on nothing else.
    """
    boxes = tuple(dict.fromkeys(record.transcript.boxes))
    if probe is not Probe.SHUFFLE:
        return boxes
    example = record.example
    size = example.picture_size
    whole = [_of_pixels(_touched(box, size), size) for box in boxes]
    moved = moved_at_random(whole, seeded_generator(seed, *key_of(example), record.sample))
    return tuple(_on_the_grid(box, size) for box in moved)


def _of_pixels(place: tuple[int, int, int, int], size: Size) -> Box:
    left, top, right, bottom = place
    return Box.from_pixels(left, top, right, bottom, size=size)


def _on_the_grid(box: Box, size: Size) -> Box:
    """The box moved by less than a pixel, so that its edges fall between pixels; it is a whole number of them wide."""
    wide, high = round((box.right - box.left) * size.width), round((box.bottom - box.top) * size.height)
    left = min(round(box.left * size.width), size.width - wide)
    top = min(round(box.top * size.height), size.height - high)
    return _of_pixels((left, top, left + wide, top + high), size)


def greyed(picture: Image.Image, boxes: Iterable[Box], probe: Probe) -> Image.Image:
    """A copy of the picture, of the same size, with the boxes in grey, or for `keep` all but the boxes.

    A box covers every pixel that it touches.
    """
    size = Size(*picture.size)
    places = [_touched(box, size) for box in boxes]
    copy = picture.convert("RGB")
    if probe is Probe.KEEP:
        bare = Image.new("RGB", copy.size, GREY)
        for left, top, right, bottom in places:
            bare.paste(copy.crop((left, top, right, bottom)), (left, top))
        return bare
    pen = ImageDraw.Draw(copy)
    for left, top, right, bottom in places:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=GREY)
    return copy


def _touched(box: Box, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels a box touches; right and bottom are the first ones outside."""
    # Rounded, so that 0.3 * 10 is 3 and not 3.0000000000000004.
    left, top, right, bottom = (round(n, 6) for n in box.to_pixels(size))
    first_x, first_y = min(math.floor(left), size.width - 1), min(math.floor(top), size.height - 1)
    return first_x, first_y, max(math.ceil(right), first_x + 1), max(math.ceil(bottom), first_y + 1)


def probe_id(kind: str, record_id: str) -> str:
    """The id of a record in a probe's run: "occlude/<id>" for a probe, "asked/<id>" for the answer that is probed."""
    return f"{kind}/{record_id}"


def run_probes(
    sampler: Sampler,
    records: Sequence[Record],
    *,
    protocol: EvaluationProtocol,
    settings: SamplingSettings,
    probes: Sequence[Probe] = tuple(Probe),
    run: RunDir,
    seed: int = BOOTSTRAP_SEED,
    questions_per_batch: int = 16,
    quiet: bool = False,
) -> list[Record]:
    """Every record of the run of probes after asking what is not answered in it yet, batch by batch.

    The run holds the answers that are probed, as "asked/<id>", and the reply to each greyed picture, as
    "occlude/<id>", "keep/<id>" and "shuffle/<id>". A probe that failed is asked again by the next call, and one that
    nobody could judge is judged again. Raises RunError where an answer in it has another text than the record of its
    id.
    """
    done = {record.id: record for record in run.records()}
    with run.append_records() as writer:
        for record in records:
            known = done.get(probe_id(ASKED, record.id))
            if known is not None and known.failure is None and known.completion != record.completion:
                raise RunError(
                    f"probes resume with the same answers, {record.id!r} has a different text in {run.path}; choose "
                    "another --out"
                )
            if known is None or known.verdict != record.verdict or known.example != record.example:
                # Judged again, or asked again, or moved since.
                done[probe_id(ASKED, record.id)] = copied = replace(record, id=probe_id(ASKED, record.id))
                writer.write_record(copied)
        probed = [record for record in done.values() if not record.id.startswith(f"{ASKED}/")]
        row_of = {record.id: record.example for record in records}
        probed = [
            with_rows_of_now(record, row_of.get(record.id.partition("/")[2], record.example))
            for record in probed
        ]
        for again in chain(probed, judged_again(probed, protocol=protocol)):
            if again != done[again.id]:
                done[again.id] = again
                writer.write_record(again)
        pending = unasked(records, done, probes)
        with progress_bar(quiet) as progress:
            task = progress.add_task("probing", total=len(pending))
            for start in range(0, len(pending), questions_per_batch):
                batch = pending[start : start + questions_per_batch]
                for found in _ask_batch(sampler, batch, protocol=protocol, settings=settings, seed=seed):
                    done[found.id] = found
                    writer.write_record(found)
                progress.advance(task, len(batch))
    return list(done.values())


def probed_now(
    sampler: Sampler,
    records: Sequence[Record],
    *,
    protocol: EvaluationProtocol,
    settings: SamplingSettings,
    questions_per_batch: int = 16,
) -> list[Record]:
    """What a run of all probes of these records would hold, without a run: nothing is written, nothing continues."""
    asked = [replace(record, id=probe_id(ASKED, record.id)) for record in records]
    pending = [(record, probe) for probe in Probe for record in records if why_unprobed(record) is None]
    for start in range(0, len(pending), questions_per_batch):
        batch = pending[start : start + questions_per_batch]
        asked += _ask_batch(sampler, batch, protocol=protocol, settings=settings, seed=BOOTSTRAP_SEED)
    return asked


def unasked(
    records: Sequence[Record], done: Mapping[str, Record], probes: Sequence[Probe] = tuple(Probe)
) -> list[tuple[Record, Probe]]:
    """What a run of probes, its records by id, has yet to ask about these answers: never asked, or failed."""
    return [
        (record, probe)
        for probe in probes
        for record in records
        if why_unprobed(record) is None and _is_open(done.get(probe_id(probe.value, record.id)))
    ]


def _is_open(known: Record | None) -> bool:
    return known is None or known.failure is not None


def shown(record: Record, probe: Probe, *, seed: int = BOOTSTRAP_SEED) -> Image.Image | Unsampled:
    """The picture of a record as a probe shows it, or why it cannot be shown: it is gone, or not of the size it was."""
    try:
        picture = open_picture(record.example.image)
    except ImageError as error:
        return Unsampled(str(error))
    size = record.example.picture_size
    if picture.size != (size.width, size.height):
        now = f"{picture.width} x {picture.height}"
        return Unsampled(
            f"a picture keeps the size its record says, {size.width} x {size.height}, but {record.example.image} is now "
            f"{now}; restore the old file"
        )
    return greyed(picture, hidden_boxes(record, probe, seed=seed), probe)


def _ask_batch(
    sampler: Sampler,
    batch: Sequence[tuple[Record, Probe]],
    *,
    protocol: EvaluationProtocol,
    settings: SamplingSettings,
    seed: int,
) -> list[Record]:
    questions: list[Asked] = []
    unread: dict[int, Unsampled] = {}
    for place, (record, probe) in enumerate(batch):
        picture = shown(record, probe, seed=seed)
        if isinstance(picture, Unsampled):
            unread[place] = picture
        else:
            questions.append(replace(ask(record.example, protocol=protocol), id=record.id, image=picture))
    answered = iter(sampler.sample(questions, samples_per_question=1, settings=settings) if questions else ())
    found = []
    for place, (record, probe) in enumerate(batch):
        sampled: Sampled | Unsampled = unread[place] if place in unread else next(answered)[0]
        one = transcribed(record.example, sampled, protocol=protocol, sample=record.sample)
        found.append(replace(one, id=probe_id(probe.value, record.id)))
    return judged(found, protocol=protocol)


# The scores.


@dataclass(frozen=True, slots=True)
class Trial:
    """An answer and what became of it under each probe that was asked."""

    asked: Record
    under: Mapping[Probe, Record]

    @property
    def example(self) -> Example:
        """The row that was asked about."""
        return self.asked.example

    def stayed(self, probe: Probe) -> bool | Lost:
        """Whether the answer is still the same under a probe, or why that is not known."""
        found = self.under.get(probe)
        if found is None:
            return Lost.NOT_ASKED
        if found.failure is not None:
            return Lost.FAILED
        if found.completion.finish is Finish.LENGTH:
            return Lost.TRUNCATED
        if not _answer(found):
            return Lost.NO_ANSWER
        return say_the_same(_answer(self.asked), _answer(found), question=self.asked.example.question)

    @property
    def faithfulness(self) -> int | None:
        """How well the answer follows its boxes, -1 to 2; None where a probe is missing.

        One point if it changes when they are greyed, one if it stays when all else is, and one taken off if it
        changes when random boxes are greyed.
        """
        occluded, kept, shuffled = (self.stayed(p) for p in (Probe.OCCLUDE, Probe.KEEP, Probe.SHUFFLE))
        if isinstance(occluded, Lost) or isinstance(kept, Lost) or isinstance(shuffled, Lost):
            return None
        return int(not occluded) + int(kept) - int(not shuffled)


def say_the_same(first: str, second: str, *, question: str) -> bool:
    """Whether two given answers are the same by the rule that compares a given with an expected one.

    The rule takes an explanation after the answer, but only of the given one: so either may be the expected one.
    """
    if normalise(first) == normalise(second) and normalise(first):
        return True
    if is_box_answer(first) or is_box_answer(second):
        return "".join(first.split()) == "".join(second.split())
    return same_answer(first, second, question) or same_answer(second, first, question)


def _answer(record: Record) -> str:
    return (record.transcript.answer or "").strip()


def trials(records: Iterable[Record]) -> tuple[tuple[Trial, ...], Counter[Unprobed]]:
    """The trials in a run of probes, in the order of its answers, and how many answers could not be probed, by reason."""
    asked: dict[str, Record] = {}
    under: dict[str, dict[Probe, Record]] = defaultdict(dict)
    for record in records:
        kind, _, name = record.id.partition("/")
        if kind == ASKED:
            asked[name] = record
        elif kind in {probe.value for probe in Probe}:
            under[name][Probe(kind)] = record
    reasons = Counter(reason for record in asked.values() if (reason := why_unprobed(record)) is not None)
    found = [Trial(record, under[name]) for name, record in asked.items() if why_unprobed(record) is None]
    return tuple(found), reasons


@dataclass(frozen=True, slots=True)
class ProbeScores:
    """The scores of a run of probes. Shares are 0 to 1, differences -1 to 1; the bootstrap samples examples.

    `lost` counts the replies of each probe that cannot be compared, by reason; `compared` those that can.
    """

    num_answers: int  # in the run
    num_probed: int  # of these: complete, with an answer and boxes
    unprobed: Mapping[Unprobed, int]
    compared: Mapping[Probe, int]
    lost: Mapping[Probe, Mapping[Lost, int]]
    changed: Mapping[Probe, Estimate]  # share of the answers that change
    necessity: Estimate  # changed under occlude minus changed under shuffle, paired
    sufficiency: Estimate  # stays under keep
    kept_over_occluded: Estimate  # stays under keep minus stays under occlude, paired
    accuracy_asked: Estimate  # of the probed answers
    accuracy: Mapping[Probe, Estimate]
    accuracy_gain: Mapping[Probe, Estimate]  # under the probe minus asked, paired


def probe_scores(records: Iterable[Record]) -> ProbeScores:
    """The scores of a run of probes. What failed, was truncated or has no answer is counted and left out."""
    found, reasons = trials(records)
    asked = [trial.asked for trial in found]

    def under(probe: Probe) -> list[Record]:
        return [trial.under[probe] for trial in found if probe in trial.under]

    stays = {probe: [trial.stayed(probe) for trial in found] for probe in Probe}
    return ProbeScores(
        num_answers=len(found) + sum(reasons.values()),
        num_probed=len(found),
        unprobed=dict(reasons),
        compared={p: sum(not isinstance(s, Lost) for s in stays[p]) for p in Probe},
        lost={p: dict(Counter(s for s in stays[p] if isinstance(s, Lost))) for p in Probe},
        changed={p: estimate(found, partial(_changed, probe=p)) for p in Probe},
        necessity=estimate(found, necessity),
        sufficiency=estimate(found, sufficiency),
        kept_over_occluded=estimate(
            found, lambda t: _minus(_changed(t, Probe.OCCLUDE), _changed(t, Probe.KEEP))
        ),
        accuracy_asked=estimate(asked, raw_score),
        accuracy={p: estimate(under(p), raw_score) for p in Probe},
        accuracy_gain={p: estimate(found, partial(_gained_score, probe=p)) for p in Probe},
    )


def necessity(trial: Trial) -> float | None:
    """1 if the answer changes with its boxes grey, minus 1 if it changes with random boxes grey. None where one is not known."""
    return _minus(_changed(trial, Probe.OCCLUDE), _changed(trial, Probe.SHUFFLE))


def sufficiency(trial: Trial) -> float | None:
    """1 if the answer stays with all but its boxes grey, else 0. None where that is not known."""
    return _minus(1.0, _changed(trial, Probe.KEEP))


def _changed(trial: Trial, probe: Probe) -> float | None:
    stayed = trial.stayed(probe)
    return None if isinstance(stayed, Lost) else float(not stayed)


def _gained_score(trial: Trial, probe: Probe) -> float | None:
    if probe not in trial.under:
        return None
    return _minus(raw_score(trial.under[probe]), raw_score(trial.asked))


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def telling_trials(
    found: Sequence[Trial], limit: int = SHOWN_EXAMPLES
) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """The most faithful trials (2 points) and the least faithful ones (0 or less), at most `limit` of each.

    Of equal ones those come first whose answer was right, then those asked earlier. An answer with one point is
    neither.
    """
    rated = [(trial.faithfulness, trial) for trial in found]

    def right_first(trial: Trial) -> bool:
        return raw_score(trial.asked) != 1.0

    most = sorted((t for points, t in rated if points == 2), key=right_first)
    least = sorted(
        ((points, t) for points, t in rated if points is not None and points <= 0),
        key=lambda pair: (pair[0], right_first(pair[1])),
    )
    return tuple(most[:limit]), tuple(t for _, t in least[:limit])
