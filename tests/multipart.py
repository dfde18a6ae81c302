"""Forms as clients write them, and as the frameworks read them."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
import orjson

from asgi_llm_gate.endpoints import Routes
from tests.harness import Request

TRANSCRIPTIONS = "/v1/audio/transcriptions"
TYPE = "multipart/form-data; boundary=b"


class File(NamedTuple):
    """A file, as a parser read it."""

    filename: str
    content_type: str | None
    content: bytes


def part(head: str | bytes, content: str | bytes = b"") -> bytes:
    """A part of a form with the boundary `b`; `head` is what comes behind `form-data; `, and further headers."""
    head, content = (text.encode() if isinstance(text, str) else text for text in (head, content))
    return b"--b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head, content)


def form(*parts: bytes) -> bytes:
    """A form with the boundary `b`."""
    return b"".join(parts) + b"--b--\r\n"


def fields(**values: str) -> bytes:
    """A form of plain fields."""
    return form(*(part(f'name="{name}"', value) for name, value in values.items()))


def form_request(body: bytes, path: str = TRANSCRIPTIONS, content_type: str = TYPE, **more: Any) -> Request:
    """A request with a form."""
    return Request(body, path, headers=[("content-type", content_type)], **more)


def sent_as_form(path: str, data: dict[str, Any], files: Any = None) -> Request:
    """A request with a form as httpx writes it."""
    # A form without a file would be written as a query is.
    request = httpx.Request("POST", "http://gate", data=data, files=files or {"file": ("a.bin", b"\0")})
    return form_request(request.read(), path, request.headers["content-type"])


def request_to(path: str, body: bytes) -> Request:
    """A request with the content of a JSON object: as JSON, or as a form where the endpoint takes nothing else."""
    endpoint = Routes().find(path)
    if endpoint is None or endpoint.takes_json:
        return Request(body, path)
    return sent_as_form(path, {name: value for name, value in orjson.loads(body).items() if name != "messages"})
