"""The body is replayed once; after it the app waits at the server's own `receive`, whoever and whatever the app is."""

from __future__ import annotations

import threading

import anyio
import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path as url
from fastapi import FastAPI
from fastapi.responses import StreamingResponse as FastAPIStreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import CHAT, JSON, Request, Response, Upstream, chat
from tests.hosts import DjangoHandler, Reader, Witness, django_setup

pytestmark = pytest.mark.anyio

SECONDS = 20

SPEC_VERSIONS = ["2.3", None, "2.4"]
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
spec_versions = pytest.mark.parametrize("spec_version", SPEC_VERSIONS)


class Passes(CallHooks):
    """A moderation hook that finds nothing, after a while."""

    async def async_moderation_hook(self, data):
        await anyio.lowlevel.checkpoint()


CALLBACKS = {"no hook": [], "pre-call": [Reader()], "moderation": [Passes()], "all": [Witness()]}

callbacks = pytest.mark.parametrize("callbacks", CALLBACKS.values(), ids=CALLBACKS)


async def events():
    for event in EVENTS:
        await anyio.lowlevel.checkpoint()
        yield event


async def starlette_stream(request):
    await request.json()
    return StreamingResponse(events(), media_type="text/event-stream")


def starlette_app():
    return Starlette(routes=[Route(CHAT, starlette_stream, methods=["POST"])])


def fastapi_app():
    app = FastAPI()

    @app.post(CHAT)
    async def handler(data: dict):
        return FastAPIStreamingResponse(events(), media_type="text/event-stream")

    return app


async def django_async_view(request):
    assert request.body
    return StreamingHttpResponse(events(), content_type="text/event-stream")


def django_sync_view(request):
    return HttpResponse(b"".join(EVENTS) if request.body else b"", content_type="text/event-stream")


def django_app(view):
    django_setup()
    return DjangoHandler([url(CHAT[1:], view)])


async def untouched(request, call_next):
    return await call_next(request)


async def body_read(request, call_next):
    assert (await request.body()).startswith(b"{")
    return await call_next(request)


def between(app, dispatch):
    return BaseHTTPMiddleware(app, dispatch=dispatch)


def gate(app, callbacks):
    return LLMGate(app, callbacks=callbacks)


APPS = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "django async": lambda: django_app(django_async_view),
    "django sync": lambda: django_app(django_sync_view),
}

STACKS = {
    "one gate": gate,
    "two gates": lambda app, callbacks: gate(gate(app, callbacks), callbacks),
    "three gates": lambda app, callbacks: gate(gate(gate(app, []), callbacks), callbacks),
    "BaseHTTPMiddleware inside": lambda app, callbacks: gate(between(app, untouched), callbacks),
    "BaseHTTPMiddleware inside, reads": lambda app, callbacks: gate(between(app, body_read), callbacks),
    "BaseHTTPMiddleware outside": lambda app, callbacks: between(gate(app, callbacks), untouched),
    "BaseHTTPMiddleware outside, reads": lambda app, callbacks: between(gate(app, callbacks), body_read),
    "BaseHTTPMiddleware on both sides of two gates": lambda app, callbacks: between(
        gate(between(gate(app, callbacks), body_read), callbacks), body_read
    ),
}

apps = pytest.mark.parametrize("make", APPS.values(), ids=APPS)
stacks = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)


@on_asyncio
@callbacks
@stacks
@apps
@spec_versions
async def test_streams_come_whole(spec_version, make, stack, callbacks):
    """An app that listens for a disconnect while it streams neither hears one nor spins; the whole stream comes."""
    request = Request(chat(stream=True), spec_version=spec_version)
    response = await request.to(stack(make(), callbacks))
    assert response.status == 200
    assert response.body == b"".join(EVENTS)
    assert request.received <= 4, "one call for the body, and one for each that listens until the answer is out"


