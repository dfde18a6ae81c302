"""The echo model's messages, in Anthropic's shapes."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from asgi_llm_gate.demo.chat import last_message
from asgi_llm_gate.demo.request import model, tokens
from asgi_llm_gate.shapes import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json


def answer(data: Json) -> Json:
    """Return a message whose one block repeats the last one."""
    heard, asked = last_message(data), {"model": model(data)}
    said = messages.rejection(asked, heard, id=secrets.token_hex(12), created=int(time.time()))
    return {**said, "usage": _usage(data, heard)}


def chunks(data: Json) -> Iterator[Json]:
    """Yield the events of the same as a stream, a token a piece."""
    heard, asked = last_message(data), {"model": model(data)}
    for event in messages.rejection_chunks(asked, heard, id=secrets.token_hex(12), created=int(time.time())):
        if event["type"] == "content_block_delta":
            yield from ({**event, "delta": {**event["delta"], "text": token}} for token in tokens(heard))
        elif event["type"] == "message_delta":
            yield {**event, "usage": _usage(data, heard)}
        else:
            yield event


def _usage(data: Json, heard: str) -> Json:
    return {"input_tokens": len(tokens(messages.prompt_text(data))), "output_tokens": len(tokens(heard))}
