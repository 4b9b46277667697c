"""docs/results.md from the files beside it: five questions, each answered in words and in a table by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forest import Mark, forest
from measured import (
    ALL_SETS,
    OVERLAP,
    SHARE,
    SHORT,
    Files,
    Raw,
    difference,
    negative,
    read,
    shown,
    table,
    unit_of,
    verdict,
)
from opengrit.evaluation.metrics import Estimate
from opengrit.models.identity import identity_of
from opengrit.models.resolve import packaged_names
from opengrit.reports.tables import written
from pages import replace_section

# A colour means one way on every figure (Okabe and Ito's palette).
COLOURS = {
    "direct": "#0072B2", "grounded": "#999999", "sft": "#CC79A7", "grpo-random": "#F0E442", "grpo-answer": "#E69F00", "grit": "#D55E00",
    "direct-after": "#56B4E9", "blind": "#000000", "kl": "#009E73", "asking-again": "#7B3FA0", "labels": "#8C564B", "objects": "#1B9E9E",
}  # fmt: skip
DRIFTED = 0.85  # of the usual IoU: as the alarm has it
OBJECTIVES = ("kl", "asking-again", "labels", "objects")
CALLED = {
    "direct": "asked plainly", "grounded": "asked to point", "direct-after": "grit's model asked plainly", "blind": "grit's model, grey pictures",
    "kl": "+ KL", "asking-again": "+ kept, hidden", "labels": "+ labels", "objects": "+ object credit",
}  # fmt: skip
TABLES = {
    "compose": "questions of two looks", "stickers": "table 1 in miniature", "drift": "drift at 3e-4, 40 steps",
    "drift-200": "1e-4, 200 steps", "count-ablation": "the count ablation", "more-rows": "more training rows", "attention": "attention to the picture",
}  # fmt: skip


# -- the five questions ------------------------------------------------------------------------------------------------


def answers_better(files: Files) -> list[str]:
    places = files.places("compose", "stickers")
    ways = ("direct", "grounded", "grit", "direct-after", "blind")
    rows = [
        [name, *(shown(raw.of(data, way, "accuracy"), SHARE) for way in ways), difference(raw.minus(data, "direct", "accuracy"), SHARE),
         ", ".join(written(seed, SHARE) for seed in raw.seeds(data, "grit", "accuracy"))]
        for raw, data, name in places
    ]  # fmt: skip
    against = [
        verdict(
            "`grit`", other, [(name, raw.minus(data, way, "accuracy")) for raw, data, name in places], SHARE
        )
        for way, other in (
            ("direct", "the base asked plainly"),
            ("grounded", "the base asked to point"),
        )
    ]
    after = verdict(
        "`grit`",
        "its own model asked plainly",
        [(name, raw.minus(data, "direct-after", "accuracy")) for raw, data, name in places],
        SHARE,
    )
    return [
        "## Does it answer better than plainly asked?", "", *(f"* {text}" for text in (*against, after)),
        "* `blind` is what the trained model answers about grey pictures: the floor of every accuracy.",
        *table(["accuracy, %", *(f"`{way}`" for way in ways), "`grit` - `direct`, points", "seeds of `grit`"], rows),
    ]  # fmt: skip


def boxes_right(files: Files) -> list[str]:
    places = files.places("compose", "stickers", together=True)
    rows = [
        [name, *(shown(raw.of(data, way, "grounding_iou"), OVERLAP) for way in ("grounded", "sft", "grit")),
         shown(raw.of(data, "grit", "box_f1"), OVERLAP), shown(raw.of(data, "grit", "random_boxes_iou"), OVERLAP),
         shown(raw.of(data, "control", "whole_picture_iou"), OVERLAP)]
        for raw, data, name in places
    ]  # fmt: skip
    said = verdict(
        "`grit`",
        "fine-tuning on the same rows, which is shown their boxes (`sft`)",
        [(name, raw.minus(data, "sft", "grounding_iou")) for raw, data, name in places],
        OVERLAP,
    )
    return [
        "## Are the boxes right?", "", f"* {said}",
        "* No reward of the paper looks at where boxes lie. Controls: `grit`'s own boxes at random places, and one box around the whole picture.",
        *table(["IoU of unions", "`grounded`", "`sft`", "`grit`", "F1@0.5 of `grit`", "random places", "whole picture"], rows),
    ]  # fmt: skip


def answers_need_boxes(files: Files) -> list[str]:
    rows = [
        [
            f"{name}, `{way}`",
            *(shown(raw.of(data, way, quantity), SHARE) for quantity in ("necessity", "sufficiency")),
        ]
        for raw, data, name in files.places("compose", "stickers", together=True)
        for way in ("grit", "sft", "grpo-answer")
        if raw.of(data, way, "necessity").value is not None
    ]
    return [
        "## Does the answer need them?",
        "",
        "Necessity: answers that change when their boxes are grey, minus those that change when random boxes are. Sufficiency: answers that "
        "stay when all but their boxes is grey ([definitions](probes.md)). Answers without boxes are left out.",
        *table(["", "necessity, points", "sufficiency, %"], rows),
        *attention(files),
    ]


def attention(files: Files) -> list[str]:
    """The paper's figure 5, with its control."""
    quantities = ("written", "no-boxes", "without-boxes", "boxes-over-words")
    rows = []
    for raw in files.of("attention"):
        written_, no_boxes, without_boxes, over_words = (
            raw.of(raw.whole, "grit", f"attention/{q}") for q in quantities
        )
        cells = [shown(written_, SHARE), shown(no_boxes, SHARE)]
        rows.append([raw.name, *cells, *(difference(one, SHARE) for one in (without_boxes, over_words))])
    if not rows:
        return []
    return [
        "",
        "**Attention**: the share that goes to the picture while `grit`'s models rethink, as written and with the boxes before the rethinking deleted (the "
        "paper's figure 5). A shorter text leaves more of it to the picture, whatever was deleted; only the last column compares texts of one length.",
        *table(
            [
                "",
                "as written, %",
                "boxes deleted, %",
                "difference",
                "words deleted - as many tokens of boxes deleted",
            ],
            rows,
        ),
    ]


