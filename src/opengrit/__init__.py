"""OpenGRIT: vision-language models that show their evidence, trained from a handful of questions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# No telemetry, unless whoever runs this asks for it. The libraries read these once, when they are imported: a module of
# ours that is imported after one of them would come too late.
for _name, _value in (
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("GRADIO_ANALYTICS_ENABLED", "False"),
    ("VLLM_NO_USAGE_STATS", "1"),
):
    os.environ.setdefault(_name, _value)

if TYPE_CHECKING:
    from opengrit.ground import Answer, Grounder

__version__ = "0.1.0"

__all__ = ["Answer", "Grounder", "__version__"]


def __getattr__(name: str) -> object:
    """`Grounder` and `Answer` are loaded when they are first asked for, so that `import opengrit` stays light."""
    if name in ("Answer", "Grounder"):
        from opengrit import ground

        return getattr(ground, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