@callbacks
@pytest.mark.parametrize("gates", [1, 2, 3])
async def test_after_the_body_only_a_disconnect_comes(gates, callbacks):
    """The body comes in one message, once; then `receive` waits until the client goes, and stays gone."""
    request = Request(chat())
    got = []
    waiting = anyio.Event()

    async def app(scope, receive, send):
        got.append(await receive())

        async def listen():
            waiting.set()
            got.append(await receive())
            got.append(await receive())

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await waiting.wait()
            await anyio.wait_all_tasks_blocked()
            assert len(got) == 1
            request.gone.set()

    for _ in range(gates):
        app = LLMGate(app, callbacks=callbacks)
    with anyio.fail_after(10):
        await app(request.scope, request.receive, request.send)
    body = {"type": "http.request", "body": chat(), "more_body": False}
    assert got == [body, {"type": "http.disconnect"}, {"type": "http.disconnect"}]


@callbacks
async def test_cancelled_receive_loses_nothing(callbacks):
    """A framework cancels its pending `receive` when its answer is out: the next one still hears the disconnect."""
    request = Request(chat())
    got = []

    async def app(scope, receive, send):
        await receive()
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        request.gone.set()
        got.append(await receive())

    with anyio.fail_after(10):
        await LLMGate(app, callbacks=callbacks)(request.scope, request.receive, request.send)
    assert got == [{"type": "http.disconnect"}]


@on_asyncio
@callbacks
@stacks
@pytest.mark.parametrize(
    "make", [starlette_app, fastapi_app, APPS["django async"]], ids=["starlette", "fastapi", "django"]
)
@pytest.mark.parametrize("spec_version", ["2.3", None])
async def test_disconnect_reaches_a_streaming_app(spec_version, make, stack, callbacks, monkeypatch):
    """When the client goes, a stream that would last for ever is ended by its framework."""
    request = Request(chat(stream=True), spec_version=spec_version)
    ended = anyio.Event()

    async def endless():
        try:
            yield EVENTS[0]
            request.gone.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    monkeypatch.setattr("tests.test_replay.events", endless)
    with anyio.fail_after(20):
        await stack(make(), callbacks)(request.scope, request.receive, request.send)
    assert ended.is_set()


MANY = {
    "one": [chat()],
    "bytes": [bytes([byte]) for byte in chat()],
    "empty last": [chat(), b""],
    "empty first and between": [b"", chat()[:9], b"", b"", chat()[9:]],
    "bytearray": [bytearray(chat())],
    "memoryviews": [memoryview(chat())[:5], memoryview(chat())[5:]],
}


@callbacks
@pytest.mark.parametrize("parts", MANY.values(), ids=MANY)
async def test_body_of_many_messages(parts, callbacks):
    """However a server cuts the body, the app gets it in one message."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    app = Upstream()
    assert (await Request(messages=messages).to(LLMGate(app, callbacks=callbacks))).status == 200
    assert app.calls[0][1] == chat()


@callbacks
@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.request", "body": chat()}],
        [{"type": "http.request", "body": chat(), "more_body": True}, {"type": "http.request"}],
        [{"type": "http.request", "more_body": True}, {"type": "http.request", "body": chat()}],
    ],
    ids=["no more_body", "bare last", "no body"],
)
async def test_messages_with_keys_left_out(messages, callbacks):
    """Both keys of `http.request` are optional."""
    app = Upstream()
    await Request(messages=list(messages)).to(LLMGate(app, callbacks=callbacks))
    assert app.calls[0][1] == chat()


@pytest.mark.parametrize("messages", [[], [{"type": "http.request"}]], ids=["nothing", "an empty message"])
async def test_no_body_at_all(messages):
    """A POST with an empty body is refused; a GET with one reaches the app, which then waits as any."""
    app = Upstream()
    request = Request(messages=[*messages, {"type": "http.request"}])
    assert (await request.to(LLMGate(app))).status == 400
    request = Request(messages=[*messages, {"type": "http.request"}], method="GET")
    assert (await request.to(LLMGate(app))).status == 200
    assert app.calls == [(request.scope, b"")]


@callbacks
@pytest.mark.parametrize("parts", [[], [b'{"a":'], [b"", chat()]], ids=["at once", "half", "before the last message"])
async def test_client_that_goes_while_it_sends(parts, callbacks):
    """A disconnect during the body ends the call in silence: no app, no hook, no answer."""
    reader, app = Reader(), Upstream()
    request = Request(messages=[{"type": "http.request", "body": part, "more_body": True} for part in parts])
    request.gone.set()
    with anyio.fail_after(10):
        await LLMGate(app, callbacks=[*callbacks, reader])(request.scope, request.receive, request.send)
    assert (app.calls, reader.requests, request.sent) == ([], [], [])


@pytest.mark.parametrize("gates", [1, 2])
@pytest.mark.parametrize("parts", [[], [b'{"a":'], [chat()]], ids=["nothing", "half", "all but the end"])
async def test_body_that_never_ends(parts, gates):
    """A body not whole within `body_timeout` is a 408, and the app is not called."""
    app = seen = Upstream()
    request = Request(messages=[{"type": "http.request", "body": part, "more_body": True} for part in parts])
    for _ in range(gates):
        app = LLMGate(app, callbacks=[Witness()], body_timeout=0.01)
    response = await request.to(app)
    assert (response.status, response.error()["code"]) == (408, "request_timeout")
    assert seen.calls == []


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_bodiless_method_whose_body_never_ends(method):
    """The time limit holds for every method, for any may bring a body."""
    app = Upstream()
    response = await Request(messages=[], method=method).to(LLMGate(app, body_timeout=0.01))
    assert response.status == 408
    assert app.calls == []


class Broken(Exception):
    """A server's own failure."""


