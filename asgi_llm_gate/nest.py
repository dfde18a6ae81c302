"""Iterator hooks: async generators, one around the other, that a stream's chunks are handed through."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import anyio

from asgi_llm_gate.hooks import Hook, HookFailedError
from asgi_llm_gate.record import Record, as_record

logger = logging.getLogger("asgi_llm_gate")


class Nest:
    """The generators of one stream, at work in a task of their own.

    They ask for chunks and the app sends chunks: the two meet one chunk at a time. The app goes on when the generators
    ask for the next one, so all that they made of a chunk has gone out by then, and back-pressure holds.

    Args:
        hooks: The iterator hooks, the innermost first.
        arguments: What they are given beside the chunks.
        kind: The record class of the chunks.
        emit: Takes each chunk that comes out.
        failed: Is told of what a generator raised.
        ended: Is told that the generators have come to their end.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        arguments: Mapping[str, Any],
        kind: type[Record],
        *,
        emit: Callable[[Record], Awaitable[None]],
        failed: Callable[[Exception], Awaitable[None]],
        ended: Callable[[], Awaitable[None]],
    ) -> None:
        self._hooks = hooks
        self._arguments = arguments
        self._kind = kind
        self._emit = emit
        self._failed = failed
        self._ended = ended
        self._scope = anyio.CancelScope()
        self._timeout = max(hook.timeout for hook in hooks)
        self._asked = anyio.Event()
        self._given = anyio.Event()
        self._chunk: Record | None = None
        self._over = False
        self._emitting = False

    async def run(self) -> None:
        """Hand chunks through until the generators end, or one of them fails."""
        with self._scope:
            try:
                await self._hand_through()
            except Exception as exc:
                await self._failed(exc)
            else:
                await self._ended()
        self._over = True
        self._asked.set()

    async def push(self, chunk: Record | None) -> None:
        """Give the generators one chunk, or None for the end, and return when they want another or have ended.

        Once they have come to their end chunks go nowhere.
        """
        await self._in_time(self._asked)
        if self._over:
            return
        self._asked = anyio.Event()
        self._chunk = chunk
        self._given.set()
        await self._in_time(self._asked)

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
        await self._failed(HookFailedError(names))

    async def _incoming(self) -> AsyncGenerator[Record, None]:
        while True:
            self._given = anyio.Event()
            self._asked.set()
            await self._given.wait()
            if self._chunk is None:
                return
            yield self._chunk

    async def _hand_through(self) -> None:
        async with AsyncExitStack() as generators:
            chunks = await generators.enter_async_context(aclosing(self._incoming()))
            for hook in self._hooks:
                chunks = await generators.enter_async_context(aclosing(self._through(hook, chunks)))
            async for chunk in chunks:
                self._emitting = True
                await self._emit(chunk)
                self._emitting = False

    async def _through(self, hook: Hook, chunks: AsyncIterator[Record]) -> AsyncGenerator[Record, None]:
        """Yield what a hook's generator makes of the chunks; what is left of them, if its crash is allowed."""
        try:
            made = hook.start(response=chunks, **self._arguments)
            if isinstance(made, Awaitable):
                made = await made
            async with aclosing(made):
                async for chunk in made:
                    yield self._record(chunk)
        except Exception as exc:
            hook.judge(exc)
            async for chunk in chunks:
                yield chunk

    def _record(self, chunk: Any) -> Record:
        record = as_record(chunk, self._kind)
        if not isinstance(record, Record):
            raise TypeError(f"an iterator hook yielded {type(chunk).__name__}; expected a chunk or a dict")
        return record
