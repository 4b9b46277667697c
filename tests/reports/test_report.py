"""The report says what the records say, escapes what they hold, and lights the box that a text points at."""

from __future__ import annotations

import io
import json
import re
import runpy
import subprocess
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, OPTIONS
from full_record import record_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from opengrit.core.boxes import Box, Size
from opengrit.core.errors import RunError
from opengrit.core.types import (
    Example,
    Finish,
    FoundTag,
    Pointing,
    Record,
    RejectedPointing,
    Rejection,
    Score,
    Section,
    Tag,
    Transcript,
    Unjudged,
    Verdict,
)
from opengrit.evaluation.metrics import Estimate, Measurements
from opengrit.reports import (
    NoPicture,
    RunKind,
    RunView,
    build_report,
    load_runs,
    print_summary,
    viewer_html,
    write_report,
)
from opengrit.reports.answers import answer_list
from opengrit.reports.categories import breakdowns
from opengrit.reports.curves import curves
from opengrit.reports.highlighted_spans import SpanKind, split_spans
from opengrit.reports.outcomes import Outcome, outcome_of
from opengrit.reports.pictures import Picture, embed, read_picture
from opengrit.reports.plots import (
    Interval,
    Series,
    histogram,
    interval_plot,
    line_plot,
    ticks,
    trailing_mean,
)
from opengrit.reports.seeds import seed_groups
from opengrit.reports.selected_examples import Change, change, choose, last_outcome, pair_up
from opengrit.reports.tables import Unit, compare, difference_cell, is_plain, pairs_of, signed, value_cell
from opengrit.runs.alarms import Alarm, Kind, alarm_row
from opengrit.runs.folder import RunDir

SIZE = Size(200, 100)
HOSTILE = """<script>alert(1)</script><img src=x onerror="alert('2')">"&'</title></style>"""


def no_picture(_: Example) -> NoPicture:
    return NoPicture("it is not there")


def pointing(text: str, numbers: str, box: Box, *, label: str | None = None) -> Pointing:
    start = text.index(numbers)
    return Pointing(box, label, Section.THOUGHT, start, start + len(numbers), (0, 0, 0, 0))


TEXT = "<think>A dog at [20, 10, 60, 50], one at [100, 40, 200, 90], not [9, 9, 1, 1].</think><rethink>Two.</rethink><answer>2</answer>"
DOGS = (
    pointing(TEXT, "[20, 10, 60, 50]", Box(0.1, 0.1, 0.3, 0.5), label="dog"),
    pointing(TEXT, "[100, 40, 200, 90]", Box(0.5, 0.4, 1.0, 0.9)),
)


def transcript(text: str = TEXT, pointings: tuple[Pointing, ...] = DOGS) -> Transcript:
    bad = text.find("[9, 9, 1, 1]")
    rejected = (RejectedPointing("[9, 9, 1, 1]", Rejection.REVERSED, Section.THOUGHT, bad, bad + 12),)
    tags = tuple(
        FoundTag(t, text.index(t.value), text.index(t.value) + len(t.value)) for t in Tag if t.value in text
    )
    return Transcript(text, "", "Two.", "2", pointings, rejected if bad >= 0 else (), tags, Finish.STOP)


def record(
    number: int = 0,
    *,
    right: bool | None = True,
    dataset: str = "pets",
    said: Transcript | None = None,
    boxes: tuple[Box, ...] = (Box(0.1, 0.1, 0.3, 0.5), Box(0.5, 0.4, 1.0, 0.9)),
) -> Record:
    example = Example(f"row-{number}", "How many dogs are there?", "2", f"{number}.png", dataset, SIZE, boxes)
    said = said or transcript()
    verdict = Unjudged("the judge was out") if right is None else Verdict(right, float(right))
    score = Score(1.5, {"tags_in_order": 1.0})
    return record_of(example, said, verdict=verdict, score=score, frame="qwen2_5_vl")


def evaluation(name: str, records: list[Record], facts: tuple[tuple[str, str], ...] = ()) -> RunView:
    return RunView(name, RunKind.EVALUATION, tuple(records), (), facts)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of those with a wanted class."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.found if name in (attrs.get("class") or "").split()]


# -- the viewer -----------------------------------------------------------------------------------------------


def test_each_pointing_has_a_span_and_a_rectangle_that_name_each_other() -> None:
    page = Elements(viewer_html([record()], open_picture=no_picture).html)
    spans, rects = page.of_class("og-point"), page.of_class("og-box")
    assert len(spans) == len(rects) == 2
    by_id = {rect["id"]: rect for rect in rects}
    for span in spans:
        assert (span["role"], span["tabindex"]) == ("button", "0")
        assert by_id[span["data-box"]]["data-point"] == span["id"]


def test_a_rectangle_is_the_box_times_the_picture_size() -> None:
    page = Elements(viewer_html([record()], open_picture=no_picture).html)
    rects = {rect["id"]: rect for rect in page.of_class("og-box")}
    places = {
        key[-4:]: tuple(float(r[k] or "") for k in ("x", "y", "width", "height"))
        for key, r in rects.items()
        if key
    }
    # 200 x 100 pixels: (0.1, 0.1, 0.3, 0.5) is 20, 10 to 60, 50; (0.5, 0.4, 1, 0.9) is 100, 40 to 200, 90.
    assert places == {"box0": (20, 10, 40, 40), "box1": (100, 40, 100, 50)}
    svg = next(attrs for tag, attrs in page.found if tag == "svg")
    assert svg["viewbox"] == "0 0 200 100"


def test_a_pointing_is_named_with_its_number_label_and_picture_pixels() -> None:
    page = Elements(viewer_html([record()], open_picture=no_picture).html)
    names = [span["aria-label"] for span in page.of_class("og-point")]
    assert names == [
        "Box 1, dog: 20, 10, 60, 50 in picture pixels",
        "Box 2: 100, 40, 200, 90 in picture pixels",
    ]


