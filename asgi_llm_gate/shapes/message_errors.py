"""Errors as Anthropic's clients know them: ``{"type": "error", "error": {"type", "message"}, "request_id"}``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.errors import error_type

if TYPE_CHECKING:
    from asgi_llm_gate.errors import GateError
    from asgi_llm_gate.shapes import Json

# Anthropic's documentation, "Errors"; other statuses below 500 are an invalid request, those above an API error.
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(error: GateError, request_id: str) -> Json:
    """Return the body of an error's answer; a type that the error's author chose is kept."""
    status = error.status_code
    kind = error.type
    if kind == error_type(status):
        kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}


def error_event(error: Json) -> Json:
    """Return the event that ends a stream with an error, of which the fields of OpenAI's envelope are given."""
    kind = "api_error" if error["type"] == "internal_server_error" else error["type"]
    return {"type": "error", "error": {"type": kind, "message": error["message"]}}
