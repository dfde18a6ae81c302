"""One app as each kind of host has it, with the gate in its place, and a stage on which a test directs what it does."""

from __future__ import annotations

import json
import threading
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import litestar
import quart
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path as url
from fastapi import BackgroundTasks, Body, FastAPI
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.exceptions import HTTPException as LitestarError
from litestar.middleware import DefineMiddleware
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import CHAT
from tests.hosts import DjangoHandler, django_setup

SECONDS = 20

STREAM = "text/event-stream"

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
    """Rewrites calls and answers, and refuses calls whose model asks for it."""

    def __init__(self, stage):
        self.stage = stage

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        hook_var.set("set by the hook")
        if data["model"] == "no":
            return "This isn't for me."
        if data["model"] == "forbidden":
            raise HTTPException(403, {"error": "not for you"}, {"x-why": "policy"})
        if data["model"] == "think":
            await self.think()
        await anyio.lowlevel.checkpoint()  # a hook that suspends has the client watched meanwhile
        data["model"] = f"rewritten from {data['model']}"
        return data

    async def think(self):
        ended = self.stage.ended
        self.stage.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def async_moderation_hook(self, data):
        if "slow no" in data["model"]:
            assert await anyio.to_thread.run_sync(self.stage.began.wait, SECONDS)
            raise HTTPException(400, {"error": "unfit"})

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        response["after"] = data["model"]

    async def async_post_call_streaming_hook(self, user_api_key_dict, response):
        return response.upper()


def chunk(text):
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: %s\n\n" % json.dumps(body).encode()


class Stage:
    """What a test and the app it serves tell each other.

    `life` is the app's lifespan as the app saw it. The events are of one test each, `reset` makes new ones.
    """

    def __init__(self):
        self.life = []
        self.reset()

    def reset(self):
        self.began = threading.Event()
        self.release = threading.Event()
        self.ended = threading.Event()
        self.background = threading.Event()

    @asynccontextmanager
    async def lifespan(self, _app=None):
        self.life.append("up")
        yield
        self.life.append("down")

    @property
    def gate(self) -> dict[str, Any]:
        """The settings of the gate."""
        return {"callbacks": [Handler(self)], "enforce_user_param": True}

    def answer(self, data):
        return {"data": data, "vars": [outer_var.get(), hook_var.get()]}

    async def events(self, data):
        """Two chunks, the second when the test releases it; or one, for ever."""
        release, ended = self.release, self.ended
        try:
            self.began.set()
            yield chunk("one")
            if data["model"].endswith("endless"):
                await anyio.sleep_forever()
            assert await anyio.to_thread.run_sync(release.wait, SECONDS)
            yield chunk("two")
            yield b"data: [DONE]\n\n"
        finally:
            ended.set()


def is_teapot(data):
    return data["model"].endswith("teapot")


def starlette_routes(stage):
    async def chat(request):
        data = await request.json()
        if is_teapot(data):
            raise HTTPException(418, "short and stout")
        if data.get("stream"):
            return StreamingResponse(stage.events(data), media_type=STREAM)
        return JSONResponse(stage.answer(data), background=BackgroundTask(stage.background.set))

    async def hello(request):
        return PlainTextResponse(await request.body() + b"!")

    return [Route(CHAT, chat, methods=["POST"]), Route("/hello", hello, methods=["POST"])]


async def no_op(request, call_next):
    return await call_next(request)


def in_front(app, *, stage):
    return LLMGate(app, **stage.gate)


def gzip(app, **_):
    return GZipMiddleware(app, minimum_size=1)


def base(app, **_):
    return BaseHTTPMiddleware(app, dispatch=no_op)


def another(app, **_):
    return LLMGate(app)


def outer(app, **_):
    return Outer(app)


def starlette_app(*middleware):
    """Make a host of Starlette's whose middleware is given from the outside in."""

    def make(stage):
        app = Starlette(routes=starlette_routes(stage), lifespan=stage.lifespan)
        for factory in reversed((outer, *middleware)):
            app.add_middleware(factory, stage=stage)
        return app

    return make


def fastapi_app(stage):
    app = FastAPI(lifespan=stage.lifespan)
    app.add_middleware(LLMGate, **stage.gate)
    app.add_middleware(Outer)

    @app.post(CHAT, response_model=None)
    async def chat(background: BackgroundTasks, data: dict[str, Any] = Body()):  # noqa: B008
        if is_teapot(data):
            raise HTTPException(418, "short and stout")
        if data.get("stream"):
            return StreamingResponse(stage.events(data), media_type=STREAM)
        background.add_task(stage.background.set)
        return stage.answer(data)

    @app.post("/hello")
    async def hello(body: str = Body(media_type="text/plain")):
        return PlainTextResponse(body + "!")

    return app


def mounted_app(stage):
    """FastAPI with its gate, mounted in an app that has none; whose lifespan is the outer app's."""
    return Starlette(routes=[Mount("/llm", fastapi_app(stage))], lifespan=stage.lifespan)


