"""The app at work: what its `receive` says, how it is told, given time and cancelled, and what ends with it."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from asgi_llm_gate.body import whole_body
from asgi_llm_gate.running import Running, WatchedReceive
from tests.actors import EVER, tasks_living

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

DISCONNECT = {"type": "http.disconnect"}
BODY = {"type": "http.request", "body": b"{}", "more_body": False}


class Server:
    """A server's `receive`: waits until a test has it say something or raise something."""

    def __init__(self):
        self.says = None
        self.spoke = anyio.Event()
        self.asked = 0

    def say(self, message):
        self.says = message
        self.spoke.set()

    async def receive(self):
        self.asked += 1
        await self.spoke.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Run:
    """A run of an app, and what was noted of it."""

    def __init__(self, grace=EVER):
        self.server = Server()
        self.receive = WatchedReceive(whole_body(b"{}"), self.server.receive)
        self.running = Running(self.receive, grace, self._gone)
        self.log = []

    async def _gone(self):
        self.log.append("gone")

    async def of(self, app, *beside):
        with anyio.fail_after(20):
            await self.running.run(partial(self._noted, app), beside)
        self.log.append("over")

    async def _noted(self, app):
        try:
            await app(self)
        except anyio.get_cancelled_exc_class():
            self.log.append("app cancelled")
            raise
        self.log.append("app done")


async def returns(run):
    pass


async def sleeps(run):
    await anyio.sleep_forever()


async def listens(run):
    assert await run.receive() == BODY
    run.log.append((await run.receive())["type"])


async def raises(run):
    raise RuntimeError("boom")


async def test_the_body_comes_once_and_then_the_disconnect_as_often_as_it_is_asked_for():
    server = Server()
    receive = WatchedReceive(whole_body(b"{}"), server.receive)
    assert await receive() == BODY
    server.say(DISCONNECT)
    assert await receive.watch()
    assert [await receive() for _ in range(3)] == [DISCONNECT] * 3
    assert server.asked == 1


async def test_after_a_disconnect_there_is_no_body_either():
    receive = WatchedReceive(whole_body(b"{}"), Server().receive)
    receive.tell_disconnect()
    assert await receive() == DISCONNECT


async def test_what_the_servers_receive_raises_is_the_apps_to_see():
    server = Server()
    receive = WatchedReceive(whole_body(b"{}"), server.receive)
    server.say(OSError("broken"))
    assert not await receive.watch()
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            await receive()


async def test_a_server_that_repeats_the_body_is_asked_no_further():
    """Some middleware gives a body again and again; the app goes on waiting."""
    run = Run()
    run.server.say(BODY)
    release = anyio.Event()

    async def asks(run):
        assert await run.receive() == BODY
        async with anyio.create_task_group() as group:
            group.start_soon(run.receive)
            await anyio.wait_all_tasks_blocked()
            run.log.append("still waiting")
            group.cancel_scope.cancel()
        await release.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(run.of, asks)
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert (run.log, run.server.asked) == (["still waiting", "app done", "over"], 1)


async def test_a_run_ends_with_the_app_where_nothing_runs_beside_it():
    run = Run()
    before = tasks_living()
    await run.of(returns)
    await cancel_shielded_checkpoint()
    assert (run.log, tasks_living()) == (["app done", "over"], before)


async def test_a_run_waits_for_what_runs_beside_the_app():
    run, release = Run(), anyio.Event()

    async def beside():
        await release.wait()
        run.log.append("beside")

    async with anyio.create_task_group() as group:
        group.start_soon(run.of, returns, beside, beside)
        await anyio.wait_all_tasks_blocked()
        assert run.log == ["app done"]
        release.set()
    assert run.log == ["app done", "beside", "beside", "over"]


async def test_a_client_that_leaves_is_told_to_the_app_and_the_gate():
    run = Run()
    async with anyio.create_task_group() as group:
        group.start_soon(run.of, listens)
        await anyio.wait_all_tasks_blocked()
        run.server.say(DISCONNECT)
    assert sorted(run.log) == ["app done", "gone", "http.disconnect", "over"]
    assert run.running.ended


async def test_what_the_gate_does_about_a_client_that_left_is_not_cut_off_by_the_apps_end():
    run = Run()

    async def gone():
        for _ in range(20):
            await checkpoint()
        run.log.append("gone")

    run.running = Running(run.receive, EVER, gone)
    run.server.say(DISCONNECT)
    await run.of(listens)
    assert run.log[-2:] == ["gone", "over"]


async def test_nor_by_a_cancellation_from_outside():
    run, begun = Run(), anyio.Event()

    async def gone():
        with anyio.CancelScope(shield=True):
            begun.set()
            for _ in range(20):
                await checkpoint()
            run.log.append("gone")

    run.running = Running(run.receive, EVER, gone)
    run.server.say(DISCONNECT)
    async with anyio.create_task_group() as group:
        group.start_soon(run.of, sleeps)
        await begun.wait()
        group.cancel_scope.cancel()
    assert run.log == ["app cancelled", "gone"]


