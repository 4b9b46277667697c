"""A judge's outage, refusals and bad replies reach neither the weights nor the scores, in training and in evaluation."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_random
import torch
from fault_server import Fault, FaultServer, Request, exact_score, fault_server
from transformers import TrainerCallback
from trl import GRPOConfig
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RecipeError
from opengrit.core.types import Completion, Example, Finish, Record, Unjudged, Verdict
from opengrit.evaluation.evaluator import agreement_with_rule, evaluate
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.evaluation.run import run_evaluation
from opengrit.judges import Case
from opengrit.judges.breaker import Breaker, BreakerSettings
from opengrit.judges.settings import JudgeSection, open_judge
from opengrit.models import load
from opengrit.recipes.data_section import Source
from opengrit.recipes.evaluation_recipe import EvalRecipe, Served, judge_of
from opengrit.recipes.model_section import Model
from opengrit.recipes.training_recipe import load_recipe
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.sampling import Sampled, SamplingSettings
from opengrit.training.rollouts import JudgeSettings
from opengrit.training.run import train
from opengrit.training.trainer import GritTrainer

SIZE = Size(200, 100)
PAPER = Rubric.named("paper")
GREEDY = SamplingSettings(temperature=0)
JUDGED = Rubric.from_weights({"correct": 1.0, "tag_walk": 0.25})
SECRET = "sk-not-to-be-written-anywhere"


def section(server: FaultServer, **more: Any) -> JudgeSection:
    return JudgeSection(kind="endpoint", url=server.url, model="stub", max_tries=1, **more)


def patient() -> Breaker:
    """A breaker that never opens."""
    return Breaker(BreakerSettings(consecutive_failures=10**6, window=10**6))


def quick() -> Breaker:
    """A breaker that opens soon and tries again soon."""
    return Breaker(
        BreakerSettings(consecutive_failures=2, cool_down_seconds=0.05, longest_cool_down_seconds=0.05)
    )


def some_score(request: Request) -> str:
    """A score that depends on the answer, so that the answers of a group differ in reward."""
    return json.dumps({"score": sum(request.text.encode()) % 2})


# Training.


def trainer(
    folder: Path, judge: Any, *, run: RunDir | None = None, judge_settings: JudgeSettings, **changes: Any
) -> GritTrainer:
    (folder / "pictures").mkdir(exist_ok=True)
    saved = tiny_random.save(tiny_random.talkative(tiny_random.qwen()), folder / "base")
    loaded = load(str(saved))  # by a name: a reference model is loaded by it too
    settings = {
        "output_dir": str(folder / "unused"), "use_cpu": True, "bf16": False, "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2, "num_generations": 4, "max_completion_length": 10, "max_steps": 2,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "gradient_checkpointing": False,
        "learning_rate": 1e-2, "lr_scheduler_type": "constant", "beta": 0.0, "loss_type": "grpo",
        "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return GritTrainer(
        loaded,
        tiny_random.examples(folder / "pictures", 4),
        args=GRPOConfig(**{**settings, **changes}),
        protocol=EvaluationProtocol("direct", loaded.frame, judge, JUDGED),
        run=run,
        judge_settings=judge_settings,
    )


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def was_asked_about(record: Record) -> bool:
    """Whether a judge is asked about a record: it ended, and it says something."""
    return record.completion.finish is not Finish.LENGTH and bool((record.transcript.answer or "").strip())


class Course(TrainerCallback):
    """Keeps the weights after each step, and does something after some of them."""

    def __init__(self, after: dict[int, Any]) -> None:
        self.after, self.weights = after, {}

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        self.weights[state.global_step] = weights(model)
        self.after.get(state.global_step, lambda: None)()


@pytest.mark.trains
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_an_outage_of_several_steps_changes_no_weight_is_counted_and_learning_goes_on_after_it(
    beta: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down = threading.Event()
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    with (
        fault_server(
            lambda request: Fault.STATUS_500 if down.is_set() else Fault.NONE, answer=some_score
        ) as server,
        open_judge(section(server), breaker=quick()) as judge,
        caplog.at_level("INFO", logger="opengrit"),
    ):
        made = trainer(
            tmp_path,
            judge,
            run=run,
            judge_settings=JudgeSettings(3.0, 0.5),
            max_steps=5,
            beta=beta,
            weight_decay=0.1,
        )
        # Momentum, decay and the KL term would all move weights in the steps of the outage.
        course = Course({1: down.set, 4: down.clear})
        made.add_callback(course)
        start = weights(made.model)
        made.train()
        made.scorer.close()
    after = course.weights
    assert not same(start, after[1])
    assert same(after[1], after[2])
    assert same(after[2], after[3])
    assert same(after[3], after[4])
    assert not same(after[4], after[5])
    assert [row["judge/skipped_step"] for row in run.metrics()] == [0, 1, 1, 1, 0]
    assert [row["judge/unjudged"] for row in run.metrics()] == [0, 1, 1, 1, 0]
    in_the_outage = [record for record in run.records() if record.step in (2, 3, 4)]
    assert len(in_the_outage) == 3 * 8
    for record in in_the_outage:
        assert record.advantage == 0
        if was_asked_about(record):
            assert isinstance(record.verdict, Unjudged)
            assert record.score.total is None
    said = caplog.text
    assert "the judge is down and is not asked for now" in said
    assert "the judge answers again" in said
    assert "step 2 is skipped: 0 of" in said


@pytest.mark.trains
def test_a_generation_that_is_skipped_is_counted_in_every_step_that_is_made_with_it(tmp_path: Path) -> None:
    down = threading.Event()
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    with (
        fault_server(
            lambda request: Fault.STATUS_500 if down.is_set() else Fault.NONE, answer=some_score
        ) as server,
        open_judge(section(server), breaker=patient()) as judge,
    ):
        made = trainer(
            tmp_path, judge, run=run, judge_settings=JudgeSettings(60, 0.5), max_steps=6, num_iterations=2
        )
        made.add_callback(Course({2: down.set, 4: down.clear}))
        made.train()
        made.scorer.close()
    assert [row["judge/skipped_step"] for row in run.metrics()] == [0, 0, 1, 1, 0, 0]
    assert [row.get("judge/unjudged") for row in run.metrics()] == [0, None, 1, None, 0, None]


@pytest.mark.trains
def test_a_step_under_the_floor_is_skipped_though_some_of_it_is_judged(tmp_path: Path) -> None:
    judge_some = lambda request: Fault.NONE if request.number % 4 == 0 else Fault.BAD_REQUEST  # noqa: E731
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    with (
        fault_server(judge_some, answer=some_score) as server,
        open_judge(section(server), breaker=patient()) as judge,
    ):
        made = trainer(tmp_path, judge, run=run, judge_settings=JudgeSettings(60, 0.9), max_steps=1)
        start = weights(made.model)
        made.train()
    judged = [record for record in run.records() if isinstance(record.verdict, Verdict)]
    assert judged
    assert all(record.advantage == 0 for record in run.records())
    assert all(record.score.total is not None for record in judged)  # what is known is kept
    assert same(start, weights(made.model))


@pytest.mark.trains
def test_a_judge_that_fails_now_and_then_leaves_no_row_scored_wrong(tmp_path: Path) -> None:
    draw = random.Random(5)
    failing = [draw.random() < 0.3 for _ in range(1000)]
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    kinds = (Fault.STATUS_500, Fault.SCORE_10, Fault.PROSE, Fault.HALF_JSON, Fault.WRONG_KEY)
    with (
        fault_server(
            lambda request: kinds[request.number % 5] if failing[request.number] else Fault.NONE,
            answer=lambda request: '{"score": 1}',
        ) as server,
        open_judge(section(server), breaker=patient()) as judge,
    ):
        made = trainer(
            tmp_path, judge, run=run, judge_settings=JudgeSettings(60, 0.0), max_steps=4, beta=0.05
        )
        made.train()
    records = list(run.records())
    unjudged = [record for record in records if isinstance(record.verdict, Unjudged)]
    whole = [record for record in unjudged if was_asked_about(record)]
    assert whole  # of the 30 % that failed
    for record in unjudged:
        assert record.score.total is None
        assert record.advantage == 0
    for record in records:
        if isinstance(record.verdict, Verdict) and record.verdict.judge != "no answer":
            assert record.verdict == Verdict(correct=True, score=1.0, judge="endpoint:stub")
    groups: dict[tuple[int | None, str], list[float]] = {}
    for record in records:
        if record.score.total is not None:
            groups.setdefault((record.step, record.example.id), []).append(record.score.total)
    for record in records:
        if record.score.total is not None:  # the baseline is the mean of what is judged
            group = groups[record.step, record.example.id]
            mean = sum(group) / len(group)
            spread = (sum((t - mean) ** 2 for t in group) / max(len(group) - 1, 1)) ** 0.5
            expected = (record.score.total - mean) / (spread + 1e-4)
            assert record.advantage == pytest.approx(expected, abs=1e-3)


class Waiting:
    """Judges only after the reference model has been asked; it says that it was not, where it waits for nothing."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        if not self.asked.wait(60):
            return [Unjudged("the reference model was not asked meanwhile")] * len(cases)
        return [Verdict(correct=True, score=1.0, judge="waiting")] * len(cases)


