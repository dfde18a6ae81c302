"""Realtime: the events of ``/v1/realtime``, on which text and audio go both ways."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.errors import error_fields, refused
from asgi_llm_gate.shapes import response_input
from asgi_llm_gate.shapes.common import lines, objects
from asgi_llm_gate.shapes.plain import Response, open_assembly, rejection, rejection_chunks
from asgi_llm_gate.shapes.response_end import ended
from asgi_llm_gate.shapes.response_items import item_places
from asgi_llm_gate.shapes.response_stream import ResponsesStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asgi_llm_gate.shapes import Json, Key, Stream, TextName
    from asgi_llm_gate.shapes.response_items import Place

__all__ = [
    "CALL_TYPE",
    "LITELLM_CALL_TYPE",
    "MODELS",
    "USER_IN_EVENTS",
    "RealtimeStream",
    "Response",
    "addressed",
    "begins",
    "body",
    "cancel",
    "ends",
    "error_event",
    "is_asking",
    "new_stream",
    "open_assembly",
    "open_stream",
    "prompt_text",
    "rejection",
    "rejection_chunks",
    "response_of",
    "starts_response",
    "with_body",
]

CALL_TYPE = "realtime"
LITELLM_CALL_TYPE = "_arealtime"
USER_IN_EVENTS = False
MODELS = ("session.model", "response.model")

# The client's events that carry no text of anybody's: audio, and what names things by their ids.
_SILENT = frozenset(
    {
        *("input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear"),
        *("output_audio_buffer.clear", "conversation.item.delete", "conversation.item.retrieve"),
        *("conversation.item.truncate", "response.cancel"),
    }
)


def prompt_text(data: Json) -> str:
    """Return the text of a client's event: of its session's or response's settings, and of its items."""
    return lines(_prompt_parts(data))


def _prompt_parts(data: Json) -> Iterator[str]:
    for holder in (data, data.get("session"), data.get("response")):
        if isinstance(holder, dict):
            yield response_input.prompt_text(holder)
            yield from _transcripts(holder.get("input"))
            for way in _transcriptions(holder):
                yield response_input.prompt_text({"prompt": way.get("prompt")})
    yield response_input.prompt_text({"input": [data.get("item")]})
    yield from _transcripts(data.get("item"))


def _transcripts(items: Any) -> Iterator[str]:
    """Yield what is said in the audio of items."""
    for item in objects(items):
        for part in objects(item.get("content")):
            if isinstance(part.get("transcript"), str):
                yield part["transcript"]


def _transcriptions(session: Json) -> Iterator[Json]:
    """Yield the settings of how what the user says is written down, which may have a prompt."""
    audio = session.get("audio")
    listens = audio.get("input") if isinstance(audio, dict) else None
    yield from objects(session.get("input_audio_transcription"))
    if isinstance(listens, dict):
        yield from objects(listens.get("transcription"))


def is_asking(event: Json) -> bool:
    """Tell whether an event may carry text."""
    return event.get("type") not in _SILENT


def starts_response(event: Json) -> bool:  # noqa: ARG001  # the dialogues' signature
    """Return False: who the user is, and other fields that must be there, the connection's query says."""
    return False


def body(event: Json) -> Json:
    """Return the event itself."""
    return event


def with_body(event: Json, body: Json) -> Json:  # noqa: ARG001  # likewise
    """Return what hooks left of the event."""
    return body


def error_event(error: Json, event: Json, status: int) -> Json:  # noqa: ARG001  # likewise
    """Return an error, with the id of the client's event at fault."""
    return {"type": "error", "event_id": new_event_id(), "error": {**error, "event_id": event.get("event_id")}}


def new_event_id() -> str:
    """Make an id for an event of the gate's own."""
    return f"event_{secrets.token_hex(12)}"


class RealtimeStream(ResponsesStream):
    """The events of one response, or those that tell of one item of the conversation."""

    def __init__(self, id: str | None) -> None:
        super().__init__()
        self._id = id

    def knows(self, item_id: str) -> bool:
        """Tell whether an item is one of the response's."""
        return item_id in self._draft.ids

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:
        """Yield an error that says the message, and the end of the response, incomplete."""
        yield error_event(error_fields(refused(message)), {}, 400)
        if self._id is not None and not self._draft.finished:
            details = {"type": "incomplete", "reason": finish_reason}
            yield self._done("incomplete", details)

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the error, and the end of the response, failed."""
        yield error_event(error, {}, 500)
        if self._id is not None and not self._draft.finished:
            details = {"type": "failed", "error": {"type": error.get("type"), "code": error.get("code")}}
            yield self._done("failed", details)

    def _done(self, status: str, details: Json) -> Json:
        response = {"object": "realtime.response", "id": self._id}
        response |= ended(self._draft, status, status_details=details)
        return {"type": "response.done", "response": response}

    def finishing(self, chunk: Json) -> Iterator[TextName]:
        """Yield what an event ends; one that has a whole item goes out with all of its text."""
        if _is_of_item(chunk):
            return (place.text for place in self._places(chunk))
        return super().finishing(chunk)

    def seen(self, chunk: Json) -> bool:
        """Take note of an event, and make its texts agree with those before it."""
        if not _is_of_item(chunk):
            return super().seen(chunk)
        output = self._output_of(chunk)
        return output is not None and super().seen({**chunk, "output_index": output})

    def _places(self, chunk: Json) -> Iterator[Place]:
        if not _is_of_item(chunk):
            return super()._places(chunk)
        return item_places(chunk["item"], self._output_of(chunk) or 0)

    def _output_of(self, chunk: Json) -> int | None:
        """Return the index of an item that the conversation's events name by its id only."""
        return self._draft.ids.get(str(chunk["item"].get("id")))


def _is_of_item(chunk: Json) -> bool:
    return str(chunk.get("type")).startswith("conversation.item.") and isinstance(chunk.get("item"), dict)


def open_stream() -> None:
    """Return None: over HTTP the endpoint has no streams."""


# Where an item of the conversation is told of that belongs to no response at work.
_ALONE: Key = (None,)


def response_of(event: Json, known: Mapping[Key, Stream]) -> Key | None:
    """Return the id of the response that an event names, or that has its item; an item of none is one for itself."""
    if str(event.get("type")).startswith("response."):
        response = event.get("response")
        own = event.get("response_id") or (response.get("id") if isinstance(response, dict) else None)
        return (own if isinstance(own, str) else "",)
    if not _is_of_item(event):
        return None
    item = str(event["item"].get("id"))
    having = (key for key, stream in known.items() if isinstance(stream, RealtimeStream) and stream.knows(item))
    return next(having, _ALONE)


def begins(event: Json) -> bool:
    """Tell whether an event opens a response."""
    return event.get("type") == "response.created"


def ends(event: Json, key: Key) -> bool:
    """Tell whether an event is the last of a response, or all there is of an item."""
    return key == _ALONE or event.get("type") == "response.done"


def new_stream(key: Key) -> RealtimeStream:
    """Return the reader of a response's events."""
    return RealtimeStream(key[0])


def addressed(event: Json, key: Key) -> Json:
    """Return an event of a response."""
    where = {"response_id": key[0]} if str(event.get("type")).endswith(".delta") else {}
    return {**event, "event_id": new_event_id(), **where}


def cancel(key: Key) -> Json | None:
    """Return the event that stops a response."""
    return {"type": "response.cancel", "response_id": key[0]} if key[0] else None