async def test_a_client_that_leaves_after_the_app_is_noticed_while_something_runs_on():
    run = Run()
    stopped = anyio.Event()

    async def gone():
        run.log.append("gone")
        stopped.set()

    run.running = Running(run.receive, EVER, gone)
    async with anyio.create_task_group() as group:
        group.start_soon(run.of, returns, stopped.wait)
        await anyio.wait_all_tasks_blocked()
        run.server.say(DISCONNECT)
    assert run.log == ["app done", "gone", "over"]


async def test_after_the_answer_nobody_looks_for_the_client():
    run, release = Run(), anyio.Event()

    async def answers(run):
        run.running.answered()
        run.running.delivered()
        await release.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(run.of, answers)
        await anyio.wait_all_tasks_blocked()
        run.server.say(DISCONNECT)
        await anyio.wait_all_tasks_blocked()
        assert run.log == []
        release.set()
    assert run.log == ["app done", "over"]


async def test_the_app_hears_of_an_answers_end_only_once_it_is_delivered():
    run = Run()

    async def answers(run):
        await run.receive()
        run.running.answered()
        async with anyio.create_task_group() as group:
            group.start_soon(listen, run)
            await anyio.wait_all_tasks_blocked()
            run.log.append("delivered")
            run.running.delivered()

    async def listen(run):
        run.log.append((await run.receive())["type"])

    await run.of(answers)
    assert run.log == ["delivered", "http.disconnect", "app done", "over"]


async def test_an_app_that_does_not_hear_is_cancelled_after_its_grace():
    run = Run(grace=0)

    async def ends():
        run.running.end()
        run.running.end()

    await run.of(sleeps, ends)
    assert run.log == ["app cancelled", "over"]


async def test_however_short_its_grace_an_app_that_hears_has_a_turn_to_end():
    run = Run(grace=0)

    async def ends():
        run.running.end()

    await run.of(listens, ends)
    assert run.log == ["http.disconnect", "app done", "over"]


async def test_an_app_that_has_its_grace_ends_by_itself():
    run = Run()

    async def cleans_up(run):
        await listens(run)
        for _ in range(50):
            await checkpoint()

    async def ends():
        run.running.end()

    await run.of(cleans_up, ends)
    assert run.log == ["http.disconnect", "app done", "over"]


async def test_an_app_that_puts_off_its_cancellation_is_waited_for():
    """As one that waits for a thread."""
    run, release = Run(grace=0), anyio.Event()

    async def stubborn(run):
        with anyio.CancelScope(shield=True):
            await release.wait()
        await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(run.of, stubborn)
        await anyio.wait_all_tasks_blocked()
        run.server.say(DISCONNECT)
        await anyio.wait_all_tasks_blocked()
        assert run.log == ["gone"]
        release.set()
    assert run.log == ["gone", "app cancelled", "over"]


async def test_the_end_of_a_run_leaves_what_runs_beside_the_app_alone():
    run = Run(grace=0)

    async def beside():
        run.running.end()
        for _ in range(50):
            await checkpoint()
        run.log.append("beside")

    await run.of(sleeps, beside)
    assert run.log == ["app cancelled", "beside", "over"]


async def test_what_the_app_raises_comes_out_as_it_is_and_ends_what_runs_beside_it():
    run = Run()

    async def beside():
        try:
            await anyio.sleep_forever()
        finally:
            run.log.append("beside")

    with pytest.raises(RuntimeError, match="boom"):
        await run.of(raises, beside)
    assert run.log in ([], ["beside"])


async def test_what_the_app_raises_once_its_run_was_ended_is_no_ones_business():
    run = Run()

    async def hears_and_raises(run):
        await listens(run)
        raise RuntimeError("boom")

    run.server.say(DISCONNECT)
    await run.of(hears_and_raises)
    assert run.log[-1] == "over"


@pytest.mark.parametrize("app", [sleeps, listens, returns])
async def test_what_something_beside_raises_comes_out_as_it_is_and_ends_the_app(app):
    run = Run()

    async def beside():
        await checkpoint()
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await run.of(app, beside)
    assert "over" not in run.log


async def test_of_two_failures_the_first_comes_out():
    run = Run()

    async def beside():
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("second")

    async def fails(run):
        await anyio.wait_all_tasks_blocked()
        raise RuntimeError("first")

    with pytest.raises(RuntimeError, match="first"):
        await run.of(fails, beside)


@pytest.mark.parametrize("app", [sleeps, listens])
async def test_a_cancellation_from_outside_goes_through(app):
    run = Run()
    before = tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(run.of, app, anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    await cancel_shielded_checkpoint()
    assert (run.log, tasks_living()) == (["app cancelled"], before)


async def test_the_app_runs_in_the_callers_task():
    run = Run()
    seen = []

    async def app(run):
        seen.append(anyio.get_current_task().id)

    await run.of(app)
    assert seen == [anyio.get_current_task().id]
