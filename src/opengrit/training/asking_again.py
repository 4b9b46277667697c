"""Second answers: each rollout's question asked once more with its boxes in grey, and with all but its boxes in grey.

They are asked in one batch, by the weights that sampled the rollouts, while a judge looks at the first answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opengrit.core.boxes import ROUNDING, union_area
from opengrit.core.types import Finish, Record, Unjudged, Verdict
from opengrit.evaluation.probes import Probe, shown, why_unprobed
from opengrit.evaluation.rollout import EvaluationProtocol, ask, transcribed
from opengrit.judges.pool import JudgePool, PendingVerdicts
from opengrit.judges.protocol import Case, verdict_or_case
from opengrit.recipes.asking import AskingAgain
from opengrit.rewards.protocol import SecondAnswer, SecondAnswers
from opengrit.sampling import Asked, Sampled, Sampler, SamplingSettings, Unsampled

_PROBES = (Probe.KEEP, Probe.OCCLUDE)
_NOTHING = SecondAnswers(None, None)
_Key = tuple[str, frozenset[object], Probe]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the second questions of a step cost on this process: seconds of asking, tokens written, questions asked."""

    seconds: float
    tokens: int
    questions: int


class SecondLook:
    """Asks the second questions of a batch, and has their answers judged on a thread. One batch at a time.

    Rollouts of a group with the same boxes share their second answers, which are greedy.
    """

    def __init__(self, section: AskingAgain, protocol: EvaluationProtocol) -> None:
        self._section = section
        self._protocol = replace(protocol, strategy=section.strategy)
        self._answers: dict[_Key, SecondAnswer | Case] = {}
        self._pending: PendingVerdicts | None = None

    def start(
        self,
        records: Sequence[Record],
        sampler: Sampler,
        pool: JudgePool,
        *,
        stop: tuple[str, ...],
        deadline_seconds: float,
    ) -> Cost:
        """Ask, and start to judge."""
        began = time.monotonic()
        of_key = {
            _key(record, probe): record for record in records if self._asks(record) for probe in _PROBES
        }
        replies = self._replies(of_key, sampler, stop=stop)
        self._answers = {key: self._read(of_key[key], replies[key]) for key in of_key}
        cases = [answer for answer in self._answers.values() if isinstance(answer, Case)]
        self._pending = pool.start(cases, deadline_seconds=deadline_seconds) if cases else None
        tokens = sum(len(r.completion.token_ids) for r in replies.values() if isinstance(r, Sampled))
        return Cost(time.monotonic() - began, tokens, len(of_key))

    def finish(self, records: Sequence[Record]) -> list[SecondAnswers]:
        """The second answers of each record, judged."""
        opinions = iter(self._pending.result() if self._pending is not None else ())
        judged = {
            key: next(opinions) if isinstance(answer, Case) else answer
            for key, answer in self._answers.items()
        }
        self._answers, self._pending = {}, None
        return [
            SecondAnswers(judged[_key(r, Probe.KEEP)], judged[_key(r, Probe.OCCLUDE)])
            if self._asks(r)
            else _NOTHING
            for r in records
        ]

    def _asks(self, record: Record) -> bool:
        """Whether a record's question is asked again: it can be probed, and its boxes leave enough of the picture."""
        allowed = self._section.max_covered + ROUNDING
        return why_unprobed(record) is None and union_area(record.transcript.boxes) <= allowed

    def _replies(
        self, of_key: dict[_Key, Record], sampler: Sampler, *, stop: tuple[str, ...]
    ) -> dict[_Key, Sampled | Unsampled]:
        settings = SamplingSettings(
            temperature=0.0, max_new_tokens=self._section.max_completion_length, stop=stop
        )
        replies: dict[_Key, Sampled | Unsampled] = {}
        questions: dict[_Key, Asked] = {}
        for key, record in of_key.items():
            picture = shown(record, key[-1])
            if isinstance(picture, Unsampled):
                replies[key] = picture
            else:
                questions[key] = replace(ask(record.example, protocol=self._protocol), image=picture)
        if questions:
            groups = sampler.sample(list(questions.values()), samples_per_question=1, settings=settings)
            replies |= {key: group[0] for key, group in zip(questions, groups, strict=True)}
        return replies

    def _read(self, record: Record, reply: Sampled | Unsampled) -> SecondAnswer | Case:
        if isinstance(reply, Unsampled):
            return Unjudged(f"the second question could not be asked: {reply.reason}")
        if reply.completion.finish is Finish.LENGTH:
            return None
        second = transcribed(record.example, reply, protocol=self._protocol, sample=record.sample)
        known: Verdict | Unjudged | Case = verdict_or_case(record.example, second.transcript)
        return known


def _key(record: Record, probe: Probe) -> _Key:
    return record.example.id, frozenset(record.transcript.boxes), probe
