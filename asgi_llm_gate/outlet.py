"""The last stop before the client: what every answer goes through, whoever gives it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgi_llm_gate.errors import is_header

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
        started: A response start has gone out.
        complete: The whole answer has gone out, or is about to.
        body: The body's beginning.
        truncated: There was more of it.
    """

    def __init__(
        self,
        send: Send,
        *,
        headers: Callable[[], Awaitable[Mapping[str, str]]] | None,
        copy_bytes: int,
    ) -> None:
        self.send = send
        self._headers = headers
        self.completed: Callable[[], None] | None = None
        self._copy_bytes = copy_bytes
        self.started = False
        self.complete = False
        self.start: Message = {}
        self.body = bytearray()
        self.truncated = False

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        kind = message["type"]
        if kind == "http.response.start":
            if self._headers is not None:
                message = _with_headers(message, await self._headers())
            self.started = True
            self.start = message
        elif kind == "http.response.body":
            if self._copy_bytes:
                self._copy(message.get("body", b""))
            if not message.get("more_body", False):
                self.complete = True
                if self.completed is not None:
                    self.completed()
        await self.send(message)

    def _copy(self, chunk: bytes) -> None:
        room = self._copy_bytes - len(self.body)
        self.body += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room


def _with_headers(start: Message, added: Mapping[str, str]) -> Message:
    """Return a response start with more headers; what can't be a header is left out, and said."""
    headers = list(start.get("headers", ()))
    for name, value in added.items():
        if is_header(name, value):
            headers.append((name.lower().encode(), value.strip().encode()))
        else:
            logger.error("a headers hook returned what is no header: %r", name)
    return {**start, "headers": headers}
