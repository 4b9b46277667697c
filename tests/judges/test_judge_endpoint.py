from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_server import TWELVE_AND_ONE, Fault, Request, fault_server

from opengrit.clients import Endpoint, EndpointSettings
from opengrit.core.boxes import Size
from opengrit.core.types import Example, Unjudged, Verdict
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.grounding.prompts import judge_prompt
from opengrit.judges import Case, RuleJudge, judge_transcripts
from opengrit.judges.agreement import agreement
from opengrit.judges.breaker import Breaker, BreakerSettings, State
from opengrit.judges.cache import CachedJudge, Counts, JudgeCache
from opengrit.judges.endpoint import EndpointJudge
from opengrit.judges.model_judge import Threshold

# Ten rows, the even ones right.
CASES = [
    Case(f"How many dogs are in picture {i}?", expected=str(i), given=str(i if i % 2 == 0 else i + 1))
    for i in range(10)
]
TRUTH = [i % 2 == 0 for i in range(10)]


@contextmanager
def judging(url: str, *, cache: JudgeCache | None = None, **settings: Any) -> Iterator[CachedJudge]:
    """A judge whose waits between tries take no time."""

    async def at_once(seconds: float) -> None:
        clock["now"] += seconds
        await asyncio.sleep(0)

    clock = {"now": 0.0}

    def connect(made: EndpointSettings) -> Endpoint:
        return Endpoint(made, clock=lambda: clock["now"], sleep=at_once, environ={})

    made = EndpointSettings(url, "stub", **{"timeout_seconds": 60.0, "max_tries": 2, **settings})
    judge = CachedJudge(EndpointJudge(made, connect=connect), cache=cache)
    try:
        yield judge
    finally:
        judge.close()


def right(opinions: list[Verdict | Unjudged]) -> list[bool | None]:
    return [opinion.correct if isinstance(opinion, Verdict) else None for opinion in opinions]


def asked_of(request: Request) -> str:
    """The question in a judge's prompt."""
    return next(line for line in request.text.splitlines() if line.startswith("Question: "))[10:]


def test_a_verdict_is_the_models_score_made_binary_and_names_its_judge() -> None:
    with fault_server() as server, judging(server.url) as judge:
        assert judge.judge("How many?", expected="2", given="2") == Verdict(True, 1.0, "endpoint:stub")
        assert judge.judge("How many?", expected="2", given="3") == Verdict(False, 0.0, "endpoint:stub")
    body = server.requests[0].body
    prompt = judge_prompt("How many?", expected="2", given="2")
    assert body["messages"] == [{"role": "user", "content": prompt}]
    assert (body["temperature"], body["max_tokens"]) == (0.0, 256)


def test_a_partly_right_answer_is_not_worth_a_right_one() -> None:
    # The released code takes any score above 0 for right.
    with fault_server(answer=lambda request: '{"score": 0.1}') as server, judging(server.url) as judge:
        assert judge.judge("q", expected="a", given="b") == Verdict(False, 0.1, "endpoint:stub")
    assert Threshold(0.5).verdict(0.5, judge="j").correct
    assert not Threshold(0.5).verdict(0.49, judge="j").correct


@pytest.mark.parametrize("fault", [*TWELVE_AND_ONE, Fault.PROSE, Fault.REFUSAL, Fault.NULL_TEXT])
def test_a_judge_that_fails_in_any_way_scores_no_row_wrong_and_the_next_run_judges_them_all(
    fault: Fault, tmp_path: Path
) -> None:
    patience = 0.2 if fault in (Fault.SILENT, Fault.DRIP) else 60.0
    broken = lambda request: fault  # noqa: E731
    with fault_server(broken) as server:
        with judging(server.url, cache=JudgeCache(tmp_path / "c"), timeout_seconds=patience) as judge:
            first = judge.judge_many(CASES)
        assert all(isinstance(opinion, Unjudged) for opinion in first)
        assert judge.counts == Counts(asked=10, unjudged=10)
        per_row = Counter(asked_of(request) for request in server.requests)
        answered = fault in (Fault.SCORE_10, Fault.SCORE_MINUS_1, Fault.PROSE, Fault.REFUSAL, Fault.NULL_TEXT)
        if (
            fault is not Fault.SILENT and fault is not Fault.DRIP
        ):  # a time-out may come before the server has looked
            assert per_row == {case.question: 1 if answered else 2 for case in CASES}

        server.plan = lambda request: Fault.NONE
        server.requests.clear()
        with judging(server.url, cache=JudgeCache(tmp_path / "c")) as judge:
            assert right(judge.judge_many(CASES)) == TRUTH
        assert Counter(asked_of(request) for request in server.requests) == {c.question: 1 for c in CASES}
        with judging(server.url, cache=JudgeCache(tmp_path / "c")) as judge:
            assert right(judge.judge_many(CASES)) == TRUTH
            assert judge.counts == Counts(known=10)
        assert len(server.requests) == 10


