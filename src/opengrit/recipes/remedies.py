"""What is wrong with a recipe's keys and values, in sentences: equal problems once, each with what makes the recipe valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from opengrit.core.escaping import shortened
from opengrit.core.messages import nearest

KeyPath = tuple[str, ...]

_SHAPES = {
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
}
_LONGEST_REMEDY = 300  # characters of YAML that a message spells out
# What other trainers call our keys; names of ours are TRL's where TRL has them.
_MEANT = {
    "learning_rate": "lr max_lr peak_lr",
    "lr_scheduler_type": "scheduler lr_scheduler lr_schedule",
    "warmup_steps": "warmup_ratio warmup",
    "max_steps": "epochs num_epochs num_train_epochs total_epochs steps num_steps total_steps total_training_steps max_iters",
    "num_generations": "group_size num_samples rollout_n n_samples_per_prompt",
    "questions_per_step": "train_batch_size rollout_batch_size prompts_per_step",
    "per_device_train_batch_size": "batch_size micro_batch_size mini_batch_size per_device_batch_size",
    "beta": "kl_coef kl_beta kl_loss_coef",
    "epsilon": "cliprange clip_range clip_eps clip_ratio",
    "max_completion_length": "max_new_tokens max_tokens max_length max_response_length",
    "optim": "optimizer",
    "weight_decay": "wd",
    "max_grad_norm": "grad_clip clip_grad_norm clip_grad max_norm",
    "bf16": "fp16 mixed_precision precision",
    "save_steps": "save_freq save_interval checkpoint_every",
    "eval_steps": "eval_freq eval_interval eval_every",
    "keep_checkpoints": "save_total_limit",
    "report_to": "wandb tensorboard trackio mlflow tracker trackers logger use_wandb",
    "project": "wandb_project project_name",
    "seed": "random_seed",
    "r": "lora_r lora_rank rank",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "lora": "peft adapter adapters use_lora use_peft",
    "freeze_vision": "freeze_vit freeze_vision_tower freeze_visual",
    "quantization": "load_in_4bit quantization_config qlora",
    "dtype": "torch_dtype",
    "name": "model_name model_name_or_path pretrained checkpoint",
    "train": "dataset datasets train_file train_files train_data train_dataset",
    "eval": "eval_file eval_data eval_dataset test test_data val validation",
    "file": "path data_file jsonl",
    "images": "image_dir image_folder image_root images_dir picture_folder pictures",
    "rewards": "reward reward_funcs reward_functions reward_weights",
    "strategy": "prompt template",
}
_SYNONYMS = {other: key for key, others in _MEANT.items() for other in others.split()}
# What a command says and no recipe holds, and what follows from other keys.
_ELSEWHERE = {
    "output_dir": "the option --out names the folder; remove the key",
    "out": "the option --out names the folder; remove the key",
    "num_gpus": "the option --num-processes sets the number of processes; remove the key",
    "num_processes": "the option --num-processes sets the number of processes; remove the key",
    "gradient_accumulation_steps": (
        "it follows from questions_per_step, num_generations and per_device_train_batch_size; remove the key"
    ),
}
# A run is counted in steps here, and a share of them is written otherwise: the value changes with the name.
_CONVERTED = {
    "epochs": "the value in steps: epochs x rows / questions_per_step",
    "warmup_ratio": "below 1 it is a share of all steps",
}
_CONVERTED |= {name: f"write report_to: [{name}]" for name in ("wandb", "tensorboard", "trackio", "mlflow")}
_CONVERTED |= dict.fromkeys(("num_epochs", "num_train_epochs", "total_epochs"), _CONVERTED["epochs"])


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one key."""

    path: KeyPath
    rule: str  # what comes behind the key
    remedy: str = ""  # where the rule does not end with it
    many: str = ""  # the rule where several keys share it


def problem_of(
    kind: type[BaseModel], values: Mapping[str, Any], path: KeyPath, item: Any, called: str
) -> Problem:
    """One of pydantic's errors about a recipe of a kind, whose raw `values` it was found in."""
    if item["type"] == "extra_forbidden":
        remedy = _meant_by(kind, values, path, item["input"])
        return Problem(path, f" is not a key of {called}", remedy, f" are not keys of {called}")
    if item["type"] == "missing":
        return Problem(path, " is required and missing", "add it")
    if item["type"] == "value_error":
        return Problem(path, f": {item['ctx']['error']}")
    rule = _SHAPES.get(item["type"]) or item["msg"][0].lower() + item["msg"][1:]
    remedy = _reshaped(kind, values, path, item) or "change it"
    return Problem(path, f": {rule}, got {shortened(repr(item['input']), 60)}", remedy)


def grouped(problems: Sequence[Problem]) -> list[tuple[KeyPath, str]]:
    """A sentence for each different problem, and the first key that has it; keys of a section that share all else are listed."""
    groups: dict[tuple[KeyPath, str, str], list[Problem]] = {}
    for problem in problems:
        # One item of a list is like another.
        section = tuple("" if part.isdigit() else part for part in problem.path[:-1])
        groups.setdefault((section, problem.rule, problem.remedy), []).append(problem)
    sentences = []
    for (_, rule, remedy), alike in groups.items():
        keys = list(dict.fromkeys(".".join(problem.path) or "the recipe" for problem in alike))
        said = (alike[0].many or rule) if len(keys) > 1 else rule
        sentences.append((alike[0].path, f"{', '.join(keys)}{said}" + (f"; {remedy}" if remedy else "")))
    return sentences


