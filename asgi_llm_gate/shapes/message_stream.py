"""Reading a stream of Anthropic's messages, and ending it before it ends itself."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.common import index_of, is_text
from asgi_llm_gate.shapes.message_errors import error_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asgi_llm_gate.shapes import Channel, Json, TextName


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text that a block's deltas bring in pieces.

    Attributes:
        delta: The type of those deltas.
        key: Where the piece stands in one.
        block: The type of the blocks that begin with some of the text; empty where none does.
        channel: The channel that its pieces are of.
    """

    delta: str
    key: str
    block: str
    channel: Channel


_KINDS = (
    Kind("text_delta", "text", "text", "text"),
    Kind("input_json_delta", "partial_json", "", "tool_calls"),
    Kind("thinking_delta", "thinking", "thinking", "reasoning"),
)
BY_DELTA: Mapping[str, Kind] = {kind.delta: kind for kind in _KINDS}
_BY_BLOCK: Mapping[str, Kind] = {kind.block: kind for kind in _KINDS if kind.block}

_OPENINGS = frozenset({"message_start", "ping"})


def inner(chunk: Json, name: str) -> Json:
    """Return an object that an event carries; an empty one where it does not."""
    value = chunk.get(name)
    return value if isinstance(value, dict) else {}


class MessagesStream:
    """The events of a message: its start, its blocks one after the other, why it stopped, its end.

    Clients find a block by its place among those that have begun. Where hooks left blocks out, those behind them move
    up: events are read under the app's index, and get the client's when they go out.
    """

    ends_with_done = False

    def __init__(self) -> None:
        self._begun = False
        self._stopped = False
        self._ended = False
        self._output_tokens: Any = 0
        self._open: dict[int, Any] = {}
        self._places: dict[int, int] = {}
        self._count = 0

    def slots(self, chunk: Json) -> list[Slot]:
        """Return where a piece stands in an event, if it is not empty."""
        step = chunk.get("type")
        kind: Kind | None = None
        holder: Json = {}
        if step == "content_block_delta":
            holder = inner(chunk, "delta")
            kind = BY_DELTA.get(str(holder.get("type")))
        elif step == "content_block_start":
            holder = inner(chunk, "content_block")
            kind = _BY_BLOCK.get(str(holder.get("type")))
        if kind is None or not is_text(holder.get(kind.key)):
            return []
        index = index_of(chunk)
        return [Slot(holder, kind.key, (index, kind.delta), kind.channel, index, holder)]

    def finishing(self, chunk: Json) -> Iterator[TextName]:
        """Yield what an event ends: a block's texts, its thinking when that is signed, or all."""
        step = chunk.get("type")
        if step == "content_block_stop":
            yield (index_of(chunk),)
        elif step == "content_block_delta" and inner(chunk, "delta").get("type") == "signature_delta":
            yield index_of(chunk), "thinking_delta"
        elif step in {"message_delta", "message_stop", "error"}:
            yield ()

    def is_preamble(self, chunk: Json) -> bool:
        """Tell whether an event only says that a message or an empty block begins."""
        if chunk.get("type") == "content_block_start":
            return not self.slots(chunk) and inner(chunk, "content_block").get("type") in _BY_BLOCK
        return chunk.get("type") in _OPENINGS

    def seen(self, chunk: Json) -> bool:
        """Take note of an event, and put the index in that its block has for the client."""
        step = chunk.get("type")
        if step == "message_start":
            self._begun = True
            self._count_tokens(inner(chunk, "message"))
        elif step == "message_delta":
            self._stopped = self._stopped or bool(inner(chunk, "delta").get("stop_reason"))
            self._count_tokens(chunk)
        elif step in {"message_stop", "error"}:
            self._ended = True
        elif step in {"content_block_start", "content_block_delta", "content_block_stop"}:
            return self._place(step, chunk)
        return False

    def _place(self, step: str, chunk: Json) -> bool:
        index = index_of(chunk)
        if step == "content_block_start":
            self._open[index] = inner(chunk, "content_block").get("type")
            self._places[index] = self._count
            self._count += 1
        elif step == "content_block_stop":
            self._open.pop(index, None)
        place = self._places.get(index, index)
        if place == index:
            return False
        chunk["index"] = place
        return True

    def _count_tokens(self, holder: Json) -> None:
        self._output_tokens = inner(holder, "usage").get("output_tokens", self._output_tokens)

    def is_repeatable(self, chunk: Json) -> bool:
        """Tell whether an event is a delta whose block has the same index for the app and the client."""
        index = index_of(chunk)
        return chunk.get("type") == "content_block_delta" and self._places.get(index, index) == index

    def more(self, slot: Slot, text: str) -> Json:
        """Return a delta that carries more of a slot's text."""
        return _piece(slot.index, BY_DELTA[slot.text[-1]], text)

    def event_name(self, chunk: Json) -> str | None:
        """Return an event's type."""
        name = chunk.get("type")
        return name if isinstance(name, str) else None

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:
        """Yield the message as more of the open text, or as a block of its own, and the rest of the events.

        A message that has said why it stopped, or has ended, says nothing more.
        """
        if self._ended:
            return
        if not self._begun:
            yield message_start(new_message("", [], id=secrets.token_hex(16)))
        if not self._stopped:
            yield from self._last_words(message)
            yield message_stopped("end_turn" if finish_reason == "stop" else "refusal", self._output_tokens)
        yield {"type": "message_stop"}

    def _last_words(self, message: str) -> Iterator[Json]:
        target = next((index for index, kind in self._open.items() if kind == "text"), None) if message else None
        for index in [index for index in self._open if index != target]:
            yield {"type": "content_block_stop", "index": index}
        if target is not None:
            yield _piece(target, BY_DELTA["text_delta"], message)
            yield {"type": "content_block_stop", "index": target}
        elif message:
            yield from text_block(max(self._places, default=-1) + 1, message)

    def error_of(self, chunk: Json) -> Any:
        """Return what official clients raise: an event's `error`."""
        return chunk.get("error")

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the error, as official clients raise it."""
        yield error_event(error)


def new_message(model: str, content: list[Json], *, id: str, stop_reason: str | None = None) -> Json:
    """Return a message with every field that clients insist on."""
    return {
        "id": f"msg_{id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def message_start(message: Json) -> Json:
    """Return the event that begins a message."""
    return {"type": "message_start", "message": message}


def text_block(index: int, text: str) -> Iterator[Json]:
    """Yield the events of a block that says a text in one piece."""
    yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    yield _piece(index, BY_DELTA["text_delta"], text)
    yield {"type": "content_block_stop", "index": index}


def message_stopped(stop_reason: str, output_tokens: Any) -> Json:
    """Return the event that says why a message stops."""
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}}


def _piece(index: int, kind: Kind, text: str) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind.delta, kind.key: text}}
