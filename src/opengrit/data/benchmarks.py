"""The data sets known by name: what their files are called, where they and their pictures come from, and under which licence.

A figure is given only where it was counted on the released file or read at the named source; what we do not know is
None and is printed as "unknown". The list of files and folders is that of GRIT's own scripts. A new benchmark is an
entry in `BENCHMARKS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opengrit.core.errors import DataError
from opengrit.data.pictures.addresses import HOSTS
from opengrit.data.pictures.archives import members
from opengrit.data.pictures.parquet import TableReader, mathvista_pictures, mme_pictures
from opengrit.data.pictures.treebench import treebench_pictures, treebench_rows

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """One file of questions. `rows` is None where we never counted them."""

    name: str
    rows: int | None
    sha256: str | None = None  # of the published file; None: recorded on the first fetch
    saved_as: str | None = (
        None  # once it holds GRIT's rows, whose data set and ids are its stem; None: by its own name
    )


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a benchmark's pictures come from; many lie on a user's disk already."""

    source: str
    licence: str
    named: str  # how a row names one, so that the right folder can be given
    count: int | None
    size: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of the hub that holds pictures; its size is for people."""

    name: str
    size: str


@dataclass(frozen=True, slots=True)
class Archives:
    """Pictures that are in archives of a data set of the hub: asked for in this order, while pictures are missing."""

    repository: str
    files: tuple[ArchiveFile, ...]
    read: TableReader

    @property
    def page(self) -> str:
        """Where a person finds the files."""
        return f"https://huggingface.co/datasets/{self.repository}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark by name. `repository` is a data set of the Hugging Face hub, None where there is none."""

    name: str
    title: str
    files: tuple[AnnotationFile, ...]
    repository: str | None
    page: str  # where a person finds the files
    licence: str  # of the annotations
    pictures: Pictures
    datasets: tuple[str, ...]  # the `dataset` values of its rows
    answers: str  # what an answer is and how it is judged
    note: str = ""
    to_grit: Callable[[Path, str], str] | None = (
        None  # a file and its data set -> GRIT's rows; None: it holds them
    )
    folder: str = ""  # below the page's root, "" for the root itself
    hosts: tuple[str, ...] = ()  # that have the pictures one by one, see pictures/addresses.py
    archives: Archives | None = None  # that have them instead

    @property
    def rows(self) -> int | None:
        """How many questions all files hold together; None where one was never counted."""
        counts = [file.rows for file in self.files]
        return None if None in counts else sum(count for count in counts if count is not None)


_GRIT_REPOSITORY = "yfan1997/GRIT_data"
_GRIT_PAGE = f"https://huggingface.co/datasets/{_GRIT_REPOSITORY}"
_COCO = "COCO 2017, train and val (https://cocodataset.org)"
_COCO_LICENCE = HOSTS["coco"].licence
_GENOME = "Visual Genome, VG_100K and VG_100K_2 (https://homes.cs.washington.edu/~ranjay/visualgenome)"
_GENOME_LICENCE = HOSTS["visual-genome"].licence


_grit = partial(Benchmark, repository=_GRIT_REPOSITORY, page=_GRIT_PAGE, licence=UNKNOWN)


def _pope_rows(source: Path, dataset: str) -> str:
    """POPE's lines as GRIT's rows. The pictures' sizes are not in them: they are read from the pictures."""
    lines = []
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            question, answer, image = row["text"], row["label"].strip().capitalize(), row["image"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"a line of POPE has text, label and image, line {number} of {source} does not ({error}); fetch it again"
            ) from error
        if answer not in ("Yes", "No"):
            raise DataError(
                f"a label of POPE is yes or no, line {number} of {source} has {answer!r}; fetch it again"
            )
        lines.append(json.dumps({"question": question, "answer": answer, "image": image, "dataset": dataset}))
    return "\n".join(lines) + "\n"


