"""Credit: rewards standardised apart, and advantages of single boxes on the tokens that spell them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny_random
import torch
from box_tokens import LABELLED, TEXTS, check_tokens, record_of
from PIL import Image
from small_trainers import config
from transformers import AutoTokenizer

from opengrit.core.boxes import Box
from opengrit.core.errors import RecipeError
from opengrit.core.types import Completion, Finish, Score
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.models.resolve import resolve
from opengrit.recipes.objective import Advantage, ObjectCredit
from opengrit.recipes.training_recipe import parse_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling.replay import ReplaySampler
from opengrit.training.credit import RewardColumns, flat_groups
from opengrit.training.object_credit import Found, fit_of, object_advantages, objects_of
from opengrit.training.run import _resolve
from opengrit.training.trainer import GritTrainer

NAN = math.nan
# Rewards apart.


def test_groups_are_flat_where_every_column_is_and_neither_where_none_is_measured():
    third = 0.1 + 0.2  # 0.30000000000000004
    sums = [2.6, 2.6, 2.6, 0.3, third, 0.3, 2.6, 2.6, 2.7, NAN, 1.0, 1.0, NAN, NAN, NAN, NAN, 0.0, 1.0]
    assert flat_groups([[total] for total in sums], group=3) == [True, True, False, True, None, False]
    # Right without boxes and wrong with boxes have one total, and differ in both parts.
    assert flat_groups([[1.0, 0.0], [0.0, 1.0], [1.0, NAN], [1.0, NAN]], group=2) == [False, True]


def test_a_part_has_a_column_of_its_own_where_it_is_rewarded_and_rows_without_a_total_have_none():
    rubric = Rubric.from_weights({"correct": 2.0, "tag_pairs": 0.0, "box_count": 0.5})
    columns = RewardColumns(rubric, apart=True)
    assert (columns.weights, [f.__name__ for f in columns.functions]) == (
        [2.0, 0.5],
        ["correct", "box_count"],
    )
    scores = [
        Score(2.5, {"correct": 1.0, "tag_pairs": 1.0, "box_count": 1.0}),
        Score(2.0, {"correct": 1.0, "tag_pairs": 1.0, "box_count": None}),
        Score(None, {"tag_pairs": 1.0, "box_count": 1.0}, "the judge is down"),
    ]
    records = [replace(record_of("two"), score=score) for score in scores]
    rows = torch.tensor(columns.of(records, skipped=False))
    assert torch.equal(rows.isnan(), torch.tensor([[False, False], [False, True], [True, True]]))
    assert rows.nan_to_num(9.0).tolist() == [[1.0, 1.0], [1.0, 9.0], [9.0, 9.0]]
    assert all(math.isnan(value) for row in columns.of(records, skipped=True) for value in row)


# Objects, by hand.


def test_a_box_fits_by_seven_parts_of_iou_and_three_of_nearness():
    # Half as high: IoU 0.5; one of four edges is 0.2 away, so the mean distance is 0.05.
    assert fit_of(Box(0, 0, 0.4, 0.2), Box(0, 0, 0.4, 0.4), iou=0.5) == pytest.approx(0.7 * 0.5 + 0.3 * 0.95)
    assert fit_of(LABELLED[0], LABELLED[0], iou=1.0) == pytest.approx(1.0)


def test_boxes_find_objects_one_to_one_and_a_box_beside_all_finds_none():
    one = record_of(
        "<think>(500, 500, 1000, 1000) (0, 0, 500, 250) (0, 0, 100, 60) (510, 0, 900, 400)</think>"
    )
    found = objects_of(one, min_iou=0.1)
    assert {place: iou for place, (_, iou) in found.items()} == pytest.approx({0: 0.5, 1: 1.0})
    assert found[0][0] == Box(0.0, 0.0, 0.5, 0.25)
    assert set(objects_of(one, min_iou=0.6)) == {1}
    assert objects_of(record_of("<think>none</think>"), min_iou=0.1) == {}
    assert objects_of(record_of("<think>(0, 0, 9, 9)</think>", boxes=()), min_iou=0.1) == {}


def test_completions_that_found_the_same_objects_are_compared_among_themselves_object_by_object():
    both = [Found(1.0, {0: 1.0, 1: 0.5}), Found(1.0, {0: 0.5, 1: 0.5})]
    rows = [
        Found(2.0, {0: 1.0}),  # worth 2
        Found(2.0, {0: 0.5}),  # worth 1
        *both,
        Found(None, {0: 0.9}),  # nobody could judge it
        Found(2.0, {}),
        # Another question: the same objects by number, and compared with none of the first.
        Found(3.0, {0: 1.0}),
        *[Found(0.0, {1: 1.0})] * 5,
    ]
    found = object_advantages(rows, group=6)
    half = 0.5 / (math.sqrt(0.5) + 1e-4)  # of 2 and 1: 0.5 above the mean, deviation sqrt((0.25 + 0.25) / 1)
    quarter = 0.25 / (math.sqrt(0.125) + 1e-4)  # of 1 and 0.5
    assert found[0] == pytest.approx({0: half})
    assert found[1] == pytest.approx({0: -half})
    assert found[2] == pytest.approx({0: quarter, 1: 0.0})
    assert found[3] == pytest.approx({0: -quarter, 1: 0.0})
    assert found[4] == found[5] == {}
    assert found[6] == {0: 0.0}  # alone
    assert found[7] == {1: 0.0}  # all alike


def test_a_total_below_zero_never_makes_the_better_box_the_worse_one():
    below = [Found(-1.0, {0: 0.9}), Found(-1.0, {0: 0.5})]
    assert object_advantages(below, group=2) == [{0: 0.0}, {0: 0.0}]
    mixed = [Found(2.0, {0: 0.5}), Found(-1.0, {0: 0.9})]  # worth 1 and 0
    half = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert object_advantages(mixed, group=2) == [pytest.approx({0: half}), pytest.approx({0: -half})]


# The tokens of a box are the characters of the box.


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["tiny-qwen2.5-vl", "tiny-internvl3"])
def test_the_tokens_of_a_box_hold_its_characters_and_no_others(name, text):
    check_tokens(AutoTokenizer.from_pretrained(resolve(name)), text)


def test_tokens_that_were_sampled_one_byte_at_a_time_are_found_too():
    tokenizer = tiny_random.qwen().processor.tokenizer
    for text in TEXTS:
        check_tokens(tokenizer, text)
    check_tokens(tokenizer, TEXTS[0][:60], ids=tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"])


# In a training.

GROUP = 4
GOOD, FAIR, FAR = "[0, 0, 42, 42]", "[0, 0, 42, 30]", "[60, 60, 80, 80]"
SAID = [f"<think>{b} {w}</think><answer>{a}</answer>" for b, w, a in
        [(GOOD, "one", 0), (FAIR, "a dog", 0), (FAR, "no", 0), (GOOD + " " + FAR, "yes", 1)]]  # fmt: skip


def completions(loaded, texts):
    tokenizer = loaded.processor.tokenizer
    return [
        Completion(t, tuple(tokenizer(t, add_special_tokens=False)["input_ids"]), Finish.STOP) for t in texts
    ]


def made(folder, *, advantage, loaded=None, rubric=None, rows=2, **changes):
    loaded = loaded or tiny_random.qwen()
    (folder / "pictures").mkdir(exist_ok=True)
    examples = tiny_random.examples(folder / "pictures", rows)
    said = {e.id: completions(loaded, SAID if i == 0 else SAID[2:] * 2) for i, e in enumerate(examples)}
    settings = {
        "per_device_train_batch_size": GROUP * rows,
        "gradient_accumulation_steps": 1,
        "max_completion_length": 300,
    }
    return GritTrainer(
        loaded,
        examples,
        args=config(folder, **{**settings, **changes}),
        protocol=EvaluationProtocol(
            "direct", loaded.frame, RuleJudge(), rubric or Rubric.from_weights({"correct": 1.0, "grounding_iou": 1.0})
        ),
        rollout_sampler=ReplaySampler(said, seen_size=examples[0].picture_size),
        advantage=advantage,
    )  # fmt: skip


def generation(trainer):
    trainer.model.train()
    order = [i for i in range(len(trainer.examples)) for _ in range(GROUP)]
    return trainer._generate_and_score_completions([trainer.train_dataset[i] for i in order])


@pytest.mark.parametrize("packed", [True, False])
def test_a_box_is_credited_on_its_tokens_only_packed_and_unpacked(packed, tmp_path):
    loaded = tiny_random.qwen()
    if not packed:
        loaded.model.get_decoder().config._attn_implementation = "flex_attention"
    weight = 0.5
    trainer = made(tmp_path, advantage=Advantage(objects=ObjectCredit(weight=weight)), loaded=loaded)
    if not packed:
        loaded.model.get_decoder().config._attn_implementation = "sdpa"
    assert trainer.row_scorer.shares_prefix == packed
    output = generation(trainer)
    records = trainer.rollouts.records
    first = next(i for i, r in enumerate(records) if r.example.id == "e0")
    advantages_RT = output["advantages"]
    assert advantages_RT.shape == output["completion_ids"].shape
    # Rows 0, 1 and 3 found the one object; the total is 1 + IoU of unions for the right answer "0", and row 3 is wrong.
    fits = [1.0, 0.7 * 30 / 42 + 0.3 * (1 - (12 / 84) / 4), 1.0]
    worth = [records[first + i].score.total * fit for i, fit in zip((0, 1, 3), fits, strict=True)]
    mean, deviation = sum(worth) / 3, torch.tensor(worth).std().item()
    for place, value in zip((0, 1, 3), worth, strict=True):
        text = records[first + place].completion.text
        box = FAIR if place == 1 else GOOD
        start = text.index(box)
        plain = advantages_RT[first + place, 0].item()
        expected = [plain + weight * (value - mean) / (deviation + 1e-4) if start <= i < start + len(box) else plain
                    for i in _characters(loaded, records[first + place])]  # fmt: skip
        assert advantages_RT[first + place, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
    assert advantages_RT[first + 2].unique().numel() == 1
    trainer.current_gradient_accumulation_steps = 1
    mask = output["completion_mask"] * output["tool_mask"]
    # With the weights that sampled every ratio is 1, so that the loss is minus the mean advantage of the tokens.
    by_hand = -((advantages_RT * mask).sum(1) / mask.sum(1)).mean()
    assert trainer._compute_loss(trainer.model, output).item() == pytest.approx(by_hand.item(), abs=1e-6)


def _characters(loaded, record):
    """The place in the text of each token, of a tokenizer that has a token for every byte and some words."""
    at, places = 0, []
    for token in record.completion.token_ids:
        places.append(at)
        at += len(loaded.processor.tokenizer.decode(token))
    return places


def test_a_group_of_one_total_still_learns_where_its_boxes_lie(tmp_path):
    rubric = Rubric.from_weights({"answer_tag": 1.0})  # all earn it
    plain = generation(made(tmp_path, advantage=Advantage(), rubric=rubric))
    assert not plain["advantages"].any()
    trainer = made(tmp_path, advantage=Advantage(objects=ObjectCredit()), rubric=rubric)
    output = generation(trainer)
    assert output["advantages"].any()
    assert trainer.metric_sums.values()["objects/credited"] > 0
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, output).backward()
    assert any(p.grad is not None and p.grad.any() for p in trainer.model.parameters())


PAIRS = "<think>a</think><rethink>b</rethink>"


def test_rewards_apart_teach_what_their_sum_hides(tmp_path):
    """Right, or a box, or the tags: each earns one, but the tags are earned twice as often."""
    rubric = Rubric.from_weights({"correct": 1.0, "points_before_rethinking": 1.0, "tag_pairs": 1.0})
    found = {}
    for combine in ("sum_then_normalize", "normalize_then_sum"):
        trainer = made(tmp_path, advantage=Advantage(combine=combine), rubric=rubric)
        trainer.examples = [replace(example, answer="dog") for example in trainer.examples]
        said = completions(trainer.loaded, ["<answer>dog", f"<think><think>{GOOD}</think>", PAIRS, PAIRS])
        trainer.rollout_sampler = ReplaySampler(
            {e.id: said for e in trainer.examples}, seen_size=trainer.examples[0].picture_size
        )
        found[combine] = generation(trainer)["advantages"].tolist()
    assert found["sum_then_normalize"] == [0.0] * 8
    # A part that one of four earns has the mean 1/4 and the deviation 1/2, one that two earn 1/2 and sqrt(1/3). So the
    # first rows come to 0.75 / 0.5 - 0.25 / 0.5 - 0.5 / sqrt(1/3) = 0.134 and the others to -0.134; divided by the
    # batch's deviation, 0.134 sqrt(8/7), that is sqrt(7/8).
    high = math.sqrt(7 / 8)
    assert found["normalize_then_sum"] == pytest.approx([high, high, -high, -high] * 2, abs=2e-3)


# The recipe.


BASE = "model: tiny-qwen2.5-vl\ndata: {train: [stickers/train20]}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "advantage: {combine: normalize_then_sum}\ntrain: {scale_rewards: none}",
            "set train.scale_rewards: group",
        ),
        ("advantage: {objects: {}}\ntrain: {loss_type: vespo}", "set train.loss_type: grpo"),
        ("advantage: {objects: {}}\ntrain: {top_entropy_quantile: 0.2}", "set train.top_entropy_quantile: 1"),
        ("advantage: {objects: {weight: 0}}", "greater than 0"),
    ],
)
def test_credit_that_would_change_nothing_or_be_wrong_is_refused(text, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(BASE + text)


def test_credit_for_objects_is_refused_where_no_row_has_boxes(tmp_path):
    rows = tmp_path / "mine.jsonl"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    rows.write_text('{"image": "a.png", "question": "How many dogs?", "answer": "1"}\n')
    recipe = parse_recipe(
        f"model: tiny-qwen2.5-vl\ndata: {{train: [{rows}]}}\nadvantage: {{objects: {{}}}}\n"
        "train: {questions_per_step: 1, bf16: false, eval_steps: null}\nrewards: answer_only"
    )
    with pytest.raises(RecipeError, match=r"none of 1 rows of data\.train has any; annotate"):
        _resolve(recipe, str(tmp_path))
