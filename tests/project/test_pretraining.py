"""Pretraining packs several questions behind one picture; each must see what it would see alone."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "pretraining"))

from build import build_model, build_processor, build_tokenizer
from measure import measure, table
from mixture import FAULTS, Teacher, held_out
from opengrit.core.boxes import Size
from opengrit.data.stickers.questions import HELD_OUT_PAIRS
from opengrit.data.stickers.world import SEEN_STYLES, draw
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from train import Collator, Family, encode_qwen

NAMES = ["tiny-qwen2.5-vl", "tiny-internvl3"]


def packed_logits(model, family, batch):
    core, B = model.model, len(batch.input_ids)
    if family.qwen:
        image = encode_qwen(core.visual, batch.pixels, batch.grid, B)
    else:
        image = core.get_image_features(batch.pixels, return_dict=True).pooler_output
    text = core.get_input_embeddings()(batch.input_ids)
    embedded = torch.cat([text[:, : batch.image_slice.start], image, text[:, batch.image_slice.stop :]], 1)
    positions = torch.cat([batch.positions[:1], batch.positions]) if family.qwen else batch.positions[0]
    hidden = core.language_model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return model.lm_head(hidden)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_packed_turn_is_scored_as_the_real_model_scores_it_alone(name):
    family, tokenizer = Family(name), build_tokenizer(name)
    processor, model = build_processor(name, tokenizer), build_model(name, tokenizer, seed=0).eval()
    lessons = Teacher(random.Random(0), family.write_box).batch(3, faulty=True)
    batch = Collator(family, tokenizer, processor)(lessons)
    logits, place = packed_logits(model, family, batch), 0
    for turn in lessons[0].turns:  # the targets of the first row come first, turn by turn
        reply = tokenizer(turn.reply + "<|im_end|>")["input_ids"]
        rows = batch.target_rows[place : place + len(reply)]
        place += len(reply)
        content = [{"type": "image"}, {"type": "text", "text": turn.user}]
        asked = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        alone = processor(
            images=[[draw(lessons[0].scene)]], text=[asked + turn.reply + "<|im_end|>"], return_tensors="pt"
        )
        expected = model(**alone).logits[0, -len(reply) - 1 : -1]
        assert torch.equal(rows[:, 0], torch.zeros(len(reply), dtype=torch.long))
        assert torch.allclose(logits[0, rows[:, 1]], expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_taught_is_true_and_nothing_held_out_is_shown(name):
    family = Family(name)
    teacher = Teacher(random.Random(1), family.write_box)
    frame_name = "pixels" if family.qwen else "thousand"
    for lesson in teacher.batch(40, faulty=False):
        scene = lesson.scene
        assert scene.fingerprint() not in held_out()
        assert {o.style for o in scene.objects} <= set(SEEN_STYLES)
        for turn in lesson.turns:
            transcript = parse(turn.reply, Frame.named(frame_name, Size(scene.size.width, scene.size.height)))
            for pointing in transcript.pointings:
                assert any(
                    pointing.label == o.kind
                    and abs(pointing.box.left - o.left / scene.size.width) < 0.01
                    and abs(pointing.box.bottom - o.bottom / scene.size.height) < 0.01
                    for o in scene.objects
                )
            if turn.kind.endswith("yesno"):
                kinds = {o.kind for o in scene.objects if f"the {o.kind}" in turn.user}
                assert not any(pair <= kinds for pair in HELD_OUT_PAIRS)


def test_the_shares_of_faults_add_up():
    assert sum(share for _, share in FAULTS) == pytest.approx(1.0)


def test_a_base_is_measured_on_every_kind_of_question_that_the_page_lists():
    name = "tiny-internvl3"
    tokenizer = build_tokenizer(name)
    model = build_model(name, tokenizer, seed=0).eval()
    measured = measure(model, build_processor(name, tokenizer), limit=4, max_new_tokens=3)
    page = table({name: measured})
    assert measured["direct_count"] == 0.0, "random weights answer nothing"
    assert page.count("\n| ") == len(measured) - 3, "a row for each figure, the three counts apart"
