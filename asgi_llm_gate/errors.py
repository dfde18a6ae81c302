"""Refusals and failures, and the envelope in which endpoints report them.

It is OpenAI's: ``{"error": {"message", "type", "param", "code"}}``. Official clients choose the
exception class by the HTTP status and fill ``code``, ``param`` and ``type`` from the object.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from asgi_llm_gate.answer import Answer
from asgi_llm_gate.masking import mask

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# LiteLLM's exceptions with a message for the user, and those of guardrails that had no status in every version.
_MESSAGES = frozenset({"RejectedRequestError", "ModifyResponseException"})
_GUARDRAILS = frozenset({"GuardrailRaisedException", "BlockedPiiEntityError"})

# LiteLLM's exceptions put the names of their classes before what their author said.
_PREFIXES = re.compile(r"\A(?:litellm\.\w+: )+")

# Characters of a client's name for something that a message shows.
_MOST_QUOTED = 200

# Headers of an exception that would contradict the envelope's own framing.
FRAMING = frozenset({"connection", "content-encoding", "content-length", "content-type", "transfer-encoding"})


class GateError(Exception):
    """A call that ends with an HTTP error.

    Args:
        status_code: 400 to 599.
        message: What the client reads, where a mask stands in place of a key.
        type: OpenAI's error type; by the status when not given.
        param: The name of the request field at fault.
        code: A short word a program can test.
        headers: Extra response headers.
    """

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = mask(sendable(message))
        self.type = type or error_type(status_code)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class Rejection(Exception):
    """A hook refused the call by returning a string: the message, word for word, for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = sendable(message)


class UpstreamError(GateError):
    """The app behind the gate answered with an error status.

    Args:
        status_code: The app's status.
        body: The app's body, undecoded.
        headers: The app's headers.
    """

    def __init__(self, status_code: int, body: bytes, headers: Mapping[str, str]) -> None:
        fields = _error_fields(body)
        super().__init__(
            status_code,
            _text(fields.get("message")) or f"The app answered with status {status_code}",
            type=_text(fields.get("type")),
            param=_text(fields.get("param")),
            code=_text(fields.get("code")),
            headers=headers,
        )
        self.body = body


def stream_error(error: Any) -> UpstreamError:
    """Make the 502 of an error that the app reports inside a stream, of which a chunk carries such an `error`."""
    return UpstreamError(502, orjson.dumps({"error": error}), {})


def error_type(status: int) -> str:
    """Name the error type of a status, as LiteLLM's proxy and OpenAI's clients know it."""
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "internal_server_error")


def internal_error() -> GateError:
    """Make the 500 that tells a client nothing about what went wrong inside."""
    return GateError(500, "Internal server error", code="internal_error")


def refused(message: str) -> GateError:
    """Make the error of a message that its endpoint has no text to say with."""
    return GateError(400, message, code="content_policy_violation")


def too_large(max_bytes: int) -> GateError:
    """Make the 413 that names the limit, in bytes."""
    return GateError(413, f"The request body is larger than {max_bytes} bytes", code="request_too_large")


def quoted(name: Any) -> str:
    """Return what a message shows of a name that a client gave: cut where it is long; of what is no text, its type."""
    text = name if isinstance(name, str) else type(name).__name__
    return f"`{text if len(text) <= _MOST_QUOTED else text[:_MOST_QUOTED] + '…'}`"


def intended(exc: BaseException) -> GateError | None:
    """Read an exception as the HTTP error its author meant, or None if it is a crash.

    Anything with an integer ``status_code`` from 400 to 599 is meant: the HTTPException of Starlette and
    FastAPI, REST framework's APIException, ``openai.APIStatusError``. Its message is ``detail``, else
    ``message``, else its text; of a detail that is a mapping, the text under ``error`` or ``message``. LiteLLM's
    exceptions without a status are known by their names.
    """
    if isinstance(exc, GateError):
        return exc
    status = _status(exc)
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    fields = _detail_fields(_detail(exc))
    return GateError(
        status,
        _text(fields.get("message")) or "The request was refused",
        type=_text(fields.get("type")) or _text(getattr(exc, "type", None)),
        param=_text(fields.get("param")) or _text(getattr(exc, "param", None)),
        code=_text(fields.get("code")) or _text(getattr(exc, "code", None)) or str(status),
        headers=_headers(exc),
    )


