"""Bring the pictures that a benchmark's rows name: from what the user has, one by one from public hosts, or from archives of the hub.

Only pictures that rows name are kept, each verified first; existing files stay; the same call resumes an interrupted one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from opengrit.core.errors import DataError
from opengrit.core.escaping import shortened
from opengrit.core.messages import first_few
from opengrit.data.benchmarks import UNKNOWN, Archives, Benchmark, benchmark
from opengrit.data.get import DOWNLOADS, Hub, HuggingFaceHub, Unreachable, annotation_files
from opengrit.data.pictures.addresses import HOSTS, Host, addresses_of, host_of
from opengrit.data.pictures.archives import is_archive, pictures_in
from opengrit.data.pictures.download import (
    Downloader,
    NotThere,
    Patience,
    Refused,
    Unavailable,
    forget,
)
from opengrit.data.pictures.kept import IMAGES, PictureFolder, Wanted, wanted_by

_CONTENT_TRIES = 2  # a part that was continued may be of another version, and a cache between may be broken
_UNAVAILABLE_IN_A_ROW = 4  # pictures, each after all its tries: the host is not to be had
_REASON = 300


@dataclass(frozen=True, slots=True)
class PicturePlan:
    """What fetching a benchmark's pictures is about to do. `wanted` is None where its rows are not here yet."""

    benchmark: Benchmark
    folder: Path
    wanted: int | None
    missing: int | None
    places: tuple[str, ...]  # where they come from, as a person reads it

    def __str__(self) -> str:
        pictures = self.benchmark.pictures
        if self.wanted is None:
            count = UNKNOWN if pictures.count is None else str(pictures.count)
        else:
            count = f"{self.wanted} named by the rows, {self.missing} not here yet"
        return "\n".join(
            [
                f"pictures of {self.benchmark.name}: {count}; size of all: {pictures.size}; licence: {pictures.licence}",
                f"{'; '.join(self.places)} -> {self.folder / IMAGES}",
            ]
        )


def plan_pictures(
    name: str, out: str | Path, *, source: Path | None = None, hosts: Mapping[str, Host] = HOSTS
) -> PicturePlan:
    """What fetching the pictures would do; nothing is asked of a host, and nothing is written.

    Raises DataError for an unknown benchmark, and where pictures that are there are not the rows'.
    """
    known, folder = benchmark(name), Path(out) / name
    files = annotation_files(folder)
    wanted = wanted_by(files) if files else None
    missing = None if wanted is None else PictureFolder.at(folder).missing(wanted)
    return PicturePlan(
        known,
        folder,
        None if wanted is None else len(wanted),
        None if missing is None else len(missing),
        _places(known, source, hosts),
    )


def get_pictures(
    name: str,
    out: str | Path,
    *,
    source: Path | None = None,
    hub: Hub | None = None,
    revision: str = "main",
    hosts: Mapping[str, Host] = HOSTS,
    workers: int = 4,
    patience: Patience | None = None,
    announce: Callable[[PicturePlan], None] = lambda plan: None,
    on_progress: Callable[[int, int], None] = lambda here, of: None,
) -> Path:
    """The folder with every picture that the rows in OUT/NAME name; `get` fetches the rows.

    `revision` is that of the rows' repository. `source` is a folder, zip, tar or table of the user's; then no host is asked.
    `on_progress` is told how many pictures are here of how many. An interrupted call is simply repeated.
    Raises DataError where rows are not here, where pictures that are there are not the rows', and, after all others were
    fetched, where some could not be had; none of these is left in place.
    """
    known, folder = benchmark(name), Path(out) / name
    files = annotation_files(folder)
    if not files:
        raise DataError(
            f"pictures can be fetched after the rows, {folder} has no rows; run `opengrit data get {name} --out {out}` "
            "first"
        )
    if source is not None and not source.exists():
        raise DataError(f"--from must be an existing folder or archive, got {source}; check its path")
    with _working_in(folder) as pictures:
        wanted = wanted_by(files)
        missing = pictures.missing(wanted)
        announce(PicturePlan(known, folder, len(wanted), len(missing), _places(known, source, hosts)))
        task = _Task(pictures, wanted, {one.name: one for one in missing}, on_progress)
        try:
            if source is not None:
                task.take(_from_source(known.archives, source, wanted))
            elif known.archives is not None:
                of_rows = known.archives.repository == known.repository
                _from_hub(
                    known.archives, task, hub or HuggingFaceHub(), folder, revision if of_rows else "main"
                )
            else:
                _one_by_one(task, hosts, workers, patience or Patience())
        finally:
            pictures.finish(wanted)
    if task.missing:
        raise _incomplete(task, known, source)
    for used in (pictures.work, folder / DOWNLOADS):
        shutil.rmtree(used, ignore_errors=True)
    return folder / IMAGES


