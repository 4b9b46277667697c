"""Twenty thousand generated completions through everything we do with one, and the work of each part counted."""

from __future__ import annotations

import json
import random
import threading
import unicodedata
from collections.abc import Callable, Sequence

import fuzz
import pytest
import work
from fixtures_path import needs_fixtures
from openai.types.chat import ChatCompletionChunk
from work import bytecodes, grows_linearly

from opengrit.clients.protocol import StreamedReply, read_reply
from opengrit.core import types
from opengrit.core.boxes import Box, Size, match, union_area, union_iou
from opengrit.core.escaping import harmless, join_surrogates
from opengrit.core.records import from_line, to_line
from opengrit.core.types import Completion, Example, Verdict
from opengrit.evaluation import correlation
from opengrit.evaluation.rollout import read
from opengrit.grounding import candidates, coordinates, corners, prompts, strings, tokens
from opengrit.grounding.coordinates import CUE_REACH
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.judges import answers, expressions, latex, options, reply, wording
from opengrit.judges.answers import same_answer
from opengrit.reports import NoPicture, viewer_html
from opengrit.rewards import answers as reward_answers
from opengrit.rewards.answers import sentence_bleu1
from opengrit.rewards.format import repetition
from opengrit.rewards.protocol import Attempt
from opengrit.rewards.rubric import REWARDS

COUNT, SEED = 20_000, 0


@pytest.mark.slow
def test_twenty_thousand_completions_go_through_everything() -> None:
    tally = fuzz.drive(COUNT, SEED).counts
    assert tally["completions"] == COUNT
    # It looked at something: boxes read and rejected, labels kept, answers right and wrong, rollouts that failed.
    assert tally["boxes"] > COUNT / 2
    assert tally["rejected"] > COUNT / 2
    assert tally["labels"] > COUNT / 10
    assert COUNT / 20 < tally["right"] < tally["judged"] / 2
    assert tally["with a total"] > COUNT / 2
    assert COUNT / 500 < tally["failed"] < COUNT / 20


@needs_fixtures
def test_the_transcripts_of_real_models_are_among_what_is_mutated() -> None:
    assert len(fuzz.written_completions()) > len(fuzz.WRITTEN) + 50


def test_a_completion_of_a_seed_is_the_same_every_time() -> None:
    written = fuzz.written_completions()
    assert [fuzz.case(7, i, written) for i in range(40)] == [fuzz.case(7, i, written) for i in range(40)]
    assert fuzz.case(7, 0, written) != fuzz.case(8, 0, written)


@pytest.mark.parametrize(
    "marker", ["<script>", '"><img src=x onerror=alert(1)>', "</style>", "<!--", "<b", "<"]
)
def test_the_check_of_a_page_sees_a_text_that_is_not_escaped(marker: str) -> None:
    """What the fuzzer trusts: a fragment with a marker in a text or in an attribute is told from one without."""
    clean = '<p class="a">xx</p>'
    for dirty in (f'<p class="a">{marker}</p>', f'<p class="{marker}">xx</p>'):
        try:
            seen = fuzz.skeleton(dirty) != fuzz.skeleton(clean)
        except AssertionError:
            seen = True
        assert seen


@pytest.mark.parametrize("text", ["\x1b[31m", "a\x9b2J", "\u202e", "\u2066", "\r", "\x07", "\x00", "\ud800"])
def test_what_steers_a_terminal_is_seen_by_the_check_and_gone_when_harmless(text: str) -> None:
    assert not fuzz.is_harmless(text)
    assert fuzz.is_harmless(harmless(text))
    assert len(harmless(text)) == len(text)


# What it found.


def test_two_halves_of_a_character_are_the_character_in_a_record() -> None:
    """A stream can cut one in two; JSON puts the halves together, so the record was another one when read back."""
    one = fuzz.case(SEED, 0, fuzz.WRITTEN)
    halves = "\ud83d" + "\ude00 \ud83d x \ude00"
    sampled = fuzz.Sampled(Completion(halves), (), Size(10, 10))
    record = read(one.example, sampled, protocol=one.protocol, sample=0)
    assert record.transcript.text == record.completion.text == "\U0001f600 \ud83d x \ude00"
    assert from_line(to_line(record)) == record
    assert join_surrogates("\udc80\ud800") == "\udc80\ud800"


