"""Callbacks under observation: stand-ins that call them, and note what each hook did and how long it took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from time import perf_counter
from typing import Any

from asgi_llm_gate.callhooks import STAGES
from asgi_llm_gate.hooks import overrides
from asgi_llm_gate.record import as_record
from asgi_llm_gate.trial.changes import changes, snapshot
from asgi_llm_gate.trial.looks import described, look_at, seen

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
    look = look_at(stage)
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
        before = seen(given)
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
        outcome = ["was stopped"]
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
            outcome = [f"raised {described(exc)}"]
            raise
        else:
            outcome = []
        finally:
            clock.stop()
            step.note((*changes(tap.given if tap else [], yielded, "chunks"), *outcome))

    return hook


def _note(chunks: list[Any], chunk: Any) -> None:
    if len(chunks) < _MOST_NOTED:
        chunks.append(snapshot(as_record(chunk)))
