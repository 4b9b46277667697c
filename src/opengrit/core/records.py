"""A `Record` as JSON and back: exact, strict, and readable by a person with a text editor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RunError
from opengrit.core.types import (
    Completion,
    Example,
    Finish,
    FoundTag,
    Pointing,
    Record,
    RejectedPointing,
    Rejection,
    Score,
    Section,
    Tag,
    Transcript,
    Unjudged,
    Verdict,
)


def to_line(record: Record) -> str:
    """The record as one line of JSON without the newline. Raises ValueError for NaN and infinities."""
    return json.dumps(to_json(record), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def from_line(line: str) -> Record:
    """The record a line holds. Raises RunError where it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"a record is one line of JSON, this line is not ({error}); remove or fix it"
        ) from error
    return from_json(value)


def to_json(record: Record) -> dict[str, Any]:
    """The record as a JSON object.

    A pointing has its box three times: `box` in the unit square, `pixels` of the picture, and `written`, the
    model's own numbers. Reading uses `box`; `pixels` is there for people and other programs.
    """
    return {
        "id": record.id,
        "step": record.step,
        "sample": record.sample,
        "strategy": record.strategy,
        "frame": record.frame,
        "seen_size": _size(record.seen_size),
        "example": _example(record.example),
        "completion": {
            "text": record.completion.text,
            "token_ids": list(record.completion.token_ids),
            "finish": record.completion.finish.value,
        },
        "transcript": _transcript(record.transcript, record.example.picture_size),
        "verdict": _verdict(record.verdict),
        "score": {
            "total": record.score.total,
            "parts": dict(record.score.parts),
            "missing": record.score.missing,
        },
        "advantage": record.advantage,
        "failure": record.failure,
    }


def from_json(value: Any) -> Record:
    """The record a JSON object holds, equal to the one `to_json` was given.

    Raises:
        RunError: a field is missing or holds something else than `to_json` writes.
    """
    try:
        record = _record(value)
        _check(record, "")
        return record
    except KeyError as error:
        raise RunError(
            f"a record has the field {error}, this one does not; another version wrote it"
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"a record's fields must be as opengrit writes them, these are not ({error}); fix it"
        ) from error


def _check(value: object, place: str) -> None:
    """Compare the fields of a dataclass, and of those in it, with their declared types. Raises TypeError."""
    shape = _shape(type(value))  # type: ignore[arg-type]  # a class has a hash
    held = shape.values(value)
    if (types := tuple(map(type, held))) not in shape.right:
        for field, found in zip(shape.fields, types, strict=True):
            if not field.several and found not in field.kinds:
                raise TypeError(f"{place}{field.name} holds {found.__name__}")
        shape.right.add(types)  # there are few ways to be right
    for number in shape.deep:
        field, inner = shape.fields[number], held[number]
        parts = (inner,) if not field.several else inner.values() if isinstance(inner, dict) else inner
        if field.several and not field.kinds.issuperset(map(type, parts)):
            wrong = sorted({type(part).__name__ for part in parts if type(part) not in field.kinds})
            raise TypeError(f"{place}{field.name} holds {', '.join(wrong)}")
        if field.classes:
            for part in parts:
                if type(part) in field.classes and not _is_known(part):
                    _check(part, f"{place}{field.name}.")


def _is_known(value: object) -> bool:
    """Whether a dataclass holds plain values alone, of types that were found to be right: nine of ten of a record's."""
    shape = _shape(type(value))  # type: ignore[arg-type]  # a class has a hash
    return not shape.deep and tuple(map(type, shape.values(value))) in shape.right


class _Field(NamedTuple):
    """A field of a dataclass: whether it holds several values, the types of one, and which of these are dataclasses."""

    name: str
    several: bool
    kinds: frozenset[type]
    classes: frozenset[type]


class _Shape(NamedTuple):
    """The fields of a dataclass, all of their values at once, and the types that were found to be right together."""

    fields: tuple[_Field, ...]
    values: Callable[[object], tuple[Any, ...]]
    right: set[tuple[type, ...]]
    deep: tuple[int, ...]  # the places of the fields that hold several values or dataclasses


@cache
def _shape(kind: type) -> _Shape:
    fields = []
    for name, hint in get_type_hints(kind).items():
        kinds = frozenset(_types(hint))
        classes = frozenset(filter(is_dataclass, kinds))
        fields.append(_Field(name, get_origin(hint) in (tuple, dict), kinds, classes))
    names = [field.name for field in fields]
    values = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
    deep = tuple(number for number, field in enumerate(fields) if field.several or field.classes)
    return _Shape(tuple(fields), values, set(), deep)


