"""Probes grey what they say they grey, and their scores are what arithmetic says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from endpoint_stub import Request, Said, endpoint_stub
from full_record import record_of
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.clients import EndpointSettings
from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RunError
from opengrit.core.types import Completion, Example, Finish, Record, Score, Unjudged, Verdict
from opengrit.evaluation.correlation import (
    Arm,
    chain_without_coordinates,
    correlate,
    correlation_scores,
    read_choice,
)
from opengrit.evaluation.probes import (
    GREY,
    Lost,
    Probe,
    Trial,
    Unprobed,
    greyed,
    hidden_boxes,
    probe_id,
    probe_scores,
    run_probes,
    say_the_same,
    telling_trials,
    trials,
    why_unprobed,
)
from opengrit.evaluation.rollout import EvaluationProtocol
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.judges import RuleJudge
from opengrit.reports import build_report
from opengrit.reports.probe_results import read_probe_results
from opengrit.rewards.rubric import Rubric
from opengrit.runs.folder import RunDir
from opengrit.sampling import Asked, Listener, Sampled, SamplingSettings, Unsampled

SIZE = Size(40, 20)
BOX = (10, 5, 20, 15)  # a quarter of the width, half of the height
PROTOCOL = EvaluationProtocol("grounded", "pixels", RuleJudge(), Rubric.named("paper"))
SETTINGS = SamplingSettings(temperature=0.0, max_new_tokens=50)
RED = (255, 0, 0)


def text(answer: str, *boxes: tuple[int, ...]) -> str:
    pointed = " ".join(f"dog [{', '.join(map(str, box))}]" for box in boxes)
    return f"<think>I see {pointed}.</think><rethink>So.</rethink><answer>{answer}</answer>"


def record(
    name: str,
    answer: str = "2",
    *,
    boxes: Sequence[tuple[int, ...]] = (BOX,),
    expected: str = "2",
    finish: Finish = Finish.STOP,
    failure: str | None = None,
    image: str = "none.png",
) -> Record:
    said = "" if failure else text(answer, *boxes)
    transcript = parse(said, Frame.named("pixels", seen_size=SIZE), finish)
    return record_of(
        Example(name, "How many dogs are there?", expected, image, "pets", SIZE),
        transcript,
        verdict=Unjudged("failed") if failure else Verdict(answer == expected, float(answer == expected)),
        score=Score(1.0),
        frame="pixels",
        failure=failure,
    )


def probed(asked: Record, **answers: str | Record) -> list[Record]:
    """The records of a run of probes for one answer."""
    found = [replace(asked, id=probe_id("asked", asked.id))]
    for probe, answer in answers.items():
        said = answer if isinstance(answer, Record) else record(asked.example.id, answer)
        found.append(replace(said, id=probe_id(probe, asked.id)))
    return found


# -- greying --------------------------------------------------------------------------------------------------


def count(picture: Image.Image, colour: tuple[int, ...]) -> int:
    pixels = [picture.getpixel((x, y)) for x in range(picture.width) for y in range(picture.height)]
    return pixels.count(colour)


def test_occlude_greys_the_boxes_and_keep_all_but_them() -> None:
    whole = Image.new("RGB", (SIZE.width, SIZE.height), RED)
    boxes = [Box.from_pixels(*BOX, size=SIZE)]  # 10 x 10 of 40 x 20 pixels
    occluded, kept = greyed(whole, boxes, Probe.OCCLUDE), greyed(whole, boxes, Probe.KEEP)
    assert (count(occluded, GREY), count(occluded, RED)) == (100, 700)
    assert (count(kept, GREY), count(kept, RED)) == (700, 100)
    assert occluded.getpixel((10, 5)) == occluded.getpixel((19, 14)) == GREY
    assert occluded.getpixel((9, 5)) == occluded.getpixel((20, 14)) == RED
    assert kept.getpixel((10, 5)) == RED
    assert kept.size == occluded.size == whole.size
    assert count(whole, RED) == 800


def test_overlapping_boxes_are_greyed_and_kept_once() -> None:
    whole = Image.new("RGB", (SIZE.width, SIZE.height), RED)
    boxes = [Box.from_pixels(*edges, size=SIZE) for edges in ((0, 0, 10, 10), (5, 5, 15, 15))]
    assert count(greyed(whole, boxes, Probe.OCCLUDE), GREY) == 175  # 100 + 100 - 25
    assert count(greyed(whole, boxes, Probe.KEEP), RED) == 175


def test_a_box_covers_every_pixel_it_touches_and_the_thinnest_one_has_some() -> None:
    whole = Image.new("RGB", (10, 10), RED)
    assert count(greyed(whole, [Box(0.15, 0.15, 0.25, 0.25)], Probe.OCCLUDE), GREY) == 4
    assert count(greyed(whole, [Box(0.999999, 0.999999, 1.0, 1.0)], Probe.OCCLUDE), GREY) == 1
    assert count(greyed(whole, [Box(0.3, 0.0, 0.6, 1.0)], Probe.OCCLUDE), GREY) == 30


def test_shuffled_boxes_keep_their_sizes_and_depend_on_the_seed_and_the_answer_alone() -> None:
    one = record("a", boxes=[BOX, BOX, (0, 0, 4, 4)])
    own, moved = (hidden_boxes(one, probe, seed=1) for probe in (Probe.OCCLUDE, Probe.SHUFFLE))
    assert len(own) == len(moved) == 2  # the same box twice counts once
    for before, after in zip(own, moved, strict=True):
        assert after.right - after.left == pytest.approx(before.right - before.left)
        assert after.bottom - after.top == pytest.approx(before.bottom - before.top)
    assert moved == hidden_boxes(one, Probe.SHUFFLE, seed=1)
    assert moved != hidden_boxes(one, Probe.SHUFFLE, seed=2)
    assert moved != hidden_boxes(record("b", boxes=[BOX, (0, 0, 4, 4)]), Probe.SHUFFLE, seed=1)


# -- scores ---------------------------------------------------------------------------------------------------


def test_two_answers_are_the_same_whichever_of_them_explains_itself() -> None:
    for first, second in (("Yes, it is left", "yes"), ("three", "3"), ("Dog", "a dog")):
        assert say_the_same(first, second, question="What?")
        assert say_the_same(second, first, question="What?")
    assert not say_the_same("yes", "no", question="Is it?")
    assert not say_the_same("[1, 2, 3, 4]", "2", question="Where?")
    assert say_the_same("[1, 2, 3, 4]", "[1,2,3,4]", question="Where?")


def test_what_cannot_be_probed_says_why() -> None:
    assert why_unprobed(record("a")) is None
    assert why_unprobed(record("a", boxes=())) is Unprobed.NO_BOXES
    assert why_unprobed(record("a", "")) is Unprobed.NO_ANSWER
    assert why_unprobed(record("a", finish=Finish.LENGTH)) is Unprobed.TRUNCATED
    assert why_unprobed(record("a", failure="down")) is Unprobed.FAILED
    assert why_unprobed(record("a", expected="[1, 2, 3, 4]")) is Unprobed.BOX_ANSWER


def hand_made() -> list[Record]:
    """Four answers that are probed, all "2" and right but the last; three that are not."""
    lost = record("d", "2", finish=Finish.LENGTH)
    return [
        *probed(record("a"), occlude="1", keep="2", shuffle="2"),
        *probed(record("b"), occlude="1", keep="1", shuffle="3"),
        *probed(record("c"), occlude="2", keep="2", shuffle="1"),
        *probed(record("d", expected="3"), occlude="5", keep=lost, shuffle=record("d", failure="down")),
        *probed(record("e", boxes=())),
        *probed(record("f", failure="down")),
        *probed(record("g", "")),
    ]


def test_scores_are_exact_on_hand_made_answers() -> None:
    scores = probe_scores(hand_made())
    assert (scores.num_answers, scores.num_probed) == (7, 4)
    assert scores.unprobed == {Unprobed.NO_BOXES: 1, Unprobed.FAILED: 1, Unprobed.NO_ANSWER: 1}
    assert scores.compared == {Probe.OCCLUDE: 4, Probe.KEEP: 3, Probe.SHUFFLE: 3}
    assert scores.lost[Probe.KEEP] == {Lost.TRUNCATED: 1}
    assert scores.lost[Probe.SHUFFLE] == {Lost.FAILED: 1}
    assert scores.changed[Probe.OCCLUDE].value == 3 / 4
    assert scores.changed[Probe.SHUFFLE].value == 2 / 3
    # a: 1 - 0, b: 1 - 1, c: 0 - 1; d has no shuffle and is in no pair
    assert (scores.necessity.value, scores.necessity.n) == (0.0, 3)
    assert (scores.sufficiency.value, scores.sufficiency.n) == (2 / 3, 3)
    # stays under keep minus stays under occlude: a 1 - 0, b 0 - 0, c 1 - 1
    assert scores.kept_over_occluded.value == pytest.approx(1 / 3)
    assert scores.accuracy_asked.value == 3 / 4
    # occlude: only c still says 2, which is right; d says 5 and expects 3
    assert scores.accuracy[Probe.OCCLUDE].value == 1 / 4
    assert scores.accuracy_gain[Probe.OCCLUDE].value == -2 / 4
    assert scores.necessity.low is not None


def test_a_probe_that_was_not_asked_is_counted_as_that() -> None:
    scores = probe_scores(probed(record("a"), occlude="1"))
    assert scores.lost[Probe.KEEP] == {Lost.NOT_ASKED: 1}
    assert scores.sufficiency.value is None
    assert scores.changed[Probe.OCCLUDE].value == 1.0
    assert scores.necessity.n == 0


def test_the_most_and_least_faithful_answers_are_those_the_definition_names() -> None:
    found, _ = trials(hand_made())
    assert {t.asked.example.id: t.faithfulness for t in found} == {"a": 2, "b": 0, "c": 0, "d": None}
    worst = probed(record("z", expected="9"), occlude="2", keep="1", shuffle="1")
    found = (*found, *trials(worst)[0])
    most, least = telling_trials(found)
    assert [t.asked.example.id for t in most] == ["a"]
    assert [t.asked.example.id for t in least] == ["z", "b", "c"]
    assert len(telling_trials([found[0]] * 9, limit=4)[0]) == 4


# -- asking ---------------------------------------------------------------------------------------------------


class RedCounter:
    """Says how many pixels are red and points nowhere; what it is asked is written down."""

    def __init__(self, fails: int = 0) -> None:
        self.asked: list[Asked] = []
        self.fails = fails

    def sample(
        self,
        questions: Sequence[Asked],
        *,
        samples_per_question: int,
        settings: SamplingSettings | Sequence[SamplingSettings],
        listener: Listener | None = None,
    ) -> list[list[Sampled | Unsampled]]:
        return [[self._one(question)] for question in questions]

    def _one(self, question: Asked) -> Sampled | Unsampled:
        self.asked.append(question)
        if self.fails:
            self.fails -= 1
            return Unsampled("down")
        assert isinstance(question.image, Image.Image)
        red = count(question.image, RED)
        return Sampled(Completion(text(str(red)), (), Finish.STOP), (), Size(*question.image.size))


@pytest.fixture
def pictured(tmp_path: Path) -> list[Record]:
    path = tmp_path / "red.png"
    Image.new("RGB", (SIZE.width, SIZE.height), RED).save(path)
    Image.new("RGB", (SIZE.height, SIZE.width), RED).save(tmp_path / "turned.png")
    return [
        record("a", "800", expected="800", image=str(path)),
        record("b", "800", boxes=(), image=str(path)),
        record("c", "800", image=str(tmp_path / "missing.png")),
        record("d", "800", image=str(tmp_path / "turned.png")),
    ]


def test_probes_are_asked_once_and_an_outage_is_asked_again(tmp_path: Path, pictured: list[Record]) -> None:
    run = RunDir.create(tmp_path / "probes", recipe="probe: {run: before}\n")
    sampler = RedCounter(fails=1)
    found = {
        r.id: r
        for r in run_probes(sampler, pictured, protocol=PROTOCOL, settings=SETTINGS, run=run, quiet=True)
    }
    assert [q.id for q in sampler.asked] == ["a#0"] * 3
    assert found["occlude/a#0"].failure == "down"
    assert found["keep/a#0"].transcript.answer == "100"  # of 800 pixels the box keeps 10 x 10
    assert found["shuffle/a#0"].transcript.answer == "700"
    assert "missing.png" in str(found["keep/c#0"].failure)
    assert "is now 20 x 40" in str(found["shuffle/d#0"].failure)
    assert found["shuffle/a#0"].verdict == Verdict(False, 0.0)
    again = {
        r.id: r
        for r in run_probes(sampler, pictured, protocol=PROTOCOL, settings=SETTINGS, run=run, quiet=True)
    }
    assert len(sampler.asked) == 4
    assert again["occlude/a#0"].transcript.answer == "700"
    assert again == {r.id: r for r in run.records()}
    scores = probe_scores(again.values())
    assert scores.unprobed == {Unprobed.NO_BOXES: 1}
    assert scores.lost[Probe.OCCLUDE] == {Lost.FAILED: 2}
    assert scores.changed[Probe.OCCLUDE].value == 1.0


def test_probes_of_other_answers_than_before_are_refused(tmp_path: Path, pictured: list[Record]) -> None:
    run = RunDir.create(tmp_path / "probes", recipe="probe: {run: before}\n")
    run_probes(RedCounter(), pictured[:1], protocol=PROTOCOL, settings=SETTINGS, run=run, quiet=True)
    other = record("a", "799", image=pictured[0].example.image)
    with pytest.raises(RunError, match="a different text"):
        run_probes(RedCounter(), [other], protocol=PROTOCOL, settings=SETTINGS, run=run, quiet=True)


def test_the_report_shows_the_probes_with_original_and_greyed_pictures(
    tmp_path: Path, pictured: list[Record]
) -> None:
    run = RunDir.create(tmp_path / "probes", recipe="probe: {run: '<b>before</b>'}\n")
    run_probes(RedCounter(), pictured, protocol=PROTOCOL, settings=SETTINGS, run=run, quiet=True)
    page = build_report([read_probe_results(run, "<i>probes</i>")])
    assert "Does the evidence matter?" in page
    assert "1 without boxes" in page
    assert "&lt;b&gt;before" in page
    assert "<b>" not in page
    assert "<i>" not in page
    # a changes under every probe: 1 + 0 - 1 points, so it is among the least faithful, with four pictures
    assert page.count("data:image/png;base64,") == 4
    assert "700</strong>" in page


# -- the paper's correlation ----------------------------------------------------------------------------------


def test_the_chain_has_no_coordinates_no_tags_and_no_answer() -> None:
    said = 'Here {"bbox_2d": [1, 2, 30, 15], "label": "dog"} and [9, 9, 1, 1] too; also 3, 4, 5, 6.'
    full = f"<think>{said}</think><rethink>Two.</rethink><answer>2</answer>"
    transcript = parse(full, Frame.named("pixels", seen_size=SIZE), Finish.STOP)
    chain = chain_without_coordinates(replace(record("a"), transcript=transcript))
    assert not any(character.isdigit() for character in chain.replace("bbox_2d", ""))
    assert "dog" in chain
    assert chain.endswith("Two.")
    assert "<" not in chain


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ('{"choice": "A"}', "A"),
        ('```json\n{"choice": "b"}\n```', "B"),
        ("<think>A or B</think>B", "B"),
        ("Picture A.", "A"),
        ("A or B", None),
        ('{"choice": "both"}', None),
        ('{"score": 1}', None),
        ("", None),
        ("[" * 100_000, None),
    ],
)
def test_a_choice_is_one_letter_or_none(reply: str, choice: str | None) -> None:
    assert read_choice(reply) == choice


def boxed(request: Request, place: int) -> tuple[int, ...]:
    """The corner of the first box drawn on a picture of a request: where the first coloured pixel is."""
    from base64 import b64decode
    from io import BytesIO

    uri = request.body["messages"][0]["content"][place]["image_url"]["url"]
    picture = Image.open(BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB")
    box = Image.eval(picture.getchannel("G"), lambda value: 255 if value > 60 else 0).getbbox()
    assert box is not None
    return box


@pytest.fixture
def three(tmp_path: Path) -> list[Record]:
    path = tmp_path / "red.png"
    Image.new("RGB", (480, 240), RED).save(path)
    size = Size(480, 240)
    found = []
    for name in "abc":
        one = record(name, boxes=(), image=str(path))
        transcript = parse(text("2", (20, 60, 140, 180)), Frame.named("pixels", seen_size=size), Finish.STOP)
        example = replace(one.example, picture_size=size)
        found.append(replace(one, example=example, transcript=transcript, seen_size=size))
    return found


def test_a_judge_that_sees_the_models_boxes_always_picks_them(tmp_path: Path, three: list[Record]) -> None:
    target = (20, 60, 140, 180)

    def answer(request: Request) -> Said:
        gaps = [sum(abs(a - b) for a, b in zip(boxed(request, i), target, strict=True)) for i in (0, 1)]
        return Said(json.dumps({"choice": "A" if gaps[0] <= gaps[1] else "B"}))

    with endpoint_stub(answer) as stub:
        settings = EndpointSettings(url=stub.url, model="toy")
        choices = correlate(three, settings, tmp_path / "c.jsonl", quiet=True)
        assert len(stub.requests) == 3 * 3 + 3  # three repeats and one control each
        asked = stub.requests[0].body["messages"][0]["content"][2]["text"]
        assert "(box)" in asked
        assert "140" not in asked
        again = correlate(three, settings, tmp_path / "c.jsonl", quiet=True)
        assert len(stub.requests) == 12
    assert again == choices
    scores = correlation_scores(choices)
    assert (scores.share.value, scores.share.n, scores.repeats, scores.sd) == (1.0, 3, (1.0, 1.0, 1.0), 0.0)
    assert scores.control.n == 3
    assert {c.first_shown for c in choices} == {True, False}


def test_a_judge_that_fails_is_counted_and_asked_again(tmp_path: Path, three: list[Record]) -> None:
    replies = iter([Said("both are fine")] * 2 + [Said("no", status=400)] * 2)
    settings: EndpointSettings
    with endpoint_stub(lambda request: next(replies, Said('{"choice": "A"}'))) as stub:
        settings = EndpointSettings(url=stub.url, model="toy", concurrency=1)
        choices = correlate(three, settings, tmp_path / "c.jsonl", repeats=2, quiet=True)
        scores = correlation_scores(choices)
        assert (scores.failed, scores.num_choices, sum(scores.reasons.values())) == (4, 5, 4)
        assert scores.picture_a == 1.0
        made = [c for c in choices if c.picked is not None and c.arm is Arm.MODEL]
        assert all(c.picked == c.first_shown for c in made)
        choices = correlate(three, settings, tmp_path / "c.jsonl", repeats=2, quiet=True)
        assert len(stub.requests) == 9 + 4
    assert correlation_scores(choices).failed == 0
    with pytest.raises(RunError, match="another --out"):
        correlate(three, replace(settings, model="other"), tmp_path / "c.jsonl", quiet=True)


def test_a_file_of_something_else_is_no_file_of_choices(tmp_path: Path, three: list[Record]) -> None:
    (tmp_path / "c.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RunError, match="line 1"):
        correlate(three, EndpointSettings(url="http://127.0.0.1:1/v1", model="toy"), tmp_path / "c.jsonl")


# -- the command ----------------------------------------------------------------------------------------------


def test_the_command_correlates_a_run_without_asking_its_model(tmp_path: Path, three: list[Record]) -> None:
    recipe = "evaluate: {model: {name: not-there}, data: [{name: pets}]}\n"
    run = RunDir.create(tmp_path / "before", recipe=recipe)
    with run.append_records() as writer:
        for one in three:
            writer.write_record(one)
    with endpoint_stub(lambda request: Said('{"choice": "A"}')) as stub:
        arguments = ["probe", str(run.path), "--out", str(tmp_path / "probes"), "--correlation", "--quiet"]
        arguments += ["--judge-url", stub.url, "--judge-model", "toy"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "control: random boxes" in result.output
        assert "12 choices, 100.0 %" in result.output
    view = read_probe_results(RunDir.open(tmp_path / "probes"), "probes")
    assert view.correlation is not None
    assert view.correlation.num_choices == 12
    assert "Do the boxes fit the words?" in build_report([view])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--probe", "blur"], "--probe is occlude, keep, shuffle"),
        (["--correlation"], "--judge-url and --judge-model"),
        (["--judge-model", "toy"], "without it"),
        ([], "finish the evaluation"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_remedy(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    run = RunDir.create(tmp_path / "before", recipe="evaluate: {model: {name: x}, data: []}\n")
    result = CliRunner().invoke(app, ["probe", str(run.path), "--out", str(tmp_path / "p"), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("more", [[], ["--attention"]])
def test_answers_about_grey_pictures_are_not_probed(
    tmp_path: Path, pictured: list[Record], more: list[str]
) -> None:
    recipe = "evaluate: {model: {name: x}, data: [{name: pets}], blind: true}\n"
    run = RunDir.create(tmp_path / "before", recipe=recipe)
    with run.append_records() as writer:
        writer.write_record(pictured[0])
    result = CliRunner().invoke(app, ["probe", str(run.path), "--out", str(tmp_path / "p"), *more])
    assert result.exit_code == 2
    assert "probe an evaluation without --blind" in " ".join(result.output.split())
    assert not (tmp_path / "p").exists()


def test_a_training_is_not_probed(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "t", recipe="train: {}\n")
    result = CliRunner().invoke(app, ["probe", str(run.path), "--out", str(tmp_path / "p")])
    assert result.exit_code == 2
    assert "is another run" in " ".join(result.output.split())


@pytest.mark.slow
def test_the_command_probes_a_packaged_model_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    runner = CliRunner()
    run, out = tmp_path / "before", tmp_path / "probes"
    asked = ["eval", "--model", "tiny-qwen2.5-vl", "--data", "stickers/spatial", "--limit", "4"]
    assert runner.invoke(app, [*asked, "--out", str(run), "--quiet"]).exit_code == 0
    first = runner.invoke(app, ["probe", str(run), "--out", str(out), "--probe", "occlude", "--quiet"])
    assert first.exit_code == 0, first.output
    kept = (out / "records.jsonl").read_bytes()
    second = runner.invoke(app, ["probe", str(run), "--out", str(out), "--quiet"])
    assert second.exit_code == 0, second.output
    assert (out / "records.jsonl").read_bytes().startswith(kept)
    found, _ = trials(RunDir.open(out).records())
    assert found
    assert all(set(trial.under) == set(Probe) for trial in found)
    assert all(isinstance(trial, Trial) and trial.faithfulness is not None for trial in found)
    page = tmp_path / "r.html"
    assert runner.invoke(app, ["report", str(run), str(out), "--out", str(page)]).exit_code == 0
    assert "Necessity" in page.read_text(encoding="utf-8")
