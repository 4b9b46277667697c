"""`opengrit ask`: one question, many from a file, a folder; results that resume where they stopped; text in a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from endpoint_stub import Request, Said, Stub, endpoint_stub
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Size
from opengrit.core.escaping import harmless
from opengrit.grounding.frames import Frame
from opengrit.grounding.parsing import parse
from opengrit.inference.batch import AskOptions, JsonLinesWriter, Row, ask_rows, drawing_path, read_rows
from opengrit.inference.grounder import Grounder
from opengrit.inference.terminal import TextStream

BOXED = (
    '<think>{"bbox_2d": [14, 28, 56, 84], "label": "dog"}</think><rethink>One.</rethink><answer>1</answer>'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, colour in (("a.png", "red"), ("b.JPG", "lime"), ("c.webp", "blue")):
        Image.new("RGB", (112, 84), colour).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path


def run(*arguments: object, stub: Stub | None = None, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of `opengrit ask`, which must end with `code`."""
    remote = () if stub is None else ("--endpoint", stub.url, "--frame", "qwen2_5_vl")
    result = CliRunner().invoke(app, ["ask", *map(str, arguments), *remote])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result.stdout, result.stderr


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def colour_seen(request: Request) -> Said:
    """Answers with the colour of the picture's middle: each answer can be told to belong to its picture."""
    red, green, blue = request.picture.convert("RGB").getpixel((40, 40))  # type: ignore[misc]
    name = {red: "red", green: "green", blue: "blue"}[max(red, green, blue)]
    return Said(f"<think>[14, 28, 56, 84]</think><answer>{name}</answer>")


def batch_file(folder: Path, *rows: object) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


# -- one ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("photos/a.png", "How many?"),
        ("--image", "photos/a.png", "--question", "How many?"),
        ("photos/a.png", "--question", "How many?"),
    ],
)
def test_one_question_prints_text_boxes_and_answer_plainly_in_a_pipe(folder, arguments):
    with endpoint_stub(lambda _: Said(BOXED)) as stub:
        stdout, _ = run(*arguments, "--draw", "out.png", stub=stub)
    # The model saw 112 x 84, the picture's own size.
    assert stdout == f"{BOXED}\n\n 1  dog (14, 28, 56, 84) px, in the thought\nanswer: 1\ndrawn: out.png\n"
    assert Image.open("out.png").size == (480, 360)


def test_one_answer_as_json(folder):
    with endpoint_stub(lambda _: Said(BOXED)) as stub:
        [answer] = lines(run("photos/a.png", "How many?", "--json", stub=stub)[0])
    assert answer["boxes"][0]["pixels"] == [14, 28, 56, 84]
    assert (answer["answer"], answer["model"], answer["seen_size"]) == ("1", "toy", [112, 84])


def test_a_text_cannot_steer_the_terminal(folder):
    with endpoint_stub(lambda _: Said("<answer>\x1b]0;title\x07\x1b[2J\u202e[1, 2, 30, 40]\r")) as stub:
        stdout, _ = run("photos/a.png", "Why?", stub=stub)
    assert not set("\x1b\x07\u202e\r") & set(stdout)
    assert "\ufffd]0;title\ufffd\ufffd[2J\ufffd[1, 2, 30, 40]" in stdout


def test_an_endpoint_that_does_not_answer_is_one_error_line(folder):
    with endpoint_stub(lambda _: Said("no such model", status=404)) as stub:
        stdout, stderr = run("photos/a.png", "Why?", stub=stub, code=2)
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert "no such model" in stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "ask takes a picture and a question, or --batch FILE"),
        (("photos/a.png",), "ask takes a picture and a question, or --batch FILE"),
        (("photos/a.png", "Why?", "--image", "photos/a.png"), "IMAGE is given once"),
        (("photos/a.png", "Why?", "--question", "What?"), "QUESTION is given once"),
        (("photos/a.png", "Why?", "--out", "o.jsonl"), "--out and --images belong to many questions"),
        (("photos", "Why?", "--json"), "--json prints the answer to one question"),
        (("photos", "Why?", "--draw", "out.png"), "--draw names a folder"),
        (("photos", "Why?", "--images", "photos"), "--images is the picture folder of --batch"),
        (("photos", " "), "a question is non-empty text"),
        (("photos", "Why?", "--draw", "photos/a.png/x"), "--draw is a folder"),
        ((".", "Why?"), "a folder of pictures holds files named"),
        (("--batch", "none.jsonl"), "--batch is a JSONL file in UTF-8, none.jsonl is not"),
        (("--batch", "photos/a.png"), "--batch is a JSONL file in UTF-8"),
        (("--batch", "empty.jsonl"), "--batch holds one question a line"),
        (("--batch", "twice.jsonl"), "'x' occurs twice"),
        (("--batch", "twice.jsonl", "--question", "Why?"), "--batch holds pictures and questions"),
        (("photos/a.png", "Why?", "--endpoint", "localhost:8000"), "--endpoint is an http or https address"),
        (
            ("photos/a.png", "Why?", "--endpoint", "http://127.0.0.1:9"),
            "which coordinates its model writes",
        ),
        (("photos", "Why?", "--strategy", "groundd"), "is one of direct, grounded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_that_cannot_work_are_one_error_before_a_model_loads(folder, arguments, said):
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "twice.jsonl").write_text('{"id": "x", "image": "a", "question": "b"}\n' * 2)
    stdout, stderr = run(*arguments, code=2)
    assert stdout == ""
    assert stderr.count("\n") == 1
    assert said in stderr