def _types(hint: Any) -> Iterator[type]:
    """The plain types in a type hint: `tuple[int, ...]` has int, `float | None` has float, int and None's own."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is None:
        yield from (float, int) if hint is float else (hint,)
    else:  # a dict's values, a tuple's elements, the members of a union
        values = inner[1:] if origin is dict else inner
        yield from (kind for part in values if part is not ... for kind in _types(part))


def _record(value: dict[str, Any]) -> Record:
    completion, score = value["completion"], value["score"]
    return Record(
        id=value["id"],
        example=_read_example(value["example"]),
        strategy=value["strategy"],
        sample=value["sample"],
        completion=Completion(
            text=completion["text"],
            token_ids=tuple(completion["token_ids"]),
            finish=Finish(completion["finish"]),
        ),
        transcript=_read_transcript(value["transcript"], completion["text"]),
        verdict=_read_verdict(value["verdict"]),
        score=Score(total=score["total"], parts=dict(score["parts"]), missing=score["missing"]),
        seen_size=Size(*value["seen_size"]),
        frame=value["frame"],
        step=value["step"],
        advantage=value["advantage"],
        failure=value["failure"],
    )


def _size(size: Size) -> list[int]:
    return [size.width, size.height]


def _box(box: Box) -> list[float]:
    return [box.left, box.top, box.right, box.bottom]


def _pixels(box: Box, size: Size) -> list[float]:
    """To a hundredth of a pixel: for reading, never for computing."""
    return [round(corner, 2) for corner in box.to_pixels(size)]


def _example(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "question": example.question,
        "answer": example.answer,
        "image": example.image,
        "dataset": example.dataset,
        "picture_size": _size(example.picture_size),
        "boxes": [_box(box) for box in example.boxes],
        "boxes_known": example.boxes_known,
        "key_words": list(example.key_words),
        "split": example.split,
        "also_accepted": list(example.also_accepted),
    }


def _read_example(value: dict[str, Any]) -> Example:
    return Example(
        id=value["id"],
        question=value["question"],
        answer=value["answer"],
        image=value["image"],
        dataset=value["dataset"],
        picture_size=Size(*value["picture_size"]),
        boxes=tuple(Box(*box) for box in value["boxes"]),
        boxes_known=value["boxes_known"],
        key_words=tuple(value["key_words"]),
        split=value["split"],
        also_accepted=tuple(value.get("also_accepted", ())),  # earlier versions had one answer a row
    )


def _transcript(transcript: Transcript, picture_size: Size) -> dict[str, Any]:
    return {
        "text": transcript.text,
        "thought": transcript.thought,
        "rethink": transcript.rethink,
        "answer": transcript.answer,
        "pointings": [
            {
                "box": _box(pointing.box),
                "pixels": _pixels(pointing.box, picture_size),
                "written": list(pointing.written),
                "label": pointing.label,
                "section": pointing.section.value,
                "start": pointing.start,
                "end": pointing.end,
            }
            for pointing in transcript.pointings
        ],
        "rejected": [
            {
                "text": rejected.text,
                "reason": rejected.reason.value,
                "section": rejected.section.value,
                "start": rejected.start,
                "end": rejected.end,
            }
            for rejected in transcript.rejected
        ],
        "tags": [
            {"tag": found.tag.value, "start": found.start, "end": found.end} for found in transcript.tags
        ],
        "finish": transcript.finish.value,
    }


def _read_transcript(value: dict[str, Any], written: Any) -> Transcript:
    return Transcript(
        text=written
        if value["text"] == written
        else value["text"],  # one string in memory, not two equal ones
        thought=value["thought"],
        rethink=value["rethink"],
        answer=value["answer"],
        pointings=tuple(_read_pointing(pointing) for pointing in value["pointings"]),
        rejected=tuple(
            RejectedPointing(
                text=rejected["text"],
                reason=Rejection(rejected["reason"]),
                section=Section(rejected["section"]),
                start=rejected["start"],
                end=rejected["end"],
            )
            for rejected in value["rejected"]
        ),
        tags=tuple(FoundTag(Tag(found["tag"]), found["start"], found["end"]) for found in value["tags"]),
        finish=Finish(value["finish"]),
    )


def _read_pointing(value: dict[str, Any]) -> Pointing:
    left, top, right, bottom = value["written"]
    return Pointing(
        box=Box(*value["box"]),
        label=value["label"],
        section=Section(value["section"]),
        start=value["start"],
        end=value["end"],
        written=(left, top, right, bottom),
    )


def _verdict(verdict: Verdict | Unjudged) -> dict[str, Any]:
    match verdict:
        case Verdict(correct=correct, score=score, judge=judge):
            return {"correct": correct, "score": score, "judge": judge}
        case Unjudged(reason=reason):
            return {"unjudged": reason}


def _read_verdict(value: dict[str, Any]) -> Verdict | Unjudged:
    if "unjudged" in value:
        return Unjudged(reason=value["unjudged"])
    return Verdict(correct=value["correct"], score=value["score"], judge=value["judge"])