def rewards_add(files: Files) -> list[str]:
    places = files.places("compose", "stickers", together=True)
    random = verdict(
        "`grit`",
        "a random reward (`grpo-random`)",
        [(n, r.minus(d, "grpo-random", "accuracy")) for r, d, n in files.places("stickers")],
        SHARE,
    )
    plain = [
        verdict(f"`grit`'s {what}", "the answer's reward alone (`grpo-answer`)", [(n, r.minus(d, "grpo-answer", q)) for r, d, n in places if r.table == "stickers"], unit_of(q))
        for what, q in (("accuracy", "accuracy"), ("IoU", "grounding_iou"))
    ]  # fmt: skip
    rows = [
        [
            f"{name}, `{way}`",
            *(
                shown(raw.of(data, way, q), unit_of(q))
                for q in ("accuracy", "grounding_iou", "follows_format")
            ),
        ]
        for raw, data, name in places
        if raw.table == "stickers"
        for way in ("grpo-random", "grpo-answer", "grit", "sft")
        if raw.of(data, way, "accuracy").value is not None
    ]
    return [
        "## What does each reward add?", "", *(f"* {text}" for text in (random, *plain)),
        *table(["", "accuracy, %", "IoU", "full format, %"], rows), *drift(files), *counts(files),
    ]  # fmt: skip


def drift(files: Files) -> list[str]:
    """Objectives against the paper's where boxes drift."""
    quantities = ("accuracy", "grounding_iou", "box_f1", "necessity", "sufficiency")
    rows = []
    for raw in files.of("drift", "drift-200"):
        name = f"{raw.name}, {raw.made['learning_rate']} x {raw.made['steps']}"
        alarms = [_alarms(raw, way) for way in ("grit", *OBJECTIVES)]
        rows.append(
            [
                f"{name}: **paper**",
                *(shown(raw.of(raw.whole, "grit", q), unit_of(q)) for q in quantities),
                alarms[0],
            ]
        )
        rows += [
            [
                f"{CALLED[way]}",
                *(difference(negative(raw.minus(raw.whole, way, q)), unit_of(q)) for q in quantities),
                alarm,
            ]
            for way, alarm in zip(OBJECTIVES, alarms[1:], strict=True)
            if raw.of(raw.whole, way, "accuracy").value is not None
        ]
    if not rows:
        return []
    return [
        "**Drift**: at three times the demo's learning rate, and at five times its length. No reward of the paper keeps boxes in their place. The "
        "paper's objective has its figures, additions to it their differences, pooled over sets and seeds; the last column counts the trainings "
        "that raised the alarm *boxes drift*.",
        *_named_by_the_alarm(files),
        *table(["", "accuracy, %", "IoU", "F1@0.5", "necessity", "sufficiency", "alarm"], rows),
    ]