def chunk(text: str) -> ChatCompletionChunk:
    return ChatCompletionChunk.construct(choices=[{"delta": {"content": text}, "finish_reason": "stop"}])


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["a\ud83d", "\ude00b"], ["a", "\U0001f600b"]),
        (["\ud83d", "", "x"], ["", "", "\ufffdx"]),
        (["\ude00", "\ud83d\ud83d", "\ude00"], ["\ufffd", "\ufffd", "\U0001f600"]),
    ],
)
def test_a_character_cut_in_two_by_a_stream_is_put_together_again(
    pieces: list[str], shown: list[str]
) -> None:
    """Half of one cannot be sent on: the server answered 500, and the terminal a traceback."""
    written = StreamedReply()
    assert [written.add(chunk(piece)) for piece in pieces] == shown
    assert written.reply([])[0].text == "".join(shown)


def test_a_reply_holds_whole_characters_only() -> None:
    body = json.dumps({"choices": [{"message": {"content": "a\ud83d\ude00 \ud83d \udfff"}}]}).encode()
    assert read_reply(body, [])[0].text == "a\U0001f600 \ufffd \ufffd"
    written = StreamedReply()
    assert written.add(chunk("a\ud83d")) == "a"
    assert written.reply([])[0].text == "a\ufffd"  # its other half never came


