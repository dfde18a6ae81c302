"""Errors of the forwarder's own, as the clients of each endpoint know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate import sse
from asgi_llm_gate.errors import GateError, error_answer, error_body, new_request_id

if TYPE_CHECKING:
    from asgi_llm_gate.answer import Answer
    from asgi_llm_gate.endpoints import Routes
    from asgi_llm_gate.errors import ErrorBody


class ErrorForm:
    """The form of one call's errors: Anthropic's for its messages, OpenAI's for all else.

    Args:
        endpoints: The endpoints that there are.
        path: The call's.
    """

    def __init__(self, endpoints: Routes, path: str) -> None:
        self._endpoints = endpoints
        self._path = path

    def answer(self, error: GateError) -> Answer:
        """Return an error as an answer."""
        return error_answer(error, body=self._body())

    def event(self, error: GateError) -> bytes:
        """Return an error as the event that ends a stream; Anthropic's clients go by its name."""
        content = self._body()(error, new_request_id())
        return sse.encode(content, content.get("type"))

    def _body(self) -> ErrorBody:
        try:
            endpoint = self._endpoints.find(self._path)
        except GateError:
            return error_body
        return error_body if endpoint is None else endpoint.error_body
