"""A model card says what was measured and what was not, and nothing of the machine it was written on."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest
import yaml
from full_record import RECORD
from PIL import Image
from small_runs import small_recipe
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.data.licences import licence_of
from opengrit.evaluation.measured import from_json, measured, to_json
from opengrit.evaluation.metrics import Estimate
from opengrit.publishing.card import shown
from opengrit.publishing.facts import card_of, licence_on_card
from opengrit.publishing.places import places_in, without_places
from opengrit.recipes.sft_recipe import SftRecipe
from opengrit.recipes.training_recipe import load_recipe
from opengrit.recipes.yaml import parse
from opengrit.runs.folder import RunDir
from opengrit.training.run import train
from opengrit.training.sft import fine_tune

ADAPTERS = ["sft.max_steps=1", "sft.save_steps=1", "lora={r: 2}"]
SFT = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\nsft: {bf16: false, gradient_checkpointing: false}\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps by reinforcement, of a model and rows in folders of this machine, measured after each."""
    folder = tmp_path_factory.mktemp("somebody's own folder")
    recipe = small_recipe(folder, max_steps=2, save_steps=None, eval_steps=1)
    return train(load_recipe(recipe), folder / "run", quiet=True)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A run of one step of fine-tuning that trains adapters of a packaged model."""
    return fine_tune(parse(SftRecipe, SFT, ADAPTERS), tmp_path_factory.mktemp("sft") / "run")


def card_in(run: RunDir) -> str:
    return (run.path / "final" / "README.md").read_text(encoding="utf-8")


def table_rows(card: str) -> list[list[str]]:
    lines = [line for line in card.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("which", ["trained", "adapter"])
def test_a_final_model_has_a_card_without_a_path_or_an_empty_field(which, request):
    run = request.getfixturevalue(which)
    card = card_in(run)
    assert places_in(card) == []
    for place in (run.path, run.path.parent, run.path.parent.parent):
        assert str(place) not in card
    head = yaml.safe_load(card.split("---\n")[1])
    assert all(value not in (None, "", []) for value in head.values())
    assert all(cell for row in table_rows(card) for cell in row)
    assert not re.search(r"\bNone\b|\bnull\b|: *[.;]|\[More Information Needed\]|(?<!`)``(?!`)", card)
    sections = re.split(r"^## ", card, flags=re.M)[1:]
    assert [part.splitlines()[0] for part in sections] == [
        "Made from", "How", "Numbers", "What it is for, and its limits", "Use",
    ]  # fmt: skip
    assert all(part.split("\n", 1)[1].strip() for part in sections)


def test_the_card_has_what_the_run_was_made_of(trained):
    card, facts = card_in(trained), json.loads((trained.path / "environment.json").read_text())
    assert facts["recipe_sha256"] in card
    assert "rows.jsonl | not stated" in card  # whose licence nobody said
    assert "| rewards | answer_tag 0.5, repetition 0.25, tag_walk 1.0 |" in card
    assert "the rule of OpenGRIT" in card
    assert f"torch {facts['packages']['torch']}" in card
    weights = (trained.path / "final" / "model.safetensors").read_bytes()
    assert f"model.safetensors `{hashlib.sha256(weights).hexdigest()}`" in card
    assert "not measured" in card.lower()
    assert "its base, asked plainly or with this prompt" in card


def test_the_command_on_the_card_asks(trained, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "dogs.png")
    command = re.search(r"`opengrit (ask .*)`", card_in(trained))
    assert command
    named = {"PICTURE": str(tmp_path / "dogs.png"), "QUESTION": "How many dogs?"}
    *words, _ = (named.get(word, word) for word in command[1].split())
    asked = CliRunner().invoke(app, [*words, str(trained.path), "--max-new-tokens", "4"])
    assert asked.exit_code == 0, asked.output


def test_the_figures_on_the_card_are_those_of_the_last_evaluation(trained):
    rows = list(trained.evaluations())
    assert [row["step"] for row in rows] == [1, 2]
    last = from_json(rows[-1])
    numbers = [row for row in table_rows(card_in(trained)) if row[0] == "this model"]
    assert numbers == [
        [
            "this model",
            "rows.jsonl, 5 of its questions, at step 2 of the training; judged by the rule of OpenGRIT",
            "direct",
            shown(last.accuracy),
            shown(last.grounding_iou),
            shown(last.follows_format),
            str(last.num_unjudged),
            str(last.num_truncated),
        ]
    ]
    logged = [row for row in trained.metrics() if any(key.startswith("eval/") for key in row)][-1]
    for name, value in (("grounding_iou", last.grounding_iou), ("format", last.follows_format)):
        found = [logged[key] for key in logged if key.startswith("eval/") and key.endswith(f"/{name}")]
        assert found == ([] if value.value is None else [pytest.approx(value.value)])


def test_a_card_has_the_prompt_and_the_hashes_of_what_is_a_users_own(tmp_path):
    recipe = small_recipe(tmp_path, max_steps=1, save_steps=None, eval_steps=None)
    prompt, reward = tmp_path / "my_prompt.txt", tmp_path / "my_rewards.py"
    prompt.write_text("{question} Answer behind <answer>.")
    reward.write_text("def short(attempt, words=3):\n    return 1.0\n")
    changed = yaml.safe_load(recipe.read_text()) | {
        "strategy": str(prompt),
        "system": "You look twice.",
        "rewards": {"answer_tag": 1.0, f"{reward}:short": {"weight": 0.5, "words": 4}},
    }
    recipe.write_text(yaml.safe_dump(changed))
    card = card_in(train(load_recipe(recipe), tmp_path / "run", quiet=True))
    assert "System turn: You look twice.\n\nUser's turn: {question} Answer behind <answer>." in card
    assert "| strategy | my_prompt.txt |" in card
    assert "| rewards | my_rewards.py:short weight 0.5, words 4, answer_tag 1.0 |" in card
    for file in (prompt, reward):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert f"| own code {file.name} | SHA-256 {digest} |" in card
    assert places_in(card) == []
    assert str(tmp_path) not in card


def test_an_adapters_card_names_its_base_and_replaces_the_empty_form(adapter):
    card = card_in(adapter)
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "peft"
    assert "base_model" not in head  # the hub knows no model of this name
    assert "An adapter (LoRA) for **tiny-qwen2.5-vl**" in card
    assert "only pictures of stickers on plain backgrounds" in card
    assert "CC BY 4.0 (Twemoji)" in card
    config = json.loads((adapter.path / "final" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-qwen2.5-vl"
    [checkpoint] = adapter.checkpoints()
    assert not (checkpoint / "README.md").exists()


# -- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("from /home/me/rows.jsonl", "from rows.jsonl"),
        ("`/data`", "`data`"),
        ("~/models/base", "base"),
        ("file:///srv/x/y.json", "y.json"),
        (r"C:\Users\me\rows.jsonl, D:/x/z", "rows.jsonl, z"),
        (r"\\host\share\a", "a"),
        ("../alice/rows.jsonl", "rows.jsonl"),
        ("(/mnt/a b)", "(a b)"),
        ("at / and", "at / and"),
    ],
)
def test_a_place_becomes_its_name(text, clean):
    assert without_places(text) == clean
    assert places_in(clean) == []


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b and http://127.0.0.1:8000/v1",
        "yes/no, and/or, 3/4, owner/name, </answer> <think>, [1, 2]/[3], train.max_steps, a: b",
        "http://cocodataset.org/#home, recipes/demo.yaml, stickers/train20, 12:30, x:y",
    ],
)
def test_what_is_no_place_stays(text):
    assert without_places(text) == text


def test_a_known_place_with_spaces_goes_whole():
    assert without_places("in /home/a b/c d/x.", known=["/home/a b/c d", "/"]) == "in c d/x."
    assert without_places("`file:///home/a b/c`, /home/a b", known=["/home/a b"]) == "`a b/c`, a b"


def test_a_known_place_with_a_short_name_leaves_addresses_as_they_are():
    text = "https://huggingface.co/datasets/x/data, https://example.org/data and/data, "
    assert without_places(f"{text}/data/rows.jsonl", known=["/data", "/app"]) == f"{text}data/rows.jsonl"


def test_a_data_set_of_the_hub_is_named_on_the_card(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    recipe = yaml.safe_load(trained.recipe)
    recipe["data"]["train"] = [{"hub": "owner/name:train"}]
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    card = card_of(RunDir.open(tmp_path / "run"), tmp_path / "run" / "final", frame="qwen2_5_vl")
    assert "on owner/name:train\n" in card
    assert "| owner/name:train | not stated here, see its page on the hub | a data set of the hub |" in card


# -- figures ---------------------------------------------------------------------------------------------------------


def test_an_estimate_is_shown_with_its_interval_and_its_n():
    assert shown(Estimate(0.5, 32, 0.25, 0.75)) == "0.500 [0.250, 0.750], n 32"
    assert shown(Estimate(1.0, 1, None, None)) == "1.000, n 1"
    assert shown(Estimate(None, 0, None, None)) == "-"


def test_figures_come_back_from_json_and_garbage_does_not():
    one = measured([RECORD], data="d")
    assert from_json(json.loads(json.dumps({"step": 3, **to_json(one)}))) == one
    with pytest.raises(ValueError, match="figures must be as opengrit wrote them"):
        from_json(to_json(one) | {"accuracy": ["a", 1, None, None]})
    with pytest.raises(ValueError, match="at least one record"):
        measured([], data="d")


# -- licences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "words", "hub"),
    [
        ("license: mit", "mit", "mit"),
        ("license: other\nlicense_name: qwen-research", "qwen-research", None),
        ("license: other", None, None),
        ("tags: [a]", None, None),
        ("license: [", None, None),
    ],
)
def test_a_bases_licence_is_read_from_its_card(head, words, hub, tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# A model\n")
    assert licence_on_card(tmp_path / "README.md") == (words, hub)
    assert licence_on_card(tmp_path / "none.md") == (None, None)


def test_a_data_sets_licence_is_known_by_its_name_and_else_not_stated():
    assert licence_of("benchmarks/ovdeval").licence == "rows: not stated; pictures: OpenRAIL"
    assert licence_of("/data/vsr_val.jsonl").licence.startswith(
        "rows: not stated; pictures: each photo its own Flickr"
    )
    assert licence_of("mine.jsonl").licence == "not stated"
    assert "CC BY 4.0" in licence_of("stickers/count").licence
