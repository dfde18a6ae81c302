"""The seam between the forwarder and the HTTP client library that carries its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asgi_llm_gate.answer import Headers


class UpstreamFailure(Exception):
    """The upstream gave no answer, or not the whole of it."""


class UpstreamUnreachable(UpstreamFailure):
    """No connection to the upstream could be made."""


class UpstreamTimedOut(UpstreamFailure):
    """The upstream took too long to be connected to, to read or to write."""


class UpstreamBroken(UpstreamFailure):
    """The upstream closed the connection early, or what it sent is not HTTP."""


def _nothing() -> None:
    """Close nothing."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to an upstream.

    Args:
        method: In upper case.
        url: Absolute and quoted.
        headers: Everything but what the client library owes the wire: ``host`` where none is given, and
            ``transfer-encoding: chunked`` for streamed content without a ``content-length``. A library adds
            no header beyond those.
        content: The whole body, or its chunks.
        timeout: Seconds the upstream may stay silent.
        close: To be called when the request is over: closes what the content is read from.
    """

    method: str
    url: str
    headers: Headers
    content: bytes | AsyncIterable[bytes]
    timeout: float
    close: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """What an upstream answers.

    Args:
        status: 200 to 599.
        headers: As they came: every repetition, in order.
        chunks: The body as it came, still in its content-encoding. Raises `UpstreamFailure`.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    chunks: AsyncIterator[bytes]


class UpstreamClient(Protocol):
    """A client library behind the seam. One serves many requests at once."""

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send a request; the context is entered when the response's head has come.

        Redirects are answers like any other. Leaving the context early, or cancelling what is inside it,
        closes the connection at once.

        Raises:
            UpstreamFailure: There is no answer. An error of the request's own content is raised as it is.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection that this client made."""
        ...
