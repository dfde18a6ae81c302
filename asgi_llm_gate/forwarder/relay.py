"""One request's way to the upstream and its response's way back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.forwarder.body import ClientGone, RequestBody
from asgi_llm_gate.forwarder.client import UpstreamFailure, UpstreamTimedOut
from asgi_llm_gate.forwarder.headers import declared_length, is_encoded, media_type, returned
from asgi_llm_gate.forwarder.race import unless

if TYPE_CHECKING:
    from starlette.types import Send

    from asgi_llm_gate.answer import Headers
    from asgi_llm_gate.forwarder.client import UpstreamClient, UpstreamRequest, UpstreamResponse
    from asgi_llm_gate.forwarder.errors import ErrorForm

# Two line ends, each LF, CRLF or CR; atomic, so that one CRLF is never read as two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)\Z")
_LONGEST_BLANK_LINE = 4


class Relay:
    """One request under way.

    Args:
        client: What carries it.
        request: What to send.
        body: The client's, of which ``request.content`` may be made.
        send: The ASGI callable.
        errors: How the client is told of errors.
    """

    def __init__(
        self, client: UpstreamClient, request: UpstreamRequest, body: RequestBody, send: Send, errors: ErrorForm
    ) -> None:
        self._client = client
        self._request = request
        self._body = body
        self._send = send
        self._errors = errors
        self._started = False
        self._complete = False
        self._events: EventBorder | None = None

    async def run(self) -> None:
        """Forward until the response is sent or the client has gone, whichever comes first.

        Raises:
            UpstreamFailure: The response broke off after its start, and so must the server's.
        """
        await unless(self._body.gone, self._forward)

    async def _forward(self) -> None:
        try:
            async with self._client.open(self._request) as response:
                await self._respond(response)
        except ClientGone:
            return
        except UpstreamFailure as failure:
            if self._complete:
                return
            if self._started:
                await self._report(failure)
                raise
            await self._errors.answer(as_gate_error(failure)).send(self._send)

    async def _respond(self, response: UpstreamResponse) -> None:
        headers = returned(response.headers, response.status)
        if _is_open_event_stream(headers):
            self._events = EventBorder()
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        self._started = True
        left = declared_length(headers)
        async for chunk in response.chunks:
            if self._events is not None:
                self._events.feed(chunk)
            if left is not None:
                left -= len(chunk)
                self._complete = not left
            await self._send({"type": "http.response.body", "body": chunk, "more_body": not self._complete})
        if not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _report(self, failure: UpstreamFailure) -> None:
        """Tell of a break in the stream, where another event can stand."""
        if self._events is not None and self._events.reached:
            event = self._errors.event(as_gate_error(failure))
            await self._send({"type": "http.response.body", "body": event, "more_body": True})


class EventBorder:
    """Whether a stream of server-sent events stands between two events."""

    def __init__(self) -> None:
        self._tail = b"\n\n"

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes of the stream."""
        self._tail = (self._tail + chunk[-_LONGEST_BLANK_LINE:])[-_LONGEST_BLANK_LINE:]

    @property
    def reached(self) -> bool:
        """True at the start and after a blank line."""
        return _BLANK_LINE.search(self._tail) is not None


def as_gate_error(failure: UpstreamFailure) -> GateError:
    """Tell a client of a failure, and nothing of where the upstream is."""
    if isinstance(failure, UpstreamTimedOut):
        return GateError(504, "The upstream did not answer in time", code="upstream_timeout")
    return GateError(502, "The upstream can't be reached or broke off the connection", code="upstream_unreachable")


def _is_open_event_stream(headers: Headers) -> bool:
    """Tell whether events can be added: not to compressed bytes, and not beyond a declared length."""
    lengths = any(name == b"content-length" for name, _ in headers)
    return media_type(headers) == b"text/event-stream" and not is_encoded(headers) and not lengths