def test_a_judge_that_fails_in_all_ways_at_random_scores_no_row_wrong(tmp_path: Path) -> None:
    draw = random.Random(7)
    ways = [*TWELVE_AND_ONE, *[Fault.NONE] * 8]
    rows = [
        Case(f"How many cats are in picture {i}?", expected=str(i), given=str(i + i % 3)) for i in range(60)
    ]
    truth = [i % 3 == 0 for i in range(60)]
    number_of: Counter[str] = Counter()

    # The way depends on the row and on how often it was asked, and not on the order of arrival.
    plans = {row.question: [draw.choice(ways) for _ in range(50)] for row in rows}

    def plan(request: Request) -> Fault:
        question = asked_of(request)
        number_of[question] += 1
        return plans[question][number_of[question] - 1]

    judged_before: set[int] = set()
    with fault_server(plan) as server:
        for _ in range(3):
            with judging(
                server.url, cache=JudgeCache(tmp_path / "c"), timeout_seconds=0.5, concurrency=16
            ) as judge:
                opinions = right(judge.judge_many(rows))
            assert all(said is None or said == fact for said, fact in zip(opinions, truth, strict=True))
            judged = {i for i, said in enumerate(opinions) if said is not None}
            assert judged >= judged_before
            judged_before = judged
        assert len(judged_before) > 0
        server.plan = lambda request: Fault.NONE
        server.requests.clear()
        with judging(server.url, cache=JudgeCache(tmp_path / "c")) as judge:
            assert right(judge.judge_many(rows)) == truth
        missing = {rows[i].question for i in range(60)} - {rows[i].question for i in judged_before}
        assert Counter(asked_of(request) for request in server.requests) == dict.fromkeys(missing, 1)


def test_equal_answers_of_one_batch_are_asked_once() -> None:
    twice = [CASES[0], CASES[1], CASES[0], CASES[0]]
    with fault_server() as server, judging(server.url) as judge:
        assert right(judge.judge_many(twice)) == [True, False, True, True]
        assert judge.counts == Counts(known=2, asked=2)
    assert len(server.requests) == 2


def test_a_fallback_steps_in_under_its_own_name_and_is_not_stored(tmp_path: Path) -> None:
    cache = JudgeCache(tmp_path / "c")
    with fault_server(Fault.PROSE) as server:
        asked = EndpointJudge(EndpointSettings(server.url, "stub"))
        judge = CachedJudge(asked, cache=cache, fallback=RuleJudge())
        opinions = judge.judge_many(CASES)
        judge.close()
    assert right(opinions) == TRUTH
    assert {opinion.judge for opinion in opinions if isinstance(opinion, Verdict)} == {"rule"}
    assert judge.counts == Counts(asked=10, unjudged=10, fell_back=10)
    assert len(cache) == 0


def test_what_is_judged_by_the_deadline_is_kept_and_the_rest_is_unjudged() -> None:
    slow = CASES[3].question
    plan = lambda request: Fault.DRIP if asked_of(request) == slow else Fault.NONE  # noqa: E731
    with fault_server(plan) as server, judging(server.url, concurrency=1) as judge:
        opinions = judge.judge_many([CASES[0], CASES[3], CASES[1]], deadline_seconds=1.5)
    assert opinions[1:] == [Unjudged("not judged within the deadline of 1.5 s")] * 2
    if len(server.requests) == 2:  # one at a time: the first is answered when the second is asked
        assert opinions[0] == Verdict(True, 1.0, "endpoint:stub")


def test_the_estimate_leaves_out_what_is_stored_and_the_cost_counts_what_was_asked(tmp_path: Path) -> None:
    prices = {"price_per_million_prompt_tokens": 10.0, "price_per_million_completion_tokens": 40.0}
    with (
        fault_server() as server,
        judging(server.url, cache=JudgeCache(tmp_path / "c"), **prices) as judge,
    ):
        before = judge.estimate(CASES)
        assert before.requests == 10
        assert before.completion_tokens == 120
        assert before.cost == (before.prompt_tokens * 10 + 120 * 40) / 1e6
        judge.judge_many(CASES[:4])
        assert judge.estimate(CASES).requests == 6
        # the stub counts 90 and 10 tokens for each of four replies
        assert judge.cost == pytest.approx((360 * 10 + 40 * 40) / 1e6)
    assert len(server.requests) == 4


