"""A server's lifespan: what callbacks hold is closed, whatever the app makes of it."""

from __future__ import annotations

import logging

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.pending import Pending

pytestmark = pytest.mark.anyio


class Held(CallHooks):
    """Holds something until it is closed."""

    def __init__(self, seen):
        self.seen = seen

    async def async_pre_call_hook(self, data):
        """Look on."""

    async def aclose(self):
        await checkpoint()
        self.seen.append("closed")


class App:
    """An app with a lifespan of its own."""

    def __init__(self, seen, last="complete"):
        self.seen = seen
        self.last = last

    async def __call__(self, scope, receive, send):
        self.seen.append((await receive())["type"])
        await send({"type": "lifespan.startup.complete"})
        self.seen.append((await receive())["type"])
        if self.last == "crash":
            raise RuntimeError("it crashed while it shut down")
        if self.last != "silence":
            await send({"type": f"lifespan.shutdown.{self.last}"})


async def unaware(scope, receive, send):
    """Is Django: it knows no lifespan."""
    raise ValueError("only HTTP")


async def idle(scope, receive, send):
    """Returns from whatever it does not know."""


async def broken(scope, receive, send):
    await receive()
    raise RuntimeError("it crashed while it started")


async def live(gate, seen):
    """Run a gate's lifespan as a server does."""
    to_app = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

    async def receive():
        return to_app.pop()

    async def send(message):
        seen.append(message["type"])

    with anyio.fail_after(5):
        await gate({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)


STARTED = ["lifespan.startup", "lifespan.startup.complete", "lifespan.shutdown"]


@pytest.mark.parametrize(
    ("last", "end"),
    {
        "complete": ["closed", "lifespan.shutdown.complete"],
        "failed": ["closed", "lifespan.shutdown.failed"],
        "silence": ["closed"],
    }.items(),
)
async def test_callbacks_are_closed_when_the_app_has_shut_down(last, end):
    """Once, and before the server hears of it."""
    seen = []
    held = Held(seen)
    await live(LLMGate(App(seen, last), callbacks=[held, held]), seen)
    assert seen == STARTED + end


async def test_callbacks_are_closed_when_the_app_crashes_in_its_shutdown():
    """What it raised is the server's to see."""
    seen = []
    with pytest.raises(RuntimeError, match="while it shut down"):
        await live(LLMGate(App(seen, "crash"), callbacks=[Held(seen)]), seen)
    assert seen == [*STARTED, "closed"]


async def test_a_start_that_fails_stays_one():
    """The gate does not take it for an app without a lifespan."""
    seen = []
    with pytest.raises(RuntimeError, match="while it started"):
        await live(LLMGate(broken, callbacks=[Held(seen)]), seen)
    assert seen == []


@pytest.mark.parametrize("app", [unaware, idle])
async def test_an_app_without_a_lifespan_has_one_where_there_is_something_to_close(app):
    seen = []
    await live(LLMGate(app, callbacks=[Held(seen)]), seen)
    assert seen == ["lifespan.startup.complete", "closed", "lifespan.shutdown.complete"]


async def test_without_anything_to_close_the_lifespan_is_the_apps():
    class Plain(CallHooks):
        async def async_pre_call_hook(self, data):
            """Look on."""

    with pytest.raises(ValueError, match="only HTTP"):
        await live(LLMGate(unaware, callbacks=[Plain()]), [])


async def test_gates_that_nest_close_each_their_own():
    seen = []
    inner = LLMGate(App(seen), callbacks=[Held(seen)])
    await live(LLMGate(inner, callbacks=[Held(seen)]), seen)
    assert seen == [*STARTED, "closed", "closed", "lifespan.shutdown.complete"]


@pytest.mark.virtual_time
async def test_one_that_fails_or_hangs_does_not_keep_the_others(caplog):
    """Each has its hooks' time limit, and what became of it is logged."""
    caplog.set_level(logging.ERROR, logger="asgi_llm_gate")
    seen = []

    class Crashing(Held):
        async def aclose(self):
            raise OSError("no")

    class Hanging(Held):
        hook_timeout = 2

        async def aclose(self):
            await anyio.sleep_forever()

    class Plain(Held):
        def aclose(self):
            seen.append("closed at once")

    callbacks = [kind(seen) for kind in (Crashing, Hanging, Plain, Held)]
    start = anyio.current_time()
    await live(LLMGate(idle, callbacks=callbacks), seen)
    assert seen == ["lifespan.startup.complete", "closed at once", "closed", "lifespan.shutdown.complete"]
    assert 2 <= anyio.current_time() - start < 3
    assert sorted(caplog.messages) == ["Crashing.aclose failed", "Hanging.aclose failed"]


@pytest.mark.virtual_time
async def test_log_events_on_their_way_are_waited_for(caplog):
    """No longer than a hook may take."""
    seen = []
    gate = LLMGate(idle, callbacks=[Held(seen)], hook_timeout=9)
    gate._plan.pending.add(1)
    start = anyio.current_time()

    async def tell():
        await anyio.sleep(4)
        seen.append("told")
        gate._plan.pending.discard(1)

    async with anyio.create_task_group() as group:
        group.start_soon(tell)
        await live(gate, seen)
    assert seen == ["lifespan.startup.complete", "told", "closed", "lifespan.shutdown.complete"]
    gate._plan.pending.add(2)
    await live(gate, seen)
    assert 13 <= anyio.current_time() - start < 14


async def test_what_is_added_while_others_are_discarded_is_waited_for_too():
    """One event of a call follows on the other."""
    pending = Pending()
    pending.add(1)
    async with anyio.create_task_group() as group:
        group.start_soon(pending.drained)
        await anyio.wait_all_tasks_blocked()
        pending.discard(1)
        pending.add(2)
        await anyio.wait_all_tasks_blocked()
        assert group.cancel_scope.cancel_called is False
        pending.discard(2)