def test_a_smaller_box_is_drawn_over_a_larger_one_so_that_both_can_be_reached() -> None:
    inner, outer = Box(0.4, 0.4, 0.5, 0.5), Box(0.1, 0.1, 0.9, 0.9)
    said = transcript("[1] [2]", (pointing("[1] [2]", "[1]", inner), pointing("[1] [2]", "[2]", outer)))
    page = Elements(viewer_html([record(said=said)], open_picture=no_picture).html)
    assert [str(rect["id"])[-4:] for rect in page.of_class("og-box")] == ["box1", "box0"]


def test_annotated_boxes_are_drawn_apart_from_those_the_model_wrote() -> None:
    page = Elements(viewer_html([record(boxes=(Box(0.25, 0.5, 0.75, 1.0),))], open_picture=no_picture).html)
    (truth,) = page.of_class("og-truth-line")
    assert (truth["x"], truth["y"], truth["width"], truth["height"]) == ("50.0", "50.0", "100.0", "50.0")


def test_a_rejected_box_is_in_the_text_with_its_reason_and_not_on_the_picture() -> None:
    page = Elements(viewer_html([record()], open_picture=no_picture).html)
    (rejected,) = page.of_class("og-rejected")
    assert rejected["title"] == "Not a box: reversed"


def test_a_picture_that_cannot_be_opened_is_shown_as_such_with_its_reason() -> None:
    page = Elements(viewer_html([record()], open_picture=no_picture).html)
    assert "The picture cannot be shown: it is not there" in page.text
    assert not [tag for tag, _ in page.found if tag == "img"]


def test_a_failed_rollout_shows_its_reason_and_is_neither_right_nor_wrong() -> None:
    failed = replace(record(right=False), failure="endpoint down", transcript=transcript("", ()))
    page = Elements(viewer_html([failed], open_picture=no_picture).html)
    assert "The rollout failed: endpoint down" in page.text
    assert page.of_class("og-unjudged")
    assert not page.of_class("og-wrong")
    assert page.of_class("og-example")[0]["data-groups"] == "all"


def test_everything_from_a_model_or_a_file_is_escaped() -> None:
    text = f"{HOSTILE}[0, 0, 1, 1]<b>bold</b>"
    said = replace(
        transcript(text, (pointing(text, "[0, 0, 1, 1]", Box(0, 0, 1, 1), label=HOSTILE),)), answer=HOSTILE
    )
    hostile = record(said=said, dataset=HOSTILE)
    hostile = replace(
        hostile,
        example=replace(hostile.example, question=HOSTILE, answer=HOSTILE, id=HOSTILE, image=HOSTILE),
        verdict=Unjudged(HOSTILE),
        score=Score(None, {HOSTILE: 1.0}, missing=HOSTILE),
    )
    failed = replace(hostile, failure=HOSTILE)
    metrics = ({"step": 1, f"parts/{HOSTILE}": 0.5, f"eval/{HOSTILE}/accuracy": 0.5},)
    runs = [
        evaluation(f"one {HOSTILE}", [hostile], ((HOSTILE, HOSTILE),)),
        evaluation(f"two {HOSTILE}", [failed]),
        RunView(f"three {HOSTILE}", RunKind.TRAINING, (), metrics),
    ]
    page = build_report(runs)  # the picture does not open either, and its error quotes the file's name
    clean = build_report([evaluation("one", [record()])], open_picture=no_picture)
    assert page.count("<script") == clean.count("<script") == 3
    assert page.count("</style") == 1
    allowed = {tag for tag, _ in Elements(clean).found} | {"figcaption", "li", "article"}
    elements = Elements(page)
    assert {tag for tag, _ in elements.found} <= allowed | {"ul", "path"}
    assert not [attrs for _, attrs in elements.found if any(name.startswith("on") for name in attrs)]
    assert "<b>" not in page


# -- cutting the text -----------------------------------------------------------------------------------------


def test_pointings_inside_and_across_each_other_keep_the_text_whole_and_each_its_span() -> None:
    box = Box(0, 0, 1, 1)
    spans = [(2, 8), (3, 5), (6, 10), (2, 8), (50, 60), (-4, 1)]
    pointings = tuple(Pointing(box, None, Section.THOUGHT, a, b, (0, 0, 0, 0)) for a, b in spans)
    found = split_spans(replace(transcript("0123456789ab", pointings), tags=()))
    assert "".join(span.text for span in found) == "0123456789ab"
    marked = {span.index: span.text for span in found if span.kind is SpanKind.POINTING}
    # The first of 2-8 has its six characters, what starts inside it has what is left: 6-10 has 8 and 9.
    assert marked == {0: "234567", 1: "", 2: "89", 3: "", 4: "", 5: "0"}


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-3, 35), st.integers(-3, 35)), max_size=6))
def test_whatever_the_offsets_the_spans_are_the_text_and_each_pointing_is_there_once(
    text: str, spans: list[tuple[int, int]]
) -> None:
    pointings = tuple(Pointing(Box(0, 0, 1, 1), None, Section.THOUGHT, a, b, (0, 0, 0, 0)) for a, b in spans)
    found = split_spans(Transcript(text, None, None, None, pointings, (), ()))
    assert "".join(span.text for span in found) == text
    assert sorted(span.index for span in found if span.kind is SpanKind.POINTING) == list(range(len(spans)))


# -- choosing examples ----------------------------------------------------------------------------------------


