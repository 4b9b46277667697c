"""The doctor on the environment: versions against the pins, torchvision beside torch, and what the recipe needs."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from opengrit.doctor.context import Notes, Patient, shown
from opengrit.doctor.findings import Area, Finding
from opengrit.recipes.training_recipe import Recipe

_NOTES = Notes(Area.ENVIRONMENT)
_TOLD = ("torch", "transformers", "trl")
_DECIDE = ("torch", "torchvision", "transformers", "trl", "accelerate", "peft")  # others are forgiving
# torchvision 0.26 belongs to torch 2.11 (pytorch.org's table of releases): their second numbers differ by 15.
_TORCHVISION_BEHIND = 15


def examine_environment(patient: Patient) -> Iterator[Finding]:
    """Python and packages, the device, and optional packages that the recipe needs."""
    here = patient.here
    versions = ", ".join(f"{name} {v}" for name in _TOLD if (v := here.version(name)) is not None)
    yield from _pins(patient, versions)
    yield from _torchvision(patient)
    yield from _device(patient)
    for package, why, extra, instead in _needed(patient.recipe):
        if here.version(package) is None:
            yield _NOTES.fail(
                package,
                f"{why} needs the package {package}, which is not installed",
                f"pip install 'opengrit[{extra}]', or {instead}",
            )
        else:
            yield _NOTES.ok(package, f"{package} {here.version(package)}, for {why}")
    if here.offline:
        yield _NOTES.ok("hub", "offline (HF_HUB_OFFLINE): only models that are on this machine can be used")


def _pins(patient: Patient, versions: str) -> Iterator[Finding]:
    wrong = [
        (requirement, found)
        for requirement in _requirements()
        if not _satisfied(requirement, found := patient.here.version(requirement.name))
    ]
    for requirement, found in wrong:
        has = "is not installed" if found is None else f"is {found}"
        text = f"{requirement.name} {has}, and opengrit needs {requirement.name}{requirement.specifier}"
        remedy = f"pip install '{requirement.name}{requirement.specifier}'"
        grave = found is None or requirement.name in _DECIDE
        yield (_NOTES.fail if grave else _NOTES.warn)(requirement.name, text, remedy)
    if not wrong:
        yield _NOTES.ok("versions", f"Python {patient.here.python}, {versions}: as opengrit needs them")


def _requirements() -> list[Requirement]:
    """What opengrit needs always, as its own installation says."""
    try:
        lines = importlib.metadata.requires("opengrit") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source without being installed
        return []
    found = [Requirement(line) for line in lines]
    return [
        requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate()
    ]


def _satisfied(requirement: Requirement, version: str | None) -> bool:
    if version is None:
        return False
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:  # built by hand: nobody can say
        return True


def _torchvision(patient: Patient) -> Iterator[Finding]:
    """A torchvision of another torch, or another build of it, breaks the import of every vision-language model."""
    torch, vision = patient.here.version("torch"), patient.here.version("torchvision")
    if torch is None or vision is None:
        return  # said among the versions
    numbers = [re.match(r"(\d+)\.(\d+)", text) for text in (torch, vision)]
    builds = [text.partition("+")[2] for text in (torch, vision)]
    remedy = "install both from one index in one command: pip install --upgrade torch torchvision"
    if numbers[0] and numbers[1] and int(numbers[0][1]) == 2:
        belongs = int(numbers[0][2]) + _TORCHVISION_BEHIND
        if int(numbers[1][2]) != belongs:
            yield _NOTES.fail(
                "torchvision", f"torch {torch} goes with torchvision 0.{belongs}, here is {vision}", remedy
            )
            return
    if all(builds) and builds[0] != builds[1]:
        yield _NOTES.fail(
            "torchvision",
            f"torch is built for {builds[0]} and torchvision for {builds[1]}: its operators will not load",
            remedy,
        )
        return
    if not patient.quick and patient.here.is_here:
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError, OSError) as error:  # "operator torchvision::nms does not exist"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield _NOTES.fail("torchvision", f"torchvision {vision} does not import ({reason})", remedy)
            return
    yield _NOTES.ok("torchvision", f"torchvision {vision} goes with torch {torch}")


def _device(patient: Patient) -> Iterator[Finding]:
    here, train = patient.here, patient.recipe.train
    if not here.has_gpu:
        if train.bf16:
            yield _NOTES.fail(
                "device",
                "train.bf16 computes in 16 bits, and there is no GPU here to do it on",
                "set train.bf16: false to train on the CPU (toy models only), or run on a machine with a GPU",
            )
            return
        yield _NOTES.ok("device", "no GPU: trains on the CPU in 32 bits, which is for toy models")
        return
    if train.bf16 and not here.has_bf16:
        yield _NOTES.fail(
            "device",
            f"train.bf16 computes in bfloat16, which {here.machine.name} does not have",
            "set train.bf16: false, or use a GPU of the Ampere generation or later",
        )
        return
    yield _NOTES.ok(
        "device",
        f"{here.machine.name}, {here.machine.device_gb:.0f} GB, computing in {'16' if train.bf16 else '32'} bits",
    )


def _needed(recipe: Recipe) -> Iterator[tuple[str, str, str, str]]:
    """Package, what needs it, the extra that brings it, and what to write instead."""
    if recipe.train.vllm_mode is not None:
        yield "vllm", f"train.vllm_mode {recipe.train.vllm_mode}", "vllm", "set train.vllm_mode: null"
    eight = recipe.train.optim.endswith("8bit")
    four = recipe.model.quantization is not None
    if eight or four:
        why = [f"train.optim {recipe.train.optim}"] * eight
        why += [f"model.quantization {recipe.model.quantization}"] * four
        instead = ["train.optim: adamw_torch"] * eight + ["model.quantization: null"] * four
        yield "bitsandbytes", shown(why), "qlora", f"set {shown(instead)}"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true", "yes"):
        yield "deepspeed", "this accelerate configuration", "deepspeed", "choose one without DeepSpeed"
