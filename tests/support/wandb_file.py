"""Prints the history in a .wandb file, one JSON object a row; for a process that has wandb (`python wandb_file.py FILE`).

The file is LevelDB's log: blocks of 32 KiB, in them pieces with a header of 7 bytes (checksum, length, kind), behind a
header of wandb's own 7 bytes. A piece is a whole record, its first, a middle or its last part.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(content: bytes) -> Iterator[bytes]:
    """The serialised records of a file."""
    at, parts = 7, []
    while at + HEADER.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER.size:
            at += left
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        piece = content[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        parts = [piece] if kind in (WHOLE, FIRST) else [*parts, piece]
        if kind in (WHOLE, LAST):
            yield b"".join(parts)


def main() -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    for content in records(Path(sys.argv[1]).read_bytes()):
        record = Record.FromString(content)
        if record.HasField("history"):
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            print(json.dumps(row))


if __name__ == "__main__":
    main()
