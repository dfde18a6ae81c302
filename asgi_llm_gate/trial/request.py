"""The request to try: a JSON file with its path, headers and body, or with nothing but a body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from asgi_llm_gate.config_file import one_line
from asgi_llm_gate.errors import is_header
from asgi_llm_gate.values import shown

_FIELDS = ("path", "body", "headers", "method")
_CHAT = "/v1/chat/completions"


class RequestError(ValueError):
    """A request that can't be tried, in one line that says why."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Request(NamedTuple):
    """A request as a client would send it.

    Attributes:
        method: In upper case.
        path: As it stands in the URL, with the query.
        headers: By lower-case name; `content-length` among them.
        body: Its bytes.
    """

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def read_request(text: bytes) -> Request:
    """Read the request in a file.

    Args:
        text: A JSON object with `path`, and `body`, `headers` and `method` where they are needed; or a chat's body. A
            body that is a text is sent as it is.

    Raises:
        RequestError: It is neither.
    """
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise RequestError(f"no valid JSON: {exc}") from exc
    if not isinstance(given, dict):
        raise RequestError(f"expected an object, got {type(given).__name__}")
    if not given.keys() & {"path", "body"}:
        given = {"body": given}
    if unknown := given.keys() - set(_FIELDS):
        raise RequestError(f"{min(unknown)}: a request has {', '.join(_FIELDS)}")
    body = given.get("body")
    content = body.encode() if isinstance(body, str) else _encoded(body)
    return Request(_method(given, content), _path(given), _headers(given.get("headers"), content), content)


def _encoded(body: Any) -> bytes:
    try:
        return b"" if body is None else orjson.dumps(body)
    except orjson.JSONEncodeError as exc:
        raise RequestError("body: nested too deep; give it as a text to send it as it is") from exc


def _method(given: Mapping[str, Any], content: bytes) -> str:
    method = given.get("method", "POST" if content else "GET")
    if not isinstance(method, str) or not method.isascii() or not method.isalpha():
        raise RequestError(f"method: expected a word such as POST, got {shown(method)}")
    return method.upper()


def _path(given: Mapping[str, Any]) -> str:
    body = given.get("body")
    path = given.get("path", _CHAT if isinstance(body, dict) and "messages" in body else None)
    if path is None:
        raise RequestError('no path, and no body of a chat: give both, as {"path": "/v1/embeddings", "body": {…}}')
    if not isinstance(path, str) or not path.startswith("/") or not path.isascii() or not path.isprintable():
        raise RequestError(f"path: expected one as it stands in a URL, such as {_CHAT}, got {shown(path)}")
    return path


def _headers(given: Any, content: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if not isinstance(given, Mapping | None):
        raise RequestError(f"headers: expected values by name, got {type(given).__name__}")
    headers = {"host": "127.0.0.1:4000"}
    if content:
        headers |= {"content-type": "application/json", "content-length": str(len(content))}
    for name, value in (given or {}).items():
        if not isinstance(value, str) or not is_header(name, value):
            raise RequestError(f"headers: {name} is no header of this value")
        headers[name.lower()] = value
    return tuple((name.encode(), value.encode("latin-1")) for name, value in headers.items())