@callbacks
@pytest.mark.parametrize("failure", [Broken, TimeoutError, OSError])
@pytest.mark.parametrize("parts", [[], [b"{"]], ids=["at once", "half-way"])
async def test_receive_that_fails(parts, failure, callbacks):
    """What the server's `receive` raises is the server's to handle: nothing is sent in its place."""
    app = Upstream()
    request = Request(messages=[{"type": "http.request", "body": part, "more_body": True} for part in parts])

    async def receive():
        if not request.messages:
            raise failure
        return await request.receive()

    with pytest.raises(failure):
        await LLMGate(app, callbacks=callbacks)(request.scope, receive, request.send)
    assert (app.calls, request.sent) == ([], [])


@callbacks
async def test_receive_that_fails_after_the_body(callbacks):
    """The app meets the server's failure where it waits, and its own handling stands."""
    request = Request(chat())
    met = []

    async def receive():
        if not request.messages:
            raise Broken
        return await request.receive()

    async def app(scope, receive, send):
        await receive()
        try:
            await receive()
        except Broken as exc:
            met.append(exc)
        await JSONResponse({})(scope, receive, send)

    await LLMGate(app, callbacks=callbacks)(request.scope, receive, request.send)
    assert len(met) == 1
    assert request.sent[0]["status"] == 200


async def test_outer_body_limit_is_told_in_the_envelope():
    """An HTTPException out of `receive`, as Starlette's body limit raises, is rendered as the gate's own 413 is."""
    app = Upstream()
    messages = [{"type": "http.request", "body": b" " * 1000, "more_body": True} for _ in range(5)]
    limited = RequestBodyLimitMiddleware(LLMGate(app, callbacks=[Witness()]), max_body_size=2000)
    response = await Request(messages=messages).to(limited)
    assert response.status == 413
    assert response.error()["type"] == "invalid_request_error"
    assert app.calls == []


async def test_outer_body_limit_that_answers_itself():
    """A declared length over Starlette's limit is refused in its own words, and the gate leaves it at that."""
    app = Upstream()
    limited = RequestBodyLimitMiddleware(LLMGate(app, callbacks=[Witness()]), max_body_size=10)
    response = await Request(chat(), headers=[*JSON, ("content-length", str(len(chat())))]).to(limited)
    assert (response.status, response.body) == (413, b"Content Too Large")
    assert app.calls == []


