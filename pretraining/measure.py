"""Measures tiny base models on held-out scenes: `python pretraining/measure.py FOLDER... [--page docs/tiny-models.md]`."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from opengrit.core.boxes import Box, Size, union_iou
from opengrit.core.types import Transcript
from opengrit.data.stickers import sets
from opengrit.data.stickers.questions import SceneQuestion
from opengrit.data.stickers.two_looks import KINDS_OF_LOOKS
from opengrit.data.stickers.world import PLURALS, draw
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import Strategy, detection_question, user_text
from opengrit.rewards.format import full_format


@dataclass(frozen=True, slots=True)
class Spoken:
    asked: SceneQuestion
    transcript: Transcript


def speak(
    model,
    processor,
    questions: list[tuple[SceneQuestion, str]],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 120,
) -> list[Spoken]:
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
            ids = model.generate(**inputs, max_new_tokens=max_new_tokens, **sampling)[
                :, inputs["input_ids"].shape[1] :
            ]
        for (asked, _), text in zip(
            chunk, processor.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True
        ):
            frame = Frame.for_model_type(model.config.model_type, seen_size=asked.scene.size)
            out.append(Spoken(asked, parse(text, frame)))
    return out


def boxes_of(asked: SceneQuestion) -> list[Box]:
    size: Size = asked.scene.size
    return [o.box(size) for o in asked.pointed]


def mean(values) -> float:
    values = list(values)
    return round(sum(values) / len(values), 4) if values else float("nan")


def measure(model, processor, limit: int, max_new_tokens: int = 120) -> dict[str, float]:
    count, spatial, looks = (sets.asked(name)[:limit] for name in ("count", "spatial", "compose"))
    result: dict[str, float] = {"n_count": len(count), "n_spatial": len(spatial), "n_looks": len(looks)}
    present = [a for a in count if a.pointed]
    kinds = [a.pointed[0].kind for a in present]
    said_by = partial(speak, model, processor, max_new_tokens=max_new_tokens)
    detected = said_by([(a, detection_question(PLURALS[k])) for a, k in zip(present, kinds, strict=True)])
    result["detection_iou"] = mean(union_iou(s.transcript.boxes, boxes_of(s.asked)) for s in detected)
    for name, asked in (
        ("count", count),
        ("yesno", [a for a in spatial if a.answer in ("Yes", "No")]),
        ("open", [a for a in spatial if a.answer not in ("Yes", "No")]),
        *((kind, [a for a in looks if a.looks == kind]) for kind in KINDS_OF_LOOKS),
    ):
        plain = said_by([(a, user_text(Strategy.DIRECT, a.question)) for a in asked])
        result[f"direct_{name}"] = mean(
            s.transcript.text.strip().rstrip(".") == s.asked.answer for s in plain
        )
        for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            said = said_by(
                [(a, user_text(Strategy.GROUNDED, a.question)) for a in asked], temperature=temperature
            )
            result[f"{mode}_{name}_accuracy"] = mean(s.transcript.answer == s.asked.answer for s in said)
            result[f"{mode}_{name}_iou"] = mean(
                union_iou(s.transcript.boxes, boxes_of(s.asked)) for s in said if s.asked.pointed
            )
            result[f"{mode}_{name}_format"] = mean(
                full_format(s.transcript, min_boxes=min(1, len(s.asked.pointed))) for s in said
            )
    return result


ROWS = (
    ('detection ("Detect all dogs."), union IoU', "detection_iou"),
    ("plain counting, accuracy", "direct_count"),
    ("plain spatial yes/no, accuracy", "direct_yesno"),
    ("plain open spatial, accuracy", "direct_open"),
    *((f"plain, two looks: {kind}, accuracy", f"direct_{kind}") for kind in KINDS_OF_LOOKS),
    *(
        (f"grounded {name}, {mode}: {what}", f"{mode}_{name}_{what}")
        for name in ("count", "yesno", "open", *KINDS_OF_LOOKS)
        for mode in ("greedy", "sampled")
        for what in ("accuracy", "iou", "format")
    ),
)


def table(measured: dict[str, dict[str, float]]) -> str:
    """A Markdown table, a column a model."""
    names = list(measured)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {title} | " + " | ".join(f"{measured[n][key]:.3f}" for n in names) + " |" for title, key in ROWS
    ]
    counts = measured[names[0]]
    lines += [
        "",
        f"n = {counts['n_count']:.0f} counting questions, {counts['n_spatial']:.0f} spatial ones and {counts['n_looks']:.0f} that need two "
        "looks (a quarter of each kind), seed 0; sampled at temperature 1.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="model folders, named after the models")
    parser.add_argument("--limit", type=int, default=240, help="rows of each set")
    parser.add_argument(
        "--page", type=Path, help="Markdown page whose end, from <!-- measured --> on, becomes the table"
    )
    args = parser.parse_args()
    measured = {}
    for folder in args.folders:
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        measured[folder.name] = measure(model, AutoProcessor.from_pretrained(folder), args.limit)
    print(json.dumps(measured, indent=1))
    if args.page:
        head, _, _ = args.page.read_text(encoding="utf-8").partition("<!-- measured -->")
        args.page.write_text(f"{head}<!-- measured -->\n{table(measured)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
