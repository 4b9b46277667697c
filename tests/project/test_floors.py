"""The house has floors: a package imports from the floors below it only, no files import in a circle, and torch lives upstairs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors import FLOORS

import opengrit

SOURCE = Path(opengrit.__file__).parent

ROOT_FILES = {"__init__.py", "__main__.py", "version.py", "py.typed"}
HEAVY = ("torch", "torchvision", "transformers", "trl", "accelerate", "peft", "datasets", "deepspeed", "vllm")
# Below sampling/ three files name these at all: the judge that is a model itself, imported when it is asked for, the
# output settings of a command, which quieten transformers when they are called, and the reader of what datasets wrote.
HEAVY_BELOW = ("judges/local.py", "core/output.py", "data/tables/arrow.py")
# From sampling/ up these are imported at once by files whose work is tensors; elsewhere inside functions only.
HEAVY_FLOORS = ("sampling", "models", "training")
LIGHT_ABOVE = (  # of the heavy floors: what needs numbers and text only
    "sampling/__init__.py",
    "sampling/protocol.py",
    "sampling/endpoint.py",
    "sampling/replay.py",
    "sampling/detokenizing.py",
    "models/__init__.py",
    "models/resolve.py",
    "models/pretrained.py",
    "models/shapes.py",
    "models/memory_estimate.py",
    "training/__init__.py",
)

FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def floor_of(file: str) -> str:
    """The package a file lives in; its own name where it stands in the root."""
    return file.split("/")[0]


def module_of(file: str) -> str:
    return "opengrit." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_in(text: str) -> Iterator[tuple[int, str]]:
    """The line and the full name of every import anywhere in a file, inside functions and type checks too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imports_of(file: str) -> list[tuple[int, str]]:
    return list(imports_in((SOURCE / file).read_text(encoding="utf-8")))


def imports_at_once(file: str) -> Iterator[str]:
    """The modules a file imports while it is itself imported."""
    for node in ast.parse((SOURCE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def target_of(name: str) -> str | None:
    """The file that an imported name of ours leads to; None for a name of others and for the version."""
    parts = name.split(".")
    if parts[0] != "opengrit":
        return None
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[1:length])
        for file in (f"{path}.py", f"{path}/__init__.py".lstrip("/")):
            if file in FILES:
                return file
    return None


def upward(file: str, imports: list[tuple[int, str]]) -> list[str]:
    """The arrows of a file that go up, each with its file, line and floors."""
    found = []
    for line, name in imports:
        target = target_of(name)
        if target is None or floor_of(target) == "version.py":
            continue
        here, there = floor_of(file), floor_of(target)
        if there not in FLOORS or FLOORS.index(there) > FLOORS.index(here):
            found.append(
                f"src/opengrit/{file}:{line} on floor {here}/ imports {name} from {there}/, above it"
            )
    return found


def test_the_root_holds_the_packages_and_nothing_else() -> None:
    here = {entry.name for entry in SOURCE.iterdir() if entry.name != "__pycache__"}
    files = {name for name in here if (SOURCE / name).is_file()}
    assert files == ROOT_FILES, f"a module belongs on a floor, not in the root: {sorted(files - ROOT_FILES)}"
    assert here - files == set(FLOORS)


@pytest.mark.parametrize("file", [file for file in FILES if "/" in file])
def test_a_file_imports_from_its_own_floor_or_one_below(file: str) -> None:
    assert not upward(file, imports_of(file))


def test_an_arrow_that_goes_up_is_named_with_file_line_and_floors() -> None:
    text = "def lazily():\n    from opengrit.training.run import train\n    return train\n"
    assert upward("core/boxes.py", list(imports_in(text))) == [
        "src/opengrit/core/boxes.py:2 on floor core/ imports opengrit.training.run.train from training/, above it"
    ]
    assert upward("cli/app.py", list(imports_in(text))) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    arrows = {
        file: {target for _, name in imports_of(file) if (target := target_of(name)) not in (None, file)}
        for file in FILES
    }
    finished: set[str] = set()

    def walk(file: str, path: tuple[str, ...]) -> None:
        assert file not in path, f"a circle: {' -> '.join((*path[path.index(file) :], file))}"
        if file not in finished:
            for target in sorted(arrows[file]):
                walk(target, (*path, file))
            finished.add(file)

    for file in FILES:
        walk(file, ())


def is_light(file: str) -> bool:
    """Whether a file is imported without torch."""
    return (floor_of(file) not in HEAVY_FLOORS and file not in HEAVY_BELOW) or file in LIGHT_ABOVE


@pytest.mark.parametrize("file", [file for file in FILES if is_light(file)])
def test_torch_and_its_kin_are_imported_where_tensors_are_and_nowhere_else(file: str) -> None:
    below = "/" in file and FLOORS.index(floor_of(file)) < FLOORS.index("sampling")
    names = (name for _, name in imports_of(file)) if below else imports_at_once(file)
    assert not {name.split(".")[0] for name in names} & set(HEAVY)


def test_importing_the_light_files_imports_no_torch() -> None:
    above = ("inference", "serving", "harness")  # what asks a model imports it, and a harness brings its own
    modules = [
        "opengrit",
        *(module_of(f) for f in FILES if "/" in f and is_light(f) and floor_of(f) not in above),
    ]
    script = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_importing_the_package_imports_no_floor() -> None:
    script = (
        "import sys, opengrit; print(sorted(name for name in sys.modules if name.startswith('opengrit')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['opengrit', 'opengrit.version']\n"


@pytest.mark.parametrize("floor", FLOORS)
def test_a_door_says_what_lives_there_and_where_to_begin(floor: str) -> None:
    docstring = (
        ast.get_docstring(ast.parse((SOURCE / floor / "__init__.py").read_text(encoding="utf-8"))) or ""
    )
    assert "Begin with `" in docstring, f"{floor}/__init__.py does not say where to begin"
    begin = docstring.split("Begin with `")[1].split("`")[0]
    assert (SOURCE / floor / begin).is_file(), (
        f"{floor}/__init__.py sends a reader to {begin}, which is not there"
    )


def test_the_names_others_use_are_at_the_doors() -> None:
    from opengrit import Grounder, load_recipe, train
    from opengrit.core import Box, Example, Record, Size, Transcript, union_iou
    from opengrit.data import load_examples
    from opengrit.evaluation import evaluate, metrics
    from opengrit.grounding import Frame, parse
    from opengrit.judges import Judge, same_answer
    from opengrit.models import load
    from opengrit.rewards import Attempt, Rubric
    from opengrit.sampling import Sampler
    from opengrit.scripting import train as train_of_the_floor
    from opengrit.training import GritTrainer

    assert train is train_of_the_floor
    assert all(map(callable, (load_recipe, union_iou, load_examples, evaluate, parse, same_answer, load)))
    for kind in (
        Grounder,
        Box,
        Example,
        Record,
        Size,
        Transcript,
        Frame,
        Judge,
        Attempt,
        Rubric,
        Sampler,
        GritTrainer,
    ):
        assert isinstance(kind, type)
    assert metrics.estimate
