"""Tables of every kind become the same rows; columns, pictures and boxes are found, asked for, or named in an error."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from opengrit.core.errors import DataError
from opengrit.core.types import Example
from opengrit.data import load_examples
from opengrit.data.importing import BadTable, Imported, import_table
from opengrit.data.tables import Columns, TableSettings

SIZES = {"cat.png": (200, 100), "dogs.png": (120, 240), "empty.png": (64, 64)}
QUESTIONS = {
    "cat.png": "How many cats are there in the picture?",
    "dogs.png": "How many dogs are there in the picture?",
    "empty.png": 'Is the sky, "above", blue?',
}
ANSWERS = {"cat.png": 1, "dogs.png": 2, "empty.png": "NA"}
BOXES: dict[str, list[list[float]]] = {
    "cat.png": [[20, 10, 60, 50]],
    "dogs.png": [[10, 10, 50, 120.5], [60, 30, 110, 230]],
    "empty.png": [],
}
NAMES = list(SIZES)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in SIZES.items():
        Image.new("RGB", size, (size[0], 80, 40)).save(folder / name)
    return folder


def flat_rows() -> list[dict[str, Any]]:
    return [
        {"image": name, "question": QUESTIONS[name], "answer": ANSWERS[name], "bboxs": BOXES[name]}
        for name in NAMES
    ]


def frame() -> Any:
    import pandas

    rows = [row | {"bboxs": json.dumps(row["bboxs"])} for row in flat_rows()]
    return pandas.DataFrame(rows)


def lines(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def csv(folder: Path, photos: Path) -> Path:
    """As Excel saves it: with a byte order mark, and counts as floats."""
    made = frame()
    made["answer"] = ["1.0", "2.0", "NA"]
    made.to_csv(folder / "set.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    return folder / "set.csv"


def tsv(folder: Path, photos: Path) -> Path:
    frame().to_csv(folder / "set.tsv", index=False, sep="\t")
    return folder / "set.tsv"


def xlsx(folder: Path, photos: Path) -> Path:
    pytest.importorskip("openpyxl")
    frame().to_excel(folder / "set.xlsx", index=False)
    return folder / "set.xlsx"


def with_pictures(photos: Path) -> Any:
    """A data set whose pictures are in it, as those of the hub are."""
    import datasets

    rows = [
        row
        | {
            "image": {"bytes": (photos / row["image"]).read_bytes(), "path": row["image"]},
            "answer": str(row["answer"]),
        }
        for row in flat_rows()
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "bboxs": datasets.List(datasets.List(datasets.Value("float64"))),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def parquet(folder: Path, photos: Path) -> Path:
    with_pictures(photos).to_parquet(folder / "set.parquet")
    return folder / "set.parquet"


def saved(folder: Path, photos: Path) -> Path:
    with_pictures(photos).save_to_disk(folder / "set")
    return folder / "set"


def json_document(folder: Path, photos: Path) -> Path:
    (folder / "set.json").write_text(json.dumps(flat_rows()), encoding="utf-8")
    return folder / "set.json"


def swift(folder: Path, photos: Path) -> Path:
    rows = []
    for name in NAMES:
        width, height = SIZES[name]
        unit = [[x / width, y / height, r / width, b / height] for x, y, r, b in BOXES[name]]
        turns = [
            {"role": "user", "content": f"<image>{QUESTIONS[name].replace('cats', '<ref-object>')}"},
            {"role": "assistant", "content": str(ANSWERS[name])},
        ]
        objects = {"ref": ["cats"], "bbox": unit, "bbox_type": "norm1"}
        rows.append({"messages": turns, "images": [f"/data/other/{name}"], "objects": objects})
    return lines(rows, folder / "set.jsonl")


def llava(folder: Path, photos: Path) -> Path:
    rows = [
        {
            "id": number,
            "image": name,
            "conversations": [
                {"from": "human", "value": f"<image>\n{QUESTIONS[name]}"},
                {"from": "gpt", "value": f"<answer>{ANSWERS[name]}</answer>"},
            ],
            "boxes": BOXES[name],
        }
        for number, name in enumerate(NAMES)
    ]
    (folder / "set.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "set.json"


def openai(folder: Path, photos: Path) -> Path:
    rows = []
    for name in NAMES:
        address = "data:image/png;base64," + base64.b64encode((photos / name).read_bytes()).decode()
        content = [
            {"type": "image_url", "image_url": {"url": address}},
            {"type": "text", "text": QUESTIONS[name]},
        ]
        turns = [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": content},
            {"role": "assistant", "content": str(ANSWERS[name])},
        ]
        rows.append({"messages": turns, "bboxs": BOXES[name]})
    return lines(rows, folder / "set.jsonl")


KINDS = (csv, tsv, xlsx, parquet, saved, json_document, swift, llava, openai)


def imported(source: str | Path, photos: Path, out: Path, **asked: Any) -> Imported:
    return import_table(
        str(source), images=photos, settings=TableSettings(**asked), pictures=out / "pictures"
    )


def facts(example: Example, folder: Path) -> tuple[Any, ...]:
    size = example.picture_size
    boxes = [tuple(round(corner, 3) for corner in box.to_pixels(size)) for box in example.boxes]
    pixels = Image.open(example.image).tobytes()
    return (
        example.question,
        example.accepted,
        (size.width, size.height),
        boxes,
        example.boxes_known,
        example.dataset,
        pixels,
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_input_becomes_the_same_rows(
    kind: Callable[[Path, Path], Path], tmp_path: Path, photos: Path
) -> None:
    read = imported(kind(tmp_path, photos), photos, tmp_path)
    expected = [
        (
            QUESTIONS[name],
            (str(ANSWERS[name]),),
            SIZES[name],
            [tuple(float(corner) for corner in box) for box in BOXES[name]],
            True,
            "set",
            Image.open(photos / name).tobytes(),
        )
        for name in NAMES
    ]
    assert [facts(example, photos) for example in read.examples] == expected
    assert read.doubts == ()


def test_coco_annotations_become_counts_or_places(tmp_path: Path, photos: Path) -> None:
    boxes = [
        ("cat.png", 1, [20, 10, 40, 40]),
        ("dogs.png", 2, [10, 10, 40, 110.5]),
        ("dogs.png", 2, [60, 30, 50, 200]),
    ]
    document = {
        "images": [
            {"id": 7 + n, "file_name": name, "width": SIZES[name][0], "height": SIZES[name][1]}
            for n, name in enumerate(NAMES)
        ],
        "annotations": [
            *({"image_id": 7 + NAMES.index(name), "category_id": kind, "bbox": box} for name, kind, box in boxes),
            {"image_id": 9, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip
    (tmp_path / "set.json").write_text(json.dumps(document))
    counts = imported(tmp_path / "set.json", photos, tmp_path)
    assert [facts(one, photos)[:4] for one in counts.examples] == [
        (QUESTIONS[name], (str(ANSWERS[name]),), SIZES[name], [tuple(map(float, box)) for box in BOXES[name]])
        for name in NAMES[:2]
    ]
    assert [one.key_words for one in counts.examples] == [("cat",), ("dog",)]
    assert "crowd" in counts.notes[0]
    (place,) = imported(tmp_path / "set.json", photos, tmp_path, coco="boxes").examples
    assert (place.question, place.answer) == ("Where is the cat?", "[20, 10, 60, 50]")


# -- columns ---------------------------------------------------------------------------------------------------------


def sheet(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_found_by_what_is_in_them(tmp_path: Path, photos: Path) -> None:
    """Names in another language, a column of another use, blank rows and a blank column."""
    text = "Datei;Frage;Antwort;\nCAT;Wie viele Katzen?;1;\n;;;\n/old/disk/dogs.PNG;Wie viele Hunde?;2;\n"
    found = imported(sheet(tmp_path / "a.csv", text), photos, tmp_path)
    assert found.columns == "picture=Datei, question=Frage, answer=Antwort"
    assert [Path(one.image).name for one in found.examples] == ["cat.png", "dogs.png"]
    assert found.notes == ("1 blank rows are skipped",)


def test_what_is_ambiguous_is_an_error_with_the_candidates_until_it_is_said(
    tmp_path: Path, photos: Path
) -> None:
    text = "photo,picture,question,label,target\ncat.png,dogs.png,How many?,1,2\n"
    path = sheet(tmp_path / "a.csv", text)
    with pytest.raises(
        DataError, match=r"can hold the picture, .* has photo, picture; .*--columns picture=photo"
    ):
        imported(path, photos, tmp_path)
    with pytest.raises(DataError, match=r"can hold the answer, .* has label, target; "):
        imported(path, photos, tmp_path, columns=Columns(picture="photo"))
    (one,) = imported(path, photos, tmp_path, columns=Columns(picture="photo", answer="Target")).examples
    assert (Path(one.image).name, one.answer) == ("cat.png", "2")
    with pytest.raises(DataError, match="did you mean picture=photo"):
        imported(path, photos, tmp_path, columns=Columns(picture="fotos"))


def test_a_table_without_a_question_says_which_columns_it_has(tmp_path: Path, photos: Path) -> None:
    path = sheet(tmp_path / "a.csv", "file,count,note\ncat.png,1,x\n")
    with pytest.raises(
        DataError, match=r"a column for the question.*none is found \(columns: file, count, note"
    ):
        imported(path, photos, tmp_path)


# -- what is in the cells --------------------------------------------------------------------------------------------


def test_words_that_libraries_take_for_nothing_stay_answers(tmp_path: Path, photos: Path) -> None:
    answers = ["NA", "None", "null", "nan", "yes", "TRUE", "007", "1e3", "2.50", "N/A"]
    text = "image,question,answer\n" + "".join(f"cat.png,Q{n}?,{said}\n" for n, said in enumerate(answers))
    found = imported(sheet(tmp_path / "a.csv", text), photos, tmp_path)
    assert [one.answer for one in found.examples] == answers


def test_counts_beside_a_blank_are_whole_numbers_and_the_blank_is_named(tmp_path: Path, photos: Path) -> None:
    """Pandas turns a column of whole numbers with a gap into floats, and writes 2 as 2.0."""
    pytest.importorskip("openpyxl")
    import pandas

    rows = {
        "image": [30, 31, 32],
        "question": ["How many a?", "How many b?", "How many c?"],
        "answer": [2, None, 4],
    }
    pandas.DataFrame(rows).to_excel(tmp_path / "a.xlsx", index=False)
    for number in (30, 31, 32):  # a spreadsheet drops the zeros of 000000000030.jpg
        Image.new("RGB", (9, 9)).save(photos / f"{number:012d}.jpg")
    with pytest.raises(BadTable, match=r"1 of 3 are not:\n  row 3: answer: is blank"):
        imported(tmp_path / "a.xlsx", photos, tmp_path)
    found = import_table(str(tmp_path / "a.xlsx"), images=photos, pictures=tmp_path / "p", skip_bad_rows=True)
    assert [(one.answer, Path(one.image).name) for one in found.examples] == [
        ("2", "000000000030.jpg"),
        ("4", "000000000032.jpg"),
    ]
    assert any("left out: row 3: answer" in note for note in found.notes)


def test_several_answers_in_a_cell_are_all_accepted(tmp_path: Path, photos: Path) -> None:
    text = 'image,question,answer,also_accepted\ncat.png,What?,"[""cat"", ""kitten""]",a tabby|puss\n'
    (one,) = imported(sheet(tmp_path / "a.csv", text), photos, tmp_path).examples
    assert one.accepted == ("cat", "kitten", "a tabby", "puss")
    vqa = {
        "image": "cat.png",
        "question": "What?",
        "answers": [{"answer": a} for a in ("puss", "cat", "cat")],
    }
    (one,) = imported(lines([vqa], tmp_path / "a.jsonl"), photos, tmp_path).examples
    assert one.accepted == ("cat", "puss")  # the most frequent first


# -- what cannot be used ---------------------------------------------------------------------------------------------


def test_every_bad_row_is_listed_with_its_number_and_nothing_is_written(tmp_path: Path, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    (photos / "deep").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "deep" / "twice.png")
    Image.new("RGB", (9, 9)).save(photos / "twice.png.webp")
    (photos / "other").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "other" / "TWICE.png")
    rows = [
        "cat.png,A?,1",
        "gone.jpg,B?,1",
        "cat.png,C?,1,2",
        "x" * 5000 + ".png,D?,1",
        "../photos/cat.png,E?,1",
        "twice.png,F?,1",
        "broken.png,G?,1",
        "cat.png,,1",
        "dogs.png,,1",
        '"cat.png","Which,\nof these?",1',
        "gone.jpg,H?,1",
    ]
    path = sheet(tmp_path / "a.csv", "image,question,answer\n" + "\n".join(rows) + "\n")
    with pytest.raises(BadTable) as caught:
        imported(path, photos, tmp_path)
    said = str(caught.value)
    assert "8 of 11 are not" in said
    assert "row 4: a row has one value for each header name" in said
    assert "rows 9, 10: question: is blank" in said  # one problem, told once
    assert "rows 3, 5, 12: image: a row's picture must be a file in" in said
    assert "row 7: image: a name must mean one file" in said
    assert "row 8: image: " in said
    assert not (tmp_path / "pictures").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "photos"]


def test_pictures_are_looked_for_in_the_given_folder_alone(tmp_path: Path, photos: Path) -> None:
    """Without a folder, the table's own is not searched: a file of that name deeper down, or beside it, is another's."""
    path = sheet(tmp_path / "a.csv", "image,question,answer\nCAT.png,Q?,1\n")
    with pytest.raises(BadTable, match="name their folder with --images"):
        import_table(str(path), pictures=tmp_path / "p")
    inside = tmp_path / "empty"
    inside.mkdir()
    with pytest.raises(BadTable):
        import_table(str(path), images=inside, pictures=tmp_path / "p")


def test_a_row_that_is_there_twice_is_taken_once(tmp_path: Path, photos: Path) -> None:
    text = "image,question,answer\ncat.png,Q?,1\ncat,Q?,1\ncat.png,Q?,2\n"
    found = imported(sheet(tmp_path / "a.csv", text), photos, tmp_path)
    assert [one.answer for one in found.examples] == ["1", "2"]
    assert found.notes[0].endswith("rows (same picture, question and answer) are left out: 1")
    assert "with two different answers" in str(found.doubts[0])


# -- boxes -----------------------------------------------------------------------------------------------------------

CORNERS = [
    (10.0, 20.0, 60.0, 90.0),
    (100.0, 10.0, 150.0, 95.0),
    (40.0, 5.0, 180.0, 60.0),
    (120.0, 30.0, 199.0, 99.0),
]


def as_written(corners: tuple[float, ...], style: str, units: str) -> list[float]:
    left, top, right, bottom = corners
    numbers = [left, top, right - left, bottom - top] if style == "xywh" else [left, top, right, bottom]
    whole = {"pixels": None, "percent": 100, "unit": 1, "thousand": 1000}[units]
    if whole is None:
        return numbers
    return [value / side * whole for value, side in zip(numbers, (200, 100) * 2, strict=True)]


@pytest.mark.parametrize("units", ["pixels", "percent", "unit", "thousand"])
@pytest.mark.parametrize("corners", ["xyxy", "xywh"])
def test_boxes_are_converted_when_said_so_and_suspected_when_not(
    corners: Any, units: Any, tmp_path: Path, photos: Path
) -> None:
    rows = [
        {"image": "cat.png", "question": f"Q{n}?", "answer": 1, "bbox": [as_written(box, corners, units)]}
        for n, box in enumerate(CORNERS)
    ]
    path = lines(rows, tmp_path / "a.jsonl")
    said = imported(path, photos, tmp_path, corners=corners, units=units)
    boxes = [example.boxes[0].to_pixels(example.picture_size) for example in said.examples]
    assert boxes == [pytest.approx(box, abs=1e-3) for box in CORNERS]
    assert said.doubts == ()
    options = [f"--boxes {corners}"] * (corners != "xyxy") + [f"--box-units {units}"] * (units != "pixels")
    try:
        doubts = " ".join(map(str, imported(path, photos, tmp_path).doubts))
    except BadTable as error:
        doubts = str(error)
    if units == "percent":  # numbers up to 100 fit a small picture: only large ones can tell
        return
    assert (" ".join(options) in doubts) if options else doubts == ""


def test_boxes_that_fail_alike_are_one_line(tmp_path: Path, photos: Path) -> None:
    boxes = [[10 + n, 10, 5, 50] if n % 2 else [10, 10, 150, 9000 + n] for n in range(8)]
    rows = [
        {"image": "cat.png", "question": f"Q{n}?", "answer": 1, "bboxs": [box]} for n, box in enumerate(boxes)
    ]
    with pytest.raises(BadTable) as caught:
        imported(lines(rows, tmp_path / "a.jsonl"), photos, tmp_path)
    said = str(caught.value).splitlines()
    assert len(said) == 4
    assert said[1].startswith("  rows 1, 3, 5, 7: bboxs: a box must lie in its picture")
    assert said[1].endswith("(this is row 1)")
    assert said[2].startswith("  rows 2, 4, 6, 8: bboxs: a box has left < right")


def test_per_cent_is_suspected_in_large_pictures(tmp_path: Path, photos: Path) -> None:
    Image.new("RGB", (1000, 800)).save(photos / "large.png")
    boxes = [[n, n, n + 50, n + 40] for n in range(9)]
    rows = [{"image": "large.png", "question": f"Q{b}?", "answer": 1, "boxes": [b]} for b in boxes]
    found = imported(lines(rows, tmp_path / "a.jsonl"), photos, tmp_path)
    assert "--box-units percent" in str(found.doubts[0])


@pytest.mark.parametrize(
    "cell",
    [
        [[20, 10, 60, 50]],
        [20, 10, 60, 50],
        "[[20, 10, 60, 50]]",
        "20, 10, 60, 50",
        "20 10 60 50",
        {"bbox": [[20, 10, 60, 50]]},
        [{"bbox_2d": [20, 10, 60, 50], "label": "cat"}],
        [{"x1": 20, "y1": 10, "x2": 60, "y2": 50}],
        {"x": 20, "y": 10, "width": 40, "height": 40},
    ],
)
def test_a_box_is_read_however_it_is_written(cell: Any, tmp_path: Path, photos: Path) -> None:
    row = {"image": "cat.png", "question": "Q?", "answer": 1, "boxes": cell}
    (one,) = imported(lines([row], tmp_path / "a.jsonl"), photos, tmp_path).examples
    assert one.boxes[0].to_pixels(one.picture_size) == pytest.approx((20, 10, 60, 50))


def test_boxes_of_a_rescaled_picture_are_scaled_and_those_of_another_shape_refused(
    tmp_path: Path, photos: Path
) -> None:
    row = {
        "image": "cat.png",
        "question": "Q?",
        "answer": 1,
        "bboxs": [[40, 20, 120, 100]],
        "width": 400,
        "height": 200,
    }
    (one,) = imported(lines([row], tmp_path / "a.jsonl"), photos, tmp_path).examples
    assert one.boxes[0].to_pixels(one.picture_size) == pytest.approx((20, 10, 60, 50))
    with pytest.raises(BadTable, match="it is 200 x 100 and the row says 400 x 400"):
        imported(lines([row | {"height": 400}], tmp_path / "a.jsonl"), photos, tmp_path)


# -- as data sources -------------------------------------------------------------------------------------------------


def test_tables_folders_and_patterns_are_data_sets(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENGRIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    lines([row | {"split": "train"} for row in flat_rows()[:1]], folder / "a.jsonl")
    sheet(folder / "b.csv", "image,question,answer\ndogs.png,How many dogs?,2\n")
    (folder / "notes.txt").write_text("no rows")
    for spec in (str(folder), str(folder / "*")):
        assert [one.id for one in load_examples(spec, photos)] == ["a:1", "b:2"]
    embedded = load_examples(parquet(tmp_path, photos))
    assert [one.answer for one in embedded] == ["1", "2", "NA"]
    assert all(Path(one.image).is_relative_to(tmp_path / "cache") for one in embedded)
    asked = TableSettings(columns=Columns(picture="p", question="q", answer="a"))
    other = lines([{"p": "cat.png", "q": "Q?", "a": "x"}], tmp_path / "other.jsonl")
    (one,) = load_examples(other, photos, table=asked)
    assert replace(one, image="") == Example(
        "other:1", "Q?", "x", "", "other", one.picture_size, boxes_known=False
    )


# -- as programs save them -------------------------------------------------------------------------------------------

ONE = "image,question,answer\ncat.png,How many cats?,1\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("unicode.tsv", ONE.replace(",", "\t").encode("utf-16")),  # Excel's "Unicode text"
        ("europe.csv", ONE.replace(",", ";").encode()),
        ("trailing.csv", ONE.replace("\n", ",\n").encode()),
        (
            "rows-only.csv",
            ONE.replace("1\n", "1,\n").encode(),
        ),  # a separator behind each row, none behind the header
        ("said.csv", b"sep=;\r\n" + ONE.replace(",", ";").encode()),  # Excel's own first line
        ("pipes.csv", ONE.replace(",", "|").encode()),
        ("spaced.csv", ONE.replace(",", ", ").encode()),
        ("old-mac.csv", ONE.replace("\n", "\r").encode()),
        ("commas.csv", b"image;question, in words;answer\ncat.png;How many cats?;1\n"),
        ("blank.csv", b"\n\n" + ONE.encode()),
        ("title.csv", b"Our cats, 2024,,\n,,\n" + ONE.encode()),
        ("groups.csv", b"Photo,What is asked,\n" + ONE.encode()),
        ("lines.json", b'{"image": "cat.png", "question": "How many cats?", "answer": 1}\n'),
        (
            "inside.json",
            b'{"info": {}, "data": [{"image": "cat.png", "question": "How many cats?", "answer": 1}]}',
        ),
        ("float.jsonl", b'{"image": "cat", "question": "<image>How many cats?", "answer": 1.0}\n'),
    ],
)
def test_a_file_is_read_as_its_program_saves_it(
    name: str, content: bytes, tmp_path: Path, photos: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (one,) = imported(tmp_path / name, photos, tmp_path).examples
    assert (Path(one.image).name, one.question, one.answer) == ("cat.png", "How many cats?", "1")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", ONE.replace("cats", "caf\u00e9s").encode("cp1252"), "save it as CSV UTF-8"),
        ("a.csv", b"image,question,answer\n", "at least one row"),
        ("a.csv", b"image,question,answer\ncat.png,Left, or right?,1\ncat.png,Up, or down?,1\n", "put those that hold a ',' in quotes"),
        ("a.csv", b"cat.png,How many cats?,1\ndogs.png,How many dogs?,2\n", "write a row of names above it"),
        ("a.csv", ONE.encode() + b'dogs.png,"How many dogs?,2\ncat.png,Is it one?,Yes\n', r"in row 3 of .* do not"),
        ("a.xlsx", b"no workbook", "Excel workbook"),
        ("a.parquet", b"no parquet", "fetch it again"),
        ("a.json", b"[1, 2]", "a list of objects"),
        ("a.json", b"{", "fix it, or name it .jsonl"),
        ("a.jsonl", b'{"image": "a", "image": "b"}\n', "a field occurs twice"),
        ("a.txt", b"x", "save it as one of these"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_says_what_to_do(
    name: str, content: bytes, said: str, tmp_path: Path, photos: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        imported(tmp_path / name, photos, tmp_path)


def test_rows_keep_the_numbers_that_a_spreadsheet_shows(tmp_path: Path, photos: Path) -> None:
    text = 'Our cats,,\n\nimage,question,answer\ncat.png,"How many\ncats?",1\n,,\nnone.png,How many?,2\n'
    with pytest.raises(BadTable, match=r"row 6: .*missing: none\.png; copy them there"):
        imported(sheet(tmp_path / "a.csv", text), photos, tmp_path)


def test_of_a_workbook_the_sheet_that_can_be_a_table_is_read_and_named(tmp_path: Path, photos: Path) -> None:
    import pandas

    with pandas.ExcelWriter(tmp_path / "a.xlsx") as book:
        pandas.DataFrame({"Read me": ["made by hand"]}).to_excel(book, sheet_name="Notes", index=False)
        frame().to_excel(book, sheet_name="Cats", index=False, startrow=2)
    found = imported(tmp_path / "a.xlsx", photos, tmp_path)
    assert len(found.examples) == len(NAMES)
    assert "has 2 sheets, Cats is read" in found.notes[0]


def test_a_name_is_the_same_composed_or_in_parts(tmp_path: Path, photos: Path) -> None:
    (photos / "cat.png").rename(photos / "ka\u0308tzchen.png")  # as macOS writes it
    text = "image,question,answer\nK\u00c4TZCHEN.png,How many cats?,1\n"
    (one,) = imported(sheet(tmp_path / "a.csv", text), photos, tmp_path).examples
    assert Path(one.image).name == "ka\u0308tzchen.png"


# -- whatever is in the cells ----------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "cat.png", "[1,2", "1,2,3,4", "NA", "\0", "x" * 5000, "http://a/b.jpg", "../x", "<image>", "\\boxed{3}", "data:image/png;base64,AAAA"])  # fmt: skip
WORDS = st.sampled_from(["bytes", "path", "bbox", "ref", "bbox_type", "x", "y", "width", "height", "type", "text", "image_url", "url", "role", "content", "from", "value", "answer"])  # fmt: skip
CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 900)
    | st.floats(allow_nan=True)
    | TEXTS
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
NAMED = (
    "messages",
    "conversations",
    "objects",
    "images",
    "bbox",
    "width",
    "height",
    "also_accepted",
    "key_words",
    "split",
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "image": st.just("cat.png") | CELLS,
            "question": st.just("How many?") | CELLS,
            "answer": st.just(2) | CELLS,
        },
        optional=dict.fromkeys(NAMED, CELLS),
    ),
    min_size=1,
    max_size=3,
)


@given(rows=ROWS, corners=st.sampled_from([None, "xywh"]), units=st.sampled_from([None, "unit", "percent"]))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_cell_is_used_or_told_and_never_a_crash(
    rows: list[dict[str, Any]], corners: Any, units: Any, tmp_path: Path, photos: Path
) -> None:
    path = lines(rows, tmp_path / "any.jsonl")
    with TemporaryDirectory(dir=tmp_path) as out, suppress(DataError):
        imported(path, photos, Path(out), corners=corners, units=units)
