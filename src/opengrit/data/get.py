"""Bring a benchmark's annotation files into a folder: announced first, resumed, verified, never overwritten.

The folder is DIR/NAME. It holds the annotation files as GRIT's rows, and `source.json`: where each came from, its
rows and its SHA-256, recorded when it is first fetched and compared from then on. Pictures: `pictures/fetch.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from opengrit.core.errors import DataError, first_line
from opengrit.data.benchmarks import UNKNOWN, AnnotationFile, Benchmark, benchmark
from opengrit.data.fingerprint import sha256_of
from opengrit.data.grit import read
from opengrit.data.hub_errors import network_errors

SOURCE = "source.json"
DOWNLOADS = ".download"


class Unreachable(Exception):
    """A hub could not be asked: no network, no such repository, or no such file in it."""


class Hub(Protocol):
    """Where published files are: two questions, so that a folder can replace a network."""

    def size(self, repository: str, file: str, revision: str) -> int | None:
        """A file's bytes, None where the hub does not say. Raises Unreachable."""
        ...

    def fetch(self, repository: str, file: str, revision: str, folder: Path) -> Path:
        """The file, downloaded below the folder; an interrupted download resumes. Raises Unreachable."""
        ...


class HuggingFaceHub:
    """The Hugging Face hub, or another at `endpoint`, through `huggingface_hub`, which resumes downloads and reads its own settings."""

    def __init__(self, endpoint: str | None = None) -> None:
        self._endpoint = endpoint

    def size(self, repository: str, file: str, revision: str) -> int | None:
        import huggingface_hub

        def ask() -> int | None:
            found = huggingface_hub.HfApi(endpoint=self._endpoint).get_paths_info(
                repository, [file], repo_type="dataset", revision=revision
            )
            if not found:
                raise Unreachable(f"{repository} has no file {file} at {revision}")
            return getattr(found[0], "size", None)

        return _from_hub(ask)

    def fetch(self, repository: str, file: str, revision: str, folder: Path) -> Path:
        import huggingface_hub

        return Path(
            _from_hub(
                lambda: huggingface_hub.hf_hub_download(
                    repository,
                    file,
                    repo_type="dataset",
                    revision=revision,
                    local_dir=folder,
                    endpoint=self._endpoint,
                )
            )
        )


_Reply = TypeVar("_Reply")


def _from_hub(ask: Callable[[], _Reply]) -> _Reply:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    unreachable: tuple[type[Exception], ...] = (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        *network_errors(),
    )
    try:
        return ask()
    except unreachable as error:
        raise Unreachable(first_line(error)) from error