def test_examples_are_paired_by_data_set_and_id_and_the_change_is_from_first_to_last() -> None:
    before = [record(0, right=False), record(1, right=True), record(2, right=None)]
    after = [record(1, right=False), record(0, right=True), record(2, right=True)]
    found = {e.example.id: change(e) for e in pair_up({"before": before, "after": after})}
    assert found == {"row-0": Change.FIXED, "row-1": Change.BROKEN, "row-2": Change.UNKNOWN}


def test_the_choice_has_every_kind_of_change_and_the_limit_holds() -> None:
    before = [record(i, right=i % 4 < 2) for i in range(100)]
    after = [record(i, right=i % 2 == 0) for i in range(100)]
    chosen = choose(pair_up({"before": before, "after": after}), limit=8)
    kinds = [change(answered) for answered in chosen]
    assert [kinds.count(k) for k in (Change.FIXED, Change.BROKEN, Change.BOTH_RIGHT, Change.BOTH_WRONG)] == [
        2
    ] * 4
    assert chosen == choose(pair_up({"before": before, "after": after}), limit=8)


def test_a_kind_that_is_missing_leaves_its_place_to_the_others() -> None:
    chosen = choose(pair_up({"only": [record(i, right=True) for i in range(30)]}), limit=24)
    assert [e.example.id for e in chosen] == [f"row-{i}" for i in range(24)]


def test_the_page_says_how_many_examples_it_leaves_out() -> None:
    page = build_report([evaluation("only", [record(i) for i in range(30)])], open_picture=no_picture)
    assert "24 of 30 examples" in page
    assert len(Elements(page).of_class("og-example")) == 24


# -- tables ---------------------------------------------------------------------------------------------------


def test_what_was_not_measured_is_a_dash_with_a_reason_and_never_a_zero() -> None:
    table = compare({"only": [record(0, right=None, boxes=())]})[0]
    accuracy, iou = table.row("accuracy"), table.row("grounding_iou")
    assert accuracy is not None
    assert iou is not None
    assert (accuracy.cells[0].text, accuracy.cells[0].why) == ("-", "no answer was judged")
    assert (iou.cells[0].text, iou.cells[0].why) == ("-", "no row has annotated boxes")


def test_a_data_set_that_a_run_was_not_asked_is_said_so() -> None:
    tables = compare({"one": [record(dataset="a")], "two": [record(dataset="b")]})
    row = next(t for t in tables if t.dataset == "a").row("accuracy")
    assert row is not None
    assert [cell.text for cell in row.cells] == ["100.0 %", "-"]
    assert row.cells[1].why == "not asked in this run"
    assert row.differences[0].why == "no example is measured in both runs"


def test_the_difference_is_taken_on_the_examples_both_runs_measured() -> None:
    before = [record(i, right=False) for i in range(4)]
    after = [record(i, right=i < 3) for i in range(1, 8)]  # 1 and 2 turned right, 3 did not; 4 to 7 are new
    row = compare({"before": before, "after": after})[0].row("accuracy")
    assert row is not None
    assert row.differences[0].n == 3
    assert row.differences[0].text == "+66.7"


def test_numbers_carry_their_unit_sign_interval_and_n() -> None:
    cell = value_cell(Estimate(0.625, 8, 0.25, 0.875), Unit.SHARE, "")
    assert (cell.text, cell.interval, cell.n) == ("62.5 %", "25.0 to 87.5", 8)
    cell = difference_cell(Estimate(-0.08, 8, -0.1, -0.06), Unit.OVERLAP, "")
    assert (cell.text, cell.interval, cell.clear) == ("\u22120.080", "\u22120.100 to \u22120.060", True)
    assert signed(0.0001, Unit.SHARE) == "0.0"
    assert (
        value_cell(Estimate(1.0, 1, None, None), Unit.NUMBER, "").interval == "no interval from one example"
    )


def test_the_terminal_table_shows_names_with_brackets_as_they_are() -> None:
    out = io.StringIO()
    runs = {"[bold]a": [record(0, right=False), record(1)], "b": [record(0), record(1)]}
    print_summary(runs, Console(file=out, width=160))
    assert "[bold]a" in out.getvalue()
    assert "50.0 %" in out.getvalue()
    assert "+50.0" in out.getvalue()


def three_runs() -> dict[str, list[Record]]:
    """The base asked plainly (3 of 4 right), asked to point (1 of 4), and trained (2 of 4)."""
    unpointed = transcript("2", ())
    plain = [replace(record(i, right=i < 3, said=unpointed), strategy="direct") for i in range(4)]
    return {
        "plain": plain,
        "before": [record(i, right=i == 3) for i in range(4)],
        "after": [record(i, right=i > 1) for i in range(4)],
    }


def test_three_runs_are_compared_with_the_first_and_the_last_with_those_amid() -> None:
    assert pairs_of(1) == ()
    assert pairs_of(2) == ((0, 1),)
    assert pairs_of(3) == ((0, 1), (0, 2), (1, 2))
    accuracy = compare(three_runs())[0].row("accuracy")
    assert accuracy is not None
    assert [cell.text for cell in accuracy.cells] == ["75.0 %", "25.0 %", "50.0 %"]
    assert [cell.text for cell in accuracy.differences] == ["\u221250.0", "\u221225.0", "+25.0"]


def test_boxes_and_format_say_nothing_of_a_run_that_was_asked_plainly() -> None:
    table = compare(three_runs())[0]
    for field in ("grounding_iou", "follows_format", "count_error"):
        row = table.row(field)
        assert row is not None
        assert (row.cells[0].text, row.cells[0].why) == ("-", "asked plainly")
        assert [bool(cell.why) for cell in row.differences] == [True, True, False]
    pointing = [replace(record(i), strategy="direct") for i in range(4)]
    plain = three_runs()["plain"] * 3
    assert is_plain([*plain, pointing[0]])  # one answer in thirteen
    assert not is_plain([*plain[:8], pointing[0]])
    row = compare({"pointed anyway": pointing})[0].row("grounding_iou")
    assert row is not None
    assert row.cells[0].text == "1.000"


