"""A signal happens once, for all who wait for it and all who come later."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_llm_gate.signals import Signal

pytestmark = pytest.mark.anyio


async def test_all_who_wait_are_woken():
    signal, woken = Signal(), []

    async def waits(name):
        await signal.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        for name in "ab":
            group.start_soon(waits, name)
        await anyio.wait_all_tasks_blocked()
        assert (signal.is_set, woken) == (False, [])
        signal.set()
    assert (signal.is_set, sorted(woken)) == (True, ["a", "b"])


@pytest.mark.parametrize("times", [1, 3])
async def test_who_comes_later_waits_for_a_turn_of_the_loop_alone(times):
    """One that asks again and again lets others go on."""
    signal, turns = Signal(), 0
    signal.set()

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        for _ in range(times):
            await signal.wait()
        group.cancel_scope.cancel()
    assert turns > 0
