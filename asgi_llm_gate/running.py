"""The app at work: in the caller's task, with what runs beside it in child tasks, and an end that can come early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from asgi_llm_gate.body import next_message
from asgi_llm_gate.deadline import on_asyncio
from asgi_llm_gate.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anyio.abc import TaskGroup
    from starlette.types import Message, Receive


Work = Callable[[], Coroutine[Any, Any, None]]


class WatchedReceive:
    """The app's `receive` while the gate itself watches for the client's disconnect.

    Only one task at a time may read from a server. That is `watch`; the app is given the body, and then waits for what
    `watch` sees or the gate tells.
    """

    def __init__(self, body: Iterator[Message], receive: Receive) -> None:
        self._body = body
        self._receive = receive
        self._disconnected = Signal()
        self._error: Exception | None = None

    async def __call__(self) -> Message:
        """Return the body's messages, then a disconnect when there is one; raise what the server's `receive` raised."""
        message = None if self._disconnected.is_set else next_message(self._body)
        if message is not None:
            return message
        await self._disconnected.wait()
        if self._error is not None:
            raise self._error
        return {"type": "http.disconnect"}

    async def watch(self) -> bool:
        """Wait for what the server says next; True if it is that the client has gone.

        After a body nothing else can come. Where something does, as from a middleware that gives the same body again
        and again, asking on would never end.
        """
        try:
            gone: bool = (await self._receive())["type"] == "http.disconnect"
        except Exception as exc:
            self._error = exc
            self._disconnected.set()
            return False
        if gone:
            self._disconnected.set()
        return gone

    def tell_disconnect(self) -> None:
        """Answer this and every later call of the app with a disconnect."""
        self._disconnected.set()


class Running:
    """One run of the app.

    Args:
        receive: The app's `receive`.
        grace: Seconds the app has between the disconnect it is told and its cancellation.
        gone: Is told that the client went away.

    Attributes:
        ended: The gate has ended the run early: what the app still sends or raises is no one's business.
    """

    def __init__(self, receive: WatchedReceive, grace: float, gone: Work) -> None:
        self._receive = receive
        self._grace = grace
        self._gone = gone
        self._app = anyio.CancelScope()
        self._meanwhile: anyio.CancelScope | None = None
        self._done = Signal()
        self._group: TaskGroup | None = None
        self._others = 0
        self._failure: Exception | None = None
        self._answered = False
        self._parting = False
        self.ended = False

    async def run(self, app: Work, beside: Iterable[Work]) -> None:
        """Run the app, and other things beside it, until all of them are through.

        Raises:
            Exception: What the app raised, unless the run had been ended by then, or what something beside it raised;
                everything else is cancelled first.
        """
        if on_asyncio():
            await self._beside_a_task(self._work(app, beside))
        else:
            await self._in_a_group(self._work(app, beside))
        if self._failure is not None:
            raise self._failure

    async def _beside_a_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Watch the client in a task of asyncio's own: to start and cancel one of anyio's costs as much as all else."""
        watcher = asyncio.get_running_loop().create_task(self._watch_client())
        try:
            await work
        finally:
            if self._parting:
                with anyio.CancelScope(shield=True):
                    await watcher
            else:
                watcher.cancel()
                await asyncio.wait([watcher])

    async def _in_a_group(self, work: Coroutine[Any, Any, None]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_client)
            await work
            if not self._parting:
                group.cancel_scope.cancel()

    async def _work(self, app: Work, beside: Iterable[Work]) -> None:
        async with anyio.create_task_group() as self._group:
            for task in beside:
                self.start(task)
            with self._app:
                try:
                    await app()
                except Exception as exc:
                    if not self.ended:
                        self._fail(exc)
            self._done.set()
            self._look_away()

    def start(self, task: Work) -> None:
        """Run one more thing beside the app."""
        assert self._group is not None  # noqa: S101  # only called while the app runs
        self._others += 1
        self._group.start_soon(self._beside, task)

    def meanwhile(self, task: Work) -> None:
        """Run something that goes on until the response is complete, and for which nothing waits. There is one."""
        assert self._group is not None  # noqa: S101  # only called while the app runs
        self._meanwhile = anyio.CancelScope()
        self._group.start_soon(self._in_the_meantime, task, self._meanwhile)

    def end(self) -> None:
        """Tell the app that its client is gone, give it its grace, and cancel it; without waiting for that."""
        if not self.ended:
            self.ended = True
            self._receive.tell_disconnect()
            assert self._group is not None  # noqa: S101  # only called while the app runs
            self._group.start_soon(self._stop)

    def answered(self) -> None:
        """Pay no more attention to the client: the response is complete, and the app may finish in peace."""
        self._answered = True
        if self._meanwhile is not None:
            self._meanwhile.cancel()

    def delivered(self) -> None:
        """Tell the app what servers say once a response is sent: a disconnect."""
        self._receive.tell_disconnect()

    async def _beside(self, task: Work) -> None:
        """Run a task, so that what it raises comes out of `run` as it is and not in a group."""
        try:
            await task()
        except Exception as exc:
            self._fail(exc)
        self._others -= 1
        self._look_away()

    def _look_away(self) -> None:
        """Stop what goes on in the meantime where nothing is left to wait for."""
        if self._meanwhile is not None and self._done.is_set and not self._others:
            self._meanwhile.cancel()

    async def _in_the_meantime(self, task: Work, scope: anyio.CancelScope) -> None:
        with scope:
            await task()

    def _fail(self, exc: Exception) -> None:
        assert self._group is not None  # noqa: S101  # only called while the app runs
        self.ended = True
        self._failure = self._failure or exc
        self._group.cancel_scope.cancel()

    async def _watch_client(self) -> None:
        gone = await self._receive.watch()
        if gone and not self.ended and not self._answered:
            self._parting = True
            self.end()
            await self._gone()

    async def _stop(self) -> None:
        # A turn of the loop for the app to hear of it, and one to act on it, however short its grace.
        await cancel_shielded_checkpoint()
        await cancel_shielded_checkpoint()
        with anyio.move_on_after(self._grace):
            await self._done.wait()
        self._app.cancel()