# -- many -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_asked_picture_by_picture_by_name(folder):
    with endpoint_stub(colour_seen) as stub:
        stdout, stderr = run("photos", "Which colour?", "--draw", "drawn", stub=stub)
    results = lines(stdout)
    assert [(r["id"], r["answer"]) for r in results] == [
        ("a.png", "red"),
        ("b.JPG", "green"),
        ("c.webp", "blue"),
    ]
    assert results[0]["drawn"] == "drawn/a.png.png"
    assert Image.open("drawn/b.JPG.png").size == (480, 360)
    assert stderr == "asked: 3 (0 failed)\n"


def test_a_file_of_questions_gives_a_line_each_and_a_bad_row_is_a_line_with_an_error(folder):
    rows = batch_file(
        folder,
        {"image": "a.png", "question": "Colour?", "id": "first"},
        "not json",
        {"image": "b.JPG", "question": "Colour?"},
        "",
        {"image": "none.png", "question": "Colour?", "id": "missing"},
        {"image": "../a.png", "question": "Colour?", "id": "outside"},
        {"image": "a.png", "id": "unasked"},
        {"image": "c.webp", "question": "Colour?", "id": 9, "extra": {"is": "left alone"}},
        ["a.png", "Colour?"],
        {"image": "a.png", "question": "", "id": "empty"},
    )
    with endpoint_stub(colour_seen) as stub:
        stdout, stderr = run("--batch", rows, "--images", "photos", stub=stub, code=1)
    results = lines(stdout)
    assert [r["id"] for r in results] == [
        *("first", "line 2", "line 3", "missing", "outside", "unasked", "9", "line 9", "empty")
    ]
    assert [r["answer"] for r in results if "error" not in r] == ["red", "green", "blue"]
    errors = {r["id"]: r["error"] for r in results if "error" in r}
    assert "line 2 is not" in errors["line 2"]
    assert "there is none at photos/none.png" in errors["missing"]
    assert 'with ".."' in errors["outside"]
    assert "has text under 'question', line 7 does not" in errors["unasked"]
    assert "line 9 is not" in errors["line 9"]
    assert "non-empty" in errors["empty"]
    assert stderr.endswith("asked: 9 (6 failed)\n")


def test_asked_again_it_resumes_after_what_the_output_holds(folder):
    rows = [{"image": f"photos/{n}", "question": "Colour?", "id": n} for n in ("a.png", "b.JPG", "c.webp")]
    path = batch_file(folder, *rows)
    with endpoint_stub(lambda request: Said("busy", status=400)) as stub:
        run("--batch", path, "--out", "answers.jsonl", stub=stub, code=1)
    with endpoint_stub(colour_seen) as stub:
        whole = lines((folder / "answers.jsonl").read_text())
        assert ["error" in result for result in whole] == [True] * 3
        # An interrupted run: one answer, one error, one line without its end.
        run("photos/a.png", "Colour?", stub=stub)
        good = {"id": "a.png", "image": "photos/a.png", "question": "Colour?", "answer": "kept"}
        (folder / "answers.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(whole[1])}\n" + '{"id": "c.w')
        before = len(stub.requests)
        _, stderr = run("--batch", path, "--out", "answers.jsonl", stub=stub)
        assert len(stub.requests) - before == 2
        assert stderr.endswith("asked: 2 (0 failed), 1 were answered before\n")
        assert "an earlier version wrote 1 of the answers" in stderr  # the one that was kept
        results = lines((folder / "answers.jsonl").read_text())
        assert [(r["id"], r.get("answer")) for r in results] == [
            ("a.png", "kept"),
            ("b.JPG", None),
            ("b.JPG", "green"),
            ("c.webp", "blue"),
        ]
        written = (folder / "answers.jsonl").read_bytes()
        before = len(stub.requests)
        _, stderr = run("--batch", path, "--out", "answers.jsonl", stub=stub)
        assert stderr.endswith("asked: 0 (0 failed), 3 were answered before\n")
        assert len(stub.requests) == before
        assert (folder / "answers.jsonl").read_bytes() == written


