"""Options that several commands share, what their help says, and the panels that the help shows them in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

PACKAGED = "tiny-qwen2.5-vl"  # the model of ask and serve where none is named
MODEL_HELP = "Packaged model, run folder, model folder, adapter or hub id"

# Panels of the help; a command shows those that it has options for.
model = partial(Option, rich_help_panel="Model")
data = partial(Option, rich_help_panel="Data")
generation = partial(Option, rich_help_panel="Generation")
judging = partial(Option, rich_help_panel="Judge and rewards")
output = partial(Option, rich_help_panel="Output")
recipe = partial(Option, rich_help_panel="Recipe")
resuming = partial(Option, rich_help_panel="Resume")
machine = partial(Option, rich_help_panel="This machine")

# What answers, and how it is asked.
Endpoint = Annotated[
    str | None,
    model(metavar="URL", help="Ask an OpenAI-compatible server at this address (http://host:8000/v1)."),
]
Frame = Annotated[
    str | None,
    model(
        metavar="FRAME",
        help="Coordinates the model writes: pixels, thousand or unit (default: by model type). With --endpoint, a model type (qwen2_5_vl) works too.",
    ),
]
MaxPixels = Annotated[
    int | None, model(metavar="PIXELS", min=1, help="Largest picture the model sees, in pixels (Qwen).")
]
Strategy = Annotated[
    str,
    generation(
        metavar="NAME|FILE",
        help="How to ask: grounded, direct, grounded-icl, sft, or a prompt of your own (prompt.txt with {question} in it, or prompt.py:function).",
    ),
]
System = Annotated[
    str | None, generation(help="System message before the question (default: the model's own).")
]
Length = Annotated[int, generation(metavar="TOKENS", min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, generation(min=0, help="0 takes the most likely token.")]
Seed = Annotated[int, generation(min=0, help="Seed of the sampling.")]
NoProgress = Annotated[bool, output("--quiet", help="Show no progress bar.")]

# What trains, and where.
RecipeName = Annotated[
    Path, Argument(help="Recipe: a YAML file, or the name of a packaged one (opengrit recipe list).")
]
Overrides = Annotated[
    list[str] | None,
    recipe("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
]
TrainingFolder = Annotated[Path, output(metavar="FOLDER", help="Run folder: new, or the one to --resume.")]
Resume = Annotated[bool, resuming("--resume", help="Resume from the last checkpoint in OUT.")]
ResumeAnyway = Annotated[
    bool,
    resuming(
        "--resume-anyway",
        help="Resume even if the recipe, data, package versions or number of processes differ from the checkpoint's, or its optimizer state is lost. Prints what differs. Implies --resume.",
    ),
]
ResumeFrom = Annotated[
    str | None,
    resuming(
        metavar="CHECKPOINT",
        help="Resume from this checkpoint (step-000010) instead of the last; later ones are set aside. Implies --resume.",
    ),
]
Processes = Annotated[
    int,
    machine(
        min=1, help="Processes that train together on this machine: one GPU each, or a share of the cores."
    ),
]
