"""Endpoints that answer with no text of a model: a refusal there is an error, never a normal answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes.common import TEXT_REQUEST_FIELDS, fields, lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json

Response = Record


def prompt_text(data: Json) -> str:
    """Return all text of the request's fields, a line each; token ids have none."""
    return lines(fields(data, (*TEXT_REQUEST_FIELDS, "messages")))


def rejection(data: Json, message: str, *, id: str, created: int) -> None:  # the shapes' signature
    """Return None: the endpoint has no text to say a message with."""


def rejection_chunks(data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:  # noqa: ARG001  # likewise
    """Yield nothing, as `rejection` returns nothing."""
    return iter(())


def open_stream() -> None:
    """Return None: streams of images or audio carry no text."""


def open_assembly() -> None:
    """Return None, for the same reason."""
