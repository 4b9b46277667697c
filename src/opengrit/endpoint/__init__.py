"""Any OpenAI-compatible endpoint: `Endpoint` asks it, and every failure is a `NoReply`."""

from opengrit.endpoint.client import Endpoint
from opengrit.endpoint.limits import TokenBucket
from opengrit.endpoint.loop import LoopThread
from opengrit.endpoint.protocol import estimate_tokens
from opengrit.endpoint.settings import EndpointSettings, NoReply, Reply, Spend

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