@pytest.mark.trains
def test_judging_and_the_reference_log_probabilities_overlap(tmp_path: Path) -> None:
    judge, run = Waiting(), RunDir.create(tmp_path / "run", recipe="a: 1\n")
    made = trainer(tmp_path, judge, run=run, judge_settings=JudgeSettings(100, 0.5), max_steps=1, beta=0.1)
    made.ref_model.register_forward_hook(lambda *_: judge.asked.set())
    made.train()
    asked = [record.verdict for record in run.records() if was_asked_about(record)]
    assert asked
    assert {verdict.judge for verdict in asked if isinstance(verdict, Verdict)} == {"waiting"}
    assert not any(isinstance(verdict, Unjudged) for verdict in asked)


def holds(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.trains
def test_the_key_of_a_judge_stands_in_no_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THE_JUDGES_KEY", SECRET)
    wrong = lambda request: Fault.WRONG_KEY if request.number % 2 else Fault.NONE  # noqa: E731  # repeats the key
    with fault_server(wrong) as server, caplog.at_level("DEBUG", logger="opengrit"):
        own = {
            "kind": "endpoint", "url": server.url, "model": "stub", "api_key_env": "THE_JUDGES_KEY",
            "cache": str(tmp_path / "cache.jsonl"), "min_judged_share": 0,
        }  # fmt: skip
        small = ("max_steps=1", "num_generations=2", "questions_per_step=2", "per_device_train_batch_size=4")
        recipe = load_recipe(
            "demo",
            [f"judge={json.dumps(own)}", "data.eval=[]", *(f"train.{s}" for s in small)],
        )
        train(recipe, tmp_path / "train", quiet=True)
        asked = EvalRecipe(
            model=Model(name="tiny-qwen2.5-vl"), data=(Source(name="stickers/count"),), limit=3, judge=own
        )
        run_evaluation(asked, tmp_path / "eval", quiet=True)
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {SECRET}"}
        assert len(server.requests) >= 2
    assert (tmp_path / "cache.jsonl").is_file()
    assert holds(tmp_path, "THE_JUDGES_KEY")  # the variable's name is in the recipe
    assert holds(tmp_path, SECRET) == []
    assert SECRET not in caplog.text


# Evaluation.


def example(number: int) -> Example:
    return Example(
        f"e{number}",
        "How many dogs are there?",
        "1",
        f"{number}.png",
        "count",
        SIZE,
        (Box(0.1, 0.1, 0.5, 0.5),),
    )


class VisionLanguageModel:
    """Answers question i with the i-th text, and counts what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, list[str]()

    def sample(self, questions: Any, *, samples_per_question: int, settings: Any) -> list[list[Sampled]]:
        self.asked += [question.id for question in questions]
        said = [
            Completion(
                f"<think>[1, 2, 30, 40]</think><rethink>x</rethink><answer>{self.texts[int(q.id[1:])]}</answer>"
            )
            for q in questions
        ]
        return [[Sampled(one, (), SIZE)] * samples_per_question for one in said]


@pytest.mark.parametrize(
    "fault", [Fault.STATUS_500, Fault.BAD_REQUEST, Fault.REFUSAL, Fault.PROSE, Fault.SCORE_10]
)
def test_what_could_not_be_judged_is_judged_again_and_not_asked_again(fault: Fault, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    examples = [example(i) for i in range(4)]
    vlm = VisionLanguageModel("1", "2", "", "7")  # right, wrong, no answer, wrong
    with (
        fault_server(lambda request: fault if "Model's answer: 2" in request.text else Fault.NONE) as server,
        # One at a time: the server has then answered in a schema before it refuses a request, and is not asked without one.
        open_judge(section(server, concurrency=1), breaker=patient()) as judge,
    ):
        protocol = EvaluationProtocol("grounded", "qwen2_5_vl", judge, PAPER)
        how: dict[str, Any] = {"protocol": protocol, "settings": GREEDY, "run": run, "quiet": True}
        before = evaluate(vlm, examples, **how)
        assert [isinstance(r.verdict, Verdict) for r in before] == [True, False, True, True]
        assert before[1].score.total is None
        assert len(server.requests) == 3  # the missing answer is wrong, and nobody is asked
        still = evaluate(vlm, examples, **how)
        assert still == before
        assert len(server.requests) == 4  # the one answer, again in vain
        server.plan = lambda request: Fault.NONE
        after = evaluate(vlm, examples, **how)
        assert len(server.requests) == 5
        finished = evaluate(vlm, examples, **how)
        assert len(server.requests) == 5
    assert vlm.asked == ["e0", "e1", "e2", "e3"]
    assert after[1].verdict == Verdict(correct=False, score=0.0, judge="endpoint:stub")
    assert after[1].score.total is not None
    assert finished == after
    assert {r.id: r for r in run.records()} == {r.id: r for r in after}
    lines = [json.loads(line) for line in (run.path / "records.jsonl").read_text().splitlines()]
    # The correction stands behind what was written before, and nothing else was written.
    assert [line["id"] for line in lines] == ["e0#0", "e1#0", "e2#0", "e3#0", "e1#0"]


def test_a_judge_that_is_down_is_asked_little_and_every_answer_is_kept(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    examples = [example(i) for i in range(40)]
    vlm = VisionLanguageModel(*(str(i) for i in range(40)))
    down = BreakerSettings(consecutive_failures=3, cool_down_seconds=600, longest_cool_down_seconds=600)
    with fault_server(Fault.RESET) as server:
        with open_judge(section(server, concurrency=1), breaker=Breaker(down)) as judge:
            protocol = EvaluationProtocol("grounded", "qwen2_5_vl", judge, PAPER)
            records = evaluate(
                vlm, examples, protocol=protocol, settings=GREEDY, run=run, questions_per_batch=10
            )
        assert all(isinstance(r.verdict, Unjudged) and r.score.total is None for r in records)
        assert len(server.requests) == 3
        server.plan = lambda request: Fault.NONE
        with open_judge(section(server), breaker=patient()) as judge:
            protocol = EvaluationProtocol("grounded", "qwen2_5_vl", judge, PAPER)
            records = evaluate(vlm, examples, protocol=protocol, settings=GREEDY, run=run, quiet=True)
    assert [r.verdict.score for r in records if isinstance(r.verdict, Verdict)] == [0, 1] + [0] * 38
    assert len(vlm.asked) == 40


def test_agreement_with_the_rule_leaves_out_what_no_judge_saw(tmp_path: Path) -> None:
    # The judge takes "one" for wrong, which the rule takes for 1; they agree on "1" and on "7".
    with (
        fault_server(
            lambda r: Fault.PROSE if "answer: 8" in r.text else Fault.NONE, answer=exact_score
        ) as server,
        open_judge(section(server), breaker=patient()) as judge,
    ):
        protocol = EvaluationProtocol("grounded", "qwen2_5_vl", judge, PAPER)
        vlm = VisionLanguageModel("1", "one", "7", "", "8")
        records = evaluate(
            vlm, [example(i) for i in range(5)], protocol=protocol, settings=GREEDY, quiet=True
        )
    found = agreement_with_rule(records)
    assert (found.n, found.both_right, found.both_wrong, found.only_first, found.only_second) == (
        3,
        1,
        1,
        1,
        0,
    )
    assert (found.unjudged_first, found.unjudged_second) == (0, 1)


def test_the_command_says_what_judging_may_cost_did_cost_and_how_far_the_rule_agrees(tmp_path: Path) -> None:
    with fault_server() as server:
        file = tmp_path / "judge.yaml"
        file.write_text(
            f"judge: {{kind: endpoint, url: '{server.url}', model: stub, price_per_million_prompt_tokens: 10, price_per_million_completion_tokens: 20}}\n"
        )
        command = [
            "eval", "--model", "tiny-qwen2.5-vl", "--data", "stickers/count", "--limit", "3",
            "--max-new-tokens", "100", "--quiet",
        ]  # fmt: skip
        done = CliRunner().invoke(app, [*command, "--judge", str(file), "--out", str(tmp_path / "run")])
        assert done.exit_code == 0, (done.stderr, done.exception)
        assert "agreement of rule and judge: 100.0 % of" in done.stdout
        asked = len(server.requests)
        assert 1 <= asked <= 3
        assert "judge: at most about 3 requests" in done.stderr
        # The server counts 90 prompt tokens a request, at 10 a million, and 10 of the reply at 20.
        assert (
            f"judge: {asked} answers asked about, 0 known before, 0 unjudged, cost {asked * (90 * 10 + 10 * 20) / 1e6:.4f}"
            in done.stderr
        )
        short = ["--judge-url", server.url, "--judge-model", "stub", "--out", str(tmp_path / "again")]
        assert CliRunner().invoke(app, [*command, *short]).exit_code == 0
        assert len(server.requests) == 2 * asked
    judge = RunDir.open(tmp_path / "again").recipe
    assert "kind: endpoint" in judge


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"judge": "gpt-4o"}, "--judge is rule, a function of your own"),
        ({"judge": "rule", "url": "http://h/v1", "model": "m"}, "named once"),
        ({"judge": None, "url": "http://h/v1"}, "go together"),
        ({"judge": None, "model": "m"}, "go together"),
        ({"judge": "none.yaml"}, "readable YAML file"),
    ],
)
def test_a_judge_that_is_not_one_is_refused_with_the_way_to_name_one(given: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        judge_of(**given)


def test_a_served_model_and_a_served_judge_go_together(tmp_path: Path) -> None:
    text = "<think>[1, 2, 30, 40]</think><rethink>x</rethink><answer>1</answer>"
    with (
        fault_server(answer=lambda r: text) as model,
        fault_server(answer=lambda r: '{"score": 0.5}') as judge,
    ):
        recipe = EvalRecipe(
            model=Model(name="stub"),
            data=(Source(name="stickers/count"),),
            limit=2,
            endpoint=Served(url=model.url, frame="qwen2_5_vl"),
            judge=judge_of(None, url=judge.url, model="stub"),
        )
        _, records = run_evaluation(recipe, tmp_path / "run", quiet=True)
    assert [r.verdict for r in records] == [Verdict(correct=True, score=0.5, judge="endpoint:stub")] * 2
