"""What a stranger's model, picture list or server can do to us, and what of ours reaches the network or a file."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import click
import forked
import pytest
import torch
import typer
from fault_server import Fault, fault_server
from PIL import Image
from typer.testing import CliRunner

import opengrit
from opengrit.cli.app import app
from opengrit.clients import EndpointSettings
from opengrit.core.errors import ModelError, RecipeError
from opengrit.core.escaping import harmless
from opengrit.core.output import settle_output
from opengrit.experiments.recipe import TableRecipe
from opengrit.inference.grounder import Grounder
from opengrit.judges.local import LocalJudge
from opengrit.judges.settings import JudgeSection
from opengrit.models import load
from opengrit.models.loading import load_for_inference, load_for_training
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.recipes.model_section import Model
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.training_recipe import Recipe, load_recipe
from opengrit.training.checkpoint_sidecar import SIDECAR

SOURCE = Path(opengrit.__file__).parent
PACKAGED = Path(str(resources.files("opengrit"))) / "models" / "packaged" / "tiny-qwen2.5-vl"
AUTO = (
    "AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoProcessor", "AutoImageProcessor",
    "AutoTokenizer", "AutoVideoProcessor",
)  # fmt: skip


class Trap:
    """A file that code from a model's folder would make, were it run."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "it-was-run"

    @property
    def code(self) -> str:
        """Python that springs the trap when it is imported."""
        return f"open({str(self.mark)!r}, 'w').close()\nclass Planted:\n    pass\n"

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)  # what reading a pickle of it does

    def pickle_to(self, path: Path) -> None:
        """A file that springs the trap when it is unpickled."""
        torch.save({"planted": self}, path)

    def assert_not_sprung(self) -> None:
        assert not self.mark.exists(), "code of a model's folder was run"


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    made = Trap(tmp_path)
    yield made
    made.assert_not_sprung()


def put(path: Path, **values: Any) -> None:
    """Put keys into a JSON file, which may not be there yet."""
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**held, **values}), encoding="utf-8")


def copy_of(model: Path, where: Path) -> Path:
    return Path(shutil.copytree(model, where))


