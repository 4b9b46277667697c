"""Where the shared fixtures lie, and the mark that skips a test where they are absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"

needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the shared fixtures folder stands beside the checkout and is absent here"
)


def shared(*parts: str) -> Path:
    """The path of a shared fixture, for example `shared("grit_val", "vsr_val.jsonl")`."""
    return FIXTURES.joinpath(*parts)


def shared_rows(*parts: str) -> list[dict[str, Any]]:
    """The rows of a shared JSONL fixture; no rows where the folder is absent, so that collecting never fails."""
    path = shared(*parts)
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
