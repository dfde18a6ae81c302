"""A time limit holds on anything that can be awaited, and is no obstacle to it."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from asgi_llm_gate.deadline import DeadlineError, StrayCancellationError, within

pytestmark = pytest.mark.anyio

NEVER = 3600.0
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Wrapped:
    """Something awaitable that is no coroutine."""

    def __init__(self, function):
        self.function = function

    def __await__(self):
        return self.function().__await__()


FORMS = pytest.mark.parametrize("form", [lambda function: function(), Wrapped], ids=["coroutine", "awaitable"])


@FORMS
async def test_a_result_is_handed_on(form):
    async def at_once():
        return "result"

    async def later():
        await checkpoint()
        await checkpoint()
        return "result"

    assert await within(NEVER, form(at_once)) == "result"
    assert await within(NEVER, form(later)) == "result"


@FORMS
@pytest.mark.parametrize("kind", [ValueError, TimeoutError, StopAsyncIteration, KeyError])
async def test_an_error_is_handed_on(form, kind):
    """Also the hook's own TimeoutError, which is not the limit's."""

    async def at_once():
        raise kind("own")

    async def later():
        await checkpoint()
        raise kind("own")

    for function in (at_once, later):
        with pytest.raises(kind, match="own") as caught:
            await within(NEVER, form(function))
        assert type(caught.value) is kind


@FORMS
async def test_beyond_the_limit_it_is_cancelled(form):
    ended = []

    async def hangs():
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    with pytest.raises(DeadlineError):
        await within(0.001, form(hangs))
    assert ended == [True]


@FORMS
async def test_an_error_raised_on_the_way_out_is_handed_on(form):
    async def hangs():
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await within(0.001, form(hangs))


async def test_scopes_opened_before_and_closed_after_the_first_suspension():
    """The coroutine's own scopes nest as it pleases, also over the moment in which the timer is set."""

    async def nested():
        with anyio.move_on_after(NEVER):
            async with anyio.create_task_group() as group:
                group.start_soon(checkpoint)
                await checkpoint()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        await checkpoint()
        return scope.cancelled_caught

    assert await within(NEVER, nested()) is True


async def test_a_limit_within_the_coroutine_runs_out_first():
    async def inner():
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        await checkpoint()
        return scope.cancelled_caught

    assert await within(NEVER, inner()) is True


async def test_limits_nest():
    with pytest.raises(DeadlineError):
        await within(NEVER, within(0.001, anyio.sleep_forever()))
    with pytest.raises(DeadlineError):
        await within(0.001, within(NEVER, anyio.sleep_forever()))


@FORMS
async def test_cancellation_from_outside_goes_through(form):
    ended = []

    async def hangs():
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            ended.append("cancelled")
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(within, NEVER, form(hangs))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert ended == ["cancelled"]


async def test_a_shielded_end_is_awaited():
    ended = []

    async def cleans_up():
        try:
            await anyio.sleep_forever()
        finally:
            await cancel_shielded_checkpoint()
            ended.append(True)

    with pytest.raises(DeadlineError):
        await within(0.001, cleans_up())
    assert ended == [True]


@on_asyncio
async def test_a_future_can_be_awaited():
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    assert await within(NEVER, future) == 1
    with pytest.raises(DeadlineError):
        await within(0.001, asyncio.get_running_loop().create_future())


@on_asyncio
async def test_the_coroutine_runs_in_the_callers_task():
    async def whose():
        before = asyncio.current_task()
        await checkpoint()
        return before, asyncio.current_task()

    task = asyncio.current_task()
    assert await within(NEVER, whose()) == (task, task)
    assert task.cancelling() == 0


@on_asyncio
async def test_a_coroutine_that_is_given_up_is_closed():
    """When the awaiting coroutine is closed in mid-air, so is the one it awaits."""
    ended = []

    async def hangs():
        try:
            await asyncio.sleep(NEVER)
        finally:
            ended.append(True)

    waiting = within(NEVER, hangs())
    waiting.send(None)
    waiting.close()
    assert ended == [True]


def test_a_deadline_is_a_timeout():
    assert issubclass(DeadlineError, TimeoutError)


@on_asyncio
async def test_a_cancellation_that_nobody_asked_for_is_an_error():
    """It comes from another task that the coroutine waits for."""

    async def waits_for_another():
        task = asyncio.ensure_future(asyncio.sleep(NEVER))
        task.cancel()
        await task

    with pytest.raises(StrayCancellationError):
        await within(NEVER, waits_for_another())


@on_asyncio
async def test_a_cancellation_at_once_goes_through_if_it_was_asked_for():
    async def cancels_its_own_task():
        asyncio.current_task().cancel()
        raise asyncio.CancelledError

    async def call():
        await within(NEVER, cancels_its_own_task())

    task = asyncio.ensure_future(call())
    await asyncio.wait([task])
    assert task.cancelled()
