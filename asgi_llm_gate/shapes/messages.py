"""Anthropic's messages: ``POST /v1/messages``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes.common import model_of
from asgi_llm_gate.shapes.message_assembly import MessageAssembly
from asgi_llm_gate.shapes.message_input import prompt_text
from asgi_llm_gate.shapes.message_stream import (
    MessagesStream,
    message_start,
    message_stopped,
    new_message,
    text_block,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]

open_stream = MessagesStream
open_assembly = MessageAssembly


class Response(Record):
    """A message, or one of its stream's events."""

    known = frozenset(
        {
            *("cache_creation", "cache_creation_input_tokens", "cache_read_input_tokens", "citation", "citations"),
            *("container", "content", "content_block", "data", "delta", "error", "id", "index", "input"),
            *("input_tokens", "message", "model", "name", "output_tokens", "partial_json", "role", "server_tool_use"),
            *("service_tier", "signature", "stop_details", "stop_reason", "stop_sequence", "text", "thinking"),
            *("tool_use_id", "type", "usage"),
        }
    )


def rejection(data: Json, message: str, *, id: str, created: int) -> Json:  # noqa: ARG001  # the shapes' signature
    """Return a message whose one block says the text."""
    return new_message(model_of(data), [{"type": "text", "text": message}], id=id, stop_reason="end_turn")


def rejection_chunks(data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:  # noqa: ARG001  # likewise
    """Yield the six events of a stream that says the text in one piece."""
    yield message_start(new_message(model_of(data), [], id=id))
    yield from text_block(0, message)
    yield message_stopped("end_turn", 0)
    yield {"type": "message_stop"}
