"""How a refused call is answered: a hook's message as the endpoint's own kind of answer, an error in the envelope."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import orjson

from asgi_llm_gate import sse
from asgi_llm_gate.answer import EVENT_STREAM, Answer
from asgi_llm_gate.errors import GateError, Rejection, error_answer, intended, internal_error

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json, Shape

logger = logging.getLogger("asgi_llm_gate")


def answer_to(exc: Exception, shape: Shape, asked: Json, call_id: str) -> Answer:
    """Return the answer to a call that was refused or failed.

    Args:
        exc: Why.
        shape: The endpoint's.
        asked: The request as the client sent it, which says the form of the answer.
        call_id: The call's id.
    """
    if isinstance(exc, Rejection):
        return _rejection(exc.message, shape, asked, call_id)
    return error_answer(as_error(exc), request_id(call_id))


def as_error(exc: Exception) -> GateError:
    """Return the error that an exception means; a crash tells the client nothing."""
    error = intended(exc)
    if error is None:
        logger.error("the call failed", exc_info=exc)
        error = internal_error()
    return error


def request_id(call_id: str) -> str:
    """Return what clients show as a call's id."""
    return f"req_{call_id}"


def _rejection(message: str, shape: Shape, asked: Json, call_id: str) -> Answer:
    headers = ((b"x-request-id", request_id(call_id).encode()),)
    now = int(time.time())
    body = shape.rejection(asked, message, id=call_id, created=now)
    if body is None:
        return error_answer(GateError(400, message, code="content_policy_violation"), request_id(call_id))
    reader = shape.open_stream() if asked.get("stream") is True else None
    if reader is not None:
        chunks = shape.rejection_chunks(asked, message, id=call_id, created=now)
        events = [sse.encode(chunk, reader.event_name(chunk)) for chunk in chunks]
        end = [sse.DONE] if reader.ends_with_done else []
        return Answer(200, b"".join([*events, *end]), EVENT_STREAM, headers)
    return Answer(200, orjson.dumps(body), headers=headers)
