"""While the gate holds a stream back, comments keep its connection open; nothing of it goes out before its time."""

from __future__ import annotations

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.keepalive import KeepAlive
from asgi_llm_gate.outlet import Outlet
from tests.actors import (
    DONE,
    EVER,
    START,
    App,
    Client,
    Judge,
    Recorder,
    event,
    piece,
    raises,
    said,
    sleeps,
    tasks_living,
    waits,
)
from tests.harness import Response, chat

pytestmark = pytest.mark.anyio

COMMENT = b": keep-alive\n"
SOON = 1e-6
STREAM = event(said("a")) + event(said("b", "stop")) + DONE


class Listener(Client):
    """A client that notes when a comment has come."""

    def __post_init__(self):
        super().__post_init__()
        self.kept = anyio.Event()

    async def send(self, message):
        await super().send(message)
        if message.get("body") == COMMENT:
            self.kept.set()


def listener(path="/v1/chat/completions", body=None):
    return Listener(chat(stream=True) if body is None else body, path=path)


async def turns():
    """Let everything that can go on do so."""
    for _ in range(200):
        await checkpoint()


@pytest.fixture
def text_hook():
    callback = CallHooks()
    callback.async_post_call_streaming_hook = lambda response: None
    return callback


async def test_comments_go_out_while_moderation_holds_a_stream_and_the_stream_follows_as_it_is():
    judge, client = Judge(), listener()
    app = LLMGate(App(START, piece(STREAM, more=False)), callbacks=[judge], keep_alive=SOON)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, app)
        await client.kept.wait()
        assert {message.get("body", COMMENT) for message in client.sent} == {COMMENT}
        judge.release.set()
    response = Response(client.sent)
    assert response.header("content-type") == "text/event-stream; charset=utf-8"
    assert response.body.replace(COMMENT, b"") == STREAM
    assert response.body.startswith(COMMENT)


async def test_a_stream_that_nobody_looks_into_gets_no_comments_once_it_flows():
    judge, client, release = Judge(), listener(), anyio.Event()
    app = App(START, piece(b"data: ha"), waits(release), piece(b"lf\n\n", more=False))
    app = LLMGate(app, callbacks=[judge], keep_alive=SOON)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, app)
        await client.kept.wait()
        judge.release.set()
        await turns()
        before = len(client.sent)
        await turns()
        assert len(client.sent) == before
        release.set()
    assert Response(client.sent).body.replace(COMMENT, b"") == b"data: half\n\n"


async def test_comments_stand_between_whole_events_of_a_stream_that_hooks_look_into(text_hook):
    client, release = listener(), anyio.Event()
    start = {**START, "headers": [*START["headers"], (b"content-length", b"%d" % len(STREAM))]}
    app = App(start, piece(STREAM[:7]), waits(release), piece(STREAM[7:], more=False))
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[text_hook], keep_alive=SOON))
        await client.kept.wait()
        release.set()
    response = Response(client.sent)
    assert response.header("content-length") is None
    assert response.body.replace(COMMENT, b"") == STREAM
    assert response.body.startswith(COMMENT)


REFUSALS = {"a message": "no", "an error": HTTPException(403, {"message": "no", "code": "c"}), "a crash": ValueError()}


async def refused(verdict, client):
    judge, recorder = Judge(), Recorder()
    judge.verdict = verdict
    app = App(START, piece(event(said("secret"))), sleeps)
    gate = LLMGate(app, callbacks=[judge, recorder], keep_alive=SOON, cancel_grace=0)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await client.kept.wait()
        judge.release.set()
    assert app.log[-1] == "cancelled"
    assert recorder.events == ["pre", "failure hook", "failure"]
    response = Response(client.sent)
    assert response.status == 200
    assert b"secret" not in response.body
    return [part for part in response.body.replace(COMMENT, b"").split(b"\n\n") if part]