BENCHMARKS: tuple[Benchmark, ...] = (
    _grit(
        name="grit20",
        title="GRIT's twenty training rows: ten of VSR, ten of TallyQA",
        files=(
            AnnotationFile("vsr_cot_train_10.jsonl", 10),
            AnnotationFile("tallyqa_train_10.jsonl", 10),
        ),
        pictures=Pictures(
            f"{_COCO}; {_GENOME}",
            f"COCO: {_COCO_LICENCE}; Visual Genome: {_GENOME_LICENCE}",
            "000000385473.jpg",
            20,
            "about 3 MB",
        ),
        datasets=("vsr", "tallyqa"),
        answers="yes/no or a word (VSR), a whole number (TallyQA): what the packaged grit20 recipes train on",
        note="one of its pictures, 000000076970.jpg, is in vsr too",
        hosts=("coco", "visual-genome"),
    ),
    _grit(
        name="vsr",
        title="VSR, GRIT's hand-checked questions about spatial relations",
        files=(AnnotationFile("vsr_val.jsonl", 288),),
        pictures=Pictures(_COCO, _COCO_LICENCE, "000000538194.jpg", 247, "about 45 MB"),
        datasets=("vsr",),
        answers="yes/no (206 rows) or a word (82 rows); by rule, or by a judge that knows synonyms",
        note=(
            "one box around the whole picture scores grounding IoU 0.588: compare every figure with that control"
        ),
        hosts=("coco",),
    ),
    _grit(
        name="tallyqa",
        title="TallyQA, counts 0 to 9 in equal parts",
        files=(AnnotationFile("tallyqa_val.jsonl", 491),),
        pictures=Pictures(_GENOME, _GENOME_LICENCE, "VG_100K_2/2414837.jpg", 465, "about 50 MB"),
        datasets=("tallyqa",),
        answers="a whole number, in figures or words",
        note="often one box covers a group: only 102 rows have as many boxes as things, 50 of them with 0",
        hosts=("visual-genome",),
    ),
    Benchmark(
        name="tallyqa-relabeled",
        title="TallyQA's 491 questions with one box for each thing counted, and corrected answers",
        files=(AnnotationFile("tallyqa_val.jsonl", 491),),
        repository="zsxm1998/GRIT-TallyQA-Relabeled",
        page="https://huggingface.co/datasets/zsxm1998/GRIT-TallyQA-Relabeled",
        licence=UNKNOWN,
        pictures=Pictures(_GENOME, _GENOME_LICENCE, "VG_100K_2/2414837.jpg", 465, "about 50 MB"),
        datasets=("tallyqa",),
        answers="a whole number, in figures or words",
        note="not GRIT's own: figures do not compare with table 1, but box counts are meaningful here",
        hosts=("visual-genome",),
    ),
    _grit(
        name="gqa",
        title="GQA, GRIT's hand-checked questions with one-word answers",
        files=(AnnotationFile("gqa_val.jsonl", 509),),
        pictures=Pictures(_GENOME, _GENOME_LICENCE, "images/2376641.jpg", 501, "about 55 MB"),
        datasets=("gqa",),
        answers="a word or two; by rule, or by a judge that knows synonyms",
        hosts=("visual-genome",),
    ),
    _grit(
        name="mathvista",
        title="MathVista testmini",
        files=(AnnotationFile("mathvista_mini_val.jsonl", 1000),),
        pictures=Pictures(
            "AI4Math/MathVista on the Hugging Face hub", "CC BY-SA 4.0", "2.png", 1000, "142 MB packed"
        ),
        datasets=("mathvista_mini",),
        answers="an option by letter or by text (540 rows), a number (458 rows) or a list of numbers (2 rows)",
        note=(
            "the question asks for an option's letter, and the row's answer is its text; both count as right"
        ),
        archives=Archives(
            "AI4Math/MathVista",
            (ArchiveFile("data/testmini-00000-of-00001-725687bf7a18d64b.parquet", "142 MB"),),
            mathvista_pictures,
        ),
    ),
    _grit(
        name="mme",
        title="MME: existence, count, position, colour",
        files=(AnnotationFile("mme_val.jsonl", 240),),
        pictures=Pictures(
            "MME (arXiv 2306.13394), stored once for each question; lmms-lab/MME on the Hugging Face hub",
            UNKNOWN,
            "000860.png",
            240,
            "about 135 MB packed, 865 MB if all files are needed",
        ),
        datasets=("mme_color", "mme_count", "mme_existence", "mme_position"),
        answers="yes/no; two questions a picture, accuracy+ asks for both",
        archives=Archives(
            "lmms-lab/MME",
            (  # the files' order is 0, 1, 2, 3; the four categories should be in these two, and are looked for in all
                ArchiveFile("data/test-00001-of-00004-7d22c7f1aba6fca4.parquet", "110 MB"),
                ArchiveFile("data/test-00003-of-00004-53ae1794f93b1e35.parquet", "25 MB"),
                ArchiveFile("data/test-00000-of-00004-a25dbe3b44c4fda6.parquet", "35 MB"),
                ArchiveFile("data/test-00002-of-00004-594798fd3f5b029c.parquet", "695 MB"),
            ),
            mme_pictures,
        ),
    ),
    _grit(
        name="ovdeval",
        title="OVDEval position, reduced to one target a picture",
        files=(AnnotationFile("ovd_position_val.jsonl", 2146),),
        pictures=Pictures(
            "omlab/OVDEval on the Hugging Face hub, position.tar.gz",
            "OpenRAIL",
            "64d06716e4b011b0db8f35f7.jpg",
            2107,
            "216 MB",
        ),
        datasets=("ovd_position",),
        answers="a box: measured by grounding IoU and AP, never by words",
        note="the paper says 2164 rows, the released file has 2146",
        archives=Archives("omlab/OVDEval", (ArchiveFile("position.tar.gz", "216 MB"),), members),
    ),
    Benchmark(
        name="treebench",
        title="TreeBench: small objects in crowded scenes, each question with its targets' boxes",
        files=(AnnotationFile("TreeBench.tsv", 405, saved_as="treebench.jsonl"),),
        repository="HaochenWang/TreeBench",
        page="https://huggingface.co/datasets/HaochenWang/TreeBench",
        licence=UNKNOWN,
        pictures=Pictures(
            "in the same file; photos of SA-1B",
            "SA-1B's own research licence",
            "0001.jpg",
            405,
            "part of the file",
        ),
        datasets=("treebench",),
        answers=(
            "an option by letter; the targets' IoU is recall alone, so it is shown with the IoU of the written boxes"
        ),
        to_grit=treebench_rows,
        archives=Archives(
            "HaochenWang/TreeBench", (ArchiveFile("TreeBench.tsv", "size unknown"),), treebench_pictures
        ),
    ),
    Benchmark(
        name="pope",
        title="POPE on COCO: is the object there? (random, popular, adversarial)",
        files=tuple(
            AnnotationFile(f"coco_pope_{kind}.json", None, saved_as=f"pope_{kind}.jsonl")
            for kind in ("random", "popular", "adversarial")
        ),
        repository=None,
        page="https://github.com/AoiDragon/POPE",
        folder="output/coco",
        licence="MIT",
        pictures=Pictures(
            "COCO 2014, val (https://cocodataset.org)", _COCO_LICENCE, "COCO_val2014_000000548882.jpg", None
        ),
        datasets=("pope_random", "pope_popular", "pope_adversarial"),
        answers="yes/no; F1 with yes as the positive class, and the share of yes",
        to_grit=_pope_rows,
        hosts=("coco",),
    ),
)


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name. Raises DataError, with the names there are, for another one."""
    found = next((known for known in BENCHMARKS if known.name == name), None)
    if found is not None:
        return found
    names = ", ".join(known.name for known in BENCHMARKS)
    remedy = (
        ", which is packaged: use its name, or write it as files with `opengrit data make stickers`"
        if name.startswith("stickers")
        else "; a file of your own in GRIT's format needs no download: name it with --data"
    )
    raise DataError(f"a benchmark to get is one of {names}, got {name!r}{remedy}")
