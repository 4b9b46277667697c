"""Responses that are sent while they are made: as soon as they cannot be sent, the work behind them ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """A stream of texts that is closed with its response, and with it what it was made from.

    A generator that never began does not close what it would have read from: that is given as `source`.
    """

    def __init__(
        self,
        texts: AsyncGenerator[str, None],
        *,
        media_type: str,
        source: AsyncGenerator[Any, None] | None = None,
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(texts, media_type=media_type, headers=headers)
        self._closed_with_it = [generator for generator in (source, texts) if generator is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            for generator in self._closed_with_it:
                await stack.enter_async_context(aclosing(generator))
            await super().__call__(scope, receive, send)
