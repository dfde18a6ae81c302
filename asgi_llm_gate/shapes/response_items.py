"""Where texts stand in the events of a Responses stream: in its pieces, and in every place that repeats them whole.

A text is named by its output's index, then its part's index where it has one, then its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import index_of, objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Channel, Json, TextName


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text.

    Attributes:
        name: Its name, the last part of a text's.
        events: What its events' types begin with.
        channel: The channel it is on.
        item: The type of item it belongs to.
        key: Under which name a part, an item and the event at its end have it.
        parts: Under which name the item lists its parts; empty if the item has the text itself.
        part: The type of its part.
    """

    name: str
    events: str
    channel: Channel
    item: str
    key: str
    parts: str = ""
    part: str = ""

    @property
    def index(self) -> str:
        """Under which name an event has the part's index."""
        return "summary_index" if self.parts == "summary" else "content_index"

    @property
    def part_events(self) -> str:
        """What the types of the events that open and close its part begin with."""
        return "response.reasoning_summary_part" if self.parts == "summary" else "response.content_part"


KINDS: tuple[Kind, ...] = (
    Kind("text", "response.output_text", "text", "message", "text", "content", "output_text"),
    Kind("transcript", "response.output_audio_transcript", "text", "message", "transcript", "content", "output_audio"),
    # Realtime's names before it left its beta.
    Kind("beta_text", "response.text", "text", "message", "text", "content", "text"),
    Kind("beta_transcript", "response.audio_transcript", "text", "message", "transcript", "content", "audio"),
    Kind("refusal", "response.refusal", "refusal", "message", "refusal", "content", "refusal"),
    Kind("reasoning", "response.reasoning_text", "reasoning", "reasoning", "text", "content", "reasoning_text"),
    Kind("summary", "response.reasoning_summary_text", "reasoning", "reasoning", "text", "summary", "summary_text"),
    Kind("arguments", "response.function_call_arguments", "tool_calls", "function_call", "arguments"),
    Kind("mcp", "response.mcp_call_arguments", "tool_calls", "mcp_call", "arguments"),
    Kind("input", "response.custom_tool_call_input", "tool_calls", "custom_tool_call", "input"),
    Kind("code", "response.code_interpreter_call_code", "tool_calls", "code_interpreter_call", "code"),
)

BY_NAME = {kind.name: kind for kind in KINDS}
_BY_PIECE = {f"{kind.events}.delta": kind for kind in KINDS}
_BY_END = {f"{kind.events}.done": kind for kind in KINDS}
BY_PART = {kind.part: kind for kind in KINDS if kind.parts}
_BY_ITEM = {kind.item: kind for kind in KINDS if not kind.parts}

# The events that say how a response stands, and those of them after which no other comes.
ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done"}
)
SNAPSHOTS = frozenset({"response.created", "response.queued", "response.in_progress"})


@dataclass(frozen=True, slots=True)
class Place:
    """A place where a text stands whole: ``holder[key]``."""

    holder: Json
    key: str
    text: TextName

    @property
    def value(self) -> str:
        """The text that stands there."""
        value: str = self.holder[self.key]
        return value

    def put(self, text: str) -> None:
        """Put another text there; log probabilities, which spell the old one out, go."""
        self.holder[self.key] = text
        if self.holder.get("logprobs"):
            self.holder["logprobs"] = []


def output_of(chunk: Json) -> int:
    """Return the index of the output that an event is about."""
    return index_of(chunk, "output_index")


def piece_name(chunk: Json) -> TextName | None:
    """Return the name of the text that an event brings a piece of, or None."""
    kind = _BY_PIECE.get(str(chunk.get("type")))
    return _name(kind, chunk) if kind is not None and isinstance(chunk.get("delta"), str) else None


def done_name(chunk: Json) -> TextName | None:
    """Return the name of the text that an event ends, or None."""
    kind = _BY_END.get(str(chunk.get("type")))
    return None if kind is None else _name(kind, chunk)


def _name(kind: Kind, chunk: Json) -> TextName:
    output = output_of(chunk)
    return (output, index_of(chunk, kind.index), kind.name) if kind.parts else (output, kind.name)


def event_places(chunk: Json) -> Iterator[Place]:
    """Yield the places of an event about one text, one part or one item."""
    output = output_of(chunk)
    name = done_name(chunk)
    if name is not None and isinstance(chunk.get(BY_NAME[name[-1]].key), str):
        yield Place(chunk, BY_NAME[name[-1]].key, name)
    if isinstance(chunk.get("part"), dict):
        yield from _part_place(chunk["part"], output, chunk)
    if isinstance(chunk.get("item"), dict):
        yield from item_places(chunk["item"], output)


def item_places(item: Json, output: int) -> Iterator[Place]:
    """Yield the places of an item."""
    kind = _BY_ITEM.get(str(item.get("type")))
    if kind is not None and isinstance(item.get(kind.key), str):
        yield Place(item, kind.key, (output, kind.name))
    for parts in ("content", "summary"):
        listed: Any = item.get(parts)
        for index, part in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(part, dict):
                yield from _part_place(part, output, {"content_index": index, "summary_index": index})


def _part_place(part: Json, output: int, indexes: Json) -> Iterator[Place]:
    kind = BY_PART.get(str(part.get("type")))
    if kind is not None and isinstance(part.get(kind.key), str):
        yield Place(part, kind.key, (output, index_of(indexes, kind.index), kind.name))


def response_items(chunk: Json) -> list[Json]:
    """Return the items of the response that an event carries."""
    response = chunk.get("response")
    return list(objects(response.get("output", []))) if isinstance(response, dict) else []
