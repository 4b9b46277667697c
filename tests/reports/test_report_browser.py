"""A report of ten thousand answers opens, sorts, filters and pages in a browser, and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from accessible import barriers, windows
from browser import chromium
from full_record import record_of
from PIL import Image
from playwright.sync_api import Page

from opengrit.core.boxes import Box, Size
from opengrit.core.types import (
    Example,
    Finish,
    Pointing,
    Record,
    Score,
    Section,
    Transcript,
    Verdict,
)
from opengrit.reports import RunKind, RunView, write_report

SIZE = Size(64, 48)
NUM_ANSWERS = 10_000
TRUTH = Box(0.25, 0.25, 0.75, 0.75)
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
PATIENCE_MS = 90_000

pytestmark = pytest.mark.browser


def record(number: int, image: str) -> Record:
    """Right where the number is even; on its mark where it is a multiple of 5; of set "b" from 9,000 on."""
    right, grounded = number % 2 == 0, number % 5 == 0
    box = TRUTH if grounded else Box(0.0, 0.0, 0.1 + number % 7 / 100, 0.1)
    said = f"<think>A thing [1, 2, 3, 4] for {number}.</think><answer>{3 if right else 4}</answer>"
    start = said.index("[")
    pointing = Pointing(box, None, Section.THOUGHT, start, start + 12, (1, 2, 3, 4))
    example = Example(
        id=f"row-{number:05d}",
        question=HOSTILE if number == 7 else f"How many things are in scene {number}?",
        answer="3",
        image=image,
        dataset="a" if number < 9_000 else "b",
        picture_size=SIZE,
        boxes=(TRUTH,),
    )
    transcript = Transcript(said, "", None, "3" if right else "4", (pointing,), (), (), Finish.STOP)
    verdict = Verdict(right, float(right))
    return record_of(example, transcript, verdict=verdict, score=Score(1.0), frame="qwen2_5_vl")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    Image.new("RGB", (SIZE.width, SIZE.height), "teal").save(folder / "a.png")
    records = [record(number, str(folder / "a.png")) for number in range(NUM_ANSWERS)]
    write_report([RunView("all", RunKind.EVALUATION, tuple(records))], folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def page(report: Path) -> Iterator[Page]:
    """The report in a browser; nothing is said on its console, and nothing but the file is asked for."""
    said: list[str] = []
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.get_by_role("link", name="All answers").click()  # a link opens what is folded
        page.locator(".category summary").first.click()
        yield page
        assert page.title() == "OpenGRIT report: all"
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base, trained, and the training between them: a report as the demo makes it."""
    folder = tmp_path_factory.mktemp("compared")
    Image.new("RGB", (SIZE.width, SIZE.height), "teal").save(folder / "a.png")
    asked = [record(number, str(folder / "a.png")) for number in range(8_980, 9_020)]
    runs = {"plain": 1.0, "before": 0.4, "after": 0.9}
    views = []
    for name, share in runs.items():
        answers = [
            replace(
                one,
                strategy="direct" if name == "plain" else "grounded",
                verdict=Verdict(right, float(right)),
            )
            for number, one in enumerate(asked)
            for right in (number < share * len(asked),)
        ]
        facts = (("model", "tiny"), ("data", "a, b"), ("recipe", name))
        views.append(RunView(name, RunKind.EVALUATION, tuple(answers), (), facts))
    steps = tuple(
        {
            "step": step,
            "reward": step / 40,
            "accuracy": 0.5,
            "parts/correct": step / 40,
            "completions/mean_length": 60,
        }
        for step in range(1, 41)
    )
    views.insert(2, RunView("train", RunKind.TRAINING, (), steps, (("model", "tiny"),)))
    write_report(views, folder / "report.html")
    return folder / "report.html"


