from __future__ import annotations

from dataclasses import dataclass, field

from opengrit.core.boxes import Size
from opengrit.core.types import Example, Unjudged, Verdict
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.judges import Judge, RuleJudge, judge_transcript

FRAME = Frame.for_model_type("internvl", seen_size=Size(100, 100))


def example(question: str = "How many dogs are there?", answer: str = "2") -> Example:
    return Example("e", question, answer, "e.png", "stickers/count", Size(100, 100))


@dataclass
class RecordingJudge:
    """Keeps what it is asked and gives the same opinion to all."""

    opinion: Verdict | Unjudged
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def judge(self, question: str, *, expected: str, given: str) -> Verdict | Unjudged:
        self.asked.append((question, expected, given))
        return self.opinion


def test_the_rule_judge_tells_right_from_wrong() -> None:
    judge: Judge = RuleJudge()
    question = "How many dogs are there?"
    assert judge.judge(question, expected="2", given="two") == Verdict(True, 1.0, "rule")
    assert judge.judge(question, expected="2", given="3") == Verdict(False, 0.0, "rule")


def test_the_rule_judge_reads_the_choices_in_the_question() -> None:
    verdict = RuleJudge().judge("Which?\n(A) cat\n(B) dog", expected="dog", given="B")
    assert verdict == Verdict(True, 1.0, "rule")


def test_a_box_is_unjudged_and_not_wrong() -> None:
    assert isinstance(RuleJudge().judge("Where?", expected="[1, 2, 3, 4]", given="[1, 2, 3, 4]"), Unjudged)
    judge = RecordingJudge(Verdict(True, 1.0))
    row = example(question="Where is the dog?", answer="[1, 2, 3, 4]")
    assert isinstance(judge_transcript(judge, row, parse("<answer>[1, 2, 3, 4]", FRAME)), Unjudged)
    assert judge.asked == []


def test_a_missing_or_blank_answer_is_wrong_and_no_judge_is_asked() -> None:
    judge = RecordingJudge(Unjudged("outage"))
    for text in ("<think>two dogs</think>", "<think>two</think><answer>  </answer>", ""):
        verdict = judge_transcript(judge, example(), parse(text, FRAME))
        assert isinstance(verdict, Verdict)
        assert (verdict.correct, verdict.score) == (False, 0.0)
    assert judge.asked == []


def test_an_outage_stays_an_outage() -> None:
    judge = RecordingJudge(Unjudged("connection refused"))
    assert judge_transcript(judge, example(), parse("<answer>2", FRAME)) == Unjudged("connection refused")


def test_the_judge_sees_the_rows_question_without_the_format_instruction() -> None:
    # The official code hands the whole prompt to the judge as the question.
    judge = RecordingJudge(Verdict(True, 1.0))
    judge_transcript(judge, example(), parse("<think>a</think><answer>2 dogs</answer>", FRAME))
    assert judge.asked == [("How many dogs are there?", "2", "2 dogs")]
