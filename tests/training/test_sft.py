"""Few-shot fine-tuning: targets that hold the row's boxes, a loss that falls, runs that resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_random
import torch
from accelerate import PartialState
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RecipeError, RunError
from opengrit.core.types import Completion, Example, Finish
from opengrit.data import load_examples
from opengrit.evaluation.rollout import EvaluationProtocol, read
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import user_text
from opengrit.grounding.targets import target_text
from opengrit.judges import RuleJudge
from opengrit.models import load
from opengrit.recipes.sft_recipe import SftRecipe, load_sft_recipe
from opengrit.recipes.yaml import parse as parse_yaml
from opengrit.rewards.format import full_format
from opengrit.rewards.rubric import Rubric
from opengrit.sampling import Asked, Sampled
from opengrit.sampling.transformers_engine import TransformersSampler
from opengrit.training.sft import SftExample, fine_tune, sft_batch, sft_examples

RECIPE = "sft-demo"
FAMILIES = ("tiny-qwen2.5-vl", "tiny-internvl3")


def row(*, boxes: tuple[Box, ...] = (), words: tuple[str, ...] = (), **changed) -> Example:
    known = dict(
        id="r", question="How many dogs are there?", answer="2", image="p.png", dataset="tallyqa",
        picture_size=Size(200, 100), boxes=boxes, key_words=words,
    )  # fmt: skip
    return Example(**(known | changed))


# -- the template ----------------------------------------------------------------------------------------------------

DOGS = (Box(0.1, 0.2, 0.3, 0.6), Box(0.5, 0.0, 1.0, 1.0))


def test_a_grounded_target_is_the_full_format_with_boxes_in_the_seen_pixels():
    # The model sees 400 x 200: 0.1 x 400 = 40, 0.2 x 200 = 40, 0.3 x 400 = 120, 0.6 x 200 = 120.
    frame = Frame.for_model_type("qwen2_5_vl", seen_size=Size(400, 200))
    assert target_text(row(boxes=DOGS, words=("dogs",)), strategy="grounded", frame=frame) == (
        '<think>{"bbox_2d": [40, 40, 120, 120], "label": "dogs"}, {"bbox_2d": [200, 0, 400, 200], "label": "dogs"}</think>'
        "<rethink>There are 2 dogs.</rethink><answer>2</answer>"
    )


def test_an_sft_target_is_a_list_of_boxes_and_the_answer():
    frame = Frame.for_model_type("internvl", seen_size=Size(400, 200))
    spatial = row(boxes=DOGS, words=("dog", "cat"), question="Is the dog left of the cat?", answer="Yes")
    text = target_text(spatial, strategy="sft", frame=frame)
    listed, _, answer = text.partition("\n")
    assert json.loads(listed) == [
        {"bbox_2d": [100, 200, 300, 600], "label": "dog"},
        {"bbox_2d": [500, 0, 1000, 1000], "label": "cat"},
    ]
    assert answer == "<answer>Yes</answer>"


def test_key_words_that_do_not_match_the_boxes_are_no_labels():
    frame = Frame.for_model_type("internvl", seen_size=Size(400, 200))
    assert "label" not in target_text(
        row(boxes=DOGS, words=("a", "b", "c")), strategy="grounded", frame=frame
    )


def test_a_row_without_boxes_gets_a_target_that_points_at_nothing_in_full_format():
    frame = Frame.for_model_type("qwen2_5_vl", seen_size=Size(400, 200))
    for example in (row(answer="0"), row(answer="Yes", boxes_known=False)):
        transcript = parse(target_text(example, strategy="grounded", frame=frame), frame)
        assert transcript.pointings == ()
        assert full_format(transcript, min_boxes=0)
        assert transcript.answer.strip() == example.answer


def test_no_target_is_written_for_a_prompt_that_asks_for_no_boxes():
    frame = Frame.for_model_type("internvl", seen_size=Size(400, 200))
    with pytest.raises(ValueError, match="grounded and sft, got direct"):
        target_text(row(), strategy="direct", frame=frame)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["grounded", "sft"])
def test_a_target_reads_back_as_the_rows_boxes_within_a_pixel_and_earns_what_a_perfect_reply_earns(
    family, strategy
):
    loaded = load(family)
    examples = load_examples("stickers/train20", None)
    sampler = TransformersSampler(loaded)
    protocol = EvaluationProtocol(strategy, loaded.frame, RuleJudge(), Rubric.named("paper"))
    targets = sft_examples(examples, loaded=loaded, strategy=strategy)
    assert sum(not e.boxes for e in examples) == 2  # the two rows whose count is 0
    for example, target in zip(examples, targets, strict=True):
        prepared = sampler.prepare(target.asked)
        sampled = Sampled(
            Completion(target.reply, finish=Finish.STOP), prepared.ids, prepared.picture.seen_size
        )
        record = read(example, sampled, protocol=protocol, sample=0)
        assert record.verdict.correct
        assert not record.transcript.rejected
        assert len(record.transcript.boxes) == len(example.boxes)
        for found, true in zip(record.transcript.boxes, example.boxes, strict=True):
            size = example.picture_size
            assert abs(found.left - true.left) * size.width <= 1
            assert abs(found.right - true.right) * size.width <= 1
            assert abs(found.top - true.top) * size.height <= 1
            assert abs(found.bottom - true.bottom) * size.height <= 1


def test_only_the_first_process_says_how_many_rows_have_no_box(tmp_path, caplog):
    loaded = load("tiny-qwen2.5-vl")
    example = replace(tiny_random.examples(tmp_path, 1)[0], boxes=())
    state = PartialState()
    caplog.set_level("INFO", logger="opengrit")
    for process, lines in ((1, 0), (0, 1)):
        state.process_index = process
        try:
            sft_examples([example], loaded=loaded, strategy="grounded")
        finally:
            state.process_index = 0
        assert caplog.text.count("1 of 1 rows have no box") == lines


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_random.qwen, tiny_random.qwen3, tiny_random.internvl])
def test_a_batch_scores_each_reply_as_the_processors_own_inputs_do_and_learns_nothing_else(make, tmp_path):
    loaded = make()
    examples = tiny_random.examples(tmp_path, 3)
    sampler = TransformersSampler(loaded)
    tokenizer = loaded.processor.tokenizer
    rows = [
        SftExample(Asked(e.id, e.image, user_text("direct", e.question)), "dogs yes " * (i + 1))
        for i, e in enumerate(examples)
    ]
    replies = [
        tokenizer(x.reply, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for x in rows
    ]
    batch = sft_batch(loaded, [(sampler.prepare(x.asked), r) for x, r in zip(rows, replies, strict=True)])
    for labels, reply in zip(batch["labels"], replies, strict=True):
        assert labels[labels != -100].tolist() == reply
    with torch.no_grad():
        ours = loaded.model(**{k: v for k, v in batch.items() if k != "labels"}).logits.log_softmax(-1)
    for i, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        from PIL import Image

        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row.asked.text}]}]
        text = loaded.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        inputs = loaded.processor(
            images=[[Image.open(row.asked.image)]], text=[text + row.reply + tokenizer.eos_token],
            return_tensors="pt",
        )  # fmt: skip
        inputs.pop("num_patches", None)
        assert inputs["input_ids"][0, -len(reply) :].tolist() == reply
        with torch.no_grad():
            alone = loaded.model(**inputs).logits[0].log_softmax(-1)
        end = int(batch["attention_mask"][i].sum())
        assert torch.equal(batch["input_ids"][i, :end], inputs["input_ids"][0])
        assert torch.allclose(ours[i, :end], alone, atol=1e-4)


# -- training --------------------------------------------------------------------------------------------------------


def small(*changes: str) -> SftRecipe:
    base = [
        "sft.max_steps=4",
        "sft.save_steps=3",
        "sft.rows_per_step=10",
        "sft.per_device_train_batch_size=5",
    ]
    return load_sft_recipe(RECIPE, [*base, *changes])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(str(folder)).model.state_dict()


@pytest.mark.slow
def test_the_loss_falls_and_a_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = fine_tune(small(), tmp_path / "whole")
    losses = [line["loss"] for line in whole.metrics()]
    assert len(losses) == 4  # ten rows a step: two steps see all twenty
    assert sum(losses[2:]) < 0.95 * sum(losses[:2])
    # The same run after a crash past its third step, in the middle of an epoch.
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "recipe.yaml").write_bytes((whole.path / "recipe.yaml").read_bytes())
    (broken / "checkpoints").mkdir()
    (whole.path / "checkpoints" / "step-000003").rename(broken / "checkpoints" / "step-000003")
    with pytest.raises(RunError, match="a new run needs a new folder"):
        fine_tune(small(), broken)
    with pytest.raises(RunError, match="resumes with its own recipe"):
        fine_tune(small("sft.seed=7"), broken, resume=True)
    resumed = fine_tune(small(), broken, resume=True)
    assert [line["step"] for line in resumed.metrics()] == [4]
    ours, theirs = weights(resumed.path), weights(whole.path)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    base = load("tiny-qwen2.5-vl").model.state_dict()
    assert any(not torch.equal(base[name], tensor) for name, tensor in theirs.items())
    assert fine_tune(small(), broken, resume=True).path == broken  # finished: left as it is


@pytest.mark.slow
def test_the_other_family_learns_adapters_by_the_command(tmp_path):
    changes = ["model=tiny-internvl3", "lora={r: 2}", "sft.max_steps=1", "sft.save_steps=null"]
    words = [word for change in changes for word in ("--set", change)]
    done = CliRunner().invoke(app, ["sft", RECIPE, "--out", str(tmp_path / "run"), *words])
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "trained model: " in done.stdout
    assert load(str(tmp_path / "run")).family.model_type == "internvl"


# -- recipes ---------------------------------------------------------------------------------------------------------

GOOD = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\nsft: {bf16: false}\n"


def test_a_resolved_recipe_loads_as_an_equal_one():
    recipe = parse_yaml(SftRecipe, GOOD)
    assert parse_yaml(SftRecipe, recipe.resolved_yaml()) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sft.max_step=3", "sft.max_step is not a key of this recipe; did you mean max_steps"),
        ("train={}", "train is not a key of this recipe"),
        ("sft.rows_per_step=7", "must be divisible by per_device_train_batch_size"),
        ("sft.warmup_steps=100", "warmup_steps must be smaller than max_steps"),
        ("strategy=direct", "strategy: input should be 'grounded' or 'sft'"),
        ("data.eval=[stickers/count]", "fine-tuning does not evaluate"),
        ("sft.max_steps=true", "this key takes no true or false"),
    ],
)
def test_an_impossible_recipe_is_refused_with_a_remedy(change, message):
    with pytest.raises(RecipeError, match=message):
        parse_yaml(SftRecipe, GOOD, [change])


def test_what_cannot_train_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RecipeError, match="the data has 20 rows"):
        fine_tune(small("sft.rows_per_step=40"), tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="needs a GPU"):
            fine_tune(small("sft.bf16=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
