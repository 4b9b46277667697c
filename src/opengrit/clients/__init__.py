"""Any OpenAI-compatible endpoint: `Endpoint` asks it, and every failure is a `NoReply`.

May import `core` and `grounding`. Begin with `client.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opengrit.core.lazy import lazy_names

if TYPE_CHECKING:
    from opengrit.clients.client import Endpoint
    from opengrit.clients.event_loop import LoopThread
    from opengrit.clients.protocol import estimate_tokens
    from opengrit.clients.rate_limit import TokenBucket
    from opengrit.clients.settings import EndpointSettings, NoReply, Reply, Spend

__all__ = [
    "Endpoint",
    "EndpointSettings",
    "LoopThread",
    "NoReply",
    "Reply",
    "Spend",
    "TokenBucket",
    "estimate_tokens",
]

_SETTINGS = "opengrit.clients.settings"
__getattr__ = lazy_names(
    __name__,
    {
        "Endpoint": "opengrit.clients.client",  # brings the openai package
        "LoopThread": "opengrit.clients.event_loop",
        "estimate_tokens": "opengrit.clients.protocol",
        "TokenBucket": "opengrit.clients.rate_limit",
        **dict.fromkeys(("EndpointSettings", "NoReply", "Reply", "Spend"), _SETTINGS),
    },
)
