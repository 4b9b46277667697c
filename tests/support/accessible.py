"""What axe-core finds wrong with a page for people who read by keyboard, by screen reader, or in other colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

SIZES = ({"width": 1280, "height": 860}, {"width": 390, "height": 844})
SCHEMES = ("light", "dark")
_GRAVE = ("serious", "critical")


def barriers(page: Page) -> list[str]:
    """The findings that axe-core calls serious or critical, each with the first elements it is about."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['id']}: {one['help']}: " + " | ".join(_shown(node) for node in one["nodes"][:4])
        for one in found
        if one["impact"] in _GRAVE
    ]


def _shown(node: dict[str, Any]) -> str:
    return f"{node['html'][:160]} ({node['failureSummary'].splitlines()[-1].strip()})"


@contextmanager
def _window(browser: Browser, size: dict[str, int], scheme: str) -> Iterator[Page]:
    context = browser.new_context(
        viewport=size,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def windows(browser: Browser) -> Iterator[Page]:
    """A page in each kind of window that is looked at: wide and a phone's, light and dark."""
    for size, scheme in product(SIZES, SCHEMES):
        with _window(browser, size, scheme) as page:
            yield page
