"""Whether the tokens of a box hold its characters and no others, by decoding every beginning of a completion."""

from __future__ import annotations

from dataclasses import replace

from opengrit.core.boxes import Box
from opengrit.core.types import Completion, Finish, Record, Score, Verdict
from opengrit.data import load_examples
from opengrit.grounding.frames import frame_for
from opengrit.grounding.parsing import parse
from opengrit.sampling.detokenizing import decode, token_spans
from opengrit.training.object_credit import box_tokens

LABELLED = (Box(0.0, 0.0, 0.5, 0.5), Box(0.5, 0.5, 1.0, 1.0))


def record_of(text: str, *, total: float | None = 1.0, boxes=LABELLED, frame="thousand", ids=()) -> Record:
    (example,) = load_examples("stickers/count")[:1]
    example = replace(example, boxes=boxes)
    transcript = parse(text, frame_for(frame, example.picture_size), Finish.EOS)
    return Record(
        "r", example, "grounded", 0, Completion(text, tuple(ids), Finish.EOS), transcript, Verdict(True, 1.0),
        Score(total, {}), example.picture_size, frame,
    )  # fmt: skip


def check_tokens(tokenizer, text, *, ids=None, frame="thousand"):
    ids = ids or tokenizer(text, add_special_tokens=False)["input_ids"]
    one = record_of(text, ids=ids, frame=frame)
    starts, ends = token_spans(tokenizer, ids, text)
    tokens = box_tokens(one, starts, ends)
    assert set(tokens) == set(one.transcript.boxes)
    for box, places in tokens.items():
        mentions = [p for p in one.transcript.pointings if p.box == box]
        for place in range(len(ids)):
            # What decodes up to the token and with it, without any of the code under test.
            before, after = decode(tokenizer, ids[:place]), decode(tokenizer, ids[: place + 1])
            begin, end = len(before.rstrip("\ufffd")), len(after.rstrip("\ufffd")) + after.endswith("\ufffd")
            inside = any(begin < p.end and end > p.start for p in mentions)
            assert (place in places) == inside, (text, place, tokenizer.decode(ids[place]))
        spelt = decode(tokenizer, [ids[i] for i in places])
        assert all(text[p.start : p.end].strip("()[]{} ") in spelt for p in mentions)
    return tokens


TEXTS = [
    '<think>[{"bbox_2d": [12, 20, 310, 400], "label": "dog"}, {"bbox_2d": [500,500,1000,1000]}] two</think>'
    "<rethink>again [12, 20, 310, 400]</rethink><answer>2</answer>",
    "<think>caf\u00e9 (1, 2, 3, 4) \u72d7\u3010100\uff0c200\uff0c300\uff0c400\u3011 \U0001f436(5,6,700,800)</think><answer>2",
    "<box>[[10, 20, 30, 40], [50, 60, 70, 80]]</box>",
]
