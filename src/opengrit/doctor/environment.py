"""The doctor on the environment: versions against the pins, torchvision beside torch, and what the recipe needs."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from opengrit.core.messages import first_few
from opengrit.doctor.context import Context, Environment
from opengrit.doctor.findings import Area, Finding
from opengrit.recipes.training_recipe import Recipe

_AREA = Area.ENVIRONMENT
_LISTED = ("torch", "transformers", "trl")
# The other packages may differ a little from what opengrit needs.
_ESSENTIAL = ("torch", "torchvision", "transformers", "trl", "accelerate", "peft")
# torchvision 0.26 belongs to torch 2.11 (pytorch.org's table of releases): their second numbers differ by 15.
_TORCHVISION_BEHIND = 15


def examine_environment(context: Context) -> Iterator[Finding]:
    """Python and packages, the device, and optional packages that the recipe needs."""
    environment = context.environment
    yield from _pins(environment)
    yield from _torchvision(context)
    yield _device(environment, bf16=context.recipe.train.bf16)
    for package, why, extra, instead in _needed(context.recipe):
        if environment.version(package) is None:
            yield _AREA.fail(
                package,
                f"{why} needs the package {package}, which is not installed",
                f"pip install 'opengrit[{extra}]', or {instead}",
            )
        else:
            yield _AREA.ok(package, f"{package} {environment.version(package)}, for {why}")
    if environment.offline:
        yield _AREA.ok("hub", "offline (HF_HUB_OFFLINE): only models on this machine can be used")


def _pins(environment: Environment) -> Iterator[Finding]:
    wrong = [r for r in _requirements() if not _satisfied(r, environment.version(r.name))]
    for requirement in wrong:
        found, needed = environment.version(requirement.name), f"{requirement.name}{requirement.specifier}"
        has = "is not installed" if found is None else f"is {found}"
        text = f"{requirement.name} {has}, opengrit needs {needed}"
        fails = found is None or requirement.name in _ESSENTIAL
        yield _AREA.graded(requirement.name, text, f"pip install '{needed}'", fails=fails, warns=True)
    if not wrong:
        listed = [f"{name} {v}" for name in _LISTED if (v := environment.version(name)) is not None]
        text = f"Python {environment.python}, {', '.join(listed)}: as opengrit needs them"
        yield _AREA.ok("versions", text)


def _requirements() -> list[Requirement]:
    """What opengrit needs always, as its own installation says."""
    try:
        lines = importlib.metadata.requires("opengrit") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source without being installed
        return []
    return [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate()]


def _satisfied(requirement: Requirement, version: str | None) -> bool:
    if version is None:
        return False
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:  # built by hand: nobody can say
        return True


def _torchvision(context: Context) -> Iterator[Finding]:
    """A torchvision of another torch, or another build of it, breaks the import of every vision-language model."""
    torch, vision = context.environment.version("torch"), context.environment.version("torchvision")
    if torch is None or vision is None:
        return  # reported with the versions
    numbers = [re.match(r"(\d+)\.(\d+)", text) for text in (torch, vision)]
    builds = [text.partition("+")[2] for text in (torch, vision)]
    remedy = "install both from one index in one command: pip install --upgrade torch torchvision"
    if numbers[0] and numbers[1] and int(numbers[0][1]) == 2:
        belongs = int(numbers[0][2]) + _TORCHVISION_BEHIND
        if int(numbers[1][2]) != belongs:
            text = f"torch {torch} needs torchvision 0.{belongs}, installed is {vision}"
            yield _AREA.fail("torchvision", text, remedy)
            return
    if all(builds) and builds[0] != builds[1]:
        text = f"torch is built for {builds[0]} and torchvision for {builds[1]}: its operators will not load"
        yield _AREA.fail("torchvision", text, remedy)
        return
    if not context.quick and context.environment.is_current:
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError, OSError) as error:  # "operator torchvision::nms does not exist"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield _AREA.fail("torchvision", f"torchvision {vision} does not import ({reason})", remedy)
            return
    yield _AREA.ok("torchvision", f"torchvision {vision} goes with torch {torch}")


def _device(environment: Environment, *, bf16: bool) -> Finding:
    machine = environment.machine
    if bf16 and not environment.has_gpu:
        return _AREA.fail(
            "device",
            "train.bf16 computes in 16 bits, and this machine has no GPU",
            "set train.bf16: false to train on the CPU (toy models only), or run on a machine with a GPU",
        )
    if bf16 and not environment.has_bf16:
        return _AREA.fail(
            "device",
            f"train.bf16 computes in bfloat16, which {machine.name} does not support",
            "set train.bf16: false, or use a GPU of the Ampere generation or later",
        )
    if not environment.has_gpu:
        return _AREA.ok("device", "no GPU: training runs on the CPU in 32 bits, which suits toy models only")
    bits = 16 if bf16 else 32
    return _AREA.ok("device", f"{machine.name}, {machine.device_gb:.0f} GB, computing in {bits} bits")


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
        yield "bitsandbytes", first_few(why), "qlora", f"set {first_few(instead)}"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true", "yes"):
        yield "deepspeed", "this accelerate configuration", "deepspeed", "choose one without DeepSpeed"