def test_terminal_and_head_show_three_runs_beside_each_other_with_their_intervals() -> None:
    out = io.StringIO()
    print_summary(three_runs(), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    accuracy = next(line for line in lines if "Accuracy" in line)
    assert re.findall(r"[\d.]+ %", accuracy) == ["75.0 %", "25.0 %", "50.0 %"]
    assert "pets, differences" in out.getvalue()
    assert all(name in out.getvalue() for name in ("before - plain", "after - plain", "after - before"))
    page = build_report([evaluation(*run) for run in three_runs().items()], open_picture=no_picture)
    head = " ".join(" ".join(Elements(page[: page.index("<main>")]).text).split())
    assert re.search(
        r"plain 75\.0 % [\d.]+ to [\d.]+ before 25\.0 % [\d.]+ to [\d.]+ after 50\.0 % [\d.]+ to", head
    )
    assert re.search(
        r"after against plain: \u221225\.0 points \(.* 4 pairs after against before: \+25\.0 points", head
    )


def test_a_change_is_told_from_the_first_run_that_was_asked_to_point() -> None:
    changes = [change(answered) for answered in pair_up(three_runs())]
    assert changes == [Change.BOTH_WRONG, Change.BOTH_WRONG, Change.FIXED, Change.BOTH_RIGHT]


def test_the_demos_figures_are_a_markdown_table(tmp_path: Path) -> None:
    figures = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "demo_figures.py"))
    for name, records in three_runs().items():
        recipe = f"evaluate:\n  model: {{name: tiny}}\n  data: [{{name: pets}}]\n  strategy: {records[0].strategy}\n"
        with RunDir.create(tmp_path / name, recipe=recipe).append_records() as writer:
            for one in records:
                writer.write_record(one)
    RunDir.create(tmp_path / "train", recipe="model: {name: tiny}\ntrain: {max_steps: 40, seed: 0}\n")
    head, rule, plain, before, after = figures["table_of"](tmp_path)
    assert head == "| tiny | pets (n = 4): accuracy, % | pets (n = 4): box overlap (IoU) |"
    assert rule == "|---|---|---|"
    assert re.fullmatch(
        r"\| base, asked plainly \(no boxes asked for\) \| 75\.0 \[25\.0, 100\.0\] \| - \|", plain
    )
    assert re.fullmatch(
        r"\| base, asked to point \| 25\.0 \[0\.0, 75\.0\] \| 1\.000 \[1\.000, 1\.000\] \|", before
    )
    assert after.startswith("| trained (40 steps, seed 0) | 50.0 [")


# -- plots ----------------------------------------------------------------------------------------------------


def test_ticks_are_round_and_inside_the_range() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1, 60) == [20, 40, 60]
    assert ticks(-0.5, 0.5) == [-0.4, -0.2, 0, 0.2, 0.4]


def test_a_value_that_is_missing_is_a_gap_in_the_line() -> None:
    plot = line_plot(
        [Series("a", ((1, 0.0), (2, None), (3, 1.0), (4, 1.0)))], title="t", x_label="x", y_label="y"
    )
    (path,) = re.findall(r'class="line" d="([^"]+)"', plot)
    assert path.count("M") == 2  # the pen is lifted once
    assert path.count("L") == 1


def test_the_trailing_mean_takes_the_last_points_and_skips_gaps() -> None:
    points = ((1.0, 1.0), (2.0, 3.0), (3.0, None), (4.0, 5.0))
    assert trailing_mean(points, 3) == ((1.0, 1.0), (2.0, 2.0), (3.0, None), (4.0, 4.0))


def test_lines_differ_in_dash_and_marker_too_and_are_named_at_their_ends_and_in_the_legend() -> None:
    series = [Series(name, ((1, 0.1), (2, 0.2))) for name in ("first", "second")]
    plot = line_plot(series, title="t", x_label="x", y_label="y")
    dashes = re.findall(r'class="line" d="[^"]+" stroke="[^"]+" stroke-dasharray="([^"]*)"', plot)[:2]
    assert len(set(dashes)) == 2
    assert re.findall(r'class="end"[^>]*>([^<]+)<', plot) == ["first", "second"]
    assert plot.count("<li>") == 2


def test_a_plot_without_a_value_says_so() -> None:
    for series in ([], [Series("a", ())], [Series("a", ((1, None), (2, float("nan"))))]):
        assert "not measured" in line_plot(series, title="t", x_label="x", y_label="y")
    assert "not measured" in interval_plot([Interval("a", None)], title="t", x_label="x")


def test_one_point_one_value_and_huge_values_can_be_drawn() -> None:
    for points in (((5.0, 0.3),), ((1.0, 7.0), (2.0, 7.0)), ((0.0, -1e9), (1e6, 1e12))):
        plot = line_plot([Series("a", points)], title="t", x_label="x", y_label="y")
        numbers = [float(n) for n in re.findall(r'(?:x|y|x1|x2|y1|y2)="([-0-9.]+)"', plot)]
        assert all(0 <= n <= 460 for n in numbers)


def test_curves_show_each_reward_part_and_each_evaluation_set() -> None:
    rows = [
        {
            "step": s,
            "reward": s / 4,
            "parts/a_b": 0.5,
            "parts/x/y/a_b": 0.5,
            "eval/x/y/accuracy": 0.5,
            "eval/x/y/n": 32.0,
        }
        for s in (1, 2, 3)
    ]
    page = " ".join(curves(rows))
    assert "Reward parts" in page
    assert "a b from 0.5 to 0.5" in page
    assert "x/y, n = 32 from 0.5 to 0.5" in page


