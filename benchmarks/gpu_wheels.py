"""Fills a folder with the wheels that a machine with torch and without this project's other packages lacks.

    python benchmarks/gpu_wheels.py .gpu-wheels --python 3.12 [bitsandbytes ...]

Versions are those of requirements.lock; what is brought is found from the installed packages' own requirements, so run it
where this project is installed. Pure-Python wheels fit every machine; binary ones are for one Python on Linux x86-64 and
are brought where they are small. What is left out, for its size or because every machine with torch has it, is named:
the machine must have it. Packages named behind the folder are brought last, if they fit.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MOST = 60 * 2**20  # bytes of the folder
SMALL = 5 * 2**20  # bytes of a binary wheel
# A machine with torch has these and what they need; wheels of CUDA's size, or compiled to fit it.
ASSUMED = ("torch", "torchvision", "numpy")
GLIBC = ("2_39", "2_36", "2_35", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17", "2_12", "2_5")


def wanted(python: str) -> list[str]:
    """The canonical names of the project's dependencies and of theirs, those that are assumed left out."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "x86_64",
    }
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "extra": ""}
    own = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    todo, found = [own], set()
    while todo:
        for requirement in map(Requirement, todo.pop()):
            name = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate(environment)
            if applies and name not in ASSUMED and name not in found:
                found.add(name)
                todo.append(metadata.requires(name) or [])
    return sorted(found)


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if re.match(r"[\w.-]+==", line)]
    return {canonicalize_name(name): version for name, version in pairs}


def fetch(requirement: str, python: str, folder: Path) -> Path | None:
    """The one wheel of a requirement for that Python, in `folder`; None where there is none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        python,
        "--dest",
        str(folder),
    ]
    for glibc in (
        *(f"manylinux_{version}" for version in GLIBC),
        "manylinux2014",
        "manylinux2010",
        "manylinux1",
    ):
        command += ["--platform", f"{glibc}_x86_64"]
    before = set(folder.iterdir())
    if subprocess.run([*command, requirement], stderr=subprocess.DEVNULL).returncode:
        return None
    return next(iter(set(folder.iterdir()) - before), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("more", nargs="*", help="further packages, for example bitsandbytes")
    parser.add_argument("--python", default="3.12", help="version of the machine's Python")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if old := sorted(args.folder.glob("*.whl")):
        print(
            f"{args.folder} must hold no wheels of an earlier call, it holds {len(old)}; remove them or name another folder"
        )
        return 2
    versions, fetched, failed = locked(), [], []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        asked = {canonicalize_name(name) for name in args.more}
        for name in dict.fromkeys([*wanted(args.python), *sorted(asked)]):
            pinned = f"{name}=={versions[name]}" if name in versions else name
            wheel = fetch(pinned, args.python, Path(folder))
            failed += [pinned] if wheel is None else []
            fetched += [] if wheel is None else [(name, wheel)]
        brought, left_out = chosen(fetched, asked)
        for wheel in brought:
            wheel.rename(args.folder / wheel.name)
    report(brought, left_out, failed, args)
    return (
        1
        if failed or asked - {name for name, wheel in fetched if wheel.name in {w.name for w in brought}}
        else 0
    )


def chosen(fetched: list[tuple[str, Path]], asked: set[str]) -> tuple[list[Path], list[Path]]:
    """The wheels that go and those that stay: pure Python, small binary ones, then those asked for, while there is room."""

    def rank(item: tuple[str, Path]) -> tuple[bool, bool, int]:
        name, wheel = item
        return name in asked, not is_pure(wheel), wheel.stat().st_size

    brought: list[Path] = []
    left_out: list[Path] = []
    room = MOST
    for name, wheel in sorted(fetched, key=rank):
        size = wheel.stat().st_size
        fits = size <= room and (name in asked or is_pure(wheel) or size <= SMALL)
        (brought if fits else left_out).append(wheel)
        room -= size if fits else 0
    return brought, left_out


def is_pure(wheel: Path) -> bool:
    return wheel.stem.endswith("-none-any")


def report(brought: list[Path], left_out: list[Path], failed: list[str], args: argparse.Namespace) -> None:
    sizes = {wheel.name: (args.folder / wheel.name).stat().st_size for wheel in brought}
    pure = [wheel for wheel in brought if is_pure(wheel)]
    binary = [wheel for wheel in brought if not is_pure(wheel)]
    print(f"{args.folder}: {len(brought)} wheels, {sum(sizes.values()) / 2**20:.1f} MiB")
    print(f"pure Python, for every machine: {', '.join(sorted(short(wheel) for wheel in pure))}")
    print(
        f"binary, for Python {args.python} on Linux x86-64: {', '.join(sorted(short(wheel) for wheel in binary))}"
    )
    print(
        f"left out, the machine must have them: {', '.join([*ASSUMED, *sorted(short(w) for w in left_out)])}"
    )
    if failed:
        print(f"no wheel to be had: {', '.join(failed)}")


def short(wheel: Path) -> str:
    name, version, *_ = wheel.name.split("-")
    return f"{name} {version}"


if __name__ == "__main__":
    sys.exit(main())
