"""What a card says, gathered from a run's folder and from the folder of its weights; nothing is asked of a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from opengrit.core.errors import RunError
from opengrit.core.plugins import OWN_CODE, is_text_file, looks_own
from opengrit.data.licences import licence_of
from opengrit.evaluation.measured import from_json
from opengrit.grounding.frames import UNIT_BY_MODEL_TYPE, Unit
from opengrit.grounding.prompts import user_text
from opengrit.models.weight_files import ADAPTER_CONFIG
from opengrit.publishing.card import CARD, NOT_STATED, Figures, ModelCard, Named, render
from opengrit.publishing.places import last_name, without_places
from opengrit.runs.alarms import alarms_of
from opengrit.runs.data_file import newest_data, noted_hashes
from opengrit.runs.folder import ENVIRONMENT, RunDir, all_of
from opengrit.runs.origin import CodeOrigin, ModelKind, ModelOrigin, Origin, read_origin
from opengrit.runs.recipe_comparison import kind_of, recipe_hash

_OURS = "apache-2.0"  # the licence of this project, and so of the models in it
STOP = "</answer>"  # what ends an answer in every training
_TRAIN = "train"  # what the rows that a run learns from are called in its data file
_METHODS = {"train": "reinforcement (GRPO)", "sft": "supervised fine-tuning"}
_VERSIONS = ("opengrit", "torch", "transformers", "trl", "peft")
# Keys of a recipe that a reader asks about first; the whole of it has its hash.
_SHOWN = (
    "strategy",
    "system",
    "rewards",
    "freeze_vision",
    "lora",
    "model.dtype",
    "model.quantization",
    "model.max_pixels",
    "model.max_tiles",
    "train.max_steps",
    "train.questions_per_step",
    "train.num_generations",
    "train.max_completion_length",
    "train.temperature",
    "train.learning_rate",
    "train.beta",
    "train.loss_type",
    "train.seed",
    "sft.max_steps",
    "sft.rows_per_step",
    "sft.learning_rate",
    "sft.seed",
)
_UNITS = {
    Unit.PIXELS: "pixels of the picture as its processor resizes it, as [left, top, right, bottom]",
    Unit.THOUSAND: "thousandths of the picture's width and height (0 to 1000), as [left, top, right, bottom]",
    Unit.UNIT: "shares of the picture's width and height (0 to 1), as [left, top, right, bottom]",
}
_TOY = "A toy for trying and testing the software: it knows only pictures of stickers on plain backgrounds."
_RESEARCH = "Research on visual reasoning that points at its evidence, on pictures and questions like those it was trained on."
_LIMITS = (
    "A box is what the model says it looked at. It does not prove that the answer depends on it; `opengrit probe` "
    "tests that.",
    "Answers and boxes can be wrong. Not for decisions about people, and not checked for safety, bias or other languages.",
)


def card_of(
    run: RunDir,
    weights: Path,
    *,
    frame: str,
    step: int | None = None,
    called: str = ".",
    figures: Sequence[Figures] = (),
    converted: str = "",
) -> str:
    """The card, as Markdown, of weights in a folder that a run of `train` or `sft` made.

    `frame` is the coordinate frame they write in, `step` the last one they have learned from (None: all), `called` what a
    reader loads them by, `figures` what evaluations found, and `converted` what was done to them since, in a sentence. No
    path of this machine is in it. Raises RunError where the folder is no training's or its files hold something else.
    """
    recipe = _recipe(run)
    kind = str(kind_of(run.recipe))
    origin = read_origin(run.path)
    base, hub_licence = _base(origin, recipe)
    data = [_data(source) for source in recipe["data"]["train"]]
    while_training = _while_training(run, recipe, step=step)
    card = ModelCard(
        title=f"{base.name} after {_METHODS[kind]} on {_listed([one.name for one in data])}",
        summary=_summary(kind, recipe, step=step, converted=converted),
        base=base,
        hub_base=base.name if origin and origin.model and origin.model.kind is ModelKind.HUB else None,
        hub_licence=hub_licence,
        is_adapter=(weights / ADAPTER_CONFIG).is_file(),
        data=data,
        data_hash=_data_hash(run),
        recipe=[*_shown(recipe), *_code(origin)],
        recipe_sha256=recipe_hash(run.recipe),
        weights=[(path.name, _sha256(path)) for path in sorted(weights.glob("*.safetensors"))],
        versions=_versions(run),
        judge=judge_in_words(recipe.get("judge"))
        if kind == "train"
        else "nobody (the loss is on given replies)",
        figures=[*figures, *while_training],
        not_measured=_not_measured(figures, while_training),
        alarms=sorted({alarm.kind.value for alarm in alarms_of(run.alarms())}),
        intended=_TOY if _is_toy(origin) else _RESEARCH,
        limits=[*_LIMITS, *_learned_from(run)],
        asks=_asks(run, recipe, origin, frame=frame),
        coordinates=_UNITS[UNIT_BY_MODEL_TYPE.get(frame) or Unit(frame)],
        stop=STOP,
        called=called,
    )
    return without_places(render(card), known=_known_places(run, weights, origin))


def judge_in_words(section: Any) -> str:
    """A recipe's judge as a reader needs it: its kind, and its model without the address."""
    if not isinstance(section, Mapping):
        return NOT_STATED if section is None else last_name(str(section))
    if section.get("kind") == "rule":
        return "the rule of OpenGRIT"
    if section.get("kind") == "own":
        return f"{last_name(str(section.get('function')))} (a function of its user's own)"
    return f"{last_name(str(section.get('model')))} ({section.get('kind')}, right from a score of {section.get('correct_from')})"


