"""A trained model's card as values, and as the Markdown that others read. Nothing is looked up here: see `facts.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opengrit.core.escaping import harmless
from opengrit.evaluation.measured import Measured
from opengrit.evaluation.metrics import Estimate

CARD = "README.md"
NOT_STATED = "not stated"
_TAGS = ("opengrit", "visual-grounding", "grounded-reasoning")


@dataclass(frozen=True, slots=True)
class Named:
    """A name with what is known of it: a model's or a data set's licence, in words that never are empty."""

    name: str
    licence: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """A row of the table of numbers: who was asked, when, and by whom the answers were judged."""

    who: str
    when: str
    judge: str
    found: Measured


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything that a card says. `hub_base` and `hub_licence` are given where the hub knows them by these names.

    `asks` is the whole prompt, with {question} where the question stands. `recipe` are keys with their values.
    """

    title: str
    summary: str
    base: Named
    hub_base: str | None
    hub_licence: str | None
    is_adapter: bool
    data: Sequence[Named]
    data_hash: str
    recipe: Sequence[tuple[str, str]]
    recipe_sha256: str
    weights: Sequence[tuple[str, str]]  # file names with their SHA-256
    versions: Sequence[tuple[str, str]]
    judge: str
    figures: Sequence[Figures]
    not_measured: Sequence[str]
    alarms: Sequence[str]
    intended: str
    limits: Sequence[str]
    asks: str
    coordinates: str
    stop: str
    called: str  # how a reader's program names the model


def render(card: ModelCard) -> str:
    """The card as Markdown, with the YAML head that the hub reads."""
    sections = [
        (f"# {card.title}", [card.summary]),
        ("## Made from", _made_from(card)),
        ("## How", _how(card)),
        ("## Numbers", _numbers(card)),
        ("## What it is for, and its limits", [card.intended, "", *_bullets(card.limits)]),
        ("## Use", _use(card)),
    ]
    body = "\n\n".join("\n\n".join([head, "\n".join(lines)]) for head, lines in sections)
    return f"---\n{_head(card)}\n---\n\n{harmless(body)}\n"


def _head(card: ModelCard) -> str:
    """The hub's own fields, only those that are known."""
    from huggingface_hub import ModelCardData

    library = "peft" if card.is_adapter else "transformers"
    return ModelCardData(
        base_model=card.hub_base,
        license=card.hub_licence,
        library_name=library,
        pipeline_tag="image-text-to-text",
        tags=list(_TAGS),
    ).to_yaml()


def _made_from(card: ModelCard) -> list[str]:
    kind = "An adapter (LoRA) for" if card.is_adapter else "Base:"
    return [
        f"{kind} **{_cell(card.base.name)}**{_noted(card.base.note)}. Its licence: {card.base.licence}.",
        "",
        *_table(
            ("trained on", "licence", "what is known"),
            [(one.name, one.licence, one.note or NOT_STATED) for one in card.data],
        ),
        "",
        f"Hash of the rows and pictures: `{card.data_hash}`. The licence of these weights follows from those of the "
        "base and the data; the software that made them does not state it.",
    ]


def _how(card: ModelCard) -> list[str]:
    weights = [f"{name} `{digest}`" for name, digest in card.weights]
    return [
        *_table(("recipe", "value"), card.recipe),
        "",
        f"SHA-256 of the whole recipe `{card.recipe_sha256}`, of the weights: {', '.join(weights)}.",
        "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in card.versions) or NOT_STATED}.",
        "",
        f"Answers in training were judged by: {card.judge}.",
        "",
        "Alarms while training: " + ("; ".join(card.alarms) if card.alarms else "none") + ".",
    ]


def _numbers(card: ModelCard) -> list[str]:
    head = ("who", "questions", "prompt", "accuracy", "grounding IoU", "full format", "no verdict", "cut off")
    rows = [
        (
            one.who,
            f"{one.found.data}, {one.when}; judged by {one.judge}",
            one.found.strategy,
            shown(one.found.accuracy),
            shown(one.found.grounding_iou),
            shown(one.found.follows_format),
            str(one.found.num_unjudged),
            str(one.found.num_truncated),
        )
        for one in card.figures
    ]
    lines: list[str] = []
    if rows:
        lines += [
            'Means with their 95 % bootstrap intervals over questions, each with its own n; "-" where the questions ask'
        ]
        lines += [
            "for no such figure.",
            "",
            *_table(head, rows),
            "",
            "Controls without a model, on the same questions:",
            "",
        ]
        lines += _table(
            ("questions", "who", "most frequent answer", "one box over the whole picture", "own boxes moved"),
            [
                (
                    f"{one.found.data}, {one.when}",
                    one.who,
                    shown(one.found.majority_answer),
                    shown(one.found.whole_picture_iou),
                    shown(one.found.random_boxes_iou),
                )
                for one in card.figures
            ],
        )
    lines += [""] if lines else []
    return [*lines, "Not measured:", "", *_bullets(card.not_measured or ("nothing of the above",))]


def _use(card: ModelCard) -> list[str]:
    # A fence longer than any in the prompt.
    fence = "`" * 4
    return [
        f"Boxes are written in {card.coordinates}. The prompt, with the question in place of `{{question}}`:",
        "",
        f"{fence}text",
        card.asks.strip("\n"),
        fence,
        "",
        *(_with_opengrit(card) if card.is_adapter else _with_transformers(card)),
        "",
        f"With OpenGRIT, which draws the boxes too: `opengrit ask PICTURE QUESTION --model {card.called}`.",
    ]


def _with_transformers(card: ModelCard) -> list[str]:
    return [
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        f'processor = AutoProcessor.from_pretrained("{card.called}")',
        f'model = AutoModelForImageTextToText.from_pretrained("{card.called}")',
        'turn = {"role": "user", "content": [{"type": "image", "path": "PICTURE"}, {"type": "text", "text": PROMPT}]}',
        "inputs = processor.apply_chat_template(",
        '    [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"',
        ")",
        "written = model.generate(",
        f'    **inputs, max_new_tokens=1000, stop_strings=["{card.stop}"], tokenizer=processor.tokenizer',
        ")",
        'print(processor.decode(written[0, inputs["input_ids"].shape[1]:]))',
        "```",
    ]


def _with_opengrit(card: ModelCard) -> list[str]:
    return [
        "```python",
        "from opengrit.models import load",
        "",
        f'loaded = load("{card.called}")  # the base with the adapter on it, and the processor',
        "```",
    ]


def shown(found: Estimate) -> str:
    """An estimate as "0.512 [0.400, 0.620], n 32"; "-" where it says nothing about these questions."""
    if found.value is None:
        return "-"
    interval = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval}, n {found.n}"


def _noted(note: str) -> str:
    return f" ({note})" if note else ""


def _bullets(lines: Sequence[str]) -> list[str]:
    return [f"* {line}" for line in lines]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_cell, cells))} |"

    return [line(head), f"|{'---|' * len(head)}", *map(line, rows)]


def _cell(text: str) -> str:
    """Text on one line in which no mark ends the cell."""
    return " ".join(text.split()).replace("|", "\\|") or NOT_STATED
