"""Training uses every row, computes what TRL computes, resumes exactly, and says no before it is too late."""

from __future__ import annotations

import inspect
import io
import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import tiny_random
import torch
from peft import LoraConfig
from rich.console import Console
from small_trainers import FAMILIES, NoJudge, changed, config, new_run, trainer, weights
from stock_trl import stock_inputs
from trl import GRPOTrainer

import opengrit.models
from opengrit.core.boxes import Size
from opengrit.core.errors import ModelError, RecipeError, RunError
from opengrit.core.types import Completion, Finish, Unjudged
from opengrit.data.grit import write
from opengrit.recipes.asking import Eval
from opengrit.recipes.training_recipe import parse_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.sampling.replay import ReplaySampler
from opengrit.training.data_order import EvenOrder
from opengrit.training.progress_table import ProgressTable
from opengrit.training.rollouts import completion_row
from opengrit.training.run import train
from opengrit.training.settings import check_settings
from opengrit.training.trainable_weights import freeze_vision_weights
from opengrit.training.training_evaluation import TrainingEvaluation

# Data order.


@pytest.mark.parametrize(("rows", "questions"), [(20, 20), (20, 8), (7, 3), (5, 5), (6, 4)])
def test_every_row_is_used_in_every_epoch(rows, questions):
    order = EvenOrder(rows, questions=questions, group=2, repeats=1, seed=0)
    for epoch in range(4):
        order.set_epoch(epoch)
        sampled = list(order)
        assert len(sampled) == len(order) == math.ceil(rows / questions) * questions * 2
        assert set(sampled) == set(range(rows))


def test_rows_that_fill_up_the_last_batch_change_so_that_all_are_used_alike():
    order = EvenOrder(20, questions=8, group=1, repeats=1, seed=0)
    used = Counter(row for epoch in range(50) for row in order.rows_of_epoch(epoch))
    assert sum(used.values()) == 50 * 24
    assert (
        max(used.values()) - min(used.values()) <= 1
    )  # 60 each on average; stock TRL leaves out 4 rows an epoch


def test_no_question_stands_twice_in_a_batch():
    order = EvenOrder(20, questions=8, group=1, repeats=1, seed=1)
    for epoch in range(20):
        rows = order.rows_of_epoch(epoch)
        assert all(len(set(rows[start : start + 8])) == 8 for start in range(0, 24, 8))


def test_the_order_depends_on_seed_and_epoch_alone():
    order = EvenOrder(20, questions=8, group=2, repeats=3, seed=5)
    order.set_epoch(2)
    again = EvenOrder(20, questions=8, group=2, repeats=3, seed=5)
    list(again)
    again.set_epoch(2)
    assert list(order) == list(again)
    assert order.rows_of_epoch(2) != order.rows_of_epoch(3)


def test_a_group_stands_together_and_a_batch_is_repeated():
    order = EvenOrder(2, questions=2, group=3, repeats=2, seed=0)
    first, second = order.rows_of_epoch(0)
    assert list(order) == ([first] * 3 + [second] * 3) * 2


# What is computed.


def stock_log_probs(made, output, model):
    """The rows' log-probabilities by TRL's own method on the processor's own output."""
    ids, mask, vision = stock_inputs(made, output)
    width = output["completion_ids"].shape[1]
    return GRPOTrainer._get_per_token_logps_and_entropies(
        made, model, ids, mask, width, compute_entropy=True, **vision
    )


