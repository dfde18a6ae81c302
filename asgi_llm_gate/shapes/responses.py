"""Responses: ``POST /v1/responses``."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes.common import model_of
from asgi_llm_gate.shapes.response_draft import Draft, new_part
from asgi_llm_gate.shapes.response_end import message_item, new_response
from asgi_llm_gate.shapes.response_input import prompt_text
from asgi_llm_gate.shapes.response_items import BY_NAME
from asgi_llm_gate.shapes.response_stream import ResponsesStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]

open_stream = ResponsesStream
open_assembly = Draft


class Response(Record):
    """A response, or one of its stream's events."""

    known = frozenset(
        {
            *("annotation", "annotations", "arguments", "background", "call_id", "code", "completed_at", "content"),
            *("content_index", "created_at", "delta", "encrypted_content", "error", "id", "incomplete_details"),
            *("input", "instructions", "item", "item_id", "logprobs", "max_output_tokens", "message", "metadata"),
            *("model", "name", "object", "output", "output_index", "parallel_tool_calls", "param", "part", "phase"),
            *("previous_response_id", "reasoning", "refusal", "response", "role", "safety_identifier"),
            *("sequence_number", "service_tier", "status", "store", "summary", "summary_index", "temperature", "text"),
            *("tool_choice", "tools", "top_p", "truncation", "type", "usage", "user"),
        }
    )


def rejection(data: Json, message: str, *, id: str, created: int) -> Json:
    """Return a response whose one output says the message."""
    item = message_item(f"msg_{id}", "completed", [{**new_part(BY_NAME["text"]), "text": message}])
    return new_response(model_of(data), "completed", [item], id=id, created=created)


def rejection_chunks(data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:
    """Yield the nine events of a stream that says the message in one piece."""
    stream = ResponsesStream()
    response = new_response(model_of(data), "in_progress", [], id=id, created=created)
    opening: list[Json] = [{"type": f"response.{step}", "response": response} for step in ("created", "in_progress")]
    opening[0]["sequence_number"] = 0
    for chunk in chain(opening, stream.message_end(message, "stop")):
        stream.seen(chunk)
        yield chunk
