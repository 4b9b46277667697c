"""Fetches pictures by URL: from hosts the operator named, at public addresses only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore

from opengrit.serving.security import bad_parameter

_PORTS = {"http": 80, "https": 443}
_FETCH_SECONDS = 10.0


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, and holds no private one inside."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Other forms of an IPv4 address (mapped, NAT64) are reserved, and refused below whatever they hold.
        inside = ip.sixtofour or (ip.teredo or (None, None))[1]
        if inside is not None and not is_public(str(inside)):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches pictures from the allowed hosts ("example.org", or "example.org:8443" for another port).

    A name is resolved once, all its addresses must be public, and the connection goes to a checked address: a name
    that resolves differently a moment later changes nothing. Redirects are not followed.
    """

    hosts: frozenset[str] = frozenset()
    max_bytes: int = 20 * 2**20
    seconds: float = _FETCH_SECONDS
    is_public: Callable[[str], bool] = is_public

    @classmethod
    def of(cls, hosts: Iterable[str], *, max_bytes: int) -> Fetcher:
        """A fetcher for hosts as an operator writes them."""
        return cls(frozenset(host.strip().lower().rstrip(".") for host in hosts), max_bytes)

    async def fetch(self, url: str, *, param: str) -> bytes:
        """The bytes at the address. Raises Refused."""
        parts = self._allowed(url, param)
        try:
            async with asyncio.timeout(self.seconds):
                return await self._get(parts, param)
        except TimeoutError:
            raise bad_parameter(
                param,
                f"a picture must arrive within {self.seconds:g} s, {parts.hostname} did not send it; send the picture "
                "itself",
            ) from None
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            OSError,
        ) as error:
            raise bad_parameter(
                param,
                f"the picture could not be fetched from {parts.hostname} ({type(error).__name__}); "
                "send the picture itself",
            ) from None

    def _allowed(self, url: str, param: str) -> SplitResult:
        refused = bad_parameter(
            param,
            "pictures are sent as data (data:image/png;base64,...), this server does not fetch that address; "
            "send the picture itself, or start the server with --allow-host HOST",
            code="remote_image_refused",
        )
        if any(c <= " " or c == "\\" or c >= "\x7f" for c in url):
            raise refused
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise refused from None
        host = (parts.hostname or "").rstrip(".")
        if parts.scheme not in _PORTS or "@" in parts.netloc or not host:
            raise refused
        own_port = port is None or port == _PORTS[parts.scheme]
        if f"{host}:{port}" not in self.hosts and not (own_port and host in self.hosts):
            raise refused
        return parts

    async def _get(self, parts: SplitResult, param: str) -> bytes:
        host = (parts.hostname or "").rstrip(".")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = httpcore.URL(
            scheme=parts.scheme.encode(), host=host.encode(), port=parts.port, target=target.encode()
        )
        async with httpcore.AsyncConnectionPool(network_backend=_PublicBackend(self, param)) as pool:
            named: dict[bytes | str, bytes | str] = {
                "Host": parts.netloc,
                "Accept": "image/*",
                "User-Agent": "opengrit",
            }
            async with pool.stream("GET", address, headers=named) as response:
                if response.status != 200:
                    raise bad_parameter(
                        param,
                        f"a picture's address must answer with 200, {host} answered {response.status} (redirects are "
                        "not followed); name the picture's own address, or send it",
                    )
                content = bytearray()
                async for chunk in response.aiter_stream():
                    content += chunk
                    if len(content) > self.max_bytes:
                        raise bad_parameter(
                            param,
                            f"a picture has at most {self.max_bytes} bytes, {host} sends more; "
                            "send a smaller one",
                        )
                return bytes(content)


class _PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, and to the very address that was checked."""

    def __init__(self, fetcher: Fetcher, param: str) -> None:
        self._fetcher = fetcher
        self._param = param
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **kwargs: Any
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not addresses or not all(self._fetcher.is_public(address) for address in addresses):
            raise bad_parameter(
                self._param,
                f"pictures are fetched from public addresses only, {host} is not public; send the picture itself",
                code="remote_image_refused",
            )
        return await self._inner.connect_tcp(addresses[0], port, *args, **kwargs)

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        raise OSError("pictures are not fetched from sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
