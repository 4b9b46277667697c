"""Under which licences a data set can be used, as far as it is stated anywhere here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opengrit.data.benchmarks import BENCHMARKS, UNKNOWN, Benchmark

_STICKERS = "stickers/"
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class DataLicence:
    """What a data set's rows and pictures are under, in words; `origin` says where they come from."""

    licence: str
    origin: str


def licence_of(spec: str) -> DataLicence:
    """The licences of a data set by its name, or by the name of its file or folder where that is a known benchmark's.

    A file of another origin has none that we know: "not stated".
    """
    if spec.startswith(_STICKERS):
        return DataLicence(
            "Apache-2.0; its pictures Apache-2.0, CC BY 4.0 (Twemoji) and MIT",
            "made by OpenGRIT from emoji stickers, not photographs",
        )
    known = _benchmark(Path(spec).name)
    if known is None:
        return DataLicence(NOT_STATED, "a file of its user's own")
    return DataLicence(
        f"rows: {_stated(known.licence)}; pictures: {_stated(known.pictures.licence)}",
        f"{known.title} ({known.page}), by its name; pictures: {known.pictures.source}",
    )


def _benchmark(name: str) -> Benchmark | None:
    for known in BENCHMARKS:
        files = {one for file in known.files for one in (file.name, file.saved_as)}
        if name in files or name == known.name:
            return known
    return None


def _stated(licence: str) -> str:
    return NOT_STATED if licence == UNKNOWN else licence
