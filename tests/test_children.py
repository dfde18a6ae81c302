"""Child tasks beside the caller's own: how they are cancelled, what puts that off, and that none is left."""

from __future__ import annotations

import asyncio
import gc

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from asgi_llm_gate.children import open_children
from asgi_llm_gate.deadline import on_asyncio
from tests.actors import tasks_living
from tests.clocks import virtual

pytestmark = pytest.mark.anyio

LOOPS = {
    "asyncio": virtual("asyncio"),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": virtual("trio"),
}
ASYNCIO = {name: LOOPS[name] for name in ("asyncio", "uvloop")}


@pytest.fixture(params=list(LOOPS.values()), ids=list(LOOPS))
def anyio_backend(request):
    return request.param


on_asyncios = pytest.mark.parametrize("anyio_backend", ASYNCIO.values(), ids=ASYNCIO, indirect=True)


class Company:
    """Children, the steps they take, and what was noted of them."""

    def __init__(self):
        self.children = open_children()
        self.log = []
        self.release = anyio.Event()

    def child(self, step):
        """A child, or what is done in the caller's task, that takes a step and notes how it ends."""

        async def noted():
            try:
                await step(self)
            except anyio.get_cancelled_exc_class():
                self.log.append("cancelled")
                raise
            self.log.append("done")

        return noted

    async def of(self, own, *steps):
        async def work():
            for step in steps:
                self.children.start(self.child(step))
            await own(self)

        await self.children.run(work)


async def returns(company):
    pass


async def sleeps(company):
    await anyio.sleep_forever()


async def waits(company):
    await company.release.wait()


async def swallows(company):
    """Takes its first cancellation for something else, as code does that catches everything."""
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        company.log.append("swallowed")
    await anyio.sleep_forever()


async def puts_off(company):
    """Has something to do before it ends."""
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await company.release.wait()
            company.log.append("put off")


async def in_a_group(company):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await anyio.sleep_forever()


async def in_a_deadline(company):
    with anyio.move_on_after(3600):
        await anyio.sleep_forever()


async def in_two_scopes(company):
    with anyio.CancelScope(), anyio.CancelScope():
        await anyio.sleep_forever()


ENDS = {
    sleeps: ["cancelled"],
    swallows: ["swallowed", "cancelled"],
    in_a_group: ["cancelled"],
    in_a_deadline: ["cancelled"],
    in_two_scopes: ["cancelled"],
}
every_end = pytest.mark.parametrize(("step", "log"), ENDS.items(), ids=[step.__name__ for step in ENDS])


@every_end
async def test_a_child_is_cancelled_through_its_scope_and_again_where_it_swallows_that(step, log):
    company = Company()

    async def work():
        scope = company.children.start(company.child(step))
        await anyio.wait_all_tasks_blocked()
        scope.cancel()

    await company.children.run(work)
    assert (company.log, company.children.cancelled) == (log, False)


@every_end
@pytest.mark.parametrize("own", [sleeps, returns])
async def test_a_cancellation_of_the_caller_reaches_every_child(own, step, log):
    company, before = Company(), tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(company.of, own, step, step)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    await cancel_shielded_checkpoint()
    assert (sorted(company.log), tasks_living()) == (sorted(log * 2), before)


@every_end
async def test_what_one_raises_cancels_all_others_and_comes_out_as_it_is(step, log):
    company = Company()

    async def raises(company):
        await company.release.wait()
        raise LookupError

    async def own(company):
        await anyio.wait_all_tasks_blocked()
        company.release.set()
        await anyio.sleep_forever()

    with pytest.raises(LookupError):
        await company.of(own, step, raises)
    assert company.log == log


async def test_a_child_that_has_not_begun_when_all_is_cancelled_has_its_first_step():
    company = Company()

    async def fails(company):
        company.children.start(company.child(sleeps))
        raise LookupError

    async def starts_another():
        try:
            await anyio.sleep_forever()
        finally:
            company.children.start(company.child(sleeps))

    async def own(company):
        company.children.start(starts_another)
        await anyio.wait_all_tasks_blocked()
        await fails(company)

    with pytest.raises(LookupError):
        await company.of(own)
    assert company.log == ["cancelled", "cancelled"]


async def test_what_a_child_puts_off_is_waited_for_and_not_cut_off():
    company, over = Company(), []

    async def call():
        try:
            await company.of(sleeps, puts_off)
        finally:
            over.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            for _ in range(5):
                await checkpoint()
            assert (company.log, over) == ([], [])
            company.release.set()
    assert (company.log, over) == (["put off", "cancelled"], [True])


