"""Chunks that differ from the one before in their piece only: read and written without their other fields.

Most servers write every chunk of a text with the same other fields, so the bytes before and behind the piece stay as
they are. Between them stands a JSON string, one token: where those bytes come again with another string between them,
which is read on its own, the chunk has another piece and is else the same. That these bytes are about the piece, and
not about something that only looks like it, is tried out once, with a text of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from asgi_llm_gate.sse import Event, dumps

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json, Slot, Stream

# How often in a row the next chunk may turn out to be another, until no more are compared.
_MAX_MISSES = 3

_TRIED = "a piece tried out"
_LITERAL = orjson.dumps(_TRIED)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What chunks that are alike have in common.

    Attributes:
        slot: Where the piece stands.
        head: An event's bytes up to the piece, and with its opening quote.
        tail: The bytes from its closing quote on.
        new_head: The same of an event that was changed, up to the quote.
        new_tail: Likewise, behind the closing quote.
    """

    slot: Slot
    head: bytes
    tail: bytes
    new_head: bytes
    new_tail: bytes

    def piece_of(self, raw: bytes) -> str | None:
        """Return the piece of an event that is alike; None for any other, and for one without a piece."""
        head, tail = self.head, self.tail
        if not (raw.endswith(tail) and raw.startswith(head) and len(raw) > len(head) + len(tail)):
            return None
        try:
            piece: str = orjson.loads(raw[len(head) - 1 : 1 - len(tail)])
        except orjson.JSONDecodeError:
            return None
        return piece

    def with_piece(self, piece: str) -> bytes:
        """Return an event with another piece."""
        return self.new_head + dumps(piece) + self.new_tail


def pattern_of(event: Event, chunk: Json, slot: Slot) -> Pattern | None:
    """Return what is around the piece in an event, or None where that can't be told for sure.

    Args:
        event: The event.
        chunk: What is in it.
        slot: Where the only piece of the chunk stands.
    """
    given = slot.piece
    slot.holder[slot.key] = _TRIED
    try:
        head, _, tail = event.raw.partition(orjson.dumps(given))
        tried = Event.parse(head + _LITERAL + tail).data or b""
        changed = event.with_data(orjson.dumps(chunk))
        if orjson.loads(tried) != chunk or changed.count(_LITERAL) != 1:
            return None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    finally:
        slot.holder[slot.key] = given
    new_head, _, new_tail = changed.partition(_LITERAL)
    return Pattern(slot, head + b'"', b'"' + tail, new_head, new_tail)


class Alike:
    """The chunks of one stream, each compared with the one before.

    Args:
        stream: The stream's reader.

    Attributes:
        pattern: What the next chunk is compared with; None where it must be decoded.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._misses = 0
        self.pattern: Pattern | None = None

    def piece_of(self, raw: bytes) -> str | None:
        """Return the piece of an event that is like the one before; None where that is not so."""
        piece = None if self.pattern is None else self.pattern.piece_of(raw)
        if piece is not None:
            self._misses = 0
        return piece

    def see(self, event: Event, chunk: Json) -> None:
        """Take a chunk that was decoded, before it is edited: the next may be like it."""
        self.pattern = None
        if self._misses >= _MAX_MISSES:
            return
        slots = self._stream.slots(chunk)
        if len(slots) == 1 and not slots[0].choice.get("logprobs") and self._stream.is_repeatable(chunk):
            self._misses += 1
            self.pattern = pattern_of(event, chunk, slots[0])
