"""The echo model's responses."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from asgi_llm_gate.demo.request import invalid, model, tokens
from asgi_llm_gate.shapes import responses
from asgi_llm_gate.shapes.common import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json


def answer(data: Json) -> Json:
    """Return a response whose one message repeats the input, or its last item."""
    heard = _heard(data)
    said = responses.rejection({"model": model(data)}, heard, id=secrets.token_hex(12), created=int(time.time()))
    return {**said, "usage": _usage(data, heard)}


def chunks(data: Json) -> Iterator[Json]:
    """Yield the events of the same as a stream, a token a piece."""
    heard = _heard(data)
    asked = {"model": model(data)}
    said = responses.rejection_chunks(asked, heard, id=secrets.token_hex(12), created=int(time.time()))
    usage, number = _usage(data, heard), 0
    for event in said:
        for part in _pieces(event, usage):
            yield {**part, "sequence_number": number}
            number += 1


def _pieces(event: Json, usage: Json) -> Iterator[Json]:
    if event["type"] == "response.output_text.delta":
        yield from ({**event, "delta": token} for token in tokens(event["delta"]))
    elif event["type"] == "response.completed":
        yield {**event, "response": {**event["response"], "usage": usage}}
    else:
        yield event


def _heard(data: Json) -> str:
    given = data.get("input")
    if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
        return joined(given[-1].get("content"))
    if not isinstance(given, str):
        raise invalid("input", "must be a text, or a list of items that is not empty")
    return given


def _usage(data: Json, heard: str) -> Json:
    read, written = len(tokens(responses.prompt_text(data))), len(tokens(heard))
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
