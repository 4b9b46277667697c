"""Whether what is installed is what is locked, and may be: `make check` runs this, without a network.

It checks that the lock names exact versions and no other source, that they satisfy pyproject.toml and each other, that nothing
else is installed (but what an extra outside the lock needs), and that every licence is one we may build on. It knows of no
vulnerabilities: `make audit` asks pip-audit about those, with a network.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKED_EXTRAS = ("serve", "docs", "dev")
LOCKED_ON = (
    3,
    11,
)  # the Python of `make lock`; with another one packages may need others beside the locked ones
OURS = "opengrit"
BESIDE_THE_LOCK = re.compile(
    r"pip|nvidia-.*|cuda-.*|triton"
)  # pip, and what torch's own metadata pins on a GPU machine
BUILD_TOOLS = ("setuptools",)  # pyproject's build-system

ALLOWED = re.compile(
    r"MIT(-0|-CMU)?|((0|new|modified|[23]-clause)[ -]?|Free)?BSD([ -][23](-Clause)?)?|Apache([ -]?(Software)?[ -]?(License)?[ ,-]*(Version )?2(\.0)?)?"
    r"|ISC|Zlib|CC0-1\.0|Unlicense|PSF-2\.0|PSFL?|Python-2\.0|CNRI-Python|BSL-1\.0|HPND|MPL[ -]2\.0|LLVM-exception|Blue-?Oak.*",
    re.IGNORECASE,
)
CLASSIFIERS = re.compile(
    r"\bMIT\b|\bBSD\b|Apache|\bISC\b|Mozilla Public License 2|Python Software Foundation|zlib|Public Domain|HPND",
    re.I,
)
# What packages that state no licence in their metadata state in their files.
READ_IN_FILES = {"axe-playwright-python": "MIT AND MPL-2.0"}  # its own, and that of the axe-core inside it


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution: what it is, what it needs, and what it says of its licence."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    licence: str = ""  # License-Expression or License
    classifiers: tuple[str, ...] = ()  # those about licences


def installed_packages() -> dict[str, Package]:
    """What is installed here, by normalised name."""
    found = {}
    for one in metadata.distributions():
        facts = one.metadata
        name = canonicalize_name(facts["Name"])
        licence = facts.get("License-Expression") or facts.get("License") or ""
        classifiers = tuple(c for c in facts.get_all("Classifier") or [] if c.startswith("License ::"))
        found.setdefault(name, Package(name, one.version, tuple(one.requires or ()), licence, classifiers))
    return found


def read_lock(text: str) -> tuple[dict[str, str], list[str]]:
    """The locked versions by normalised name, and what is wrong with the lock's lines."""
    versions: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)", line)
        if match is None:
            problems.append(
                f"requirements.lock:{number}: a line is name==version and nothing else, got {line!r}; run make lock"
            )
        elif canonicalize_name(match[1]) in versions:
            problems.append(
                f"requirements.lock:{number}: a package is locked once, {match[1]} is there twice; run make lock"
            )
        else:
            versions[canonicalize_name(match[1])] = match[2]
    return versions, problems


def unsatisfied(needed: Iterable[tuple[str, str]], versions: Mapping[str, str]) -> Iterator[str]:
    """What (who, requirement) pairs are not met by these versions; a requirement for another machine is left out."""
    for who, written in needed:
        requirement = Requirement(written)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if BESIDE_THE_LOCK.fullmatch(name):
            continue
        if requirement.url is not None:
            yield f"{who} names an address, {written!r}: packages come from the index; name a version"
        elif name not in versions:
            yield f"{who} needs {written}, which is not locked; run make lock"
        elif not requirement.specifier.contains(versions[name], prereleases=True):
            yield f"{who} needs {written}, locked is {versions[name]}; change one of them and run make lock"


def reached(roots: Iterable[str], packages: Mapping[str, Package]) -> set[str]:
    """The installed packages that these requirements bring in, with all that those bring in."""
    found, waiting = set[str](), [Requirement(root) for root in roots]
    seen = set[tuple[str, frozenset[str]]]()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name not in packages:
            continue
        seen.add((name, extras))
        found.add(name)
        for written in packages[name].requires:
            inner = Requirement(written)
            wanted = inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in ("", *extras))
            if wanted:
                waiting.append(inner)
    return found


def licence_problem(package: Package) -> str | None:
    """Why a package's licence is not known to be allowed; None where it is."""
    licence = package.licence or READ_IN_FILES.get(package.name, "")
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", licence)
    named = [part.strip(" ,") for part in parts if part.strip(" ,")]
    names = [re.sub(r"\s*licen[cs]e\s*$", "", part, flags=re.I) for part in named]
    by_words = bool(names) and all(ALLOWED.fullmatch(name) for name in names)
    shown = [c.rpartition(" :: ")[2] for c in package.classifiers if c != "License :: OSI Approved"]
    by_classifier = bool(shown) and all(CLASSIFIERS.search(name) for name in shown)
    if by_words or by_classifier:
        return None
    said = ", ".join([*(line for line in package.licence.splitlines()[:1]), *shown]) or "nothing"
    return f"{package.name} {package.version} says of its licence: {said}; read it, and allow it in scripts/audit.py or leave it out"


def problems(
    lock: str, project: Mapping[str, object], packages: Mapping[str, Package], *, same_python: bool = True
) -> list[str]:
    """Everything that is wrong, one line each; nothing where the lock, the project and the environment agree.

    Without the lock's own Python (`same_python`) what locked packages need beside the lock may be there too.
    """
    versions, found = read_lock(lock)
    own: Sequence[str] = project["dependencies"]  # type: ignore[assignment]
    extras: Mapping[str, Sequence[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    locked = [*own, *(one for name in LOCKED_EXTRAS for one in extras[name])]
    others = [one for name, needs in extras.items() if name not in LOCKED_EXTRAS for one in needs]
    beside = set() if same_python else reached(locked, packages) - versions.keys()
    met = versions | {name: packages[name].version for name in beside}
    found += unsatisfied((("pyproject.toml", one) for one in locked), met)
    found += unsatisfied(
        ((f"{p.name} {p.version}", one) for n, p in packages.items() if n in met for one in p.requires),
        met,
    )
    for name, version in versions.items():
        if name not in packages:
            found.append(f"{name} {version} is locked and not installed; run make setup")
        elif (
            packages[name].version.split("+")[0] != version.split("+")[0]
        ):  # a build for CPUs is the same version
            found.append(
                f"{name} is locked at {version}, installed is {packages[name].version}; run make setup"
            )
    outside = reached(others, packages) | beside
    for name, package in packages.items():
        if (
            name != OURS
            and name not in versions
            and name not in outside
            and not BESIDE_THE_LOCK.fullmatch(name)
        ):
            found.append(
                f"{name} {package.version} is installed and not locked; uninstall it, or name it in pyproject.toml"
            )
    if same_python:
        needed = reached(locked, packages) | set(BUILD_TOOLS)
        found += [
            f"{n} is locked and nothing needs it; take it out"
            for n in versions
            if n in packages and n not in needed
        ]
    found += [p for n in versions if n in packages and (p := licence_problem(packages[n])) is not None]
    return found


def main() -> int:
    """Prints what is wrong, or how much was looked at; 1 where something is wrong."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = installed_packages()
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = problems(lock, project, packages, same_python=sys.version_info[:2] == LOCKED_ON)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print(
            f"audit: {len(read_lock(lock)[0])} locked packages are installed as locked, satisfy each other, and have licences we know"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
