"""What a judge is asked: a question, the expected answer and the given one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Case:
    """One answer to be judged. The question stands alone, without the instruction that the model was given."""

    question: str
    expected: str = field(kw_only=True)
    given: str = field(kw_only=True)
