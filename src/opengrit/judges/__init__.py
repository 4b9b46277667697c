"""When an answer is right: judges by rule, behind an endpoint or on this machine, their cache and their limits.

May import `clients` and the floors below it. Begin with `protocol.py`; the rule is `answers.py`. A kind of judge is a file
and its entry in `settings.py`.
"""

from opengrit.judges.answers import same_answer
from opengrit.judges.protocol import (
    BatchJudge,
    Case,
    Judge,
    judge_cases,
    judge_transcript,
    judge_transcripts,
    verdict_or_case,
)
from opengrit.judges.rule import RuleJudge

__all__ = [
    "BatchJudge",
    "Case",
    "Judge",
    "RuleJudge",
    "judge_cases",
    "judge_transcript",
    "judge_transcripts",
    "same_answer",
    "verdict_or_case",
]