def strips(n: int) -> list[Box]:
    """n / 2 upright strips that cross n / 2 lying ones: the outline of their union has a corner at every crossing."""
    return [Box(2 * i / n, 0, (2 * i + 1) / n, 1) for i in range(n // 2)] + [
        Box(0, 2 * i / n, 1, (2 * i + 1) / n) for i in range(n // 2)
    ]


def test_the_area_of_crossing_strips_is_what_a_pencil_says() -> None:
    # Each set of strips covers a half; together they leave a half of a half uncovered. In a quarter of the picture it is the same.
    assert union_area(strips(40)) == pytest.approx(3 / 4)
    assert union_iou(strips(40), [Box(0, 0, 0.5, 0.5)]) == pytest.approx(3 / 16 / (3 / 4 + 1 / 16))


def test_boxes_that_only_touch_share_nothing_and_flat_ones_cover_nothing() -> None:
    tiny = 5e-324
    assert union_iou([Box(0.1, 0.1, 0.3, 0.3)], [Box(0.3, 0.1, 0.5, 0.3)]) == 0.0
    assert union_area([Box(0, 0, tiny, tiny)]) == 0.0
    assert union_iou([Box(0, 0, tiny, tiny)], [Box(0, 0, 1, tiny)]) == 0.0


def longest_run_of_marks(text: str) -> int:
    longest = run = 0
    for letter in text:
        run = run + 1 if unicodedata.combining(letter) else 0
        longest = max(longest, run)
    return longest


def test_combining_marks_are_sorted_in_short_runs_only() -> None:
    """Unicode's forms sort a run of marks, and Python does it in quadratic time."""
    marks = "a" + "\u0301\u0316" * 300
    assert longest_run_of_marks(unicodedata.normalize("NFKC", marks)) > 500
    assert longest_run_of_marks(wording.composed(marks)) <= 30
    for text in ("caf\u00e9", "cafe\u0301", "\ufb01n", "\u0e33", "q\u0307\u0323"):
        assert wording.composed(text) == unicodedata.normalize("NFKC", text)


# The work.

HOSTILE = (
    " ", "a", "1", "1.", "1,", "[1,", "(", "[", "{", "<", "'", '"', "\\", "=", ":", "x1=", "\n", "a ", "a, ", "A. ", "yes ", "no\n", "answer is ",
    "\\boxed{", "(1,2),", "[1,2,3,4]", '{"bbox_2d":[1,2,3,4],"label":"a"},', "<box>", "<think>", "</rethink>", "<answer>", "\u0301\u0316",
    '"label": "', '{"label":"a[1', "{'name': '", '{"a [1,2,3,4]": ', '["1",', '"bbox":"1 2', "\uff3b\uff11\uff0c", "(1,2),\n", '"top_left":[1,2],', "top left corner: (1,", '{"bbox":{"x":1,',
    "[1,2,3,4,\"a\":", "1px ", "1e1,", "5%,", "[1,2,3,4 x", '"bbox_2d": "[1,2,3,4]", ',
)  # fmt: skip
FRAME = Frame.named("thousand", Size(640, 480))
TRUTH = (Box(0.1, 0.1, 0.4, 0.4), Box(0.5, 0.5, 0.9, 0.9))
EXAMPLES = (
    Example("c", "How many dogs are there?", "2", "c.png", "tallyqa", Size(100, 100), TRUTH),
    Example("s", "Is the dog left?", "Yes", "s.png", "vsr", Size(100, 100), TRUTH),
    Example("t", "What is it?", "a hot dog", "t.png", "open", Size(100, 100), TRUTH),
    Example("o", "Which?\n(A) dog\n(B) hot dog", "(B)", "o.png", "mathvista", Size(100, 100), TRUTH),
    Example("l", "Which numbers?", "[1, 2]", "l.png", "mathvista", Size(100, 100), TRUTH),
)


def texts_of(unit: str) -> Callable[[int], str]:
    """A text of n times the unit, after what lets most code begin to look."""
    return lambda n: "yes " + unit * n


@pytest.mark.parametrize("unit", HOSTILE)
def test_parsing_and_every_reward_take_twice_the_work_for_twice_the_text(unit: str) -> None:
    def parsing(n: int) -> int:
        text = texts_of(unit)(n)
        return bytecodes(lambda: parse(text, FRAME))

    def rewarding(n: int) -> int:
        text = texts_of(unit)(n)
        completion = Completion(text, tuple(range(len(text))))
        attempts = [Attempt(e, completion, parse(text, FRAME), Verdict(True, 1.0)) for e in EXAMPLES[:2]]
        return bytecodes(lambda: [reward(one) for reward in REWARDS.values() for one in attempts])

    assert grows_linearly(parsing, 40)
    assert grows_linearly(rewarding, 40)


@pytest.mark.parametrize("unit", HOSTILE)
def test_comparing_answers_takes_twice_the_work_for_twice_the_text(unit: str) -> None:
    def comparing(n: int) -> int:
        given = texts_of(unit)(n)
        return bytecodes(lambda: [same_answer(e.answer, given, e.question) for e in EXAMPLES])

    assert grows_linearly(comparing, 40)


def test_bleu_and_the_repetition_reward_take_twice_the_work_for_twice_the_words() -> None:
    draw = random.Random(1)

    def bleu(n: int) -> int:
        said = " ".join(draw.choices("abcdefgh", k=n))
        return bytecodes(lambda: sentence_bleu1("a b c", said))

    def repeating(n: int) -> int:
        text = " ".join(draw.choices("ab", k=n))
        attempt = Attempt(
            EXAMPLES[0], Completion(text, tuple(range(n))), parse(text, FRAME), Verdict(True, 1.0)
        )
        return bytecodes(lambda: repetition(attempt))

    assert grows_linearly(bleu, 100)
    assert grows_linearly(repeating, 100)


def scattered(n: int) -> list[Box]:
    """n small boxes all over the picture."""
    draw = random.Random(n)
    return [
        Box(x, y, x + 0.01, y + 0.01)
        for x, y in ((draw.random() * 0.98, draw.random() * 0.98) for _ in range(n))
    ]


@pytest.mark.parametrize("boxes", [strips, scattered])
def test_the_union_of_hundreds_of_boxes_takes_little_more_than_twice_the_work_for_twice_the_boxes(
    boxes: Callable[[int], Sequence[Box]],
) -> None:
    # n log n: from 128 to 512 boxes a node's path grows from 8 to 10.
    assert grows_linearly(lambda n: bytecodes(lambda: union_iou(boxes(n), TRUTH)), 128)
    assert bytecodes(lambda: union_iou(boxes(512), TRUTH)) < 3_000 * 512


@pytest.mark.parametrize("boxes", [strips, scattered])
def test_the_viewer_takes_twice_the_work_for_twice_the_boxes(boxes: Callable[[int], Sequence[Box]]) -> None:
    def showing(n: int) -> int:
        text = " ".join(f"({b.left:.6f}, {b.top:.6f}, {b.right:.6f}, {b.bottom:.6f})" for b in boxes(n))
        one = fuzz.case(SEED, 0, fuzz.WRITTEN)
        protocol = fuzz.EvaluationProtocol("grounded", "unit", fuzz.RuleJudge(), fuzz.RUBRICS[0])
        record = read(
            one.example, fuzz.Sampled(Completion(text), (), Size(9, 9)), protocol=protocol, sample=0
        )
        assert len(record.transcript.pointings) == n
        return bytecodes(lambda: viewer_html([record], open_picture=lambda _: NoPicture("none")))

    showing(8)  # the template is compiled once
    assert grows_linearly(showing, 64)


def test_a_match_with_the_few_true_boxes_is_never_a_square_table() -> None:
    """The Hungarian method is cubic in the shorter side, which is the row's; a completion only makes the table longer."""
    cells = [len(scattered(n)) * len(TRUTH) for n in (100, 200)]
    assert [match(scattered(n), TRUTH).num_predicted * 2 for n in (100, 200)] == cells
    assert all(len(match(scattered(n), TRUTH).pairs) == len(TRUTH) for n in (100, 200))


# Regular expressions: their work is not Python's, so their steps are counted by a matcher of our own.

READERS = (
    answers,
    candidates,
    coordinates,
    corners,
    correlation,
    expressions,
    latex,
    options,
    prompts,
    reply,
    reward_answers,
    strings,
    tokens,
    types,
    wording,
)
USES = [
    (module.__name__.removeprefix("opengrit."), method, pattern)
    for module in READERS
    for method, pattern in dict.fromkeys(work.patterns_in(module))
]
FRAGMENTS = (
    "yes", "no", "answer is", " ", "  ", "\n", "12", "3.5", ",", "[", "]", "(", ")", "{", "}", "\\boxed{", "-", ".", "+", "<think>", "</answer>",
    "<box>", "<|box_end|>", "'", '"', "word", "A", "B", "Option A", "or", "bbox", "x1", "=", ":", "\u201c", "\u0661", "\u00e9", "score", "```",
)  # fmt: skip


def used(pattern, method: str, text: str) -> list[tuple[int, int]]:
    if method in ("match", "fullmatch", "search"):
        found = getattr(pattern, method)(text)
        return [] if found is None else [found.span()]
    return [found.span() for found in pattern.finditer(text)]


def test_the_matcher_whose_steps_are_counted_finds_what_pythons_finds() -> None:
    assert len(USES) >= 30
    draw, found = random.Random(3), 0
    for _, method, pattern in USES:
        for _ in range(60):
            text = "".join(draw.choices(FRAGMENTS, k=draw.randrange(9)))
            expected = used(pattern, method, text)
            assert work.Matcher(pattern).used(method, text) == expected, (method, pattern.pattern, text)
            found += bool(expected)
    assert found > 300


def steps(pattern, method: str, text: str) -> int:
    matcher = work.Matcher(pattern)
    matcher.used(method, text)
    return matcher.steps


def in_a_deep_thread(run: Callable[[], None]) -> None:
    """The matcher recurses once for each repetition of a group."""
    import sys

    failures: list[BaseException] = []

    def guarded() -> None:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(50_000)
        try:
            run()
        except BaseException as error:
            failures.append(error)
        finally:
            sys.setrecursionlimit(limit)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


WALLS = (" ", "1", "1.", "1,", "[1,", "'a ", "\\boxed{", "A. ", "```\n")  # of which the worst texts are made
STARTS = ("", "yes", "[1", "```\n", "answer")


@pytest.mark.slow
def test_no_regular_expression_that_reads_a_model_takes_quadratic_time() -> None:
    quadratic: list[str] = []

    def look() -> None:
        for name, method, pattern in USES:
            # A string is bounded by its longest label: longer texts show that.
            n = 130 if name == "grounding.tokens" else 24
            for start in STARTS:
                for wall in WALLS:
                    cost = lambda k: steps(pattern, method, start + (wall * k)[:k] + "\x01")  # noqa: B023, E731
                    if not grows_linearly(cost, n, slack=1.4):
                        quadratic.append(f"{name} {method} {pattern.pattern}")

    in_a_deep_thread(look)
    # This one looks at no more than CUE_REACH characters.
    assert CUE_REACH == 60
    assert {one for one in quadratic if not one.endswith(coordinates._PHRASE.pattern)} == set()


def test_the_steps_tell_quadratic_work_from_linear() -> None:
    import re

    assert not grows_linearly(lambda n: steps(re.compile(r"\s*x"), "search", " " * n), 24)
    assert grows_linearly(lambda n: steps(re.compile(r"\s*+x"), "match", " " * n), 24)
    assert not grows_linearly(lambda n: bytecodes(lambda: [j for i in range(n) for j in range(i)]), 24)
    assert grows_linearly(lambda n: bytecodes(lambda: list(map(str, [i for i in range(n)]))), 24)


def test_a_page_holds_its_answers_as_json_that_no_text_can_leave() -> None:
    records = [
        read(one.example, one.sampled, protocol=one.protocol, sample=0)
        for one in (fuzz.case(5, i, fuzz.WRITTEN) for i in range(30))
    ]
    fuzz.check_page(records, "</script><script>alert(1)</script>")
