"""The gate inside vLLM's server, loaded by the rule of its option `--middleware`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import httpx
import pytest
from fastapi import Body, FastAPI
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from asgi_llm_gate import LLMGate
from asgi_llm_gate.config import ConfigError
from tests.commandline import ROOT
from tests.servers import serve

NAME = "asgi_llm_gate.LLMGate"


class ApiKey:
    """What vLLM's `--api-key` puts into its app, before what `--middleware` names."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and (b"authorization", b"Bearer sk-vllm") not in scope["headers"]:
            await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def add(app, name):
    """Add a middleware as vLLM does: a class with no arguments, a coroutine function as a dispatch."""
    module, attribute = name.rsplit(".", 1)
    found = getattr(importlib.import_module(module), attribute)
    if inspect.isclass(found):
        app.add_middleware(found)
    elif inspect.iscoroutinefunction(found):
        app.middleware("http")(found)
    else:
        raise ValueError(f"Invalid middleware {name}. Must be a function or a class.")


@pytest.fixture
def app():
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(data: dict[str, Any] = Body()):  # noqa: B008
        return data

    @app.get("/health")
    async def health():
        return {"ok": True}

    app.add_middleware(ApiKey)
    return app


def test_the_example_configures_the_gate_that_vllm_loads(app, monkeypatch):
    """Hooks and `user` of the file that the environment names; outside vLLM's own check of the key."""
    monkeypatch.setenv("ASGI_LLM_GATE_CONFIG", str(ROOT / "examples" / "vllm" / "gate.yaml"))
    add(app, NAME)
    key = {"authorization": "Bearer sk-vllm"}

    def said(content, **fields):
        return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}

    with serve(app) as url, httpx.Client(base_url=url) as client:

        def ask(data, headers=key):
            return client.post("/v1/chat/completions", json=data, headers=headers)

        assert ask(said("good morning", user="me")).json() == said("good morning", user="me")
        assert ask(said("Hello world", user="me")).json()["choices"][0]["message"]["content"] == (
            "This is an invalid response"
        )
        assert ask(said("good morning")).json()["error"]["param"] == "user"
        assert ask(said("good morning", user="me"), {}).json() == {"error": "Unauthorized"}
        assert ask(said("good morning"), {}).status_code == 400
        assert client.get("/health", headers=key).json() == {"ok": True}
        assert client.get("/health").status_code == 401


def test_without_a_file_the_gate_that_vllm_loads_checks_bodies_alone(app, monkeypatch):
    monkeypatch.delenv("ASGI_LLM_GATE_CONFIG", raising=False)
    add(app, NAME)
    with serve(app) as url:
        headers = {"authorization": "Bearer sk-vllm"}
        assert httpx.post(f"{url}/v1/chat/completions", json={"model": "m"}, headers=headers).json() == {"model": "m"}
        assert httpx.post(f"{url}/v1/chat/completions", json=[], headers=headers).status_code == 400


def test_a_file_that_is_not_there_stops_the_server(app, monkeypatch):
    """The app does not start without the guard it was asked for."""
    monkeypatch.setenv("ASGI_LLM_GATE_CONFIG", "nowhere.yaml")
    add(app, NAME)
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        app.build_middleware_stack()


async def passes(request, call_next):
    return await call_next(request)


def test_the_rule_takes_functions_too_and_nothing_else(app):
    """The stand-in for vLLM's loading is as strict as the original, and what it adds last stands outermost."""
    add(app, f"{__name__}.passes")
    assert TestClient(app).get("/health").status_code == 401
    with pytest.raises(ValueError, match="Invalid middleware"):
        add(app, f"{__name__}.NAME")


def test_a_gate_outside_that_function_is_fine(app, monkeypatch):
    monkeypatch.delenv("ASGI_LLM_GATE_CONFIG", raising=False)
    add(app, f"{__name__}.passes")
    add(app, NAME)
    assert app.user_middleware[0].cls is LLMGate
    assert (app.user_middleware[0].args, app.user_middleware[0].kwargs) == ((), {})
    headers = {"authorization": "Bearer sk-vllm"}
    assert TestClient(app).post("/v1/chat/completions", json={"model": "m"}, headers=headers).json() == {"model": "m"}
