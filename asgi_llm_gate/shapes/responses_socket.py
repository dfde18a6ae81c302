"""Responses over a WebSocket: the client's ``response.create``, and the events of the Responses stream in lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.shapes.response_items import ENDS
from asgi_llm_gate.shapes.response_stream import ResponsesStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_llm_gate.shapes import Json, Key, Stream

CALL_TYPE = "responses"
LITELLM_CALL_TYPE = "aresponses"
USER_IN_EVENTS = True
MODELS = ("model",)

# What an event of the client has beside the fields of ``POST /responses``.
_ENVELOPE = ("type", "event_id", "stream_id")


def is_asking(event: Json) -> bool:  # noqa: ARG001  # likewise
    """Return True: the protocol has no event without text."""
    return True


def starts_response(event: Json) -> bool:
    """Tell whether an event is anything but ``response.steer``, which goes on with a response that has a user."""
    return event.get("type") != "response.steer"


def body(event: Json) -> Json:
    """Return the fields of ``POST /responses``: those beside the envelope, or those in its `response`.

    Raises:
        GateError: 400, there are both.
    """
    fields = {name: value for name, value in event.items() if name not in _ENVELOPE}
    if "response" not in fields:
        return fields
    inner = fields["response"]
    if len(fields) > 1 or not isinstance(inner, dict):
        raise GateError(400, "Send the fields of a response beside 'type', not in 'response'", param="response")
    return dict(inner)


def with_body(event: Json, body: Json) -> Json:
    """Return an event with other fields, in the place where it had them."""
    envelope = {name: event[name] for name in _ENVELOPE if name in event}
    return {**envelope, "response": body} if "response" in event else {**body, **envelope}


def error_event(error: Json, event: Json, status: int) -> Json:
    """Return an error, in the lane of the event at fault."""
    lane = event.get("stream_id")
    return {"type": "error", "status": status, "error": error, **({"stream_id": lane} if isinstance(lane, str) else {})}


def response_of(event: Json, known: Mapping[Key, Stream]) -> Key | None:
    """Return an event's lane: responses in one come one after the other."""
    lane = event.get("stream_id")
    key = (lane if isinstance(lane, str) else None,)
    step = str(event.get("type"))
    if step.startswith("response.") and not step.startswith("response.steer."):
        return key
    return key if step == "error" and key in known else None


def begins(event: Json) -> bool:
    """Tell whether an event opens a response."""
    return event.get("type") == "response.created"


def ends(event: Json, key: Key) -> bool:  # noqa: ARG001  # likewise
    """Tell whether an event is the last of a response."""
    return event.get("type") in ENDS


def new_stream(key: Key) -> ResponsesStream:  # noqa: ARG001  # likewise
    """Return the reader of a response's events."""
    return ResponsesStream()


def addressed(event: Json, key: Key) -> Json:
    """Return an event in a lane."""
    return event if key[0] is None else {**event, "stream_id": key[0]}


def cancel(key: Key) -> Json | None:  # noqa: ARG001  # likewise
    """Return None: the protocol has no event that stops a response."""
    return None