def _alarms(raw: Raw, way: str) -> str:
    trained = raw.seeds(raw.whole, way, "alarms")
    return f"{len(raw.seeds(raw.whole, way, 'alarm/boxes drift'))} of {len(trained)}" if trained else "-"


def _named_by_the_alarm(files: Files) -> list[str]:
    """Which trainings drifted, by the IoU of their evaluation beside that of the demo's own setting, and which the alarm named."""
    drifted, others, close = list[bool](), list[bool](), list[bool]()  # of each, whether the alarm named it
    usual: dict[str, float] = {}
    for calm in files.of("stickers"):
        quiet = calm.by_seed(calm.whole, "grit", "alarm/boxes drift")
        others += [seed in quiet for seed in calm.by_seed(calm.whole, "grit", "alarms")]
    for raw in files.of("drift", "drift-200"):
        calm = next((one for one in files.of("stickers") if one.model == raw.model), None)
        sets = [data for data in raw.sets if data != ALL_SETS]
        found = [calm.of(data, "grit", "grounding_iou").value for data in sets] if calm else []
        known = [value for value in found if value is not None]
        if not known:
            continue
        usual[raw.name] = sum(known) / len(known)
        line = DRIFTED * usual[raw.name]
        for way in ("grit", *OBJECTIVES):
            named = raw.by_seed(raw.whole, way, "alarm/boxes drift")
            for seed, iou in raw.by_seed(raw.whole, way, "grounding_iou").items():
                assert iou.low is not None
                assert iou.high is not None
                (drifted if iou.high < line else others if iou.low > line else close).append(seed in named)
    if not usual:
        return []
    beside = ", ".join(f"{name} {value:.3f}" for name, value in usual.items())
    untold = (
        f" {len(close)} more lie too close to that line to tell; it named {sum(close)} of them."
        if close
        else ""
    )
    return [
        f"A training *drifted* if the IoU of its evaluation lies, with its interval, below {DRIFTED * 100:.0f} % of what `grit` reaches on the same sets "
        f"in the demo's own setting ({beside}). **The alarm named {sum(drifted)} of the {len(drifted)} trainings that drifted, and {sum(others)} of the "
        f"{len(others)} that did not**, among them those of the demo's setting.{untold}"
    ]


def counts(files: Files) -> list[str]:
    """The paper's table 3."""
    ways = {
        "grit": "both",
        "without-count": "the counting rows alone",
        "spatial-20-without-count": "neither",
    }
    rows = [
        [f"{raw.name}: {what}", *(shown(raw.of(f"stickers/{d}", way, q), unit_of(q)) for d in ("count", "spatial") for q in ("accuracy", "grounding_iou"))]
        for raw in files.of("count-ablation")
        for way, what in ways.items()
        if raw.of(raw.whole, way, "accuracy").value is not None
    ]  # fmt: skip
    if not rows:
        return []
    places = files.places("count-ablation")
    told = [
        verdict(f"{what} with both", other, [(name, raw.minus(data, way, q)) for raw, data, name in places], unit_of(q))
        for way, other in ways.items()
        if way != "grit"
        for what, q in (("Accuracy", "accuracy"), ("IoU", "grounding_iou"))
    ]  # fmt: skip
    heads = ["", "count: accuracy, %", "IoU", "spatial: accuracy, %", "IoU"]
    return [
        "**Counts**: the paper's table 3 takes away its ten counting rows and the count reward together; here the reward is also taken away alone.",
        "", *(f"* {text}" for text in told), *table(heads, rows),
    ]  # fmt: skip


