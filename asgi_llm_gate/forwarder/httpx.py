"""httpx behind the seam, or any client with its API."""

from __future__ import annotations

import importlib
from contextlib import aclosing, asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import httpx

from asgi_llm_gate.forwarder.client import (
    UpstreamBroken,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimedOut,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

# Seconds after which an idle connection is given up: before uvicorn, which most local upstreams run in, closes it
# (after five): a request sent on one that is just being closed is lost, and a call may not be sent twice.
IDLE = 4

# Seconds to close a connection in, which nothing may cancel.
CLOSING = 5

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=IDLE)


class AsyncClientLike(Protocol):
    """The part of ``httpx.AsyncClient`` that is used."""

    def build_request(self, method: str, url: str) -> Any:
        """Make a request."""
        ...

    async def send(self, request: Any, *, stream: bool = ..., follow_redirects: bool = ...) -> Any:
        """Send a request."""
        ...

    async def aclose(self) -> None:
        """Close the client."""
        ...


class HttpxClient:
    """An `UpstreamClient` that sends with httpx.

    Args:
        client: The client to send with: ``httpx.AsyncClient``, ``httpx2.AsyncClient`` or another with the
            same API. It stays the caller's to close. By default one is made here, and closed here.
        connect_timeout: Seconds to connect in.
    """

    def __init__(self, client: AsyncClientLike | None = None, *, connect_timeout: float) -> None:
        self._owned = client is None
        self._client = client if client is not None else _new_client()
        # A client takes requests of its own library only, and raises that library's errors.
        self._request_class = type(self._client.build_request("GET", "http://localhost"))
        self._library: Any = importlib.import_module(self._request_class.__module__)
        self._connect_timeout = connect_timeout

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """Send a request and enter its response."""
        with self._failures():
            response = await self._client.send(self._made(request), stream=True, follow_redirects=False)
        try:
            async with aclosing(self._chunks(response)) as chunks:
                yield UpstreamResponse(response.status_code, response.headers.raw, chunks)
        finally:
            with anyio.move_on_after(CLOSING, shield=True):
                await response.aclose()

    async def aclose(self) -> None:
        """Close the client that was made here."""
        if self._owned:
            await self._client.aclose()

    def _made(self, request: UpstreamRequest) -> Any:
        # Not built by the client, which would add its own user-agent, accept and accept-encoding.
        timeouts = dict.fromkeys(("read", "write"), request.timeout)
        timeouts |= dict.fromkeys(("connect", "pool"), self._connect_timeout)
        return self._request_class(
            request.method,
            request.url,
            headers=request.headers,
            content=request.content,
            extensions={"timeout": timeouts},
        )

    async def _chunks(self, response: Any) -> AsyncGenerator[bytes, None]:
        with self._failures():
            async with aclosing(response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    yield chunk

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise the library's errors as those of the seam."""
        library = self._library
        try:
            yield
        except library.TimeoutException as exc:
            raise UpstreamTimedOut(str(exc)) from exc
        except (library.ConnectError, library.ProxyError) as exc:
            raise UpstreamUnreachable(str(exc)) from exc
        except library.HTTPError as exc:
            raise UpstreamBroken(str(exc)) from exc


def tls_context() -> ssl.SSLContext:
    """Make what tells whose certificates are good: the authorities of certifi, or of ``SSL_CERT_FILE``.

    Raises:
        OSError: ``SSL_CERT_FILE`` can't be read.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _new_client() -> AsyncClientLike:
    # Cookies are the callers' business: kept here, one caller's would pile up beside another's.
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(cookies=jar, limits=_LIMITS, verify=tls_context(), trust_env=False)
