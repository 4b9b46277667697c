"""Second questions and second draws in a training: who is asked, with which picture, and what it earns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny_random
from PIL import Image, ImageDraw
from small_trainers import changed, config, new_run, trainer, weights
from transformers import TrainerCallback

from opengrit.core.types import Completion, Finish
from opengrit.evaluation.metrics import grounding_iou, right
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.judges import RuleJudge
from opengrit.recipes.asking import AskingAgain, Eval
from opengrit.recipes.objective import Advantage, ObjectCredit
from opengrit.rewards.rubric import Rubric
from opengrit.runs.alarms import Setting
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampled
from opengrit.training.metrics import StepLog, evaluation_row
from opengrit.training.redrawing import flat_by_accuracy
from opengrit.training.trainer import GritTrainer
from opengrit.training.training_evaluation import TrainingEvaluation

RED = (200, 0, 0)
ON_IT, BESIDE, ALL = "[0, 0, 42, 42]", "[60, 60, 80, 80]", "[0, 0, 84, 84]"
NAN = math.nan


class Seer:
    """Says texts by heart of a picture on the disk, and of one that is handed over whether there is any red in it."""

    def __init__(self, loaded, texts, *, finish=Finish.STOP):
        self._loaded, self._texts, self._finish = loaded, texts, finish
        self.asked = []

    def sample(self, questions, *, samples_per_question, settings, listener=None):
        if isinstance(questions[0].image, str):
            return [[self._say(text) for text in self._texts[question.id]] for question in questions]
        self.asked.append((questions, settings))
        return [
            [self._say(str(int(RED in question.image.get_flattened_data())), self._finish)]
            for question in questions
        ]

    def _say(self, text, finish=Finish.STOP):
        ids = self._loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return Sampled(Completion(text, tuple(ids), finish), (), tiny_random.Size(84, 84))


def examples_of(folder, count=1):
    (folder / "pictures").mkdir(exist_ok=True)
    found = []
    for example in tiny_random.examples(folder / "pictures", count):
        picture = Image.new("RGB", (84, 84), "white")
        ImageDraw.Draw(picture).rectangle((10, 10, 30, 30), fill=RED)
        picture.save(example.image)
        found.append(replace(example, answer="1", picture_size=tiny_random.Size(84, 84), dataset="vsr"))
    return found


def said(boxes, answer=1):
    return f"<think>{boxes}</think><rethink>so</rethink><answer>{answer}</answer>"


def made(folder, texts, *, asking=None, rubric=None, sampler=None, resample=0):
    loaded = tiny_random.qwen()
    examples = examples_of(folder, len(texts))
    return GritTrainer(
        loaded,
        examples,
        args=config(
            folder,
            per_device_train_batch_size=4 * len(texts),
            gradient_accumulation_steps=1,
            max_completion_length=300,
        ),
        protocol=EvaluationProtocol(
            "grounded",
            loaded.frame,
            RuleJudge(),
            rubric or Rubric({"kept": 1.0, "hidden": 1.0, "correct": 1.0}),
        ),
        rollout_sampler=sampler or Seer(loaded, dict(zip([e.id for e in examples], texts, strict=True))),
        asking_again=asking,
        resample_flat_groups=resample,
    )


def generation(made):
    made.model.train()
    order = [i for i in range(len(made.examples)) for _ in range(4)]
    output = made._generate_and_score_completions([made.train_dataset[i] for i in order])
    return output, made.rollouts.records


def parts(records):
    return [
        (r.score.parts.get("kept"), r.score.parts.get("hidden"), r.score.parts.get("correct"))
        for r in records
    ]


TEXTS = [said(ON_IT), said(BESIDE), said(ALL), said(ON_IT, 0)]


def test_an_answer_that_needs_its_boxes_earns_for_it_and_one_that_points_beside_does_not(tmp_path):
    trained = made(tmp_path, [TEXTS], asking=AskingAgain())
    _, records = generation(trained)
    assert parts(records) == [(1, 1, 1), (0, 0, 1), (0, 0, 1), (0, 0, 0)]
    assert [r.score.total for r in records] == [3.0, 1.0, 1.0, 0.0]
    ((questions, settings),) = trained.rollout_sampler.asked  # one batch
    # The first and the last rollout share their boxes, and so their second answers; the third covers too much.
    assert len(questions) == 4
    assert (settings.temperature, settings.max_new_tokens) == (0.0, 8)
    assert "think" not in questions[0].text  # asked plainly
    shown = [sum(pixel == RED for pixel in question.image.get_flattened_data()) for question in questions]
    assert sorted(shown) == [0, 0, 21 * 21, 21 * 21]
    logged = trained.metric_sums.values()
    assert (logged["asking_again/questions"], logged["asking_again/tokens"]) == (4.0, 4.0)
    assert 0.0 < logged["asking_again/seconds"] < 60.0


def test_without_a_bound_on_the_area_the_whole_picture_earns_both(tmp_path):
    _, records = generation(made(tmp_path, [TEXTS], asking=AskingAgain(max_covered=1.0)))
    assert parts(records)[2] == (1, 1, 1)


def test_a_second_answer_that_is_cut_off_earns_nothing(tmp_path):
    loaded = tiny_random.qwen()
    sampler = Seer(loaded, {"e0": TEXTS}, finish=Finish.LENGTH)
    _, records = generation(made(tmp_path, [TEXTS], asking=AskingAgain(), sampler=sampler))
    assert parts(records)[0] == (0, 0, 1)


def test_without_the_rewards_nothing_is_asked_again(tmp_path):
    trained = made(tmp_path, [TEXTS], rubric=Rubric({"correct": 1.0}))
    generation(trained)
    assert trained.rollout_sampler.asked == []
    assert "asking_again/seconds" not in trained.metric_sums.values()


def test_an_evaluation_while_training_probes_its_evidence_where_it_is_asked_to(tmp_path):
    loaded = tiny_random.qwen()
    examples = examples_of(tmp_path, 2)
    protocol = EvaluationProtocol(
        "grounded", loaded.frame, RuleJudge(), Rubric({"kept": 1.0, "correct": 1.0})
    )
    sampler = Seer(loaded, {"e0": [said(ON_IT)], "e1": [said(BESIDE)]})
    evaluation = TrainingEvaluation("held-out", tuple(examples), Eval(strategy="direct"), every=1, probe=True)
    records = evaluation.records(sampler, protocol)
    assert [record.score.parts for record in records] == [{"correct": 1.0}] * 2  # kept is not asked for here
    probed = evaluation.probes(sampler, protocol, records)
    row = evaluation_row("held-out", records, probed)
    # The first changes with its box in grey and stays with all else in grey, the second the other way round.
    assert (row["eval/held-out/sufficiency"], row["eval/held-out/probed"]) == (0.5, 2.0)
    assert row["eval/held-out/covered_area"] == pytest.approx((0.25 + (20 / 84) ** 2) / 2)
    assert "eval/held-out/necessity" in row
    run = RunDir.create(tmp_path / "run", recipe="train: {}\n")
    StepLog(run, setting=Setting(160, "pixels")).add_evaluation("held-out", records, step=1, probed=probed)
    (line,) = run.evaluations()
    answers = line["answers"]
    assert [answers[one.id][:2] for one in records] == [[right(one), grounding_iou(one)] for one in records]
    needed = sum(answers[one.id][2] for one in records) / 2
    assert needed == (row["eval/held-out/necessity"] + row["eval/held-out/sufficiency"]) / 2
    assert replace(evaluation, probe=False).probes(sampler, protocol, records) is None


# Second draws.


def test_groups_are_flat_by_their_answers_alone():
    accuracies = [1, 1, 1, 0, 0, NAN, 0, 1, 0, NAN, NAN, NAN]
    assert flat_by_accuracy(accuracies, group=3) == [True, True, False, False]


class Draws:
    """Of the first question every draw is wrong; of the others the first draw is wrong and the second right at times."""

    def __init__(self, loaded):
        self._seer = Seer(loaded, {})
        self.calls = []

    def sample(self, questions, *, samples_per_question, settings, listener=None):
        self.calls.append(([question.id for question in questions], settings[0].seed))
        first = len(self.calls) == 1
        hopeless = [said(ON_IT, 7), said("", 7), said("", 7), said(BESIDE, 7)]  # whose shaped totals differ
        mixed = [said(ON_IT), said(ON_IT, 7), said(""), said("")]
        return [
            [self._seer._say(text) for text in (hopeless if first or question.id == "e0" else mixed)]
            for question in questions
        ]


@pytest.mark.parametrize("times", [1, 3])
def test_groups_that_are_all_right_or_all_wrong_are_drawn_again_whatever_they_earn(times, tmp_path):
    rubric = Rubric({"correct": 1.0, "points_before_rethinking": 1.0})
    sampler = Draws(tiny_random.qwen())
    trained = made(tmp_path, [[], []], rubric=rubric, sampler=sampler, resample=times)
    output, records = generation(trained)
    assert [asked for asked, _ in sampler.calls] == [["e0", "e1"], ["e0", "e1"], *[["e0"]] * (times - 1)]
    assert len({seed for _, seed in sampler.calls}) == times + 1
    assert [r.score.parts["correct"] for r in records] == [0, 0, 0, 0, 1, 0, 1, 1]
    assert len(output["completion_ids"]) == 8
    logged = trained.metric_sums.values()
    assert (logged["resampled/share"], logged["resampled/still_flat"]) == (1.0, 0.5)
    assert logged["resampled/dropped_tokens"] > 0


class StopAfter(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= 2


def test_a_run_with_all_of_it_resumes_to_the_same_end(tmp_path):
    rubric = Rubric({"correct": 1.0, "kept": 0.5, "hidden": 0.5, "tag_walk": 1.0, "grounding_iou": 1.0})
    extra = {
        "advantage": Advantage(combine="normalize_then_sum", objects=ObjectCredit(min_iou=0.01)),
        "asking_again": AskingAgain(max_covered=1.0),
        "resample_flat_groups": 1,
    }
    how = {"rubric": rubric, "extra": extra, "rows": 5, "max_steps": 3, "max_completion_length": 40}
    straight = trainer(tmp_path, **how)
    start = weights(straight.model)
    straight.train()
    assert changed(start, straight.model)
    run = new_run(tmp_path, "resumed")
    first = trainer(tmp_path, run=run, save_strategy="steps", save_steps=2, **how)
    first.add_callback(StopAfter())
    first.train()
    second = trainer(tmp_path, run=run, **how)
    second.train(resume_from_checkpoint=str(run.checkpoints()[-1]))
    assert not changed(weights(straight.model), second.model)