async def test_a_message_after_comments_is_the_whole_stream():
    *chunks, done = await refused("no", listener())
    choices = [orjson.loads(chunk[6:])["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "no"
    assert choices[-1]["finish_reason"] == "stop"
    assert done == DONE.strip()


@pytest.mark.parametrize("name", ["an error", "a crash"])
async def test_an_error_after_comments_is_the_whole_stream(name):
    said, done = await refused(REFUSALS[name], listener())
    error = orjson.loads(said[6:])["error"]
    assert error["message"] == ("no" if name == "an error" else "Internal server error")
    assert done == DONE.strip()


async def test_a_response_that_is_refused_after_comments_fails():
    body = orjson.dumps({"model": "m", "input": "Hi", "stream": True})
    events = await refused(HTTPException(403, "no"), listener("/v1/responses", body))
    last = orjson.loads(events[-1].split(b"data: ")[1])
    assert (last["type"], last["response"]["error"]["message"]) == ("response.failed", "no")


@pytest.mark.parametrize("name", REFUSALS)
async def test_where_streams_have_no_text_a_refusal_after_comments_is_an_error(name):
    body = orjson.dumps({"model": "m", "prompt": "Hi", "stream": True})
    said, done = await refused(REFUSALS[name], listener("/v1/images/generations", body))
    assert orjson.loads(said[6:])["error"]["message"] == ("no" if name != "a crash" else "Internal server error")
    assert done == DONE.strip()


SILENT = {
    "none are wanted": (START, 0),
    "the stream has a content-encoding": (
        {**START, "headers": [*START["headers"], (b"content-encoding", b"br")]},
        SOON,
    ),
    "the response is no stream": ({"type": "http.response.start", "status": 200, "headers": []}, SOON),
}


@pytest.mark.parametrize("why", SILENT)
async def test_nothing_goes_out_while_moderation_holds_where(why):
    start, interval = SILENT[why]
    judge, client = Judge(), listener()
    gate = LLMGate(App(start, piece(STREAM, more=False)), callbacks=[judge], keep_alive=interval)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await turns()
        assert client.sent == []
        judge.release.set()
    assert Response(client.sent).body == STREAM


class SlowHeaders(CallHooks):
    def __init__(self):
        self.asked = 0
        self.began = anyio.Event()
        self.release = anyio.Event()

    async def async_post_call_response_headers_hook(self):
        self.asked += 1
        self.began.set()
        await self.release.wait()
        return {"x-added": "1"}


async def test_headers_hooks_are_asked_once_and_the_stream_waits_for_the_start_that_a_comment_brought():
    judge, client, headers = Judge(), listener(), SlowHeaders()
    gate = LLMGate(App(START, piece(STREAM, more=False)), callbacks=[judge, headers], keep_alive=SOON)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await headers.began.wait()
        judge.release.set()
        await turns()
        assert client.sent == []
        headers.release.set()
    response = Response(client.sent)
    assert response.header("x-added") == "1"
    assert response.body.replace(COMMENT, b"") == STREAM
    assert headers.asked == 1


async def test_a_bad_verdict_under_cut_while_headers_hooks_think_leaves_a_stream_with_a_start(text_hook):
    judge, client, headers = Judge("no"), listener(), SlowHeaders()
    gate = LLMGate(
        App(START, piece(STREAM), sleeps), callbacks=[judge, headers, text_hook], moderation_mode="cut", cancel_grace=0
    )
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await headers.began.wait()
        judge.release.set()
        await turns()
        headers.release.set()
    response = Response(client.sent)
    assert response.body.startswith(STREAM[:20])
    assert response.body.endswith(DONE)


async def test_what_follows_a_start_whose_sender_was_cancelled_brings_the_start():
    sent, began = [], anyio.Event()

    async def send(message):
        sent.append(message)

    async def headers():
        began.set()
        await anyio.sleep_forever()

    outlet = Outlet(send, headers=headers, copy_bytes=0)
    async with anyio.create_task_group() as group:
        group.start_soon(outlet, START)
        await began.wait()
        group.cancel_scope.cancel()
    await outlet(piece(b"a"))
    await outlet(piece(b"b", more=False))
    assert sent == [START, piece(b"a"), piece(b"b", more=False)]


async def test_a_client_that_leaves_after_a_comment_leaves_nothing_behind():
    judge, client, recorder = Judge(), listener(), Recorder()
    gate = LLMGate(App(START, piece(STREAM), sleeps), callbacks=[judge, recorder], keep_alive=SOON, cancel_grace=0)
    before = tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await client.kept.wait()
        client.gone.set()
    assert recorder.events == ["pre", "failure hook", "failure"]
    assert judge.cancelled
    assert tasks_living() == before


async def test_an_app_that_crashes_after_a_comment_breaks_the_stream():
    judge, client, release = Judge(), listener(), anyio.Event()
    gate = LLMGate(App(START, waits(release), raises), callbacks=[judge], keep_alive=SOON, cancel_grace=EVER)

    async def crash():
        await client.kept.wait()
        release.set()

    async with anyio.create_task_group() as group:
        group.start_soon(crash)
        with pytest.raises(RuntimeError, match="boom"):
            await client.call(gate)
    assert all(message.get("more_body", True) for message in client.sent)


async def test_an_outlet_that_is_not_silent_gets_no_comment():
    sent = []
    outlet, held = Outlet(sent.append, headers=None, copy_bytes=0), [True, True, False]

    def holds():
        outlet.sent += 1
        return held.pop(0)

    await KeepAlive(START, outlet, SOON, holds).run()
    assert sent == []
