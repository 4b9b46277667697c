"""Loaded by every Python that is started with this folder on its path: writes down each look at the network but loopback."""

import os
import sys

_FILE = os.environ["CONNECTIONS"]
_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def _watch(event: str, args: tuple) -> None:
    if event in ("socket.connect", "socket.sendto"):
        where = args[-1]
        host = where[0] if isinstance(where, tuple) else None  # a path: a socket of this machine
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host and not str(host).startswith(_LOOPBACK):
        with open(_FILE, "a", encoding="utf-8") as file:
            file.write(f"{event} {host} {' '.join(sys.argv)}\n")


sys.addaudithook(_watch)