def _meant_by(kind: type[BaseModel], values: Mapping[str, Any], path: KeyPath, value: object) -> str:
    """What to do about an unknown key: the nearest there is, in its own section first."""
    written = path[-1]
    known = list(keys_of(kind))
    section = tuple(part for part in path[:-1] if not part.isdigit())
    siblings = [keys[-1] for keys in known if keys[:-1] == section]
    if lists := _in_items(kind, values, path):
        return lists
    if written.lower() in _ELSEWHERE:
        return _ELSEWHERE[written.lower()]
    name = _name(written)
    how = f" ({_CONVERTED[written.lower()]})" if written.lower() in _CONVERTED else ""
    if name in siblings:
        return f"did you mean {name}?{how}"
    elsewhere = [".".join(keys) for keys in known if keys[-1] == name]
    near = nearest(written, siblings)
    if near and not (elsewhere and name != written):
        return f"did you mean {near}?"
    if elsewhere and not isinstance(value, dict):  # a section is where its writer wanted it
        return f"did you mean {' or '.join(elsewhere)}?{how}"
    return f"known here: {', '.join(siblings)}"


def _in_items(kind: type[BaseModel], values: Mapping[str, Any], path: KeyPath) -> str:
    """For a key that belongs to the items of a list, such as the picture folder of a data file: the lists with it put in."""
    written: dict[KeyPath, dict[str, Any]] = {}
    for keys, field in keys_of(kind).items():
        if not is_list(field.annotation) or path[:-1] not in (keys[:-1], ()) or keys == path[:-1]:
            continue
        beside = _stray(kind, values, path[:-1], field)
        if path[-1] not in beside:
            continue
        strays = {_name(key): value for key, value in beside.items()}
        items = _with_stray(_at(values, keys), strays, may_be_new=field.is_required())
        if items:
            written.setdefault(keys[:-1], {})[keys[-1]] = items
    texts = [
        _yaml(lists)[1:-1] if at == path[:-1] else _yaml({at[0]: lists})[1:-1]
        for at, lists in written.items()
    ]
    return f"it belongs to the file: remove it and write {', '.join(texts)}" if texts else ""


def _stray(
    kind: type[BaseModel], values: Mapping[str, Any], section: KeyPath, field: FieldInfo
) -> dict[str, Any]:
    """What is written in a section and is a key of the items of a list, not of the section itself."""
    own = {keys[-1] for keys in keys_of(kind) if keys[:-1] == section}
    fields = {name for inner in sections(field.annotation) for name in inner.model_fields}
    there = _at(values, section)
    items = there.items() if isinstance(there, Mapping) else ()
    return {
        key: value
        for key, value in items
        if isinstance(key, str)
        and key not in own
        and _name(key) in fields
        and not isinstance(value, dict | list)
    }


def _with_stray(written: Any, stray: Mapping[str, Any], *, may_be_new: bool = False) -> list[Any]:
    """A list's items with the keys that were written beside it; none where no item is a file."""
    items = written if isinstance(written, list) else [written]
    files = [_as_file(item) for item in items]
    if any(files):
        return [{**file, **stray} if file else item for file, item in zip(files, items, strict=True)]
    return [dict(stray)] if written is None and may_be_new and ("file" in stray or "hub" in stray) else []


def _as_file(item: Any) -> dict[str, Any] | None:
    """A data source that is a file, as a mapping; None for any other."""
    if isinstance(item, str) and PurePath(item).suffix:
        return {"file": item}
    return dict(item) if isinstance(item, Mapping) and "file" in item else None


def _reshaped(kind: type[BaseModel], values: Mapping[str, Any], path: KeyPath, item: Any) -> str:
    """The value in the shape that is wanted, where it is clear what was meant."""
    value = item["input"]
    if item["type"] in ("model_type", "dict_type") and value is None:
        return f"remove it, or write {path[-1]}: {{}}"
    if item["type"] != "tuple_type" or value is None:
        return ""
    field = keys_of(kind).get(tuple(part for part in path if not part.isdigit()))
    if field is None:  # below a name that the recipe's writer chose
        return ""
    stray = {_name(key): beside for key, beside in _stray(kind, values, path[:-1], field).items()}
    written = _yaml({path[-1]: _with_stray(value, stray) or [value]})[1:-1]
    return f"write {written}" if len(written) <= _LONGEST_REMEDY else "put [ ] around it"


def _name(written: str) -> str:
    """The key of ours that a key of another trainer means; any other stays as it is."""
    return _SYNONYMS.get(written.lower().replace("-", "_"), written)


def _at(values: Any, path: KeyPath) -> Any:
    """What stands at a path of raw values; None where nothing does."""
    for part in path:
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, Mapping):
            values = values.get(part)
        else:
            return None
    return values


def _yaml(value: Any) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    ).strip()


def keys_of(kind: type[BaseModel], path: KeyPath = ()) -> dict[KeyPath, FieldInfo]:
    """Every key a recipe of that kind can have, by its path; the keys of a list's items have the list's path."""
    found = {(*path, name): field for name, field in kind.model_fields.items()}
    for name, field in kind.model_fields.items():
        for section in sections(field.annotation):
            found |= keys_of(section, (*path, name))
    return found


def sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The sections a field's type holds, inside lists, alternatives and annotations too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for inner in get_args(annotation):
        yield from sections(inner)


def is_list(annotation: object) -> bool:
    """Whether a field's type is a list."""
    return get_origin(annotation) is tuple or any(is_list(inner) for inner in get_args(annotation))
