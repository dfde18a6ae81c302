"""Iterator hooks: async generators, one around the other, that a stream's chunks are handed through."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from typing import Any

import anyio

from asgi_llm_gate.hooks import Hook, HookFailedError
from asgi_llm_gate.litellm_objects import record_of
from asgi_llm_gate.record import Record

logger = logging.getLogger("asgi_llm_gate")


class Nest:
    """The generators of one stream, at work in a task of their own.

    They ask for chunks and the app sends chunks: the two meet one chunk at a time. The app goes on when the generators
    ask for the next one, so all that they made of a chunk has gone out by then, and back-pressure holds.

    Args:
        hooks: The iterator hooks, the innermost first.
        arguments: What they are given beside the chunks.
        kind: The record class of the chunks.
        call_type: The endpoint's.
        emit: Takes each chunk that comes out.
        failed: Is told of what a generator raised.
        ended: Is told that the generators have come to their end.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        arguments: Mapping[str, Any],
        kind: type[Record],
        call_type: str,
        *,
        emit: Callable[[Record], Awaitable[None]],
        failed: Callable[[Exception], Awaitable[None]],
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        self._hooks = hooks
        self._arguments = arguments
        self._kind = kind
        self._call_type = call_type
        self._emit = emit
        self._failed = failed
        self._ended = ended
        self._scope = anyio.CancelScope()
        self._timeout = max(hook.timeout for hook in hooks)
        self._asked = anyio.Event()
        self._given = anyio.Event()
        self._chunk: Record | None = None
        self._over = False
        self._bypassed = False
        self._emitting = False
        self._stages: list[_Given] = []

    async def run(self) -> None:
        """Hand chunks through until the generators end, or one of them fails."""
        try:
            with self._scope:
                await self._hand_through()
            self._emitting = True
            if not self._scope.cancelled_caught:
                await self._ended()
        except Exception as exc:
            self._emitting = True
            await self._failed(exc)
        self._over = True
        self._asked.set()

    async def push(self, chunk: Record | None) -> None:
        """Give the generators one chunk, or None for the end, and return when they want another or have ended.

        Once they have come to their end chunks go nowhere.
        """
        await self._in_time(self._asked)
        if self._bypassed and chunk is not None:
            await self._emit(chunk)
        if self._over or self._bypassed:
            return
        self._asked = anyio.Event()
        self._chunk = chunk
        self._given.set()
        await self._in_time(self._asked)

    def cancel(self) -> None:
        """Stop the generators: there is no app any more to give them chunks."""
        self._scope.cancel()

    async def _in_time(self, asked: anyio.Event) -> None:
        """Wait for the generators, and end the stream where they take longer than a hook may.

        The time in which a client is slow to take what they gave is not theirs.
        """
        while True:
            with anyio.move_on_after(self._timeout):
                await asked.wait()
                return
            if not self._emitting:
                break
        names = ", ".join(hook.name for hook in self._hooks)
        logger.error("%s took longer than %g seconds", names, self._timeout)
        self._scope.cancel()
        if any(hook.on_error != "allow" for hook in self._hooks):
            await self._failed(HookFailedError(names))
        else:
            await self._bypass()

    async def _bypass(self) -> None:
        """Pass on what the generators have in hand, the oldest first, and from now on all as it comes."""
        self._bypassed = True
        untaken = [self._chunk] if self._given.is_set() else []
        for chunk in (*(stage.in_hand for stage in reversed(self._stages)), *untaken):
            if chunk is not None:
                await self._emit(chunk)

    async def _next(self) -> Record:
        """Ask for a chunk. Who gives up asking, for a time limit of its own, may ask again and misses none."""
        if not self._given.is_set():
            self._asked.set()
            await self._given.wait()
        if self._chunk is None:
            raise StopAsyncIteration
        self._given = anyio.Event()
        return self._chunk

    def _hang_up(self) -> None:
        """Let who still asks know that there are no more chunks: it may be a task that a generator has left behind."""
        self._chunk = None
        self._given.set()

    async def _hand_through(self) -> None:
        async with AsyncExitStack() as generators:
            ask = self._next
            for hook in self._hooks:
                given = _Given(ask, hook.objects(self._call_type).chunk)
                self._stages.append(given)
                chunks = self._through(hook, given)
                generators.push_async_callback(_close, chunks)
                ask = chunks.__anext__
            generators.callback(self._hang_up)
            async for chunk in chunks:
                self._emitting = True
                try:
                    await self._emit(chunk)
                finally:
                    self._emitting = False

    async def _through(self, hook: Hook, given: _Given) -> AsyncGenerator[Record, None]:
        """Yield what a hook's generator makes of the chunks; what is left of them, if its crash is allowed."""
        try:
            made = hook.start({"response": given, **self._arguments})
            if isinstance(made, Awaitable):
                made = await made
            async with aclosing(made) if hasattr(made, "aclose") else nullcontext():
                async for chunk in made:
                    record = self._record(chunk)
                    given.in_hand = None
                    yield record
        except Exception as exc:
            hook.judge(exc)
            if given.in_hand is not None:
                yield given.in_hand
            async for chunk in _Given(given.ask, lambda record: record):
                yield chunk

    def _record(self, chunk: Any) -> Record:
        record = record_of(chunk, self._kind)
        if not isinstance(record, Record):
            raise TypeError(f"an iterator hook yielded {type(chunk).__name__}; expected a chunk or a dict")
        return record


class _Given:
    """What one hook is given to iterate over: the chunks, as those before it leave them.

    Attributes:
        ask: Returns the next chunk.
        show: Makes of a chunk what the hook is given.
        in_hand: The chunk that the hook has been given, until it yields something or asks for another.
    """

    def __init__(self, ask: Callable[[], Awaitable[Record]], show: Callable[[Record], Any]) -> None:
        self.ask = ask
        self.show = show
        self.in_hand: Record | None = None
        self._closed = False

    def __aiter__(self) -> _Given:
        return self

    async def __anext__(self) -> Any:
        if self._closed:
            raise StopAsyncIteration
        self.in_hand = None
        self.in_hand = await self.ask()
        return self.show(self.in_hand)

    async def aclose(self) -> None:
        self._closed = True


async def _close(generator: AsyncGenerator[Record, None]) -> None:
    # One that a task of a hook's own is still asking comes to its end there.
    if not getattr(generator, "ag_running", False):
        await generator.aclose()
