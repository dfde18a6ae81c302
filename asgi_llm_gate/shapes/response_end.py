"""Ending a response before its stream does: the events that close what is open, and the last one."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.response_draft import new_part
from asgi_llm_gate.shapes.response_items import BY_NAME, BY_PART

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json, TextName
    from asgi_llm_gate.shapes.response_draft import Draft

_TEXT = BY_NAME["text"]

# What a call of a tool that did not come to its end is called, where it is not `incomplete`.
_BROKEN_OFF = {"web_search_call": "failed", "image_generation_call": "failed"}


def end_with_message(draft: Draft, message: str, finish_reason: str) -> Iterator[Json]:
    """Yield the events that say a message, where it is not empty, and end the response.

    Args:
        draft: The response so far; it is to be told of each event before the next is taken.
        message: One more piece of the text that is open, or an output of its own.
        finish_reason: ``stop``, or why the response is incomplete.
    """
    if draft.finished:
        return
    yield from _begin(draft)
    target = _open_message(draft) if message else None
    for output in draft.open():
        if output != target:
            yield from _close(draft, output, finish_reason)
    if message:
        yield from _say(draft, target, message)
    for output in draft.open():
        yield from _close(draft, output, finish_reason)
    if finish_reason == "stop":
        yield _last(draft, "completed")
    else:
        yield _last(draft, "incomplete", incomplete_details={"reason": finish_reason})


def end_with_error(draft: Draft, error: Json) -> Iterator[Json]:
    """Yield the event that fails the response, with what there is of it."""
    if not draft.finished:
        yield from _begin(draft)
        code = error.get("code") or "server_error"
        yield _last(draft, "failed", error={"code": code, "message": error.get("message")})


def piece(draft: Draft, name: TextName, text: str) -> Json:
    """Return an event that brings a piece of a text."""
    kind = BY_NAME[name[-1]]
    logprobs: Json = {"logprobs": []} if kind is _TEXT else {}
    return {"type": f"{kind.events}.delta", **_where(draft, name), "delta": text, **logprobs}


def new_response(model: str, status: str, output: list[Json], *, id: str, created: int) -> Json:
    """Return a response with every field that clients insist on."""
    return {
        "id": f"resp_{id}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }


def message_item(id: str, status: str, content: list[Json]) -> Json:
    """Return a message of the assistant."""
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def _begin(draft: Draft) -> Iterator[Json]:
    if draft.response is None:
        response = new_response("", "in_progress", [], id=secrets.token_hex(16), created=int(time.time()))
        yield {"type": "response.created", "response": response}


def _open_message(draft: Draft) -> int | None:
    return next((output for output in draft.open() if draft.items[output].get("type") == "message"), None)


def _say(draft: Draft, output: int | None, message: str) -> Iterator[Json]:
    if output is None:
        output = max(draft.items, default=-1) + 1
        item = message_item(_new_id(draft, output), "in_progress", [])
        yield {"type": "response.output_item.added", "output_index": output, "item": item}
    name = next(_open_texts(draft, output), None)
    if name is None:
        name = (output, max((at[2] for at in draft.parts(output)), default=-1) + 1, _TEXT.name)
        yield {"type": f"{_TEXT.part_events}.added", **_where(draft, name), "part": new_part(_TEXT)}
    yield piece(draft, name, message)


def _open_texts(draft: Draft, output: int) -> Iterator[TextName]:
    for at in draft.parts(output):
        name = (output, at[2], _TEXT.name)
        if draft.part(*at).get("type") == _TEXT.part and not {at, name} & draft.ended:
            yield name


def _new_id(draft: Draft, output: int) -> str:
    unique = str((draft.response or {}).get("id")).removeprefix("resp_")
    return f"msg_{unique}_{output}" if output else f"msg_{unique}"


def _where(draft: Draft, name: TextName) -> Json:
    """Return the fields of an event that say which text it is about."""
    kind = BY_NAME[name[-1]]
    where = {"item_id": draft.items.get(name[0], {}).get("id"), "output_index": name[0]}
    return {**where, kind.index: name[1]} if kind.parts else where


def _close(draft: Draft, output: int, finish_reason: str) -> Iterator[Json]:
    """Yield the events that end an output: those of its texts and parts, and its own."""
    for at in draft.parts(output):
        part = draft.part(*at)
        kind = BY_PART.get(str(part.get("type")))
        if kind is not None and at not in draft.ended:
            name = (output, at[2], kind.name)
            if name not in draft.ended:
                yield _done(draft, name)
            yield {"type": f"{kind.part_events}.done", **_where(draft, name), "part": part}
    for name in draft.names(output):
        if not BY_NAME[name[-1]].parts and name not in draft.ended:
            yield _done(draft, name)
    item = _left(draft.item(output), finish_reason)
    yield {"type": "response.output_item.done", "output_index": output, "item": item}


def _done(draft: Draft, name: TextName) -> Json:
    kind = BY_NAME[name[-1]]
    more: Json = {"logprobs": []} if kind is _TEXT else {}
    if kind.name == "arguments":
        more = {"name": draft.items[name[0]].get("name")}
    return {"type": f"{kind.events}.done", **_where(draft, name), kind.key: draft.said(name) or "", **more}


def _left(item: Json, finish_reason: str) -> Json:
    """Return an output as it is left: what the model said is complete after ``stop``, a tool's call is not."""
    if "status" not in item:
        return item
    kind = str(item.get("type"))
    said = kind in {"message", "reasoning"} and finish_reason == "stop"
    return {**item, "status": "completed" if said else _BROKEN_OFF.get(kind, "incomplete")}


def _last(draft: Draft, status: str, **fields: Any) -> Json:
    return {"type": f"response.{status}", "response": ended(draft, status, **fields)}


def ended(draft: Draft, status: str, **fields: Any) -> Json:
    """Return the response as far as it has come, with a status, and further fields, at its end."""
    items = [(output, draft.item(output)) for output in sorted(draft.items)]
    output = [item if at in draft.done else _left(item, status) for at, item in items]
    return {**(draft.response or {}), "status": status, "output": output, **fields}
