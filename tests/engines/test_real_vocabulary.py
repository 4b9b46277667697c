"""Every door with the real vocabulary of 151,936 rows: loading, prompts, stop strings, streaming, GRPO steps and SFT."""

from __future__ import annotations

import json
import random

import pytest
import real_vocabulary
import torch
from box_tokens import TEXTS, check_tokens

import opengrit.models
from engines import opengrit as command
from opengrit.data.stickers.sets import examples
from opengrit.grounding.prompts import Strategy, user_text
from opengrit.sampling import Asked, Sampled, SamplingSettings
from opengrit.sampling.detokenizing import StopFinder
from opengrit.sampling.transformers_engine import TransformersSampler

pytestmark = pytest.mark.needs("vocabulary")


@pytest.fixture(scope="module", params=["2.5", "3"])
def folder(request, tmp_path_factory):
    return real_vocabulary.build(request.param, tmp_path_factory.mktemp("real") / f"qwen{request.param}-vl")


@pytest.fixture(scope="module")
def loaded(folder):
    return opengrit.models.load(str(folder))


def test_it_is_the_vocabulary_of_the_released_models(loaded):
    tokenizer = loaded.processor.tokenizer
    assert loaded.model.get_input_embeddings().weight.shape[0] == real_vocabulary.ROWS
    # From the released tokenizer_config.json and tokenizer.json of both generations.
    known = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|image_pad|>": 151655, "<|file_sep|>": 151664}
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in known} == known
    assert tokenizer("Hello, world! 你好").input_ids == [9707, 11, 1879, 0, 220, 108386]
    assert len(tokenizer("<think>").input_ids) == (3 if loaded.frame == "qwen2_5_vl" else 1)
    assert len(tokenizer("</answer>").input_ids) == 3


def test_a_question_has_a_grounded_prompt_with_its_picture(loaded):
    row = examples("count")[0]
    prompt = TransformersSampler(loaded).prepare(
        Asked(row.id, row.image, user_text(Strategy.GROUNDED, row.question))
    )
    text = loaded.processor.tokenizer.decode([i for i in prompt.ids if i != loaded.processor.image_token_id])
    assert row.question in text
    assert "<answer>" in text
    assert text.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_of_a_box_hold_its_characters_and_no_others(loaded, text):
    check_tokens(loaded.processor.tokenizer, text)


def test_sampling_is_transformers_own(loaded):
    row = examples("count")[0]
    asked = Asked(row.id, row.image, user_text(Strategy.GROUNDED, row.question))
    sampler = TransformersSampler(loaded)
    [[ours]] = sampler.sample(
        [asked],
        samples_per_question=1,
        settings=SamplingSettings(temperature=0.0, max_new_tokens=12, stop=()),
    )
    assert isinstance(ours, Sampled)
    processor = loaded.processor
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked.text}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    from PIL import Image

    inputs = processor(images=[[Image.open(row.image).convert("RGB")]], text=[text], return_tensors="pt")
    with torch.no_grad():
        theirs = loaded.model.generate(**inputs, max_new_tokens=12, do_sample=False)[
            0, inputs["input_ids"].shape[1] :
        ]
    assert list(ours.completion.token_ids) == theirs.tolist()[: len(ours.completion.token_ids)]


def test_a_stop_string_is_found_however_its_tokens_are_cut(loaded):
    """Random texts around `</answer>`, each spelled by random splits into tokens, as a model may write them."""
    tokenizer, rng = loaded.processor.tokenizer, random.Random(0)
    around = ["", " ", "2", "B", "\n", "</", ">", "<answer>", "狗", "🐕", ".", "</answer", "answer>"]
    finder = StopFinder(tokenizer, ["</answer>"])
    for _ in range(500):
        text = "".join(rng.choice(around) for _ in range(3)) + "</answer>" + rng.choice(around)
        cuts = sorted(rng.sample(range(1, len(text)), min(4, len(text) - 1)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = [i for piece in pieces for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]
        first = next(n for n in range(1, len(ids) + 1) if "</answer>" in tokenizer.decode(ids[:n]))
        found = next(n for n in range(1, len(ids) + 1) if finder.completes(ids[:n]))
        assert found == first
        cut = finder.cut(tokenizer.decode(ids[:found]))
        assert cut.endswith("</answer>")
        assert cut.count("</answer>") == 1


def test_a_stream_is_the_text_whatever_bytes_its_tokens_hold(loaded):
    """Random tokens, whose bytes are mostly no whole characters: what a listener is told adds up to the final text."""
    heard: list[str] = []

    class Listener:
        def wants(self, place):
            return True

        def wrote(self, place, sample, text):
            heard.append(text)

    row = examples("count")[0]
    for seed in range(10):
        heard.clear()
        [[made]] = TransformersSampler(loaded).sample(
            [Asked(row.id, row.image, row.question)],
            samples_per_question=1,
            settings=SamplingSettings(temperature=5.0, max_new_tokens=40, seed=seed, stop=("</answer>",)),
            listener=Listener(),
        )
        assert heard
        assert "".join(heard) == made.completion.text


def settings(folder, **more):
    given = {
        "model": folder, "train.max_steps": 2, "train.questions_per_step": 2, "train.num_generations": 4,
        "train.per_device_train_batch_size": 8, "train.max_completion_length": 24, "train.save_steps": "null",
        "train.learning_rate": "1.0e-3", "eval.max_completion_length": 16, **more,
    }  # fmt: skip
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


def test_grpo_steps_score_every_sampled_token(folder, tmp_path):
    opengrit_run = tmp_path / "run"
    command("train", "demo", *settings(folder), "--out", opengrit_run)
    rows = [json.loads(line) for line in (opengrit_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    # Random weights of a small width spread evenly over the vocabulary: log(151,936) = 11.93 nats a token.
    assert all(row["entropy"] == pytest.approx(11.9, abs=0.2) for row in rows)


def test_supervised_fine_tuning_learns_its_targets(folder, tmp_path):
    given = {"model": folder, "sft.max_steps": 4, "sft.learning_rate": "1.0e-2", "sft.save_steps": "null"}
    sets = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    command("sft", "sft-demo", *sets, "--out", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