def test_an_output_of_something_else_is_left_alone(folder):
    path = batch_file(folder, {"image": "photos/a.png", "question": "Colour?", "id": "a"})
    for content, said in (
        ("precious notes\n", "line 1 of out.jsonl is not an answer"),
        ('{"id": [], "question": "Colour?"}\n', "line 1 of out.jsonl is not an answer"),
        ("[1]\n", "line 1 of out.jsonl is not an answer"),
        ('{"id": "a", "question": "Shape?", "answer": "round"}\n', "'a' was another question in line 1"),
    ):
        (folder / "out.jsonl").write_text(content)
        assert said in run("--batch", path, "--out", "out.jsonl", code=2)[1]
        assert (folder / "out.jsonl").read_text() == content


def test_a_row_put_above_the_answered_ones_is_not_taken_for_one_of_them(folder):
    rows = [{"image": f"photos/{name}", "question": "Which colour?"} for name in ("a.png", "b.JPG")]
    with endpoint_stub(colour_seen) as stub:
        run("--batch", batch_file(folder, rows[1]), "--out", "out.jsonl", stub=stub)
        written = (folder / "out.jsonl").read_bytes()
        path = batch_file(folder, *rows)  # the question of line 1 is the same one, its picture is not
        assert (
            "'line 1' was another question"
            in run("--batch", path, "--out", "out.jsonl", stub=stub, code=2)[1]
        )
    assert (folder / "out.jsonl").read_bytes() == written


def test_a_row_that_went_bad_is_reported_though_its_id_was_answered(folder):
    row = {"image": "photos/a.png", "question": "Which colour?", "id": "a"}
    with endpoint_stub(colour_seen) as stub:
        run("--batch", batch_file(folder, row), "--out", "out.jsonl", stub=stub)
        bad = batch_file(folder, {"image": "photos/a.png", "id": "a"})
        _, stderr = run("--batch", bad, "--out", "out.jsonl", stub=stub, code=1)
    assert stderr.endswith("asked: 1 (1 failed)\n")


def test_asking_resumes_after_an_end_between_a_drawing_and_its_line(folder):
    rows = [{"image": f"photos/{n}", "question": "Colour?", "id": n} for n in ("a.png", "b.JPG", "c.webp")]
    path = batch_file(folder, *rows)

    class Ended(JsonLinesWriter):
        def write(self, result):
            if result["id"] == "b.JPG":
                raise KeyboardInterrupt
            super().write(result)

    with endpoint_stub(colour_seen) as stub:
        asked = [row for row in read_rows(path) if isinstance(row, Row)]
        out = Ended(folder / "out.jsonl", asked)
        (folder / "drawn").mkdir()
        how = AskOptions(max_new_tokens=64, temperature=0.0, seed=0, draw=Path("drawn"), quiet=True)
        grounder = Grounder.load(stub.url, frame="qwen2_5_vl")
        with pytest.raises(KeyboardInterrupt):
            ask_rows(grounder, asked, out, options=how)
        out.close()
        assert {"a.png.png", "b.JPG.png"} <= {p.name for p in (folder / "drawn").iterdir()}
        assert len(lines((folder / "out.jsonl").read_text())) == 1

        _, stderr = run("--batch", path, "--out", "out.jsonl", "--draw", "drawn", stub=stub)
        assert stderr == "asked: 2 (0 failed), 1 were answered before\n"
        names = sorted(p.name for p in (folder / "drawn").iterdir())
        assert names == ["a.png.png", "b.JPG.png", "c.webp.png"]
        results = lines((folder / "out.jsonl").read_text())
        assert [(r["id"], r["drawn"]) for r in results] == [(n[:-4], f"drawn/{n}") for n in names]
        # With another output, the drawings are someone's own again.
        again = run("--batch", path, "--out", "more.jsonl", "--draw", "drawn", stub=stub, code=2)
        assert "nothing is overwritten" in again[1]


