"""Measures a tiny base model on held-out scenes: `python pretraining/measure.py FOLDER [--limit 240]`, a JSON object out."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from opengrit.boxes import Box, Size, union_iou
from opengrit.data.stickers import sets
from opengrit.data.stickers.questions import Asked
from opengrit.data.stickers.world import PLURALS, draw
from opengrit.frames import Frame
from opengrit.parsing import parse
from opengrit.prompts import Strategy, detection_question, user_text
from opengrit.types import Tag, Transcript


@dataclass(frozen=True, slots=True)
class Spoken:
    asked: Asked
    transcript: Transcript


def speak(model, processor, questions: list[tuple[Asked, str]], *, temperature: float = 0.0) -> list[Spoken]:
    """One reply to each (scene, user text)."""
    out = []
    for start in range(0, len(questions), 60):
        chunk = questions[start : start + 60]
        texts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
                add_generation_prompt=True, tokenize=False,
            )
            for _, text in chunk
        ]  # fmt: skip
        inputs = processor(
            images=[[draw(a.scene)] for a, _ in chunk], text=texts, padding=True, return_tensors="pt"
        )
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=120, **sampling)[:, inputs["input_ids"].shape[1] :]
        for (asked, _), text in zip(
            chunk, processor.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True
        ):
            frame = Frame.for_model_type(model.config.model_type, seen_size=asked.scene.size)
            out.append(Spoken(asked, parse(text, frame)))
    return out


def full_format(spoken: Spoken) -> bool:
    order = [t.tag for t in spoken.transcript.tags]
    wanted = [Tag.THINK_OPEN, Tag.THINK_CLOSE, Tag.RETHINK_OPEN, Tag.RETHINK_CLOSE, Tag.ANSWER_OPEN]
    pointed = bool(spoken.transcript.thought_pointings) or not spoken.asked.pointed
    return order[:5] == wanted and len(order) <= 6 and pointed and spoken.transcript.answer is not None


def boxes_of(asked: Asked) -> list[Box]:
    size: Size = asked.scene.size
    return [o.box(size) for o in asked.pointed]


def mean(values) -> float:
    values = list(values)
    return round(sum(values) / len(values), 4) if values else float("nan")


def measure(model, processor, limit: int) -> dict[str, float]:
    count, spatial = sets.asked("count")[:limit], sets.asked("spatial")[:limit]
    result: dict[str, float] = {"n_count": len(count), "n_spatial": len(spatial)}
    present = [a for a in count if a.pointed]
    kinds = [a.pointed[0].kind for a in present]
    detected = speak(
        model, processor, [(a, detection_question(PLURALS[k])) for a, k in zip(present, kinds, strict=True)]
    )
    result["detection_iou"] = mean(union_iou(s.transcript.boxes, boxes_of(s.asked)) for s in detected)
    for name, asked in (
        ("count", count),
        ("yesno", [a for a in spatial if a.answer in ("Yes", "No")]),
        ("open", [a for a in spatial if a.answer not in ("Yes", "No")]),
    ):
        plain = speak(model, processor, [(a, user_text(Strategy.DIRECT, a.question)) for a in asked])
        result[f"direct_{name}"] = mean(
            s.transcript.text.strip().rstrip(".") == s.asked.answer for s in plain
        )
        for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            said = speak(
                model,
                processor,
                [(a, user_text(Strategy.GROUNDED, a.question)) for a in asked],
                temperature=temperature,
            )
            result[f"{mode}_{name}_accuracy"] = mean(s.transcript.answer == s.asked.answer for s in said)
            result[f"{mode}_{name}_iou"] = mean(
                union_iou(s.transcript.boxes, boxes_of(s.asked)) for s in said if s.asked.pointed
            )
            result[f"{mode}_{name}_format"] = mean(full_format(s) for s in said)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--limit", type=int, default=240, help="rows of each set")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(args.folder, dtype=torch.float32).eval()
    print(json.dumps(measure(model, AutoProcessor.from_pretrained(args.folder), args.limit), indent=1))


if __name__ == "__main__":
    main()
