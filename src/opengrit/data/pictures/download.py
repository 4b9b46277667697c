"""One file over HTTP into a part file: bounded, resumed, tried again as the host asks, redirected within the host alone."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import tenacity

from opengrit.core.errors import first_line
from opengrit.core.http import retry_after_seconds
from opengrit.core.images import DEFAULT_LIMITS
from opengrit.data.pictures.addresses import Host, is_within

if TYPE_CHECKING:
    import httpx2

_ABSENT = (403, 404, 410)  # S3 says 403 of a file that it has not
_AGAIN = (408, 425, 429)  # and every 5xx
_MOST_REDIRECTS = 3


class NotThere(Exception):
    """The host answers that it has no such file."""


class Refused(Exception):
    """The host answers with something that is not taken."""


class Unavailable(Exception):
    """The host could not be asked, or asks for more patience than there is."""


@dataclass(eq=False)
class _Again(Exception):
    """A failure that may pass; `after_seconds` is what the host asks for."""

    reason: str
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a host is waited for: tries, seconds of one try, the first wait and the longest, doubled in between."""

    tries: int = 6
    try_seconds: float = 120.0
    silence_seconds: float = 30.0  # without a byte
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 120.0


@dataclass(slots=True)
class Downloader:
    """Downloads files; one may be shared by threads. A host that says "slow down" is left alone by all of them."""

    client: httpx2.Client
    patience: Patience = Patience()
    max_bytes: int = DEFAULT_LIMITS.max_bytes
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    _resume_at: dict[str, float] = field(default_factory=dict)

    def download(self, url: str, part: Path, host: Host) -> None:
        """Nothing; afterwards `part` is the whole file. What an earlier call left in it is continued where that is safe.

        Raises NotThere, Refused or Unavailable; of the last the part file stays, to be continued.
        """
        tries = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.patience.tries),
            wait=self._wait_seconds,
            retry=tenacity.retry_if_exception_type(_Again),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            tries(self._once, url, part, host)
        except _Again as error:
            raise Unavailable(f"{url}: {error.reason}") from error

    def _sleep(self, seconds: float) -> None:
        self.stop.wait(seconds)

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Doubling waits, each a random half to the whole of its length, or what the host asks for."""
        patience = self.patience
        own = min(
            patience.longest_wait_seconds, patience.first_wait_seconds * 2 ** (state.attempt_number - 1)
        )
        own *= random.uniform(0.5, 1.0)
        failure = state.outcome.exception() if state.outcome is not None else None
        asked = failure.after_seconds if isinstance(failure, _Again) else None
        return own if asked is None else max(own, asked)

    def _once(self, url: str, part: Path, host: Host) -> None:
        import httpx2

        while (pause := self._resume_at.get(host.name, 0.0) - self.clock()) > 0 and not self.stop.is_set():
            self.stop.wait(pause)
        if self.stop.is_set():
            raise Unavailable("stopped")
        try:
            self._follow(url, part, host, ends_at=self.clock() + self.patience.try_seconds)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _Again(f"{type(error).__name__}: {first_line(error)}") from error
        except httpx2.InvalidURL as error:
            raise Refused(f"{url}: no address ({first_line(error)})") from error

    def _follow(self, url: str, part: Path, host: Host, *, ends_at: float) -> None:
        """The file at an address or where that sends us: to the same host, over https, a few times at most."""
        at = url
        for _ in range(_MOST_REDIRECTS + 1):
            headers = {"Accept-Encoding": "identity", "Accept": "image/*", **_continue_with(part, at)}
            with self.client.stream("GET", at, headers=headers) as response:
                location = response.headers.get("location")
                if not (300 <= response.status_code < 400 and location):
                    self._take(response, at, part, ends_at=ends_at, host=host)
                    return
            target = urljoin(at, location)
            if not is_within(target, host):
                raise Refused(f"{url}: redirects to {target[:100]}, which is not followed")
            at = target
        raise Refused(f"{url}: redirects too often")

    def _take(self, response: httpx2.Response, url: str, part: Path, *, ends_at: float, host: Host) -> None:
        self._check_status(response, url, part, host)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Refused(f"{url}: answers in an encoding that was not requested")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml", "application/json", "text/plain"):
            raise Refused(f"{url}: answers with {kind}, not a picture")
        start = _start_of(response, part)
        if start == 0:
            _remember(part, url, response)
        size = self._write(response, url, part, start=start, ends_at=ends_at)
        declared = response.headers.get("content-length")
        if declared is not None and declared.isdigit() and size - start != int(declared):
            raise _Again(f"ended early after {size} bytes")

    def _check_status(self, response: httpx2.Response, url: str, part: Path, host: Host) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status in _ABSENT:
            raise NotThere(f"{url}: HTTP {status}")
        if status == 416:  # the part is no beginning of the file
            forget(part)
            raise _Again("the part from before does not belong to the file")
        if status not in _AGAIN and status < 500:
            raise Refused(f"{url}: HTTP {status}")
        after = retry_after_seconds(response.headers.get("retry-after"))
        if after is not None and after > self.patience.longest_wait_seconds:
            raise Unavailable(f"{url}: HTTP {status}, and asks to wait {after:.0f} s")
        if status in (429, 503):
            pause = self.patience.first_wait_seconds if after is None else after
            self._resume_at[host.name] = max(self._resume_at.get(host.name, 0.0), self.clock() + pause)
        raise _Again(f"HTTP {status}", after)

    def _write(self, response: httpx2.Response, url: str, part: Path, *, start: int, ends_at: float) -> int:
        """The part's size after the body was appended from `start` on."""
        size = start
        with part.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            for chunk in response.iter_raw():
                size += len(chunk)
                if size > self.max_bytes:
                    stream.close()
                    forget(part)
                    raise Refused(f"{url}: more than {self.max_bytes} bytes")
                stream.write(chunk)
                if self.clock() > ends_at or self.stop.is_set():
                    raise _Again(f"not complete in {self.patience.try_seconds:g} s")
        return size


def forget(part: Path) -> None:
    """Nothing; a part file and what is noted of it are gone."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_suffix(".from")


def _remember(part: Path, url: str, response: httpx2.Response) -> None:
    """Note beside a part which version of which address it is of; the old part goes first, so that the two never disagree."""
    forget(part)
    tag = response.headers.get("etag", "")
    if tag.startswith('"'):  # a weak one, W/"...", names no bytes
        _note(part).write_text(json.dumps({"url": url, "etag": tag}), encoding="utf-8")


def _continue_with(part: Path, url: str) -> dict[str, str]:
    """The headers that ask for the rest of a part; none where it is not known to be of this address."""
    try:
        note: Any = json.loads(_note(part).read_text(encoding="utf-8"))
        size = part.stat().st_size
    except (OSError, ValueError):
        return {}
    if not isinstance(note, dict) or note.get("url") != url or size == 0:
        return {}
    return {"Range": f"bytes={size}-", "If-Range": str(note.get("etag"))}


def _start_of(response: httpx2.Response, part: Path) -> int:
    """Where the body begins in the file. Raises _Again where a server answers another range than it was asked for."""
    if response.status_code == 200:
        return 0
    size = part.stat().st_size if part.is_file() else 0
    if size == 0 or not response.headers.get("content-range", "").startswith(f"bytes {size}-"):
        forget(part)
        raise _Again("answers with another part than requested")
    return size
