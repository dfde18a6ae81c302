"""Comments that keep a stream's connection open while the gate holds the stream back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message

    from asgi_llm_gate.outlet import Outlet


class KeepAlive:
    """Sends a comment whenever an outlet has been silent for some time.

    Proxies and clients give up connections on which nothing comes, after a minute as a rule. A comment is no part of
    the stream, but the first one brings the stream's start: what comes after it has no status of its own any more.

    Args:
        start: The stream's response start.
        outlet: Where the stream goes.
        interval: Seconds of silence.
        holds: Tells whether nothing of the stream has gone out yet, or nothing but whole events.
    """

    def __init__(self, start: Message, outlet: Outlet, interval: float, holds: Callable[[], bool]) -> None:
        self._start = start
        self._outlet = outlet
        self._interval = interval
        self._holds = holds

    async def run(self) -> None:
        """Watch over the outlet until the stream flows as it comes, or until cancelled."""
        while self._holds():
            seen = self._outlet.sent
            await anyio.sleep(self._interval)
            if self._holds() and self._outlet.sent == seen:
                await self._outlet.keep_alive(self._start)
