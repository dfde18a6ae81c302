"""Requests as bytes on the wire, to an app that echoes what it reads at `/v1/chat/completions`.

Rows: name; the request's head and body; for each of uvicorn's parsers: the status, and whether the app was called;
with which parsers a handler of Starlette's reads the body with no gate before it, if not with those that bring the app
a call.
"""

from __future__ import annotations

from typing import NamedTuple

BODY = b'{ "user": "u" }'
CHUNKED = b"f\r\n" + BODY + b"\r\n0\r\n\r\n"

JSON = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: 15\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


class Framing(NamedTuple):
    name: str
    wire: bytes
    h11: tuple[int, bool]
    httptools: tuple[int, bool]
    bare: tuple[str, ...] | None = None

    def is_read(self, parser: str) -> bool:
        """With this parser, and no gate, a handler reads the body."""
        return getattr(self, parser) == SEEN if self.bare is None else parser in self.bare


def post(
    *headers: bytes, body: bytes = BODY, target: bytes = b"/v1/chat/completions", host: bytes = b"Host: h\r\n"
) -> bytes:
    """A request that asks for the connection to be closed."""
    return b"POST " + target + b" HTTP/1.1\r\nConnection: close\r\n" + host + b"".join(headers) + b"\r\n" + body


SEEN, REFUSED, PASSED = (200, True), (400, False), (404, True)
TYPE = (415, False)

FRAMINGS = [
    Framing("a length", post(JSON, LENGTH), SEEN, SEEN),
    Framing("chunked", post(JSON, TE, body=CHUNKED), SEEN, SEEN),
    Framing("length and chunked", post(JSON, b"Content-Length: 5\r\n", TE, body=CHUNKED), SEEN, REFUSED),
    Framing("chunked and length", post(JSON, TE, b"Content-Length: 5\r\n", body=CHUNKED), SEEN, REFUSED),
    Framing("gzip, chunked", post(JSON, b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKED), REFUSED, SEEN),
    Framing(
        "chunked under a wrong name", post(JSON, b"Transfer-Encoding: xchunked\r\n", body=CHUNKED), REFUSED, REFUSED
    ),
    Framing("two lengths, equal", post(JSON, LENGTH, LENGTH), SEEN, REFUSED),
    Framing("two lengths, not equal", post(JSON, LENGTH, b"Content-Length: 5\r\n"), REFUSED, REFUSED),
    Framing("a signed length", post(JSON, b"Content-Length: +15\r\n"), REFUSED, REFUSED),
    Framing("a space before the colon", post(JSON, b"Content-Length : 15\r\n"), REFUSED, REFUSED),
    Framing("a folded header", post(b"Content-Type:\r\n application/json\r\n", LENGTH), SEEN, REFUSED),
    Framing(
        "a header folded into two types",
        post(b"Content-Type: application/json\r\n text/plain\r\n", LENGTH),
        TYPE,
        REFUSED,
        ("h11",),
    ),
    Framing("two hosts", post(b"Host: i\r\n", JSON, LENGTH), REFUSED, SEEN),
    Framing("no host", post(JSON, LENGTH, host=b""), REFUSED, SEEN),
    Framing("an odd host", post(JSON, LENGTH, host=b"Host: h/health?\r\n"), SEEN, SEEN),
    Framing("a body without framing", post(JSON), REFUSED, REFUSED),
    Framing("a header with underscores", post(b"content_type: text/plain\r\n", JSON, LENGTH), SEEN, SEEN),
    Framing("no content type", post(LENGTH), SEEN, SEEN),
    Framing("text", post(b"Content-Type: text/plain\r\n", LENGTH), TYPE, TYPE, ("h11", "httptools")),
    Framing("two types", post(JSON, b"Content-Type: text/plain\r\n", LENGTH), REFUSED, REFUSED, ("h11", "httptools")),
    Framing("invalid JSON", post(JSON, b"Content-Length: 2\r\n", body=b"{,"), REFUSED, REFUSED),
    Framing("lower-case method", post(JSON, LENGTH).replace(b"POST", b"post", 1), SEEN, REFUSED, ()),
    Framing("GET with a body", post(JSON, LENGTH).replace(b"POST", b"GET", 1), SEEN, SEEN),
    Framing("QUERY with a body", post(JSON, LENGTH).replace(b"POST", b"QUERY", 1), SEEN, SEEN),
    Framing(
        "GET with an invalid body",
        post(JSON, b"Content-Length: 1\r\n", body=b"{").replace(b"POST", b"GET"),
        REFUSED,
        REFUSED,
    ),
    # request targets
    Framing(
        "a newline at the end",
        post(JSON, LENGTH, target=b"/v1/chat/completions%0A"),
        REFUSED,
        REFUSED,
        ("h11", "httptools"),
    ),
    Framing("an escaped slash", post(JSON, LENGTH, target=b"/v1/chat%2Fcompletions"), SEEN, SEEN),
    Framing("escaped letters", post(JSON, LENGTH, target=b"/%76%31/%63hat/completions"), SEEN, SEEN),
    Framing("twice escaped", post(JSON, LENGTH, target=b"/v1/chat%252Fcompletions"), REFUSED, REFUSED),
    Framing("an escaped NUL", post(JSON, LENGTH, target=b"/v1/chat/completions%00"), REFUSED, REFUSED),
    Framing("bytes that are not UTF-8", post(JSON, LENGTH, target=b"/v1/chat/completions%FF"), REFUSED, REFUSED),
    Framing("the whole URL", post(JSON, LENGTH, target=b"http://evil/v1/chat/completions"), REFUSED, SEEN),
    Framing("a fragment", post(JSON, LENGTH, target=b"/v1/chat/completions#/../y"), REFUSED, SEEN),
    Framing("a query", post(JSON, LENGTH, target=b"/v1/chat/completions?user=x&path=/health"), SEEN, SEEN),
    Framing("dots", post(JSON, LENGTH, target=b"/v1/x/../chat/completions"), REFUSED, REFUSED),
    Framing("a backslash", post(JSON, LENGTH, target=b"/v1\\chat\\completions"), REFUSED, REFUSED),
    Framing("another path", post(JSON, LENGTH, target=b"/v1/orders"), PASSED, PASSED, ("h11", "httptools")),
]
