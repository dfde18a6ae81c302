"""A server's lifespan: what the callbacks and the cache hold is closed once the app has shut down."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate.deadline import within
from asgi_llm_gate.hooks import overrides

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from asgi_llm_gate.plan import Plan

logger = logging.getLogger("asgi_llm_gate")


class Lifespan:
    """The lifespan of a gate and its app.

    Args:
        plan: The app, the callbacks that may have an ``aclose``, and the cache.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        each = {id(callback): callback for callback in plan.settings.callbacks}
        self._closable: list[Any] = [callback for callback in each.values() if overrides(callback, "aclose")]

    def __bool__(self) -> bool:
        """There is something to close."""
        return bool(self._closable) or self._plan.cache.redis_cache is not None

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's lifespan; before the server hears that the shutdown is complete, the callbacks are closed.

        An app that knows no lifespan, and leaves before it has asked for anything, has one here all the same. Where
        the cache can't work, there is no start.
        """
        redis_cache = self._plan.cache.redis_cache
        if redis_cache is not None and (complaint := redis_cache.complaint()):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": complaint})
            return
        told: list[str] = []
        open_ = True

        async def app_receive() -> Message:
            message = await receive()
            told.append(message["type"])
            return message

        async def app_send(message: Message) -> None:
            nonlocal open_
            if open_ and message["type"].startswith("lifespan.shutdown."):
                open_ = False
                await self._close()
            await send(message)

        try:
            await self._plan.app(scope, app_receive, app_send)
        except Exception as exc:
            if told:
                raise
            logger.debug("The app has no lifespan: %r", exc)
        finally:
            if open_ and "lifespan.shutdown" in told:
                await self._close()
        if not told:
            await self._alone(receive, send)

    async def _alone(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _close(self) -> None:
        """Close the callbacks, all at once, when the log hooks have been told of every call; then the cache."""
        limit = self._plan.settings.hook_timeout
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(limit):
                await self._plan.pending.drained()
            async with anyio.create_task_group() as group:
                for callback in self._closable:
                    group.start_soon(_closed, callback, getattr(callback, "hook_timeout", None) or limit)
            await _closed(self._plan.cache, limit)


async def _closed(callback: Any, limit: float) -> None:
    try:
        result = callback.aclose()
        if isinstance(result, Awaitable):
            await within(limit, result)
    except Exception as exc:
        logger.error("%s.aclose failed", type(callback).__name__, exc_info=exc)
