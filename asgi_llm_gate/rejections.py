"""How a refused call is answered: a hook's message as the endpoint's own kind of answer, an error in the envelope."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from asgi_llm_gate import sse
from asgi_llm_gate.answer import EVENT_STREAM, Answer
from asgi_llm_gate.errors import GateError, Rejection, error_answer, error_fields, intended, internal_error, refused
from asgi_llm_gate.masking import log_crash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_llm_gate.answer import Headers
    from asgi_llm_gate.endpoints import Endpoint
    from asgi_llm_gate.shapes import Json, Stream


def answer_to(exc: Exception, endpoint: Endpoint, asked: Json, call_id: str) -> Answer:
    """Return the answer to a call that was refused or failed.

    Args:
        exc: Why.
        endpoint: What was called.
        asked: The request as the client sent it, which says the form of the answer.
        call_id: The call's id.
    """
    if isinstance(exc, Rejection):
        return _rejection(exc.message, endpoint, asked, call_id)
    return error_answer(as_error(exc), request_id(call_id), endpoint.error_body)


def answer_in_stream(exc: Exception, endpoint: Endpoint, asked: Json, call_id: str) -> Answer:
    """Return the same as a whole stream, for a client that has been sent a stream's start and nothing else of it."""
    shape, now = endpoint.shape, int(time.time())
    reader = shape.open_stream()
    if isinstance(exc, Rejection):
        if reader is not None and shape.rejection(asked, exc.message, id=call_id, created=now) is not None:
            return _stream(shape.rejection_chunks(asked, exc.message, id=call_id, created=now), reader)
        exc = refused(exc.message)
    fields = error_fields(as_error(exc))
    if reader is None:
        return Answer(200, sse.encode({"error": fields}) + sse.DONE, EVENT_STREAM)
    return _stream(reader.error_end(fields), reader)


def as_error(exc: Exception) -> GateError:
    """Return the error that an exception means; a crash tells the client nothing."""
    error = intended(exc)
    if error is None:
        log_crash(exc, "the call failed")
        error = internal_error()
    return error


def request_id(call_id: str) -> str:
    """Return what clients show as a call's id."""
    return f"req_{call_id}"


def _rejection(message: str, endpoint: Endpoint, asked: Json, call_id: str) -> Answer:
    headers = ((b"x-request-id", request_id(call_id).encode()),)
    now = int(time.time())
    shape = endpoint.shape
    body = shape.rejection(asked, message, id=call_id, created=now)
    if body is None:
        return error_answer(refused(message), request_id(call_id), endpoint.error_body)
    reader = shape.open_stream() if asked.get("stream") is True else None
    if reader is not None:
        return _stream(shape.rejection_chunks(asked, message, id=call_id, created=now), reader, headers)
    return Answer(200, orjson.dumps(body), headers=headers)


def _stream(chunks: Iterable[Json], reader: Stream, headers: Headers = ()) -> Answer:
    events = [sse.encode(chunk, reader.event_name(chunk)) for chunk in chunks]
    end = [sse.DONE] if reader.ends_with_done else []
    return Answer(200, b"".join([*events, *end]), EVENT_STREAM, headers)
