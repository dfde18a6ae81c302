"""A request's body as aiohttp writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import anyio

from asgi_llm_gate.forwarder.client import UpstreamBroken, UpstreamTimedOut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractStreamWriter

# Bytes that are written at once: so few that the first of them never wait for room.
_PIECE = 2**15


class Body(aiohttp.Payload):
    """A body, written piece by piece.

    aiohttp writes in a task of its own, which may outlive the answer, and wraps whatever fails there.

    Args:
        first: The first chunk.
        rest: The other chunks.
        length: The declared length in bytes, if there is one.
        timeout: Seconds that the upstream may take to read a piece.

    Attributes:
        begun: Some of it was sent. Before that, it may be sent again.
        writing: It is being written.
        failure: What broke the body off, where it was not the connection.
    """

    def __init__(
        self, first: bytes, rest: AsyncIterator[bytes] | None = None, *, length: int | None = None, timeout: float
    ) -> None:
        super().__init__(first)
        self._first = first
        self._rest = rest
        self._length = length
        self._timeout = timeout
        self._ended: anyio.Event | None = None
        self.begun = False
        self.writing = False
        self.failure: Exception | None = None

    def decode(self, *_: object, **__: object) -> str:
        """Refuse: a body has no text before it is whole.

        Raises:
            TypeError: Always.
        """
        raise TypeError("The body of a request is not read ahead")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it.

        Raises:
            Exception: The `failure`, or that the connection was lost.
        """
        self.writing = True
        try:
            await self._write(writer)
        finally:
            self.writing = False
            if self._ended is not None:
                self._ended.set()

    async def ended(self) -> None:
        """Wait until it is no longer written, as it is now."""
        self._ended = anyio.Event()
        await self._ended.wait()

    async def _write(self, writer: AbstractStreamWriter) -> None:
        left = self._length
        chunk: bytes | None = self._first
        while chunk is not None:
            if left is not None:
                left -= len(chunk)
                if left < 0:
                    break
            await self._send(writer, chunk)
            chunk = await self._next()
        if left:
            raise self._failed(UpstreamBroken("The body is not as long as its content-length"))

    async def _next(self) -> bytes | None:
        if self._rest is None:
            return None
        try:
            return await anext(self._rest, None)
        except Exception as exc:
            raise self._failed(exc) from None

    async def _send(self, writer: AbstractStreamWriter, chunk: bytes) -> None:
        for start in range(0, len(chunk), _PIECE):
            piece = chunk[start : start + _PIECE]
            if not self.begun:
                await writer.write(piece)
                self.begun = True
                continue
            try:
                with anyio.fail_after(self._timeout):
                    await writer.write(piece)
            except TimeoutError:
                raise self._failed(UpstreamTimedOut("The upstream does not read the request")) from None

    def _failed(self, failure: Exception) -> Exception:
        self.failure = failure
        return failure
