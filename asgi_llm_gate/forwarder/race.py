"""Work that is given up when an event comes first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from asgi_llm_gate.deadline import on_asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Step = Callable[[], Awaitable[None]]


async def unless(event: Step, work: Step) -> None:
    """Do work in this task, and cancel it when the event comes first.

    Raises:
        Exception: What either of the two raised, as it is and not in a group.
    """
    await (_beside_a_task if on_asyncio() else _in_a_group)(event, work)


async def _beside_a_task(event: Step, work: Step) -> None:
    # A task group costs four times as much, which shows in what a forwarded request costs.
    failures: list[Exception] = []

    async def watch() -> None:
        try:
            await event()
        except Exception as exc:
            failures.append(exc)
        scope.cancel()

    with anyio.CancelScope() as scope:
        watcher = asyncio.create_task(watch())
        try:
            await work()
        finally:
            # Nobody waits for it: what it awaits is cancelled at once, and it has no more to do.
            watcher.cancel()
    if failures:
        raise failures[0]


async def _in_a_group(event: Step, work: Step) -> None:
    failures: list[Exception] = []

    async def first(step: Step) -> None:
        try:
            await step()
        except Exception as exc:
            failures.append(exc)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(first, event)
        await first(work)
    if failures:
        raise failures[0]
