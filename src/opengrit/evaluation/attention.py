"""Does the model look at the picture while it rethinks? The paper's attention figure (GRIT, figure 5), with its control.

Measured is the share of the attention that goes to the picture's tokens while a model writes the first 50 tokens of its
rethinking. An answer is read four times, with the same rethinking and other tokens before it:

* as it was written;
* without its boxes, as in the figure;
* without some of its boxes' tokens and without as many other tokens, which are drawn at random: a text that is shorter
  leaves more of the attention to the picture, whatever was deleted from it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.core.errors import ImageError, RunError
from opengrit.core.progress import progress_bar
from opengrit.core.types import Record, Section
from opengrit.evaluation.metrics import BOOTSTRAP_SEED, Estimate
from opengrit.evaluation.metrics.estimates import key_of, mean_over_keys, seeded_generator
from opengrit.evaluation.rollout import EvaluationProtocol, ask
from opengrit.grounding.parsing import sections_of
from opengrit.runs.jsonl import LineWriter, read_objects
from opengrit.sampling.detokenizing import token_spans

if TYPE_CHECKING:
    from opengrit.sampling.transformers_engine import TransformersSampler

ATTENTION = "attention.jsonl"  # in the folder of the probes
NUM_TOKENS = 50  # of the rethinking, as in the paper


class Reading(Enum):
    """What stands before the rethinking when an answer is read."""

    WRITTEN = "written"  # what the model wrote
    NO_BOXES = "no boxes"  # that without all tokens of its boxes
    FEWER_BOXES = "fewer boxes"  # that without `deleted` tokens of its boxes
    FEWER_WORDS = "fewer words"  # that without `deleted` tokens that are of no box and of no tag


class Unread(Enum):
    """Why an answer is not read."""

    FAILED = "the rollout failed"
    NO_IDS = "without token ids"
    NO_RETHINKING = "without a rethinking"
    NO_BOXES = "without boxes before the rethinking"


@dataclass(frozen=True, slots=True)
class Rethinking:
    """An answer's token ids before its rethinking and those of the rethinking, at most 50.

    `boxes` are the places in `before` of tokens that hold a character of a box, `others` those that hold none, and none of a
    tag.
    """

    before: tuple[int, ...]
    boxes: tuple[int, ...]
    others: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def num_deleted(self) -> int:
        """How many tokens are deleted to compare boxes with words: all of the boxes', or all others where they are fewer."""
        return min(len(self.boxes), len(self.others))


def rethinking_of(record: Record, tokenizer: Any) -> Rethinking | Unread:
    """Where a record rethinks and what stands before, token by token; or why it cannot be read."""
    transcript, ids = record.transcript, record.completion.token_ids
    if record.failure is not None:
        return Unread.FAILED
    if not ids:
        return Unread.NO_IDS
    spans = sections_of(transcript.text, transcript.tags)
    section = next((span for span in spans if span.section is Section.RETHINK), None)
    starts, ends = token_spans(tokenizer, ids, transcript.text)
    own = range(len(ids))
    tokens = [
        i for i in own if section is not None and section.start <= starts[i] < min(ends[i], section.end)
    ]
    if section is None or not tokens:
        return Unread.NO_RETHINKING
    before = [i for i in own if i < tokens[0]]
    boxes = [(p.start, p.end) for p in transcript.pointings if p.end <= section.start]
    tags = [(tag.start, tag.end) for tag in transcript.tags]

    def holds(token: int, spans: Sequence[tuple[int, int]]) -> bool:
        return any(starts[token] < end and ends[token] > start for start, end in spans)

    of_boxes = tuple(i for i in before if holds(i, boxes))
    if not of_boxes:
        return Unread.NO_BOXES
    return Rethinking(
        before=tuple(ids[i] for i in before),
        boxes=of_boxes,
        others=tuple(i for i in before if not holds(i, boxes) and not holds(i, tags)),
        tokens=tuple(ids[i] for i in tokens[:NUM_TOKENS]),
    )