async def test_inner_body_limit_measures_what_the_app_gets():
    """A limit inside the gate sees the canonical body: white space that the client sent does not count."""
    app = Upstream()
    padded = chat() + b" " * 5000
    limited = LLMGate(RequestBodyLimitMiddleware(app, max_body_size=1000))
    assert (await Request(padded, headers=[*JSON, ("content-length", str(len(padded)))]).to(limited)).status == 200
    assert app.calls[0][1] == chat()


async def test_httpexception_of_an_outer_app_keeps_status_and_headers():
    """Any status that comes with the exception is the answer's."""
    request = Request()

    async def receive():
        raise HTTPException(429, "slow down", {"retry-after": "7"})

    await LLMGate(Upstream())(request.scope, receive, request.send)
    assert request.sent[0]["status"] == 429
    assert (b"retry-after", b"7") in request.sent[0]["headers"]


@callbacks
@pytest.mark.parametrize("parts", [[], [b"{"], None], ids=["before the body", "in the body", "in the app"])
async def test_cancellation_while_waiting(parts, callbacks):
    """A server that cancels a call, wherever it waits, gets its task back at once, with nothing sent."""
    request = Request(chat())
    if parts is not None:
        request.messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    ended = []

    async def app(scope, receive, send):
        try:
            await receive()
            await receive()
        finally:
            ended.append(True)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(LLMGate(app, callbacks=callbacks), request.scope, request.receive, request.send)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert group.cancel_scope.cancelled_caught
    assert ended == [True] * (parts is None)
    assert request.sent == []


class RefusesOnce(CallHooks):
    """A moderation hook that refuses the call as soon as the app is at work on it."""

    def __init__(self, started):
        self.started = started

    async def async_moderation_hook(self, data):
        await anyio.to_thread.run_sync(self.started.wait, SECONDS)
        raise HTTPException(400, "unfit")


def django_thread(work):
    def view(request):
        work()

    return django_app(view)


def starlette_thread(work):
    def handler(request):
        work()

    return Starlette(routes=[Route(CHAT, handler, methods=["POST"])])


@on_asyncio
@stacks
@pytest.mark.parametrize("make", [django_thread, starlette_thread], ids=["django", "starlette"])
async def test_refusal_does_not_wait_for_an_app_in_a_thread(make, stack):
    """The client is answered while a handler that nothing can cancel still works; the call ends when it does."""
    request = Request(chat())
    started, release, answered = threading.Event(), threading.Event(), anyio.Event()
    worked = []

    def work():
        started.set()
        worked.append(release.wait(SECONDS))
        raise AssertionError("nobody is to hear of it")

    async def send(message):
        await request.send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    gate = stack(make(work), [RefusesOnce(started)])
    async with anyio.create_task_group() as group:
        group.start_soon(gate, request.scope, request.receive, send)
        with anyio.fail_after(SECONDS):
            await answered.wait()
        assert worked == []
        release.set()
    response = Response(request.sent)
    assert (response.status, response.error()["message"]) == (400, "unfit")
    assert worked == [True]


@on_asyncio
@callbacks
async def test_no_task_is_left(callbacks):
    """After an answer, and after a cancelled call, the event loop runs no task that was not there before."""
    before = {task.id for task in anyio.get_running_tasks()}
    await Request(chat()).to(LLMGate(Upstream(), callbacks=callbacks))
    request = Request(messages=[])
    with anyio.move_on_after(0.01):
        await LLMGate(Upstream(), callbacks=callbacks)(request.scope, request.receive, request.send)
    await anyio.wait_all_tasks_blocked()
    assert {task.id for task in anyio.get_running_tasks()} == before


@spec_versions
async def test_background_work_runs_after_the_answer(spec_version):
    """Background tasks of a Starlette response run inside the call, after its last byte."""
    request = Request(chat(), spec_version=spec_version)
    done = []

    async def work():
        done.append(request.sent[-1].get("more_body", False))

    async def handler(request):
        return JSONResponse(await request.json(), background=BackgroundTask(work))

    app = Starlette(routes=[Route(CHAT, handler, methods=["POST"])])
    assert (await request.to(LLMGate(app, callbacks=[Witness()]))).body == chat()
    assert done == [False]