def rejection(exc: Exception) -> Rejection | None:
    """Read an exception as a message for the user: a `Rejection`, or one of LiteLLM's two that carry such a message."""
    if isinstance(exc, Rejection):
        return exc
    return Rejection(_text(_detail(exc)) or "") if _names(exc) & _MESSAGES else None


def error_fields(error: GateError) -> dict[str, str | None]:
    """Return the envelope's inside."""
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def error_body(error: GateError, request_id: str) -> dict[str, Any]:  # noqa: ARG001  # other envelopes have it inside
    """Return the envelope."""
    return {"error": error_fields(error)}


ErrorBody = Callable[[GateError, str], dict[str, Any]]


def error_answer(error: GateError, request_id: str | None = None, body: ErrorBody = error_body) -> Answer:
    """Render an error in an envelope, with an ``x-request-id`` that clients show as ``request_id``.

    Anthropic's clients, whose envelope has the id inside too, look for it under ``request-id``.
    """
    request_id = request_id or new_request_id()
    content = body(error, request_id)
    names = (b"x-request-id", b"request-id") if "request_id" in content else (b"x-request-id",)
    headers = dict.fromkeys(names, request_id.encode())
    for name, value in error.headers.items():
        if name.lower() not in FRAMING and is_header(name, value):
            headers[name.lower().encode()] = value.strip().encode()
    return Answer(error.status_code, orjson.dumps(content), headers=tuple(headers.items()))


def new_request_id() -> str:
    """Make an id for one call."""
    return f"req_{secrets.token_hex(16)}"


def is_header(name: str, value: str) -> bool:
    """Tell whether a header can be sent: a token (RFC 9110 §5.6.2), and a value of visible characters and spaces."""
    return bool(_TOKEN.fullmatch(name)) and value.isascii() and value.isprintable()


def sendable(text: str) -> str:
    """Return a text as UTF-8 can carry it: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _names(exc: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(exc).__mro__}


def _status(exc: BaseException) -> Any:
    status = getattr(exc, "status_code", None)
    if status is not None:
        return status
    names = _names(exc)
    if "ProxyException" in names:
        code = str(getattr(exc, "code", None))
        return int(code) if code.isdecimal() else 500
    return 400 if names & _GUARDRAILS else None


def _detail(exc: BaseException) -> Any:
    """Return what an exception says: its detail or message; its own text only where it has neither."""
    if not hasattr(exc, "detail") and not hasattr(exc, "message"):
        return str(exc)
    detail = getattr(exc, "detail", None) or getattr(exc, "message", None)
    return _PREFIXES.sub("", detail) if isinstance(detail, str) else detail


def _detail_fields(detail: Any) -> Mapping[str, Any]:
    """Flatten ``{"error": {"message": …}}``, ``{"error": "…"}`` and ``{"message": "…"}`` to envelope fields."""
    if not isinstance(detail, Mapping):
        return {"message": detail if isinstance(detail, str) or not detail else _as_json(detail)}
    inner = detail.get("error")
    if isinstance(inner, Mapping):
        return inner
    if isinstance(inner, str):
        return {**detail, "message": inner}
    if isinstance(detail.get("message"), str):
        return detail
    return {**detail, "message": _as_json(detail) if detail else None}


def _as_json(detail: Any) -> str:
    try:
        return orjson.dumps(detail, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return ""


def _error_fields(body: bytes) -> Mapping[str, Any]:
    """Read an upstream's error body; what is no envelope tells nothing."""
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return _detail_fields(decoded) if isinstance(decoded, Mapping) else {}


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return sendable(value) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _headers(exc: BaseException) -> dict[str, str]:
    headers = getattr(exc, "headers", None)
    if not isinstance(headers, Mapping):
        headers = getattr(getattr(exc, "response", None), "headers", None)
    return {str(name): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