def with_code(folder: Path, trap: Trap) -> Path:
    """The folder, asking in every file that may ask for it that its own code be run."""
    for name in ("planted.py", "modeling_planted.py"):
        (folder / name).write_text(trap.code, encoding="utf-8")
    asked = dict.fromkeys(AUTO, "planted.Planted") | {"AutoTokenizer": ["planted.Planted", "planted.Planted"]}
    for file in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        put(folder / file, auto_map=asked, trust_remote_code=True)
    put(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(trap.code, encoding="utf-8")
    return folder


def text_model(folder: Path) -> Path:
    """A causal language model with its tokenizer, as a local judge has one."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(PACKAGED)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# Code of a model.

Loads = Callable[[str], Any]
LOADS: dict[str, Loads] = {
    "load": load,
    "to train": lambda name: load_for_training(Model(name=name)),
    "to ask": lambda name: load_for_inference(Model(name=name)),
    "Grounder": Grounder.load,
}


@pytest.mark.parametrize("way", LOADS)
def test_a_known_model_that_brings_code_is_loaded_without_it(way: str, trap: Trap, tmp_path: Path) -> None:
    folder = with_code(copy_of(PACKAGED, tmp_path / "model"), trap)
    LOADS[way](str(folder))


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_a_model_that_needs_its_own_code_is_refused(file: str, trap: Trap, tmp_path: Path) -> None:
    folder = with_code(copy_of(PACKAGED, tmp_path / "model"), trap)
    own = {"config.json": "model_type", "processor_config.json": "processor_class"}
    put(folder / file, **{own.get(file, "tokenizer_class"): "Planted"})
    put(folder / "preprocessor_config.json", image_processor_type="Planted")
    if file == "tokenizer_config.json":
        put(folder / "processor_config.json", processor_class="Planted")
    with pytest.raises(ModelError, match="a model must load through"):
        load(str(folder))


def adapter_on(base: str, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load("tiny-qwen2.5-vl").model, LoraConfig(r=1, target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    put(folder / "adapter_config.json", base_model_name_or_path=base)
    return folder


def test_an_adapter_brings_no_code_either(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = with_code(copy_of(PACKAGED, tmp_path / "base"), trap)
    adapter = adapter_on(str(base), tmp_path / "adapter")
    (adapter / "planted.py").write_text(trap.code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(adapter))
    put(
        adapter / "adapter_config.json",
        auto_mapping={"base_model_class": "Planted", "parent_library": "planted"},
    )
    load(str(adapter))
    put(adapter / "adapter_config.json", megatron_core="planted", megatron_config={"a": 1})
    with pytest.raises(ModelError, match="must load onto its base"):
        load(str(adapter))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_that_would_come_from_the_hub_is_refused(key: str, tmp_path: Path) -> None:
    folder = copy_of(PACKAGED, tmp_path / "model")
    put(folder / "config.json", **{key: "somebody/kernel"})
    with pytest.raises(ModelError, match="'somebody/kernel' on the hub as its attention"):
        load(str(folder))


def test_a_config_that_asks_for_a_package_we_lack_is_an_error_and_no_bug(tmp_path: Path) -> None:
    folder = copy_of(PACKAGED, tmp_path / "model")
    put(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match="does not"):
        load(str(folder))


def test_a_local_judge_runs_no_code_even_where_somebody_would_say_yes(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an answer in the call, transformers asks on the terminal."""
    folder = with_code(text_model(tmp_path / "judge"), trap)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    LocalJudge(folder)
    put(folder / "config.json", model_type="planted")
    with pytest.raises(ModelError, match="a local judge is"):
        LocalJudge(folder)


@cache
def nodes() -> list[tuple[Path, ast.AST]]:
    """Every node of our code, with its file."""
    files = sorted(SOURCE.rglob("*.py"))
    return [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


def calls_of(name: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls of a method, or of a function by its bare name."""
    for path, node in nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
            yield f"{path.relative_to(SOURCE)}:{node.lineno} {ast.unparse(node.func)}", node


def test_every_load_in_the_code_says_that_no_code_is_to_be_run() -> None:
    unsaid = [
        place
        for place, call in calls_of("from_pretrained")
        if not any(k.arg == "trust_remote_code" and ast.unparse(k.value) == "False" for k in call.keywords)
    ]
    # An adapter is weights and numbers: peft has no such argument.
    assert [place.split()[1] for place in unsaid] == ["PeftModel.from_pretrained"]
    assert len(list(calls_of("from_pretrained"))) >= 6


def test_no_recipe_and_no_option_can_ask_for_a_models_code() -> None:
    for recipe in (Recipe, EvalRecipe, SftRecipe, TableRecipe, JudgeSection):
        assert "trust_remote" not in json.dumps(recipe.model_json_schema())
    for section in ("model", "train", "judge", ""):
        key = f"{section}.trust_remote_code" if section else "trust_remote_code"
        with pytest.raises(RecipeError, match=r"trust_remote_code is not a key|judge"):
            load_recipe("demo", [f"{key}=true"])

    def options(command: click.Command) -> Iterator[str]:
        for parameter in command.params:
            yield from parameter.opts
        for inner in getattr(command, "commands", {}).values():
            yield from options(inner)

    found = list(options(typer.main.get_command(app)))
    assert "--model" in found
    assert not [option for option in found if "remote" in option or "unsafe" in option]


# Pickles.


def only_pickles(folder: Path, trap: Trap, name: str = "pytorch_model.bin") -> Path:
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    trap.pickle_to(folder / name)
    return folder


PICKLED = ("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "weights.pth", "last.ckpt")


@pytest.mark.parametrize("name", PICKLED)
def test_a_model_of_pickles_is_refused_by_name_with_the_remedy(name: str, trap: Trap, tmp_path: Path) -> None:
    folder = only_pickles(copy_of(PACKAGED, tmp_path / "model"), trap, name)
    put(folder / "config.json", transformers_weights=name)
    for way, loads in LOADS.items():
        with pytest.raises(ModelError, match=rf"safetensors only, .* has {name}.*save it again") as raised:
            loads(str(folder))
        assert "\n" not in str(raised.value), way


def test_a_pickle_beside_safetensors_is_not_read(trap: Trap, tmp_path: Path) -> None:
    folder = copy_of(PACKAGED, tmp_path / "model")
    trap.pickle_to(folder / "pytorch_model.bin")
    load(str(folder))


def test_an_adapter_of_pickles_is_refused_and_so_is_one_on_a_base_of_pickles(
    trap: Trap, tmp_path: Path
) -> None:
    adapter = adapter_on("tiny-qwen2.5-vl", tmp_path / "adapter")
    base = only_pickles(copy_of(PACKAGED, tmp_path / "base"), trap)
    put(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    with pytest.raises(ModelError, match=r"has pytorch_model\.bin"):
        load(str(adapter))
    put(adapter / "adapter_config.json", base_model_name_or_path="tiny-qwen2.5-vl")
    only_pickles(adapter, trap, "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has adapter_model\.bin"):
        load(str(adapter))


def test_a_local_judge_of_pickles_is_refused(trap: Trap, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has pytorch_model\.bin"):
        LocalJudge(only_pickles(text_model(tmp_path / "judge"), trap))


def test_every_command_refuses_a_model_of_pickles(trap: Trap, tmp_path: Path) -> None:
    folder = str(only_pickles(copy_of(PACKAGED, tmp_path / "model"), trap))
    judge = tmp_path / "judge.yaml"
    judge.write_text(
        f"judge: {{kind: local, model: '{only_pickles(text_model(tmp_path / 'text'), trap)}'}}\n"
    )
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    small = ["--data", "stickers/count", "--limit", "1", "--out"]
    commands = [
        ["ask", str(picture), "How many?", "--model", folder],
        ["eval", "--model", folder, *small, str(tmp_path / "eval")],
        ["eval", "--model", "tiny-qwen2.5-vl", "--judge", str(judge), *small, str(tmp_path / "judged")],
        ["train", "demo", "--set", f"model={folder}", "--out", str(tmp_path / "train")],
        ["sft", "sft-demo", "--set", f"model={folder}", "--out", str(tmp_path / "sft")],
        ["serve", folder, "--port", "0", "--no-page"],
    ]
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2, (command, done.output, done.exception)
        assert "weights are read from safetensors only" in done.stderr
        assert "pytorch_model.bin" in done.stderr


def test_pickle_is_imported_for_our_own_pipes_alone() -> None:
    unpickling = {"pickle", "multiprocessing", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
    found = set()
    for path, node in nodes():
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        found |= {path.name for name in names if name.split(".")[0] in unpickling}
    assert found == {"processes.py"}


def test_no_text_is_run_as_code() -> None:
    wrong = {
        "torch.load",
        "os.system",
        "os.popen",
        "eval",
        "exec",
        "__import__",
        "yaml.load",
        "yaml.unsafe_load",
    }
    called = [
        place
        for name in ("load", "system", "popen", "eval", "exec", "__import__", "unsafe_load")
        for place, _ in calls_of(name)
    ]
    assert called
    assert [place for place in called if place.split()[1] in wrong] == []
    shells = [
        p
        for n in ("run", "Popen", "call", "check_output")
        for p, c in calls_of(n)
        if any(k.arg == "shell" for k in c.keywords)
    ]
    assert shells == []


# Secrets.

SECRET = "sk-planted-4f1c9d7e2b"
WITH_PASSWORD = "http://somebody:pa55w0rd@127.0.0.1:9/v1"


@pytest.mark.parametrize("kind", ["endpoint", "local", "rule"])
def test_a_judges_url_with_a_password_is_refused_and_not_repeated(kind: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe("demo", [f"judge={{kind: {kind}, model: m, url: '{WITH_PASSWORD}'}}"])
    assert "pa55w0rd" not in str(raised.value)
    assert "url" in str(raised.value)


@pytest.mark.parametrize("kind", ["endpoint", "local"])
def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_repeated(kind: str) -> None:
    own = {"kind": kind, "model": "m", "api_key_env": SECRET} | (
        {"url": "http://h/v1"} if kind == "endpoint" else {}
    )
    with pytest.raises(RecipeError, match="name of an environment variable") as raised:
        load_recipe("demo", [f"judge={json.dumps(own)}"])
    assert SECRET not in str(raised.value)
    with pytest.raises(RecipeError, match="name of an environment variable") as raised:
        EndpointSettings("http://h/v1", "m", api_key_env=SECRET)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "--model", "m", "--endpoint", WITH_PASSWORD, "--frame", "thousand", "--data", "stickers/count", "--out", "out"],
        ["eval", "--model", "m", "--judge-url", WITH_PASSWORD, "--judge-model", "m", "--data", "stickers/count", "--out", "out"],
        ["serve", "m", "--endpoint", WITH_PASSWORD, "--frame", "thousand", "--port", "0", "--no-page"],
        ["probe", "run", "--out", "out", "--judge-url", WITH_PASSWORD],
    ],
    ids=lambda command: f"{command[0]} {command[3]}",
)  # fmt: skip
def test_a_password_in_an_address_is_neither_taken_nor_said(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2, done.output
    assert "pa55w0rd" not in done.output + done.stderr
    assert not list(tmp_path.iterdir())


# The network, and what stands in files: a whole run in processes of its own, watched from the first line on.

WATCHED = Path(__file__).parents[1] / "support" / "watched"
SMALL = (
    "train.max_steps=2", "train.num_generations=2", "train.questions_per_step=2", "train.per_device_train_batch_size=4",
    "train.save_steps=1", "train.beta=0.1", "train.max_completion_length=40", "data.eval=[]",
)  # fmt: skip
COMMANDS = """
import json, sys
from opengrit.cli.app import app
from opengrit.core.output import settle_output
for command in json.loads(sys.argv.pop()):
    print("running", command[0], file=sys.stderr)
    if code := app(command, standalone_mode=False):
        sys.exit(code)
"""


def watched_environment(folder: Path) -> dict[str, str]:
    """An environment in which nothing but our own code keeps a library from calling home."""
    silencers = (
        "CI",
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
        "GRADIO_ANALYTICS_ENABLED",
    )
    kept = {name: value for name, value in os.environ.items() if name not in silencers}
    return kept | {
        "CONNECTIONS": str(folder / "connections"),
        "PYTHONPATH": os.pathsep.join([str(WATCHED), str(SOURCE.parent)]),
        "OMP_NUM_THREADS": "1",
        "OPENAI_API_KEY": SECRET,
    }


def connections(folder: Path) -> str:
    file = folder / "connections"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    """What the next tests trust: a look at a host, from a child of the process too, is written down."""
    look = "import socket; socket.getaddrinfo('203.0.113.9', 80)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {look!r}])"
    subprocess.run([sys.executable, "-c", script], env=watched_environment(tmp_path), check=True)
    assert connections(tmp_path).startswith("socket.getaddrinfo 203.0.113.9")


def files_with(folder: Path, secret: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_judged_run_tells_nobody_and_keeps_no_key_and_its_resume_unpickles_nothing(tmp_path: Path) -> None:
    trap, out = Trap(tmp_path), tmp_path / "out"
    out.mkdir()
    repeats_the_key = lambda request: Fault.WRONG_KEY if request.number % 2 else Fault.NONE  # noqa: E731
    with fault_server(repeats_the_key) as server:
        own = {
            "kind": "endpoint",
            "url": server.url,
            "model": "stub",
            "min_judged_share": 0,
            "cache": str(out / "cache.jsonl"),
        }
        judge = out / "judge.yaml"
        judge.write_text(json.dumps({"judge": own}))
        settings = [part for one in (f"judge={json.dumps(own)}", *SMALL) for part in ("--set", one)]
        run, evaluation = str(out / "run"), str(out / "eval")
        data = ["--data", "stickers/count", "--limit", "2", "--max-new-tokens", "40", "--judge", str(judge)]
        commands = [
            ["train", "demo", "--out", run, *settings],
            ["eval", "--model", run, *data, "--out", evaluation],
            ["report", run, evaluation, "--out", str(out / "report.html")],
        ]
        environment = watched_environment(tmp_path)
        call = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        said = {request.headers["authorization"] for request in server.requests}
        assert said == {f"Bearer {SECRET}"}  # the judge was asked, with the key
        assert (out / "report.html").is_file()
        assert connections(tmp_path) == ""

        # The checkpoint's other files are pickles of the trainer's own: one that is not is refused, whatever a variable asks for.
        shutil.rmtree(out / "run" / "final")
        first, last = sorted((out / "run" / "checkpoints").iterdir())
        shutil.rmtree(last)
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            assert (first / name).is_file()
            trap.pickle_to(first / name)
        vouch_for(first)
        unsafe = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OPENAI_API_KEY": SECRET}
        resumed = forked.command(*commands[0], "--resume", environment=unsafe)
        assert resumed.code() != 0
    trap.assert_not_sprung()
    assert "weights_only" in resumed.said.lower()
    assert files_with(out, "OPENAI_API_KEY")  # the variable's name stands in the recipe
    assert files_with(out, SECRET) == []
    assert SECRET not in done.stdout + done.stderr + resumed.said


def vouch_for(checkpoint: Path) -> None:
    """Write a checkpoint's account anew, as somebody who changed its files would."""
    account = checkpoint / SIDECAR
    known = json.loads(account.read_text())
    for name, facts in known["files"].items():
        content = (checkpoint / name).read_bytes()
        facts |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    account.write_text(json.dumps(known))


@pytest.mark.slow
def test_a_server_with_its_page_tells_nobody(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "opengrit", "serve", "tiny-qwen2.5-vl", "--port", "0"]
    server = subprocess.Popen(
        call, env=watched_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    stopping = threading.Timer(300, server.kill)
    stopping.start()
    try:
        assert server.stdout is not None
        where = server.stdout.readline().split(" at ")[1].split()[0]
        with urllib.request.urlopen(f"{where}/", timeout=60) as page:
            assert b"OpenGRIT" in page.read()
    finally:
        server.terminate()
        server.wait(60)
        stopping.cancel()
    assert connections(tmp_path) == ""


# Paths.


def test_a_row_reads_no_picture_outside_its_folder_in_any_command(tmp_path: Path) -> None:
    inside, outside = tmp_path / "pictures", tmp_path / "secret.png"
    inside.mkdir()
    Image.new("RGB", (64, 64)).save(outside)
    (inside / "link.png").symlink_to(outside)
    row = {"question": "How many dogs are there?", "answer": 1, "width": 64, "height": 64, "dataset": "d"}
    for path in (
        "../secret.png",
        str(outside),
        "link.png",
        "pictures/../../secret.png",
        "file:///etc/passwd",
        "//host/share.png",
    ):
        data = tmp_path / "rows.jsonl"
        data.write_text(json.dumps({**row, "image": path}) + "\n")
        for command in (
            ["eval", "--model", "tiny-qwen2.5-vl", "--data", str(data), "--images", str(inside), "--out", str(tmp_path / "out")],
            ["train", "demo", "--set", f"data.train=[{{file: '{data}', images: '{inside}'}}]", "--out", str(tmp_path / "out")],
        ):  # fmt: skip
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 2, (path, command[0], done.output)
            assert not (tmp_path / "out").exists()


# The terminal.


def test_what_a_file_holds_steers_no_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07[red]\x9b2J\u202e"
    row = {
        "question": f"How many{evil}?",
        "answer": f"1{evil}",
        "image": f"{evil}.png",
        "width": 6,
        "height": 4,
        "dataset": f"d{evil}",
    }
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer": None}) + "\n")
    images = tmp_path / "pictures"
    images.mkdir()
    for command in (
        ["data", "check", str(data), "--images", str(images)],
        [
            "eval",
            "--model",
            f"no{evil}/such/model",
            "--data",
            str(data),
            "--images",
            str(images),
            "--out",
            str(tmp_path / "out"),
        ],
        ["ask", f"{evil}.png", "How many?", "--model", "tiny-qwen2.5-vl"],
        ["report", f"run{evil}", "--out", str(tmp_path / "x.html")],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code in (1, 2), done.output
        printed = done.stdout + done.stderr
        assert printed
        assert harmless(printed) == printed, command[0]


def test_a_servers_words_in_the_log_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    settle_output()
    logging.getLogger("opengrit.judges").warning("the judge is down: %s", "\x1b[2J\x9b2J")
    assert capsys.readouterr().err == "the judge is down: \ufffd[2J\ufffd2J\n"
