"""Waiting for something only as long as the client is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from asgi_llm_gate.deadline import resume

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

T = TypeVar("T")


class DisconnectedError(Exception):
    """The client has gone."""


async def while_connected(receive: Receive, coroutine: Coroutine[Any, Any, T], *, stepping: bool) -> T:
    """Await a coroutine, or cancel it when the client goes, of which `DisconnectedError` tells.

    The body must have been read: nothing but a disconnect is to come. Under asyncio nobody watches until the coroutine
    suspends, so that one that never does pays for nothing.

    Args:
        receive: The server's, which nobody else may ask meanwhile.
        coroutine: What to await.
        stepping: The loop is asyncio's.
    """
    if not stepping:
        return await _in_a_group(receive, coroutine)
    try:
        pending = coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return await _beside_a_task(receive, coroutine, pending)


async def _beside_a_task(receive: Receive, coroutine: Coroutine[Any, Any, T], pending: Any) -> T:
    """Go on with a coroutine that has suspended, inside whatever scopes it has opened, as `asyncio.timeout` does."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a coroutine is running
    cancelled = task.cancelling()
    gone = False

    async def watch() -> None:
        nonlocal gone
        gone = await _disconnects(receive)
        if gone:
            task.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        return await resume(coroutine, pending)
    except asyncio.CancelledError:
        if gone and task.uncancel() <= cancelled:
            raise DisconnectedError from None
        raise
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


async def _in_a_group(receive: Receive, coroutine: Coroutine[Any, Any, T]) -> T:
    gone = False

    async def watch() -> None:
        nonlocal gone
        gone = await _disconnects(receive)
        if gone:
            group.cancel_scope.cancel()

    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            result = await coroutine
        except Exception as exc:
            failure = exc
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if gone:
        raise DisconnectedError
    return result


async def _disconnects(receive: Receive) -> bool:
    """Wait for what comes after a body; what is no disconnect, or is an error, will be met again."""
    try:
        return bool((await receive())["type"] == "http.disconnect")
    except Exception:
        return False
