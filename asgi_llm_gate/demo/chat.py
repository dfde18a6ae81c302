"""The echo model's chat completions."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.demo.request import count, invalid, model, tokens, usage
from asgi_llm_gate.shapes import chat
from asgi_llm_gate.shapes.common import MAX_N, joined, wants_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json


def answer(data: Json) -> Json:
    """Return a chat completion whose every choice repeats the last message."""
    heard, n = last_message(data), count(data, "n", 1, MAX_N)
    choices: list[Json] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": heard, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for index in range(n)
    ]
    return {**_head(data, "chat.completion"), "choices": choices, "usage": _usage(data, heard, n)}


def chunks(data: Json) -> Iterator[Json]:
    """Yield the chunks of the same as a stream: the choices in turn, a token each, and usage if it was asked for."""
    heard, n = last_message(data), count(data, "n", 1, MAX_N)
    head = _head(data, "chat.completion.chunk")
    unused: Json = {"usage": None} if wants_usage(data) else {}
    deltas: list[Json] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": token} for token in tokens(heard)]
    for delta in [*deltas, {}]:
        reason = None if delta else "stop"
        for index in range(n):
            choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
            yield {**head, "choices": [choice], **unused}
    if unused:
        yield {**head, "choices": [], "usage": _usage(data, heard, n)}


def _head(data: Json, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model(data),
        "service_tier": "default",
        "system_fingerprint": "fp_echo",
    }


def last_message(data: Json) -> str:
    """Return the text of the last message.

    Raises:
        GateError: 400, there is none.
    """
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise invalid("messages", "must be a list of messages that is not empty")
    return joined(messages[-1].get("content"))


def _usage(data: Json, heard: str, choices: int) -> Json:
    return usage(chat.prompt_text(data), len(tokens(heard)) * choices)
