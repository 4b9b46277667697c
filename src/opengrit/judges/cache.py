"""Scores a judge gave, on disk: one line each, appended whole, shared by runs and by processes at once."""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from opengrit.core.errors import RunError
from opengrit.core.types import Unjudged, Verdict
from opengrit.judges.model_judge import CostEstimate, ModelJudge
from opengrit.judges.protocol import Case, Judge

log = logging.getLogger(__name__)


def cache_key(fingerprint: Mapping[str, Any], case: Case) -> str:
    """The SHA-256 of everything that a score depends on, hexadecimal."""
    return hashlib.sha256(_canonical({**fingerprint, "case": _written(case)})).hexdigest()


def _written(case: Case) -> dict[str, str]:
    """What is judged: an answer given beside one expected. Of several accepted ones each is a case of its own."""
    return {"question": case.question, "expected": case.expected, "given": case.given}


class JudgeCache:
    """A file of scores. A line is written with one append, and carries its own check sum.

    A line that was cut off by a crash, or that is damaged, is skipped and counted in `num_damaged`; it costs one
    more request and nothing else. Lines are never changed or removed. Where a line cannot be written (a full disk),
    the log says so once and the score is kept in memory.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises RunError where the file cannot be read or made."""
        self._path = Path(path)
        self._scores: dict[str, float] = {}
        self._read_to = 0
        self._lock = threading.Lock()
        self._writable = True
        self.num_damaged = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab"):
                pass
        except OSError as error:
            raise RunError(
                f"the judge's cache is a file that can be written, {self._path} is not ({error.strerror}); "
                "name another with judge.cache"
            ) from error
        self.refresh()

    def __len__(self) -> int:
        return len(self._scores)

    def get(self, key: str) -> float | None:
        """The score stored under a key, in [0, 1]; None where there is none."""
        return self._scores.get(key)

    def put(self, key: str, score: float, *, judge: str, case: Case) -> None:
        """Stores a score. The judge's name and the case are written with it for people who read the file."""
        with self._lock:
            self._scores[key] = score
            content = {"key": key, "score": score, "judge": judge, **_written(case)}
            # The line end in front closes a line that a crash cut off.
            line = b"\n" + json.dumps({**content, "sum": _check_sum(content)}).encode("ascii") + b"\n"
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if self._writable:
                    log.warning(
                        "the judge's cache %s cannot be written (%s); scores stay in memory",
                        self._path,
                        error,
                    )
                self._writable = False

    def refresh(self) -> None:
        """Reads what other processes have written since; nothing where the file is gone."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read_to)
                    added = file.read()
            except OSError:
                return
            whole = added[: added.rfind(b"\n") + 1]  # a last line without its end may still be incomplete
            self._read_to += len(whole)
            for line in whole.splitlines():
                if line.strip():
                    self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.pop("sum", None) != _check_sum(content):
            self.num_damaged += 1
            return
        if not isinstance(content.get("key"), str) or not _is_score(content.get("score")):
            self.num_damaged += 1
            return
        self._scores[content["key"]] = float(content["score"])


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # also false of NaN


def _check_sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Counts:
    """Where opinions came from. `unjudged` counts the judge's, whether or not the fallback stepped in."""

    known: int = 0  # from the cache, or asked in the same batch already
    asked: int = 0
    unjudged: int = 0
    fell_back: int = 0


class CachedJudge:
    """A language model as the judge, asked only what it has not judged before.

    What it could not judge is not stored, so that the next run asks again. A `fallback`, where there is one, judges
    in its place; its verdicts carry its own name.
    """

    def __init__(
        self, judge: ModelJudge, *, cache: JudgeCache | None = None, fallback: Judge | None = None
    ) -> None:
        self._judge, self._cache, self._fallback = judge, cache, fallback
        self._lock = threading.Lock()
        self.counts = Counts()

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        """The verdict on one answer, or why there is none."""
        return self.judge_many([Case(question, expected=expected, given=given)])[0]

    def judge_many(
        self, cases: Sequence[Case], *, deadline_seconds: float | None = None
    ) -> list[Verdict | Unjudged]:
        """One opinion a case, in order. Equal cases are asked once."""
        known = self._known(cases)
        missing = [case for case in dict.fromkeys(cases) if case not in known]
        opinions = self._judge.judge_many(missing, deadline_seconds=deadline_seconds) if missing else []
        fresh = dict(zip(missing, opinions, strict=True))
        for case, opinion in fresh.items():
            if self._cache is not None and isinstance(opinion, Verdict):
                self._cache.put(self._key(case), opinion.score, judge=opinion.judge, case=case)
        everything = known | fresh
        unjudged = sum(isinstance(everything[case], Unjudged) for case in cases)
        judged = [self._fall_back(case, everything[case]) for case in cases]
        stepped_in = unjudged - sum(isinstance(opinion, Unjudged) for opinion in judged)
        more = Counts(len(cases) - len(missing), len(missing), unjudged, fell_back=stepped_in)
        with self._lock:
            self.counts = Counts(*map(operator.add, astuple(self.counts), astuple(more)))
        return judged

    @property
    def cost(self) -> float | None:
        """What was spent so far, in the currency of the prices; None where they are not known."""
        return self._judge.cost

    def close(self) -> None:
        """Closes the judge; the cache has nothing open."""
        self._judge.close()

    def estimate(self, cases: Sequence[Case]) -> CostEstimate:
        """What judging these cases is going to ask for, what is stored left out."""
        each = [one for case in cases for one in case.singly]
        known = self._known(each)
        return self._judge.estimate([case for case in dict.fromkeys(each) if case not in known])

    def _known(self, cases: Sequence[Case]) -> dict[Case, Verdict | Unjudged]:
        if self._cache is None:
            return {}
        self._cache.refresh()
        scores = {case: self._cache.get(self._key(case)) for case in dict.fromkeys(cases)}
        return {case: self._judge.verdict(score) for case, score in scores.items() if score is not None}

    def _key(self, case: Case) -> str:
        return cache_key(self._judge.fingerprint, case)

    def _fall_back(self, case: Case, opinion: Verdict | Unjudged) -> Verdict | Unjudged:
        if self._fallback is None or isinstance(opinion, Verdict):
            return opinion
        return self._fallback.judge(case.question, expected=case.expected, given=case.given)