def test_rows_that_need_no_judge_are_not_shown_to_it() -> None:
    frame = Frame.for_model_type("internvl", seen_size=Size(100, 100))
    row = lambda answer: Example("e", "How many?", answer, "e.png", "d", Size(100, 100))  # noqa: E731
    rows = [
        (row("2"), parse("<answer>2</answer>", frame)),
        (row("[1, 2, 3, 4]"), parse("<answer>[1, 2, 3, 4]</answer>", frame)),
        (row("2"), parse("<think>two</think>", frame)),
        (row("2"), parse("<answer>5</answer>", frame)),
    ]
    with fault_server() as server, judging(server.url) as judge:
        opinions = judge_transcripts(judge, rows)
    assert right(opinions) == [True, None, False, False]
    assert len(server.requests) == 2


def test_a_judge_that_is_down_is_left_alone_in_the_middle_of_a_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    many = [Case(f"q {i}", expected="a", given="a") for i in range(100)]
    breaker = Breaker(BreakerSettings(consecutive_failures=5), clock=lambda: 0.0)
    with fault_server(Fault.WRONG_KEY) as server:
        judge = EndpointJudge(EndpointSettings(server.url, "stub", concurrency=2), breaker=breaker)
        opinions = judge.judge_many(many)
        judge.close()
    assert all(isinstance(opinion, Unjudged) for opinion in opinions)
    # five failures open it, and one more request may be under way at that moment
    assert 5 <= len(server.requests) <= 6
    assert opinions[-1] == Unjudged("the judge is down: HTTP 401: the server refuses the key, or has none")
    assert [record.levelname for record in caplog.records if "is down" in record.message] == ["WARNING"]


@pytest.mark.parametrize("fault", [Fault.BAD_REQUEST, Fault.REFUSAL, Fault.NULL_TEXT])
def test_a_judge_that_declines_some_answers_is_not_down(fault: Fault) -> None:
    declined = {case.question for case in CASES[2:7]}
    breaker = Breaker(BreakerSettings(consecutive_failures=2), clock=lambda: 0.0)
    plan = lambda request: fault if asked_of(request) in declined else Fault.NONE  # noqa: E731
    with fault_server(plan) as server:
        judge = EndpointJudge(EndpointSettings(server.url, "stub", concurrency=1), breaker=breaker)
        opinions = judge.judge_many(CASES)
        judge.close()
    assert right(opinions) == [*TRUTH[:2], *[None] * 5, *TRUTH[7:]]
    assert len(server.requests) == len(CASES)
    assert breaker.state is State.CLOSED


def test_a_judge_that_comes_back_within_the_deadline_judges_every_row() -> None:
    now = {"seconds": 0.0}
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now["seconds"] += seconds
        if len(slept) == 2:
            server.plan = lambda request: Fault.NONE
        await asyncio.sleep(0)

    breaker = Breaker(
        BreakerSettings(consecutive_failures=1, cool_down_seconds=10.0), clock=lambda: now["seconds"]
    )
    with fault_server(Fault.WRONG_KEY) as server:
        judge = EndpointJudge(
            EndpointSettings(server.url, "stub", concurrency=1),
            breaker=breaker,
            clock=lambda: now["seconds"],
            sleep=sleep,
        )
        opinions = judge.judge_many(CASES, deadline_seconds=600.0)
        judge.close()
    # The first row failed and is not asked again; the probes were made with the second, which is.
    assert right(opinions) == [None, *TRUTH[1:]]
    assert slept == [10.0, 20.0]  # ten seconds, and twice that after a probe that failed
    assert len(server.requests) == 1 + 1 + 9


def test_agreement_is_worked_out_by_hand() -> None:
    yes, no, none = Verdict(True, 1.0), Verdict(False, 0.0), Unjudged("outage")
    first = [yes] * 20 + [yes] * 5 + [no] * 10 + [no] * 15 + [none, yes]
    second = [yes] * 20 + [no] * 5 + [yes] * 10 + [no] * 15 + [yes, none]
    found = agreement(first, second)
    assert (found.n, found.both_right, found.only_first, found.only_second, found.both_wrong) == (
        50,
        20,
        5,
        10,
        15,
    )
    assert (found.unjudged_first, found.unjudged_second) == (1, 1)
    # observed 35 / 50 = 0.7; by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5; (0.7 - 0.5) / (1 - 0.5) = 0.4
    assert found.share == 0.7
    assert found.kappa == pytest.approx(0.4)
    assert found.disagreeing == tuple(range(20, 35))


def test_agreement_without_room_for_chance_has_no_kappa() -> None:
    yes, none = Verdict(True, 1.0), Unjudged("outage")
    same = agreement([yes, yes], [yes, yes])
    assert (same.share, same.kappa) == (1.0, None)
    nothing = agreement([yes, none], [none, yes])
    assert (nothing.n, nothing.share, nothing.kappa) == (0, None, None)
    with pytest.raises(ValueError, match="zip"):
        agreement([yes], [])
