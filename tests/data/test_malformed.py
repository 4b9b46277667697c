"""Data as people bring it: what is fine, what is told, and whether the remedy works when it is done as told."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from opengrit.cli.app import app
from opengrit.core.boxes import Size
from opengrit.core.errors import DataError
from opengrit.core.types import Example, is_counting
from opengrit.data import Severity, load, load_examples, read
from opengrit.data.check import Source, check

ROW: dict[str, Any] = {
    "question": "What is this?", "answer": "cat", "image": "a.png", "width": 100, "height": 50, "bboxs": [[10, 5, 30, 25]],
}  # fmt: skip
TEXT = json.dumps(ROW)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said_of(tmp_path: Path, row: dict[str, Any]) -> str:
    """The one problem of a row, as printed."""
    (problem,) = read(write(tmp_path / "rows.jsonl", row)).problems
    return str(problem)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


# What editors, shells and Windows make of a file.


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{TEXT}\n",
        f"{TEXT}\n\n",
        f"{TEXT}\n   \n\t\n",
        f"\n\n{TEXT}",
        f"{TEXT}\r\n\r\n",
        f"\ufeff\r\n{TEXT}\r\n",
        f"{TEXT}\r",
        f"  {TEXT}  \n",
    ],
)
def test_marks_blank_lines_and_line_ends_are_no_errors(content: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content.encode())
    reading = read(file)
    assert (len(reading.examples), reading.problems, reading.rows) == (1, (), 1)


def test_lines_keep_their_numbers_behind_blank_ones(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(f"\ufeff\n{TEXT}\r\n\r\n{TEXT}\r\n{{\r\n".encode())
    reading = read(file)
    assert [e.id for e in reading.examples] == ["a:2", "a:4"]
    assert [p.line for p in reading.problems] == [5]


# Files of another format: one message, and what it says to do makes a file that loads.


def in_format(name: str, folder: Path) -> Path:
    rows = [ROW, ROW | {"question": "Who, and why?"}]
    plain = {key: value for key, value in ROW.items() if key != "bboxs"}
    file = folder / "data file.x"
    match name:
        case "array":
            file.write_text(json.dumps(rows))
        case "array on many lines":
            file.write_text("\ufeff" + json.dumps(rows, indent=2), encoding="utf-8")
        case "one object on many lines":
            file.write_text(json.dumps(ROW, indent=2))
        case "csv" | "tsv" | "csv of Europe":
            separator = {"csv": ",", "tsv": "\t", "csv of Europe": ";"}[name]
            text = separator.join(plain) + "\n" + separator.join(str(v) for v in plain.values()) + "\n"
            file.write_text(text)
        case "gzip":
            file.write_bytes(gzip.compress(TEXT.encode()))
        case "utf-16":
            file.write_bytes(TEXT.encode("utf-16"))
        case "parquet":
            from datasets import Dataset

            Dataset.from_list(rows).to_parquet(file)
    return file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("array", "is one JSON document"),
        ("array on many lines", "is one JSON document"),
        ("one object on many lines", "is one JSON document"),
        ("csv", "is a table with the columns question, answer, image"),
        ("tsv", "is a table with the columns question, answer, image"),
        ("csv of Europe", "is a table with the columns question, answer, image"),
        ("utf-16", "is UTF-16"),
        pytest.param("parquet", "is Parquet", marks=pytest.mark.slow),
    ],
)
def test_the_remedy_for_a_file_of_another_format_works(name: str, said: str, tmp_path: Path) -> None:
    file = in_format(name, tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        load(file)
    message = str(caught.value)
    assert "\n" not in message
    _, colon, command = message.rpartition(": ")
    assert colon
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=120)
    made = shlex.split(command)[-1]
    Image.new("RGB", (ROW["width"], ROW["height"])).save(tmp_path / ROW["image"])
    example = load_examples(made, tmp_path)[0]
    assert (example.question, example.answer) == (ROW["question"], ROW["answer"])


def test_a_recipe_given_to_the_check_is_no_bad_file_of_rows(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: tiny-qwen2.5-vl\n")
    out = run("data", "check", recipe)
    assert out.exit_code == 2
    assert "is a recipe; name its files, or run opengrit doctor" in out.stderr


def test_a_packed_file_is_told_how_to_be_unpacked(tmp_path: Path) -> None:
    file = in_format("gzip", tmp_path)
    with pytest.raises(DataError, match=r"is gzip; unpack it: gunzip"):
        load(file)


# Text that belongs to a prompt or a reply, and not to a row.


@pytest.mark.parametrize(
    ("answer", "bare"),
    [
        ("<answer>2</answer>", '"2"'),
        ("<answer> two dogs", '"two dogs"'),
        ("<think>one, two</think><answer>2</answer>", '"2"'),
        ("\\boxed{2}", '"2"'),
        ("2</answer>", "take the tags off"),
        ("<|im_start|>2", "take the tags off"),
    ],
)
def test_an_answer_in_a_reply_s_clothes_is_an_error_with_the_bare_answer(
    answer: str, bare: str, tmp_path: Path
) -> None:
    said = said_of(tmp_path, ROW | {"answer": answer})
    assert "answer: must be only the answer" in said
    assert said.endswith(bare if "take" in bare else f"write {bare}")


@pytest.mark.parametrize("answer", ["x < answer", "a < b > c", "2", "<b>", "the answer", "\\frac{1}{2}"])
def test_an_answer_with_other_signs_is_fine(answer: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl", ROW | {"answer": answer})).problems == ()


@pytest.mark.parametrize(
    "sign",
    [
        "<image>",
        "<Image>",
        "<img>",
        "<|image_pad|>",
        "<|vision_start|>",
        "<IMG_CONTEXT>",
        "<image_1>",
        "<|image_1|>",
        "[IMG]",
    ],
)
def test_what_stands_for_a_picture_in_a_question_is_an_error(sign: str, tmp_path: Path) -> None:
    said = said_of(tmp_path, ROW | {"question": f"{sign}\nWhat is this?"})
    assert (
        f"question: must have no picture placeholder (the program inserts the picture), got {sign!r}" in said
    )


# Rows of other trainers: done key by key as told, they load.

FOREIGN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "open-r1 multimodal": (
        {"problem": "What is this?", "solution": "<answer>cat</answer>", "image_path": "a.png"},
        ['rename "problem" to "question"', 'rename "solution" to "answer"', 'the file name in "image_path" as "image"'],
    ),
    "LLaVA": (
        {"id": 1, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "x"}]},
        ['from "conversations" write the human turn\'s "value" without <image> as "question" and the gpt turn\'s as "answer"'],
    ),
    "TRL, ms-swift, LLaMA-Factory": (
        {
            "messages": [{"role": "user", "content": "<image>Where?"}, {"role": "assistant", "content": "x"}],
            "images": ["a.png"],
            "objects": {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]},
        },
        ['from "messages" write the user\'s text', 'the file name in "images" as "image"', 'the boxes in "objects" (its "bbox") as "bboxs"'],
    ),
    "ms-swift, old": (
        {"query": "Where?", "response": "x", "images": ["a.png"]},
        ['rename "query" to "question"', 'rename "response" to "answer"'],
    ),
    "verl": ({"prompt": "Where?", "ground_truth": "x", "images": ["a.png"]}, ['rename "prompt"', 'rename "ground_truth"']),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_rows_of_other_trainers_are_recognized_and_told_key_by_key(name: str, tmp_path: Path) -> None:
    row, steps = FOREIGN[name]
    said = said_of(tmp_path, row)
    assert "the keys of another trainer" in said
    for step in steps:
        assert step in said


def test_many_rows_of_another_trainer_are_told_in_a_few_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *[FOREIGN["LLaVA"][0]] * 500)
    out = run("data", "check", file).stdout
    assert "(499 more lines have the same problem: 2-500)" in out
    assert len(out.splitlines()) < 20
    assert "problems: 500" in out


@pytest.mark.parametrize("key", ["objects", "bbox", "bbox_2d", "boxes", "bboxes"])
def test_boxes_under_another_key_are_a_warning_because_they_would_be_lost(key: str, tmp_path: Path) -> None:
    row = {k: v for k, v in ROW.items() if k != "bboxs"} | {key: [[1, 2, 3, 4]]}
    (problem,) = read(write(tmp_path / "a.jsonl", row)).problems
    assert (problem.field, problem.severity) == (key, Severity.WARNING)
    assert "bboxs" in problem.message


# Pictures in the wrong words.


def png(width: int = 100, height: int = 50) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (base64.b64encode(png()).decode(), "the picture itself as"),
        ("data:image/png;base64," + base64.b64encode(png()).decode(), "the picture itself as"),
        ("https://example.org/a.png", "download it into the picture folder"),
        ("file:///home/me/a.png", "without file://"),
        (["a.png"], "got a list"),
        ({"bytes": "x", "path": "a.png"}, "got an object"),
    ],
)
def test_a_picture_that_is_no_path_is_told_what_it_is(image: Any, said: str, tmp_path: Path) -> None:
    found = said_of(tmp_path, ROW | {"image": image})
    assert said in found
    assert len(found) < 400


@pytest.mark.parametrize(
    "field",
    ["question", "answer", "image", "width", "bboxs", "dataset", "key_words", "split", "iVBOR" * 2000],
)
@pytest.mark.parametrize(
    "value", ["iVBORw0KGgo" + "A" * 100_000, ["A" * 100_000], {"A" * 100_000: 1}, 10**4000]
)
def test_no_message_prints_a_long_value_whole(field: str, value: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ROW | {field: value}, {"question": value})
    result = run("data", "check", file, "--images", tmp_path)
    assert len(result.stdout) + len(result.stderr) < 8000


def test_a_path_of_windows_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(png())
    (example,) = load_examples(write(tmp_path / "a.jsonl", ROW | {"image": "sub\\a.png"}))
    assert Path(example.image) == tmp_path / "sub" / "a.png"


@pytest.mark.parametrize("sized", [True, False])
def test_missing_pictures_are_told_once_with_the_folder_and_the_option(sized: bool, tmp_path: Path) -> None:
    row = ROW if sized else {k: v for k, v in ROW.items() if k not in ("width", "height")}
    file = write(tmp_path / "mine.jsonl", *(row | {"image": f"{i}.png"} for i in range(30)))
    with pytest.raises(DataError) as caught:
        load_examples(file)
    message = str(caught.value)
    first = message.splitlines()[0]
    assert f"30 of 30 named in {file} do not: {tmp_path / '0.png'}, " in first
    assert f"(looked for in {tmp_path})" in first
    assert "--images (images: in a recipe)" in message
    assert len(message.splitlines()) == 1
    photos = tmp_path / "photos"
    photos.mkdir()
    out = run("data", "check", file, "--images", photos)
    assert out.exit_code == 2
    assert "missing pictures: 30" in out.stdout
    assert f"looked for in {photos}; give the folder that holds them with --images" in out.stdout
    assert "problems" not in out.stdout
    for i in range(30):
        (photos / f"{i}.png").write_bytes(png())
    assert len(load_examples(file, photos)) == 30
    assert run("data", "check", file, "--images", photos).exit_code == 0


def test_without_a_folder_only_the_pictures_that_say_a_size_are_missed(tmp_path: Path) -> None:
    unsized = {"question": "Who?", "answer": "x", "image": "b.png"}
    (found,) = check([Source(write(tmp_path / "a.jsonl", ROW, unsized))]).files
    assert (found.missing_images, found.pictures_looked_for, found.unusable) == (
        (str(tmp_path / "b.png"),),
        False,
        True,
    )


# Boxes of other conventions.


def boxed(
    rng: random.Random, count: int, *, how: str, size: tuple[int, int] = (640, 480)
) -> list[dict[str, Any]]:
    rows = []
    for index in range(count):
        w, h = rng.uniform(0.05, 0.5) * size[0], rng.uniform(0.05, 0.5) * size[1]
        x, y = rng.uniform(0, size[0] - w), rng.uniform(0, size[1] - h)
        box = {
            "corners": [x, y, x + w, y + h], "widths": [x, y, w, h],
            "thousandths": [1000 * x / size[0], 1000 * y / size[1], 1000 * (x + w) / size[0], 1000 * (y + h) / size[1]],
            "shares": [x / size[0], y / size[1], (x + w) / size[0], (y + h) / size[1]],
        }[how]  # fmt: skip
        digits = 4 if how == "shares" else 0
        rows.append(
            ROW
            | {
                "question": f"{index}?",
                "width": size[0],
                "height": size[1],
                "bboxs": [[round(n, digits) for n in box]],
            }
        )
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_boxes_of_corners_raise_no_doubt_and_widths_do(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    corners = read(write(tmp_path / "a.jsonl", *boxed(rng, 20, how="corners")))
    assert (corners.problems, corners.doubts) == ((), ())
    widths = read(write(tmp_path / "b.jsonl", *boxed(rng, 20, how="widths")))
    (doubt,) = widths.doubts
    assert "seem to be x, y, width, height (COCO)" in str(doubt)
    assert doubt.misleads
    assert all("or if it is x, y, width, height" in p.message for p in widths.problems)


def test_widths_that_pass_as_corners_are_doubted_and_the_check_says_so(tmp_path: Path) -> None:
    """Near the top left every box of widths is one of corners as well: no row is wrong by itself."""
    rows = [ROW | {"question": f"{i}?", "bboxs": [[4 + i % 3, 3, 20 + i, 12]]} for i in range(20)]
    file = write(tmp_path / "a.jsonl", *rows)
    assert read(file).problems == ()
    result = run("data", "check", file)
    assert result.exit_code == 1
    assert "doubts: 1" in result.stdout
    assert "here [4, 3, 24, 15]" in result.stdout


@pytest.mark.parametrize("seed", range(5))
def test_thousandths_in_large_pictures_are_doubted_and_in_small_ones_refused(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    large = (4000, 3000)
    (doubt,) = read(write(tmp_path / "a.jsonl", *boxed(rng, 20, how="thousandths", size=large))).doubts
    assert "seem to be thousandths" in str(doubt)
    assert read(write(tmp_path / "c.jsonl", *boxed(rng, 20, how="corners", size=large))).doubts == ()
    problems = read(write(tmp_path / "b.jsonl", *boxed(rng, 20, how="thousandths"))).problems
    assert problems
    assert any("or if it is in thousandths" in p.message for p in problems)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([0.1, 0.2, 0.5, 0.9], "are fractions; multiply by width and height"),
        ([0, 0, 1, 1], "are fractions; multiply by width and height"),
        ([60, 30, 20, 10], "or if it is x, y, width, height (COCO) write [60, 30, 80, 40]"),
        ([60, 30, 50, 40], "put the corners in order"),
        (["1", "2", "3", "4"], "write pixels, without quotes"),
        ([1, 2, None, 4], "four finite numbers"),
        ("1,2,3,4", "write four numbers"),
        ({"x1": 1, "y1": 2, "x2": 3, "y2": 4}, "write four numbers"),
        ([[1, 2], [3, 4]], "write four numbers"),
    ],
)
def test_a_box_of_another_convention_is_told_what_it_may_be(box: Any, said: str, tmp_path: Path) -> None:
    assert said in said_of(tmp_path, ROW | {"bboxs": [box]})


def test_one_box_without_its_list_is_one_error(tmp_path: Path) -> None:
    assert said_of(tmp_path, ROW | {"bboxs": [10, 5, 30, 25]}).endswith("write [[10, 5, 30, 25]]")


# Answers of a whole file.


def test_sentences_and_contradictions_are_doubts(tmp_path: Path) -> None:
    rows = [ROW | {"question": f"{i}?", "answer": f"There is a cat on sofa {i}."} for i in range(3)]
    (doubt,) = read(write(tmp_path / "a.jsonl", *rows)).doubts
    assert "3 of 3 answers are sentences" in str(doubt)
    assert not doubt.misleads
    (doubt,) = read(
        write(tmp_path / "b.jsonl", ROW, ROW | {"question": "what is  THIS?", "answer": "dog"})
    ).doubts
    assert "'cat' in b:1 and 'dog' in b:2" in str(doubt)
    assert read(write(tmp_path / "c.jsonl", ROW, ROW)).doubts == ()


@pytest.mark.parametrize(
    ("question", "answer", "counts"),
    [
        ("How many dogs are there?", "2", True),
        ("In the picture, how many dogs are there?", "2", True),
        ("Looking at the left side of the photo how many red cars can be seen?", "0", True),
        ("Please tell me how many dogs there are.", "3", True),
        ("Count the dogs.", "3", True),
        ("please count all birds", "3", True),
        ("In the picture, how many dogs are there?", "two dogs", False),
        ("Can you see how many dogs there are?", "Yes", False),
        ("What number is on the shirt?", "7", False),
        ("Who is the count in the picture?", "1", False),
        (
            "Subtract all red balls. How many objects are left?",
            "4",
            False,
        ),  # arithmetic: the things left are not boxed
    ],
)
def test_what_counts_things(question: str, answer: str, counts: bool) -> None:
    assert is_counting(Example("a", question, answer, "a.png", "mine", Size(10, 10))) is counts
