"""Moderation hooks beside the call: nothing goes out before their verdict, and a bad one stops everything at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate.body import Replay
from asgi_llm_gate.hooks import Hook, refuse_if_asked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import TaskGroup
    from starlette.types import Message, Receive, Send


# What a held message takes beside its body, in bytes.
_MESSAGE_COST = 256


class Hold:
    """A `send` that keeps messages back until it is opened.

    Beyond ``max_bytes`` the sender waits, so that back-pressure reaches the model. Closed, it drops everything.
    """

    def __init__(self, send: Send, max_bytes: int) -> None:
        self._send = send
        self._max_bytes = max_bytes
        self._held: list[Message] = []
        self._size = 0
        self._state = "holding"
        self._settled = anyio.Event()

    async def __call__(self, message: Message) -> None:
        """Take one message: hold it, pass it on or drop it."""
        if self._state == "holding":
            self._held.append(message)
            self._size += len(message.get("body", b"")) + _MESSAGE_COST
            if self._size > self._max_bytes:
                await self._settled.wait()
        elif self._state == "open":
            await self._send(message)

    async def open(self) -> None:
        """Send what was held, in order, and pass on what follows."""
        while self._held:
            await self._send(self._held.pop(0))
        self._state = "open"
        self._settled.set()

    def close(self) -> None:
        """Drop what was held and what follows."""
        self._held.clear()
        self._state = "closed"
        self._settled.set()


class TellableReplay(Replay):
    """A replay whose app can be told that its client is gone, also while it waits in `receive`."""

    __slots__ = ("_pending",)

    def __init__(self, body: bytes, receive: Receive) -> None:
        super().__init__(body, receive)
        self._pending: anyio.CancelScope | None = None

    def tell_disconnect(self) -> None:
        """Answer this and every later call with ``http.disconnect``."""
        self._gone = True
        if self._pending is not None:
            self._pending.cancel()

    async def _next(self) -> Message:
        with anyio.CancelScope() as self._pending:
            return await self._receive()
        return {"type": "http.disconnect"}


class Moderation:
    """One call's moderation: the app runs in the caller's task, each hook in a child task beside it.

    Args:
        hooks: The moderation hooks.
        arguments: What they are called with.
        hold: Keeps the app's messages.
        replay: Tells the app of an end.
        refuse: Answers the client in place of the app.
        grace: Seconds the app has between the disconnect it is told and its cancellation.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        arguments: dict[str, Any],
        *,
        hold: Hold,
        replay: TellableReplay,
        refuse: Callable[[Exception], Awaitable[None]],
        grace: float,
    ) -> None:
        self._hooks = hooks
        self._arguments = arguments
        self._hold = hold
        self._replay = replay
        self._refuse = refuse
        self._grace = grace
        self._waiting = len(hooks)
        self._scopes = [anyio.CancelScope() for _ in hooks]
        self._app_scope = anyio.CancelScope()
        self._app_done = anyio.Event()
        self._settled = anyio.Event()
        self.refused = False

    async def run(self, app: Callable[[], Awaitable[None]]) -> None:
        """Run the app and the hooks to their end.

        Raises:
            Exception: What the app raised, unless the call had been refused by then.
        """
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            for hook, scope in zip(self._hooks, self._scopes, strict=True):
                group.start_soon(self._judge, hook, scope, group)
            with self._app_scope:
                try:
                    await app()
                except Exception as exc:
                    failure = exc
            self._app_done.set()
            if failure is not None and not self.refused:
                group.cancel_scope.cancel()
        if failure is not None and not self.refused:
            raise failure

    async def verdict(self) -> bool:
        """Wait for the hooks; True if the call may go on."""
        await self._settled.wait()
        return not self.refused

    async def _judge(self, hook: Hook, scope: anyio.CancelScope, group: TaskGroup) -> None:
        with scope:
            try:
                await hook(refuse_if_asked, **self._arguments)
            except Exception as exc:
                await self._condemn(exc, scope, group)
                return
            self._waiting -= 1
            if not self._waiting:
                await self._hold.open()
                self._settled.set()

    async def _condemn(self, exc: Exception, own: anyio.CancelScope, group: TaskGroup) -> None:
        if self.refused:
            return
        self.refused = True
        self._settled.set()
        self._hold.close()
        for scope in self._scopes:
            if scope is not own:
                scope.cancel()
        group.start_soon(self._end_app)
        await self._refuse(exc)

    async def _end_app(self) -> None:
        self._replay.tell_disconnect()
        with anyio.move_on_after(self._grace):
            await self._app_done.wait()
        self._app_scope.cancel()
