"""What a model is shown to write when it is fine-tuned on rows with boxes: the targets' template, once.

Nobody published how the paper's few-shot fine-tuning made its targets, so this template is ours. With the prompt
`grounded` a target is GRIT's format (without the line end):

    <think>{"bbox_2d": [12, 30, 58, 77], "label": "dogs"}, {"bbox_2d": ...}</think>
    <rethink>There are 2 dogs.</rethink><answer>2</answer>

and with the prompt `sft` it is what that prompt asks for, a JSON list of the boxes and the answer:

    [{"bbox_2d": [12, 30, 58, 77], "label": "dogs"}]
    <answer>1</answer>

It has every annotated box, in the order of the row and in the numbers that the model's family writes. A row
without boxes gets a target that points at nothing.
"""

from __future__ import annotations

import json

from opengrit.core.types import Example
from opengrit.grounding.coordinates import read_coordinates
from opengrit.grounding.frames import Frame
from opengrit.grounding.prompts import Strategy

NOTHING_TO_POINT_AT = "There is nothing to point at."
NO_BOXES_KNOWN = "Let me look at the picture."


def target_text(example: Example, *, strategy: Strategy | str, frame: Frame) -> str:
    """The reply to learn for a row: GRIT's format for the prompt `grounded`, boxes and answer for `sft`.

    `frame` carries the size the model sees. Raises ValueError for a prompt that asks for no boxes.
    """
    answer = example.answer.strip()
    match Strategy(strategy):
        case Strategy.SFT:
            return f"[{_pointed(example, frame)}]\n<answer>{answer}</answer>"
        case Strategy.GROUNDED:
            thought = _pointed(example, frame) or (
                NOTHING_TO_POINT_AT if example.boxes_known else NO_BOXES_KNOWN
            )
            return (
                f"<think>{thought}</think><rethink>{_rethinking(example)}</rethink><answer>{answer}</answer>"
            )
        case other:
            raise ValueError(f"targets are written for the prompts grounded and sft, got {other.value}")


def label_of(example: Example, index: int) -> str | None:
    """The label of a row's box: its key word where there is one for all boxes or one for each, else None."""
    words = example.key_words
    if len(words) == 1:
        return words[0]
    return words[index] if len(words) == len(example.boxes) else None


def _pointed(example: Example, frame: Frame) -> str:
    """The row's boxes as JSON objects, separated by commas; empty where it has none."""
    written = []
    for index, box in enumerate(example.boxes):
        pointing: dict[str, object] = {"bbox_2d": list(frame.from_box(box))}
        label = label_of(example, index)
        if label is not None:
            pointing["label"] = label
        # In JSON < may be escaped, so that no label can write a tag of the format.
        written.append(json.dumps(pointing, ensure_ascii=False).replace("<", "\\u003c"))
    return ", ".join(written)


def _rethinking(example: Example) -> str:
    """The sentence between the boxes and the answer: what the boxes show, as far as the row says it.

    Key words that would read as a box or a tag are left out.
    """
    count, words = len(example.boxes), example.key_words
    if any(scan.found or scan.tags for scan in map(read_coordinates, words)):
        return "The boxes give the answer." if count else "The picture gives the answer."
    if len(words) == 1 and example.boxes_known and example.count == count:
        return f"There {'is' if count == 1 else 'are'} {count} {words[0]}."
    if count == 0:
        return "The picture gives the answer."
    if len(words) == count:
        return f"The boxes show {' and '.join(words)}."
    return "The boxes give the answer."
