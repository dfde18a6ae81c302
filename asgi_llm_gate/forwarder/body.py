"""The client's request body, and whether the client is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from asgi_llm_gate.errors import too_large

if TYPE_CHECKING:
    from starlette.types import Message, Receive


class ClientGone(Exception):
    """The client closed the connection before its body was whole."""


class RequestBody:
    """One request's body, in chunks as they come.

    The only reader of ``receive``: a message that another reader took would be lost. So the body is read to
    its end first, by whoever iterates over it, and only then does `gone` read on.

    Args:
        receive: The ASGI callable.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._over = False
        self._left = False
        self._end: anyio.Event | None = None
        self._first = b""

    async def content(self) -> bytes | RequestBody:
        """Read the first message: the whole body if that is all of it, else the chunks from there on.

        Raises:
            ClientGone: The client is gone.
        """
        self._first = await self._next()
        return self._first if self._over else self

    async def whole(self, limit: int) -> bytes:
        """Read all of the body.

        Raises:
            ClientGone: The client is gone.
            GateError: 413 beyond ``limit`` bytes.
        """
        body = bytearray()
        while not self._over:
            body += await self._next()
            if len(body) > limit:
                raise too_large(limit)
        return bytes(body)

    async def gone(self) -> None:
        """Return when the client has gone away: while its body was read, or after that."""
        if not self._over:
            self._end = anyio.Event()
            await self._end.wait()
        while not self._left:
            self._left = (await self._receive())["type"] == "http.disconnect"

    def __aiter__(self) -> RequestBody:
        return self

    async def __anext__(self) -> bytes:
        chunk, self._first = self._first, b""
        while not chunk:
            if self._over:
                raise StopAsyncIteration
            chunk = await self._next()
        return chunk

    async def _next(self) -> bytes:
        message: Message = await self._receive()
        self._left = message["type"] == "http.disconnect"
        self._over = self._left or not message.get("more_body", False)
        if self._over and self._end is not None:
            self._end.set()
        if self._left:
            raise ClientGone
        return bytes(message.get("body", b""))
