"""Where the pictures of COCO and Visual Genome are, one by one: the public hosts, and the addresses of a row's picture.

A new host is an entry in `HOSTS`, a new way of naming its pictures one in `_PATTERNS`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from opengrit.core.errors import DataError


@dataclass(frozen=True, slots=True)
class Host:
    """A place that has pictures as single files below `url`. Redirects are followed to the `domains` alone."""

    name: str
    title: str
    url: str  # without a slash at its end
    licence: str
    domains: tuple[str, ...]


HOSTS: Mapping[str, Host] = {
    host.name: host
    for host in (
        # images.cocodataset.org is this bucket, and has no certificate of its own: asked by its name it is http only.
        Host(
            "coco",
            "COCO",
            "https://s3.amazonaws.com/images.cocodataset.org",
            "each photo its own Flickr licence; see COCO's terms of use",
            ("s3.amazonaws.com", "images.cocodataset.org"),
        ),
        Host(
            "visual-genome",
            "Visual Genome",
            "https://cs.stanford.edu/people/rak248",
            "CC BY 4.0, as Visual Genome says; the photos are YFCC100M's and COCO's, each under its own Flickr licence",
            ("stanford.edu",),
        ),
    )
}

# A row's name -> the host and the paths that may have it, the likelier first.
_PATTERNS: tuple[tuple[re.Pattern[str], str, tuple[str, ...]], ...] = (
    (re.compile(r"COCO_val2014_\d{12}\.jpg"), "coco", ("val2014/{file}",)),
    (re.compile(r"\d{12}\.jpg"), "coco", ("train2017/{file}", "val2017/{file}")),
    (re.compile(r"VG_100K(?:_2)?/\d{1,8}\.jpg"), "visual-genome", ("{name}",)),
    (re.compile(r"images/\d{1,8}\.jpg"), "visual-genome", ("VG_100K/{file}", "VG_100K_2/{file}")),
)


def host_of(name: str) -> str | None:
    """The host that has a row's picture, by the picture's name; None where no host is known for such a name."""
    return next((host for pattern, host, _ in _PATTERNS if pattern.fullmatch(name)), None)


def addresses_of(name: str, hosts: Mapping[str, Host] = HOSTS) -> tuple[str, ...]:
    """Where a row's picture may be, the likelier address first; none where no host is known for such a name."""
    for pattern, host, paths in _PATTERNS:
        if pattern.fullmatch(name):
            file = name.rpartition("/")[2]
            return tuple(f"{hosts[host].url}/{path.format(name=name, file=file)}" for path in paths)
    return ()


def paths_of(name: str) -> tuple[str, ...]:
    """Where a copy of the host's files has a row's picture, below its root; the row's own name first."""
    found = [path for pattern, _, paths in _PATTERNS if pattern.fullmatch(name) for path in paths]
    file = name.rpartition("/")[2]
    return tuple(dict.fromkeys([name, *(path.format(name=name, file=file) for path in found)]))


def with_mirrors(mirrors: Iterable[str]) -> dict[str, Host]:
    """The hosts, with those replaced that NAME=URL names. Raises DataError for another name, form or scheme."""
    hosts = dict(HOSTS)
    for given in mirrors:
        name, _, url = given.partition("=")
        if name not in hosts or not url:
            raise DataError(
                f"a mirror is NAME=URL with NAME one of {', '.join(hosts)}, got {given!r}; write --mirror "
                f"{next(iter(hosts))}=https://..."
            )
        if not is_safe(url):
            raise DataError(
                f"a mirror needs https (http is for this machine only), got {given!r}; name one with https"
            )
        hosts[name] = replace(hosts[name], url=url.rstrip("/"), domains=(urlsplit(url).hostname or "",))
    return hosts


def is_safe(url: str) -> bool:
    """Whether an address is https, or http to this machine, and carries no name or password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host or "@" in parts.netloc or parts.port == 0:
            return False
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def is_within(url: str, host: Host) -> bool:
    """Whether an address is safe and on one of a host's domains or below it."""
    name = (urlsplit(url).hostname or "").lower() if is_safe(url) else ""
    return any(name == domain or name.endswith(f".{domain}") for domain in host.domains)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
