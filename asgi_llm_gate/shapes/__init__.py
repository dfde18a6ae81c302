"""What each kind of endpoint's bodies look like: one module a wire shape, pure functions on dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.record import Record

Json = dict[str, Any]


class Shape(Protocol):
    """The functions that each module of this package offers."""

    def prompt_text(self, data: Json) -> str:
        """Return all text of a request that the model reads."""
        ...

    def rejection(self, data: Json, message: str, *, id: str, created: int) -> Json | None:
        """Return a normal response that says the message, or None where the endpoint has no text to say it with."""
        ...

    def rejection_chunks(self, data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:
        """Return the same as the chunks of a stream."""
        ...

    @property
    def Response(self) -> type[Record]:  # noqa: N802  # a class that each module defines
        """The record class of responses and chunks."""
        ...
