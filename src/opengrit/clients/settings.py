"""Where a model is asked, with which limits and time-outs, what it answered, and what that cost."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from opengrit.core.errors import RecipeError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_key_name(name: str) -> None:
    """Raise RecipeError for what is no name of a variable: a key written in its place would be kept with the run."""
    if not _VARIABLE.fullmatch(name):
        raise RecipeError(
            "api_key_env: is the name of an environment variable (letters, digits and _), got something else (it is not "
            "repeated here: it may be a key); put the key into a variable, and write the variable's name"
        )


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where a model is asked, with which limits and time-outs. Raises RecipeError for an impossible value."""

    url: str  # the base address, for example http://127.0.0.1:8000/v1
    model: str
    api_key_env: str = "OPENAI_API_KEY"  # the variable that holds the key; no key is sent where it is unset
    concurrency: int = 8  # requests under way at once
    timeout_seconds: float = 60.0  # one request, from the first byte sent to the last received
    max_tries: int = 6  # requests for one question
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None  # of prompt and completion together
    deadline_seconds: float | None = None  # one question, with all its tries and waits
    price_per_million_prompt_tokens: float | None = None
    price_per_million_completion_tokens: float | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and parts.hostname is not None
            bare = not (parts.username or parts.password or parts.query or parts.fragment)
            _ = parts.port
        except ValueError:
            known, bare = False, True
        if not bare:
            raise RecipeError(
                "endpoint url: is an address without user, password, query and fragment, got one with them (it is "
                "not repeated here); put the key into the variable that api_key_env names"
            )
        if not known:
            raise RecipeError(
                f"endpoint url: is an http or https address, got {self.url!r}; write http://127.0.0.1:8000/v1, "
                "for example"
            )
        check_key_name(self.api_key_env)
        if not self.model:
            raise RecipeError("endpoint model: is the name the server knows, got none; name the model")
        for name in ("concurrency", "max_tries"):
            if getattr(self, name) < 1:
                raise RecipeError(f"endpoint {name}: is at least 1, got {getattr(self, name)}; raise it")
        for name in ("timeout_seconds", "requests_per_minute", "tokens_per_minute", "deadline_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RecipeError(f"endpoint {name}: is a finite number above 0, got {value}; change it")
        for name in ("price_per_million_prompt_tokens", "price_per_million_completion_tokens"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise RecipeError(
                    f"endpoint {name}: is a finite number of at least 0, got {value}; change it"
                )

    @property
    def host(self) -> str:
        """The server's host, with its port where the address names one."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    def cost(self, *, prompt_tokens: float, completion_tokens: float) -> float | None:
        """What so many tokens cost, in the currency of the prices; None unless both prices are known."""
        prompt, completion = self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens
        if prompt is None or completion is None:
            return None
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered. Token counts are the server's own, or estimates where it gives none (`counted` False).

    `stop_reason` is the stop string that ended the text, empty where none did, None where the server does not say.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    counted: bool = True
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class NoReply:
    """Why there is no answer, in a few words.

    `declined` where the server is there and would not answer this conversation; others it may answer. `status` is
    that of HTTP where the server answered with an error.
    """

    reason: str
    declined: bool = False
    status: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Spend:
    """What an endpoint was asked for so far.

    `failed` requests are among the `requests`; of the replies, the tokens of `estimated` were not counted by the
    server.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failed: int = 0
    estimated: int = 0
