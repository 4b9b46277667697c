"""An evaluation keeps every record, resumes where it stopped, and counts a failure as a failure."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import yaml
from endpoint_stub import Said, endpoint_stub

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import DataError, RunError
from opengrit.core.types import Completion, Example, Finish, Unjudged, Verdict
from opengrit.data import load_examples
from opengrit.evaluation.evaluator import evaluate
from opengrit.evaluation.metrics import grounding_iou, right, truncated
from opengrit.evaluation.rollout import EvaluationProtocol, read, record_id
from opengrit.evaluation.run import judging_lines, run_evaluation
from opengrit.judges import RuleJudge
from opengrit.recipes.asking import Eval
from opengrit.recipes.data_section import Source
from opengrit.recipes.evaluation_recipe import EvalRecipe, Served
from opengrit.recipes.model_section import Model
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked, Sampled, SamplingSettings, Unsampled
from opengrit.sampling.replay import ReplaySampler

SIZE = Size(200, 100)
PROTOCOL = EvaluationProtocol("grounded", "qwen2_5_vl", RuleJudge(), Rubric.named("paper"))
GREEDY = SamplingSettings(temperature=0)
GOOD = "<think>[20, 10, 100, 50]</think><rethink>one dog</rethink><answer>1</answer>"


def example(number):
    return Example(
        f"e{number}",
        "How many dogs are there?",
        "1",
        f"{number}.png",
        "count",
        SIZE,
        (Box(0.1, 0.1, 0.5, 0.5),),
    )


class CountingSampler:
    """Answers everything well and remembers what it was asked."""

    def __init__(self, text=GOOD):
        self.asked: list[tuple[str, int]] = []
        self._text = text

    def sample(self, questions, *, samples_per_question, settings):
        self.asked += [(q.id, settings.seed) for q in questions]
        done = Completion(self._text, (1, 2, 3), Finish.STOP)
        return [[Sampled(done, (9,), SIZE)] * samples_per_question for _ in questions]


def test_a_record_holds_what_was_said_read_judged_and_scored():
    (record,) = evaluate(CountingSampler(), [example(0)], protocol=PROTOCOL, settings=GREEDY, quiet=True)
    assert record.id == "e0#0"
    assert record.completion.text == GOOD
    assert record.transcript.answer == "1"
    assert record.transcript.boxes == (Box(0.1, 0.1, 0.5, 0.5),)  # 20/200, 10/100, 100/200, 50/100
    assert record.verdict == Verdict(correct=True, score=1.0, judge=record.verdict.judge)
    # Both tag pairs 1.0, a box 0.5, the count 0.5, the answer 1.0 and its BLEU-1 0.1.
    assert record.score.total == pytest.approx(3.1)
    assert (record.seen_size, record.frame, record.failure, record.step) == (SIZE, "qwen2_5_vl", None, None)


def test_the_frame_counts_in_pixels_of_the_seen_picture_and_not_of_the_file():
    text = GOOD.replace("[20, 10, 100, 50]", "[40, 20, 200, 100]")
    sampled = Sampled(Completion(text), (), seen_size=Size(400, 200))
    assert read(example(0), sampled, protocol=PROTOCOL, sample=0).transcript.boxes == (
        Box(0.1, 0.1, 0.5, 0.5),
    )


def test_a_question_is_put_in_the_words_of_the_strategy():
    asked: list[Asked] = []

    class Listener(CountingSampler):
        def sample(self, questions, **how):
            asked.extend(questions)
            return super().sample(questions, **how)

    evaluate(Listener(), [example(0)], protocol=PROTOCOL, settings=GREEDY, quiet=True)
    assert asked[0].image == "0.png"
    assert "How many dogs are there?" in asked[0].text
    assert "<rethink>" in asked[0].text


def test_what_could_not_be_sampled_is_a_failed_record_without_verdict_or_score():
    record = read(example(0), Unsampled("the picture is torn"), protocol=PROTOCOL, sample=2)
    assert record.id == record_id(example(0), sample=2) == "e0#2"
    assert record.failure == "the picture is torn"
    assert record.verdict == Unjudged("the picture is torn")
    assert record.score.total is None


def test_a_broken_off_evaluation_asks_only_what_is_missing(tmp_path):
    examples = [example(i) for i in range(7)]
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    evaluate(
        CountingSampler(),
        examples[:4],
        protocol=PROTOCOL,
        settings=GREEDY,
        run=run,
        questions_per_batch=2,
        quiet=True,
    )
    sampler = CountingSampler()
    records = evaluate(
        sampler, examples, protocol=PROTOCOL, settings=GREEDY, run=run, questions_per_batch=2, quiet=True
    )
    assert [name for name, _ in sampler.asked] == ["e4", "e5", "e6"]
    assert [r.id for r in records] == [f"e{i}#0" for i in range(7)]
    assert list(run.records()) == records


def test_a_half_written_batch_is_gone_on_with_behind_its_last_record(tmp_path):
    examples = [example(i) for i in range(6)]
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    evaluate(CountingSampler(), examples, protocol=PROTOCOL, settings=GREEDY, run=run, quiet=True)
    lines = (run.path / "records.jsonl").read_bytes().splitlines(keepends=True)
    (run.path / "records.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])  # interrupted in e3
    resumed = CountingSampler()
    evaluate(
        resumed, examples, protocol=PROTOCOL, settings=GREEDY, run=run, questions_per_batch=4, quiet=True
    )
    assert resumed.asked == [("e3", 0), ("e4", 0), ("e5", 0)]
    assert (run.path / "records.jsonl").read_bytes() == b"".join(lines)


class FaultySampler(CountingSampler):
    """Cannot be had for some samples of some questions: pairs of id and sample."""

    def __init__(self, *faults):
        super().__init__()
        self._faults = faults

    def sample(self, questions, **how):
        groups = super().sample(questions, **how)
        return [
            [
                Unsampled("the endpoint is down") if (question.id, i) in self._faults else sampled
                for i, sampled in enumerate(group)
            ]
            for question, group in zip(questions, groups, strict=True)
        ]


def test_what_failed_is_asked_again_when_the_evaluation_is_continued_and_nothing_else(tmp_path):
    examples = [example(i) for i in range(4)]
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    faulty = FaultySampler(("e1", 0), ("e3", 0))
    records = evaluate(faulty, examples, protocol=PROTOCOL, settings=GREEDY, run=run, quiet=True)
    assert [r.failure for r in records] == [None, "the endpoint is down", None, "the endpoint is down"]
    again = FaultySampler(("e3", 0))
    evaluate(again, examples, protocol=PROTOCOL, settings=GREEDY, run=run, quiet=True)
    assert [name for name, _ in again.asked] == ["e1", "e3"]
    fixed = CountingSampler()
    records = evaluate(fixed, examples, protocol=PROTOCOL, settings=GREEDY, run=run, quiet=True)
    assert [name for name, _ in fixed.asked] == ["e3"]
    assert [r.failure for r in records] == [None] * 4
    assert {r.id: r for r in run.records()} == {r.id: r for r in records}


def test_a_sample_that_stands_already_is_kept_where_its_sibling_failed(tmp_path):
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    how = {"protocol": PROTOCOL, "settings": GREEDY, "run": run, "samples_per_question": 2, "quiet": True}
    evaluate(FaultySampler(("e0", 1)), [example(0)], **how)
    other = CountingSampler(GOOD.replace("one dog", "another dog"))
    first, second = evaluate(other, [example(0)], **how)
    assert (first.completion.text, second.completion.text) == (
        GOOD,
        GOOD.replace("one dog", "another dog"),
    )


def test_a_finished_evaluation_asks_nothing_and_writes_nothing(tmp_path):
    run = RunDir.create(tmp_path / "run", recipe="a: 1\n")
    first = evaluate(CountingSampler(), [example(0)], protocol=PROTOCOL, settings=GREEDY, run=run, quiet=True)
    written = (run.path / "records.jsonl").read_bytes()
    sampler = CountingSampler()
    assert evaluate(sampler, [example(0)], protocol=PROTOCOL, settings=GREEDY, run=run, quiet=True) == first
    assert sampler.asked == []
    assert (run.path / "records.jsonl").read_bytes() == written


def test_several_samples_of_an_example_are_kept_apart():
    records = evaluate(
        CountingSampler(),
        [example(0), example(1)],
        protocol=PROTOCOL,
        settings=GREEDY,
        samples_per_question=2,
        quiet=True,
    )
    assert [r.id for r in records] == ["e0#0", "e0#1", "e1#0", "e1#1"]


def test_two_rows_with_one_id_are_refused():
    with pytest.raises(DataError, match="e0"):
        evaluate(CountingSampler(), [example(0), example(0)], protocol=PROTOCOL, settings=GREEDY, quiet=True)


def test_recorded_completions_can_be_read_again():
    sampler = ReplaySampler({"e0": [Completion(GOOD)]}, seen_size=SIZE)
    first, second = evaluate(
        sampler, [example(0), example(1)], protocol=PROTOCOL, settings=GREEDY, quiet=True
    )
    assert first.verdict == Verdict(correct=True, score=1.0, judge=first.verdict.judge)
    assert second.failure is not None


def test_a_plain_reply_to_the_direct_prompt_is_judged_as_the_answer():
    protocol = EvaluationProtocol("direct", "qwen2_5_vl", RuleJudge(), Rubric.named("paper"))
    sampled = Sampled(Completion("One.", finish=Finish.EOS), (), SIZE)
    verdict = read(example(0), sampled, protocol=protocol, sample=0).verdict
    assert isinstance(verdict, Verdict)
    assert verdict.correct
    asked_for_tags = read(example(0), sampled, protocol=PROTOCOL, sample=0).verdict
    assert isinstance(asked_for_tags, Verdict)
    assert not asked_for_tags.correct


def test_a_truncated_completion_is_counted_and_left_out_of_means_and_rewards():
    text = "<think>[1, 2, 30, 40]</think><rethink>one</rethink><answer>1 and"
    record = read(
        example(0), Sampled(Completion(text, (1,), Finish.LENGTH), (), SIZE), protocol=PROTOCOL, sample=0
    )
    assert isinstance(record.verdict, Unjudged)
    assert record.score.total is None
    assert record.score.parts["tag_pairs"] == 1.0
    assert right(record) is None
    assert grounding_iou(record) is None
    assert truncated(record) == 1.0


def test_an_evaluation_through_an_endpoint_asks_again_only_what_failed(tmp_path):
    first, second, third = load_examples("stickers/count")[:3]
    assert len({e.question for e in (first, second, third)}) == 3
    fixed = False

    def answer(request):
        if second.question in request.text and not fixed:
            return Said("no room", status=400)  # a further try would fail too
        return Said(GOOD)

    with endpoint_stub(answer) as stub:
        recipe = EvalRecipe(
            model=Model(name="toy", max_pixels=28224),
            data=(Source(name="stickers/count"),),
            limit=3,
            endpoint=Served(url=stub.url, frame="qwen2_5_vl"),
        )
        run, before = run_evaluation(recipe, tmp_path / "run", quiet=True)
        assert len(stub.requests) == 3
        fixed = True
        _, after = run_evaluation(recipe, tmp_path / "run", quiet=True)
        assert len(stub.requests) == 4
    assert [r.failure and "no room" in r.failure for r in before] == [None, True, None]
    assert [r.failure for r in after] == [None, None, None]
    assert {r.id: r for r in run.records()} == {r.id: r for r in after}
    assert [r.seen_size for r in after] == [e.picture_size for e in (first, second, third)]
    assert stub.requests[0].body["model"] == "toy"
    assert f"url: {stub.url}" in run.recipe
    assert "endpoint" not in recipe.model_copy(update={"endpoint": None}).resolved_yaml()


def test_a_batch_is_asked_of_an_endpoint_at_once(tmp_path):
    together = threading.Barrier(12)

    def answer(request):
        together.wait(30)  # breaks, and fails the request, where fewer are asked at a time
        return Said(GOOD)

    with endpoint_stub(answer) as stub:
        recipe = EvalRecipe(
            model=Model(name="toy"),
            data=(Source(name="stickers/count"),),
            limit=12,
            endpoint=Served(url=stub.url, frame="qwen2_5_vl"),
            eval=Eval(batch_size=12),
        )
        _, records = run_evaluation(recipe, tmp_path / "run", quiet=True)
    assert [record.failure for record in records] == [None] * 12
    assert len(stub.requests) == 12


def test_an_evaluation_that_an_earlier_version_began_resumes_though_keys_came_since(tmp_path):
    with endpoint_stub(lambda request: Said(GOOD)) as stub:
        recipe = EvalRecipe(
            model=Model(name="toy"),
            data=(Source(name="stickers/count"),),
            limit=2,
            endpoint=Served(url=stub.url, frame="qwen2_5_vl"),
        )
        run, _ = run_evaluation(recipe, tmp_path / "run", quiet=True)
        kept = yaml.safe_load(run.recipe)
        for source in kept["evaluate"]["data"]:
            del source["hub"], source["columns"], source["box_units"]
        (run.path / "recipe.yaml").write_text(yaml.safe_dump(kept))
        run_evaluation(recipe, run.path, quiet=True)
        assert len(stub.requests) == 2
        assert run.recipes == [yaml.safe_dump(kept)]
        other = recipe.model_copy(update={"seed": 1})
        with pytest.raises(RunError, match="seed: 0 then, 1 now"):
            run_evaluation(other, run.path, quiet=True)


def test_what_was_not_judged_is_told_with_its_most_frequent_reason():
    (record,) = evaluate(CountingSampler(), [example(0)], protocol=PROTOCOL, settings=GREEDY, quiet=True)
    reasons = ("timed out", "the judge is\x1b[2J down", "the judge is\x1b[2J down")
    records = [record] + [replace(record, verdict=Unjudged(reason)) for reason in reasons]
    judge = {"kind": "endpoint", "url": "http://127.0.0.1:1/v1", "model": "m"}
    recipe = EvalRecipe.model_validate({"model": {"name": "m"}, "data": [{"name": "d"}], "judge": judge})
    assert judging_lines(recipe, records)[1:] == [
        "unjudged: 3 answers; the same command judges them again without asking the model; most frequent reason: the judge is\ufffd[2J down"
    ]
    assert len(judging_lines(recipe, [record])) == 1
