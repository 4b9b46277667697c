"""Builds the wheel of a revision and runs the quick tests against it, in an environment that has never seen the checkout.

`python scripts/wheel_test.py` installs what requirements.lock names (a network); `--packages FOLDER` takes the packages of a
site-packages folder that is there already. What stands behind `--` goes to pytest, in place of all quick tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("-q", "-n", "2", "--dist", "loadfile", "-m", "not (trains or browser or slow)", "tests")
# They ask about the sources, of which a wheel's user has none.
OF_THE_SOURCES = ("floors", "words", "extras", "docs", "docs_site")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--revision", default="HEAD", help="tag, branch or commit (default: HEAD)")
    parser.add_argument("--packages", type=Path, help="site-packages folder with the locked packages")
    parser.add_argument("pytest", nargs="*", help="what pytest is given, behind --")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opengrit-wheel-") as name:
        folder = Path(name)
        files = check_out(wanted.revision, folder)
        wheel = build(files, folder)
        check_whole(wheel, files)
        shutil.rmtree(files / "src")  # what is imported from now on is the wheel's
        python = install(wheel, folder, wanted.packages, files / "requirements.lock")
        try_out(python, folder / "anywhere")
        sys.exit(run_tests(python, files, wanted.pytest or QUICK))


def check_out(revision: str, folder: Path) -> Path:
    """The folder of the revision's files, and beside it the shared fixtures where the checkout has them."""
    files = folder / "files"
    files.mkdir()
    archive = folder / "files.tar"
    call("git", "-C", str(ROOT), "archive", "--output", str(archive), revision)
    shutil.unpack_archive(archive, files, filter="data")
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (folder / "shared").symlink_to(shared.resolve())
    return files


def build(files: Path, folder: Path) -> Path:
    out = folder / "dist"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(files))
    (wheel,) = out.glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    return wheel


def check_whole(wheel: Path, files: Path) -> None:
    """Raise SystemExit where a file of the package is not in the wheel: package-data of pyproject.toml leaves it out."""
    package = files / "src"
    inside = set(zipfile.ZipFile(wheel).namelist())
    missing = [
        name
        for file in sorted((package / "opengrit").rglob("*"))
        if file.is_file() and (name := file.relative_to(package).as_posix()) not in inside
    ]
    if missing:
        sys.exit(
            f"a wheel must hold every file of the package, {wheel.name} lacks {', '.join(missing)}; "
            f"name them in [tool.setuptools.package-data] of pyproject.toml"
        )


def install(wheel: Path, folder: Path, packages: Path | None, lock: Path) -> Path:
    """The Python of a new environment with the wheel and the locked packages."""
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", str(environment))
    python = environment / "bin" / "python"
    pip = (str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    if packages is None:
        call(*pip, "-r", str(lock))
    else:
        (site,) = environment.glob("lib/python*/site-packages")
        (site / "locked.pth").write_text(f"{packages.resolve()}\n")
    call(*pip, "--no-deps", "--no-index", str(wheel))
    return python


def try_out(python: Path, folder: Path) -> None:
    """Raise SystemExit where the package is not the environment's own, or its command does not train one step."""
    folder.mkdir()
    named = call(str(python), "-c", "import opengrit; print(opengrit.__file__)", cwd=folder).strip()
    if not Path(named).is_relative_to(python.parents[1]):
        sys.exit(f"the tests must import the wheel, {python} imports {named}; take that out of its path")
    command = python.with_name("opengrit")
    step = ("train.max_steps=1", "train.questions_per_step=2", "train.per_device_train_batch_size=16")
    changes = [word for change in step for word in ("--set", change)]
    print(call(str(command), "--version", cwd=folder).strip(), flush=True)
    call(str(command), "train", "demo", *changes, "--out", "runs/demo", "--quiet", cwd=folder)
    print("a step of the demo is trained", flush=True)


def run_tests(python: Path, files: Path, arguments: Sequence[str]) -> int:
    """The exit code of pytest, in the revision's files without the sources."""
    left_out = [f"--ignore=tests/project/test_{name}.py" for name in OF_THE_SOURCES]
    return subprocess.run(
        [str(python), "-m", "pytest", *left_out, *arguments], cwd=files, env=_environment(), check=False
    ).returncode


def call(*words: str, cwd: Path | None = None) -> str:
    """What a command prints. Raises SystemExit with its errors where it fails."""
    done = subprocess.run(words, cwd=cwd, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{' '.join(words)} must end with 0, it ended with {done.returncode}:\n{done.stderr or done.stdout}"
        )
    return done.stdout


def _environment() -> dict[str, str]:
    """The environment without what would lead Python back to the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


if __name__ == "__main__":
    main()