def _recipe(run: RunDir) -> dict[str, Any]:
    if kind_of(run.recipe) not in _METHODS:
        raise RunError(
            f"a card needs a trained model, {run.path} is not a run of opengrit train or sft; name one"
        )
    return yaml.safe_load(run.recipe)


def _summary(kind: str, recipe: Mapping[str, Any], *, step: int | None, converted: str) -> str:
    steps = recipe[kind]["max_steps"]
    taken = f"{steps} step{'' if steps == 1 else 's'}" if step is None else f"{step} of {steps} steps"
    first = f"A vision-language model that names boxes while it thinks, after {taken} of {_METHODS[kind]} with OpenGRIT."
    return f"{first} {converted}".strip()


def _asks(run: RunDir, recipe: Mapping[str, Any], origin: Origin | None, *, frame: str) -> str:
    """The prompt with {question} in it; of a function of the user's own, which is not called here, what it is called."""
    strategy, system = str(recipe["strategy"]), recipe.get("system")
    if not looks_own(strategy):
        turn = user_text(strategy, "{question}", family=frame)
    else:
        name = last_name(strategy)
        kept = next((code.kept for code in _own_code(origin) if code.name == name), None)
        if is_text_file(strategy) and kept is not None:
            turn = (run.path / kept).read_text(encoding="utf-8")
        else:
            turn = f"(what {name} makes of {{question}}; its source is in {OWN_CODE}/ of the run)"
    return f"System turn: {system}\n\nUser's turn: {turn}" if system else turn


def _own_code(origin: Origin | None) -> Sequence[CodeOrigin]:
    return () if origin is None else origin.own_code


def _base(origin: Origin | None, recipe: Mapping[str, Any]) -> tuple[Named, str | None]:
    """The base, and its licence by the name that the hub has for it, where it has one."""
    name = str(recipe["model"]["name"])
    model = None if origin is None else origin.model
    if model is None:  # an earlier version wrote the run
        return Named(last_name(name) if name.startswith(("/", "~", ".")) else name, NOT_STATED), None
    if model.kind is ModelKind.PACKAGED:
        return Named(name, _OURS, f"a toy model that comes with OpenGRIT, {_mark(model)}"), _OURS
    if model.kind is ModelKind.HUB:
        words, hub = licence_on_card(_cached_card(name))
        return Named(
            name, words or f"{NOT_STATED} here, see its page on the hub", f"on the hub, {_mark(model)}"
        ), hub
    folder = Path(model.path or name)
    words, hub = licence_on_card(folder / CARD)
    return Named(last_name(name), words or NOT_STATED, f"a folder, {_mark(model)}"), hub


def _mark(model: ModelOrigin) -> str:
    if model.sha256 is not None:
        return f"SHA-256 of its files `{model.sha256}`"
    return f"revision `{model.revision}`" if model.revision else "its revision was not noted"


