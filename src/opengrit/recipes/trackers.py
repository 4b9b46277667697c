"""The keys of a recipe about trackers: programs that draw a training's curves while it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

TrackerName = Literal["trackio", "wandb", "tensorboard", "mlflow"]


def _listed(value: Any) -> Any:
    """One name as a list of one, and "none", which transformers takes for no tracker, as a list without any."""
    if isinstance(value, str):
        return () if value == "none" else (value,)
    return value


ReportTo = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(_listed),
    Field(
        description=(
            "trackers that get the metrics in addition to metrics.jsonl: trackio, wandb, tensorboard, mlflow (pip "
            "install 'opengrit[track]'); default: none"
        )
    ),
]
Project = Annotated[
    str,
    Field(
        min_length=1,
        description=("project that trackio, wandb and mlflow list the run under (transformers' name)"),
    ),
]
