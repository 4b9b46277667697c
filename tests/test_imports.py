"""The house has floors: a file imports from its own floor or a lower one, and torch lives upstairs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import opengrit

SOURCE = Path(opengrit.__file__).parent

# DESIGN, section 2, from the ground up. A folder stands for everything in it.
LAYERS: dict[str, tuple[str, ...]] = {
    "nouns": ("errors", "boxes", "types", "records", "plain", "weights"),
    "language": ("tokens", "coordinates", "frames", "parsing", "prompts", "targets"),
    "judgement": ("answers", "endpoint", "judge", "rewards"),
    "world": ("images", "data"),
    "experience": ("samplers", "rollout", "runlock", "rundir"),
    "evidence": (
        "metrics",
        "evaluate",
        "drawing",
        "probes",
        "correlation",
        "report",
        "tally",
        "watch",
        "alarms",
    ),
    "learning": (
        "models",
        "memory",
        "data_order",
        "sft_trainer",
        "trainer",
        "sharding",
        "shared_prefix",
        "sidecar",
        "checkpoint",
        "finite",
        "stopping",
        "resuming",
    ),
    "doors": (
        "config",
        "training",
        "evaluation",
        "ground",
        "grounded",
        "listening",
        "asking",
        "terminal",
        "fit",
        "doctor",
        "yaml_recipe",
        "loading",
        "processes",
        "launch",
        "cli_probe",
        "serve",
        "cli",
        "cli_data",
        "cli_doctor",
        "cli_models",
        "cli_serve",
        "cli_table",
        "sft",
        "table",
        "__main__",
    ),
}
FLOOR = {name: floor for floor, names in enumerate(LAYERS.values()) for name in names}
HEAVY = ("torch", "torchvision", "transformers", "trl", "accelerate", "peft", "datasets", "deepspeed", "vllm")
MAY_BE_HEAVY = (
    "judge/local.py",
    "samplers/columns.py",
    "samplers/decoding.py",
    "samplers/memory.py",
    "samplers/picking.py",
    "samplers/prepared.py",
    "samplers/transformers.py",
    "samplers/vllm.py",
    "training.py",
)  # and all of learning

FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def top(file: str) -> str:
    """The name a file has in LAYERS: that of its folder, or its own."""
    return file.split("/")[0].removesuffix(".py")


def is_light(file: str) -> bool:
    return file not in MAY_BE_HEAVY and top(file) not in LAYERS["learning"]


def imported(file: str) -> Iterator[tuple[int, str]]:
    """The line and the full module name of every import anywhere in a file, inside functions too."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            yield node.lineno, str(node.module)
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imported_at_once(file: str) -> Iterator[str]:
    """The modules a file imports while it is itself imported."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_from_its_own_layer_or_a_lower_one(file: str) -> None:
    if file == "__init__.py":
        assert not [name for name in imported_at_once(file) if name.startswith("opengrit")]
        return
    assert top(file) in FLOOR, f"{file} stands in no layer; give it one in LAYERS and in the README's map"
    for line, name in imported(file):
        parts = name.split(".")
        if parts[0] != "opengrit" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert parts[1] in FLOOR, f"{file}:{line} imports {name}, which stands in no layer"
        assert FLOOR[parts[1]] <= FLOOR[top(file)], f"{file}:{line} imports {name} from a higher layer"


@pytest.mark.parametrize("file", [file for file in FILES if is_light(file)])
def test_torch_and_its_kin_are_imported_in_learning_and_its_sampler_only(file: str) -> None:
    if top(file) in LAYERS["doors"]:
        names = {name.split(".")[0] for name in imported_at_once(file)}
    else:
        names = {name.split(".")[0] for _, name in imported(file)}
    assert not names & set(HEAVY)


def test_everything_below_learning_and_the_command_line_import_without_torch() -> None:
    light = [file for file in FILES if is_light(file) and top(file) not in ("ground", "serve", "__main__")]
    modules = [
        "opengrit." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in light
    ]
    modules = [name for name in modules if name != "opengrit.__init__"]
    assert "opengrit.data.grit" in modules
    assert "opengrit.cli" in modules
    script = (
        "import importlib, sys\n"
        f"for name in {['opengrit', *modules]!r}:\n"
        "    importlib.import_module(name)\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    script = "import sys, opengrit; print([name for name in sys.modules if name.startswith('opengrit')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['opengrit']\n"
