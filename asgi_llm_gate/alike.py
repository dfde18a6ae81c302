"""Chunks that differ from the one before in their piece only: read and written without their other fields.

Most servers write every chunk of a text with the same other fields, so the bytes before and behind the piece stay as
they are. Between them stands a JSON string, one token: where those bytes come again with another string between them,
which is read on its own, the chunk has another piece and is else the same. That these bytes are about the piece, and
not about something that only looks like it, is tried out once, with a text of our own. OpenAI puts a second string
behind the piece that is never the same twice: it is read likewise.
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

# OpenAI's field of random characters, which hide from who counts the bytes how long the piece is.
_NOISE = "obfuscation"

_TRIED_PIECE = "a piece tried out"
_TRIED_NOISE = "a noise tried out"


@dataclass(frozen=True, slots=True)
class Frame:
    """An event's bytes around the strings that differ.

    Attributes:
        head: Those before the piece.
        middle: Those between the piece and the noise; empty where there is no noise.
        tail: Those behind.
    """

    head: bytes
    middle: bytes
    tail: bytes

    @classmethod
    def around(cls, raw: bytes, piece: str, noise: str | None) -> Frame:
        """Return what is around these strings where they first stand in an event, the piece before the noise."""
        head, _, tail = raw.partition(dumps(piece))
        if noise is None:
            return cls(head, b"", tail)
        middle, _, tail = tail.partition(dumps(noise))
        return cls(head, middle, tail)

    def filled(self, piece: str, noise: str) -> bytes:
        """Return an event with these strings."""
        if not self.middle:
            return self.head + dumps(piece) + self.tail
        return b"".join((self.head, dumps(piece), self.middle, dumps(noise), self.tail))

    def quoted(self) -> Frame:
        """Return the same with those strings' quotes."""
        return Frame(self.head + b'"', self.middle and b'"%b"' % self.middle, b'"' + self.tail)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What chunks that are alike have in common.

    Attributes:
        slot: Where the piece stands.
        given: What is around it in an event of the app, with quotes.
        changed: What is around it in an event with another piece, without.
    """

    slot: Slot
    given: Frame
    changed: Frame

    def strings(self, raw: bytes) -> tuple[str, str] | None:
        """Return the piece and the noise of an event; None if it has no piece, or something else around them."""
        head, middle, tail = self.given.head, self.given.middle, self.given.tail
        if not (raw.endswith(tail) and raw.startswith(head)):
            return None
        begin, end = len(head) - 1, len(raw) - len(tail) + 1
        try:
            if not middle:
                piece, noise = orjson.loads(raw[begin:end]), ""
            else:
                at = raw.find(middle, begin + 1, end - 1)
                piece, noise = orjson.loads(raw[begin : at + 1]), orjson.loads(raw[at + len(middle) - 1 : end])
        except orjson.JSONDecodeError:
            return None
        return (piece, noise) if piece else None


def pattern_of(event: Event, chunk: Json, slot: Slot) -> Pattern | None:
    """Return what is around the piece in an event, or None where that can't be told for sure.

    Args:
        event: The event.
        chunk: What is in it.
        slot: Where the only piece of the chunk stands.
    """
    piece, noise = slot.piece, chunk.get(_NOISE)
    has_noise = isinstance(noise, str)
    given = Frame.around(event.raw, piece, noise if has_noise else None)
    slot.holder[slot.key] = _TRIED_PIECE
    if has_noise:
        chunk[_NOISE] = _TRIED_NOISE
    try:
        tried = Event.parse(given.filled(_TRIED_PIECE, _TRIED_NOISE)).data or b""
        raw = event.with_data(orjson.dumps(chunk))
        if orjson.loads(tried) != chunk:
            return None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    finally:
        slot.holder[slot.key] = piece
        if has_noise:
            chunk[_NOISE] = noise
    changed = Frame.around(raw, _TRIED_PIECE, _TRIED_NOISE if has_noise else None)
    once = raw.count(dumps(_TRIED_PIECE)) == 1 and raw.count(dumps(_TRIED_NOISE)) == has_noise
    exact = once and changed.filled(_TRIED_PIECE, _TRIED_NOISE) == raw
    return Pattern(slot, given.quoted(), changed) if exact else None


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

    def strings(self, raw: bytes) -> tuple[str, str] | None:
        """Return the piece and the noise of an event that is like the one before; None where that is not so."""
        strings = None if self.pattern is None else self.pattern.strings(raw)
        if strings is not None:
            self._misses = 0
        return strings

    def see(self, event: Event, chunk: Json) -> None:
        """Take a chunk that was decoded, before it is edited: the next may be like it."""
        self.pattern = None
        if self._misses >= _MAX_MISSES:
            return
        slots = self._stream.slots(chunk)
        if len(slots) == 1 and not slots[0].choice.get("logprobs") and self._stream.is_repeatable(chunk):
            self._misses += 1
            self.pattern = pattern_of(event, chunk, slots[0])