def readings_of(record: Record, found: Rethinking, *, seed: int) -> dict[Reading, tuple[int, ...]]:
    """What stands before the rethinking in each reading; those with fewer tokens only if some tokens are not those of boxes.

    What is drawn depends on the seed, the data set, the example and the sample, and on nothing else.
    """
    gone = {Reading.WRITTEN: set[int](), Reading.NO_BOXES: set(found.boxes)}
    if found.num_deleted:
        generator = seeded_generator(seed, *key_of(record.example), record.sample)
        for reading, pool in ((Reading.FEWER_BOXES, found.boxes), (Reading.FEWER_WORDS, found.others)):
            gone[reading] = set(generator.permutation(pool)[: found.num_deleted].tolist())
    return {
        reading: tuple(token for place, token in enumerate(found.before) if place not in places)
        for reading, places in gone.items()
    }


@dataclass(frozen=True, slots=True)
class Attended:
    """What became of one answer: the attention to the picture in each reading, layer by layer, 0 to 1.

    `unread` says why an answer has none, `failure` why it could not be read this time. `text` stands for the answer's words.
    """

    record: str
    dataset: str
    example: str
    text: str
    unread: Unread | None = None
    failure: str | None = None
    tokens: int = 0  # of the rethinking
    box_tokens: int = 0
    other_tokens: int = 0
    deleted: int = 0
    picture_tokens: int = 0
    prompt_tokens: int = 0
    before_tokens: int = 0
    layers: Mapping[Reading, tuple[float, ...]] = field(default_factory=dict)

    def share(self, reading: Reading) -> float | None:
        """The mean over layers; None where the answer was not read so."""
        values = self.layers.get(reading)
        return None if values is None else math.fsum(values) / len(values)

    def even(self, reading: Reading) -> float | None:
        """What the share would be if every token that is seen got as much; None where the answer was not read so."""
        if reading not in self.layers:
            return None
        gone = {Reading.WRITTEN: 0, Reading.NO_BOXES: self.box_tokens}.get(reading, self.deleted)
        first = self.prompt_tokens + self.before_tokens - gone
        return math.fsum(self.picture_tokens / (first + i) for i in range(self.tokens)) / self.tokens

    def as_json(self) -> dict[str, Any]:
        """A line of attention.jsonl."""
        unread = None if self.unread is None else self.unread.value
        layers = {reading.value: list(values) for reading, values in self.layers.items()}
        return {**asdict(self), "unread": unread, "layers": layers}


def measure_attention(
    sampler: TransformersSampler,
    records: Sequence[Record],
    out: Path,
    *,
    protocol: EvaluationProtocol,
    seed: int = BOOTSTRAP_SEED,
    quiet: bool = False,
) -> list[Attended]:
    """What became of each record, in the file `out` and returned; what is read in it already is not read again.

    Failures (a picture that is gone) are lines with a `failure`, and are tried again by the next call. Raises RunError where
    the file holds an answer with another text than the record of its id.
    """
    done = check_attention(records, out)
    pending = unmeasured(records, done)
    with LineWriter(out) as writer, progress_bar(quiet) as progress:
        task = progress.add_task("reading", total=len(records), completed=len(records) - len(pending))
        for record in pending:
            done[record.id] = found = _attended(sampler, record, protocol=protocol, seed=seed)
            writer.write_metrics(found.as_json())
            progress.advance(task)
    return [done[record.id] for record in records]


def check_attention(records: Sequence[Record], out: Path) -> dict[str, Attended]:
    """What the file holds, by record. Raises RunError for an answer with another text than the record of its id."""
    known = {one.record: one for one in read_attention(out)}
    for record in records:
        if record.id in known and known[record.id].text != _digest(record):
            raise RunError(
                f"attention belongs to the answers it was measured on, {record.id!r} has another text now than in {out}; "
                "choose another --out"
            )
    return known


def unmeasured(records: Sequence[Record], known: Mapping[str, Attended]) -> list[Record]:
    """The records that are not known, or that failed."""
    return [record for record in records if record.id not in known or known[record.id].failure is not None]


def _digest(record: Record) -> str:
    return hashlib.blake2b(record.completion.text.encode(), digest_size=8).hexdigest()


