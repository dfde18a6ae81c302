"""What goes wrong with a store that several processes share."""

from __future__ import annotations

from asgi_llm_gate.errors import GateError


class StoreError(GateError):
    """The shared store is away, or took too long; what was asked of it may have been done or not.

    A hook that lets it through answers the client with 503, and tells it to come again in a second.
    """

    def __init__(self) -> None:
        message = "The service is busy, try again in a moment"
        super().__init__(503, message, code="store_unavailable", headers={"retry-after": "1"})