async def test_what_is_idle_ends_with_the_last_that_is_waited_for():
    company = Company()

    async def work():
        company.children.start(company.child(swallows), idle=True)
        company.children.start(company.child(waits))
        company.children.listen(company.child(sleeps))

    async with anyio.create_task_group() as group:
        group.start_soon(company.children.run, work)
        await anyio.wait_all_tasks_blocked()
        assert company.log == []
        company.release.set()
    assert sorted(company.log) == ["cancelled", "cancelled", "done", "swallowed"]


async def test_what_listens_is_waited_for_once_it_says_so():
    company = Company()

    async def hears(company):
        company.children.stay()
        await company.release.wait()

    async def work():
        company.children.listen(company.child(hears))
        await anyio.wait_all_tasks_blocked()

    async with anyio.create_task_group() as group:
        group.start_soon(company.children.run, work)
        await anyio.wait_all_tasks_blocked()
        company.release.set()
    assert company.log == ["done"]


async def test_what_the_one_that_listens_raises_comes_out_as_it_is():
    company = Company()

    async def breaks():
        raise OSError("broken")

    async def work():
        company.children.listen(breaks)
        await anyio.sleep_forever()

    with pytest.raises(OSError, match="broken"):
        await company.children.run(work)


@on_asyncios
async def test_nothing_listens_where_all_is_over_within_a_turn_of_the_loop():
    company = Company()

    async def work():
        company.children.start(company.child(returns))
        company.children.listen(company.child(returns))

    await company.children.run(work)
    await checkpoint()
    assert company.log == ["done"]


@on_asyncios
async def test_in_a_child_threads_and_the_time_limits_of_asyncio_work():
    company = Company()

    async def limited(company):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(3600)
        company.log.append(await anyio.to_thread.run_sync(lambda: "thread"))

    async def own(company):
        await company.release.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(company.of, own, limited)
        company.release.set()
    assert company.log == ["thread", "done"]


NATIVE = {
    "at work": (sleeps, [sleeps], ["cancelled"]),
    "waiting": (returns, [sleeps, swallows], ["cancelled", "swallowed", "cancelled"]),
    "alone": (sleeps, [], []),
}


@on_asyncios
@pytest.mark.parametrize(("own", "steps", "log"), NATIVE.values(), ids=NATIVE)
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_of_asyncios_own_goes_through_in_every_turn(own, steps, log, listens, turns):
    company, before = Company(), tasks_living()

    async def both(company):
        if listens:
            company.children.listen(anyio.sleep_forever)
        await own(company)

    task = asyncio.create_task(company.of(both, *steps))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert (task.cancelled(), tasks_living()) == (True, before)
    assert sorted(company.log) == (sorted(log) if turns else [])


@on_asyncios
@pytest.mark.parametrize("own", [sleeps, returns])
async def test_however_often_the_caller_is_cancelled_it_waits_for_what_a_child_puts_off(own):
    company = Company()
    task = asyncio.create_task(company.of(own, puts_off))
    await anyio.wait_all_tasks_blocked()
    for _ in range(3):
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (company.log, task.done()) == ([], False)
    company.release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert company.log == ["put off", "cancelled"]


@on_asyncios
@pytest.mark.parametrize("turns", [0, 3], ids=["before it began", "at work"])
async def test_a_child_that_someone_else_cancels_ends_all(turns):
    """What it was there for is left undone, such as a verdict that the call waits for."""
    company = Company()

    async def own(company):
        before = asyncio.all_tasks()
        company.children.start(company.child(sleeps))
        (child,) = asyncio.all_tasks() - before
        for _ in range(turns):
            await asyncio.sleep(0)
        child.cancel()
        await sleeps(company)

    async with anyio.create_task_group() as group:
        group.start_soon(company.of, own)
    assert (company.children.cancelled, company.log) == (True, ["cancelled"] * bool(turns))


class Outcome(BaseException):
    """No exception that code may catch, as those are that a test framework ends tests with."""


async def test_no_failure_of_a_child_is_lost():
    company = Company()

    async def fails(company):
        raise Outcome

    with pytest.raises(Outcome if on_asyncio() else BaseExceptionGroup) as raised:
        await company.of(sleeps, fails)
    assert on_asyncio() or isinstance(raised.value.exceptions[0], Outcome)


@on_asyncios
@pytest.mark.parametrize("turns", [0, 3])
async def test_children_leave_nothing_to_the_garbage_collector(turns):
    async def run():
        async def work():
            children.listen(anyio.sleep_forever)
            children.start(checkpoint)
            for _ in range(turns):
                await checkpoint()

        children = open_children()
        await children.run(work)

    gc.collect()
    gc.disable()
    try:
        await run()
        assert gc.collect() == 0
    finally:
        gc.enable()
