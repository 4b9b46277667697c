"""Options that several commands share, and what their help says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

PACKAGED = "tiny-qwen2.5-vl"  # the model of ask and serve where none is named
MODEL_HELP = "Packaged model, run folder, model folder, adapter or hub id"

# What answers, and how it is asked.
Endpoint = Annotated[
    str | None, Option(help="Ask an OpenAI-compatible server at this address (http://host:8000/v1).")
]
Strategy = Annotated[
    str,
    Option(
        help="How to ask: grounded, direct, grounded-icl, sft, or a prompt of your own (prompt.txt with {question} in it, or prompt.py:function)."
    ),
]
System = Annotated[
    str | None, Option(help="Text of a system turn before the question (default: the model's own).")
]
Frame = Annotated[
    str | None,
    Option(
        help="Coordinates the model writes: pixels, thousand or unit (default: by model type); behind an endpoint a model type (qwen2_5_vl) will do."
    ),
]
MaxPixels = Annotated[int | None, Option(min=1, help="Largest picture the model sees, in pixels (Qwen).")]
Length = Annotated[int, Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, Option(min=0, help="0 takes the most likely token.")]
Seed = Annotated[int, Option(min=0, help="Seed of the sampling.")]
NoProgress = Annotated[bool, Option("--quiet", help="No progress bar.")]

# What trains, and where.
Overrides = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
]
RecipeFile = Annotated[
    Path, Argument(help="Recipe: a YAML file, or a packaged one by name (opengrit recipe list).")
]
TrainingFolder = Annotated[Path, Option(help="Run folder: new, or the one to --resume.")]
Resume = Annotated[bool, Option("--resume", help="Resume from the last checkpoint in OUT.")]
ResumeAnyway = Annotated[
    bool,
    Option(
        "--resume-anyway",
        help="Resume (--resume is not needed) though recipe, data, package versions or number of processes differ from the checkpoint's, or the state of its optimizer is lost; says which.",
    ),
]
ResumeFrom = Annotated[
    str | None,
    Option(
        metavar="CHECKPOINT",
        help="Resume from this checkpoint (step-000010), not the last; later ones are set aside. --resume is not needed.",
    ),
]
Processes = Annotated[
    int, Option(min=1, help="Processes that train together here: a GPU each, or a share of the cores.")
]