@pytest.mark.parametrize("shares_prefix", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_are_those_of_stock_trl(family, shares_prefix, tmp_path):
    made = trainer(tmp_path, family=family, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    made.row_scorer = replace(made.row_scorer, shares_prefix=shares_prefix)
    made.model.train()
    output = made._generate_and_score_completions([made.train_dataset[i] for i in (1, 1, 1, 1, 2, 2, 2, 2)])
    mask = (output["completion_mask"] * output["tool_mask"]).bool()  # an end token we append is not scored
    prompt_completion = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
    attention = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)

    def gradients(log_probs):
        made.model.zero_grad()
        (log_probs * mask * torch.arange(1, 9)[:, None]).sum().backward()
        return {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}

    ours, entropy, _ = made._get_per_token_logps_and_entropies(
        made.model, prompt_completion, attention, output["completion_ids"].shape[1], compute_entropy=True
    )
    our_gradients = gradients(ours)
    theirs, their_entropy, _ = stock_log_probs(made, output, made.model)
    their_gradients = gradients(theirs)
    torch.testing.assert_close(ours * mask, theirs * mask, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy * mask, their_entropy * mask, atol=1e-5, rtol=1e-5)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        scale = their_gradients[name].abs().max().item()
        assert (gradient - their_gradients[name]).abs().max().item() <= 1e-5 * scale + 1e-5, name
    assert any("vis" in name and gradient.abs().max() > 0 for name, gradient in our_gradients.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_encodes_each_picture_twice_and_reads_each_prompt_once_in_generation(family, tmp_path):
    made = trainer(
        tmp_path, family=family, per_device_train_batch_size=8, gradient_accumulation_steps=1, max_steps=1
    )
    made.train()
    # 2 questions, 8 completions: stock TRL encodes 8 pictures to generate and 8 for the loss.
    assert made.sampler.counts.pictures_prepared == 2
    assert made.sampler.counts.pictures_encoded == 4
    asked = {id(p): len(p.ids) for p in made.rollouts.prompts}
    assert made.sampler.counts.prompt_tokens == sum(asked.values())


def test_with_a_frozen_vision_tower_a_picture_is_encoded_once_in_the_whole_run(tmp_path):
    loaded = tiny_random.talkative(tiny_random.qwen())
    freeze_vision_weights(loaded)
    before = weights(loaded.model)
    made = trainer(tmp_path, loaded=loaded, max_steps=4)
    made.train()
    assert made.sampler.counts.pictures_encoded == 4
    learned = changed(before, made.model)
    assert learned
    assert not any("visual" in name for name in learned)


def test_the_reference_model_keeps_the_first_weights_and_the_kl_starts_at_zero(tmp_path):
    folder = tiny_random.save(tiny_random.talkative(tiny_random.qwen()), tmp_path / "base")
    loaded = opengrit.models.load(str(folder))
    run = new_run(tmp_path)
    made = trainer(tmp_path, loaded=loaded, run=run, beta=0.05, max_steps=3)
    made.train()
    kl = [row["kl"] for row in run.metrics()]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert kl[-1] > 1e-5


def test_rollouts_are_sampled_by_the_step_alone_so_that_processes_sample_what_one_would(tmp_path):
    made = trainer(tmp_path)
    seeds = [made.rollout_sampling.settings_of(generation).seed for generation in range(3)]
    assert len(set(seeds)) == 3
    other = trainer(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    assert [other.rollout_sampling.settings_of(generation).seed for generation in range(3)] == seeds
    assert trainer(tmp_path, seed=4).rollout_sampling.settings_of(0).seed not in seeds


def test_sampled_tokens_are_trained_on_and_appended_ones_are_not(tmp_path):
    made = trainer(tmp_path, max_completion_length=30)
    made.model.train()
    output = made._generate_and_score_completions([made.train_dataset[i // 4] for i in range(8)])
    loss_mask = output["completion_mask"] * output["tool_mask"]
    assert loss_mask.sum(1).tolist() == [len(record.completion.token_ids) for record in made.rollouts.records]
    assert output["row"].tolist() == list(range(8))


def test_a_completion_ended_by_the_stop_string_is_not_taken_for_truncated(tmp_path):
    made = trainer(tmp_path)
    record = replace(
        made_record(made, "e0"),
        completion=replace(made_record(made, "e0").completion, finish=Finish.STOP, token_ids=(5, 7)),
    )
    ends = {"end_ids": made.eos_token_ids, "appended_id": made._tokenizer.eos_token_id}
    ids, mask = completion_row(record, **ends)
    assert ids == [5, 7, made._tokenizer.eos_token_id]
    assert mask == [1, 1, 0]
    cut_off = replace(record, completion=replace(record.completion, finish=Finish.LENGTH))
    assert completion_row(cut_off, **ends) == ([5, 7], [1, 1])


def made_record(made, name):
    made.model.train()
    made._generate_and_score_completions([made.train_dataset[0]] * 4)
    return next(record for record in made.rollouts.records if record.example.id == name)


# What is written.


def test_every_rollout_is_a_record_with_its_advantage_and_every_step_a_row_of_metrics(tmp_path):
    run = new_run(tmp_path)
    made = trainer(tmp_path, run=run)
    made.train()
    records = list(run.records())
    assert len(records) == 2 * 8
    assert {record.example.id for record in records} == {"e0", "e1", "e2", "e3"}  # 2 of 4 questions a step
    for record in records:
        assert record.id == f"{record.step}/{record.example.id}#{record.sample}"
    by_group = {}
    for record in records:
        by_group.setdefault((record.step, record.example.id), []).append(record)
    for group in by_group.values():
        assert sorted(record.sample for record in group) == [0, 1, 2, 3]
        scored = [record.score.total for record in group if record.score.total is not None]
        assert len(scored) >= 2  # truncated completions have no reward and are not part of the baseline
        mean = sum(scored) / len(scored)
        spread = math.sqrt(sum((t - mean) ** 2 for t in scored) / (len(scored) - 1))
        for record in group:
            total = mean if record.score.total is None else record.score.total
            assert record.advantage == pytest.approx((total - mean) / (spread + 1e-4), abs=1e-3)
    rows = list(run.metrics())
    assert [row["step"] for row in rows] == [1, 2]
    first = [record for record in records if record.step == 1]
    expected = [record.score.parts["tag_walk"] for record in first]
    assert rows[0]["parts/tag_walk"] == pytest.approx(sum(expected) / len(expected))
    for dataset in {record.example.dataset for record in first}:
        own = [record.score.parts["tag_walk"] for record in first if record.example.dataset == dataset]
        assert rows[0][f"parts/{dataset}/tag_walk"] == pytest.approx(sum(own) / len(own))
    assert {"reward", "format", "completions/mean_length", "frac_reward_zero_std", "truncated"} <= rows[
        0
    ].keys()


def test_completions_of_one_question_differ_in_reward_so_that_the_tests_here_test_learning(tmp_path):
    run = new_run(tmp_path)
    before = trainer(tmp_path, run=run)
    start = weights(before.model)
    before.train()
    assert any(record.advantage for record in run.records())
    assert changed(start, before.model)


def test_groups_whose_rewards_are_equal_teach_nothing_not_even_rounding(tmp_path):
    # All write the opening tag, 0.2 of 13 in the released walk: 2.6, whose mean over six rounds in 32 bits.
    run, loaded = new_run(tmp_path), tiny_random.talkative(tiny_random.qwen())
    rows = tiny_random.examples(tmp_path, 4)
    ids = tuple(loaded.processor.tokenizer("<think>")["input_ids"])
    said = {row.id: [Completion("<think>", (*ids, n + 3), Finish.STOP) for n in range(6)] for row in rows}
    made = trainer(
        tmp_path, loaded=loaded, rubric=Rubric.from_weights({"tag_walk": 13.0}), run=run, num_generations=6,
        per_device_train_batch_size=6, max_steps=1, extra={"rollout_sampler": ReplaySampler(said, seen_size=Size(56, 56))},
    )  # fmt: skip
    start = weights(made.model)
    made.train()
    assert [(r.score.total, r.advantage) for r in run.records()] == [(2.6, 0.0)] * 12
    assert next(run.metrics())["frac_reward_zero_std"] == 1.0
    assert not changed(start, made.model)


def test_a_judge_that_is_down_leaves_rows_out_and_moves_nothing(tmp_path):
    run = new_run(tmp_path)
    made = trainer(
        tmp_path,
        judge=NoJudge(),
        rubric=Rubric.from_weights({"correct": 1.0, "tag_walk": 1.0}),
        run=run,
        max_steps=1,
    )
    made.train()
    for record in run.records():
        if isinstance(record.verdict, Unjudged):
            assert record.score.total is None
            assert record.advantage == 0.0


def test_a_picture_that_vanishes_is_a_failed_record_and_teaches_nothing(tmp_path):
    run = new_run(tmp_path)
    made = trainer(tmp_path, run=run, max_steps=2)
    (tmp_path / "pictures" / "1.png").unlink()
    made.train()
    failed = [record for record in run.records() if record.failure]
    assert {record.example.id for record in failed} == {"e1"}
    assert all(record.advantage == 0.0 and record.score.total is None for record in failed)
    assert sum(row["failed"] for row in run.metrics()) == pytest.approx(
        0.5
    )  # 4 of 8 rows in one of the two steps


def test_an_evaluation_measures_without_disturbing_the_training(tmp_path):
    (tmp_path / "pictures").mkdir()
    asked = tuple(tiny_random.examples(tmp_path / "pictures", 3))
    evaluation = TrainingEvaluation("held-out", asked, Eval(max_completion_length=60), every=2)
    run = new_run(tmp_path)
    evaluated = trainer(tmp_path, run=run, max_steps=4, extra={"evaluations": [evaluation]})
    evaluated.train()
    plain = trainer(tmp_path, max_steps=4)
    plain.train()
    rows = [row for row in run.metrics() if "eval/held-out/n" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["eval/held-out/n"] == 3
    assert not changed(weights(evaluated.model), plain.model)
    assert all(
        record.step is not None for record in run.records()
    )  # an evaluation's records are not the training's


def test_a_log_gets_one_line_a_step(caplog):
    with caplog.at_level("INFO", logger="opengrit"), ProgressTable(num_steps=2, quiet=True) as table:
        table.show({"step": 1, "reward": 1.25, "format": 0.5})
        table.show({"step": 2, "reward": 1.5, "format": None})
    assert [record.message.split()[1] for record in caplog.records] == ["1/2", "2/2"]
    assert "reward 1.25" in caplog.records[0].message
    assert "format -" in caplog.records[1].message


def test_a_terminal_gets_a_table_with_the_parts_of_the_reward():
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with ProgressTable(num_steps=4, console=console) as table:
        table.show({"step": 3, "reward": 2.5, "parts/tag_pairs": 0.75, "parts/count/tag_pairs": 0.5})
    shown = console.file.getvalue()
    assert "step 3 of 4" in shown
    assert "tag pairs" in shown
    assert "0.75" in shown
    assert "0.50" not in shown  # parts by data set are in metrics.jsonl; the table has no room for them


# Resuming.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_interrupted(family, tmp_path):
    # 5 rows, 2 questions a step: 3 steps an epoch, so the resumed half crosses an epoch's end.
    straight_run, run = new_run(tmp_path, "straight"), new_run(tmp_path, "resumed")
    length = {"max_completion_length": 30}  # long enough for tags, so that completions differ in reward
    straight = trainer(tmp_path, family=family, rows=5, run=straight_run, max_steps=5, **length)
    start = weights(straight.model)
    straight.train()
    assert changed(start, straight.model)
    first = trainer(
        tmp_path,
        family=family,
        rows=5,
        run=run,
        max_steps=5,
        save_strategy="steps",
        save_steps=2,
        lr_scheduler_type="linear",
        **length,
    )
    first.add_callback(StopAfter(2))
    first.train()
    assert [path.name for path in run.checkpoints()] == ["step-000002"]
    second = trainer(tmp_path, family=family, rows=5, run=run, max_steps=5, **length)
    second.train(resume_from_checkpoint=str(run.checkpoints()[-1]))
    assert not changed(weights(straight.model), second.model)
    said = [{r.id: r.completion for r in one.records()} for one in (straight_run, run)]
    assert said[0] == said[1]


class StopAfter(__import__("transformers").TrainerCallback):
    """Ends a run early, as a crash would."""

    def __init__(self, step):
        self._step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self._step


def test_a_checkpoint_that_lost_a_tensor_stops_the_resume(tmp_path):
    from safetensors.torch import load_file, save_file

    run = new_run(tmp_path)
    trainer(tmp_path, run=run, save_strategy="steps", save_steps=1, max_steps=1).train()
    file = run.checkpoints()[-1] / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "down_proj" in name))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing 1: model.*down_proj"):
        trainer(tmp_path, run=run).train(resume_from_checkpoint=str(run.checkpoints()[-1]))


def test_an_adapter_is_trained_alone_and_resumes_exactly(tmp_path):
    lora = LoraConfig(r=2, target_modules="all-linear", exclude_modules=r".*visual.*")
    run = new_run(tmp_path)
    straight = trainer(tmp_path, max_steps=3, extra={"peft_config": lora})
    straight.train()
    first = trainer(
        tmp_path, run=run, max_steps=3, save_strategy="steps", save_steps=2, extra={"peft_config": lora}
    )
    before = weights(first.model)
    first.add_callback(StopAfter(2))
    first.train()
    assert changed(before, first.model)
    assert all("lora_" in name for name in changed(before, first.model))
    second = trainer(tmp_path, run=run, max_steps=3, extra={"peft_config": lora})
    second.train(resume_from_checkpoint=str(run.checkpoints()[-1]))
    assert not changed(weights(straight.model), second.model)


# Saying no.


def test_fewer_rows_than_a_step_asks_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="2 are requested and the data has 1 rows; add rows"):
        trainer(tmp_path, rows=1)


def test_a_processor_that_pads_on_the_right_is_refused(tmp_path):
    loaded = tiny_random.qwen()
    loaded.processor.tokenizer.padding_side = "right"
    with pytest.raises(ModelError, match="pads on the left"):
        trainer(tmp_path, loaded=loaded)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps_per_generation": 4}, "steps_per_generation"),
        ({"num_iterations": 2, "save_strategy": "steps", "save_steps": 3}, "save_steps"),
    ],
)
def test_settings_that_train_on_something_else_are_refused(changes, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        check_settings(config(tmp_path, **changes), num_rows=20)


# From a recipe.


def recipe(folder, **changes):
    base = tiny_random.save(tiny_random.talkative(tiny_random.qwen()), folder / "base")
    (folder / "pictures").mkdir()
    write(tiny_random.examples(folder / "pictures", 4), folder / "rows.jsonl", images=folder / "pictures")
    text = f"""
model: {base}
data: {{train: [{{file: {folder / "rows.jsonl"}, images: {folder / "pictures"}}}]}}
rewards: {{tag_walk: 1.0, repetition: 0.25}}
strategy: direct
train:
  {{max_steps: 2, num_generations: 4, questions_per_step: 2, per_device_train_batch_size: 8, max_completion_length: 20,
   bf16: false, beta: 0.0, save_steps: 1, eval_steps: null, gradient_checkpointing: false, learning_rate: 0.001}}
"""
    return parse_recipe(text, [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def test_a_recipe_makes_a_run_whose_final_model_loads(tmp_path):
    run = train(recipe(tmp_path), tmp_path / "run", quiet=True)
    assert [path.name for path in run.checkpoints()] == ["step-000001", "step-000002"]
    assert len(list(run.records())) == 16
    assert [row["step"] for row in run.metrics()] == [1, 2]
    base = opengrit.models.load(str(tmp_path / "base"))
    assert changed(weights(base.model), opengrit.models.load(str(run.path)).model)
    assert parse_recipe(run.recipe).train.max_steps == 2


def test_a_finished_run_is_left_as_it_is_when_it_is_resumed(tmp_path):
    wanted = recipe(tmp_path)
    run = train(wanted, tmp_path / "run", quiet=True)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    again = train(wanted, tmp_path / "run", resume=True, quiet=True)
    assert {path: path.read_bytes() for path in before} == before
    assert list(again.metrics()) == list(run.metrics())


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    wanted = recipe(tmp_path)
    train(wanted, tmp_path / "run", quiet=True)
    with pytest.raises(RunError, match="new folder"):
        train(wanted, tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train.questions_per_step": 8}, RecipeError, "questions_per_step"),
        ({"rewards": {"box_count": 1.0}}, RecipeError, "box_count"),
        ({"model": "no-such-model"}, ModelError, "no-such-model"),
        ({"train.bf16": True}, RecipeError, "bf16"),
    ],
)
def test_an_impossible_recipe_is_refused_before_anything_is_written(changes, error, message, tmp_path):
    if "train.bf16" in changes and torch.cuda.is_available():
        pytest.skip("bf16 is possible on a GPU")
    wanted = recipe(tmp_path, **changes)
    if "rewards" in changes:  # rows that count nothing
        rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
        lines = [
            json.dumps({**row, "question": "Which animal?", "answer": "dog", "dataset": "vsr"})
            for row in rows
        ]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(error, match=message):
        train(wanted, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


# The private parts of TRL that we rely on.


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_get_train_sampler", ["self", "dataset"]),
        ("_prepare_inputs", ["self", "generation_batch"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_compute_loss", ["self", "model", "inputs"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_log_metric", ["self", "name", "value"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_load_from_checkpoint", ["self", "resume_from_checkpoint", "model"]),
        ("log", ["self", "logs", "start_time"]),
    ],
)
def test_trl_still_has_the_methods_that_we_override(method, parameters):
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == parameters


def test_trl_still_asks_for_log_probabilities_as_we_answer():
    parameters = list(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert parameters[:8] == [
        "self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy", "compute_aux_loss",
    ]  # fmt: skip


def test_trl_is_the_minor_version_that_we_override():
    import trl

    assert trl.__version__.startswith("1.16.")
