"""One suite for every host: the gate in Starlette, FastAPI, Django and a bare app, on both of uvicorn's parsers."""

from __future__ import annotations

import json
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import httpx
import pytest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path as url
from fastapi import BackgroundTasks, Body, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import CHAT
from tests.hosts import DjangoHandler, django_setup
from tests.servers import serve

SECONDS = 20

outer_var: ContextVar[str] = ContextVar("outer", default="unset")
hook_var: ContextVar[str] = ContextVar("hook", default="unset")


class Outer:
    """A middleware outside the gate that sets a context variable."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        outer_var.set("set outside")
        await self.app(scope, receive, send)


class Handler(CallHooks):
    """Rewrites calls, and refuses those whose model asks for it."""

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        hook_var.set("set by the hook")
        if data["model"] == "no":
            return "This isn't for me."
        if data["model"] == "forbidden":
            raise HTTPException(403, {"error": "not for you"}, {"x-why": "policy"})
        data["model"] = f"rewritten from {data['model']}"
        return data

    async def async_moderation_hook(self, data):
        if "slow no" in data["model"]:
            raise HTTPException(400, {"error": "unfit"})

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        response["after"] = data["model"]


class Stage:
    """What a test and the app it serves tell each other."""

    def __init__(self):
        self.release = threading.Event()
        self.ended = threading.Event()
        self.background = threading.Event()

    def answer(self, data):
        return {"data": data, "vars": [outer_var.get(), hook_var.get()]}

    async def events(self, data):
        """Two events, the second when the test releases it; or one, for ever."""
        try:
            yield b"data: 1\n\n"
            if data["model"].endswith("endless"):
                await anyio.sleep_forever()
            assert await anyio.to_thread.run_sync(self.release.wait, SECONDS)
            yield b"data: [DONE]\n\n"
        finally:
            self.ended.set()


STREAM = "text/event-stream"


def starlette_app(stage):
    async def chat(request):
        data = await request.json()
        if data.get("stream"):
            return StreamingResponse(stage.events(data), media_type=STREAM)
        return JSONResponse(stage.answer(data), background=BackgroundTask(stage.background.set))

    async def hello(request):
        return PlainTextResponse(await request.body() + b"!")

    app = Starlette(routes=[Route(CHAT, chat, methods=["POST"]), Route("/hello", hello, methods=["POST"])])
    app.add_middleware(LLMGate, callbacks=[Handler()], enforce_user_param=True)
    app.add_middleware(Outer)
    return app


def fastapi_app(stage):
    app = FastAPI()
    app.add_middleware(LLMGate, callbacks=[Handler()], enforce_user_param=True)
    app.add_middleware(Outer)

    @app.post(CHAT, response_model=None)
    async def chat(background: BackgroundTasks, data: dict[str, Any] = Body()):  # noqa: B008
        if data.get("stream"):
            return StreamingResponse(stage.events(data), media_type=STREAM)
        background.add_task(stage.background.set)
        return stage.answer(data)

    @app.post("/hello")
    async def hello(body: str = Body(media_type="text/plain")):
        return PlainTextResponse(body + "!")

    return app


def django_app(stage):
    class Response(JsonResponse):
        def close(self):
            super().close()
            stage.background.set()

    async def chat(request):
        data = json.loads(request.body)
        if data.get("stream"):
            return StreamingHttpResponse(stage.events(data), content_type=STREAM)
        return Response(stage.answer(data))

    def hello(request):
        return HttpResponse(request.body + b"!", content_type="text/plain")

    django_setup()
    app = DjangoHandler([url(CHAT[1:], chat), url("hello", hello)])
    return Outer(LLMGate(app, callbacks=[Handler()], enforce_user_param=True))


def bare_app(stage):
    async def chat(scope, receive, send):
        data = json.loads((await receive())["body"])
        if not data.get("stream"):
            await JSONResponse(stage.answer(data))(scope, receive, send)
            stage.background.set()
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", STREAM.encode())]})

        async def listen():
            assert (await receive())["type"] == "http.disconnect"
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            async for event in stage.events(data):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body"})
            group.cancel_scope.cancel()

    async def app(scope, receive, send):
        if scope["path"] == CHAT:
            await chat(scope, receive, send)
        elif scope["path"] == "/hello":
            await PlainTextResponse((await receive())["body"] + b"!")(scope, receive, send)
        else:
            await PlainTextResponse("", 404)(scope, receive, send)

    return Outer(LLMGate(app, callbacks=[Handler()], enforce_user_param=True))


HOSTS = {"starlette": starlette_app, "fastapi": fastapi_app, "django": django_app, "bare": bare_app}


@pytest.fixture
def stage():
    return Stage()


@pytest.fixture(params=["h11", "httptools"])
def http(request):
    return request.param


@pytest.fixture(params=HOSTS.values(), ids=list(HOSTS))
def client(request, http, stage):
    """A client of the host, served."""
    with (
        serve(request.param(stage), http=http, lifespan="off") as base_url,
        httpx.Client(base_url=base_url, trust_env=False, timeout=SECONDS) as client,
    ):
        yield client


def call(model="m", **fields):
    return {"model": model, "messages": [{"role": "user", "content": "é"}], "user": "u", **fields}


def test_rewrites_reach_handler_and_client(client):
    """The handler gets the request as a hook left it, and the client the answer as another did."""
    response = client.post(CHAT, json=call())
    assert response.status_code == 200
    assert response.json()["data"] == call("rewritten from m")
    assert response.json()["after"] == "rewritten from m"
    assert response.headers["content-length"] == str(len(response.content))


def test_string_refuses_with_an_answer(client):
    """The hook's words are the model's answer, in one piece or streamed."""
    answer = client.post(CHAT, json=call("no")).json()
    assert answer["choices"][0]["message"]["content"] == "This isn't for me."
    stream = client.post(CHAT, json=call("no", stream=True))
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b'"content":"This isn\'t for me."' in stream.content
    assert stream.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_exceptions_are_told_in_the_envelope(client, stream):
    """A hook's HTTPException keeps status, headers and message, and is not the framework's to render."""
    response = client.post(CHAT, json=call("forbidden", stream=stream))
    assert (response.status_code, response.headers["x-why"]) == (403, "policy")
    assert response.json()["error"]["message"] == "not for you"


def test_moderation_refuses(client, stage):
    """A bad verdict of a hook beside the call is the answer, and a stream that had begun is ended."""
    response = client.post(CHAT, json=call("slow no, endless", stream=True))
    assert (response.status_code, response.json()["error"]["message"]) == (400, "unfit")
    assert stage.ended.wait(SECONDS)


def test_user_is_enforced(client):
    """A call that does not say who its user is reaches no handler."""
    response = client.post(CHAT, json={**call(), "user": " "})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "user")


def test_as_curl_sends_it(client):
    """curl's own content type and a trailing comma: read as JSON, and refused as bad JSON."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(CHAT, content=json.dumps(call()), headers=headers).json()["data"]["user"] == "u"
    response = client.post(CHAT, content=b'{"model": "m", "messages": [],}', headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def test_stream_arrives_as_it_is_made(client, stage):
    """The first event is with the client before the app makes the second."""
    with client.stream("POST", CHAT, json=call(stream=True)) as response:
        events = response.iter_raw()
        assert next(events) == b"data: 1\n\n"
        assert not stage.ended.is_set()
        stage.release.set()
        assert b"".join(events) == b"data: [DONE]\n\n"


def test_disconnect_reaches_the_app(client, stage):
    """When the client goes, the app's stream is ended."""
    with client.stream("POST", CHAT, json=call("endless", stream=True)) as response:
        assert next(response.iter_raw()) == b"data: 1\n\n"
    assert stage.ended.wait(SECONDS)


def test_background_work_is_done(client, stage):
    """What a framework does after its response is done behind the gate too."""
    assert client.post(CHAT, json=call()).status_code == 200
    assert stage.background.wait(SECONDS)


def test_context_variables_survive(client):
    """A handler sees what was set outside the gate, and what a pre-call hook set."""
    assert client.post(CHAT, json=call()).json()["vars"] == ["set outside", "set by the hook"]


def test_other_paths_pass(client):
    """The app's own paths take any body; a path that nobody serves is the framework's 404."""
    response = client.post("/hello", content=b"{hi,}", headers={"content-type": "text/plain"})
    assert response.content.strip(b'"') == b"{hi,}!"
    assert client.post("/nowhere", json={}).status_code == 404
    assert client.get("/nowhere").status_code == 404