def test_a_step_written_twice_after_a_resume_counts_as_it_was_written_last() -> None:
    rows = [{"step": 1, "reward": 0.2}, {"step": 2, "reward": 0.9}, {"step": 2, "reward": 0.4}]
    assert "total from 0.2 to 0.4" in curves(rows)[0]


# -- the page and its file ------------------------------------------------------------------------------------


def runs_of_all_kinds() -> list[RunView]:
    metrics = tuple({"step": s, "reward": 0.1 * s, "parts/tags": 0.5} for s in range(1, 50))
    facts = (("model", "tiny"), ("seed", "7"), ("recipe", "0123456789ab"))
    return [
        evaluation("before", [record(i, right=i % 2 == 0) for i in range(6)], facts),
        RunView("train", RunKind.TRAINING, (), metrics, facts),
        evaluation("after", [record(i, right=i % 3 > 0) for i in range(6)], facts),
    ]


def small_picture(_: Example) -> Picture:
    return embed(Image.new("RGB", (SIZE.width, SIZE.height), (120, 160, 200)))


def test_the_same_runs_give_the_same_page_to_the_byte() -> None:
    assert build_report(runs_of_all_kinds(), open_picture=small_picture) == build_report(
        runs_of_all_kinds(), open_picture=small_picture
    )


def test_the_page_loads_nothing_from_anywhere() -> None:
    page = build_report(runs_of_all_kinds(), open_picture=small_picture)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page.replace("/* ", ""))
    for tag, attrs in Elements(page).found:
        assert tag not in ("link", "iframe", "object", "embed")
        assert (attrs.get("src") or "data:").startswith("data:")
        assert (attrs.get("href") or "#").startswith("#")


def test_ids_are_unique_and_every_reference_leads_to_one() -> None:
    found = Elements(build_report(runs_of_all_kinds(), open_picture=small_picture)).found
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for name in ("data-box", "data-point", "data-goto", "aria-labelledby"):
        assert {attrs[name] for _, attrs in found if name in attrs} <= set(ids)


def test_facts_of_each_run_stand_on_the_page() -> None:
    text = Elements(build_report(runs_of_all_kinds(), open_picture=small_picture)).text
    assert text.count("0123456789ab") == 3
    assert text.count("tiny") == 3


@pytest.mark.parametrize("runs", [[], [RunView("t", RunKind.TRAINING, ())], [evaluation("e", [])]])
def test_a_report_of_little_or_nothing_is_still_a_page(runs: list[RunView]) -> None:
    assert "There are no examples to show." in build_report(runs)


def test_a_training_run_alone_shows_what_was_said_first_and_last() -> None:
    records = (replace(record(0, right=False), step=1), replace(record(0, right=True), step=9))
    page = build_report([RunView("t", RunKind.TRAINING, records)], open_picture=no_picture)
    assert "t, asked first" in page
    assert "t, asked last" in page
    assert Change.FIXED.value in page


