"""The last stop before the client: what every answer goes through, whoever gives it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate import sse
from asgi_llm_gate.errors import FRAMING, is_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Message, Send

logger = logging.getLogger("asgi_llm_gate")


class Outlet:
    """The client's `send`, with the headers that hooks add, and an eye on how far the answer has come.

    Args:
        send: The server's `send`.
        headers: Asks the hooks for headers; None if there are none.
        copy_bytes: How much of the body to keep for the log.

    Attributes:
        send: The server's `send`.
        completed: Is told just before the last message of the answer goes out.
        delivered: Is told when it has gone out.
        sent: How many messages have come by.
        started: A response start has gone out that is followed by what it announces.
        complete: The whole answer has gone out, or is about to.
        body: The body's beginning.
        truncated: There was more of it.
    """

    completed: Callable[[], Awaitable[None]] | None = None
    delivered: Callable[[], None] | None = None
    sent = 0
    started = False
    complete = False
    truncated = False
    _due: Message | None = None
    _opened: anyio.Event | None = None

    def __init__(
        self,
        send: Send,
        *,
        headers: Callable[[], Awaitable[Mapping[str, Any]]] | None,
        copy_bytes: int,
    ) -> None:
        self.send = send
        self._headers = headers
        self._copy_bytes = copy_bytes
        self.start: Message = {}
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        self.sent += 1
        kind = message["type"]
        if kind == "http.response.start":
            self.started = True
            self.start = message
            await self._begin(message)
            return
        if kind == "http.response.body":
            if self._due is not None:
                # Whoever sent the start was cancelled while hooks thought about its headers.
                start, self._due = self._due, None
                await self.send(start)
            if self._copy_bytes:
                self._copy(message.get("body", b""))
            if not message.get("more_body", False):
                self.complete = True
                if self.completed is not None:
                    await self.completed()
        await self.send(message)
        if self.complete and self.delivered is not None:
            self.delivered()

    @property
    def opened(self) -> bool:
        """A stream's start has gone out, and a comment, before anything of the stream itself."""
        return self._opened is not None

    async def keep_alive(self, start: Message) -> None:
        """Send a comment while a stream is held back, and before the first one the stream's start.

        Only where nothing has gone out yet, or whole events.
        """
        if not self.started and self._opened is None:
            self._opened = anyio.Event()
            await self._send_start(start)
            self._opened.set()
        await self.send({"type": "http.response.body", "body": sse.COMMENT, "more_body": True})

    async def _begin(self, start: Message) -> None:
        if self._opened is None:
            await self._send_start(start)
        elif self._due is not None:
            await self._opened.wait()

    async def _send_start(self, start: Message) -> None:
        """Send a response start, with what hooks add to its headers."""
        if self._headers is not None:
            self._due = start
            start = _with_headers(start, await self._headers())
            self._due = None
        await self.send(start)

    def _copy(self, chunk: bytes) -> None:
        room = self._copy_bytes - len(self.body)
        self.body += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room


def _with_headers(start: Message, added: Mapping[Any, Any]) -> Message:
    """Return a response start with headers set; what can't be a header is left out, and said."""
    headers: dict[bytes, bytes] = {}
    for name, value in added.items():
        is_text = isinstance(name, str) and isinstance(value, str | int) and not isinstance(value, bool)
        if is_text and name.lower() not in FRAMING and is_header(name, str(value)):
            headers[name.lower().encode()] = str(value).strip().encode()
        else:
            logger.error("a headers hook returned what is no header: %r", name)
    kept = [pair for pair in start.get("headers", ()) if pair[0].lower() not in headers or pair[0].lower() == _COOKIE]
    return {**start, "headers": [*kept, *headers.items()]}


# The one header of which a response may have several that mean something each (RFC 6265 §3).
_COOKIE = b"set-cookie"
