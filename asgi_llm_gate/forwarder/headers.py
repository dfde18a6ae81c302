"""Which headers may travel on, to the upstream and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asgi_llm_gate.answer import Headers

    Pairs = Iterable[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, and the older names that still occur.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Made anew for the next connection: `host` by the URL, `content-length` by what is known of the body. The
# server in front has answered `expect` by the time the body is read.
_NOT_FORWARDED = _HOP_BY_HOP | {b"content-length", b"expect", b"host"}

# The ASGI server writes its own `date` and `server` beside an app's. An `alt-svc` would send browsers to a
# port of this host that is not ours.
_NOT_RETURNED = _HOP_BY_HOP | {b"alt-svc", b"date", b"server"}

_CREDENTIALS = frozenset(
    {b"api-key", b"authorization", b"cookie", b"x-api-key", b"x-goog-api-key", b"x-litellm-api-key"}
)

# True of the client's bytes, and no longer of a body that was written anew.
_BODY_FIELDS = frozenset({b"content-digest", b"content-encoding", b"content-md5", b"content-type", b"digest"})


def snapshot(headers: Pairs) -> Headers:
    """Copy a scope's headers, names in lower case.

    To be taken before the first await: a server may append the request's trailers to its list later.
    """
    return tuple([(bytes(name).lower(), bytes(value)) for name, value in headers])


def forwarded(headers: Headers, *, own: Headers, keep_credentials: bool) -> Headers:
    """Pick the headers that go to the upstream.

    Args:
        headers: The client's, in lower case.
        own: Set in place of the client's of the same names.
        keep_credentials: Whether the client's keys and cookies go on.
    """
    dropped = _NOT_FORWARDED.union(dict(own), _named_by_connection(headers))
    if not keep_credentials:
        dropped |= _CREDENTIALS
    kept = tuple([pair for pair in headers if pair[0] not in dropped])
    if b"accept-encoding" not in dict(kept + own):
        kept += ((b"accept-encoding", b"identity"),)
    return kept + own


def returned(headers: Pairs, status: int) -> Headers:
    """Pick the headers that go back to the client, names in lower case, in order and with repetitions."""
    pairs = snapshot(headers)
    dropped = _NOT_RETURNED.union(_named_by_connection(pairs))
    if status in (204, 304) or _first(pairs, b"transfer-encoding") is not None:
        dropped |= {b"content-length"}
    return tuple([pair for pair in pairs if pair[0] not in dropped])


def with_json_body(headers: Headers) -> Headers:
    """Describe a JSON body that was written anew."""
    return with_body(headers, b"application/json")


def with_body(headers: Headers, content_type: bytes) -> Headers:
    """Describe a body that was written anew."""
    kept = tuple(pair for pair in headers if pair[0] not in _BODY_FIELDS)
    return (*kept, (b"content-type", content_type))


def declared_length(headers: Headers) -> int | None:
    """Read the body's length in bytes, or None where it is absent, ambiguous or overruled by chunked."""
    values = {value for name, value in headers if name == b"content-length"}
    if len(values) != 1 or _first(headers, b"transfer-encoding") is not None:
        return None
    (value,) = values
    return int(value) if value.isdigit() and len(value) < 20 else None


def media_type(headers: Pairs) -> bytes:
    """Read the content type without its parameters, in lower case; empty where there is none."""
    value = _first(headers, b"content-type") or b""
    return value.partition(b";")[0].strip().lower()


def is_encoded(headers: Pairs) -> bool:
    """Tell whether the body is compressed or otherwise encoded."""
    encodings = b",".join(value for name, value in headers if name == b"content-encoding")
    return any(coding.strip().lower() not in (b"", b"identity") for coding in encodings.split(b","))


def encode(headers: Mapping[str, Any]) -> Headers:
    """Encode headers that a setting gives.

    Raises:
        ValueError: A name is no token or is not free to set, or a value holds a control character or is
            not Latin-1.
    """
    return tuple((_name(name), _value(name, value)) for name, value in headers.items())


def bearer(api_key: str) -> tuple[bytes, bytes]:
    """Make the header that carries an API key.

    Raises:
        ValueError: The key can't stand in a header.
    """
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ValueError("holds a character that an API key can't have")
    return b"authorization", b"Bearer " + api_key.encode()


def _first(headers: Pairs, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)


def _named_by_connection(headers: Headers) -> list[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    return [token.strip().lower() for value in values for token in value.split(b",")]


def _name(name: str) -> bytes:
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{name!r} is no header name")
    encoded = name.lower().encode()
    if encoded in _HOP_BY_HOP or encoded == b"content-length":
        raise ValueError(f"{name!r} belongs to the connection and can't be set")
    return encoded


def _value(name: str, value: Any) -> bytes:
    if not isinstance(value, str) or any(char < " " or char == "\x7f" or char > "\xff" for char in value):
        raise ValueError(f"the value of {name!r} is not text that a header can hold")
    return value.strip().encode("latin-1")