@contextmanager
def _working_in(folder: Path) -> Iterator[PictureFolder]:
    """The folder's pictures, for one process alone."""
    pictures = PictureFolder.at(folder)
    pictures.work.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(pictures.work / "lock", timeout=0):
            yield PictureFolder.at(folder)
    except filelock.Timeout as error:
        raise DataError(
            f"only one command at a time fetches pictures into a folder, another one is writing {folder}; wait until it "
            "ends"
        ) from error


class _Task:
    """What is still missing, and why what came was not kept."""

    def __init__(
        self,
        pictures: PictureFolder,
        wanted: Sequence[Wanted],
        missing: dict[str, Wanted],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.pictures, self.wanted, self.missing = pictures, wanted, missing
        self.reasons: dict[str, str] = {}
        self._on_progress = on_progress
        self._told()

    def part_of(self, picture: Wanted) -> Path:
        name = hashlib.sha256(picture.name.encode()).hexdigest()[:24]
        return self.pictures.work / f"{name}.part"

    def take(self, found: Iterator[tuple[Wanted, bytes, str]]) -> None:
        """Keep those of the pictures found that are missing, of several under one name the first that fits; stop with the last."""
        for picture, content, origin in found:
            if not self.missing:
                return
            if picture.name not in self.missing:
                continue
            part = self.part_of(picture)
            part.write_bytes(content)
            problem = self.pictures.keep(part, picture, origin)
            if problem is None:
                self.is_here(picture)
            else:
                part.unlink()
                self.reasons[picture.name] = f"{origin}: {problem}"

    def is_here(self, picture: Wanted) -> None:
        del self.missing[picture.name]
        self.reasons.pop(picture.name, None)
        self._told()

    def _told(self) -> None:
        self._on_progress(len(self.wanted) - len(self.missing), len(self.wanted))


def _from_source(
    archives: Archives | None, source: Path, wanted: Sequence[Wanted]
) -> Iterator[tuple[Wanted, bytes, str]]:
    """What a folder or archive of the user's has: the hub's own files by their names, then pictures by the rows'."""
    own: list[Path] = []
    if archives is not None and source.is_dir():
        places = [
            source / part for file in archives.files for part in (file.name, file.name.rpartition("/")[2])
        ]
        own = [place for place in dict.fromkeys(places) if place.is_file()]
    elif source.suffix in (".parquet", ".tsv"):
        own = [source]
    if archives is not None and own:
        yield from archives.read(own, wanted)
    if source.is_dir() or is_archive(source):
        yield from pictures_in(source, wanted)
    elif not own:
        raise DataError(
            f"--from must be a folder, zip, tar or Parquet file, {source} is not; name one of these"
        )


def _from_hub(archives: Archives, task: _Task, hub: Hub, folder: Path, revision: str) -> None:
    """Fetch one archive after the other while pictures are missing; one that the rows came from is not fetched again."""
    fetched: list[Path] = []
    for file in archives.files:
        if not task.missing:
            return
        try:
            fetched.append(hub.fetch(archives.repository, file.name, revision, folder / DOWNLOADS))
        except Unreachable as error:
            raise DataError(
                f"the pictures are in {file.name} of {archives.page}, which cannot be fetched ({error}); download it on "
                f"a machine with network access, and run the command with --from FILE; {folder} keeps its files"
            ) from error
        found = archives.read(fetched, task.wanted)
        task.take((picture, content, f"{archives.page}: {origin}") for picture, content, origin in found)


def _one_by_one(task: _Task, hosts: Mapping[str, Host], workers: int, patience: Patience) -> None:
    """Fetch what is missing from public hosts, a few at once. Raises DataError where a host is not to be had."""
    import httpx2

    limits = httpx2.Limits(max_connections=workers, max_keepalive_connections=workers)
    timeout = httpx2.Timeout(patience.silence_seconds)
    with httpx2.Client(timeout=timeout, limits=limits, headers={"User-Agent": "opengrit"}) as client:
        downloader = Downloader(client, patience)
        threads = ThreadPoolExecutor(max_workers=workers)
        try:
            futures = {
                threads.submit(_fetch_one, picture, task, downloader, hosts): picture
                for picture in list(task.missing.values())
            }
            _collect(futures, task)
        finally:
            downloader.stop.set()
            threads.shutdown(cancel_futures=True)


def _collect(futures: Mapping[Future[str | None], Wanted], task: _Task) -> None:
    unavailable = 0
    for future in as_completed(futures):
        picture = futures[future]
        try:
            reason = future.result()
        except Unavailable as error:
            unavailable += 1
            reason = str(error)
            if unavailable >= _UNAVAILABLE_IN_A_ROW:
                raise DataError(
                    f"a host must answer, it did not for {unavailable} pictures in a row, the last: "
                    f"{shortened(reason, _REASON)}; run the same command later (fetched pictures are kept), or name a "
                    "folder or archive that has the pictures with --from"
                ) from error
        else:
            unavailable = 0
        if reason is None:
            task.is_here(picture)
        else:
            task.reasons[picture.name] = reason


def _fetch_one(picture: Wanted, task: _Task, downloader: Downloader, hosts: Mapping[str, Host]) -> str | None:
    """Download a picture and keep it; None, or why it is not kept. Raises Unavailable."""
    part, reasons = task.part_of(picture), []
    for url in addresses_of(picture.name, hosts):
        for _ in range(_CONTENT_TRIES):
            try:
                downloader.download(url, part, hosts[str(host_of(picture.name))])
            except (NotThere, Refused) as error:
                forget(part)
                reasons.append(str(error))
                break
            problem = task.pictures.keep(part, picture, url)
            forget(part)
            if problem is None:
                return None
            reasons.append(f"{url}: {problem}")
    return "; ".join(dict.fromkeys(reasons)) or f"no known host has a picture named {picture.name}"


def _places(known: Benchmark, source: Path | None, hosts: Mapping[str, Host]) -> tuple[str, ...]:
    if source is not None:
        return (str(source),)
    if known.archives is not None:
        sizes = (f"{file.name} ({file.size})" for file in known.archives.files)
        return (f"{known.archives.page}, as many of these as are needed: {', '.join(sizes)}",)
    return tuple(f"{hosts[name].title}, one by one ({hosts[name].url})" for name in known.hosts)


def _incomplete(task: _Task, known: Benchmark, source: Path | None) -> DataError:
    reasons = [
        task.reasons.get(name, f"{name}: not in {source or known.pictures.source}") for name in task.missing
    ]
    remedy = (
        "run the command without --from for the rest"
        if source is not None
        else "run the same command again, or name a folder or archive that has them with --from"
    )
    shown = first_few(reasons, between="; ", longest=_REASON)
    return DataError(
        f"every picture that rows name is needed, {len(reasons)} of {len(task.wanted)} are missing: {shown}; the others "
        f"are kept in {task.pictures.folder / IMAGES}: {remedy}"
    )
