"""The hook that is told when nothing is at work for a call any more, whatever became of it."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.actors import DONE, START, App, Client, Judge, event, piece, raises, said, sleeps
from tests.harness import Request, Upstream, answer, chat
from tests.test_batches import jsonl, row, uploaded
from tests.websocket import RESPONSES, Script, WebSocket

pytestmark = pytest.mark.anyio

WHOLE = b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"content":"Hi"}}]}'
STREAM = (START, piece(event(said("Hi"))), piece(DONE, more=False))


class Notes(CallHooks):
    """Notes the call's end, and what had happened by then."""

    def __init__(self, app=None, client=None):
        self.app = app
        self.client = client
        self.began = 0
        self.seen = []

    async def async_pre_call_hook(self, data):
        self.began += 1
        data["litellm_metadata"]["mine"] = self.began

    async def async_post_call_ended_hook(self, data, user_api_key_dict):
        assert data["litellm_metadata"]["mine"] == self.began
        answered = self.client is not None and any(not m.get("more_body", True) for m in self.client.sent)
        self.seen.append((answered, self.app.log[-1] if self.app and self.app.log else None))


class Refuses(CallHooks):
    """Refuses at one hook, in one way."""

    def __init__(self, method, verdict):
        async def hook():
            if isinstance(verdict, Exception):
                raise verdict
            return verdict

        setattr(self, method, hook)


class StopsEarly(CallHooks):
    async def async_post_call_streaming_iterator_hook(self, response):
        yield await anext(response)


def end_of(app, *callbacks, body=None, **settings):
    """Make a call; return the client, the notes, and what the app did."""
    client = Client(body or chat())
    notes = Notes(app, client)
    return client, notes, LLMGate(app, callbacks=[notes, *callbacks], cancel_grace=0, **settings)


NO = HTTPException(403)
TEXT = "async_post_call_streaming_hook"

WORKS = "http.request"

# What the app does, what hooks do, and at what the end is told: is the client answered, and where is the app?
ENDS = {
    "a whole answer": (answer(WHOLE), [], (False, WORKS)),
    "a binary answer": (answer(b"\xff", content_type="audio/mpeg"), [], (False, WORKS)),
    "an error": (answer(b"{}", 500), [], (False, WORKS)),
    "a stream": (STREAM, [], (False, WORKS)),
    "a stream with something to do after it": ((*STREAM, sleeps), [], (False, WORKS)),
    "a refusal before the app": ((), [Refuses("async_pre_call_hook", "no")], (False, None)),
    "an error before the app": ((), [Refuses("async_pre_call_hook", NO)], (False, None)),
    "a crash before the app": ((), [Refuses("async_pre_call_hook", KeyError())], (False, None)),
    "a refusal of the answer": (answer(WHOLE), [Refuses("async_post_call_success_hook", NO)], (False, WORKS)),
    "a refusal beside the app": ((sleeps,), [Refuses("async_moderation_hook", "no")], (True, "cancelled")),
    "a stream that a hook stops": ((*STREAM[:2], sleeps), [StopsEarly()], (True, "cancelled")),
    "a stream that a hook refuses": ((*STREAM[:2], sleeps), [Refuses(TEXT, NO)], (True, "cancelled")),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
async def test_a_calls_end_is_told_once_and_not_while_the_app_is_at_work(name):
    """Before the last of the app's own answer goes out; of a refusal beside it only when the app has been stopped."""
    steps, callbacks, expected = ENDS[name]
    client, notes, gate = end_of(App(*steps), *callbacks)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await client.answered.wait()
        with anyio.fail_after(5):
            while not notes.seen:  # the app is stopped, in a few turns of the loop
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert notes.seen == [expected]
    assert notes.began == 1


async def test_an_app_that_crashes_has_ended():
    client, notes, gate = end_of(App(raises))
    with pytest.raises(RuntimeError, match="boom"):
        await client.call(gate)
    assert notes.seen == [(False, "http.request")]


async def test_where_the_client_leaves_the_app_is_stopped_first():
    app = App(START, sleeps)
    client, notes, gate = end_of(app)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        client.gone.set()
    assert notes.seen == [(False, "cancelled")]


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
async def test_a_call_that_ends_while_hooks_think_about_it_has_its_end(how):
    judge = Judge()
    client, notes, gate = end_of(App(), type("Thinks", (), {"async_pre_call_hook": judge.async_moderation_hook})())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        if how == "leaves":
            client.gone.set()
        else:
            group.cancel_scope.cancel()
    assert (notes.began, notes.seen) == (1, [(False, None)])


async def test_a_call_that_no_hook_saw_has_no_end():
    client, notes, gate = end_of(App(), body=b"[]")
    await client.call(gate)
    assert client.sent[0]["status"] == 400
    client, others, gate = end_of(App(*answer(b"ok")), body=b" ")
    client.method = client.scope["method"] = "GET"
    client.messages = [{"type": "http.request", "body": b""}]
    await client.call(gate)
    assert notes.seen == others.seen == []


async def test_a_slow_log_hook_holds_nothing_up():
    logged = anyio.Event()

    class Logs(CallHooks):
        async def async_log_success_event(self):
            await logged.wait()

    client, notes, gate = end_of(App(*answer(b"\xff", content_type="audio/mpeg")), Logs())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await client.answered.wait()
        assert notes.seen == [(False, "http.request")]
        logged.set()


async def test_a_hook_that_fails_is_logged_and_the_others_are_told(caplog):
    async def crashes(self, data):
        raise HTTPException(429, "too late")

    crash = type("Crashes", (), {"async_post_call_ended_hook": crashes})()
    notes = Notes()
    response = await Request(chat()).to(LLMGate(Upstream(answer(WHOLE)), callbacks=[crash, notes]))
    assert (response.status, len(notes.seen)) == (200, 1)
    assert "Crashes.async_post_call_ended_hook" in caplog.text


async def test_what_comes_in_a_file_or_on_a_websocket_says_so_and_has_no_end_of_its_own():
    via = []

    class Looks(Notes):
        async def async_pre_call_hook(self, data):
            via.append(data["proxy_server_request"]["via"])
            await super().async_pre_call_hook(data)

    class Counts(Looks):
        async def async_post_call_ended_hook(self):
            self.seen.append("ended")

    looks = Counts()
    await uploaded(jsonl(row(1), row(2)), looks)
    assert (via, looks.seen) == (["http", "file", "file"], ["ended"])
    socket = WebSocket(RESPONSES)
    async with socket.open(LLMGate(Script([{"type": "response.completed"}]), callbacks=[looks])):
        socket.say({"type": "response.create", "model": "m", "input": "Hi"})
        await socket.hear()
    assert (via[3:], looks.seen) == (["websocket"], ["ended"])
