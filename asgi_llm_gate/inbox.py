"""What an app on a WebSocket receives: the client's messages one at a time, and what the gate itself has to tell it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from starlette.types import Message

# Messages of the gate's own that may wait for an app that does not listen; there is no use in telling it more.
MAX_OWN = 64


class Inbox:
    """The app's `receive`. A call that the app gives up loses no message."""

    def __init__(self) -> None:
        self._own: deque[Message] = deque()
        self._client: Message | None = None
        self._error: Exception | None = None
        self._filled = anyio.Event()
        self._taken = anyio.Event()

    async def __call__(self) -> Message:
        """Return the next message; once the client has gone, that again; raise what the server's `receive` raised."""
        while True:
            if self._own:
                return self._own.popleft()
            if self._client is not None:
                return self._take(self._client)
            if self._error is not None:
                raise self._error
            self._filled = anyio.Event() if self._filled.is_set() else self._filled
            await self._filled.wait()

    def _take(self, message: Message) -> Message:
        if message["type"] != "websocket.disconnect":
            self._client = None
            self._taken.set()
        return message

    async def put(self, message: Message) -> None:
        """Hand over one message of the client, and wait until the app has taken it."""
        self._client = message
        self._taken = anyio.Event()
        self._filled.set()
        if message["type"] != "websocket.disconnect":
            await self._taken.wait()

    def tell(self, text: str) -> None:
        """Hand over a text of the gate's own, before what the client says, without waiting."""
        if len(self._own) < MAX_OWN:
            self._own.append({"type": "websocket.receive", "text": text})
            self._filled.set()

    def fail(self, error: Exception) -> None:
        """Raise what the server's `receive` raised, once all that came before is taken."""
        self._error = error
        self._filled.set()
