"""Reading a Responses stream, and keeping what it repeats in agreement with what the client was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.response_draft import Draft
from asgi_llm_gate.shapes.response_end import end_with_error, end_with_message, piece
from asgi_llm_gate.shapes.response_items import (
    BY_NAME,
    ENDS,
    SNAPSHOTS,
    done_name,
    event_places,
    item_places,
    output_of,
    piece_name,
    response_items,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json, TextName
    from asgi_llm_gate.shapes.response_items import Place

# Events that only announce what comes.
_OPENINGS = SNAPSHOTS | {
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_summary_part.added",
}


class ResponsesStream:
    """The events of a response.

    A text comes in pieces first. The events that end the text, its part and its output repeat it, and the whole
    response at the end does once more: each of them is made to agree with the pieces. A text that comes without
    pieces counts as one where it first stands.
    """

    ends_with_done = False

    def __init__(self) -> None:
        self._draft = Draft()
        self._number: int | None = None
        self._shift = 0
        self._dropped = False
        self._lost: set[int] = set()

    def slots(self, chunk: Json) -> list[Slot]:
        """Return where pieces stand in an event, in order, none of them empty."""
        name = piece_name(chunk)
        if name is not None:
            return [_slot(chunk, "delta", name)] if chunk["delta"] else []
        return [
            _slot(place.holder, place.key, place.text)
            for place in self._places(chunk)
            if place.value and self._said(place.text, chunk) is None
        ]

    def finishing(self, chunk: Json) -> Iterator[TextName]:
        """Yield what an event ends: a text, the texts of an output, or all."""
        step = str(chunk.get("type"))
        name = done_name(chunk)
        if step in ENDS or step == "error":
            yield ()
        elif step == "response.output_item.done":
            yield (output_of(chunk),)
        elif name is not None:
            yield name
        elif step.endswith("part.done"):
            yield from (place.text for place in event_places(chunk))

    def is_preamble(self, chunk: Json) -> bool:
        """Tell whether an event only announces what comes."""
        return chunk.get("type") in _OPENINGS and not self.slots(chunk)

    def seen(self, chunk: Json) -> bool:
        """Take note of an event; number it anew once events were added or left out, and make its texts agree."""
        mended = piece_name(chunk) is None and self._mend(chunk)
        mended = self._renumber(chunk) or mended
        self._draft.add(chunk)
        return mended

    def is_repeatable(self, chunk: Json) -> bool:  # noqa: ARG002  # the shapes' signature
        """Return False: every piece is noted, for what repeats it later."""
        return False

    def more(self, slot: Slot, text: str) -> Json:
        """Return an event that carries more of a slot's text."""
        return piece(self._draft, slot.text, text)

    def event_name(self, chunk: Json) -> str | None:
        """Return an event's type."""
        name = chunk.get("type")
        return name if isinstance(name, str) else None

    def message_end(self, message: str, finish_reason: str) -> Iterator[Json]:
        """Yield the message as one more piece of the open text, or as an output of its own; then end all."""
        return end_with_message(self._draft, message, finish_reason)

    def error_of(self, chunk: Json) -> Any:
        """Return a failed response's error, or an `error` event's, which is the event itself or stands in it."""
        step = chunk.get("type")
        if step == "response.failed":
            response = chunk.get("response")
            return (isinstance(response, dict) and response.get("error")) or chunk
        return chunk.get("error") or (chunk if step == "error" else None)

    def error_end(self, error: Json) -> Iterator[Json]:
        """Yield the response as far as it has come, failed."""
        return end_with_error(self._draft, error)

    def _places(self, chunk: Json) -> Iterator[Place]:
        yield from event_places(chunk)
        for output, item in self._draft.outputs(response_items(chunk)):
            yield from item_places(item, output)

    def _mend(self, chunk: Json) -> bool:
        """Put what the client was sent of each text in the places that have it whole."""
        mended = False
        for place in self._places(chunk):
            said = self._said(place.text, chunk)
            if said is not None and place.value != said:
                place.put(said)
                mended = True
        return self._mend_output_text(chunk) or mended

    def _mend_output_text(self, chunk: Json) -> bool:
        """Set the text that some servers put beside the outputs to what these say."""
        response = chunk.get("response")
        if not isinstance(response, dict) or not isinstance(response.get("output_text"), str):
            return False
        before = response["output_text"]
        response["output_text"] = "".join(place.value for place in self._places(chunk) if place.text[-1] == "text")
        return bool(response["output_text"] != before)

    def _said(self, name: TextName, chunk: Json) -> str | None:
        """Return what the client was sent of a text; None if it may come whole, because its pieces never came."""
        said = self._draft.said(name)
        return "" if said is None and self._is_lost(name[0], chunk) else said

    def _is_lost(self, output: int, chunk: Json) -> bool:
        """Tell whether events of an output were left out: what the client was not sent then is not to come later."""
        gap = self._gap(chunk) > 0
        if output in self._draft.items:
            return output in self._lost or (gap and output not in self._draft.done)
        return (gap or self._dropped) and chunk.get("type") != "response.output_item.added"

    def _gap(self, chunk: Json) -> int:
        """Return how many numbers are missing between the last event and this one; negative if it goes back."""
        number = chunk.get("sequence_number")
        if not isinstance(number, int) or self._number is None:
            return 0
        return number + self._shift - self._number - 1

    def _renumber(self, chunk: Json) -> bool:
        number = chunk.get("sequence_number")
        gap = self._gap(chunk)
        if gap > 0:
            self._dropped = True
            self._lost.update(self._draft.open())
        if not isinstance(number, int):
            return self._number is not None and self._number_own(chunk)
        if self._number is None or not (gap > 0 or self._shift):
            self._number = number
            return False
        self._shift -= gap
        self._number += 1
        chunk["sequence_number"] = self._number
        return self._number != number

    def _number_own(self, chunk: Json) -> bool:
        """Give an event of the gate's or a hook's own the next number."""
        if not str(chunk.get("type")).startswith("response."):
            return False
        self._number = (self._number or 0) + 1
        self._shift += 1
        chunk["sequence_number"] = self._number
        return True


def _slot(holder: Json, key: str, name: TextName) -> Slot:
    return Slot(holder, key, name, BY_NAME[name[-1]].channel, name[0], holder)