@dataclass(frozen=True, slots=True)
class Step:
    """One annotation file on its way: where it comes from and goes to. `size` is in bytes, None where unknown."""

    file: AnnotationFile
    source: str  # as a person reads it
    origin: Path | None  # the file in a mirror; None: from the hub
    target: Path
    size: int | None
    here: bool  # it is there already, and is verified rather than fetched


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `get` is about to do, before it does it."""

    benchmark: Benchmark
    folder: Path
    revision: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """What is downloaded from where, how large, under which licence, and which pictures it needs."""
        known, pictures = self.benchmark, self.benchmark.pictures
        lines = [
            f"{known.name}: {known.title}",
            f"licence of the annotations: {known.licence} ({known.page})",
        ]
        for step in self.steps:
            rows = UNKNOWN if step.file.rows is None else str(step.file.rows)
            if step.here:
                lines.append(f"already here: {step.target} ({rows} rows expected)")
            else:
                lines.append(f"{step.source} -> {step.target} ({_bytes(step.size)}, rows: {rows})")
        count = UNKNOWN if pictures.count is None else str(pictures.count)
        lines += [
            f"pictures: {pictures.source}; {count} of them, size {pictures.size}; licence: {pictures.licence}",
            f"a row names its picture like {pictures.named!r}: --pictures fetches them into {self.folder / 'images'}; "
            "if you have them already, name their folder with eval --images",
        ]
        return "\n".join(lines)


def plan(
    name: str,
    out: str | Path,
    *,
    mirror: str | Path | None = None,
    hub: Hub | None = None,
    revision: str = "main",
) -> Plan:
    """What getting a benchmark would do; the hub is asked for sizes alone, and nothing is written.

    `mirror` is a folder that has the files, by their own names, at its root, in a folder of the benchmark's name, or
    as the source lays them out. Raises DataError where a file is neither here, nor in the mirror, nor to be reached.
    """
    known, folder = benchmark(name), Path(out) / name
    if mirror is not None and not Path(mirror).is_dir():
        raise DataError(
            f"--from must be an existing folder, got {mirror}; name the folder that has the files"
        )
    steps = [_step(known, file, folder, mirror=mirror, hub=hub, revision=revision) for file in known.files]
    return Plan(known, folder, revision, tuple(steps))


def get(
    name: str,
    out: str | Path,
    *,
    mirror: str | Path | None = None,
    hub: Hub | None = None,
    revision: str = "main",
    announce: Callable[[Plan], None] = lambda plan: None,
    keep_downloads: bool = False,
) -> list[Path]:
    """The annotation files of a benchmark, in GRIT's form, in OUT/NAME; those that are there already are verified.

    `announce` is called with the plan before a file is fetched. An interrupted call is simply repeated. `keep_downloads`
    leaves the published files where fetching the pictures finds those that hold both.
    Raises DataError where files cannot be had, hold other rows than they should, or have changed since they were
    fetched; a file that fails is not left in place.
    """
    hub = HuggingFaceHub() if hub is None else hub
    planned = plan(name, out, mirror=mirror, hub=hub, revision=revision)
    announce(planned)
    planned.folder.mkdir(parents=True, exist_ok=True)
    for step in planned.steps:
        if step.here:
            _verify(step.target, step.file, planned.folder)
            _record_provenance(planned, step, step.target)
        else:
            _fetch(planned, step, hub)
    if not keep_downloads:
        shutil.rmtree(planned.folder / DOWNLOADS, ignore_errors=True)
    return [step.target for step in planned.steps]


def has_rows(name: str, mirror: str | Path | None) -> bool:
    """Whether a folder has every annotation file of a benchmark, as `plan` looks for them there."""
    known = benchmark(name)
    if mirror is None or not Path(mirror).is_dir():
        return False
    return all(_found_in(known, file, Path(mirror)) is not None for file in known.files)


def annotation_files(folder: str | Path) -> list[Path]:
    """The annotation files that `get` put into a folder, in the benchmark's order; none where it is no such folder."""
    folder = Path(folder)
    if not (folder / SOURCE).is_file():
        return []
    return [folder / name for name in _read_provenance(folder)]


def _step(
    known: Benchmark,
    file: AnnotationFile,
    folder: Path,
    *,
    mirror: str | Path | None,
    hub: Hub | None,
    revision: str,
) -> Step:
    target = folder / (file.saved_as or file.name)
    if target.is_file():
        return Step(file, str(target), None, target, target.stat().st_size, here=True)
    if mirror is not None:
        origin = _in_mirror(known, file, Path(mirror))
        return Step(file, str(origin), origin, target, origin.stat().st_size, here=False)
    if known.repository is None:
        raise DataError(_how_to_fetch_by_hand(known, folder, "it is on no hub"))
    try:
        size = hub.size(known.repository, file.name, revision) if hub is not None else None
    except Unreachable as error:
        raise DataError(_how_to_fetch_by_hand(known, folder, str(error))) from error
    return Step(file, f"{known.page} ({file.name}, revision {revision})", None, target, size, here=False)


def _places_in(known: Benchmark, mirror: Path) -> list[Path]:
    places = [mirror, mirror / known.name, mirror / known.folder]
    if known.repository is not None:
        places += [mirror / known.repository, mirror / known.repository.partition("/")[2]]
    return list(dict.fromkeys(places))


def _found_in(known: Benchmark, file: AnnotationFile, mirror: Path) -> Path | None:
    places = _places_in(known, mirror)
    return next((place / file.name for place in places if (place / file.name).is_file()), None)


