"""What a hook did, read from what it was given to change, before and after, and from what it returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asgi_llm_gate.call import OWN_KEYS
from asgi_llm_gate.record import as_record
from asgi_llm_gate.trial.changes import as_json, changes, snapshot

Look = Callable[[Mapping[str, Any], Mapping[str, Any], Any], Iterator[str]]

# What the gate itself puts beside the client's data, where no hook keeps anything.
_HIDDEN = OWN_KEYS - {"litellm_metadata"}

# What of it stays where a hook returns other data.
_STAYS = ("metadata", "litellm_metadata")


def described(exc: Exception) -> str:
    """Return an exception's type and text; for one with a status what it answers with."""
    status = getattr(exc, "status_code", None)
    detail = getattr(exc, "detail", None)
    text = as_json(snapshot(detail)) if isinstance(detail, dict) else detail or exc
    return f"{type(exc).__name__}: {text}" if status is None else f"{type(exc).__name__} {status}: {text}"


def seen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies of what a hook is given to change."""
    copies: dict[str, Any] = {}
    if "data" in given:
        copies["data"] = snapshot({name: value for name, value in given["data"].items() if name not in _HIDDEN})
    if "response" in given:
        copies["response"] = snapshot(given["response"])
    return copies


def _data(before: Mapping[str, Any], given: Mapping[str, Any], result: Any) -> Iterator[str]:
    data = before.get("data", {})
    after = seen({**given, "data": result} if isinstance(result, dict) else given).get("data", {})
    if isinstance(result, dict) and after is not None:
        after = {**{name: data[name] for name in _STAYS if name in data}, **after}
    yield from _changed(data, after)
    yield from _refusal(before, given, result)


def _response(before: Mapping[str, Any], given: Mapping[str, Any], result: Any) -> Iterator[str]:
    if isinstance(result, Exception):
        yield f"returned {described(result)}"
    else:
        after = given.get("response") if result is None else as_record(result)
        yield from _changed(before.get("response", {}), snapshot(after))


def _piece(before: Mapping[str, Any], given: Mapping[str, Any], result: Any) -> Iterator[str]:
    piece = given.get("response", "")
    channel = getattr(piece, "channel", "text")
    after = "returned " + described(result) if isinstance(result, Exception) else as_json(snapshot(result))
    yield f"{'' if channel == 'text' else f'{channel}: '}{as_json(before.get('response', ''))} -> {after}"


def _refusal(_before: Mapping[str, Any], _given: Mapping[str, Any], result: Any) -> Iterator[str]:
    if isinstance(result, str):
        yield f"refused with {as_json(result)}"
    elif isinstance(result, Exception):
        yield f"returned {described(result)}"


def _failure(_before: Mapping[str, Any], given: Mapping[str, Any], result: Any) -> Iterator[str]:
    if "original_exception" in given:
        yield f"was told of {described(given['original_exception'])}"
    yield from _refusal({}, {}, result if isinstance(result, Exception) else None)


def _headers(_before: Mapping[str, Any], _given: Mapping[str, Any], result: Any) -> Iterator[str]:
    yield from changes({}, snapshot(result or {}))


def _nothing(_before: Mapping[str, Any], _given: Mapping[str, Any], _result: Any) -> Iterator[str]:
    yield from ()


def _changed(before: Any, after: Any) -> Iterator[str]:
    if before is None or after is None:
        yield "left what is not JSON"
    else:
        yield from changes(before, after)


_BY_STAGE: Mapping[str, Look] = {
    "async_pre_call_hook": _data,
    "async_moderation_hook": _refusal,
    "async_post_call_success_hook": _response,
    "async_post_call_streaming_hook": _piece,
    "async_post_call_failure_hook": _failure,
    "async_post_call_response_headers_hook": _headers,
}


def look_at(stage: str) -> Look:
    """Return what tells, in lines, what a hook did: by what it was given, before and after, and what it returned."""
    return _BY_STAGE.get(stage, _nothing)
