"""Assistants: ``POST /v1/assistants``, ``/v1/threads`` and what runs on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.common import fields, lines, objects, texts
from asgi_llm_gate.shapes.plain import open_assembly, rejection, rejection_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asgi_llm_gate.shapes import Json, TextName

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]

_DELTA = "thread.message.delta"
_MESSAGE = "thread.message"


class Response(Record):
    """A run, a message or a piece of one."""

    known = frozenset(
        {
            *("assistant_id", "attachments", "content", "created_at", "delta", "id", "incomplete_details", "index"),
            *("instructions", "last_error", "metadata", "model", "object", "required_action", "role", "run_id"),
            *("status", "step_details", "text", "thread_id", "tools", "type", "usage", "value"),
        }
    )


def prompt_text(data: Json) -> str:
    """Return the instructions, the messages and the outputs and descriptions of tools, a line each."""
    return lines(_prompt_parts(data))


def _prompt_parts(data: Json) -> Iterator[str]:
    yield from fields(data, ("instructions", "additional_instructions", "description", "content"))
    for thread in objects([data, data.get("thread")]):
        for messages in ("messages", "additional_messages"):
            for message in objects(thread.get(messages)):
                yield from texts(message.get("content"))
    for output in objects(data.get("tool_outputs")):
        yield from texts(output.get("output"))
    for tool in objects(data.get("tools")):
        for function in objects(tool.get("function")):
            yield from texts(function.get("description"))


class RunStream:
    """The events of a run, told apart by their `object`.

    A message's text comes in pieces, and whole when it is complete: that is made to agree with the pieces.
    """

    ends_with_done = True

    def __init__(self) -> None:
        self._said: dict[TextName, str] = {}
        self._run: Json = {}

    def slots(self, chunk: Json) -> list[Slot]:
        """Return the texts of a message's pieces."""
        return list(self._texts(chunk, chunk.get("delta"))) if chunk.get("object") == _DELTA else []

    def _texts(self, chunk: Json, holder: Any) -> Iterator[Slot]:
        parts = holder.get("content") if isinstance(holder, dict) else None
        for place, part in enumerate(objects(parts) if parts else ()):
            index: Any = part.get("index", place)
            text = part.get("text")
            if isinstance(text, dict) and isinstance(text.get("value"), str) and text["value"]:
                yield Slot(text, "value", (str(chunk.get("id")), index), "text", index, part)

    def finishing(self, chunk: Json) -> Iterable[TextName]:
        """Yield a message that an event shows whole; a run that is over ends all."""
        if chunk.get("object") == _MESSAGE and chunk.get("content"):
            yield (str(chunk.get("id")),)
        elif chunk.get("object") == "thread.run" and chunk.get("status") not in _GOES_ON:
            yield ()

    def is_preamble(self, chunk: Json) -> bool:
        """Tell whether an event comes before any text."""
        return chunk.get("object") != _DELTA and chunk.get("status") in _GOES_ON

    def seen(self, chunk: Json) -> bool:
        """Take note of a message's pieces, and make it agree with them where it comes whole."""
        if chunk.get("object") == "thread.run":
            self._run = chunk
        mended = False
        for slot in self.slots(chunk):
            self._said[slot.text] = self._said.get(slot.text, "") + slot.piece
        for slot in self._texts(chunk, chunk if chunk.get("object") == _MESSAGE else None):
            said = self._said.get(slot.text, slot.piece)
            if said != slot.piece:
                slot.put(said)
                mended = True
        return mended

    def is_repeatable(self, chunk: Json) -> bool:  # noqa: ARG002  # the shapes' signature
        """Return False: every piece is noted, for what repeats it later."""
        return False

    def more(self, slot: Slot, text: str) -> Json:
        """Return a piece of the same text."""
        return _piece(slot.text[0], slot.index, text)

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:
        """Yield the message as a piece of the last text; then the run, completed or incomplete."""
        if message:
            last = next(reversed(self._said), ("msg_gate", 0))
            yield _piece(last[0], last[1], message)
        end: Json = {"status": "completed"}
        if finish_reason != "stop":
            end = {"status": "incomplete", "incomplete_details": {"reason": finish_reason}}
        yield {**self._run, "object": "thread.run", **end}

    def error_of(self, chunk: Json) -> Any:
        """Return an error, or that of a run that failed."""
        failed = chunk.get("object") == "thread.run" and chunk.get("status") == "failed"
        return chunk.get("error") or (failed and (chunk.get("last_error") or chunk))

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the error in the envelope, as official clients raise it."""
        yield {"error": error}

    def event_name(self, chunk: Json) -> str | None:
        """Return the name of a piece's event, of a run's, or of an error's."""
        if chunk.get("object") == "thread.run":
            return f"thread.run.{chunk.get('status')}"
        return "error" if "error" in chunk else str(chunk.get("object"))


# The states of runs and messages in which there is more to come.
_GOES_ON = frozenset({None, "queued", "in_progress", "requires_action", "cancelling"})

open_stream = RunStream


def _piece(message: str, index: int, text: str) -> Json:
    part = {"index": index, "type": "text", "text": {"value": text, "annotations": []}}
    return {"id": message, "object": _DELTA, "delta": {"content": [part]}}
