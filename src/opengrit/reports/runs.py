"""Runs as the report sees them: records, metrics and the facts that go with every number."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from rich.progress import Progress

from opengrit.core.collector import paused_collector
from opengrit.core.errors import RunError
from opengrit.core.messages import first_few
from opengrit.core.progress import progress_bar
from opengrit.core.types import Record
from opengrit.evaluation.metrics.estimates import key_of
from opengrit.evaluation.since import Since, in_words, since, tell
from opengrit.runs.alarms import Alarm, alarms_of
from opengrit.runs.folder import ENVIRONMENT, METRICS, RECIPE, RECORDS, RunDir
from opengrit.runs.recipe_comparison import recipe_hash

_log = logging.getLogger(__name__)
_VERSIONS = ("opengrit", "torch", "transformers", "trl", "peft", "accelerate", "vllm")
_TOLD_EVERY = 100  # records


class RunKind(Enum):
    """What a run did."""

    TRAINING = "training"
    EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class RunView:
    """A run, read. `records` of a training run are only each example's first and last; `metrics` are its steps."""

    name: str
    kind: RunKind
    records: tuple[Record, ...]
    metrics: tuple[Mapping[str, Any], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    alarms: tuple[Alarm, ...] = ()

    @property
    def is_evaluation(self) -> bool:
        """Whether it belongs into the tables before and after."""
        return self.kind is RunKind.EVALUATION


def read_runs(
    paths: Sequence[str | Path], *, images: Path | None = None, quiet: bool = True
) -> list[RunView]:
    """The evaluations and trainings in these folders, named by the folder, and by its parents too where two folders share a name.

    Pictures are looked for where each run took them from, and in `images` first. What is missing or changed since is
    logged, and is a fact of the run.

    Raises RunError where a folder is no run, a line of it cannot be read, or a folder is named twice.
    """
    places = [Path(path).resolve() for path in paths]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise RunError(f"a report shows a run once, {paths[i]} is named twice; leave one out")
    with progress_bar(quiet) as progress, paused_collector():
        return [
            _load(_opened(path), name, images=images, progress=progress)
            for path, name in zip(paths, _distinct_names(places), strict=True)
        ]


def _opened(path: str | Path) -> RunDir:
    """The run in a folder. Raises RunError where there is none, also where a recipe lies that nothing has run."""
    run = RunDir.open(path)
    if not any((run.path / name).exists() for name in (ENVIRONMENT, RECORDS, METRICS)):
        raise RunError(
            f"a run's folder needs results, {path} has only a recipe; name the --out folder of a command"
        )
    return run


def _distinct_names(places: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as make all of them different."""
    deepest = max((len(place.parts) for place in places), default=0)
    for depth in range(1, deepest + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]


def _load(run: RunDir, name: str, *, images: Path | None, progress: Progress) -> RunView:
    recipe = recipe_of(run)
    environment = _environment(run)
    if "evaluate" in recipe:
        records = tuple(_records_for_page(run, progress))
        kind, inner = RunKind.EVALUATION, recipe["evaluate"]
        measured = [("answers", str(len(records)))]
        metrics: tuple[dict[str, Any], ...] = ()
    else:
        records, count = _ends(_records_for_page(run, progress))
        kind, inner = RunKind.TRAINING, recipe
        metrics = tuple(run.metrics())
        measured = [("rollouts", str(count)), ("steps", str(len({row.get("step") for row in metrics})))]
    found = since(
        run, records, images=images, limit=inner.get("limit") if isinstance(inner, Mapping) else None
    )
    tell_for_report(run, found)
    records = found.records
    if changed := in_words(found):
        measured.append(("changed since", changed))
    alarms = tuple(alarms_of(run.alarms()))
    if alarms:
        measured.append(("alarms", ", ".join(f"{a.kind.value} (step {a.step})" for a in alarms)))
    facts = (*_recipe_facts(inner), *measured, *_environment_facts(environment))
    facts += (("recipe", recipe_hash(run.recipe)[:12]),)
    return RunView(name, kind, records, metrics, facts, alarms)


def _records_for_page(run: RunDir, progress: Progress) -> Iterator[Record]:
    """The run's records without their token ids: nothing on a page depends on them, and they are most of a record in memory."""
    task = progress.add_task(f"reading {run.path.name}", total=None)
    for number, record in enumerate(run.records(), start=1):
        if number % _TOLD_EVERY == 0:
            progress.update(task, completed=number)
        yield replace(record, completion=replace(record.completion, token_ids=()))


def tell_for_report(run: RunDir, found: Since) -> None:
    """Log what is not as it was when the run was made."""
    tell(
        run,
        found,
        consequence="they are not shown: restore them, or name their folder with --images",
    )
    if found.exchanged:
        _log.warning(
            "%d pictures of %s have changed since they were asked about (%s): boxes on them may be misplaced",
            len(found.exchanged),
            run.path,
            first_few(found.exchanged),
        )


def _ends(records: Iterable[Record]) -> tuple[tuple[Record, ...], int]:
    """The first and the last record of sample 0 of each example, and how many records there are in all."""
    first: dict[tuple[str, str], Record] = {}
    last: dict[tuple[str, str], Record] = {}
    count = 0
    for record in records:
        count += 1
        if record.sample == 0:
            key = key_of(record.example)
            first.setdefault(key, record)
            last[key] = record
    return (*first.values(), *(r for key, r in last.items() if r is not first[key])), count


def recipe_of(run: RunDir) -> Mapping[str, Any]:
    """A run's recipe as a mapping. Raises RunError where it is none."""
    path = run.path / RECIPE
    try:
        value = yaml.safe_load(run.recipe)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(
            f"a run's recipe is YAML, {path} is not ({' '.join(str(error).split())}); fix it"
        ) from error
    if not isinstance(value, dict):
        raise RunError(f"a run's recipe is a mapping, {path} is {type(value).__name__}; fix it")
    return value


def _environment(run: RunDir) -> Mapping[str, Any]:
    path = run.path / ENVIRONMENT
    if not os.path.isfile(path):
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"a run's environment is JSON, {path} is not ({error}); fix it") from error
    return value if isinstance(value, dict) else {}


def _recipe_facts(recipe: Any) -> list[tuple[str, str]]:
    """What the numbers of a run depend on, as far as its recipe names it."""
    if not isinstance(recipe, Mapping):
        return []
    model, data = recipe.get("model"), recipe.get("data")
    sources = data.get("train", ()) if isinstance(data, Mapping) else data or ()
    eval_part, train = recipe.get("eval") or {}, recipe.get("train") or {}
    found: list[tuple[str, Any]] = [
        ("model", model.get("name") if isinstance(model, Mapping) else model),
        ("data", ", ".join(_source(source) for source in sources)),
        ("strategy", recipe.get("strategy")),
        ("pictures", "grey all over (--blind)" if recipe.get("blind") else None),
        ("rewards", recipe.get("rewards")),
        ("judge", _judge(recipe.get("judge"))),
        ("seed", train.get("seed", recipe.get("seed"))),
        ("sampling", _sampling(train or eval_part)),
        ("first rows only", recipe.get("limit")),
    ]
    return [(name, _plain(value)) for name, value in found if value not in (None, "")]


def _judge(section: Any) -> str | None:
    """The judge's kind, and the model or the function where it is one."""
    if not isinstance(section, Mapping):
        return section if isinstance(section, str) else None
    return " ".join(str(section[name]) for name in ("kind", "model", "function") if section.get(name))


def _sampling(part: Mapping[str, Any]) -> str:
    names = {"temperature": "temperature {}", "max_completion_length": "at most {} tokens"}
    return ", ".join(text.format(part[name]) for name, text in names.items() if name in part)


def _source(source: Any) -> str:
    if not isinstance(source, Mapping):
        return str(source)
    return str(source.get("file") or source.get("name") or source.get("hub") or source)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    return str(value)


def _environment_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages = environment.get("packages") or {}
    versions = ", ".join(f"{name} {packages[name]}" for name in _VERSIONS if name in packages)
    found = [("versions", versions), ("python", str(environment.get("python", "")))]
    return [(name, value) for name, value in found if value]
