"""Moderation hooks beside the call: nothing goes out before their verdict, and a bad one stops everything at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate.hooks import Hook, refuse_if_asked
from asgi_llm_gate.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.types import Message, Send

    from asgi_llm_gate.children import Work
    from asgi_llm_gate.deadline import Limiter

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
        self._settled = Signal()

    async def __call__(self, message: Message) -> None:
        """Take one message: hold it, pass it on or drop it."""
        if self._state in {"holding", "opening"}:
            self._held.append(message)
            self._size += len(message.get("body", b"")) + _MESSAGE_COST
            if self._size > self._max_bytes:
                await self._settled.wait()
        elif self._state == "open":
            await self._send(message)

    @property
    def holds(self) -> bool:
        """Nothing has been let go yet."""
        return self._state == "holding"

    async def open(self) -> None:
        """Send what was held, in order, and pass on what follows; once closed, nothing."""
        if not self.holds:
            return
        self._state = "opening"
        while self._held:
            await self._send(self._held.pop(0))
        if self._state == "opening":
            self._state = "open"
            self._settled.set()

    def close(self) -> None:
        """Drop what was held and what follows."""
        self._held.clear()
        self._state = "closed"
        self._settled.set()


class Moderation:
    """One call's moderation hooks, each in a task of its own.

    Args:
        hooks: The hooks.
        arguments: What they are called with.
        limit: What holds each to its time limit.
        passed: Is told that all of them are content.
        refused: Is told of the first that is not; it answers the client.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        arguments: Mapping[str, Any],
        limit: Limiter,
        *,
        passed: Callable[[], Awaitable[None]],
        refused: Callable[[Exception], Awaitable[None]],
    ) -> None:
        self._hooks = hooks
        self._arguments = arguments
        self._limit = limit
        self._passed = passed
        self._refused = refused
        self._at_work: dict[Hook, anyio.CancelScope] = {}
        self._settled = Signal()
        self._good = False

    def begin(self, start: Callable[[Work], anyio.CancelScope]) -> None:
        """Have each hook judge in a task that `start` makes, which returns its scope."""
        for hook in self._hooks:
            self._at_work[hook] = start(partial(self._judge, hook))

    async def verdict(self) -> bool:
        """Wait for the verdict; True if the call may go on."""
        await self._settled.wait()
        return self._good

    def cancel(self) -> None:
        """Stop all hooks: the call has ended otherwise."""
        self._settled.set()
        for scope in self._at_work.values():
            scope.cancel()

    async def _judge(self, hook: Hook) -> None:
        verdict: Exception | None = None
        try:
            await hook.call({**self._arguments}, refuse_if_asked, self._limit)
        except Exception as exc:
            verdict = exc
        # What follows is the call's answer, which may go out for longer than any hook is at work.
        del self._at_work[hook]
        if self._settled.is_set:
            return
        if verdict is not None:
            self.cancel()
            await self._refused(verdict)
            return
        if not self._at_work:
            await self._passed()
            self._good = True
            self._settled.set()


async def moderate(hooks: Sequence[Hook], **arguments: Any) -> None:
    """Ask all hooks at once where there is no call to run beside; raise the first refusal, and stop the others."""
    refusals: list[Exception] = []

    async def ask(hook: Hook) -> None:
        try:
            await hook(refuse_if_asked, **arguments)
        except Exception as exc:
            refusals.append(exc)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for hook in hooks:
            group.start_soon(ask, hook)
    if refusals:
        raise refusals[0]
