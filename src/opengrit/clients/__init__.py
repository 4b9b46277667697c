"""Any OpenAI-compatible endpoint: `Endpoint` asks it, and every failure is a `NoReply`.

May import `core` and `grounding`. Begin with `client.py`.
"""

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
