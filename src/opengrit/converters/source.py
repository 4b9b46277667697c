"""A run's records one by one, each with the place where its picture lies now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from opengrit.core.types import Record, Unjudged
from opengrit.runs.folder import RunDir
from opengrit.runs.origin import picture_paths, read_origin


@dataclass(frozen=True, slots=True)
class Source:
    """A run to convert. Pictures are looked for in `images` first, then where the run took them from."""

    run: RunDir
    images: Path | None = None

    def records(self) -> Iterator[Record]:
        """Every record, in order of writing, its picture's path an absolute one of now where the picture is found."""
        origin = read_origin(self.run.path)
        places: dict[str, str] = {}
        for record in self.run.records():
            named = record.example.image
            if named not in places:
                found = picture_paths(self.run.path, origin, [named], images=self.images)
                places[named] = str(Path(found[named]).resolve()) if named in found else named
            yield replace(record, example=replace(record.example, image=places[named]))


def verdict_of(record: Record) -> str:
    """ "right", "wrong" or "unjudged" (a failed rollout is that too)."""
    if isinstance(record.verdict, Unjudged):
        return "unjudged"
    return "right" if record.verdict.correct else "wrong"


def label_of(label: str | None) -> str:
    """The name a box goes by in formats that need one: the label the model wrote, or "box"."""
    return " ".join((label or "").split()) or "box"
