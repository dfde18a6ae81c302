"""Callbacks under observation: stand-ins that call them, and note what each hook did and how long it took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from time import perf_counter
from typing import Any

from asgi_llm_gate.call import OWN_KEYS
from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.hooks import overrides
from asgi_llm_gate.record import as_record
from asgi_llm_gate.trial.changes import as_json, changes, snapshot

_ITERATOR = "async_post_call_streaming_iterator_hook"
_TEXT = "async_post_call_streaming_hook"

# Pieces and chunks of a stream that are noted.
_MOST_NOTED = 200


@dataclass(slots=True)
class Step:
    """What one hook did: in one call of it, or in all calls for one stream.

    Attributes:
        name: The callback's class and the hook.
        seconds: How long it took, the time in which it waited for the stream aside.
        notes: What it changed, returned or raised.
        calls: How often it was called.
    """

    name: str
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    calls: int = 0

    def note(self, lines: Iterable[str]) -> None:
        """Add notes, up to a limit."""
        for line in lines:
            if len(self.notes) <= _MOST_NOTED:
                self.notes.append(line if len(self.notes) < _MOST_NOTED else "…")

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of a block, and note what it raises."""
        began = perf_counter()
        ended = False
        try:
            yield
            ended = True
        except Exception as exc:
            ended = True
            self.notes.append(f"raised {described(exc)}")
            raise
        finally:
            self.seconds += perf_counter() - began
            if not ended:
                self.notes.append("was stopped")


def described(exc: Exception) -> str:
    """Return an exception's type and text; for one with a status what it answers with."""
    status = getattr(exc, "status_code", None)
    detail = getattr(exc, "detail", None)
    text = as_json(snapshot(detail)) if isinstance(detail, dict) else detail or exc
    return f"{type(exc).__name__}: {text}" if status is None else f"{type(exc).__name__} {status}: {text}"


class _StandIn:
    """Has the hooks it is given, and all else from the callback."""

    def __init__(self, callback: object, hooks: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(hooks)
        self._callback = callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)


def watched(callback: object, steps: list[Any]) -> object:
    """Return a stand-in for a callback, whose hooks add to the steps when they are called."""
    kind = type(callback).__name__
    hooks = {
        name: _watched(getattr(callback, name), name, f"{kind}.{name}", steps)
        for name in STAGES
        if overrides(callback, name)
    }
    return type(kind, (_StandIn,), {})(callback, hooks)


def _watched(method: Callable[..., Any], stage: str, name: str, steps: list[Any]) -> Callable[..., Any]:
    if stage == _ITERATOR:
        return _watched_iterator(method, name, steps)
    look = _LOOKS.get(stage, _nothing)
    of_stream = Step(name)

    def begun() -> Step:
        step = of_stream if stage == _TEXT else Step(name)
        if not step.calls:
            steps.append(step)
        step.calls += 1
        return step

    @wraps(method)
    def hook(**given: Any) -> Any:
        step = begun()
        before = _seen(given)
        with step.timed():
            result = method(**given)
        if isinstance(result, Awaitable):
            return awaited(result, step, before, given)
        step.note(look(before, given, result))
        return result

    async def awaited(result: Awaitable[Any], step: Step, before: dict[str, Any], given: dict[str, Any]) -> Any:
        with step.timed():
            result = await result
        step.note(look(before, given, result))
        return result

    return hook


# What the gate itself puts beside the client's data, where no hook keeps anything.
_HIDDEN = frozenset(OWN_KEYS) - {"litellm_metadata"}

# What of it stays where a hook returns other data.
_STAYS = ("metadata", "litellm_metadata")


def _seen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies of what a hook is given to change."""
    seen: dict[str, Any] = {}
    if "data" in given:
        seen["data"] = snapshot({name: value for name, value in given["data"].items() if name not in _HIDDEN})
    if "response" in given:
        seen["response"] = snapshot(given["response"])
    return seen


def _data(before: Mapping[str, Any], given: Mapping[str, Any], result: Any) -> Iterator[str]:
    data = before.get("data", {})
    after = _seen({**given, "data": result} if isinstance(result, dict) else given).get("data", {})
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


_LOOKS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], Any], Iterator[str]]] = {
    "async_pre_call_hook": _data,
    "async_moderation_hook": _refusal,
    "async_post_call_success_hook": _response,
    _TEXT: _piece,
    "async_post_call_failure_hook": _failure,
    "async_post_call_response_headers_hook": _headers,
}


class _Tap:
    """A stream's chunks on their way into an iterator hook, whose time does not run while it waits for them."""

    def __init__(self, chunks: AsyncIterator[Any], clock: _Clock) -> None:
        self._chunks = chunks
        self._clock = clock
        self.given: list[Any] = []

    def __aiter__(self) -> _Tap:
        return self

    async def __anext__(self) -> Any:
        with self._clock.paused():
            chunk = await anext(self._chunks)
        _note(self.given, chunk)
        return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


class _Clock:
    """Counts a step's time while it runs."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._began = perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let a block's time be nobody's."""
        self.stop()
        try:
            yield
        finally:
            self._began = perf_counter()

    def stop(self) -> None:
        """Count the time up to now."""
        self._step.seconds += perf_counter() - self._began


def _watched_iterator(method: Callable[..., Any], name: str, steps: list[Any]) -> Callable[..., Any]:
    @wraps(method)
    async def hook(**given: Any) -> AsyncIterator[Any]:
        step = Step(name, calls=1)
        steps.append(step)
        clock = _Clock(step)
        tap = _Tap(given["response"], clock) if "response" in given else None
        yielded: list[Any] = []
        raised: list[str] = []
        try:
            made = method(**given if tap is None else {**given, "response": tap})
            if isinstance(made, Awaitable):
                made = await made
            async with aclosing(made) if hasattr(made, "aclose") else nullcontext():
                async for chunk in made:
                    _note(yielded, chunk)
                    with clock.paused():
                        yield chunk
        except Exception as exc:
            raised.append(f"raised {described(exc)}")
            raise
        finally:
            clock.stop()
            step.note((*changes(tap.given if tap else [], yielded, "chunks"), *raised))

    return hook


def _note(chunks: list[Any], chunk: Any) -> None:
    if len(chunks) < _MOST_NOTED:
        chunks.append(snapshot(as_record(chunk)))
