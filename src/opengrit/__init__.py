"""OpenGRIT: vision-language models that show their evidence, trained from a handful of questions."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any

from opengrit.version import __version__

# No telemetry, unless whoever runs this asks for it. The libraries read these once, when they are imported: a module of
# ours that is imported after one of them would come too late.
for _name, _value in (
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("GRADIO_ANALYTICS_ENABLED", "False"),
    ("VLLM_NO_USAGE_STATS", "1"),
):
    os.environ.setdefault(_name, _value)

# tqdm says so when it is imported in a notebook without ipywidgets; its bars are text there, and that is well.
warnings.filterwarnings("ignore", message="IProgress not found")

if TYPE_CHECKING:
    from opengrit.converters import records
    from opengrit.inference import Answer, Grounder
    from opengrit.recipes import Recipe, load_recipe
    from opengrit.scripting import Run, evaluate, report, train

__all__ = [
    "Answer",
    "Grounder",
    "Recipe",
    "Run",
    "__version__",
    "evaluate",
    "load_recipe",
    "records",
    "report",
    "train",
]

_DOORS = {
    "Answer": "opengrit.inference",
    "Grounder": "opengrit.inference",
    "Recipe": "opengrit.recipes",
    "load_recipe": "opengrit.recipes",
    "records": "opengrit.converters",
    "Run": "opengrit.scripting",
    "evaluate": "opengrit.scripting",
    "report": "opengrit.scripting",
    "train": "opengrit.scripting",
}


def __getattr__(name: str) -> Any:
    """The names others use are loaded when they are first asked for, so that `import opengrit` stays light."""
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_DOORS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
