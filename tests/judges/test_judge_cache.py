from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrit.clients import EndpointSettings
from opengrit.core.errors import RunError
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges import Case
from opengrit.judges.cache import CachedJudge, JudgeCache, cache_key
from opengrit.judges.endpoint import EndpointJudge
from opengrit.judges.model_judge import CostEstimate, ReplySettings, Threshold

CASE = Case("How many?", expected="2", given="two")


@dataclass
class CountingJudge:
    """Gives the same score to all and counts what it is asked; a score of None is an outage."""

    score: float | None = 1.0
    fingerprint: dict[str, Any] = field(default_factory=lambda: {"kind": "test", "model": "m"})
    correct_from: float = 0.5
    cost: float | None = None
    asked: list[Case] = field(default_factory=list)

    def verdict(self, score: float) -> Verdict:
        return Threshold(self.correct_from).verdict(score, judge="test")

    def estimate(self, cases: Sequence[Case]) -> CostEstimate:
        return CostEstimate(len(cases), 0, 0, None)

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        self.asked += cases
        return [Unjudged("outage") if self.score is None else self.verdict(self.score) for _ in cases]

    def close(self) -> None:
        pass


def lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if line]


def test_a_verdict_is_shared_with_the_next_run_and_an_outage_is_not(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "judge.jsonl"
    down, up, later = CountingJudge(None), CountingJudge(0.8), CountingJudge(0.1)
    assert CachedJudge(down, cache=JudgeCache(path)).judge_many([CASE]) == [Unjudged("outage")]
    assert CachedJudge(up, cache=JudgeCache(path)).judge_many([CASE]) == [Verdict(True, 0.8, "test")]
    assert CachedJudge(later, cache=JudgeCache(path)).judge_many([CASE]) == [Verdict(True, 0.8, "test")]
    assert [len(judge.asked) for judge in (down, up, later)] == [1, 1, 0]


def test_two_judges_of_one_file_see_what_the_other_wrote(tmp_path: Path) -> None:
    one, other = CountingJudge(), CountingJudge()
    first = CachedJudge(one, cache=JudgeCache(tmp_path / "c"))
    second = CachedJudge(other, cache=JudgeCache(tmp_path / "c"))
    first.judge_many([CASE])
    second.judge_many([CASE])
    assert (len(one.asked), len(other.asked)) == (1, 0)


def test_the_score_is_stored_and_the_bar_is_applied_when_it_is_read(tmp_path: Path) -> None:
    CachedJudge(CountingJudge(0.6), cache=JudgeCache(tmp_path / "c")).judge_many([CASE])
    strict = CountingJudge(correct_from=0.9)
    assert CachedJudge(strict, cache=JudgeCache(tmp_path / "c")).judge_many([CASE]) == [
        Verdict(False, 0.6, "test")
    ]


def test_everything_that_matters_makes_another_key_and_nothing_else_does() -> None:
    def fingerprint(url: str = "http://a/v1", model: str = "m", **reply_settings: Any) -> dict[str, Any]:
        settings = EndpointSettings(url, model, timeout_seconds=reply_settings.pop("timeout_seconds", 60.0))
        judge = EndpointJudge(settings, reply_settings=ReplySettings(**reply_settings))
        try:
            return judge.fingerprint
        finally:
            judge.close()

    base = cache_key(fingerprint(), CASE)
    assert cache_key(fingerprint(timeout_seconds=1.0), CASE) == base
    assert cache_key(fingerprint(url="http://a/another/path"), CASE) == base
    keys = {
        base,
        cache_key(fingerprint(model="n"), CASE),
        cache_key(fingerprint(url="http://b/v1"), CASE),
        cache_key(fingerprint(url="http://a:81/v1"), CASE),
        cache_key(fingerprint(temperature=0.5), CASE),
        cache_key(fingerprint(temperature=None), CASE),
        cache_key(fingerprint(max_tokens=16), CASE),
        cache_key({**fingerprint(), "prompt": "another wording"}, CASE),
        cache_key({**fingerprint(), "kind": "local"}, CASE),
        cache_key(fingerprint(), replace(CASE, question="How many")),
        cache_key(fingerprint(), replace(CASE, expected="3")),
        cache_key(fingerprint(), replace(CASE, given="Two")),
        cache_key(fingerprint(), Case("How many?", expected="two", given="2")),
    }
    assert len(keys) == 13


def test_a_line_that_a_crash_cut_off_is_skipped_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "c"
    cache = JudgeCache(path)
    cache.put("a", 1.0, judge="j", case=CASE)
    cache.put("b", 0.5, judge="j", case=CASE)
    path.write_bytes(path.read_bytes()[:-20])
    after = JudgeCache(path)
    assert (after.get("a"), after.get("b")) == (1.0, None)
    after.put("c", 0.25, judge="j", case=CASE)
    again = JudgeCache(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (1.0, None, 0.25)
    assert again.num_damaged == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"not JSON",
        b"[1]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"key": "x", "score": 1.0, "sum": "0000000000000000"}',
        b'{"key": "x", "score": 1.0}',
    ],
)
def test_a_damaged_line_is_counted_and_left_where_it_is(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(damage + b"\n")
    cache = JudgeCache(path)
    cache.put("a", 1.0, judge="j", case=CASE)
    again = JudgeCache(path)
    assert (cache.num_damaged, again.num_damaged, len(again)) == (1, 1, 1)
    assert path.read_bytes().startswith(damage)


def test_a_score_that_was_changed_in_the_file_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    JudgeCache(path).put("a", 0.0, judge="j", case=CASE)
    path.write_bytes(path.read_bytes().replace(b'"score": 0.0', b'"score": 1.0'))
    assert JudgeCache(path).get("a") is None


@given(st.text(), st.text(), st.text())
def test_any_text_is_stored_as_ascii_and_found_again(question: str, expected: str, given_: str) -> None:
    case = Case(question, expected=expected, given=given_)
    key = cache_key({"kind": "test"}, case)
    assert len(key) == 64
    assert key == cache_key({"kind": "test"}, Case(question, expected=expected, given=given_))


def test_strange_text_makes_one_line(tmp_path: Path) -> None:
    case = Case("a\nb\r\u2028\x85\ud800", expected='"', given="\x00")
    cache = JudgeCache(tmp_path / "c")
    cache.put(cache_key({}, case), 1.0, judge="j", case=case)
    assert len(lines(tmp_path / "c")) == 1
    assert JudgeCache(tmp_path / "c").get(cache_key({}, case)) == 1.0
    assert json.loads(lines(tmp_path / "c")[0])["question"] == case.question


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c"
    script = (
        "import sys\n"
        "from opengrit.judges import Case\n"
        "from opengrit.judges.cache import JudgeCache\n"
        "cache = JudgeCache(sys.argv[1])\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in range(300):\n"
        "    cache.put(f'{sys.argv[2]}-{i}', i / 300, judge='j', case=Case('q' * i, expected='e', given='g'))\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b", "c")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    cache = JudgeCache(path)
    assert cache.num_damaged == 0
    assert {f"{name}-{i}": i / 300 for name in "abc" for i in range(300)} == {
        f"{name}-{i}": cache.get(f"{name}-{i}") for name in "abc" for i in range(300)
    }


def test_a_place_where_no_file_can_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"judge\.cache"):
        JudgeCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"judge\.cache"):
        JudgeCache(tmp_path / "file" / "below")


def test_a_cache_that_can_no_longer_be_written_keeps_scores_in_memory_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    cache = JudgeCache(folder / "c")
    (folder / "c").unlink()
    folder.rmdir()
    judge = CountingJudge()
    cached = CachedJudge(judge, cache=cache)
    cached.judge_many([CASE, replace(CASE, given="2")])
    assert cached.judge_many([CASE]) == [Verdict(True, 1.0, "test")]
    assert len(judge.asked) == 2
    assert len(caplog.records) == 1


def test_the_key_of_an_endpoint_is_not_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    judge = EndpointJudge(EndpointSettings("http://a/v1", "m"))
    assert "sk-very-secret" not in repr(judge.fingerprint)
    assert "sk-very-secret" not in repr(judge)
    judge.close()