def _in_mirror(known: Benchmark, file: AnnotationFile, mirror: Path) -> Path:
    found = _found_in(known, file, mirror)
    if found is None:
        looked = ", ".join(str(place) for place in _places_in(known, mirror))
        raise DataError(
            f"--from must have every annotation file, {file.name} is not in {looked}; copy it there from {known.page}"
        )
    return found


def _how_to_fetch_by_hand(known: Benchmark, folder: Path, why: str) -> str:
    names = ", ".join(file.name for file in known.files)
    place = f"{known.page}, folder {known.folder}" if known.folder else known.page
    what_next = (
        f"download {names} from {place} on a machine with network access, copy them into a folder, and run `opengrit "
        f"data get {known.name} --out {folder.parent} --from FOLDER`"
    )
    if known.to_grit is None:
        what_next += f"; or put them into {folder} and run the command without --from"
    return f"the annotation files of {known.name} cannot be fetched ({why}); {what_next}"


def _fetch(planned: Plan, step: Step, hub: Hub) -> None:
    """Fetch one file next to its target, make GRIT's rows of it, verify them, and only then put it there."""
    known = planned.benchmark
    downloads = planned.folder / DOWNLOADS
    fetched = step.origin
    if fetched is None:
        try:
            fetched = hub.fetch(str(known.repository), step.file.name, planned.revision, downloads)
        except Unreachable as error:
            raise DataError(_how_to_fetch_by_hand(known, planned.folder, str(error))) from error
    part = step.target.with_suffix(".part")  # what an interrupted call left is written over
    if known.to_grit is None:
        shutil.copyfile(fetched, part)
    else:
        part.write_text(known.to_grit(fetched, step.target.stem), encoding="utf-8", newline="\n")
    try:
        _verify(part, step.file, planned.folder, published=fetched)
    except DataError:
        part.unlink()
        raise
    os.replace(part, step.target)
    _record_provenance(planned, step, fetched)


def _verify(path: Path, file: AnnotationFile, folder: Path, *, published: Path | None = None) -> None:
    """Nothing; raises DataError where a file is not the one that was published, or fetched before."""
    if file.sha256 is not None and published is not None and sha256_of(published) != file.sha256:
        raise DataError(
            f"{file.name} has the SHA-256 {file.sha256}, the one fetched has {sha256_of(published)}; fetch it again"
        )
    provenance = _read_provenance(folder).get(path.name, {}).get("sha256")
    if provenance is not None and sha256_of(path) != provenance:
        raise DataError(
            f"a fetched file must not change, {path} differs from what {folder / SOURCE} records; move it away to fetch "
            "it again"
        )
    rows = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    if file.rows is not None and rows != file.rows:
        raise DataError(
            f"{file.name} has {file.rows} rows, {path} has {rows}; fetch it again, or say which release you mean"
        )
    if file.rows is not None:  # these name their pictures' sizes, so every row can be read without a picture
        errors = read(path).errors
        if errors:
            raise DataError(
                f"every row must follow GRIT's format, {len(errors)} do not; the first: {errors[0]}"
            )


def _record_provenance(planned: Plan, step: Step, origin: Path) -> None:
    """Record where a file came from, once."""
    provenance = _read_provenance(planned.folder)
    if step.target.name in provenance:
        return
    provenance[step.target.name] = {
        "benchmark": planned.benchmark.name,
        "from": step.source,
        "published_as": step.file.name,
        "published_sha256": sha256_of(origin),
        "sha256": sha256_of(step.target),
        "licence": planned.benchmark.licence,
    }
    order = [file.saved_as or file.name for file in planned.benchmark.files]
    part = planned.folder / f"{SOURCE}.part"
    text = json.dumps({"files": {name: provenance[name] for name in order if name in provenance}}, indent=2)
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, planned.folder / SOURCE)


def _read_provenance(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / SOURCE
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): dict(entry) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} records where files came from, and cannot be read ({error}); move it away and fetch them again"
        ) from error


def _bytes(size: int | None) -> str:
    if size is None:
        return "size unknown"
    return f"{size} bytes" if size < 10_000 else f"{size / 1000:.0f} kB"
