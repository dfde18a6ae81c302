"""The app at work: in the caller's task, with what runs beside it in child tasks, and an end that can come early."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from asgi_llm_gate.body import next_message
from asgi_llm_gate.children import open_children
from asgi_llm_gate.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from starlette.types import Message, Receive

    from asgi_llm_gate.children import Work


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
        self._children = open_children()
        self._meanwhile: anyio.CancelScope | None = None
        self._done = Signal()
        self._answered = False
        self.ended = False

    async def run(self, app: Work, beside: Iterable[Work]) -> None:
        """Run the app, and other things beside it, until all of them are through.

        Raises:
            Exception: What the app raised, unless the run had been ended by then, or what something beside it raised;
                everything else is cancelled first.
        """
        await self._children.run(partial(self._work, app, beside))

    async def _work(self, app: Work, beside: Iterable[Work]) -> None:
        for task in beside:
            self.start(task)
        self._children.listen(self._watch_client)
        try:
            await app()
        except Exception:
            if not self.ended:
                raise
        finally:
            self._done.set()

    def start(self, task: Work) -> anyio.CancelScope:
        """Run one more thing beside the app, in a scope that is returned."""
        return self._children.start(task)

    def meanwhile(self, task: Work) -> None:
        """Run something that goes on until the response is complete, and for which nothing waits. There is one."""
        self._meanwhile = self._children.start(task, idle=True)

    def end(self) -> None:
        """Tell the app that its client is gone, give it its grace, and cancel it; without waiting for that."""
        if not self.ended:
            self.ended = True
            self._receive.tell_disconnect()
            self._children.start(self._stop)

    def answered(self) -> None:
        """Pay no more attention to the client: the response is complete, and the app may finish in peace."""
        self._answered = True
        if self._meanwhile is not None:
            self._meanwhile.cancel()

    def delivered(self) -> None:
        """Tell the app what servers say once a response is sent: a disconnect."""
        self._receive.tell_disconnect()

    async def _watch_client(self) -> None:
        gone = await self._receive.watch()
        if gone and not (self.ended or self._answered or self._children.cancelled):
            self._children.stay()
            self.end()
            await self._gone()

    async def _stop(self) -> None:
        # A turn of the loop for the app to hear of it, and one to act on it, however short its grace.
        await cancel_shielded_checkpoint()
        await cancel_shielded_checkpoint()
        with anyio.move_on_after(self._grace):
            await self._done.wait()
        self._children.own.cancel()
