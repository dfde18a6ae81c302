"""Child tasks beside the caller's own: each may be cancelled for itself, and none outlives what it runs beside."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate.deadline import on_asyncio

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import TaskGroup

Work = Callable[[], Coroutine[Any, Any, None]]


def open_children() -> Children:
    """Make what owns child tasks, under the loop that runs."""
    return _OnAsyncio() if on_asyncio() else _InGroup()


class Children(ABC):
    """Something done in the caller's task, and child tasks beside it.

    What one of them raises cancels all others, and comes out of `run` as it is.

    Attributes:
        own: The scope of what is done in the caller's task.
        cancelled: All was cancelled, by a failure or from outside.
    """

    def __init__(self) -> None:
        self.own = anyio.CancelScope()
        self.cancelled = False
        # Lists, for they are short, and empty sets take four times as much memory.
        self._waited: list[CancelScope] = []
        self._idle: list[CancelScope] = []
        self._own_over = False
        self._failure: BaseException | None = None

    @abstractmethod
    async def run(self, work: Work) -> None:
        """Do something in this task, and wait for all that was started beside it.

        Raises:
            Exception: The first that any of them raised.
        """

    def start(self, work: Work, *, idle: bool = False) -> CancelScope:
        """Start a child, while `run` runs, and return its scope.

        Args:
            work: What it does.
            idle: Nothing waits for it: where nothing else is left it is cancelled.
        """
        scope = anyio.CancelScope()
        if self.cancelled:
            scope.cancel()
        (self._idle if idle else self._waited).append(scope)
        self._spawn(self._child(work, scope))
        return scope

    @abstractmethod
    def listen(self, work: Work) -> None:
        """Start a child that nothing waits for until it calls `stay`. There is one."""

    @abstractmethod
    def stay(self) -> None:
        """Have what listens waited for from now on."""

    def fail(self, exc: BaseException) -> None:
        """Cancel all, for something that one of them raised."""
        self._failure = self._failure or exc
        self.cancel()

    def cancel(self) -> None:
        """Cancel all."""
        self.cancelled = True
        for scope in (self.own, *self._waited):
            scope.cancel()
        self._cancel_idle()

    @abstractmethod
    def _spawn(self, child: Coroutine[Any, Any, None]) -> None: ...

    async def _in_own(self, work: Work) -> None:
        try:
            with self.own:
                await work()
        except Exception as exc:
            self.fail(exc)
        self._own_over = True
        self._settle()

    async def _child(self, work: Work, scope: CancelScope) -> None:
        try:
            with scope:
                await work()
        except Exception as exc:
            self.fail(exc)
        # By then what listens may have moved from one to the other.
        (self._idle if scope in self._idle else self._waited).remove(scope)
        self._settle()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _settle(self) -> None:
        if self._own_over and not self._waited:
            self._cancel_idle()

    def _cancel_idle(self) -> None:
        for scope in self._idle:
            scope.cancel()


class _InGroup(Children):
    """Children in a task group of anyio's."""

    _group: TaskGroup
    _listening: CancelScope

    def listen(self, work: Work) -> None:
        self._listening = self.start(work, idle=True)

    def stay(self) -> None:
        self._idle.remove(self._listening)
        self._waited.append(self._listening)

    async def run(self, work: Work) -> None:
        async with anyio.create_task_group() as self._group:
            await self._in_own(work)
        self._raise_failure()

    def _spawn(self, child: Coroutine[Any, Any, None]) -> None:
        self._group.start_soon(_awaited, child)


class _OnAsyncio(Children):
    """Children in plain tasks, each with a scope of anyio's: its task groups cost several times as much.

    What listens has no scope. It waits for a server, and is cancelled as servers expect it, which costs less still.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._none_left: asyncio.Future[None] | None = None
        self._to_listen: asyncio.Handle | None = None
        self._listener: asyncio.Task[None] | None = None

    def listen(self, work: Work) -> None:
        # In the next turn of the loop, so that what is over by then pays nothing for it.
        self._to_listen = self._loop.call_soon(self._listen, work)

    def stay(self) -> None:
        self._listener = None

    async def run(self, work: Work) -> None:
        try:
            await self._in_own(work)
            while self._tasks:
                await self._until_none_left()
        finally:
            if self._tasks or not self._own_over:
                self.cancel()
                await self._outlast()
        self._raise_failure()

    async def _outlast(self) -> None:
        """Wait for what puts off its end, however often the caller is cancelled meanwhile."""
        with anyio.CancelScope(shield=True):
            while self._tasks:
                with suppress(asyncio.CancelledError):
                    await self._until_none_left()

    async def _until_none_left(self) -> None:
        self._none_left = self._loop.create_future()
        await self._none_left

    def _spawn(self, child: Coroutine[Any, Any, None]) -> None:
        self._task(child)

    def _task(self, child: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not as the loop makes tasks: it may have been told to run their first step at once, before all is noted.
        task = asyncio.Task(child, loop=self._loop)
        self._tasks.append(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if task.cancelled():
            # Not through its scope, but by someone else: what it was there for is left undone.
            self.cancel()
        elif (exc := task.exception()) is not None:
            self.fail(exc)
        if not self._tasks and self._none_left is not None and not self._none_left.done():
            self._none_left.set_result(None)

    def _listen(self, work: Work) -> None:
        self._to_listen = None
        self._listener = self._task(work())

    def _cancel_idle(self) -> None:
        super()._cancel_idle()
        if self._to_listen is not None:
            self._to_listen.cancel()
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # it refers back here: nothing is to wait for the garbage collector


async def _awaited(child: Coroutine[Any, Any, None]) -> None:
    await child