def test_run_folders_become_a_page(tmp_path: Path) -> None:
    Image.new("RGB", (SIZE.width, SIZE.height), "navy").save(tmp_path / "0.png")
    for name, right in (("before", False), ("after", True)):
        recipe = f"evaluate:\n  model: {{name: {name}-model}}\n  data: [{{name: pets}}]\n  strategy: grounded\n  seed: 3\n"
        run = RunDir.create(tmp_path / "x" / name, recipe=recipe)
        with run.append_records() as writer:
            one = record(right=right)
            writer.write_record(replace(one, example=replace(one.example, image=str(tmp_path / "0.png"))))
    training = RunDir.create(
        tmp_path / "train", recipe="model: {name: m}\ndata: {train: [{file: a.jsonl}]}\ntrain: {seed: 5}\n"
    )
    with training.append_metrics() as writer:
        writer.write_metrics({"step": 1, "reward": 0.5})
    with training.append_alarms() as writer:
        for alarm in (Alarm(5, Kind.TRUNCATED, "a"), Alarm(7, Kind.ENTROPY, "b")):
            writer.write_metrics(alarm_row(alarm))
    with training.append_records() as writer:
        for step in (1, 2, 3):
            writer.write_record(replace(record(), id=f"{step}/row-0#0", step=step))
    views = load_runs([tmp_path / "x" / "before", tmp_path / "train", tmp_path / "x" / "after"])
    assert [(v.name, v.is_evaluation) for v in views] == [("before", True), ("train", False), ("after", True)]
    assert {"model": "before-model", "data": "pets", "seed": "3", "answers": "1"}.items() <= dict(
        views[0].facts
    ).items()
    assert {"model": "m", "data": "a.jsonl", "seed": "5", "rollouts": "3"}.items() <= dict(
        views[1].facts
    ).items()
    assert dict(views[1].facts)["alarms"] == "truncated (step 5), entropy collapsed (step 7)"
    assert "alarms" not in dict(views[0].facts)
    assert [r.step for r in views[1].records] == [1, 3]
    write_report(views, tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2


def test_folders_of_one_name_are_told_apart_by_their_parents(tmp_path: Path) -> None:
    for seed in ("seed0", "seed1"):
        RunDir.create(tmp_path / seed / "after", recipe="evaluate: {}\n")
    views = load_runs([tmp_path / "seed0" / "after", tmp_path / "seed1" / "after"])
    assert [view.name for view in views] == ["seed0/after", "seed1/after"]
    with pytest.raises(RunError, match="named twice"):
        load_runs([tmp_path / "seed0" / "after", tmp_path / "seed1" / ".." / "seed0" / "after"])


def test_a_tables_folder_is_no_run_and_its_page_and_runs_are_named(tmp_path: Path) -> None:
    table = tmp_path / "table"
    inside = table / "runs" / "tiny" / "grit" / "seed-0" / "eval"
    RunDir.create(table, recipe="ways: [grit]\n")
    with pytest.raises(RunError, match=r"table/table\.html, or name runs inside it$"):
        load_runs([table])
    RunDir.create(inside, recipe="evaluate: {}\n")
    with pytest.raises(RunError) as caught:
        load_runs([inside, table])
    assert f"see {table / 'table.html'}, or name runs inside it ({inside})" in str(caught.value)
    assert [view.name for view in load_runs([inside])] == ["eval"]


def test_a_report_never_lands_on_a_file_a_run_wrote(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"\.html"):
        write_report([], tmp_path / "records.jsonl")


def test_half_a_character_from_a_model_does_not_break_the_file(tmp_path: Path) -> None:
    said = transcript("a \ud83d b", ())
    write_report([evaluation("e", [record(said=said)])], tmp_path / "r.html")
    assert "a &#55357; b" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_large_picture_is_made_smaller_and_keeps_its_shape() -> None:
    noise = Image.effect_noise((2000, 500), 80)
    uri = embed(noise).data_uri
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 200_000


def test_a_picture_whose_file_has_changed_its_size_is_not_drawn_on(tmp_path: Path) -> None:
    Image.new("RGB", (100, 200)).save(tmp_path / "a.png")
    example = replace(record().example, image=str(tmp_path / "a.png"))
    found = read_picture(example)
    assert isinstance(found, NoPicture)
    assert "200 x 100" in found.reason
    assert "100 x 200" in found.reason


# -- what a finished report has -------------------------------------------------------------------------------


def graded(number: int, *, right: bool | None, box: Box | None, truth: tuple[Box, ...]) -> Record:
    said = transcript("[0, 0, 1, 1]", () if box is None else (pointing("[0, 0, 1, 1]", "[0", box),))
    return record(number, right=right, said=said, boxes=truth)


def test_the_outcome_of_an_answer_is_its_verdict_and_where_its_boxes_are() -> None:
    left, right = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
    half = Box(0, 0, 0.25, 1)  # half of `left`, IoU 0.5: grounded
    cases = [
        (graded(0, right=True, box=left, truth=(left,)), Outcome.RIGHT_GROUNDED),
        (graded(0, right=True, box=half, truth=(left,)), Outcome.RIGHT_GROUNDED),
        (graded(0, right=True, box=right, truth=(left,)), Outcome.RIGHT_UNGROUNDED),
        (graded(0, right=True, box=None, truth=(left,)), Outcome.RIGHT_UNGROUNDED),
        (graded(0, right=False, box=left, truth=(left,)), Outcome.WRONG_GROUNDED),
        (graded(0, right=False, box=right, truth=(left,)), Outcome.WRONG),
        (graded(0, right=False, box=left, truth=()), Outcome.WRONG),
        (graded(0, right=True, box=left, truth=()), Outcome.RIGHT_UNKNOWN),
        (graded(0, right=None, box=left, truth=(left,)), Outcome.UNKNOWN),
    ]
    assert [outcome_of(one) for one, _ in cases] == [outcome for _, outcome in cases]


def test_the_first_example_is_a_fixed_one_whose_boxes_moved_onto_their_marks() -> None:
    left, near, right = Box(0, 0, 0.5, 1), Box(0, 0, 0.6, 1), Box(0.5, 0, 1, 1)
    moves = [(left, left), (near, left), (right, left), (None, left), (left, right)]  # before, after
    before = [graded(i, right=False, box=was, truth=(left,)) for i, (was, _) in enumerate(moves)]
    after = [graded(i, right=True, box=is_now, truth=(left,)) for i, (_, is_now) in enumerate(moves)]
    chosen = choose(pair_up({"before": before, "after": after}))
    assert chosen[0].example.id == "row-2"  # from an overlap of 0 to 1, with boxes on both sides
    assert sorted(answered.example.id for answered in chosen) == [f"row-{i}" for i in range(5)]


def test_a_colour_is_a_run_and_grey_a_control_in_every_plot() -> None:
    page = build_report(runs_of_all_kinds(), open_picture=no_picture)
    overlap = next(
        p for p in page.split("<figure")[1:] if "Overlap with the annotation (IoU)</figcaption>" in p
    )
    bars = re.findall(r'stroke="([^"]+)" stroke-width="2.5"', overlap)
    assert [bar.split("(")[-1].split(",")[0] for bar in bars] == ["--blue", "#D55E00", "--soft", "--soft"]
    spread = [p for p in page.split("<figure")[1:] if "Overlap with the annotation, after" in p]
    assert set(re.findall(r'class="bar" fill="([^"]+)"', spread[0])) == {"#D55E00"}


def test_true_counts_are_written_as_they_are_said() -> None:
    counted = [
        replace(r, example=replace(r.example, answer=str(count)))
        for count in (0, 2, 10)
        for r in (record(count),)
    ]
    (by_count,) = [b for b in breakdowns({"only": counted}) if b.name == "True count"]
    assert [row.category for row in by_count.rows] == ["0", "2", "10"]


def test_the_examples_have_every_outcome_in_turn() -> None:
    left, right = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
    many = [graded(i, right=True, box=left, truth=(left,)) for i in range(50)]
    many += [
        graded(50, right=True, box=right, truth=(left,)),
        graded(51, right=False, box=left, truth=(left,)),
    ]
    many += [graded(52, right=False, box=right, truth=(left,))]
    chosen = choose(pair_up({"only": many}), limit=6)
    assert [last_outcome(e) for e in chosen].count(Outcome.RIGHT_GROUNDED) == 3
    assert {last_outcome(e) for e in chosen} == {
        Outcome.RIGHT_GROUNDED,
        Outcome.RIGHT_UNGROUNDED,
        Outcome.WRONG_GROUNDED,
        Outcome.WRONG,
    }


def test_lines_that_apply_to_no_row_are_left_out_and_controls_stand_under_their_measure() -> None:
    fields = [row.measure.field for row in compare({"only": [record()]})[0].rows]
    at = fields.index("grounding_iou")
    assert fields[at : at + 5] == [
        "grounding_iou",
        "whole_picture_iou",
        "random_boxes_iou",
        "unscaled_iou",
        "box_f1",
    ]
    assert not {"detection_ap", "binarised", "right"} & set(fields)
    bare = [row.measure.field for row in compare({"only": [record(boxes=())]})[0].rows]
    assert "grounding_iou" in bare
    assert not {"random_boxes_iou", "unscaled_iou", "box_f1"} & set(bare)
    tenth = replace(record(), verdict=Verdict(False, 0.1))
    assert "binarised" in [row.measure.field for row in compare({"only": [tenth]})[0].rows]


def test_treebenchs_recall_is_never_shown_without_its_precision() -> None:
    tree = replace(record(), example=replace(record().example, dataset="treebench"))
    fields = [row.measure.field for row in compare({"only": [tree]})[0].rows]
    assert fields[fields.index("target_iou") + 1] == "written_iou"
    assert not {"target_iou", "written_iou"} & {
        row.measure.field for row in compare({"only": [record()]})[0].rows
    }


def test_each_category_has_its_own_numbers() -> None:
    many = [record(i, right=i < 3) for i in range(4)]
    yes = [
        replace(r, example=replace(r.example, id=f"y{r.example.id}", question="Is it?", answer="yes"))
        for r in many
    ]
    found = {b.name: b for b in breakdowns({"only": [*many, *yes[:2]]})}
    assert set(found) == {"Kind of answer"}  # one data set, one count
    rows = {row.category: row for row in found["Kind of answer"].rows}
    assert {name: (row.num_examples, row.cells[0].text) for name, row in rows.items()} == {
        "number": (4, "75.0 %"),
        "yes/no": (2, "100.0 %"),
    }
    assert [b.name for b in breakdowns({"one": many, "two": many})] == ["Data set"]


def test_a_histogram_counts_each_value_once_and_draws_its_lines() -> None:
    plot = histogram([0.0, 0.04, 0.5, 1.0], [("mean", 0.385), ("control", 0.2)], title="t", x_label="x")
    heights = [float(h) for h in re.findall(r'class="bar"[^>]*height="([0-9.]+)"', plot)]
    assert len(heights) == 20
    tallest = max(heights)
    assert [round(2 * h / tallest) for h in heights] == [2] + [0] * 9 + [1] + [0] * 8 + [1]
    assert "mean 0.39" in plot or "mean 0.38" in plot
    assert "control 0.20" in plot
    assert "not measured" in histogram([], [], title="t", x_label="x")


def test_seeds_are_told_from_repetitions_and_from_other_settings() -> None:
    def run(name: str, seed: str, model: str = "tiny", *more: tuple[str, str]) -> RunView:
        return evaluation(name, [record()], (("model", model), ("seed", seed), *more))

    assert [g.runs for g in seed_groups([run("a", "1"), run("b", "2"), run("c", "1", "other")])] == [
        ("a", "b")
    ]
    assert seed_groups([run("a", "1"), run("b", "1")]) == ()
    trained = [run(n, "0", f"runs/{n}/final", ("training seed", n), ("trained by", "x")) for n in "12"]
    assert [g.runs for g in seed_groups(trained)] == [("1", "2")]


def test_the_seed_of_a_training_is_read_from_the_folder_its_model_lies_in(tmp_path: Path) -> None:
    for seed in (1, 2):
        RunDir.create(
            tmp_path / f"t{seed}",
            recipe=f"model: {{name: m}}\nrewards: paper\ntrain: {{seed: {seed}, lr: 1}}\n",
        )
        model = tmp_path / f"t{seed}" / "final"
        run = RunDir.create(
            tmp_path / f"e{seed}", recipe=f"evaluate: {{model: {{name: '{model}'}}, data: [], seed: 0}}\n"
        )
        with run.append_records() as writer:
            writer.write_record(record())
    views = load_runs([tmp_path / "e1", tmp_path / "e2"])
    assert [dict(v.facts)["training seed"] for v in views if isinstance(v, RunView)] == ["1", "2"]
    assert [g.runs for g in seed_groups([v for v in views if isinstance(v, RunView)])] == [("e1", "e2")]


def test_the_list_says_what_it_cuts_and_leaves_out_and_cannot_end_its_script() -> None:
    many = [record(i, said=transcript(f"{HOSTILE} {i} " + "x" * 2_000, ())) for i in range(3)]
    examples = pair_up({"only": many})
    found = answer_list(examples, examples[:1], prefix="p", budget=3_500)  # room for two texts of 1,500
    assert (found.num_cut, found.num_left_out) == (2, 1)
    assert not set("<>&") & set(found.data)
    rows = json.loads(found.data)["rows"]
    assert [row["e"] for row in rows] == ["p-e0", None, None]
    assert [row["t"][0]["s"] is None for row in rows] == [False, False, True]
    assert rows[0]["t"][0]["s"].startswith(HOSTILE)
    page = build_report(
        [evaluation("only", [replace(many[0], id=f"{i}") for i in range(1)])], open_picture=no_picture
    )
    assert "1 text is cut to 1,500" in page


# -- in a browser ---------------------------------------------------------------------------------------------

Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Opens a page and gives its document after the scripts have run."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is on the PATH; the viewer's behaviour is not tried")

    def dump(fragment: str = "", script: str = "") -> str:
        page = build_report(runs_of_all_kinds(), open_picture=small_picture)
        path = tmp_path / "page.html"
        path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        options = ["--headless", *OPTIONS, "--virtual-time-budget=2000"]
        command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        done = subprocess.run(
            [*command, f"{path.as_uri()}{fragment}"], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout

    return dump


@pytest.mark.slow
def test_focus_on_a_pointing_lights_its_box_and_no_other(browse: Browse) -> None:
    page = Elements(browse("#focus=examples-e1-t1-say1"))
    assert [rect["id"] for rect in page.of_class("og-box") if "lit" in str(rect["class"]).split()] == [
        "examples-e1-t1-box1"
    ]
    shown = [article["id"] for article in page.of_class("og-example") if "hidden" not in article]
    assert shown == ["examples-e1"]


TRY = """
var seen = {}, $ = function (s) { return document.querySelector(s); };
function shown() { return Array.from(document.querySelectorAll(".og-example:not([hidden])")).map(function (e) { return e.id; }).join(); }
function lit() { return Array.from(document.querySelectorAll(".lit")).map(function (e) { return e.id || e.className.split(" ")[0]; }).sort().join(); }
function key(where, name) { where.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true })); }
seen.start = shown();
key(document.body, "ArrowRight"); seen.right = shown();
key(document.body, "ArrowLeft"); key(document.body, "ArrowLeft"); seen.around = shown();
$("[data-filter=changed]").click(); seen.changed = $(".og-place").textContent;
$("[data-filter=wrong]").click(); seen.wrong = $(".og-place").textContent;
$("[data-filter=all]").click(); $("[data-goto=examples-e0]").click(); seen.goto = shown();
var box = $("#examples-e0-t0-box0");
box.dispatchEvent(new PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" })); seen.hover = lit();
$("#examples").dispatchEvent(new PointerEvent("pointerleave", {})); seen.left = lit();
key($("#examples-e0-t0-say1"), "Enter"); seen.pinned = lit(); seen.pressed = $("#examples-e0-t0-say1").getAttribute("aria-pressed");
key($("#examples-e0-t0-say1"), "Escape"); seen.escaped = lit();
$(".og-truth-switch").click(); seen.truth = getComputedStyle($(".og-truth")).display;
seen.width = document.documentElement.scrollWidth <= window.innerWidth;
var out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
"""


@pytest.mark.slow
def test_keys_filters_hover_and_switches_do_what_they_say(browse: Browse) -> None:
    page = browse("", TRY)
    found = re.search(r'<pre id="seen">(.*?)</pre>', page)
    assert found is not None
    one = "examples-e0-t0-box0,examples-e0-t0-say0,og-badge"
    # before: 0, 2, 4 right; after: 1, 2, 4, 5 right. 1 and 5 are fixed, 0 is broken; 0 and 3 are wrong in the end.
    assert json.loads(found[1]) == {
        "start": "examples-e0",
        "right": "examples-e1",
        "around": "examples-e5",
        "changed": "1 of 3",
        "wrong": "1 of 2",
        "goto": "examples-e0",
        "hover": one,
        "left": "",
        "pinned": one.replace("box0", "box1").replace("say0", "say1"),
        "pressed": "true",
        "escaped": "",
        "truth": "none",
        "width": True,
    }


def test_a_report_decodes_each_line_of_records_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from full_record import RECORD

    from opengrit.runs import jsonl

    run = RunDir.create(tmp_path / "run", recipe="evaluate: {model: {name: m}}\n")
    with run.append_records() as writer:
        for number in (0, 1, 2, 1):  # one stands twice, as after a resume
            writer.write_record(
                replace(RECORD, id=f"r{number}", example=replace(RECORD.example, id=f"r{number}"))
            )
    decoded: list[int] = []
    loads = json.loads
    monkeypatch.setattr(
        jsonl.json,
        "loads",
        lambda line: decoded.append(len(line) if isinstance(line, bytes) else 0) or loads(line),
    )
    [view] = load_runs([run.path])
    monkeypatch.undo()
    whole = [length for length in decoded if length > 500]
    assert (len(view.records), len(whole)) == (3, 4)
    assert all(record.completion.token_ids == () for record in view.records)


def test_a_list_of_very_many_answers_is_a_sample_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from full_record import RECORD

    from opengrit.reports import answers

    monkeypatch.setattr(answers, "MOST_LISTED", 10)
    records = [replace(RECORD, id=f"r{n}", example=replace(RECORD.example, id=f"r{n}")) for n in range(100)]
    examples = pair_up({"run": records})
    found = answer_list(examples, examples[3:5], prefix="e")
    assert (found.num_examples, found.num_answered) == (10, 100)
    listed = [row["i"] for row in json.loads(found.data)["rows"]]
    assert {"r3", "r4"} <= set(listed)
    assert listed[-1] == "r87"


def test_the_command_measures_once_for_page_and_terminal_and_holds_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from opengrit.cli.report import report

    run = RunDir.create(tmp_path / "run", recipe="evaluate: {model: {name: m}}\n")
    with run.append_records() as writer:
        for number in range(300):
            one = record(number, right=number % 2 == 0)
            writer.write_record(
                replace(one, completion=replace(one.completion, token_ids=tuple(range(1000, 1100))))
            )
    sizes: list[int] = []
    made = Measurements.__init__

    def counted(self: Measurements, records: Sequence[Record]) -> None:
        sizes.append(len(records))
        made(self, records)

    monkeypatch.setattr(Measurements, "__init__", counted)
    report([run.path], out=tmp_path / "r.html", quiet=True)
    assert "50.0 %" in capsys.readouterr().out
    assert sizes == [300]  # one set of columns for page and terminal, each of which asks a record once
    tracemalloc.start()
    views = load_runs([run.path])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(views) == 1
    assert held < 2.5 * (run.path / "records.jsonl").stat().st_size
