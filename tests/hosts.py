"""Real apps of the three frameworks, and the bare protocol, that note what their handlers read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import JsonResponse
from django.urls import include, path
from fastapi import Body, FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002  # FastAPI reads the annotation
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_llm_gate import CallHooks
from asgi_llm_gate.form_data import without_files

ANSWER = {"id": "x", "object": "echo", "choices": []}

# The keys that the gate puts beside the client's own.
BESIDE = frozenset({"proxy_server_request", "litellm_call_id", "secret_fields", "litellm_metadata", "metadata"})

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "QUERY"]


@dataclass
class Note:
    """What one handler read of one request."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    data: Any

    def values(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name.encode()]


@dataclass
class Host:
    """An app that keeps the scope of each call it gets, and a note of each that a handler could read."""

    app: Any
    scopes: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        await self.app({**scope, "notes": self.notes}, receive, send)


class Witness(CallHooks):
    """Hooks that look at everything there is and change nothing."""

    def __init__(self):
        self.requests = []
        self.call_types = []
        self.judged = []
        self.responses = []
        self.failures = []

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        self.requests.append(client_fields(data))
        self.call_types.append(call_type)

    async def async_moderation_hook(self, data, user_api_key_dict, call_type):
        self.judged.append(client_fields(data))
        return data

    async def async_post_call_success_hook(self, data, user_api_key_dict, response):
        self.responses.append(response.model_dump())

    async def async_post_call_failure_hook(self, request_data, original_exception, user_api_key_dict):
        self.failures.append(original_exception)


class Reader(CallHooks):
    """A pre-call hook alone, that notes what it was given."""

    def __init__(self):
        self.requests = []

    async def async_pre_call_hook(self, data):
        self.requests.append(client_fields(data))


def client_fields(data):
    """What the client sent, in a copy: all but the gate's keys, and of files the names alone."""
    fields = {name: value for name, value in data.items() if name not in BESIDE}
    if sent := data["metadata"]["requester_metadata"]:
        fields["metadata"] = sent
    return json.loads(json.dumps(without_files(fields)))


def note(scope, body, data):
    scope["notes"].append(Note(scope["method"], scope["path"], list(scope["headers"]), body, data))


async def starlette_handler(request):
    try:
        data = await request.json()
    except (ValueError, RecursionError):
        return JSONResponse({}, 400)
    note(request.scope, await request.body(), data)
    return JSONResponse(ANSWER)


async def fastapi_handler(request: Request, data: Annotated[dict[str, Any], Body()]):
    note(request.scope, await request.body(), data)
    return ANSWER


class Model(BaseModel):
    """What a handler declares of a call's fields: the rest it is given as it came."""

    model_config = ConfigDict(extra="allow")

    user: str | None = None


async def model_handler(request: Request, data: Model):
    note(request.scope, await request.body(), data.model_dump(exclude_unset=True))
    return ANSWER


async def django_handler(request, **_segments):
    try:
        data = json.loads(request.body)
    except (ValueError, RecursionError):
        return JsonResponse({}, status=400)
    note(request.scope, request.body, data)
    return JsonResponse(ANSWER)


class DjangoHandler(ASGIHandler):
    """Django with URLs of its own, whatever settings the process has."""

    def __init__(self, urls):
        super().__init__()
        self._urls = tuple(urls)

    def create_request(self, scope, body_file):
        request, error = super().create_request(scope, body_file)
        request.urlconf = self._urls
        return request, error


PATHS = ["/v1/chat/completions", "/engines/{model}/chat/completions", "/v1/embeddings", "/v1/orders"]


@cache
def starlette_app():
    routes = [Route(path, starlette_handler, methods=METHODS) for path in PATHS]
    return Starlette(routes=[*routes, Mount("/llm", routes=routes)])


@cache
def fastapi_app(handler=fastapi_handler):
    app = FastAPI()
    for prefix in ("", "/llm"):
        for route in PATHS:
            app.add_api_route(prefix + route, handler, methods=METHODS)
    return app


def model_app():
    return fastapi_app(model_handler)


def django_setup():
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"], DATA_UPLOAD_MAX_MEMORY_SIZE=None, MIDDLEWARE=[], ROOT_URLCONF=__name__, SECRET_KEY="s"
        )
        django.setup(set_prefix=False)


@cache
def django_app():
    django_setup()
    urls = [path(route[1:].replace("{model}", "<model>"), django_handler) for route in PATHS]
    return DjangoHandler([*urls, path("llm/", include(urls))])


APPS = {"starlette": starlette_app, "fastapi": fastapi_app, "model": model_app, "django": django_app}

# Each framework's letter in the tables; FastAPI has two, for handlers that take a dict and a model of the body.
LETTERS = {"starlette": "S", "fastapi": "F", "model": "M", "django": "D"}


def host(framework):
    return Host(APPS[framework]())
