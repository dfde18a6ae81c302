"""The request: its headers, its body from bytes to data and back, and the replay that the app receives.

What the app gets is never what the client sent but the canonical encoding of what the hooks saw, so that no difference
between two parsers is left for a client to use.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.auth import KEY_HEADERS
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.form_headers import FORM, form_boundary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.types import Message, Receive, Scope

    from asgi_llm_gate.forms import FormParser

RawHeaders = list[tuple[bytes, bytes]]

MAX_DEPTH = 128

# Headers that describe the body as the client framed it, or the client's connection (RFC 9110 §7.6.1): the app gets
# none of them, but a content-type and a content-length of the gate's own.
_DROPPED = frozenset(
    {
        *(b"content-type", b"content-length", b"content-encoding", b"content-md5", b"content-digest", b"digest"),
        *(b"repr-digest", b"expect", b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate"),
        *(b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)

# What a Connection header says on every other connection, and what it can't make hop-by-hop (RFC 9110 §7.6.1).
_USUAL = frozenset({b"keep-alive", b"close"})
_END_TO_END = frozenset({*KEY_HEADERS, b"cookie", b"host"})

# Of these a second one could be read differently by the gate and by the app.
_SINGLE = frozenset({b"content-type", b"content-length", b"content-encoding", *KEY_HEADERS})

# All that is not just passed on.
_WATCHED = _DROPPED | _SINGLE | {b"accept-encoding"}

# curl labels what `--data` sends as a form; clients of the JSON endpoints send nothing else by mistake.
_JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded"})

_GZIP = zlib.MAX_WBITS | 16
DECODERS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


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


@dataclass(slots=True)
class Head:
    """A request's headers, sorted once, before the first await.

    A server may still append to its own list while the body is read (chunked trailers), so the gate keeps its own.

    Attributes:
        method: The method, in upper case.
        headers: All headers, as they were.
        kept: The headers the app will get, in order.
        codings: Likewise, those that say which content-encodings the client takes.
        named: The last value of every header, by lower-case name.
        repeated: The names in `_SINGLE` that occur more than once.
    """

    method: str
    headers: RawHeaders
    kept: RawHeaders
    codings: RawHeaders
    named: dict[bytes, bytes]
    repeated: list[bytes]

    @classmethod
    def of(cls, scope: Scope) -> Head:
        """Read the head of an HTTP scope."""
        headers = list(scope["headers"])
        kept: RawHeaders = []
        codings: RawHeaders = []
        named: dict[bytes, bytes] = {}
        repeated: list[bytes] = []
        hop_by_hop: set[bytes] = set()
        for pair in headers:
            name, value = pair
            key = name.lower()
            if key not in _WATCHED:
                kept.append(pair)
            elif key == b"accept-encoding":
                codings.append(pair)
            else:
                if key in _SINGLE and key in named:
                    repeated.append(key)
                if key == b"connection" and value not in _USUAL:
                    hop_by_hop.update(token.strip().lower() for token in value.split(b","))
                elif key not in _DROPPED:
                    kept.append(pair)
            named[key] = value
        if hop_by_hop:
            dropped = hop_by_hop - _END_TO_END
            kept, codings = ([pair for pair in pairs if pair[0].lower() not in dropped] for pairs in (kept, codings))
        return cls(scope["method"].upper(), headers, kept, codings, named, repeated)

    @property
    def declares_body(self) -> bool:
        """The headers say that a body follows."""
        return b"transfer-encoding" in self.named or self.named.get(b"content-length", b"0") != b"0"

    @property
    def is_preflight(self) -> bool:
        """A browser asks what it may send (CORS): it shows no key, and says nothing to a model."""
        return self.method == "OPTIONS" and not self.declares_body

    @property
    def media_type(self) -> str:
        """The content type, in lower case and without its parameters; empty for none."""
        return self.named.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip(" \t").lower()

    @property
    def encoding(self) -> str:
        """The content-encoding, in lower case; empty for none."""
        value = self.named.get(b"content-encoding")
        encoding = value.decode("latin-1").strip().lower() if value else ""
        return "" if encoding == "identity" else encoding

    def check(self, max_bytes: int) -> None:
        """Refuse what the headers alone condemn in a JSON body, so that the client need not send it.

        Raises:
            GateError: 400, 413 or 415.
        """
        self.check_single()
        media_type = self.media_type
        if media_type not in _JSON_TYPES and not re.fullmatch(r"application/[\w.-]+\+json", media_type):
            raise self.unsupported("application/json")
        if self.encoding and self.encoding not in DECODERS:
            message = f"Unsupported content encoding {self.encoding!r}: send gzip, deflate or none"
            raise GateError(415, message, code="unsupported_content_encoding")
        self._check_length(max_bytes)

    def check_form(self, max_bytes: int) -> bytes:
        """Refuse what the headers alone condemn in a form, and return its boundary.

        Raises:
            GateError: 400, 413 or 415.
        """
        self.check_single()
        if self.media_type != FORM:
            raise self.unsupported(FORM)
        if self.encoding:
            message = f"Unsupported content encoding {self.encoding!r}: send the form as it is"
            raise GateError(415, message, code="unsupported_content_encoding")
        self._check_length(max_bytes)
        return form_boundary(self.named[b"content-type"])

    def unsupported(self, takes: str) -> GateError:
        """Make the 415 that names the content type which an endpoint takes."""
        message = f"Unsupported content type {self.media_type!r}: this endpoint takes {takes}"
        return GateError(415, message, code="unsupported_content_type")

    def _check_length(self, max_bytes: int) -> None:
        length = self.named.get(b"content-length", b"0")
        if not length.isdigit():
            raise GateError(400, "The content-length is not a number", code="invalid_content_length")
        if len(length) > 18 or int(length) > max_bytes:
            raise too_large(max_bytes)

    def check_single(self) -> None:
        """Refuse headers that the gate and the app might read differently.

        Raises:
            GateError: 400.
        """
        if self.repeated:
            name = self.repeated[0].decode("latin-1")
            raise GateError(400, f"The header {name} occurs more than once", code="repeated_header")

    def for_app(self, body: Body, *, identity: bool) -> RawHeaders:
        """Return the headers for the app: the client's own and those of the canonical body.

        Args:
            body: The body the app will get.
            identity: The answer must come unencoded, because it will be read.
        """
        codings = [(b"accept-encoding", b"identity")] if identity else self.codings
        own = ((b"content-type", body.content_type), (b"content-length", b"%d" % body.length))
        return [*self.kept, *codings, *own]


def too_large(max_bytes: int) -> GateError:
    """Make the 413 that names the limit, in bytes."""
    return GateError(413, f"The request body is larger than {max_bytes} bytes", code="request_too_large")


async def read_body(receive: Receive, head: Head, max_bytes: int) -> bytes | None:
    """Read and decompress a request's body; None if the client went away first.

    Raises:
        GateError: 413 for a body over the limit, compressed or not; 400 for one that does not decompress.
    """
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes | bytearray = message.get("body", b"")
    if message.get("more_body", False):
        body = bytearray(body)
    while message.get("more_body", False) and len(body) <= max_bytes:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    body = bytes(body)
    if not head.encoding or not body:
        return body
    try:
        return decompress(body, head.encoding, max_bytes)
    except ValueError as exc:
        raise GateError(400, f"The request body does not decompress: {exc}", code="invalid_content_encoding") from None


async def read_form(receive: Receive, form: FormParser) -> bool:
    """Have a form's bytes parsed as they come; False if the client went away first.

    Raises:
        GateError: What the parser raises.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return False
        form.feed(message.get("body", b""))
        more = message.get("more_body", False)
    return True


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
    if not isinstance(data.get("stream"), bool | None):
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

# Every byte but those that begin, part or name values.
_NO_STRUCTURE = bytes(set(range(256)) - set(b',:[{"'))


def _weight(structure: bytes) -> int:
    return 1 + structure.count(b",") + 3 * structure.count(b":") + 10 * (structure.count(b"[") + structure.count(b"{"))


def is_too_deep(body: bytes, data: dict[str, Any]) -> bool:
    """Tell whether a body and what it decodes to are nested more than `MAX_DEPTH` levels."""
    return body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth_exceeds(data, MAX_DEPTH)


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
