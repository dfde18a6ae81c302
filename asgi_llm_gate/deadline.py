"""A time limit that costs nothing until the awaited thing suspends."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


class DeadlineError(TimeoutError):
    """The time limit ran out."""


class StrayCancellationError(Exception):
    """The awaited thing was cancelled though nobody cancelled who awaits it."""


def within(seconds: float, awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    """Await something for at most so many seconds; `DeadlineError` after that.

    Under asyncio a coroutine is stepped once before any timer is set: one that never suspends, as most hooks
    and most body reads, pays for none. `asyncio.timeout` may be entered then, inside whatever scopes the
    coroutine has opened meanwhile, because unlike anyio's and trio's scopes it needs no nesting order.

    Raises:
        StrayCancellationError: A cancellation came out that is none of the caller's: asyncio lets a task that was
            awaited and cancelled look as if the one awaiting it were cancelled.
    """
    return limiter(stepping=on_asyncio())(seconds, awaitable)


Limiter = Callable[[float, Awaitable[Any]], Coroutine[Any, Any, Any]]


def limiter(*, stepping: bool) -> Limiter:
    """Return `within` for a loop, so that not each await asks which loop it is: that may be a system call.

    Args:
        stepping: The loop is asyncio's.
    """
    return _stepped if stepping else _scoped


async def _scoped(seconds: float, awaitable: Awaitable[T]) -> T:
    with anyio.move_on_after(seconds):
        return await awaitable
    raise DeadlineError


async def _stepped(seconds: float, awaitable: Awaitable[T]) -> T:
    if not isinstance(awaitable, CoroutineType):
        return await _scoped(seconds, awaitable)
    try:
        try:
            pending = awaitable.send(None)
        except StopIteration as done:
            result: T = done.value
            return result
        return await _in_time(seconds, awaitable, pending)
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StrayCancellationError from exc


async def _in_time(seconds: float, coroutine: Coroutine[Any, Any, T], pending: Any) -> T:
    """Go on with a coroutine that has suspended."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await resume(coroutine, pending)
    except TimeoutError:
        if limit.expired():
            raise DeadlineError from None
        raise


def on_asyncio() -> bool:
    """Tell whether asyncio runs the current task."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@types.coroutine
def resume(coroutine: Coroutine[Any, Any, T], pending: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that was stepped once and then waits for ``pending``."""
    while True:
        try:
            try:
                value = yield pending
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as exc:
                pending = coroutine.throw(exc)
            else:
                pending = coroutine.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