def test_drawings_are_never_overwritten_and_stay_in_their_folder(folder):
    path = batch_file(folder, {"image": "photos/a.png", "question": "Colour?", "id": "../../up/a b"})
    with endpoint_stub(colour_seen) as stub:
        [result] = lines(run("--batch", path, "--draw", "drawn", stub=stub)[0])
        assert Path(result["drawn"]).resolve().parent == folder / "drawn"
        assert "nothing is overwritten" in run("--batch", path, "--draw", "drawn", stub=stub, code=2)[1]
    names = {
        drawing_path(Path("d"), name).name
        for name in ("a/b", "a_b", "a:b", "..", ".", "", "x" * 300, "x" * 301)
    }
    assert len(names) == 8
    assert all(len(name) < 128 and not name.startswith(".") for name in names)


# -- in a terminal --------------------------------------------------------------------------------------------------


def streamed(text: str, *, size: int, **options: object) -> tuple[str, list[str]]:
    """The whole output of a stream of pieces of `size` characters, and what was added by each piece."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=40, **options)  # type: ignore[arg-type]
    frame = Frame.for_model_type("qwen2_5_vl", seen_size=Size(140, 112))
    stream = TextStream(console, frame)
    steps = []
    for start in range(0, len(text), size):
        before = len(out.getvalue())
        stream.write(text[start : start + size])
        steps.append(out.getvalue()[before:])
    stream.end(parse(text, frame))
    return out.getvalue(), steps


ORANGE_BEHIND, BLUE_BEHIND = "48;2;230;159;0m", "48;2;86;180;233m"
TWO = (
    "<think>A dog [14, 28, 56, 84], a cat [1, 2, 30, 40], no box [900, 2, 30, 40].</think><answer>2</answer>"
)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pointings_are_coloured_in_their_order_however_the_text_comes(size):
    out, _ = streamed(TWO, size=size)
    assert out.count(ORANGE_BEHIND) == out.count(BLUE_BEHIND) == 1
    assert f"{ORANGE_BEHIND}[14, 28, 56, 84]\x1b[0m" in out
    assert f"{BLUE_BEHIND}[1, 2, 30, 40]\x1b[0m" in out
    assert "[900, 2, 30, 40]" in out


OBJECTS = '[{"bbox_2d": [14, 28, 56, 84], "label": "dog"},\n {"label": "cat", "bbox_2d": [1, 2, 30, 40]}]'


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("text", [OBJECTS, f"```json\n{OBJECTS}\n```", f'{{"objects": {OBJECTS}}}'])
def test_pointings_in_objects_are_coloured_too(text, size):
    out, _ = streamed(text, size=size)
    assert f"{ORANGE_BEHIND}[14, 28, 56, 84]\x1b[0m" in out
    assert f"{BLUE_BEHIND}[1, 2, 30, 40]\x1b[0m" in out


def test_text_is_shown_as_it_comes_but_for_coordinates_that_are_not_whole():
    _, steps = streamed(TWO, size=1)
    assert steps[TWO.index("A")] == "A"
    opened = TWO.index("[14")
    assert all(step == "" for step in steps[opened : TWO.index("84]") + 2])
    assert "[14, 28, 56, 84]" in steps[TWO.index("84]") + 2]


def test_without_colour_the_pointings_are_still_underlined(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out, _ = streamed(TWO, size=3)
    assert "48;2" not in out
    assert "\x1b[4m[14, 28, 56, 84]\x1b[0m" in out


@pytest.mark.parametrize(
    "text", ["", "[" * 500, "a < b " * 100, "[[1, 2, 3, 4], [5, 6, 70, 80]]", "line\n\nbreaks [\n"]
)
def test_all_of_a_text_is_shown_once_whatever_it_is(text):
    out, _ = streamed(text, size=7, no_color=True)
    assert out.replace("\x1b[4m", "").replace("\x1b[0m", "") == text + "\n"


def test_harmless_text_keeps_its_length():
    text = "a\tb\n\x1b[31m\x00\u202e\x9b \u00e9"
    assert harmless(text) == "a\tb\n\ufffd[31m\ufffd\ufffd\ufffd \u00e9"
