"""aiohttp behind the seam, for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import anyio
from multidict import CIMultiDict
from yarl import URL

from asgi_llm_gate.forwarder.aiohttp_body import Body
from asgi_llm_gate.forwarder.client import (
    UpstreamBroken,
    UpstreamFailure,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from asgi_llm_gate.forwarder.headers import declared_length
from asgi_llm_gate.forwarder.httpx import CLOSING, IDLE, tls_context

if TYPE_CHECKING:
    import asyncio

    from aiohttp.connector import Connection

    from asgi_llm_gate.answer import Headers

# Older ones break off in other ways, and have no bound on a response's headers.
if tuple(map(int, aiohttp.__version__.split(".")[:2])) < (3, 14):
    raise ImportError(f"aiohttp is {aiohttp.__version__}, and 3.14 or newer is needed")

# The most that is read ahead of a slow client is twice this, in bytes.
_READ_AHEAD = 2**16

# Of a response's head, in bytes and lines.
_LONGEST_LINE = 2**16
_MOST_HEADERS = 1_000

# What a client did not send is not sent for it.
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

_FAILURES = (aiohttp.ClientError, OSError, ValueError)


class AiohttpClient:
    """An `UpstreamClient` that sends with aiohttp. To be made on the event loop that it serves.

    Args:
        connect_timeout: Seconds to connect in.
    """

    def __init__(self, *, connect_timeout: float) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE, ssl=tls_context())
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTO_HEADERS,
            response_class=_Response,
            auto_decompress=False,
            read_bufsize=_READ_AHEAD,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            max_headers=_MOST_HEADERS,
        )
        self._connect_timeout = connect_timeout

    def open(self, request: UpstreamRequest) -> _Exchange:
        """Send a request and enter its response."""
        return _Exchange(self, request)

    async def aclose(self) -> None:
        """Close the session; responses that are still read break off."""
        await self._session.close()

    async def answer(self, request: UpstreamRequest, body: Body | None) -> aiohttp.ClientResponse:
        """Send a request, a second time where the first can't have reached anyone, and return its response.

        Raises:
            UpstreamFailure: There is no answer.
        """
        try:
            return await self._send(request, body)
        except _FAILURES as exc:
            if body is None or body.begun or not _is_disconnect(exc):
                raise _failure(exc, body) from exc
        # The upstream has closed a connection of the pool, and no byte was sent on it.
        try:
            return await self._send(request, body)
        except _FAILURES as exc:
            raise _failure(exc, body) from exc

    async def _send(self, request: UpstreamRequest, body: Body | None) -> aiohttp.ClientResponse:
        url = URL(request.url, encoded=request.url.isascii())
        timeout = aiohttp.ClientTimeout(connect=self._connect_timeout, sock_read=request.timeout)
        headers = _decoded(request.headers, url)
        return await self._session.request(
            request.method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
        )


class _Exchange:
    """A request, and a context in which its response is read. A generator would cost a call several times as much."""

    def __init__(self, client: AiohttpClient, request: UpstreamRequest) -> None:
        self._client = client
        self._request = request
        self._body: Body | None = None
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> UpstreamResponse:
        self._body = await _body(self._request)
        try:
            self._response = await self._client.answer(self._request, self._body)
        finally:
            if self._response is None:
                await self._close()
        response = self._response
        return UpstreamResponse(response.status, response.raw_headers, _Chunks(response.content))

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._body is not None and self._body.writing:
            with anyio.move_on_after(CLOSING, shield=True):
                await self._body.ended()


class _Chunks:
    """A response's body as it comes."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        try:
            chunk = await content.readany()
        except (*_FAILURES, RuntimeError) as exc:  # that one where the connection has just gone
            chunk = _received(content)
            if not chunk:
                raise _failure(exc) from exc
            content.set_exception(exc)
        if not chunk:
            raise StopAsyncIteration
        return chunk


class _Response(aiohttp.ClientResponse):
    """A response that ends where its connection does, however that ends."""

    _lost: asyncio.Future[None] | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        await super().start(connection)
        # aiohttp leaves a reader waiting for good where the rest of a response is no HTTP, or the session is closed.
        if self.connection is not None and connection.protocol is not None:
            self._lost = connection.protocol.closed
        if self._lost is not None:
            self._lost.add_done_callback(self._break_off)
        return self

    def close(self) -> None:
        if self._lost is not None:
            self._lost.remove_done_callback(self._break_off)
        # Without a wait for what is still unsent.
        transport = self.connection.transport if self.connection is not None else None
        if transport is not None:
            transport.abort()
        super().close()

    def _break_off(self, lost: asyncio.Future[None]) -> None:
        lost.exception()  # or it would be logged that nobody asked
        if self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientPayloadError("The connection was lost"))


async def _body(request: UpstreamRequest) -> Body | None:
    """Make the body of a request that has one. Its first chunk is taken at once: what fails there fails here."""
    content = request.content
    if isinstance(content, bytes):
        return Body(content, timeout=request.timeout) if content else None
    rest = aiter(content)
    first = await anext(rest, b"")
    if not first:
        return None
    return Body(first, rest, length=declared_length(request.headers), timeout=request.timeout)


def _received(content: aiohttp.StreamReader) -> bytes:
    """Take what came before a break, of which aiohttp tells first."""
    content.set_exception(None)  # type: ignore[arg-type]  # there is no other way to the buffer
    return content.read_nowait()


def _is_disconnect(exc: Exception) -> bool:
    if isinstance(exc, aiohttp.ClientConnectorError):
        return False
    return isinstance(exc, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)


def _failure(exc: Exception, body: Body | None = None) -> Exception:
    """Choose what to raise for an error of aiohttp's: what broke the request's content, or the seam's word for it."""
    if body is not None and body.failure is not None:
        return body.failure
    kind: type[UpstreamFailure] = UpstreamBroken
    if isinstance(exc, TimeoutError):
        kind = UpstreamTimedOut
    elif isinstance(exc, aiohttp.ClientConnectorError):
        kind = UpstreamUnreachable
    return kind(str(exc))


def _decoded(headers: Headers, url: URL) -> CIMultiDict[str]:
    """Return headers as aiohttp takes them: as text, of which it sends the UTF-8."""
    pairs = [(name.decode(), _text(value)) for name, value in headers]
    if url.raw_user is not None or url.raw_password is not None:  # those are the credentials
        pairs = [pair for pair in pairs if pair[0] != "authorization"]
    return CIMultiDict(pairs)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
