"""Each test is named after what once went wrong at the end of a call, and holds that it no longer does."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.actors import DONE, EVER, START, App, Client, Judge, Recorder, event, piece, said, sleeps, told, waits
from tests.harness import Request, Response, Upstream, answer, chat

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


A, B = piece(event(said("a"))), piece(event(said("b", "stop")))
LAST = piece(DONE, more=False)


async def test_a_success_hook_that_refuses_after_the_client_left_is_a_second_failure():
    class Late(CallHooks):
        release = None

        async def async_post_call_success_hook(self):
            await late.wait()
            raise HTTPException(451, "no")

    late, recorder, client = anyio.Event(), Recorder(), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(*answer(b"{}")), callbacks=[Late(), recorder], cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        client.gone.set()
        await anyio.wait_all_tasks_blocked()
        late.set()
    assert [getattr(exc, "status_code", None) for exc in recorder.failures] == [499, 499]


class Text(CallHooks):
    async def async_post_call_streaming_hook(self, response):
        if response == "b":
            raise HTTPException(403, "no")


async def test_judges_are_left_running_when_the_client_leaves_after_an_error_event():
    judge, client = Judge(), Client(chat(stream=True))
    app = App(START, A, piece(event({"error": {"message": "x"}})), told)
    with anyio.move_on_after(1):
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, LLMGate(app, callbacks=[judge, Text()]))
            await anyio.wait_all_tasks_blocked()
            client.gone.set()
            await anyio.wait_all_tasks_blocked()
            cancelled = judge.cancelled
            judge.release.set()
    assert cancelled


@pytest.mark.parametrize("name", [b"x-a", ("x", 1), None, 5])
async def test_the_name_of_a_header(name):
    class Headers(CallHooks):
        async def async_post_call_response_headers_hook(self):
            return {name: "1", "x-b": "b"}

    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[Headers()]))
    assert [pair for pair in response.headers if not pair[0].startswith("content-")] == [("x-b", "b")]


class SlowReporter(CallHooks):
    ended = 0

    async def async_post_call_failure_hook(self):
        for _ in range(30):
            await checkpoint()
        self.ended += 1


@pytest.mark.parametrize("first", [True, False])
async def test_the_end_of_a_stream_is_cut_off_by_the_apps_grace_while_a_failure_hook_works(first):
    reporter, client = SlowReporter(), Client(chat(stream=True))
    steps = [START, *([A] if first else []), B, sleeps]
    await client.call(LLMGate(App(*steps), callbacks=[Text(), reporter], cancel_grace=0))
    assert reporter.ended == 1
    Response(client.sent)


async def test_the_end_of_a_stream_is_cut_off_by_the_apps_grace_while_the_client_is_slow():
    class Slow(Client):
        async def send(self, message):
            for _ in range(30):
                await checkpoint()
            await super().send(message)

    client = Slow(chat(stream=True))
    await client.call(LLMGate(App(START, A, B, sleeps), callbacks=[Text()], cancel_grace=0))
    assert b"no" in Response(client.sent).body


async def test_a_generator_that_takes_too_long_likewise():
    class Hangs(CallHooks):
        hook_timeout = 0.05

        async def async_post_call_streaming_iterator_hook(self, response):
            yield await anext(response)
            await anyio.sleep_forever()

    reporter, client = SlowReporter(), Client(chat(stream=True))
    await client.call(LLMGate(App(START, A, B, sleeps), callbacks=[Hangs(), reporter], cancel_grace=0))
    assert reporter.ended == 1
    assert b"Internal" in Response(client.sent).body


async def test_an_encoded_stream_that_never_ends_keeps_the_app_at_work():
    start = {**START, "headers": [*START["headers"], (b"content-encoding", b"gzip")]}
    client, app = Client(chat(stream=True)), App(start, piece(b"x"), sleeps)
    with anyio.move_on_after(1) as scope:
        await client.call(LLMGate(app, callbacks=[Text()], cancel_grace=0))
    assert not scope.cancelled_caught


async def test_a_response_over_the_limit_keeps_the_app_at_work():
    class Success(CallHooks):
        async def async_post_call_success_hook(self):
            """Never called."""

    start, body = answer(b"x" * 20)
    client, app, log = Client(chat()), App(start, {**body, "more_body": True}, sleeps), Recorder()
    with anyio.move_on_after(1) as scope:
        await client.call(LLMGate(app, callbacks=[Success(), log], cancel_grace=0, max_response_bytes=10))
    assert not scope.cancelled_caught


async def test_a_failure_hook_of_a_refusal_is_cancelled_from_outside():
    """As by an outer gate's bad verdict."""
    reporter, client = SlowReporter(), Client(chat())

    class Pre(CallHooks):
        async def async_pre_call_hook(self):
            raise HTTPException(403, "no")

    class Cancels(CallHooks):
        async def async_post_call_failure_hook(self):
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(), callbacks=[Pre(), Cancels(), reporter]))
    assert reporter.ended == 1


async def test_nested_the_replacement_of_an_error_by_a_headers_hook_name_in_two_cases():
    class Headers(CallHooks):
        async def async_post_call_response_headers_hook(self):
            return {"X-A": "1", "x-a": "2"}

    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[Headers()]))
    assert len([1 for name, _ in response.headers if name == "x-a"]) == 1


async def test_an_app_that_raises_while_a_refusal_of_a_piece_is_told_spoils_nothing():
    """The app sends from a task of its own and crashes meanwhile."""
    release = anyio.Event()

    class Reports(CallHooks):
        async def async_post_call_failure_hook(self):
            await release.wait()

    async def app(scope, receive, send):
        await receive()
        await send(dict(START))
        await send(dict(A))
        async with anyio.create_task_group() as inner:
            inner.start_soon(send, dict(B))
            await anyio.wait_all_tasks_blocked()
            release.set()
            raise RuntimeError("boom")

    client = Client(chat(stream=True))
    await client.call(LLMGate(app, callbacks=[Text(), Reports()], cancel_grace=EVER))
    assert b"no" in Response(client.sent).body


async def test_a_pre_api_call_hook_under_way_is_cut_off_when_the_app_raises():
    class Pre(CallHooks):
        ended = 0

        async def async_log_pre_api_call(self):
            for _ in range(10):
                await checkpoint()
            self.ended += 1

    async def boom(receive, send):
        await checkpoint()
        await checkpoint()
        raise RuntimeError("boom")

    pre, client = Pre(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.call(LLMGate(App(boom), callbacks=[pre]))
    assert pre.ended == 1


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_log_hooks_are_cut_off_by_shutdown_timeout_though_nothing_shuts_down(seconds, caplog):
    class Slow(CallHooks):
        ended = 0

        async def async_log_success_event(self):
            await anyio.sleep(0.05)
            self.ended += 1

    slow = Slow()
    await Request(chat()).to(LLMGate(Upstream(), callbacks=[slow], shutdown_timeout=seconds))
    assert slow.ended == 1


async def test_cut_a_bad_verdict_after_an_error_event_lets_the_stream_flow_on():
    goes_on, judge, client = anyio.Event(), Judge("no"), Client(chat(stream=True))
    app = App(START, A, piece(event({"error": {"message": "x"}})), waits(goes_on), piece(event(said("leak"))), LAST)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[judge], moderation_mode="cut", cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
        await anyio.wait_all_tasks_blocked()
        goes_on.set()
    assert b"leak" not in Response(client.sent).body
