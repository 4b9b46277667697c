"""Records are converted in a stream: however many a run has, a few are in memory at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from full_record import RECORD

from opengrit.converters.coco import write_coco
from opengrit.converters.fiftyone import write_fiftyone
from opengrit.converters.label_studio import write_label_studio
from opengrit.converters.source import Source
from opengrit.converters.tabular import write_csv, write_jsonl, write_parquet
from opengrit.core.types import Record
from opengrit.runs.folder import RunDir

ROWS, LOOKED_AT_EVERY = 1200, 300
WRITERS = (write_coco, write_csv, write_fiftyone, write_jsonl, write_label_studio, write_parquet)


def records_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, Record) for one in gc.get_objects())


@dataclass(frozen=True, slots=True)
class Watched(Source):
    """Counts the records that are in memory while its own are read."""

    held: list[int] = field(default_factory=list)

    def records(self) -> Iterator[Record]:
        # Its base by name: slots make the class anew, and `super()` without arguments would look for the first one.
        for number, record in enumerate(Source.records(self), start=1):
            if number % LOOKED_AT_EVERY == 0:
                self.held.append(records_in_memory())
            yield record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    made = RunDir.create(tmp_path_factory.mktemp("many") / "run", recipe="a: 1\n")
    with made.append_records() as writer:
        for number in range(ROWS):
            writer.write_record(replace(RECORD, id=f"{number}#0"))
    return made


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_converter_holds_a_few_records_at_a_time(write, run: RunDir, tmp_path: Path) -> None:
    before, source = records_in_memory(), Watched(run)
    assert write(source, tmp_path / "out") == ROWS
    assert len(source.held) >= ROWS // LOOKED_AT_EVERY
    assert max(source.held) - before <= 4


def test_a_run_gives_its_records_in_a_stream_also_where_some_stand_twice(run: RunDir) -> None:
    before, seen = records_in_memory(), 0
    for record in run.records():
        seen += 1
        if seen % LOOKED_AT_EVERY == 0:
            assert records_in_memory() - before <= 2, record.id
    assert seen == ROWS
