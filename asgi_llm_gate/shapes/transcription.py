"""Transcriptions and translations of speech: ``POST /v1/audio/transcriptions`` and ``/v1/audio/translations``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.common import fields, lines
from asgi_llm_gate.shapes.plain import rejection, rejection_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json, TextName

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]

_DELTA = "transcript.text.delta"
_SEGMENT = "transcript.text.segment"
_DONE = "transcript.text.done"


class Response(Record):
    """A transcription, or one event of its stream."""

    known = frozenset(
        {
            *("delta", "duration", "end", "id", "language", "logprobs", "segment_id", "segments", "speaker", "start"),
            *("task", "text", "type", "usage", "words"),
        }
    )


def prompt_text(data: Json) -> str:
    """Return the text that guides the transcription, a line each; what is spoken is no text yet."""
    return lines(fields(data, ("prompt", "keywords", "known_speaker_names")))


class TranscriptStream:
    """The events of a transcript.

    A text comes in pieces, of the whole or of one segment after the other. The event that ends a segment repeats its
    text, the one that ends the stream repeats it all: both are made to agree with what the client was sent. A segment
    or a whole text that comes without pieces counts as one.
    """

    ends_with_done = True

    def __init__(self) -> None:
        # What the client was sent: in pieces by segment, "" for none, and in segments that came whole.
        self._pieces: dict[str, str] = {}
        self._segments: dict[str, str] = {}
        self._done = False

    def slots(self, chunk: Json) -> list[Slot]:
        """Return where a piece stands in an event, if it is not empty."""
        key = _key(chunk)
        if key and chunk[key] and self._said(chunk) is None:
            return [Slot(chunk, key, (0, _segment(chunk)), "text", 0, chunk)]
        return []

    def finishing(self, chunk: Json) -> Iterator[TextName]:
        """Yield what an event ends: the text of a segment, or all."""
        if chunk.get("type") == _SEGMENT:
            yield (0, _segment(chunk))
        elif chunk.get("type") == _DONE:
            yield ()

    def is_preamble(self, chunk: Json) -> bool:  # noqa: ARG002  # the shapes' signature
        """Return False: there is no event that only opens the stream."""
        return False

    def seen(self, chunk: Json) -> bool:
        """Take note of a text, and make one that repeats others agree with them."""
        key = _key(chunk)
        if key is None:
            return False
        self._done = self._done or chunk["type"] == _DONE
        said = self._said(chunk)
        if said is None:
            texts = self._pieces if chunk["type"] == _DELTA else self._segments
            segment = _segment(chunk)
            texts[segment] = texts.get(segment, "") + chunk[key]
        elif _letters(chunk[key]) != _letters(said):
            Slot(chunk, key, (0,), "text", 0, chunk).put(said)
            return True
        return False

    def is_repeatable(self, chunk: Json) -> bool:  # noqa: ARG002  # the shapes' signature
        """Return False: every piece is noted, for what repeats it later."""
        return False

    def more(self, slot: Slot, text: str) -> Json:
        """Return an event that carries more of a slot's text."""
        segment = slot.text[1]
        return {"type": _DELTA, "delta": text, **({"segment_id": segment} if segment else {})}

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:  # noqa: ARG002  # there is none here
        """Yield the message as one more piece, and the whole text."""
        if self._done:
            return
        text = self._whole()
        if message:
            yield {"type": _DELTA, "delta": message}
        yield {"type": _DONE, "text": text + message}

    def error_of(self, chunk: Json) -> Any:
        """Return what official clients raise: an event's `error`."""
        return chunk.get("error")

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the error in the envelope, as official clients raise it."""
        yield {"error": error}

    def event_name(self, chunk: Json) -> str | None:  # noqa: ARG002  # the shapes' signature
        """Return None: these events have no names."""
        return None

    def _said(self, chunk: Json) -> str | None:
        """Return what the client was sent of a text that an event repeats; None if it repeats none."""
        if chunk["type"] == _SEGMENT:
            return self._pieces.get(_segment(chunk))
        return self._whole() if chunk["type"] == _DONE and (self._pieces or self._segments) else None

    def _whole(self) -> str:
        return "".join(self._pieces.values()) or " ".join(text.strip() for text in self._segments.values())


class TranscriptAssembly:
    """Takes the events of a transcript."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._segments: list[Json] = []
        self._end: Json = {}

    def add(self, chunk: Json) -> None:
        """Take the next event."""
        fields = {name: value for name, value in chunk.items() if name != "type"}
        if chunk.get("type") == _DELTA:
            self._pieces.append(str(chunk.get("delta")))
        elif chunk.get("type") == _SEGMENT:
            self._segments.append(fields)
        elif chunk.get("type") == _DONE:
            self._end = fields

    def result(self) -> Json | None:
        """Return the transcription, or None if nothing came."""
        if not (self._pieces or self._segments or self._end):
            return None
        segments = {"segments": self._segments} if self._segments else {}
        return {"text": "".join(self._pieces), **segments, **self._end}


open_stream = TranscriptStream
open_assembly = TranscriptAssembly


def _key(chunk: Json) -> str | None:
    """Return where an event has its text."""
    key = {_DELTA: "delta", _SEGMENT: "text", _DONE: "text"}.get(str(chunk.get("type")))
    return key if key and isinstance(chunk.get(key), str) else None


def _segment(chunk: Json) -> str:
    """Name the segment that an event belongs to; "" for none."""
    if chunk["type"] != _SEGMENT:
        return str(chunk.get("segment_id") or "")
    return str(chunk.get("id") or chunk.get("start"))


def _letters(text: str) -> str:
    """Return a text without its spaces, of which servers leave out those at the ends."""
    return "".join(text.split())
