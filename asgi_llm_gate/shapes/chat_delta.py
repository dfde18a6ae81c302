"""What a chat completion's chunk says in the `delta` of a choice: its texts, and deltas with more of one.

Of its texts, `content` may be a string or a list of parts; reasoning comes as ``reasoning_content`` (DeepSeek, vLLM),
``reasoning`` (OpenRouter) or in ``thinking`` parts (Mistral); tool calls are told apart by their index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.common import index_of, is_text, objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asgi_llm_gate.shapes import Channel, Json

_TEXTS: Mapping[str, Channel] = {
    "content": "text",
    "refusal": "refusal",
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
}


def add_delta_slots(choice: Json, index: int, found: list[Slot]) -> None:
    """Add the places of the texts in a choice's delta to those found."""
    delta: Any = choice.get("delta")
    for key, value in delta.items() if isinstance(delta, dict) else ():
        if isinstance(value, str):
            if value and key in _TEXTS:
                found.append(Slot(delta, key, (index, key), _TEXTS[key], index, choice))
        elif key in _HOLDERS:
            found += _HOLDERS[key](value, index, choice)


def more_delta(slot: Slot, text: str) -> Json:
    """Return a delta that carries text in the place of a slot."""
    kind = slot.text[1]
    if kind == "tool_calls":
        return {"tool_calls": [{"index": slot.text[3], slot.text[2]: {slot.key: text}}]}
    if kind == "parts":
        part = {"type": "text", "text": text}
        return {"content": [part if slot.channel == "text" else {"type": "thinking", "thinking": [part]}]}
    if kind == "reasoning_details":
        return {"reasoning_details": [{"type": slot.text[2], slot.key: text, "index": slot.text[3]}]}
    return {kind: {slot.key: text}} if kind in {"function_call", "audio"} else {slot.key: text}


def _part_slots(parts: Any, index: int, choice: Json, channel: Channel = "text") -> Iterator[Slot]:
    """Yield the places of content parts; what a ``thinking`` part has inside is reasoning."""
    for part in objects(parts):
        if is_text(part.get("text")):
            yield Slot(part, "text", (index, "parts", channel), channel, index, choice)
        elif isinstance(part.get("thinking"), list):
            yield from _part_slots(part["thinking"], index, choice, "reasoning")


def _call_slots(calls: Any, index: int, choice: Json) -> Iterator[Slot]:
    """Yield the places of tool calls' arguments and inputs."""
    for call in objects(calls):
        for kind, key in (("function", "arguments"), ("custom", "input")):
            holder = call.get(kind)
            if isinstance(holder, dict) and is_text(holder.get(key)):
                yield Slot(holder, key, (index, "tool_calls", kind, index_of(call)), "tool_calls", index, choice)


def _function_slots(function: Any, index: int, choice: Json) -> Iterator[Slot]:
    """Yield the place of a function's arguments, as they came before there were tools."""
    if isinstance(function, dict) and is_text(function.get("arguments")):
        yield Slot(function, "arguments", (index, "function_call"), "tool_calls", index, choice)


def _detail_slots(details: Any, index: int, choice: Json) -> Iterator[Slot]:
    """Yield the places of OpenRouter's ``reasoning_details``, which repeat ``reasoning`` by its parts."""
    for detail in objects(details):
        for key in ("text", "summary"):
            if is_text(detail.get(key)):
                name = (index, "reasoning_details", str(detail.get("type")), index_of(detail))
                yield Slot(detail, key, name, "reasoning", index, choice)


def _audio_slots(audio: Any, index: int, choice: Json) -> Iterator[Slot]:
    """Yield the place of what is said."""
    if isinstance(audio, dict) and is_text(audio.get("transcript")):
        yield Slot(audio, "transcript", (index, "audio"), "text", index, choice)


# Where a delta has texts inside of what it has under a name.
_HOLDERS: Mapping[str, Callable[[Any, int, Json], Iterator[Slot]]] = {
    "content": _part_slots,
    "tool_calls": _call_slots,
    "function_call": _function_slots,
    "reasoning_details": _detail_slots,
    "audio": _audio_slots,
}
