"""Whether the rows of a step divide into batches and over processes, and the sizes to set where they do not."""

from __future__ import annotations

from opengrit.core.errors import RecipeError


def largest_divisor(rows: int, *, most: int) -> int:
    """The largest number that divides `rows` and is at most `most`; both are at least 1."""
    return next(size for size in range(min(rows, most), 0, -1) if rows % size == 0)


def sizes_for(
    rows: int, asked: int, *, each: int, batch: int, num_processes: int = 1
) -> tuple[int, int] | None:
    """The questions of a step and the batch size, none above `asked` and `batch`, that so many rows of data allow.

    A question has `each` completions, which divide over the processes and into batches. None where no number does.
    """
    for questions in range(min(rows, asked), 0, -1):
        if questions * each % num_processes == 0:
            return questions, largest_divisor(questions * each // num_processes, most=batch)
    return None


def remedy_of_sizes(section: str, key: str, rows: int, batch: int, *, was: int) -> str:
    """The keys to set for a step of so many rows; the batch size only where it is not what it was."""
    also = "" if batch == was else f" and {section}.per_device_train_batch_size: {batch}"
    return f"set {section}.{key}: {rows}{also}, or add rows"


def passes_of(rows: int, called: str, *, batch: int, num_processes: int, section: str) -> int:
    """Passes that each of so many processes makes for a step of so many `rows`, `batch` at once.

    Raises RecipeError where they do not divide, with the batch size that does, if one does.
    """
    if not rows % (batch * num_processes):
        return rows // (batch * num_processes)
    if not rows % num_processes:
        size = largest_divisor(rows // num_processes, most=batch)  # no larger: it may not fit the device
        remedy = f"set {section}.per_device_train_batch_size: {size}"
    else:
        fewer = largest_divisor(rows, most=num_processes)
        size = largest_divisor(rows // fewer, most=batch)
        remedy = (
            f"start {fewer} (--num-processes {fewer}) and set {section}.per_device_train_batch_size: {size}"
        )
    raise RecipeError(
        f"{called} ({rows}) must divide evenly over {num_processes} processes of per_device_train_batch_size {batch}; "
        + remedy
    )
