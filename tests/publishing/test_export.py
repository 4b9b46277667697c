"""What is exported is the model that was trained, in a folder that others load, and can be uploaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub import TOKEN, Repository, hub_running
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.errors import ModelError, RunError
from opengrit.data.stickers.sets import examples
from opengrit.evaluation.run import run_evaluation
from opengrit.models import load
from opengrit.publishing.export import export
from opengrit.publishing.places import places_in
from opengrit.recipes.evaluation_recipe import EvalRecipe
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.yaml import parse
from opengrit.runs.folder import RunDir
from opengrit.training.sft import fine_tune

SFT = """
model: {name: %s, frame: %s}
data: {train: [stickers/train20]}
sft: {bf16: false, gradient_checkpointing: false, max_steps: 2, save_steps: 1, learning_rate: 0.01, rows_per_step: 2,
      per_device_train_batch_size: 2}
lora: %s
"""
RUNS = {
    "qwen-full": SFT % ("tiny-qwen2.5-vl", "null", "null"),
    "qwen-lora": SFT % ("tiny-qwen2.5-vl", "thousand", "{r: 4}"),
    "internvl-full": SFT % ("tiny-internvl3", "null", "null"),
    "internvl-lora": SFT % ("tiny-internvl3", "null", "{r: 4}"),
}
QUESTION = "How many dogs are there?"

# Reads each export as anybody would, with no package of ours to be found, and writes the logits of one question.
PLAIN = """
import sys
class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opengrit":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotHere())
import numpy, torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
for folder in sys.argv[2:]:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    turn = {"role": "user", "content": [{"type": "image", "image": Image.open(sys.argv[1])}, {"type": "text", "text": "QUESTION"}]}
    inputs = processor.apply_chat_template(
        [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        numpy.save(folder + "/logits.npy", model(**inputs).logits.numpy())
    model.generation_config.stop_strings = [processor.decode(model(**inputs).logits[0, -1].argmax())]
    written = model.generate(**inputs, max_new_tokens=5, tokenizer=processor.tokenizer)
    assert written.shape[1] == inputs["input_ids"].shape[1] + 1, "the generation config's stop string is not used"
assert not [name for name in sys.modules if name.partition(".")[0] == "opengrit"]
""".replace("QUESTION", QUESTION)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of two steps for each family, of all weights and of adapters."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: fine_tune(parse(SftRecipe, text), folder / name) for name, text in RUNS.items()}


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {name: export(run.path, folder / name) for name, run in runs.items()}


@pytest.fixture(scope="module")
def plainly(exported):
    """The logits of each export in a process without this package."""
    picture = examples("stickers/count")[0].image
    command = [sys.executable, "-c", PLAIN, picture, *map(str, exported.values())]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: np.load(folder / "logits.npy") for name, folder in exported.items()}


@pytest.mark.parametrize("name", RUNS)
def test_an_export_has_the_logits_of_its_run_without_this_package(name, runs, plainly):
    loaded = load(str(runs[name].path), device="cpu", dtype=torch.float32)
    picture = Image.open(examples("stickers/count")[0].image)
    turn = {
        "role": "user",
        "content": [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}],
    }
    inputs = loaded.processor.apply_chat_template(
        [turn], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        ours = loaded.model(**inputs).logits.numpy()
        base = load(RUN_BASE[name], device="cpu").model(**inputs).logits.numpy()
    largest = np.abs(ours).max()
    print(f"{name}: {np.abs(plainly[name] - ours).max() / largest:.2e} of the largest logit")
    assert np.abs(plainly[name] - ours).max() <= 1e-5 * largest
    assert np.abs(base - ours).max() > 1e-2 * largest  # it has learned something to lose


RUN_BASE = {name: yaml.safe_load(text)["model"]["name"] for name, text in RUNS.items()}


@pytest.mark.parametrize("name", RUNS)
def test_an_export_has_all_that_others_need_and_no_place_of_this_machine(name, exported):
    folder = exported[name]
    files = {path.name for path in folder.iterdir()}
    assert files >= {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "processor_config.json", "tokenizer.json",
    }  # fmt: skip
    assert not files & {"adapter_config.json", "optimizer.pt", "trainer_state.json", "checkpoint.json"}
    assert json.loads((folder / "generation_config.json").read_text())["stop_strings"] == ["</answer>"]
    card = (folder / "README.md").read_text()
    assert ("merged into the base" in card) == name.endswith("lora")
    assert f'from_pretrained("{name}")' in card
    assert places_in(card) == []
    for file in ("config.json", "generation_config.json", "processor_config.json"):
        assert places_in((folder / file).read_text()) == []


def test_an_overridden_frame_goes_with_the_export(exported):
    assert load(str(exported["qwen-lora"]), device="cpu").frame == "thousand"
    assert "thousandths" in (exported["qwen-lora"] / "README.md").read_text()
    assert load(str(exported["qwen-full"]), device="cpu").frame == "qwen2_5_vl"


def test_a_checkpoint_is_exported_in_the_numbers_asked_for(runs, tmp_path):
    [first, _] = runs["internvl-full"].checkpoints()
    out = export(first, tmp_path / "half", dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    card = (out / "README.md").read_text()
    assert "after 1 of 2 steps" in card
    assert "stored as bfloat16" in card


def test_an_adapter_is_exported_by_itself(runs, tmp_path):
    out = export(runs["qwen-lora"].path, tmp_path / "adapter", adapter=True)
    there, here = (load(str(folder), device="cpu") for folder in (runs["qwen-lora"].path, out))
    assert here.frame == "thousand"
    for name, tensor in there.model.state_dict().items():
        assert torch.equal(here.model.state_dict()[name], tensor), name
    assert not (out / "model.safetensors").exists()
    assert "An adapter (LoRA) for **tiny-qwen2.5-vl**" in (out / "README.md").read_text()


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(runs, exported, tmp_path):
    (tmp_path / "there").mkdir()
    run = runs["qwen-full"].path
    with pytest.raises(RunError, match="an export needs a new folder"):
        export(run, tmp_path / "there")
    with pytest.raises(ModelError, match="leave out --adapter"):
        export(run, tmp_path / "out", adapter=True)
    with pytest.raises(RunError, match="a model without a run"):
        export("tiny-qwen2.5-vl", tmp_path / "out")
    with pytest.raises(RunError, match="is not one; name folders of opengrit eval"):
        export(run, tmp_path / "out", evaluations=[run])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_adapter_of_a_local_base_is_not_exported_by_itself(runs, tmp_path):
    text = RUNS["internvl-lora"].replace("tiny-internvl3", str(runs["internvl-full"].path / "final"))
    run = fine_tune(parse(SftRecipe, text, ["sft.max_steps=1"]), tmp_path / "run")
    with pytest.raises(ModelError, match="needs a base on the hub"):
        export(run.path, tmp_path / "out", adapter=True)
    out = export(run.path, tmp_path / "whole")
    card = (out / "README.md").read_text()
    assert places_in(card) == []
    assert "Base: **final** (a folder" in card  # a name, and the licence that the base's own card has
    assert "Its licence: apache-2.0" in card


# -- figures of evaluations ------------------------------------------------------------------------------------------


def evaluated(model: str, out: Path, *, strategy: str) -> RunDir:
    recipe = EvalRecipe.model_validate(
        {
            "model": {"name": model},
            "data": [{"name": "stickers/count"}],
            "strategy": strategy,
            "limit": 6,
            "eval": {"max_completion_length": 24},
        }
    )
    return run_evaluation(recipe, out, quiet=True)[0]


def test_evaluations_of_the_model_and_its_base_go_on_the_card_and_others_do_not(runs, tmp_path):
    run = runs["internvl-full"].path
    ours = evaluated(str(run), tmp_path / "ours", strategy="grounded")
    base = evaluated("tiny-internvl3", tmp_path / "base", strategy="direct")
    out = export(run, tmp_path / "out", evaluations=[base.path, ours.path])
    card = (out / "README.md").read_text()
    rows = [line for line in card.splitlines() if line.startswith(("| this model |", "| its base |"))]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| this model", "stickers/count, the first 6 questions; judged by the rule of OpenGRIT", "grounded"],
        ["| its base", "stickers/count, the first 6 questions; judged by the rule of OpenGRIT", "direct"],
    ]
    right = [r.verdict.correct for r in base.records() if hasattr(r.verdict, "correct")]
    assert f"| {np.mean(right):.3f} [" in rows[1]
    assert f"n {len(right)} |" in rows[1]
    assert "its base, asked" not in card.split("Not measured:")[1]
    with pytest.raises(RunError, match="of this model or its base"):
        export(runs["qwen-full"].path, tmp_path / "other", evaluations=[ours.path])


# -- upload ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    with hub_running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


def pushed(run: RunDir, out: Path, *words: str):
    return CliRunner().invoke(app, ["export", str(run.path), "--out", str(out), *words])


@pytest.mark.parametrize("public", [False, True])
def test_a_push_uploads_every_file_to_a_new_repository(public, hub, runs, tmp_path):
    words = ["--push", "me/toy", *(["--public"] if public else [])]
    done = pushed(runs["internvl-lora"], tmp_path / "out", *words)
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert done.stdout.splitlines()[-1] == f"uploaded: {hub.url}/me/toy"
    there = hub.repositories["me/toy"]
    assert there.private is not public
    assert there.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert 'from_pretrained("me/toy")' in there.files["README.md"].decode()


@pytest.mark.parametrize(
    ("name", "token", "says"),
    [
        ("me/toy", "", "an upload needs a token"),
        ("me/toy", "hf_wrong", "the token is not known"),
        ("toy", TOKEN, "write the owner too"),
        ("me/toy/x", TOKEN, "a repository of the hub is owner/name"),
        ("me/t oy", TOKEN, "a repository of the hub is owner/name"),
        ("me/taken", TOKEN, "me/taken exists"),
        ("somebody-else/toy", TOKEN, "the token may not write there"),
    ],
)
def test_a_push_that_cannot_be_says_why_in_one_line(name, token, says, hub, runs, tmp_path, monkeypatch):
    hub.repositories["me/taken"] = Repository(private=True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token)
    done = pushed(runs["internvl-lora"], tmp_path / "out", "--push", name)
    assert done.exit_code == 2, done.stdout
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert hub.repositories["me/taken"].files == {}


def test_a_refused_commit_leaves_the_folder_and_says_how_to_go_on(hub, runs, tmp_path):
    hub.refuse_commit = 400
    done = pushed(runs["internvl-lora"], tmp_path / "out", "--push", "me/toy")
    assert done.exit_code == 2
    assert f"hf upload me/toy {tmp_path / 'out'}" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_public_without_a_push_is_refused(runs, tmp_path):
    done = pushed(runs["internvl-lora"], tmp_path / "out", "--public")
    assert done.exit_code == 2
    assert "--push owner/name" in done.stderr
