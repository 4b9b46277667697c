"""A server with an engine that says one text, in a process of its own: for tests of signals and of what a process may open.

`python bare_server.py GRACE_SECONDS DECODE_SECONDS [stuck]` prints its address. "stuck" is an engine whose stop never ends.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from opengrit.serving.app import ServeSettings, build_app
from opengrit.serving.run import address, bind, run_until_stopped
from opengrit.serving.security import UploadLimits
from serving import Speaking


class Stuck(Speaking):
    """An engine that never stops, as a model in the middle of a long step."""

    async def close(self, grace_seconds: float = 0.0) -> None:
        await asyncio.to_thread(threading.Event().wait)


def main() -> None:
    grace, decode = float(sys.argv[1]), float(sys.argv[2])
    engine = (Stuck if "stuck" in sys.argv else Speaking)("<answer>1</answer>")
    # With much time for a picture there may be many scans of it too: a picture that is decoded for minutes.
    slow = {"jpeg_scans": 10**9, "pixels": 4 * 10**9} if decode > 10 else {}
    limits = UploadLimits(decode_seconds=decode, **slow)
    app = build_app({"speaking": engine}, ServeSettings(limits=limits, grace_seconds=grace), page=False)
    listening = bind("127.0.0.1", 0)
    where = address(listening)
    run_until_stopped(app, listening, grace_seconds=grace, ready=lambda: print(where, flush=True))


if __name__ == "__main__":
    main()
