"""Chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes.assembly import ChoicesAssembly
from asgi_llm_gate.shapes.chat_delta import add_delta_slots, more_delta
from asgi_llm_gate.shapes.choices import ChoiceStream
from asgi_llm_gate.shapes.common import (
    TEXT_REQUEST_FIELDS,
    choice_count,
    fields,
    joined,
    lines,
    model_of,
    no_usage,
    objects,
    texts,
    wants_usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json, Slot


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
    messages = data.get("messages")
    for message in messages if isinstance(messages, list) else [messages]:
        yield from _message_parts(message) if isinstance(message, dict) else texts(message)
    for tool in [*objects(data.get("tools")), *({"function": f} for f in objects(data.get("functions")))]:
        for function in _functions(tool):
            yield from texts(function.get("description"))
    for prediction in objects(data.get("prediction")):
        yield joined(prediction.get("content"))
    yield from fields(data, TEXT_REQUEST_FIELDS)


def _message_parts(message: Json) -> Iterator[str]:
    yield joined(message.get("content"))
    yield from fields(message, ("refusal", "reasoning_content"))
    for call in [*objects(message.get("tool_calls")), {"function": message.get("function_call")}]:
        for function in _functions(call):
            yield from fields(function, ("arguments", "input"))


def _functions(tool: Json) -> Iterator[Json]:
    """Yield what a tool or a call of one is about: a function, or a custom tool."""
    for name in ("function", "custom"):
        if isinstance(tool.get(name), dict):
            yield tool[name]


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
            yield {**head, "choices": [_choice(index, delta, finish_reason)], **usage}
    if usage:
        yield {**head, "choices": [], "usage": no_usage()}


class ChatStream(ChoiceStream):
    """The chunks of a chat completion."""

    def __init__(self) -> None:
        super().__init__("chat.completion.chunk")
        self._said: dict[int, str] = {}

    add_slots = staticmethod(add_delta_slots)

    def piece_choice(self, slot: Slot, text: str) -> Json:
        """Return a choice whose delta carries a piece of a slot's text."""
        return _choice(slot.index, more_delta(slot, text), None)

    def message_choice(self, index: int, message: str) -> Json:
        """Return a choice that says a message."""
        return _choice(index, {"content": message}, None)

    def first_choice(self, index: int) -> Json:
        """Return a choice that opens with a role, without which some clients refuse a stream."""
        return _choice(index, {"role": "assistant", "content": ""}, None)

    def last_choice(self, index: int, finish_reason: str) -> Json:
        """Return a choice that says nothing and finishes."""
        return _choice(index, {}, finish_reason)

    def is_repeatable(self, chunk: Json) -> bool:
        """Tell whether a chunk finishes nothing, and none repeats the text so far."""
        repeats = self._said or any("message" in choice for choice in objects(chunk.get("choices")))
        return not repeats and super().is_repeatable(chunk)

    def mend(self, choice: Json, index: int) -> bool:
        """Set the text so far, which Perplexity's chunks repeat beside each delta, to what the client was sent."""
        given: Any = choice.get("message")
        if given is None and not self._said:
            return False
        message: Json = given if isinstance(given, dict) and isinstance(given.get("content"), str) else {}
        if not message and index not in self._said:
            return False
        self._said[index] = said = self._said.get(index, "") + joined(_delta_of(choice).get("content"))
        if message.get("content", said) == said:
            return False
        message["content"] = said
        return True

    def says_nothing(self, choice: Json) -> bool:
        """Tell whether a choice without a piece has no more than a role in its delta."""
        delta = _delta_of(choice)
        return not choice.get("finish_reason") and not any(value for key, value in delta.items() if key != "role")


open_stream = ChatStream


def _delta_of(choice: Json) -> Json:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}


def _choice(index: int, delta: Json, finish_reason: str | None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def open_assembly() -> ChoicesAssembly:
    """Return what puts a chat completion together."""
    return ChoicesAssembly("chat.completion", message=True)
