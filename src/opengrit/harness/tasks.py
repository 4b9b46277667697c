"""VSR, TallyQA, OVDEval and TreeBench as tasks of lmms-eval: GRIT's rows, our parser, the rule judge, our metrics.

The functions are named in `lmms_eval_tasks/*.yaml`; their arguments are lmms-eval's. A document is a line of a file that
`opengrit data get` wrote below the working folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opengrit.core.errors import DataError, RecipeError
from opengrit.core.images import open_any
from opengrit.core.types import Completion, Example
from opengrit.data.rows import Row
from opengrit.evaluation.metrics import (
    Quantity,
    box_precision,
    box_recall,
    follows_format,
    grounding_iou,
    right,
)
from opengrit.evaluation.rollout import EvaluationProtocol, read
from opengrit.grounding.frames import Unit
from opengrit.grounding.prompts import Strategy
from opengrit.judges import RuleJudge
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Sampled

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "benchmarks"  # what `opengrit data get NAME --out benchmarks` fills, below the working folder
FRAME_VARIABLE = "OPENGRIT_HARNESS_FRAME"  # what boxes of a reply are written in
OUR_FRAME = Unit.THOUSAND.value  # what our own model writes for lmms-eval, whatever its family writes
_FRAMES = (Unit.THOUSAND.value, Unit.PIXELS.value)
QUANTITIES: Mapping[str, Quantity] = {
    "rule_accuracy": right,
    "grounding_iou": grounding_iou,
    "box_recall": box_recall,
    "box_precision": box_precision,
    "follows_format": follows_format,
}


def _documents(lines: Any, *, file: str) -> Any:
    """lmms-eval's `process_docs`: each line with its place, so that the other functions need nothing else."""
    path = Path(FOLDER) / file
    root = path.parent / "images"
    place = {"file": str(path), "root": str(root if root.is_dir() else path.parent)}
    return lines.map(
        lambda line, number: {**place, "number": number + 1, "line": line["text"]},
        with_indices=True,
        remove_columns=["text"],
        load_from_cache_file=False,
    )


vsr_documents = partial(_documents, file="vsr/vsr_val.jsonl")
tallyqa_documents = partial(_documents, file="tallyqa/tallyqa_val.jsonl")
ovdeval_documents = partial(_documents, file="ovdeval/ovd_position_val.jsonl")
treebench_documents = partial(_documents, file="treebench/treebench.jsonl")


def example_of(document: Mapping[str, Any]) -> Example:
    """The example in a document. Raises DataError for a row that is not what GRIT's format says."""
    path = Path(document["file"])
    row = Row(file=str(path), line=document["number"], root=Path(document["root"]), dataset=path.stem)
    example = row.example(str(document["line"]).encode("utf-8"))
    if example is None:
        problem = (
            row.problems[0] if row.problems else f"{path}:{document['number']}: its picture is not there"
        )
        raise DataError(f"a row of a task is what GRIT's format says, one is not: {problem}")
    return example


def pictures(document: Mapping[str, Any]) -> list[Image.Image]:
    """The document's one picture, upright. Raises ImageError where it cannot be read."""
    return [open_any(example_of(document).image)]


def question(document: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str] | None = None) -> str:
    """The document's question, with what the task's YAML puts around it for a model that is not ours."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{example_of(document).question}{around.get('post_prompt', '')}"


def expected(document: Mapping[str, Any]) -> str:
    """The document's answer."""
    return example_of(document).answer


def scores(document: Mapping[str, Any], replies: Sequence[str]) -> dict[str, float]:
    """Each quantity of the first reply, 0 to 1, without those that say nothing about the row: lmms-eval's means leave it out.

    A reply without tags is an answer. Boxes are read in the frame that the environment variable OPENGRIT_HARNESS_FRAME
    names: thousandths of the picture (the default, and what our model writes here), or pixels of the picture as it is.
    """
    example = example_of(document)
    sampled = Sampled(Completion(replies[0]), prompt_ids=(), seen_size=example.picture_size)
    record = read(example, sampled, protocol=_protocol(_frame()), sample=0)
    found = {name: quantity(record) for name, quantity in QUANTITIES.items()}
    return {name: value for name, value in found.items() if value is not None}


def mean(values: Sequence[float]) -> float:
    """lmms-eval's aggregation: the mean of the rows that a quantity says something about."""
    return math.fsum(values) / len(values) if values else math.nan


def _frame() -> str:
    named = os.environ.get(FRAME_VARIABLE, OUR_FRAME)
    if named not in _FRAMES:
        raise RecipeError(
            f"boxes of a harness's replies are in {' or '.join(_FRAMES)}, {FRAME_VARIABLE} is {named!r}; set one of them"
        )
    return named


@cache
def _protocol(frame: str) -> EvaluationProtocol:
    return EvaluationProtocol(Strategy.DIRECT, frame, RuleJudge(), Rubric.named("paper"))