def cost(files: Files) -> list[str]:
    rows = [
        [
            name,
            *(
                _number(raw.of(data, way, "reply_tokens").value)
                for way in ("direct", "grounded", "grit", "grpo-answer")
            ),
        ]
        for raw, data, name in files.places("compose", "stickers", together=True)
    ]
    seconds = [
        [raw.name, *(_number(_ratio(raw, way)) for way in OBJECTIVES)]
        for raw in files.of("drift")
        if raw.seeds(raw.whole, "grit", "alarms")
    ]
    places = files.places("more-rows")
    more = [
        [
            name,
            *(shown(raw.of(data, way, "accuracy"), SHARE) for way in ("grit", "rows-100", "rows-500")),
        ]
        for raw, data, name in places
    ]
    told = [
        verdict("Accuracy from twenty rows", f"as many steps on {rows}", [(name, raw.minus(data, f"rows-{rows}", "accuracy")) for raw, data, name in places], SHARE)
        for rows in (100, 500)
        if more
    ]  # fmt: skip
    return [
        "## What does it cost?", "",
        "An answer with its evidence is longer by its boxes; training is done with twenty rows, and no boxes. Seconds and memory of a step, of "
        "generation and of serving are in [the measured costs](results/cost.md) and in [speed](speed.md).",
        *table(["tokens a reply", "`direct`", "`grounded`", "`grit`", "`grpo-answer`"], rows),
        *table(["seconds a step, times the paper's", *(CALLED[way] for way in OBJECTIVES)], seconds),
        *(f"* {text}" for text in told),
        *table(["accuracy, %, as many steps on", "20 rows", "100 rows", "500 rows"], more),
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _ratio(raw: Raw, way: str) -> float | None:
    """Seconds of a step over those of the paper's objective: medians over seeds; other work on the machine is in both."""
    ours, theirs = (sorted(raw.seeds(raw.whole, w, "train_seconds_per_step")) for w in (way, "grit"))
    return ours[len(ours) // 2] / theirs[len(theirs) // 2] if ours and theirs else None


# -- the page ----------------------------------------------------------------------------------------------------------

INTRODUCTION = """# Results

Five questions, answered by what `python benchmarks/results.py --out runs/evidence` measured. The command resumes after an interruption, and
composes this page, its sentences too. The models are the [packaged tiny ones](tiny-models.md) (Qwen, InternVL), whose world is stickers: what carries
over to a 3B model on photos is the machinery, not these numbers. [The table](table.md) says what each way does. Ways learned from
`stickers/train20` where nothing else is said; those of compose* from `stickers/compose20`. Each table trains its own `grit`; revisions
round differently, which moves a question or two.

A mean is followed by its 95 % bootstrap interval over questions, seeds pooled by question. Differences are paired by question, and bold where
their interval does not hold 0; nothing is corrected for the number of comparisons. A dash: not measured."""


def compose(page: Path, readme: Path | None = None) -> None:
    """Writes the page, its figures and the README's table from the files in the folder of the page's name."""
    folder = page.with_suffix("")
    found = [read(path) for path in sorted(folder.glob("*.csv"))]
    now = {model: identity_of(model).sha256 for model in {raw.model for raw in found}}
    files = Files(
        tuple(
            raw
            for raw in reversed(found)
            if raw.made.get("base_sha256") == now[raw.model] and raw.asks_rows_of_now
        )
    )
    parts = [INTRODUCTION, ""]
    for section in (answers_better, boxes_right, answers_need_boxes, rewards_add, cost):
        parts += [*section(files), ""]
        if section in FIGURES and (svg := FIGURES[section](files)):
            name = f"{section.__name__.replace('_', '-')}.svg"
            (folder / name).write_text(svg, encoding="utf-8")
            parts += [
                f"![{section.__name__.replace('_', ' ').capitalize()}: means, intervals and seeds]({folder.name}/{name})",
                "",
            ]
    parts += made_with(files, folder, stale=[raw for raw in found if raw not in files.raws])
    page.write_text("\n".join(_single_blanks(parts)) + "\n", encoding="utf-8")
    if readme is not None and (lines := readme_table(files)):
        replace_section(readme, "figures", "\n".join(lines))


def made_with(files: Files, folder: Path, *, stale: Sequence[Raw]) -> list[str]:
    """Where the figures lie, by model, with what they were made with; and what is missing."""
    models = packaged_names()
    rows = []
    for model in models:
        raws = [raw for name in TABLES for raw in files.of(name) if raw.model == model]
        if raws:
            links = ", ".join(f"[{raw.table}]({folder.name}/{raw.table}-{model}.csv)" for raw in raws)
            said = [
                " and ".join(sorted({raw.made[key] for raw in raws}))
                for key in ("base_sha256", "opengrit", "date")
            ]
            rows.append([f"`{model}`", said[0][:12], *said[1:], links])
    here = {(raw.table, raw.model) for raw in files.raws}
    lacking = {what: [m for m in models if (name, m) not in here] for name, what in TABLES.items()}
    missing = [
        what if names == models else f"{what} ({', '.join(SHORT.get(name, name) for name in names)})"
        for what, names in lacking.items()
        if names
    ]
    said = [f"Not measured yet: {'; '.join(missing)}."] if missing else []
    if stale:
        names = ", ".join(f"{raw.table}-{raw.model}.csv" for raw in stale)
        said.append(f"Measured with earlier weights or rows and not shown: {names}.")
    return [
        "## Made with", "", "The files have every set, way and seed, and the hash of their recipe.",
        *table(["model", "weights", "opengrit", "measured", "files"], rows), *said,
    ]  # fmt: skip


def readme_table(files: Files) -> list[str]:
    """The README's table: one model, two sets, before and after; nothing where grit is not measured there."""
    raw = next((raw for raw in files.of("stickers") if raw.model == "tiny-qwen2.5-vl"), None)
    seeds = len(raw.seeds("stickers/count", "grit", "accuracy")) if raw else 0
    if raw is None or not seeds:
        return []
    trained = f"{raw.made['steps']} steps, {f'mean of {seeds} seeds' if seeds > 1 else 'one seed'}"
    names = {
        "direct": "base, asked plainly (no boxes asked for)",
        "grounded": "base, asked to point",
        "grit": f"trained ({trained})",
    }
    rows = []
    for way, name in names.items():
        cells = [
            "-" if (way, quantity) == ("direct", "grounding_iou") else shown(raw.of(f"stickers/{data}", way, quantity), unit_of(quantity))
            for data in ("count", "spatial")
            for quantity in ("accuracy", "grounding_iou")
        ]  # fmt: skip
        rows.append([name, *cells])
    num = raw.of("stickers/count", "grit", "accuracy").n
    heads = [f"tiny-qwen2.5-vl, n = {num} questions a set"]
    heads += [
        f"{data}: {what}" for data in ("counting", "spatial") for what in ("accuracy, %", "box overlap (IoU)")
    ]
    return table(heads, rows)[1:-1]


def _single_blanks(parts: Sequence[str]) -> list[str]:
    lines = "\n".join(parts).split("\n")
    return [line for place, line in enumerate(lines) if line or (place and lines[place - 1])]


# -- figures -----------------------------------------------------------------------------------------------------------


def accuracy_figure(files: Files) -> str | None:
    groups = [
        (name, [_percent(raw, data, way) for way in ("direct", "grit", "direct-after", "blind")])
        for raw, data, name in files.places("compose", "stickers")
    ]
    title = "Accuracy, %: mean, 95 % interval, small dots are seeds"
    return forest(title, groups, COLOURS, low=0, high=100) if groups else None


def _percent(raw: Raw, data: str, way: str, quantity: str = "accuracy") -> Mark:
    found = raw.of(data, way, quantity)
    value, low, high = (None if n is None else 100 * n for n in (found.value, found.low, found.high))
    return Mark(
        way, Estimate(value, found.n, low, high), tuple(100 * seed for seed in raw.seeds(data, way, quantity))
    )


def drift_figure(files: Files) -> str | None:
    groups = [
        (
            f"{raw.name}, {raw.made['learning_rate']} x {raw.made['steps']}: {what}",
            [_percent(raw, raw.whole, way, quantity) for way in ("grit", *OBJECTIVES)],
        )
        for raw in files.of("drift", "drift-200")
        for what, quantity in (
            ("IoU x 100", "grounding_iou"),
            ("necessity", "necessity"),
            ("sufficiency", "sufficiency"),
        )
    ]
    title = "Where boxes drift (grit: the paper's objective): mean, 95 % interval, small dots are seeds"
    return forest(title, groups, COLOURS, low=0, high=100) if groups else None


FIGURES: dict[Callable[[Files], list[str]], Callable[[Files], str | None]] = {
    answers_better: accuracy_figure,
    rewards_add: drift_figure,
}
