"""What the hub's client raises: which of it says that the hub was not reached, and which that it said no."""

from __future__ import annotations


def network_errors() -> tuple[type[Exception], ...]:
    """The errors of the client's HTTP library, which depends on the client's version; refusals of the hub are among them."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = [base for base in HfHubHTTPError.__mro__ if issubclass(base, Exception)]
    return tuple(base for base in bases if base.__name__ == "HTTPError")