def _attended(
    sampler: TransformersSampler, record: Record, *, protocol: EvaluationProtocol, seed: int
) -> Attended:
    from opengrit.models.attention import Reply, attention_to_picture

    nothing = Attended(record.id, record.example.dataset, record.example.id, _digest(record))
    found = rethinking_of(record, sampler.vlm.processor.tokenizer)
    if isinstance(found, Unread):
        return replace(nothing, unread=found)
    readings = readings_of(record, found, seed=seed)
    texts = list(dict.fromkeys(readings.values()))  # all boxes may be the fewer ones
    try:
        seen = attention_to_picture(
            sampler, ask(record.example, protocol=protocol), [Reply(text, found.tokens) for text in texts]
        )
    except ImageError as error:
        return replace(nothing, failure=str(error))
    shares = dict(zip(texts, seen.shares, strict=True))
    return replace(
        nothing,
        tokens=len(found.tokens),
        box_tokens=len(found.boxes),
        other_tokens=len(found.others),
        deleted=found.num_deleted,
        picture_tokens=seen.picture_tokens,
        prompt_tokens=seen.prompt_tokens,
        before_tokens=len(found.before),
        layers={reading: shares[text] for reading, text in readings.items()},
    )


def read_attention(path: Path) -> list[Attended]:
    """The answers in a file, the last line of each; none where there is no file. Raises RunError for other lines."""
    return list({one.record: one for one in _lines(path)}.values())


def _lines(path: Path) -> Iterator[Attended]:
    for number, value in read_objects(path):
        try:
            unread = None if value["unread"] is None else Unread(value["unread"])
            layers = {Reading(name): tuple(shares) for name, shares in value["layers"].items()}
            yield Attended(**{**value, "unread": unread, "layers": layers})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"a line of attention holds what opengrit writes, line {number} of {path} does not ({error}); remove it, and "
                "what it said is measured again"
            ) from error


@dataclass(frozen=True, slots=True)
class AttentionScores:
    """Means over answers with their intervals. Shares are 0 to 1, differences -1 to 1; the bootstrap samples examples.

    `even` is what the shares would be if all tokens that are seen got as much attention. `unread` and `failed` answers are in
    none of them; those without a token to delete in a box's place are in no reading with fewer tokens.
    """

    num_answers: int
    num_read: int
    unread: Mapping[Unread, int]
    failed: int
    uncompared: int  # read, but with no token to delete in a box's place
    share: Mapping[Reading, Estimate]
    even: Mapping[Reading, Estimate]
    without_boxes: Estimate  # written minus no boxes, paired: the paper's figure
    without_words: Estimate  # written minus fewer words, paired
    boxes_over_words: Estimate  # fewer words minus fewer boxes, paired
    tokens: float | None  # of the rethinking, on average; None where no answer was read
    box_tokens: float | None
    deleted: float | None  # of the answers that are compared


def attention_scores(found: Sequence[Attended]) -> AttentionScores:
    """The scores of a file's answers; what was not read is counted and left out."""
    read = [one for one in found if one.layers]
    compared = [one for one in read if one.deleted]

    def share(reading: Reading) -> Callable[[Attended], float | None]:
        return lambda one: one.share(reading)

    def less(first: Reading, second: Reading) -> Estimate:
        return _mean(read, lambda one: _minus(one.share(first), one.share(second)))

    return AttentionScores(
        num_answers=len(found),
        num_read=len(read),
        unread=dict(Counter(one.unread for one in found if one.unread is not None)),
        failed=sum(one.failure is not None for one in found),
        uncompared=len(read) - len(compared),
        share={reading: _mean(read, share(reading)) for reading in Reading},
        even={
            reading: _mean(read, lambda one, reading=reading: one.even(reading))  # type: ignore[misc]
            for reading in Reading
        },
        without_boxes=less(Reading.WRITTEN, Reading.NO_BOXES),
        without_words=less(Reading.WRITTEN, Reading.FEWER_WORDS),
        boxes_over_words=less(Reading.FEWER_WORDS, Reading.FEWER_BOXES),
        tokens=_average(one.tokens for one in read),
        box_tokens=_average(one.box_tokens for one in read),
        deleted=_average(one.deleted for one in compared),
    )


def _mean(found: Sequence[Attended], value: Callable[[Attended], float | None]) -> Estimate:
    """The mean over examples; several samples of one example are averaged first."""
    return mean_over_keys(((one.dataset, one.example), value(one)) for one in found)


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _average(numbers: Iterable[int]) -> float | None:
    values = list(numbers)
    return sum(values) / len(values) if values else None
