"""What the doctor looks at: a recipe, the environment it is to run in, and what each section hands to later ones."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from opengrit.core.types import Example, Record
from opengrit.doctor.findings import Finding
from opengrit.doctor.fit import Machine
from opengrit.models.memory_estimate import GB, Sharding
from opengrit.models.shapes import ModelFacts
from opengrit.recipes.model_section import Model
from opengrit.recipes.training_recipe import Recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Sampler

if TYPE_CHECKING:
    from opengrit.models.families import Loaded
    from opengrit.sampling.model_inputs import PreparedPrompt


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine that a run is planned for: the current one, or another that a test or a person names."""

    machine: Machine
    has_gpu: bool
    has_bf16: bool
    python: str
    version: Callable[[str], str | None]  # of an installed package; None where it is not
    free_bytes: Callable[[Path], int]  # of the file system that holds a folder
    offline: bool  # the hub must not be asked
    is_current: bool = True  # it is the machine the doctor runs on

    @classmethod
    def current(
        cls,
        *,
        num_processes: int = 1,
        device_gb: float | None = None,
        sharding: Sharding = Sharding.NONE,
    ) -> Environment:
        """This machine; with `device_gb` one with GPUs of that size instead, whatever is in this one."""
        import torch

        gpu = torch.cuda.is_available()
        machine = _this_machine(num_processes)
        if device_gb is not None:
            machine = Machine("the GPUs planned for", num_processes, device_gb)
        return cls(
            machine=replace(machine, sharding=sharding),
            has_gpu=gpu or device_gb is not None,
            has_bf16=device_gb is not None or (gpu and torch.cuda.is_bf16_supported()),
            python=platform.python_version(),
            version=installed,
            free_bytes=free_bytes,
            offline=any(_is_set(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
            is_current=device_gb is None,
        )


def installed(package: str) -> str | None:
    """The version of an installed package; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def free_bytes(folder: Path) -> int:
    """What is free on the file system that a folder lies on, or would lie on."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _this_machine(num_processes: int) -> Machine:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return Machine(torch.cuda.get_device_name(0), num_processes, memory / GB)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine("this machine without a GPU", num_processes, memory / GB / num_processes)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false", "no")


@dataclass(slots=True)
class Context:
    """A recipe and where it is to run. The sections fill in the fields below the line, in their order."""

    recipe: Recipe
    environment: Environment
    out: Path | None
    quick: bool
    num_questions: int
    num_samples: int  # completions of each
    load: Callable[[Model], Loaded]
    sampler_of: Callable[[Loaded], Sampler]
    # ----
    strategy: str = ""  # the recipe's; a prompt of its own is read
    rubric: Rubric | None = None  # None: code of the recipe's own cannot be used
    examples: list[Example] = field(default_factory=list)
    unsized: int = 0  # training rows whose pictures are not there, so that nothing says how large they are
    evaluated: list[Example] = field(default_factory=list)
    facts: ModelFacts | None = None
    loaded: Loaded | None = None
    prompts: list[PreparedPrompt] = field(default_factory=list)
    groups: list[list[Record]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def why_without_model(self) -> str:
        """Why a section that needs the model is skipped."""
        return "--quick leaves out what needs the model" if self.quick else "the model could not be loaded"
