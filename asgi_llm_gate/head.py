"""The head of a request: its headers sorted once, what they alone condemn, and those that the app gets."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgi_llm_gate.auth import KEY_HEADERS
from asgi_llm_gate.errors import GateError, too_large
from asgi_llm_gate.form_headers import FORM, form_boundary

if TYPE_CHECKING:
    from starlette.types import Scope

    from asgi_llm_gate.body import Body

RawHeaders = list[tuple[bytes, bytes]]

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

# curl labels what `--data` sends as a form; clients of the JSON endpoints send nothing else by mistake.
_JSON_TYPES = frozenset({"", "application/json", "application/x-www-form-urlencoded"})

_GZIP = zlib.MAX_WBITS | 16
DECODERS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


@dataclass(slots=True)
class Head:
    """A request's headers, sorted once, before the first await.

    A server may still append to its own list while the body is read (chunked trailers), so the gate keeps its own.

    Attributes:
        method: The method, in upper case.
        headers: All headers as they came, with the names in lower case, as ASGI has them.
        named: The last value of every header, by name.
        dropped: The names of those that the app does not get.
        repeated: The names in `_SINGLE` that occur more than once.
    """

    method: str
    headers: RawHeaders
    named: dict[bytes, bytes]
    dropped: frozenset[bytes]
    repeated: list[bytes]

    @classmethod
    def of(cls, scope: Scope) -> Head:
        """Read the head of an HTTP scope."""
        headers = list(scope["headers"])
        named = dict(headers)
        if not b"".join(named).islower():
            headers = [(name.lower(), value) for name, value in headers]
            named = dict(headers)
        dropped, repeated = _DROPPED, []
        if len(named) < len(headers):
            times = Counter(name for name, _ in headers)
            repeated = [name for name in times if times[name] > 1 and name in _SINGLE]
        if len(named) < len(headers) or named.get(b"connection", b"close") not in _USUAL:
            dropped |= _hop_by_hop(headers)
        return cls(scope["method"].upper(), headers, named, dropped, repeated)

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
        if not value:
            return ""
        encoding = value.decode("latin-1").strip().lower()
        return "" if encoding == "identity" else encoding

    def check(self, max_bytes: int) -> None:
        """Refuse what the headers alone condemn in a JSON body, so that the client need not send it.

        Raises:
            GateError: 400, 413 or 415.
        """
        self.check_single()
        if self.named.get(b"content-type") != b"application/json" and not _reads_as_json(self.media_type):
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
        dropped = self.dropped
        kept = [pair for pair in self.headers if pair[0] not in dropped]
        if identity:
            kept = [pair for pair in kept if pair[0] != b"accept-encoding"]
            kept.append((b"accept-encoding", b"identity"))
        kept += ((b"content-type", body.content_type), (b"content-length", b"%d" % body.length))
        return kept

    def forget(self) -> None:
        """Keep the method alone, where a call may last: the app has its headers, and hooks have theirs."""
        self.headers, self.named, self.repeated = [], {}, []


def _reads_as_json(media_type: str) -> bool:
    return media_type in _JSON_TYPES or bool(re.fullmatch(r"application/[\w.-]+\+json", media_type))


def _hop_by_hop(headers: RawHeaders) -> frozenset[bytes]:
    """Return what the client names as its own connection's."""
    tokens = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    return frozenset(tokens - _END_TO_END)
