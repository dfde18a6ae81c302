"""The app's answer on its way to the client: passed on as it comes, or collected to be looked at."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Message

from asgi_llm_gate.body import decompress, is_too_deep
from asgi_llm_gate.errors import GateError

if TYPE_CHECKING:
    from starlette.types import Send

    from asgi_llm_gate.head import RawHeaders

logger = logging.getLogger("asgi_llm_gate")

# What describes a body's bytes, and must go when they change (RFC 9110 §8, RFC 9530).
_OF_THE_BYTES = frozenset(
    {
        *(b"content-length", b"content-encoding", b"content-md5", b"content-digest", b"digest", b"repr-digest"),
        *(b"etag", b"accept-ranges", b"content-range", b"transfer-encoding"),
    }
)

_READ_AS_JSON = frozenset({b"application/json", b"text/json", b"text/plain", b""})

# A transcription's answers that are no JSON.
_TEXT_FORMATS = ("text", "srt", "vtt")
_JSON_FORMATS = ("json", "verbose_json", "diarized_json")
_SUBTITLES = frozenset({b"application/x-subrip", b"text/srt", b"text/vtt", b"application/srt"})

# Extensions by which an app sends a body past `send`'s body messages.
PAST_SEND = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


@dataclass(slots=True)
class Collected:
    """A whole response of the app."""

    start: Message
    body: bytes

    @property
    def status(self) -> int:
        """The HTTP status."""
        status: int = self.start["status"]
        return status

    @property
    def headers(self) -> RawHeaders:
        """The headers, as the app gave them."""
        return list(self.start.get("headers", ()))

    def with_body(self, body: bytes) -> Collected:
        """Return the response with another body, without the headers that described the old one."""
        start = without_bytes_headers(self.start)
        start["headers"].append((b"content-length", b"%d" % len(body)))
        return Collected(start, body)

    def decoded(self, max_bytes: int) -> dict[str, Any]:
        """Return the JSON object in the body, decompressed to at most so many bytes.

        Raises:
            GateError: 502, there is none to be read.
        """
        body = self._plain(max_bytes)
        try:
            data = orjson.loads(body)
        except ValueError as exc:
            raise unreadable(str(exc)) from exc
        if not isinstance(data, dict) or is_too_deep(body, data):
            raise unreadable("no JSON object, or one nested too deep")
        return data

    def text(self, max_bytes: int) -> str:
        """Return the body as text in UTF-8, decompressed to at most so many bytes.

        Raises:
            GateError: 502, it is none.
        """
        try:
            return self._plain(max_bytes).decode()
        except UnicodeDecodeError as exc:
            raise unreadable(str(exc)) from exc

    def _plain(self, max_bytes: int) -> bytes:
        try:
            coding = _coding(self.start)
            return decompress(self.body, coding, max_bytes) if coding else self.body
        except (KeyError, ValueError, GateError) as exc:
            raise unreadable(str(exc)) from exc

    async def send(self, send: Send) -> None:
        """Send the response in two messages."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def without_bytes_headers(start: Message) -> Message:
    """Return a response start for a body whose bytes are to change; trailers would not fit it either."""
    headers = [pair for pair in start.get("headers", ()) if pair[0].lower() not in _OF_THE_BYTES]
    trailers = {"trailers": False} if start.get("trailers") else {}
    return {**start, "headers": headers, **trailers}


def is_json(start: Message) -> bool:
    """Tell whether a response start announces a body that clients read as JSON, as they do if it says nothing."""
    media_type = _media_type(start)
    return media_type in _READ_AS_JSON or media_type.endswith(b"+json")


def is_text(start: Message, response_format: Any) -> bool:
    """Tell whether a response start announces text that is no JSON: subtitles, or what was asked for as text."""
    media_type = _media_type(start)
    if media_type == b"text/plain":
        return response_format not in _JSON_FORMATS
    return media_type in _SUBTITLES or (not media_type and response_format in _TEXT_FORMATS)


def is_event_stream(start: Message) -> bool:
    """Tell whether a response start announces server-sent events."""
    return _media_type(start) == b"text/event-stream"


def is_encoded(start: Message) -> bool:
    """Tell whether a response start announces a body in a content-encoding."""
    return bool(_coding(start))


def has_whole_body(start: Message) -> bool:
    """Tell whether a response start is a success whose body is the whole thing asked for."""
    return 200 <= start["status"] < 300 and start["status"] not in {204, 205, 206}


def unreadable(why: str) -> GateError:
    """Log why a response can't be looked at, and make the 502 that says no more than that."""
    logger.error("the app's response can't be looked at: %s", why)
    return GateError(502, "The app's response can't be looked at", code="invalid_response")


def _media_type(start: Message) -> bytes:
    return _header(start, b"content-type").partition(b";")[0].strip().lower()


def _coding(start: Message) -> str:
    """Return a response start's content-encoding, empty for none."""
    coding = _header(start, b"content-encoding").decode("latin-1").strip().lower()
    return "" if coding == "identity" else coding


def _header(start: Message, wanted: bytes) -> bytes:
    for name, value in start.get("headers", ()):
        if name.lower() == wanted:
            return bytes(value)
    return b""


Handler = Callable[[Message], Awaitable[None]]


class Reply:
    """The app's `send`, where a hook may want to look at the answer.

    Args:
        send: Where messages go on to.
        choose: Is given the response start. Returns what is to take the body's messages and answer for the start too,
            or None to pass everything on.

    Attributes:
        complete: The app has said its last.
    """

    def __init__(self, send: Send, choose: Callable[[Message], Handler | None]) -> None:
        self._send = send
        self._choose = choose
        self._handler: Handler | None = None
        self.complete = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the app."""
        kind = message["type"]
        if kind == "http.response.start":
            self._handler = self._choose(message)
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        if self._handler is None:
            await self._send(message)
        elif kind == "http.response.body":
            await self._handler(message)


class Collector:
    """Puts a whole response together.

    Args:
        start: The response start.
        finish: Is given the response, and sends what the client gets.
        overflow: Is told that the response is larger than may be collected, and answers in its place.
        max_bytes: The most a body may have.
    """

    def __init__(
        self,
        start: Message,
        finish: Callable[[Collected], Awaitable[None]],
        overflow: Callable[[], Awaitable[None]],
        max_bytes: int,
    ) -> None:
        # What follows a body that may change would not fit it.
        self._start = {**start, "trailers": False} if start.get("trailers") else start
        self._finish = finish
        self._overflow = overflow
        self._max_bytes = max_bytes
        self._body = bytearray()
        self._closed = False

    async def __call__(self, message: Message) -> None:
        """Take one body message."""
        if self._closed:
            return
        self._body += message.get("body", b"")
        if len(self._body) > self._max_bytes:
            self._closed = True
            self._body.clear()
            await self._overflow()
        elif not message.get("more_body", False):
            self._closed = True
            await self._finish(Collected(self._start, bytes(self._body)))
