"""Chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes.common import choice_count, joined, lines, model_of, no_usage, objects, texts, wants_usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json


class Response(Record):
    """A chat completion or one of its chunks."""

    known = frozenset(
        {
            *(
                "annotations",
                "arguments",
                "audio",
                "choices",
                "content",
                "created",
                "delta",
                "finish_reason",
                "function",
            ),
            *("function_call", "id", "index", "logprobs", "message", "model", "name", "object", "reasoning_content"),
            *("refusal", "role", "service_tier", "system_fingerprint", "tool_calls", "type", "usage"),
        }
    )


def prompt_text(data: Json) -> str:
    """Return the messages' text and tool calls, the tools' descriptions and the predicted output, a line each."""
    return lines(_prompt_parts(data))


def _prompt_parts(data: Json) -> Iterator[str]:
    for message in objects(data.get("messages")):
        yield joined(message.get("content"))
        yield from texts(message.get("refusal"))
        yield from texts(message.get("reasoning_content"))
        for call in [*objects(message.get("tool_calls")), {"function": message.get("function_call")}]:
            for function in (call.get("function"), call.get("custom")):
                if isinstance(function, dict):
                    yield from texts(function.get("arguments"))
                    yield from texts(function.get("input"))
    for tool in [*objects(data.get("tools")), *({"function": f} for f in objects(data.get("functions")))]:
        for function in (tool.get("function"), tool.get("custom")):
            if isinstance(function, dict):
                yield from texts(function.get("description"))
    for prediction in objects(data.get("prediction")):
        yield joined(prediction.get("content"))


def rejection(data: Json, message: str, *, id: str, created: int) -> Json:
    """Return a chat completion in which every choice says the message."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": message, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for index in range(choice_count(data))
    ]
    return {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion",
        "created": created,
        "model": model_of(data),
        "choices": choices,
        "usage": no_usage(),
        "system_fingerprint": None,
    }


def rejection_chunks(data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:
    """Yield a role, a content and a finish chunk for every choice, and the usage chunk if one was asked for."""
    head = {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model_of(data),
        "system_fingerprint": None,
    }
    usage: Json = {"usage": None} if wants_usage(data) else {}
    steps: tuple[tuple[Json, str | None], ...] = (
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": message}, None),
        ({}, "stop"),
    )
    for delta, finish_reason in steps:
        for index in range(choice_count(data)):
            choice: dict[str, Any] = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            yield {**head, "choices": [choice], **usage}
    if usage:
        yield {**head, "choices": [], "usage": no_usage()}
