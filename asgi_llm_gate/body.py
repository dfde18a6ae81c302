"""The body of a request: from bytes to data and back, and the replay that the app receives.

What the app gets is never what the client sent but the canonical encoding of what the hooks saw, so that no difference
between two parsers is left for a client to use.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.errors import GateError, too_large
from asgi_llm_gate.head import DECODERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.types import Message, Receive

    from asgi_llm_gate.forms import FormParser
    from asgi_llm_gate.head import Head

MAX_DEPTH = 128


@dataclass(slots=True)
class Body:
    """What the app is to get.

    Attributes:
        content_type: Its media type.
        length: How many bytes it has.
        messages: The messages that carry it, made as they are asked for.
    """

    content_type: bytes
    length: int
    messages: Iterator[Message]

    def content(self) -> bytes:
        """Return what has not been asked for yet, in one piece."""
        return b"".join(message["body"] for message in self.messages)


def whole_body(body: bytes) -> Iterator[Message]:
    """Return a body's one message."""
    return iter(({"type": "http.request", "body": body, "more_body": False},))


def json_body(body: bytes) -> Body:
    """Return a body of JSON."""
    return Body(b"application/json", len(body), whole_body(body))


async def read_body(receive: Receive, head: Head, max_bytes: int) -> bytes | None:
    """Read and decompress a request's body; None if the client went away first.

    Raises:
        GateError: 413 for a body over the limit, compressed or not; 400 for one that does not decompress.
    """
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        parts = bytearray(body)
        while message.get("more_body", False) and len(parts) <= max_bytes:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts += message.get("body", b"")
        body = bytes(parts)
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if not head.encoding or not body:
        return body
    try:
        return decompress(body, head.encoding, max_bytes)
    except ValueError as exc:
        raise GateError(400, f"The request body does not decompress: {exc}", code="invalid_content_encoding") from None


async def read_form(receive: Receive, form: FormParser) -> bytes | None:
    """Have a form's bytes parsed as they come, and return nothing of them; None if the client went away first.

    Raises:
        GateError: What the parser raises.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        form.feed(message.get("body", b""))
        more = message.get("more_body", False)
    return b""


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo a content-encoding that `DECODERS` knows.

    Raises:
        GateError: 413, there is more than so many bytes.
        ValueError: The data is broken, cut, or followed by something else.
    """
    decoder = zlib.decompressobj(DECODERS[encoding])
    try:
        plain = decoder.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise ValueError(exc) from None
    if len(plain) > max_bytes:
        raise too_large(max_bytes)
    if not decoder.eof or decoder.unused_data:
        raise ValueError("it is cut or has a tail")
    return plain


def check_size(body: bytes, max_values: int) -> None:
    """Refuse a JSON body that would take long to decode, before it is decoded.

    Raises:
        GateError: 400, there are too many values.
    """
    if _MOST_A_BYTE * len(body) >= max_values and count_values(body, max_values) > max_values:
        raise GateError(400, f"The JSON's values weigh more than {max_values}", code="json_too_large")


def decode(body: bytes, max_values: int) -> dict[str, Any]:
    """Decode a JSON body, strictly (RFC 8259, UTF-8 only).

    Raises:
        GateError: 400: not JSON, not an object at the top, too deep, too many values, or `stream` not a boolean.
    """
    check_size(body, max_values)
    return parse(body)


def parse(body: bytes) -> dict[str, Any]:
    """Decode a JSON body whose size has been checked.

    Raises:
        GateError: 400: not JSON, not an object at the top, too deep, or `stream` not a boolean.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise GateError(400, f"The request body is not valid JSON: {exc}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise GateError(400, "The request body must be a JSON object", code="invalid_json")
    if is_too_deep(body, data):
        raise GateError(400, f"The JSON is nested more than {MAX_DEPTH} levels deep", code="json_too_deep")
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise GateError(400, "'stream' must be true or false", param="stream", code="invalid_type")
    return data


def count_values(body: bytes, enough: int) -> int:
    """Weigh a JSON text's values, without parsing it and never too low; not exactly where there cannot be `enough`.

    The parser holds the interpreter, and millions of tiny values would stall every other call. A value weighs 1, a text
    or key 1 more, a key 3 more still, an array or object 10 more: about what each costs. All steps are linear.
    """
    most = _MOST_A_BYTE * len(body.translate(None, _NO_STRUCTURE)) + 1
    if most > enough:
        if b"\\" in body:
            # As long as what they replace, which is quicker than to drop them.
            body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        structure = body.translate(None, _NO_STRUCTURE)
        quotes = structure.count(b'"')
        most = quotes // 2
        if most <= enough:
            most += _weight(b"".join(structure.replace(b'""', b"").split(b'"')[::2]))
    return most


# What a byte weighs at most.
_MOST_A_BYTE = 10

# Every byte but those that begin, part or name values, and every one but those that open a level.
_NO_STRUCTURE = bytes(set(range(256)) - set(b',:[{"'))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{"))


def _weight(structure: bytes) -> int:
    return 1 + structure.count(b",") + 3 * structure.count(b":") + 10 * (structure.count(b"[") + structure.count(b"{"))


def is_too_deep(body: bytes, data: dict[str, Any]) -> bool:
    """Tell whether a body and what it decodes to are nested more than `MAX_DEPTH` levels."""
    return len(body.translate(None, _NO_BRACKETS)) > MAX_DEPTH and depth_exceeds(data, MAX_DEPTH)


def depth_exceeds(data: Any, limit: int) -> bool:
    """Tell whether containers are nested deeper than the limit, level by level, so that no stack can overflow."""
    level = [data]
    for _ in range(limit):
        level = [item for container in level for item in _items(container) if type(item) in _CONTAINERS]
        if not level:
            return False
    return True


_CONTAINERS = frozenset({dict, list})


def _items(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


class Replay:
    """The app's `receive`: the body's messages, once, then what the server says.

    Only one task at a time may read from a server, so the app's own call is what waits there.
    """

    __slots__ = ("_body", "_gone", "_receive")

    def __init__(self, body: Iterator[Message], receive: Receive) -> None:
        self._body = body
        self._receive = receive
        self._gone = False

    async def __call__(self) -> Message:
        """Return the next message of the request."""
        if self._gone:
            return {"type": "http.disconnect"}
        message = next_message(self._body)
        if message is not None:
            return message
        message = await self._receive()
        self._gone = message["type"] == "http.disconnect"
        return message


def next_message(body: Iterator[Message]) -> Message | None:
    """Return the next message of a body, or None; once the last is taken, nothing is kept of them."""
    message = next(body, None)
    if message is not None and not message["more_body"]:
        next(body, None)
    return message