def above_mount_app(stage):
    """A gate in front of an app that has the routes in a mount."""
    app = Starlette(routes=[Mount("/llm", routes=starlette_routes(stage))], lifespan=stage.lifespan)
    app.add_middleware(LLMGate, **stage.gate)
    app.add_middleware(Outer)
    return app


def _django_app(stage, chat):
    def hello(request):
        return HttpResponse(request.body + b"!", content_type="text/plain")

    django_setup()
    app = DjangoHandler([url(CHAT[1:], chat), url("hello", hello)])
    return Outer(LLMGate(app, **stage.gate))


def _django_answer(stage, request):
    class Response(JsonResponse):
        background = stage.background

        def close(self):
            super().close()
            self.background.set()

    data = json.loads(request.body)
    if is_teapot(data):
        return HttpResponse("short and stout", status=418)
    if data.get("stream"):
        return StreamingHttpResponse(stage.events(data), content_type=STREAM)
    return Response(stage.answer(data))


def django_app(stage):
    async def chat(request):
        return _django_answer(stage, request)

    return _django_app(stage, chat)


def django_sync_app(stage):
    def chat(request):
        return _django_answer(stage, request)

    return _django_app(stage, chat)


def _litestar_app(stage, **settings):
    @litestar.post(CHAT, status_code=200)
    async def chat(request: litestar.Request) -> litestar.Response:
        data = await request.json()
        if is_teapot(data):
            raise LitestarError(status_code=418, detail="short and stout")
        if data.get("stream"):
            return Stream(stage.events(data), media_type=STREAM)
        background = LitestarTask(stage.background.set)
        return litestar.Response(stage.answer(data), background=background)

    @litestar.post("/hello", status_code=200, media_type="text/plain")
    async def hello(request: litestar.Request) -> bytes:
        return await request.body() + b"!"

    return litestar.Litestar([chat, hello], lifespan=[stage.lifespan], openapi_config=None, **settings)


def litestar_app(stage):
    return Outer(LLMGate(_litestar_app(stage), **stage.gate))


def litestar_middleware_app(stage):
    """The gate as a middleware of Litestar's own, which is inside its router."""
    return _litestar_app(stage, middleware=[Outer, DefineMiddleware(LLMGate, **stage.gate)])


def quart_app(stage):
    app = quart.Quart(__name__)

    @app.post(CHAT)
    async def chat():
        data = await quart.request.get_json()
        if is_teapot(data):
            quart.abort(418)
        if data.get("stream"):
            return quart.Response(stage.events(data), content_type=STREAM)
        app.add_background_task(stage.background.set)
        return stage.answer(data)

    @app.post("/hello")
    async def hello():
        return await quart.request.get_data() + b"!"

    @app.while_serving
    async def life():
        async with stage.lifespan():
            yield

    wrapped: Any = app
    wrapped.asgi_app = Outer(LLMGate(app.asgi_app, **stage.gate))
    return app


class Bare:
    """An app of no framework's."""

    def __init__(self, stage):
        self.stage = stage

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["path"] == CHAT:
            await self.chat(scope, receive, send)
        elif scope["path"] == "/hello":
            await PlainTextResponse(await Request(scope, receive).body() + b"!")(scope, receive, send)
        else:
            await PlainTextResponse("", 404)(scope, receive, send)

    async def live(self, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        async with self.stage.lifespan():
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})

    async def chat(self, scope, receive, send):
        data = await Request(scope, receive).json()
        if is_teapot(data):
            await PlainTextResponse("short and stout", 418)(scope, receive, send)
        elif data.get("stream"):
            await self.stream(data, receive, send)
        else:
            background = self.stage.background
            await JSONResponse(self.stage.answer(data))(scope, receive, send)
            background.set()

    async def stream(self, data, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", STREAM.encode())]})

        async def listen():
            assert (await receive())["type"] == "http.disconnect"
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            async for event in self.stage.events(data):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body"})
            group.cancel_scope.cancel()


def bare_app(stage):
    return Outer(LLMGate(Bare(stage), **stage.gate))


HOSTS = {
    "starlette": starlette_app(in_front),
    "gate over gate": starlette_app(another, in_front),
    "gate under gate": starlette_app(in_front, another),
    "gate over gzip": starlette_app(in_front, gzip),
    "gate under gzip": starlette_app(gzip, in_front),
    "gate over BaseHTTPMiddleware": starlette_app(in_front, base),
    "gate under BaseHTTPMiddleware": starlette_app(base, in_front),
    "above a mount": above_mount_app,
    "fastapi": fastapi_app,
    "mounted": mounted_app,
    "django": django_app,
    "django, sync views": django_sync_app,
    "litestar": litestar_app,
    "litestar's middleware": litestar_middleware_app,
    "quart": quart_app,
    "bare": bare_app,
}

# What stands before the paths of a host.
PREFIXES = {"mounted": "/llm", "above a mount": "/llm"}

# Django raises for a lifespan, as servers allow.
WITHOUT_LIFESPAN = {"django", "django, sync views"}
