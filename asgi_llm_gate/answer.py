"""An answer the gate gives itself, as the two ASGI messages that carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Send

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"

# A stream must not be cached, and nginx must not buffer it (X-Accel-Buffering).
_STREAM_HEADERS: Headers = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response: its status, its body, the body's media type and further headers."""

    status: int
    body: bytes
    media_type: bytes = JSON
    headers: Headers = ()

    async def send(self, send: Send) -> None:
        """Send the response start and the whole body.

        A stream carries no content-length, as OpenAI's do not.
        """
        headers = [(b"content-type", self.media_type)]
        if self.media_type == EVENT_STREAM:
            headers += _STREAM_HEADERS
        else:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": [*headers, *self.headers]})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})
