"""Tests against the real vLLM, bitsandbytes, DeepSpeed and others, run by `make test-engines` and skipped elsewhere.

They run within a clock that starts when the engines are set up; what has no time left is skipped by name. A table at the
end says what was run of each engine, what was skipped and why.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from engines import clock_has_run_out, missing, tests_engines, version

HERE = Path(__file__).parent
# Those that show most come first, so that a slow machine's clock leaves out the others.
FIRST = (
    "test_vllm_server.py",
    "test_vllm_colocate.py",
    "test_bitsandbytes.py",
    "test_deepspeed.py",
    "test_gpu_rehearsal.py",
    "test_real_vocabulary.py",
    "test_vllm_export.py",
    "test_vllm_server_mode.py",
)


def pytest_collection_modifyitems(items):
    if not tests_engines():
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="real engines are tested by `make test-engines`"))
        return
    places = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


def needed(item) -> list[str]:
    """The engines that a test names with `needs`."""
    return [name for mark in item.iter_markers("needs") for name in mark.args]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skips a test, before its fixtures start anything, whose engine is not set up or for which no time is left."""
    if HERE not in item.path.parents or not tests_engines():
        return
    for name in needed(item):
        if reason := missing(name):
            pytest.skip(reason)
    if reason := clock_has_run_out():
        pytest.skip(reason)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    report.engines = needed(item) or ["none"]


def pytest_terminal_summary(terminalreporter):
    """What was run of each engine: tests passed, failed and skipped, seconds, each reason for a skip, and what was found."""
    if not tests_engines():
        return
    counts = defaultdict(lambda: defaultdict(int))
    seconds: dict[str, float] = defaultdict(float)
    reasons: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name in getattr(report, "engines", []):
                counts[name][outcome] += 1
                if outcome == "skipped":
                    reasons[name][str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    found = defaultdict(list)
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name in getattr(report, "engines", []):
                seconds[name] += report.duration
                found[name] += [text for key, text in report.user_properties if key == "found"]
    terminalreporter.section("engines")
    for name in sorted(counts):
        told = ", ".join(f"{counts[name][kind]} {kind}" for kind in counts[name])
        terminalreporter.write_line(f"{name} {version(name)}: {told}, {seconds[name]:.0f} s")
        for line in dict.fromkeys(found[name]):
            terminalreporter.write_line(f"    {line}")
        for reason, number in reasons[name].items():
            terminalreporter.write_line(f"    skipped {number}: {reason}")
