"""Chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record
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

    from asgi_llm_gate.shapes import Channel, Json, TextName
from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.assembly import ChoiceAssembly
from asgi_llm_gate.shapes.choices import ChoiceStream


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
    """The chunks of a chat completion.

    Of its texts, `content` may be a string or a list of parts; reasoning comes as ``reasoning_content`` (DeepSeek,
    vLLM), ``reasoning`` (OpenRouter) or in ``thinking`` parts (Mistral); tool calls are told apart by their index.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, str] = {}

    def choice_slots(self, choice: Json, index: int) -> Iterator[Slot]:
        """Yield the places of a choice's delta."""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for key, channel in _DELTA_TEXTS:
            if isinstance(delta.get(key), str):
                yield Slot(delta, key, (index, key), channel, index, choice)
        if isinstance(delta.get("content"), list):
            yield from _part_slots(delta["content"], "text", index, choice)
        for holder, key, name, channel in _inner_texts(delta):
            if isinstance(holder.get(key), str):
                yield Slot(holder, key, (index, *name), channel, index, choice)

    def piece_choice(self, slot: Slot, text: str) -> Json:
        """Return a choice whose delta carries a piece of a slot's text."""
        return _choice(slot.index, _delta(slot, text), None)

    def message_choice(self, index: int, message: str) -> Json:
        """Return a choice that says a message."""
        return _choice(index, {"content": message}, None)

    def last_choice(self, index: int, finish_reason: str) -> Json:
        """Return a choice that says nothing and finishes."""
        return _choice(index, {}, finish_reason)

    def mend(self, choice: Json, index: int) -> bool:
        """Set the text so far, which Perplexity's chunks repeat beside each delta, to what the client was sent."""
        message = choice.get("message")
        repeated = message.get("content") if isinstance(message, dict) else None
        if not isinstance(repeated, str) and index not in self._said:
            return False
        delta = choice.get("delta")
        said = self._said.get(index, "") + joined(delta.get("content") if isinstance(delta, dict) else None)
        self._said[index] = said
        if not isinstance(message, dict) or not isinstance(repeated, str) or repeated == said:
            return False
        message["content"] = said
        return True

    def says_nothing(self, choice: Json) -> bool:
        """Tell whether a choice without a piece has no more than a role in its delta."""
        delta = choice.get("delta") or {}
        says = delta if not isinstance(delta, dict) else any(value for key, value in delta.items() if key != "role")
        return not choice.get("finish_reason") and not says


open_stream = ChatStream

_DELTA_TEXTS: tuple[tuple[str, Channel], ...] = (
    ("content", "text"),
    ("refusal", "refusal"),
    ("reasoning_content", "reasoning"),
    ("reasoning", "reasoning"),
)


def _part_slots(parts: Any, channel: Channel, index: int, choice: Json) -> Iterator[Slot]:
    """Yield the places of content parts; what a ``thinking`` part has inside is reasoning."""
    for part in objects(parts):
        if isinstance(part.get("text"), str):
            yield Slot(part, "text", (index, "parts", channel), channel, index, choice)
        elif isinstance(part.get("thinking"), list):
            yield from _part_slots(part["thinking"], "reasoning", index, choice)


def _inner_texts(delta: Json) -> Iterator[tuple[Json, str, TextName, Channel]]:
    """Yield the places deeper in a delta: the object, its key, the text's name, the channel."""
    if isinstance(delta.get("audio"), dict):
        yield delta["audio"], "transcript", ("audio",), "text"
    for detail in objects(delta.get("reasoning_details")):
        yield detail, "text", ("reasoning_details", _number(detail)), "reasoning"
    for call in objects(delta.get("tool_calls")):
        for kind, key in (("function", "arguments"), ("custom", "input")):
            if isinstance(call.get(kind), dict):
                yield call[kind], key, ("tool_calls", _number(call), kind), "tool_calls"
    if isinstance(delta.get("function_call"), dict):
        yield delta["function_call"], "arguments", ("function_call",), "tool_calls"


def _number(item: Json) -> int:
    index = item.get("index")
    return index if isinstance(index, int) else 0


def _delta(slot: Slot, text: str) -> Json:
    """Return a delta that carries text in the place of a slot."""
    kind, *rest = slot.text[1:]
    if kind == "tool_calls":
        index, tool = rest
        return {"tool_calls": [{"index": index, tool: {slot.key: text}}]}
    if kind == "reasoning_details":
        return {"reasoning_details": [{"type": "reasoning.text", "index": rest[0], "text": text}]}
    if kind in {"function_call", "audio"}:
        return {kind: {slot.key: text}}
    if kind == "parts":
        part = {"type": "text", "text": text}
        return {"content": [part if slot.channel == "text" else {"type": "thinking", "thinking": [part]}]}
    return {slot.key: text}


def _choice(index: int, delta: Json, finish_reason: str | None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def open_assembly() -> ChoiceAssembly:
    """Return what puts a stream together."""
    return ChoiceAssembly("chat.completion", "message")
