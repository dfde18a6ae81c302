"""A form written anew, in the one plain way that every parser reads alike."""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.body import Body
from asgi_llm_gate.uploads import CHUNK, Upload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from starlette.types import Message

    from asgi_llm_gate.forms import Part

# Names are quoted as browsers do it (WHATWG, "multipart/form-data encoding algorithm"), but for the backslash, which
# most parsers take for an escape.
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\\": "\\\\"})
_NO_NAME = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MEDIA_TYPE = re.compile(r"[!-~][ -~]*")

# What a part's content is written from: bytes, or a file and how much of it.
_Content = bytes | tuple[Upload, int]


def encode_form(content: Mapping[str, Any], parts: Sequence[Part]) -> Body:
    """Return the form that says what is in `content`.

    Args:
        content: Fields and files by name; a list stands for a repeated one, None for none. A field is a string, a
            number or a boolean, a file an `Upload`, bytes, or a tuple of filename, bytes and perhaps a media type.
        parts: The client's, whose order and names are kept.

    Raises:
        TypeError: A value is nothing of this, or a name can't be one.
    """
    # Made after the client's last byte, and not to be guessed: it stands nowhere in the form.
    boundary = secrets.token_hex(16).encode()
    pieces: list[_Content] = []
    for name, value, model in _arranged(content, parts):
        head, body = _part(name, value, model)
        pieces += [b"--%b\r\n%b\r\n\r\n" % (boundary, head), body, b"\r\n"]
    pieces.append(b"--%b--\r\n" % boundary)
    length = sum(len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)
    return Body(b"multipart/form-data; boundary=" + boundary, length, _messages(pieces, length))


def _arranged(content: Mapping[str, Any], parts: Sequence[Part]) -> Iterator[tuple[str, Any, Part | None]]:
    """Yield the name and value of each part to write, and the client's part in whose place it stands."""
    left = {key: _values(value) for key, value in content.items()}
    last = {part.key: index for index, part in enumerate(parts)}
    for index, part in enumerate(parts):
        values = left.get(part.key, [])
        taken = values if last[part.key] == index else values[:1]
        yield from ((part.name, value, part) for value in taken)
        left[part.key] = values[len(taken) :]
    for key, values in left.items():
        # A list that the client did not send has its name as official clients write it.
        name = f"{key}[]" if isinstance(content.get(key), list) else key
        yield from ((name, value, None) for value in values)


def _values(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [value for value in values if value is not None]


def _part(name: Any, value: Any, model: Part | None) -> tuple[bytes, _Content]:
    """Return a part's headers, without their last line end, and its content."""
    old = model.value if model else None
    if isinstance(value, bytes):
        own = (str(name).removesuffix("[]"), None)
        filename, content_type = (old.filename, old.content_type) if isinstance(old, Upload) else own
        return _head(name, filename, content_type), value
    if isinstance(value, tuple):
        filename, body, content_type = (*value, None, None, None)[:3]
        if not isinstance(body, bytes):
            raise TypeError(f"the file {name!r} is no tuple of filename, bytes and media type")
        return _head(name, filename, content_type), body
    if isinstance(value, Upload):
        return _head(name, value.filename, value.content_type), (value, value.size)
    return _head(name, None, model.content_type if model else None), _text(name, value)


def _text(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as exc:
            raise TypeError(f"the field {name!r} has half a surrogate pair") from exc
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return orjson.dumps(value)
    raise TypeError(f"the field {name!r} is of type {type(value).__name__}, which no form can carry")


def _head(name: Any, filename: Any, content_type: Any) -> bytes:
    head = b'Content-Disposition: form-data; name="%b"' % _quoted(name, "a field")
    if filename is not None:
        head += b'; filename="%b"' % _quoted(filename, "a file")
    if content_type is not None:
        if not isinstance(content_type, str) or not _MEDIA_TYPE.fullmatch(content_type):
            raise TypeError(f"{content_type!r} is no media type")
        head += b"\r\nContent-Type: " + content_type.encode()
    return head


def _quoted(name: Any, what: str) -> bytes:
    if not isinstance(name, str) or not name or _NO_NAME.search(name):
        raise TypeError(f"{name!r} is no name of {what}")
    escaped = name.translate(_ESCAPES)
    if what == "a field" and escaped != escaped.strip():  # Django would
        raise TypeError(f"{name!r} is no name of {what}")
    try:
        return escaped.encode()
    except UnicodeEncodeError as exc:
        raise TypeError(f"{name!r} is no name of {what}") from exc


def _messages(pieces: Iterable[_Content], length: int) -> Iterator[Message]:
    """Yield the body in messages of at most `CHUNK` bytes, each read when it is asked for."""
    for chunk in _packed(pieces):
        length -= len(chunk)
        yield {"type": "http.request", "body": chunk, "more_body": length > 0}


def _packed(pieces: Iterable[_Content]) -> Iterator[bytes]:
    buffer = bytearray()
    for piece in pieces:
        for chunk in (piece,) if isinstance(piece, bytes) else piece[0].chunks(piece[1]):
            buffer += chunk
            while len(buffer) > CHUNK:
                yield bytes(buffer[:CHUNK])
                del buffer[:CHUNK]
    yield bytes(buffer)