def _cached_card(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, CARD)
    return Path(found) if isinstance(found, str) else None


def licence_on_card(card: Path | None) -> tuple[str | None, str | None]:
    """The licence in the head of a model card that is there, in words and as the hub calls it; None where it says nothing."""
    if card is None or not card.is_file():
        return None, None
    head = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(head) < 3 or head[0].strip():
        return None, None
    try:
        value = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return None, None
    found = value if isinstance(value, dict) else {}
    named, licence = found.get("license_name"), found.get("license")
    hub = licence if isinstance(licence, str) and licence != "other" else None
    return named if isinstance(named, str) else hub, None if named else hub


def _is_toy(origin: Origin | None) -> bool:
    return origin is not None and origin.model is not None and origin.model.kind is ModelKind.PACKAGED


def _data(source: Mapping[str, Any]) -> Named:
    if source.get("hub"):
        name = str(source["hub"])
        return Named(name, f"{NOT_STATED} here, see its page on the hub", "a data set of the hub")
    spec = str(source.get("name") or source.get("file"))
    found = licence_of(spec)
    return Named(spec if source.get("name") else last_name(spec), found.licence, found.origin)


def _data_hash(run: RunDir) -> str:
    noted = noted_hashes(run.path)
    return noted[-1].get(_TRAIN, NOT_STATED) if noted else NOT_STATED


def _learned_from(run: RunDir) -> list[str]:
    noted = newest_data(run.path)
    rows = len(noted[_TRAIN].rows) if noted and _TRAIN in noted else 0
    return (
        [f"It learned from {rows} rows; it may answer other kinds of question worse than its base."]
        if rows
        else []
    )


def _shown(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key in _SHOWN:
        value: Any = recipe
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found.append((key, _in_words(value)))
    return found


def _code(origin: Origin | None) -> list[tuple[str, str]]:
    """The user's own files that the run executed or read, with their hashes."""
    return [(f"own code {code.name}", f"SHA-256 {code.sha256}") for code in _own_code(origin)]


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _versions(run: RunDir) -> list[tuple[str, str]]:
    try:
        packages = json.loads(all_of(run.path / ENVIRONMENT)[-1].read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, LookupError, TypeError):
        return []  # an earlier version wrote the run
    return [(name, str(packages[name])) for name in _VERSIONS if name in packages]


def _while_training(run: RunDir, recipe: Mapping[str, Any], *, step: int | None) -> list[Figures]:
    """The newest figures of each evaluation set that the run itself made, up to a step."""
    newest: dict[str, Figures] = {}
    for row in run.evaluations():
        try:
            found, at = from_json(row), int(row["step"])
        except (ValueError, LookupError) as error:
            raise RunError(
                f"a run's evaluations.jsonl holds what opengrit wrote, that of {run.path} does not ({error})"
            ) from error
        if step is None or at <= step:
            when = f"{found.num_questions} of its questions, at step {at} of the training"
            newest[found.data] = Figures("this model", when, judge_in_words(recipe.get("judge")), found)
    return list(newest.values())


def _not_measured(figures: Sequence[Figures], while_training: Sequence[Figures]) -> list[str]:
    found = []
    if not figures:
        found.append(
            "whole evaluation sets: the figures above come from the training run"
            if while_training
            else "this model on any question: the run has no evaluation"
        )
    if not any(one.who != "this model" for one in figures):
        found.append(
            "its base, asked plainly or with this prompt: whether training improved anything is unknown"
        )
    elif not any(one.who != "this model" and one.found.strategy == "direct" for one in figures):
        found.append("its base, asked plainly")
    return [*found, "whether the answers depend on the boxes", "other seeds of the same training"]


def _known_places(run: RunDir, weights: Path, origin: Origin | None) -> list[str]:
    """Absolute paths that could have come into a value of the run."""
    found = [str(run.path.resolve()), str(weights.resolve()), str(Path.home())]
    if origin is not None:
        found += [origin.working_folder, *(one.path or "" for one in origin.data)]
        found += [one.images or "" for one in origin.data]
        found.append((origin.model and origin.model.path) or "")
    return found


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
