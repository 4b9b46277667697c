"""Options that several commands share, and what their help says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PACKAGED = "tiny-qwen2.5-vl"  # the model of ask and serve where none is named
MODEL_HELP = "Packaged model, run folder, model folder, adapter or hub id"

# What answers, and how it is asked.
EndpointOption = Annotated[
    str | None,
    typer.Option(
        help="Ask a server instead: the address of an OpenAI-compatible endpoint (http://host:8000/v1)."
    ),
]
StrategyOption = Annotated[str, typer.Option(help="How to ask: grounded, direct, grounded-icl or sft.")]
FrameOption = Annotated[
    str | None,
    typer.Option(
        help="Coordinates the model writes: pixels, thousand or unit (default: by model type); behind an endpoint a model type (qwen2_5_vl) will do."
    ),
]
MaxPixelsOption = Annotated[
    int | None, typer.Option(min=1, help="Largest picture the model sees, in pixels (Qwen families).")
]
LengthOption = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="0 takes the most likely token.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the sampling.")]
NoProgressOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]

# What trains, and where.
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; may be repeated."),
]
TrainingFolderOption = Annotated[Path, typer.Option(help="Run folder: new, or the one to --resume.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in OUT.")]
ResumeAnywayOption = Annotated[
    bool,
    typer.Option(
        "--resume-anyway",
        help="Resume (--resume is not needed) though recipe, package versions or number of processes differ from the checkpoint's; says which.",
    ),
]
ResumeFromOption = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Resume from this checkpoint (step-000010), not the last; later ones are set aside. --resume is not needed.",
    ),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        min=1, help="Processes on this machine that train together: a GPU each, or a share of the cores."
    ),
]