def test_the_evidence_comes_first_and_the_page_is_short_until_it_is_unfolded(compared: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(compared.as_uri(), timeout=PATIENCE_MS)
        assert page.evaluate("document.documentElement.scrollHeight") <= 4_000
        assert page.locator(".og-example:not([hidden]) .og-frame").first.bounding_box()["y"] < 900  # type: ignore[index]
        assert page.locator("details[open]").count() == 0
        for name in ("Runs", "How to read"):
            assert not page.locator(
                f"#{'runs' if name == 'Runs' else 'reading'} .fold > :nth-child(2)"
            ).is_visible()
            page.get_by_role("link", name=name).click()
            assert page.locator(
                f"#{'runs' if name == 'Runs' else 'reading'} .fold > :nth-child(2)"
            ).is_visible()
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details.fold:not([open])").count() == 0


def test_a_table_that_is_wider_than_a_phone_says_that_it_scrolls(compared: Path) -> None:
    hint = "element => getComputedStyle(element, '::before').content"
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(compared.as_uri(), timeout=PATIENCE_MS)
        table = page.locator("#results .wide").first
        assert table.evaluate(hint) == "none"
        page.set_viewport_size({"width": 390, "height": 800})
        page.locator("#results .wide.scrolls").first.wait_for()
        assert "Scroll sideways" in table.evaluate(hint)
        page.locator("#runs summary").click()  # a folded table is measured when it opens
        page.locator("#runs .wide.scrolls").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_nothing_in_a_report_is_a_serious_barrier(compared: Path) -> None:
    with chromium() as browser:
        for page in windows(browser):
            page.goto(compared.as_uri(), timeout=PATIENCE_MS)
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            page.locator("#answers tbody td button").first.click()
            page.locator(".og-example:not([hidden]) .og-point").first.click()
            assert barriers(page) == []
            page.evaluate("document.body.append(document.createElement('img'))")
            assert [one.split(":")[0] for one in barriers(page)] == ["image-alt"]  # it does look


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#answers tbody tr td:nth-child({number})").all_inner_texts()


def place(page: Page) -> str:
    return page.locator("#answers .pager span").inner_text()


@pytest.mark.slow
def test_ten_thousand_answers_are_paged_filtered_sorted_and_opened(report: Path, page: Page) -> None:
    assert report.stat().st_size < 20_000_000
    assert "24 of 10000 examples" in page.locator("#shown").inner_text()
    assert "those of all 10000" in page.locator("#answers").inner_text()
    assert (place(page), len(column(page, 1))) == ("1 to 50 of 10000", 50)
    following = page.get_by_role("button", name="Next", exact=True)
    following.focus()
    page.keyboard.press("Enter")
    assert place(page) == "51 to 100 of 10000"
    assert "scene 50?" in column(page, 1)[0]

    # even and a multiple of 5: 1,000; the first of them in set b is 9,000
    page.locator('#answers [data-pick="outcome"]').select_option("right and grounded")
    assert place(page) == "1 to 50 of 1000 kept, 10000 in all"
    assert set(column(page, 4)) == {"right and grounded"}
    page.locator('#answers [data-pick="dataset"]').select_option("b")
    assert place(page) == "1 to 50 of 100 kept, 10000 in all"
    assert "scene 9000?" in column(page, 1)[0]
    page.locator("#answers input").fill("scene 9990")
    assert (place(page), len(column(page, 1))) == ("1 to 1 of 1 kept, 10000 in all", 1)
    page.locator("#answers input").fill("no such words")
    assert place(page) == "No answer is of this kind."
    page.locator("#answers input").fill("")
    for name in ("outcome", "dataset"):
        page.locator(f'#answers [data-pick="{name}"]').select_option("")

    iou = page.locator('#answers th[data-key="u"]')
    iou.locator("button").focus()
    page.keyboard.press("Enter")
    assert iou.get_attribute("aria-sort") == "ascending"
    assert set(column(page, 5)) == {"0.000"}
    page.keyboard.press("Enter")
    assert iou.get_attribute("aria-sort") == "descending"
    assert set(column(page, 5)) == {"1.000"}
    assert "scene 0?" in column(page, 1)[0]  # equals keep their order

    page.locator("#answers input").fill("row-00007")
    button = page.locator("#answers tbody td button")
    assert HOSTILE in button.inner_text()
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert "for 7." in page.locator("#answers .detail pre").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#answers .detail").count() == 0


@pytest.mark.slow
def test_tables_sort_by_their_headings_and_examples_by_outcome(page: Page) -> None:
    table = page.locator("table.sortable").first
    heading = table.locator("th", has_text="Examples")
    rows = table.locator("tbody th")
    assert rows.all_inner_texts() == ["a", "b"]
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert rows.all_inner_texts() == ["b", "a"]  # 1,000 before 9,000
    assert heading.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert rows.all_inner_texts() == ["a", "b"]

    shown = page.locator(".og-example:not([hidden])")
    page.locator(".og-outcome select").select_option("right but ungrounded")
    assert shown.get_attribute("data-outcome") == "right but ungrounded"
    assert (
        page.locator(".og-place").inner_text() == "1 of 6"
    )  # of 24, twelve right ones, in turns of two cases

    # a row whose example has its picture on the page leads there
    key = page.locator(".og-example .og-key").first.text_content() or ""
    page.locator("#answers input").fill(key)
    page.locator("#answers tbody td button").first.click()
    page.get_by_role("link", name="See it with its picture").click()
    page.locator(
        "#examples-e0.og-example:not([hidden])"
    ).wait_for()  # without eval, which the page's policy forbids
    assert page.locator(".og-outcome select").input_value() == ""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_fits_its_window(report: Path, width: int, scheme: str) -> None:
    with chromium() as browser:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        page = context.new_page()
        page.goto(report.as_uri(), timeout=PATIENCE_MS)
        page.locator("#answers > details > summary").click()
        page.locator("#answers tbody td button").first.click()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_two_seeds_are_pooled_and_drawn(tmp_path: Path) -> None:
    runs = []
    for seed in ("1", "2"):
        records = tuple(record(number, "none.png") for number in range(10))
        if seed == "2":  # every answer right: 1.0 beside the other seed's 0.5
            records = tuple(replace(one, verdict=Verdict(True, 1.0)) for one in records)
        facts = (("model", "tiny"), ("seed", seed))
        runs.append(RunView(f"seed-{seed}", RunKind.EVALUATION, records, (), facts))
    write_report(runs, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Runs that differ by seed only" in page
    assert "seeds 50.0, 100.0; sd 35.4" in page  # the root of 2 x 0.25 squared over 1
    assert "<title>seed-2: 1.000, 0.2" in page
    one = [runs[0], replace(runs[1], facts=(("model", "other"), ("seed", "2")))]
    write_report(one, tmp_path / "r.html")
    assert "Runs that differ by seed only" not in (tmp_path / "r.html").read_text(encoding="utf-8")
