"""Sources that datasets and pyarrow read: data sets of the hub, folders that `save_to_disk` wrote, Parquet."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opengrit.core.errors import DataError, first_line
from opengrit.core.escaping import shortened
from opengrit.data.hub_errors import network_errors
from opengrit.data.tables.rows import RawRow, Table
from opengrit.data.tables.settings import TableSettings

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, Features

HUB = "hub:"
_SAVED = ("dataset_info.json", "dataset_dict.json")  # of a folder that `save_to_disk` wrote
_SECONDS = 10.0  # that the hub has to answer
_BATCH = 64  # rows with their pictures in memory at once


@dataclass(frozen=True, slots=True)
class _ArrowRows:
    """Rows in batches, so that a data set's pictures are never all in memory; class labels by name."""

    batches: Callable[[], Iterator[pyarrow.Table]]
    features: Features

    def __iter__(self) -> Iterator[RawRow]:
        from datasets import ClassLabel

        labels = {name: kind for name, kind in self.features.items() if isinstance(kind, ClassLabel)}
        number = 0
        for batch in self.batches():
            for values in batch.to_pylist():
                number += 1
                for name, kind in labels.items():
                    if isinstance(values[name], int) and 0 <= values[name] < kind.num_classes:
                        values[name] = kind.int2str(values[name])
                yield RawRow(number, values)


def parquet(path: Path, settings: TableSettings) -> Table:
    import pyarrow
    import pyarrow.parquet
    from datasets import Features

    try:
        schema = pyarrow.parquet.ParquetFile(path).schema_arrow
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"a .parquet file must be Parquet, {path} cannot be read ({first_line(error)}); fetch it again"
        ) from error
    return Table(
        str(path),
        _ArrowRows(
            lambda: pyarrow.parquet.ParquetFile(path).iter_batches(_BATCH), Features.from_arrow_schema(schema)
        ),
    )


def saved_folder(spec: str) -> str | None:
    """The folder that `save_to_disk` wrote, of "folder" or "folder:split"; None where it is none."""
    for folder in (spec, spec.rpartition(":")[0]):
        if folder and any(os.path.isfile(os.path.join(folder, name)) for name in _SAVED):
            return folder
    return None


def saved(spec: str) -> Table:
    import datasets

    folder = saved_folder(spec) or spec
    split = spec[len(folder) :].lstrip(":") or None
    try:
        found = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"a datasets folder must come from save_to_disk, {folder} cannot be read ({first_line(error)}); save it "
            "again"
        ) from error
    if isinstance(found, datasets.Dataset):
        return _from_dataset(spec, found)
    split = split or ("train" if "train" in found or len(found) != 1 else next(iter(found)))
    if split not in found:
        raise DataError(
            f"a split must be one of {folder} ({', '.join(found)}), got {split!r}; write {folder}:{next(iter(found))}"
        )
    return _from_dataset(spec, found[split])


def from_hub(spec: str) -> Table:
    import datasets

    name, _, rest = spec.removeprefix(HUB).partition(":")
    config, _, split = rest.rpartition(":")
    if not (datasets.config.HF_HUB_OFFLINE or _was_downloaded(name)):
        require_reachable(name)
    try:
        found = datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # the client raises what its HTTP, file system and builders raise
        raise DataError(
            f"a hub data set is named owner/name:split or owner/name:configuration:split and must be readable, {spec} "
            f"is not ({shortened(first_line(error), 300)}); check the name, the split and the network"
        ) from error
    return _from_dataset(spec, found)


def require_reachable(name: str, *, endpoint: str | None = None) -> None:
    """Raise DataError at once where the hub does not answer: datasets would try for half a minute before it says so.

    What the hub answers is left to datasets.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        HfApi(endpoint=endpoint).dataset_info(name, timeout=_SECONDS)
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError):  # ValueError: no name that the hub could have
        return
    except network_errors() as error:
        raise DataError(
            f"a hub data set is fetched from the hub, {HUB}{name} is not on this machine and the hub does not answer "
            f"({shortened(first_line(error), 300)}); check the network, or name files of this machine"
        ) from error


def _was_downloaded(name: str) -> bool:
    """Whether datasets keeps anything of this name's owner, in which case it looks there when the hub does not answer."""
    import datasets

    kept = Path(datasets.config.HF_DATASETS_CACHE)
    return any(kept.glob(f"{glob.escape(name.partition('/')[0])}*"))


def _from_dataset(spec: str, found: Dataset) -> Table:
    arrow = found.with_format("arrow")  # pictures stay bytes
    return Table(spec, _ArrowRows(lambda: arrow.iter(_BATCH), found.features))
